"""The windows of the network: the core that is kept, and the aligned rectangle around it that is read, the halo."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.grid import Window


def _smallest_window(core: int, halo: int, stride: int) -> int:
    # Cores start at multiples of gcd(core, stride), so rounding down adds at most stride - gcd.
    starts = range(0, stride, math.gcd(core, stride))
    lead = max((start - halo) % stride for start in starts)
    return -(-(core + 2 * halo + lead) // stride) * stride


@dataclass(frozen=True)
class Layout:
    """How blocks are cut into windows: sizes in pixels that must fit each other.

    The read of a window starts at its core's start minus the halo, rounded down to a multiple of the stride. For a full
    core its size is `window`. For a smaller core at a ragged edge it is the smallest multiple of the stride that
    contains core and halo.
    """

    core: int = 2500
    """Side of the part of a window that is kept; divides the block."""
    halo: int = 160
    """Least width of the margin around the core, which the network sees and the map drops."""
    window: int = 2848
    """Side of the image that the network sees at once; a multiple of the stride."""
    stride: int = 32
    """The network's stride: only shifts by multiples of it shift the map alike."""

    def __post_init__(self) -> None:
        if self.core < 1 or self.halo < 0 or self.stride < 1:
            raise ConfigError(
                f"core and stride must be at least 1 px and halo at least 0; got core {self.core}, "
                f"stride {self.stride}, halo {self.halo}"
            )
        if self.window % self.stride:
            lower = self.window // self.stride * self.stride
            raise ConfigError(
                f"window {self.window} px is not a multiple of the network's stride {self.stride}: "
                f"use {lower} or {lower + self.stride}"
            )
        if self.window < self.smallest_window:
            raise ConfigError(
                f"window {self.window} px is too small for core {self.core} + 2 × halo {self.halo}: aligned to the "
                f"stride {self.stride} it needs {self.smallest_window} px. Use a larger window, or a smaller core or "
                "halo"
            )

    @classmethod
    def for_core(cls, core: int, halo: int, stride: int = 32) -> "Layout":
        """The layout with this core and halo, and the smallest window that contains them."""
        return cls(core, halo, _smallest_window(core, halo, stride), stride)

    @classmethod
    def for_window(cls, window: int, halo: int, stride: int = 32) -> "Layout":
        """The layout with this window and halo, and the largest core that is a multiple of the stride.

        Raises:
            ConfigError: the window is not a multiple of the stride, or leaves no core.
        """
        padded_halo = -(-halo // stride) * stride
        core = (window - 2 * padded_halo) // stride * stride
        if window % stride == 0 and core < stride:
            raise ConfigError(
                f"window {window} px leaves no core between halos of {halo} px at stride {stride}: "
                f"use a window of at least {2 * padded_halo + stride} px"
            )
        return cls(core=max(core, 1), halo=halo, window=window, stride=stride)

    @property
    def smallest_window(self) -> int:
        """The smallest window that contains core and halo wherever a core may start."""
        return _smallest_window(self.core, self.halo, self.stride)

    @property
    def overlap_factor(self) -> float:
        """Pixels that full windows compute for each pixel that they keep."""
        return (self.window / self.core) ** 2

    @property
    def reach(self) -> int:
        """The largest distance beyond a block's edge at which its windows read, in pixels."""
        return self.window - self.core

    def check_block(self, block: int, tile: int) -> None:
        """Checks that core divides block and block divides tile; raises ConfigError otherwise."""
        if block % self.core or tile % block:
            raise ConfigError(
                f"each of these sizes must divide the next: core {self.core}, block {block}, tile {tile} px "
                f"(block / core = {block / self.core:.3f}, tile / block = {tile / block:.3f})"
            )

    def read_of(self, core: Window) -> Window:
        """The aligned window that contains `core` and its halo; it may extend beyond the domain's edge."""
        top = (core.row - self.halo) // self.stride * self.stride
        left = (core.col - self.halo) // self.stride * self.stride
        return Window(
            top, left, self._extent(top, core.bottom, core.height), self._extent(left, core.right, core.width)
        )

    def _extent(self, start: int, core_end: int, core_size: int) -> int:
        if core_size == self.core:
            return self.window
        return -(-(core_end + self.halo - start) // self.stride) * self.stride

    def windows_of(self, block: Window) -> list[tuple[Window, Window]]:
        """Pairs (core, read) of a block's windows, row by row; the cores cover the block exactly once."""
        return [(core, self.read_of(core)) for core in block.split(self.core)]

    def read_of_block(self, block: Window) -> Window:
        """The rectangle that contains the reads of all windows of a block."""
        top, bottom = self._read_edges(block.row, block.bottom)
        left, right = self._read_edges(block.col, block.right)
        return Window.from_edges(top, left, bottom, right)

    def _read_edges(self, start: int, end: int) -> tuple[int, int]:
        """Along an axis, where the reads of a block's cores begin and end.

        The first core's read begins first. The last one's ends last, or if that core is cut off the one's before it.
        """
        last = start + (end - start - 1) // self.core * self.core
        ends = []
        for core in (max(start, last - self.core), last):
            read, core_end = (core - self.halo) // self.stride * self.stride, min(core + self.core, end)
            ends.append(read + self._extent(read, core_end, core_end - core))
        return (start - self.halo) // self.stride * self.stride, max(ends)
