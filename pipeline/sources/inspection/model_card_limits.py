"""Limits of the model cards: finds what exceeds them in a delivery, and recipes that cannot map window by window.

A delivery that exceeds a limit is refused unless the limit is accepted by name. It is then noted in the items and in
the collection, and a campaign that maps the domain must accept it too. What changes pixels (resampling) is in the
fingerprint, through the georeference of the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.campaign import METROPOLITAN_FRANCE_KM, LimitName
from pipeline.config.recipe import Recipe
from pipeline.errors import ConfigError
from pipeline.grid import CRS
from pipeline.halo import Layout
from pipeline.sources.delivery.names import OVERSEAS, DeliveredFile
from pipeline.sources.inspection.band_order import better_order, order_sentence
from pipeline.sources.inspection.lowest_level import BandSums
from pipeline.sources.inspection.radiometry import SMALL_KM2, levels, limits_of

REASONS: Mapping[LimitName, str] = {
    "resolution": "the model card: 0.20 m only, trained without scale augmentation",
    "bit_depth": "the model card: BD ORTHO's 8-bit radiometry only",
    "territory": "the model card: metropolitan France only",
    "radiometry": "the model card: BD ORTHO's radiometric processing only; other sensors need transfer learning",
    "height_encoding": "the model card: height above ground in steps of 0.20 m, 0..255",
    "whole_window": "the network sees its whole window, so a pixel's class depends on the windows' positions, "
    "and seams show where two meet; U-Net, U-Net++, Linknet, SegFormer and nearly FPN see no farther than the halo",
    "halo": "a pixel's class depends on imagery beyond the halo, so seams show where two windows meet",
}

_MIN_CELLS = 4096
"""Fewer cells say nothing about the mean and deviation of a domain."""

_METRES_UNITS = 50
"""Ready heights of which 99.9 % are lower are in metres: trees and houses exceed 10 m (50 units) in any département,
and metres exceed 50 nowhere."""
_SATURATED_M = 51.0
_BELOW_TERRAIN_M = -2.0
"""The error of surface models is smaller, even over water."""


@dataclass(frozen=True)
class ExceededCardLimit:
    """A limit that a delivery exceeds, and where."""

    limit: LimitName
    sentence: str
    """What was found, and what was expected."""
    tile: str | None = None
    """The tile concerned; None where it is the whole domain."""

    @property
    def refusal(self) -> str:
        """The sentence with the reason of the limit and how to accept it in a catalog."""
        return (
            f"{self.sentence} ({REASONS[self.limit]}; to map it anyway, add --accept {self.limit} here and "
            f"accept_limits: [{self.limit}] to the campaign)"
        )

    @property
    def single_refusal(self) -> str:
        """The sentence with the reason of the limit and how to accept it for a single raster."""
        return f"{self.sentence} ({REASONS[self.limit]}; to map it anyway, add --accept {self.limit})"

    @property
    def note(self) -> str:
        """The sentence for the items."""
        return f"limit {self.limit} accepted: {self.sentence} ({REASONS[self.limit]})"


def radiometry(sums: BandSums, recipe: Recipe, *, area_km2: float = SMALL_KM2) -> list[ExceededCardLimit]:
    """Finds bands whose mean or deviation is far from the training statistics.

    Args:
        sums: over all tiles, or over a single raster; red, green and blue, then near infrared if the recipe has it.
        recipe: its means and deviations are those of the training images, in levels 0..255.
        area_km2: of the image; by default that of a tile, the smallest delivery.
    """
    if sums.count < _MIN_CELLS:
        return []
    mean_stds, std_ratio = limits_of(area_km2)
    far = [
        f"{b.band} mean {b.mean:.0f}, deviation {b.std:.0f} (trained on {b.trained_mean:.0f}, {b.trained_std:.0f})"
        for b in levels(sums, recipe)
        if b.beyond(mean_stds=mean_stds, std_ratio=std_ratio)
    ]
    if not far:
        return []
    return [
        ExceededCardLimit(
            "radiometry",
            f"the imagery's levels are far from those of the training images: {'; '.join(far)}; expected means within "
            f"{mean_stds:g} training deviation, and deviations of {std_ratio[0]:.2f}..{std_ratio[1]:g} times theirs",
        )
    ]


def band_order(sums: BandSums, bands: tuple[str, ...]) -> list[ExceededCardLimit]:
    """Finds bands that seem to be others than they should be; `sums` are over all of them, in their order."""
    if sums.count < _MIN_CELLS or not (found := better_order(sums, bands)):
        return []
    return [ExceededCardLimit("radiometry", order_sentence(found, bands))]


def territory(files: Sequence[DeliveredFile]) -> tuple[str, list[ExceededCardLimit]]:
    """The CRS in the names of imagery, and what lies outside metropolitan France by its name."""
    imagery = [f for f in files if f.kind in ("rvb", "irc", "height")]
    codes = OVERSEAS.keys() & {f.projection for f in imagery}
    overseas = sorted({f.departement for f in imagery if f.departement and not metropolitan(f.departement)})
    sentence = ""
    if overseas:
        sentence = f"département {', '.join(overseas)} is outside metropolitan France: {imagery[0].path}"
    elif codes:
        sentence = f"{imagery[0].path}: lies outside metropolitan France by its projection"
    exceeded = [ExceededCardLimit("territory", sentence)] if sentence else []
    # With several projections the first one is expected; the headers of the other files will contradict it.
    return (f"EPSG:{OVERSEAS[min(codes)]}" if codes else CRS), exceeded


def check_windows(recipe: Recipe, layout: Layout, accept: Sequence[LimitName]) -> None:
    """Refuses windows that are too small for a network that sees its whole window.

    Raises:
        ConfigError: the recipe's network sees whole windows, the recipe states no smallest window or a larger one
            than the layout's, and `accept` does not name `whole_window`.
    """
    if not recipe.pools_whole_window or "whole_window" in accept:
        return
    anyway = "to map with it anyway, add accept_limits: [whole_window] to the campaign"
    if recipe.smallest_window is None:
        raise ConfigError(
            f"recipe {recipe.name}: {recipe.architecture} on {recipe.encoder} cannot map several windows without seams "
            f"({REASONS['whole_window']}); {anyway}"
        )
    if layout.window < recipe.smallest_window:
        own = recipe.layout()
        raise ConfigError(
            f"a window of {layout.window} px is too small for recipe {recipe.name}, which needs "
            f"{recipe.smallest_window} or more: {recipe.architecture} on {recipe.encoder} sees its whole window. Use "
            f"core {own.core}, halo {own.halo} and window {own.window}, or {anyway}"
        )


def check_halo(
    recipe: Recipe, layout: Layout, accept: Sequence[LimitName], *, shape: tuple[int, int] | None = None
) -> None:
    """Refuses a halo that is smaller than the recipe's smallest.

    Args:
        recipe: one without `smallest_halo` refuses none.
        layout: its halo is compared.
        accept: limits that may be exceeded.
        shape: (rows, columns) of a single image: one that fits into a core has no two windows that meet.

    Raises:
        ConfigError: the halo is too small, and `accept` does not name `halo`.
    """
    least = recipe.smallest_halo
    alone = shape is not None and max(shape) <= layout.core
    if least is None or layout.halo >= least or alone or "halo" in accept:
        return
    raise ConfigError(
        f"a halo of {layout.halo} px is too small for recipe {recipe.name}, which needs {least} or more "
        f"({REASONS['halo']}): use {wider_halo(layout, least)}. To map with seams anyway, accept the limit halo: "
        "accept_limits: [halo] in a campaign, --accept halo on the command line, accept=['halo'] in Python"
    )


def wider_halo(layout: Layout, halo: int) -> str:
    """The sizes of this layout with another halo, for messages."""
    wider = Layout.for_core(layout.core, halo, layout.stride)
    return f"halo {wider.halo} and window {max(wider.window, layout.window)} (core {wider.core})"


def metropolitan(departement: str) -> bool:
    """`38`, `2A` → True; `974` → False."""
    return departement in ("2A", "2B") or (departement.isdigit() and 1 <= int(departement) <= 95)


def outside_france(bounds: tuple[float, float, float, float]) -> bool:
    """True for bounds (left, bottom, right, top), in metres of EPSG:2154, not wholly in metropolitan France's box."""
    left, bottom, right, top = (b / 1000 for b in bounds)
    box = METROPOLITAN_FRANCE_KM
    return left < box[0] or bottom < box[1] or right > box[2] or top > box[3]


def ready_heights(counts: NDArray[np.int64]) -> list[ExceededCardLimit]:
    """Finds ready heights that are implausible.

    Args:
        counts: int64 (256,): how often each value occurs in a sample of the domain.
    """
    total = int(counts.sum())
    if not total:
        return []
    share = np.cumsum(counts) / total
    tall = int(np.searchsorted(share, 0.999))
    if counts[0] == total:
        return _encoding("the ready heights are 0 everywhere; expected units of 0.2 m above ground")
    if tall < _METRES_UNITS:
        return _encoding(
            f"99.9 % of the ready heights are at most {tall}, that is {tall / 5:g} m: they look like metres; "
            "expected units of 0.2 m: convert them with gdal_translate -ot Byte -scale 0 51 0 255 IN OUT"
        )
    if counts[255] > total / 2:
        return _encoding(
            f"{counts[255] / total:.0%} of the ready heights are 255; expected units of 0.2 m above ground"
        )
    return []


def height_differences(metres: NDArray[np.float32]) -> list[ExceededCardLimit]:
    """Finds implausible differences of surface and terrain models.

    Args:
        metres: float32 (n,): surface minus terrain where both are known, from a sample of the domain.
    """
    if not metres.size:
        return []
    low, high = float((metres < _BELOW_TERRAIN_M).mean()), float((metres > _SATURATED_M).mean())
    if not np.abs(metres).max():
        return _encoding("surface and terrain are equal everywhere, so the height would be 0; is one a copy?")
    if low > 0.2:
        return _encoding(
            f"the surface lies more than {-_BELOW_TERRAIN_M:g} m below the terrain on {low:.0%} of a sample, so the "
            "heights would be negative; are the two swapped, or in other units?"
        )
    if high > 0.5:
        return _encoding(
            f"surface minus terrain is over {_SATURATED_M:g} m on {high:.0%} of a sample: is the terrain missing, or "
            "in other units than metres?"
        )
    return []


def _encoding(sentence: str) -> list[ExceededCardLimit]:
    return [ExceededCardLimit("height_encoding", sentence)]
