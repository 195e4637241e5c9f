"""Layers, classes, names and colours: the only copy.

FLAIR values are 1..19 in masks and in our products; 0 is no data. The network's index of a class is
its value minus one. Names and colours are those of the FLAIR-INC model cards.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

NODATA = 0

Layer = Literal["landcover", "confidence"]
LAYERS: tuple[Layer, Layer] = ("landcover", "confidence")
"""What is mapped, in the order of every stacked (layer, y, x) array."""


@dataclass(frozen=True)
class LandCover:
    """One class of the nomenclature: its FLAIR value 1..19, English name, and #rrggbb colour."""

    value: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, each 0..255."""
        return (int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16))

    @property
    def slug(self) -> str:
        """The name as one word, as CF's `flag_meanings` wants it."""
        return self.name.replace(" ", "_")


FLAIR = (
    LandCover(1, "building", "#db0e9a"),
    LandCover(2, "pervious surface", "#938e7b"),
    LandCover(3, "impervious surface", "#f80c00"),
    LandCover(4, "bare soil", "#a97101"),
    LandCover(5, "water", "#1553ae"),
    LandCover(6, "coniferous", "#194a26"),
    LandCover(7, "deciduous", "#46e483"),
    LandCover(8, "brushwood", "#f3a60d"),
    LandCover(9, "vineyard", "#660082"),
    LandCover(10, "herbaceous vegetation", "#55ff00"),
    LandCover(11, "agricultural land", "#fff30d"),
    LandCover(12, "plowed land", "#e4df7c"),
    LandCover(13, "swimming pool", "#3de6eb"),
    LandCover(14, "snow", "#ffffff"),
    LandCover(15, "clear cut", "#8ab3a0"),
    LandCover(16, "mixed", "#6b714f"),
    LandCover(17, "ligneous", "#c5dc42"),
    LandCover(18, "greenhouse", "#9999ff"),
    LandCover(19, "other", "#000000"),
)

BY_VALUE = {c.value: c for c in FLAIR}


def classes(values: Iterable[int]) -> tuple[LandCover, ...]:
    """The classes of these FLAIR values, in the order of the values.

    Raises:
        KeyError: for a value that is not 1..19.
    """
    return tuple(BY_VALUE[v] for v in values)


def colormap() -> dict[int, tuple[int, int, int, int]]:
    """Value → RGBA for a raster's palette: every class opaque, no data transparent."""
    return {NODATA: (0, 0, 0, 0)} | {c.value: (*c.rgb, 255) for c in FLAIR}
