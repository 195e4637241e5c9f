"""Layers and classes with their names and colours, and the numbers of the classes in other nomenclatures.

FLAIR values are 1..19 in masks and in products, and 0 is nodata. The network's index of a class is its value minus one.
Names and colours are those of the FLAIR-INC model cards. IGN's other products have other numbers for the same classes;
`to_flair` converts them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import ConfigError

NODATA = 0

Layer = Literal["landcover", "confidence"]
LAYERS: tuple[Layer, Layer] = ("landcover", "confidence")
"""The layers of a map, in the order of every stacked array (layer, y, x)."""
OptionalLayer = Literal["probabilities", "disagreement"]
OPTIONAL_LAYERS: tuple[OptionalLayer, ...] = get_args(OptionalLayer)
"""Layers that a campaign may add to the map: the probability of each live class, and how much forwards disagree.

A byte of them is 0 for nodata, else 1 + round(`SHARE_STEPS` × share), where the share is 0..1.
"""
SHARE_STEPS = 254
AnyLayer = Layer | OptionalLayer
Language = Literal["en", "fr"]
Palette = Literal["flair", "safe"]
"""FLAIR's colours, or colours for colour-blind users."""
Names = Literal["flair", "cosia"]
"""Whose names of the classes."""


def planes_of(layers: Sequence[OptionalLayer], live: Sequence[int]) -> int:
    """Planes of some optional layers: one for each live class, and one for the disagreement."""
    return sum(len(live) if layer == "probabilities" else 1 for layer in layers)


@dataclass(frozen=True)
class LandCover:
    """One class of the nomenclature."""

    value: int
    """FLAIR value, 1..19."""
    name: str
    """In English."""
    colour: str
    """`#rrggbb`."""
    cosia: int | None
    """CoSIA's `numero`, 1..15; None where CoSIA has no such class."""
    flair_hub: int
    """FLAIR-HUB's index, 0..18."""
    french: str
    """The name in French."""
    safe: str | None = None
    """`#rrggbb` for colour-blind users: any two of these colours differ by a CIEDE2000 of 12 or more as people without
    one kind of cones see them. None of the classes that the published networks do not map."""
    cosia_name: str | None = None
    """CoSIA's name, which is French; None where CoSIA has no such class."""

    def label(self, language: Language, names: Names = "flair") -> str:
        """The name in this language. CoSIA's names are French; a class that CoSIA does not have keeps FLAIR's."""
        own = self.french if language == "fr" else self.name
        return (self.cosia_name or own) if names == "cosia" else own

    def colour_in(self, palette: Palette) -> str:
        """`#rrggbb` of this palette; a class without a colour for colour-blind users keeps FLAIR's."""
        return (self.safe if palette == "safe" else None) or self.colour

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, each 0..255."""
        return (int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16))

    @property
    def slug(self) -> str:
        """The name as one word, for CF's `flag_meanings`."""
        return self.name.replace(" ", "_")


FLAIR = (
    LandCover(1, "building", "#db0e9a", 1, 0, "bâtiment", "#ce2582", "Bâtiment"),
    LandCover(2, "pervious surface", "#938e7b", 2, 4, "zone perméable", "#999687", "Zone perméable"),
    LandCover(3, "impervious surface", "#f80c00", 3, 3, "zone imperméable", "#ee0009", "Zone imperméable"),
    LandCover(4, "bare soil", "#a97101", 5, 5, "sol nu", "#937250", "Sol nu"),
    LandCover(5, "water", "#1553ae", 6, 6, "eau", "#1a5dd6", "Surface eau"),
    LandCover(6, "coniferous", "#194a26", 8, 13, "conifères", "#24492a", "Conifère"),
    LandCover(7, "deciduous", "#46e483", 9, 12, "feuillus", "#1aedc4", "Feuillu"),
    LandCover(8, "brushwood", "#f3a60d", 10, 14, "broussailles", "#e79709", "Broussaille"),
    LandCover(9, "vineyard", "#660082", 11, 11, "vigne", "#630081", "Vigne"),
    LandCover(10, "herbaceous vegetation", "#55ff00", 12, 8, "végétation herbacée", "#8ec87e", "Pelouse"),
    LandCover(11, "agricultural land", "#fff30d", 13, 9, "terre agricole", "#f5ea03", "Culture"),
    LandCover(12, "plowed land", "#e4df7c", 14, 10, "terre labourée", "#f1fea9", "Terre labourée"),
    LandCover(13, "swimming pool", "#3de6eb", 4, 2, "piscine", None, "Piscine"),
    LandCover(14, "snow", "#ffffff", 7, 7, "neige", None, "Neige"),
    LandCover(15, "clear cut", "#8ab3a0", None, 15, "coupe"),
    LandCover(16, "mixed", "#6b714f", None, 17, "mixte"),
    LandCover(17, "ligneous", "#c5dc42", None, 16, "ligneux"),
    LandCover(18, "greenhouse", "#9999ff", 15, 1, "serre", None, "Serre"),
    LandCover(19, "other", "#000000", None, 18, "autre"),
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

_TWELVE = tuple(range(1, 13))
_FIFTEEN = (*_TWELVE, 13, 14, 18)


def to_flair(nomenclature: Nomenclature) -> dict[int, int]:
    """A nomenclature's numbers → FLAIR values; all its classes are among FLAIR's."""
    if nomenclature == "cosia":
        return {c.cosia: c.value for c in FLAIR if c.cosia is not None}
    if nomenclature == "flair-hub":
        return {c.flair_hub: c.value for c in FLAIR}
    kept = {"flair12": _TWELVE, "flair15": _FIFTEEN, "flair19": tuple(BY_VALUE)}[nomenclature]
    return {value: value for value in kept}
