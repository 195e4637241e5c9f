"""Positions in which test-time augmentation shows a window to a network. Nothing here imports torch."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from pipeline.config import Tta

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """A symmetry of the square: mirrored along some axes, then transposed or not.

    A network of stride s divides a window into cells of s px. A window's sides are multiples of s, so a turned window
    has the same cells in other places: its phase does not change.
    """

    mirrored: tuple[int, ...] = ()
    """Of the axes -2 (rows, top to bottom) and -1 (columns, left to right)."""
    transposed: bool = False

    def apply(self, pixels: "Tensor") -> "Tensor":
        """The turned array: (…, y, x), or (…, x, y) where it is transposed."""
        turned = pixels.flip(self.mirrored) if self.mirrored else pixels
        return turned.transpose(-2, -1) if self.transposed else turned

    def undo(self, turned: "Tensor") -> "Tensor":
        """The array in its own position again: `undo(apply(pixels))` is `pixels`."""
        pixels = turned.transpose(-2, -1) if self.transposed else turned
        return pixels.flip(self.mirrored) if self.mirrored else pixels


_MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
TURNS: dict[Tta, tuple[Turn, ...]] = {
    "none": (Turn(),),
    "flips": tuple(Turn(mirrored) for mirrored in _MIRRORS),
    "d4": tuple(Turn(mirrored, transposed) for transposed, mirrored in product((False, True), _MIRRORS)),
}
"""The positions of each kind of test-time augmentation, in the order in which their probabilities are added."""
