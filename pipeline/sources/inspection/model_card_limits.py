"""What the models' cards say that the models are not for, looked for in a delivery; and what windows cannot map.

A limit that is passed is refused unless it is accepted by name; accepted, it is noted in the items and in the
collection, and a campaign that maps the domain must accept it too. Whatever changes pixels (resampling) is in
the fingerprint through the files' own georeference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import LimitName, Recipe
from pipeline.errors import ConfigError
from pipeline.grid import CRS
from pipeline.sources.delivery.names import OVERSEAS, Delivered
from pipeline.sources.inspection.lowest_level import Sums

REASONS: Mapping[LimitName, str] = {
    "resolution": "the card: 0.20 m only, trained without scale augmentation",
    "bit_depth": "the card: BD ORTHO's 8-bit radiometry only",
    "territory": "the card: metropolitan France only",
    "radiometry": "the card: BD ORTHO's radiometric processing only; other sensors want transfer learning",
    "height_encoding": "the card: height above ground in steps of 0.20 m, 0..255",
    "whole_window": "its decoder pools over the whole window, so a pixel's class depends on where windows lie, and "
    "seams show where two meet; U-Net, U-Net++, Linknet, SegFormer and nearly FPN look no farther than the halo",
}

MEAN_STDS = 1.0
"""A domain's mean may lie so many training standard deviations from the training mean.

The spread of the 75 training domains is not published. The published deviation is over all pixels, so its square is the
variance inside domains plus that between them; even if half of it lay between domains, one such deviation
would be 1.4 of theirs. Single patches of 100 m lie up to 1.4 off (bare rock); a département averages 10⁹ pixels.
"""
STD_RATIO = (1 / 3, 2.0)
"""A domain's deviation over the training one. Towards small values wide: lowest resolution levels are averages, and
five real patches have 0.44..1.25."""
_MIN_CELLS = 4096
"""Cells on which a mean and a deviation are judged; fewer say nothing about a domain."""

_HOLDS_KM = (90.0, 6040.0, 1250.0, 7120.0)
"""Metropolitan France with Corsica in EPSG:2154: (left, bottom, right, top)."""

_METRES_UNITS = 50
"""Units (10 m) below which 99.9 % of ready heights lie where they are metres: trees and houses pass 10 m in any
département, and metres pass 50 nowhere."""
_SATURATED_M = 51.0
_SUNKEN_M = -2.0
"""Surface models err by less, even over water."""


@dataclass(frozen=True)
class Excess:
    """A limit that is passed, and where."""

    limit: LimitName
    sentence: str
    """What came, and what was expected."""
    tile: str | None = None
    """The tile that it is about; None where it is about the domain."""

    @property
    def refusal(self) -> str:
        """The sentence with the card's reason and what to do."""
        return (
            f"{self.sentence} ({REASONS[self.limit]}; to map it all the same: --accept {self.limit} here, and "
            f"accept_limits: [{self.limit}] in the campaign)"
        )

    @property
    def note(self) -> str:
        """The sentence as the items keep it."""
        return f"limit {self.limit} accepted: {self.sentence} ({REASONS[self.limit]})"


def settle(found: Iterable[Excess], accept: Sequence[LimitName]) -> tuple[list[str], list[Excess]]:
    """(refusals of what is not accepted, what is accepted)."""
    excess = list(found)
    return [e.refusal for e in excess if e.limit not in accept], [e for e in excess if e.limit in accept]


def radiometry(sums: Sums, recipe: Recipe) -> list[Excess]:
    """Bands whose mean or deviation over the domain are far from the training statistics.

    Args:
        sums: over all tiles; three components of RVB, then those of IRC where the recipe has infrared.
        recipe: its means and deviations are those of the training images, levels 0..255.
    """
    if sums.count < _MIN_CELLS:
        return []
    components = {"red": 0, "green": 1, "blue": 2, "nir": 3}
    far = []
    for band, mean, std in zip(recipe.bands, recipe.mean, recipe.std, strict=True):
        at = components.get(band)
        if at is None:
            continue
        off, ratio = (float(sums.mean[at]) - mean) / std, float(sums.std[at]) / std
        if abs(off) > MEAN_STDS or not STD_RATIO[0] <= ratio <= STD_RATIO[1]:
            far.append(
                f"{band} mean {sums.mean[at]:.0f}, deviation {sums.std[at]:.0f} (trained on {mean:.0f}, {std:.0f})"
            )
    if not far:
        return []
    return [
        Excess(
            "radiometry",
            f"the imagery's levels are far from those of the training images: {'; '.join(far)}; expected means within "
            f"{MEAN_STDS:g} training deviation and deviations of {STD_RATIO[0]:.2f}..{STD_RATIO[1]:g} times theirs",
        )
    ]


def territory(files: Sequence[Delivered]) -> tuple[str, list[Excess]]:
    """(the CRS that imagery's names promise, what is not metropolitan France by its names)."""
    imagery = [f for f in files if f.kind in ("rvb", "irc", "height")]
    codes = {projection(f) for f in imagery} & OVERSEAS.keys()
    excess = []
    if overseas := sorted({f.departement for f in imagery if f.departement and not metropolitan(f.departement)}):
        excess.append(
            Excess("territory", f"département {', '.join(overseas)} is outside metropolitan France: {imagery[0].path}")
        )
    elif codes:
        excess.append(Excess("territory", f"{imagery[0].path}: lies outside metropolitan France by its projection"))
    # Files of several projections: the first one's is expected, and the others' headers will contradict it.
    return (f"EPSG:{OVERSEAS[min(codes)]}" if codes else CRS), excess


def check_windows(recipe: Recipe, accept: Sequence[LimitName]) -> None:
    """A map of many windows wants a network that looks no farther than their halo.

    Raises:
        ConfigError: the recipe's decoder pools over whole windows, and `accept` does not name `whole_window`.
    """
    if recipe.pools_whole_window and "whole_window" not in accept:
        raise ConfigError(
            f"recipe {recipe.name} has decoder {recipe.architecture!r}, with which no map of several windows is made "
            f"({REASONS['whole_window']}); to map with it all the same, accept_limits: [whole_window] in the campaign"
        )


def metropolitan(departement: str) -> bool:
    """`38`, `2A` → True; `974` → False."""
    return departement in ("2A", "2B") or (departement.isdigit() and 1 <= int(departement) <= 95)


def projection(file: Delivered) -> str:
    """`LA93` or `U40S` of an imagery's name; empty where the name has none."""
    parts = file.path.name.upper().split("-")
    return parts[4] if len(parts) > 5 else ""


def outside_france(bounds: tuple[float, float, float, float]) -> bool:
    """True where (left, bottom, right, top) in metres of EPSG:2154 is not wholly in the box of metropolitan France."""
    left, bottom, right, top = (b / 1000 for b in bounds)
    box = _HOLDS_KM
    return left < box[0] or bottom < box[1] or right > box[2] or top > box[3]


def ready_heights(counts: NDArray[np.int64]) -> list[Excess]:
    """What is implausible of ready heights.

    Args:
        counts: int64 (256,): how often each value was seen over a sample of the domain.
    """
    total = int(counts.sum())
    if not total:
        return []
    share = np.cumsum(counts) / total
    tall = int(np.searchsorted(share, 0.999))
    if counts[0] == total:
        return [Excess("height_encoding", "the ready heights are 0 everywhere; expected units of 0.2 m above ground")]
    if tall < _METRES_UNITS:
        return [
            Excess(
                "height_encoding",
                f"99.9 % of the ready heights are at most {tall}, that is {tall / 5:g} m: they look like metres; "
                "expected units of 0.2 m: gdal_translate -ot Byte -scale 0 51 0 255 makes them so",
            )
        ]
    if counts[255] > total / 2:
        return [
            Excess("height_encoding", f"{counts[255] / total:.0%} of the ready heights are 255: not heights of 0.2 m")
        ]
    return []


def relief_heights(metres: NDArray[np.float32]) -> list[Excess]:
    """What is implausible of surface minus terrain.

    Args:
        metres: float32 (n,): differences where both are known, from a sample of the domain.
    """
    if not metres.size:
        return []
    sunken, lofty = float((metres < _SUNKEN_M).mean()), float((metres > _SATURATED_M).mean())
    if not np.abs(metres).max():
        return [
            Excess("height_encoding", "surface and terrain are equal everywhere: the height would be 0; is one a copy?")
        ]
    if sunken > 0.2:
        return [
            Excess(
                "height_encoding",
                f"the surface lies more than {-_SUNKEN_M:g} m below the terrain on {sunken:.0%} of a sample: negative "
                "heights; are the two swapped, or in other units?",
            )
        ]
    if lofty > 0.5:
        return [
            Excess(
                "height_encoding",
                f"surface minus terrain is over {_SATURATED_M:g} m on {lofty:.0%} of a sample: is the terrain missing, "
                "or in other units than metres?",
            )
        ]
    return []
