"""Layers and classes with their names and colours, and the numbers of the classes in other nomenclatures.

FLAIR values are 1..19 in masks and in products, and 0 is nodata. The network's index of a class is its value minus one.
Names and colours are those of the FLAIR-INC model cards. IGN's other products have other numbers for the same classes;
`CROSSWALK` converts between them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

NODATA = 0

Layer = Literal["landcover", "confidence"]
LAYERS: tuple[Layer, Layer] = ("landcover", "confidence")
"""The layers of a map, in the order of every stacked array (layer, y, x)."""


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
        """The name as one word, for CF's `flag_meanings`."""
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

GROUPS: dict[str, tuple[int, ...]] = {
    "sealed": (1, 3),
    "bare ground": (2, 4),
    "waters": (5, 13),
    "woodland": (6, 7, 8, 15, 16, 17),
    "farmland": (9, 11, 12, 18),
    "open vegetation": (10,),
}
"""Groups of classes: name → FLAIR values. No class is in two groups, and snow and other are in none."""


def members(name: str | int) -> tuple[int, ...]:
    """The FLAIR values of a group by its name, or of a class by its name, slug or value.

    Raises:
        ConfigError: there is no such group or class.

    Example:
        >>> members("sealed"), members("bare soil")
        ((1, 3), (4,))
    """
    if isinstance(name, int) and name in BY_VALUE:
        return (name,)
    if isinstance(name, str):
        plain = name.lower().replace("_", " ")
        if plain in GROUPS:
            return GROUPS[plain]
        if found := tuple(c.value for c in FLAIR if c.name == plain):
            return found
    raise ConfigError(
        f"{name!r} is neither a group ({', '.join(GROUPS)}) nor a class ({', '.join(c.name for c in FLAIR)})"
    )


def classes(values: Iterable[int]) -> tuple[LandCover, ...]:
    """The classes of these FLAIR values, in the order of the values.

    Raises:
        KeyError: a value is not 1..19.
    """
    return tuple(BY_VALUE[v] for v in values)


def colormap() -> dict[int, tuple[int, int, int, int]]:
    """Palette of a raster: value → RGBA, with opaque classes and transparent nodata."""
    return {NODATA: (0, 0, 0, 0)} | {c.value: (*c.rgb, 255) for c in FLAIR}


Nomenclature = Literal["flair19", "flair15", "flair12", "cosia", "flair-hub"]

CROSSWALK: dict[int, tuple[int | None, int]] = {
    1: (1, 0),
    2: (2, 4),
    3: (3, 3),
    4: (5, 5),
    5: (6, 6),
    6: (8, 13),
    7: (9, 12),
    8: (10, 14),
    9: (11, 11),
    10: (12, 8),
    11: (13, 9),
    12: (14, 10),
    13: (4, 2),
    14: (7, 7),
    15: (None, 15),
    16: (None, 17),
    17: (None, 16),
    18: (15, 1),
    19: (None, 18),
}
"""FLAIR value → (CoSIA's `numero` 1..15 or None, FLAIR-HUB's index 0..18)."""

_TWELVE = tuple(range(1, 13))
_FIFTEEN = (*_TWELVE, 13, 14, 18)


def to_flair(nomenclature: Nomenclature) -> dict[int, int]:
    """A nomenclature's numbers → FLAIR values; all its classes are among FLAIR's."""
    if nomenclature == "cosia":
        return {cosia: value for value, (cosia, _) in CROSSWALK.items() if cosia is not None}
    if nomenclature == "flair-hub":
        return {hub: value for value, (_, hub) in CROSSWALK.items()}
    kept = {"flair12": _TWELVE, "flair15": _FIFTEEN, "flair19": tuple(BY_VALUE)}[nomenclature]
    return {value: value for value in kept}
