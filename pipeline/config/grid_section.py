"""The section `grid` of a campaign: sizes of tiles, blocks and windows."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.config.section import Section
from pipeline.errors import ConfigError
from pipeline.halo import Layout


class GridSection(Section):
    """Sizes in pixels of 0.20 m: the core divides the block, and the block divides the tile.

    `grid: auto` is short for `grid: {auto: true}`.
    """

    # Left out of records where it is not used, so that those of campaigns with stated sizes stay as they are.
    auto: bool = Field(default=False, exclude_if=lambda auto: not auto)
    """Choose core, block and window by `cluster.memory_bytes`, once for the campaign; tile and halo can be given
    beside it. The larger the windows, the fewer pixels are computed twice. By default the halo is the recipe's
    smallest."""
    tile: int = Field(default=25_000, ge=50, le=50_000)
    """Side of a tile: the unit that is sealed and published. 25 000 px are 5 km."""
    block: int = Field(default=5_000, ge=1)
    """Side of a block: one Dask task. It divides the tile."""
    core: int = Field(default=2_500, ge=1)
    """Side of the part of a window that is kept. It divides the block."""
    halo: int = Field(default=160, ge=0, le=50_000)
    """Pixels on each side of the core that the network sees and that are thrown away."""
    window: int = Field(default=2_848, ge=1, le=50_000)
    """Side of what the network sees at once: at least the core and two halos, rounded up to the stride."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, given: object) -> object:
        return {"auto": True} if given == "auto" else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if stated := self.model_fields_set & {"block", "core", "window"} if self.auto else ():
            raise ValueError(f"auto chooses block, core and window; remove {', '.join(sorted(stated))}, or auto")
        return self

    def layout(self, stride: int) -> Layout:
        """The layout of the windows for a network of this stride.

        Raises:
            ConfigError: sizes do not divide each other, the window is too small for core and halo, or the sizes are
                `auto` and not resolved.
        """
        if self.auto:
            raise ConfigError("sizes are auto and not resolved yet; run `landcover plan` first")
        layout = Layout(core=self.core, halo=self.halo, window=self.window, stride=stride)
        layout.check_block(self.block, self.tile)
        return layout
