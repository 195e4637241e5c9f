"""Changes between two maps of the same ground, and how much change the maps' errors alone would show.

Two maps of unchanged ground differ where one of them is wrong and the other is not wrong in the same way. Let p and q
be the probabilities that the first and the second map are right at a pixel:

- With independent errors the maps differ on mean(1 − p q) of the pixels, less where two errors agree by chance.
- With errors that coincide as much as possible they differ on mean(|p − q|).

Both take confidences for these probabilities. False change of overconfident maps lies above both values, that of
underconfident maps can lie below. The maps alone cannot say more: both are wrong at the same blurred edges more often
than by chance.
Labels of both dates can. `FalseChange` is the share of unchanged labelled pixels on which the two maps differ, by the
lower of their confidences (`Reliability` is the same for one map). Applied to the pixels of two maps it gives the
change that is expected if nothing changed.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from pipeline import legend
from pipeline.errors import EvaluationError, ProductError
from pipeline.evaluation.metrics import confusion_matrix
from pipeline.html_page import notebook_table
from pipeline.products.analysis.dataset_geobox import geobox_of
from pipeline.progress import SHORT_S, progress_bar

NO_DATA, STABLE, CHANGED, UNCERTAIN = range(4)
"""Values of the change map."""
COLOURS = {STABLE: "#e8e4da", CHANGED: "#d7301f", UNCERTAIN: "#9ebcda"}
NAMES = {STABLE: "stable", CHANGED: "changed", UNCERTAIN: "uncertain"}

UNSEEN = (
    "Limits: a change of season (vines without leaves, ploughed fields, low water) looks like a change of land cover; "
    "buildings lean and trees cast other shadows in every flight, so narrow strips beside them change; and maps of two "
    "models, or of two radiometries, differ on unchanged ground."
)

_BINS = 32
_MOST_PIXELS = 250_000_000
"""10 km² at 0.20 m; each takes about 10 bytes of memory."""
_OFF_PX = 1e-3
"""How far two maps' pixels may lie from each other."""
_M2_PER_HA = 10_000


@dataclass(frozen=True, eq=False)
class FalseChange:
    """Unchanged pixels by the lower of two confidences, in `_BINS` bins of equal width; parts can be added."""

    pixels: NDArray[np.int64]
    """int64 (bin,): labelled pixels whose true class is the same at both dates."""
    differ: NDArray[np.int64]
    """int64 (bin,): those on which the two maps differ."""

    @classmethod
    def of(
        cls,
        first: NDArray[np.uint8],
        second: NDArray[np.uint8],
        *,
        lesser: NDArray[np.uint8],
        truth: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    ) -> "FalseChange":
        """Counts labelled pixels.

        Args:
            first, second: uint8 of one shape: FLAIR values on the maps, 0 no data.
            lesser: uint8 of that shape: the lower of the two confidences, 255 for certain.
            truth: uint8 of that shape each: the true classes at the two dates, 0 where unknown.
        """
        known = (first != 0) & (second != 0) & (truth[0] != 0) & (truth[0] == truth[1])
        bins = _bin(lesser[known])
        differ = (first != second)[known]
        return cls(np.bincount(bins, minlength=_BINS), np.bincount(bins[differ], minlength=_BINS))

    @property
    def share(self) -> float | None:
        """Share of the labelled pixels on which the maps differ; None without labels."""
        number = int(self.pixels.sum())
        return int(self.differ.sum()) / number if number else None

    def __add__(self, other: "FalseChange") -> "FalseChange":
        return FalseChange(self.pixels + other.pixels, self.differ + other.differ)

    def expected(self, lesser: NDArray[np.uint8]) -> float:
        """Share of these pixels on which the maps are expected to differ if nothing changed.

        Args:
            lesser: uint8 of any shape: the lower of the two confidences.

        Raises:
            EvaluationError: there are no labels or no pixels.
        """
        return self.expected_of(np.bincount(lesser.ravel(), minlength=256))

    def expected_of(self, pixels: NDArray[np.int64]) -> float:
        """The same for pixels that are counted: int64 (256,), by the lower of the two confidences.

        Raises:
            EvaluationError: there are no labels or no pixels.
        """
        if not self.pixels.sum() or not pixels.sum():
            raise EvaluationError(
                "expected change needs labelled pixels and pixels to apply it to; one of them is empty"
            )
        # A bin without labels takes the overall share.
        overall = self.differ.sum() / self.pixels.sum()
        rate = np.divide(self.differ, self.pixels, out=np.full(_BINS, overall), where=self.pixels > 0)
        return float(rate[_bin(np.arange(256, dtype=np.uint8))] @ pixels / pixels.sum())


def _bin(confidence: NDArray[np.uint8]) -> NDArray[np.int64]:
    return confidence.astype(np.int64) * _BINS // 256


@dataclass(frozen=True, eq=False)
class Change:
    """Changes between two maps of the same ground; print it for a summary."""

    matrix: pd.DataFrame
    """Hectares from class (rows) to class (columns), of pixels where both confidences are high enough."""
    map: xr.DataArray
    """uint8 (y, x): 0 no data, 1 stable, 2 changed, 3 uncertain (a confidence or a patch below its limit)."""
    changed_share: float
    """Share of the certain pixels whose class differs, 0..1, before small patches are left out: compare it with the
    shares below, which errors alone would change."""
    changed_share_after_filter: float
    """The same after patches smaller than `min_area_m2` became uncertain, as on `map` and in `matrix`; NaN where no
    certain pixel is left. Equal to `changed_share` without a least area."""
    if_independent: float
    """Share that independent errors alone would change, if confidences are right."""
    if_together: float
    """The same for errors that coincide as much as possible."""
    expected: float | None
    """Share that errors alone change, from labels of both dates; None without labels."""

    def __str__(self) -> str:
        after = (
            "none is left" if math.isnan(self.changed_share_after_filter) else f"{self.changed_share_after_filter:.2%}"
        )
        changed = (
            f"{self.changed_share:.2%} of the certain pixels changed class before the minimum-area filter, "
            f"{after} after it."
        )
        between = f"{self.if_together:.2%} (in the same places) and {self.if_independent:.2%} (anywhere)"
        lines = [changed, f"Errors alone, if confidences are right, would show between {between}."]
        if self.expected is not None:
            lines.append(f"From labels of both dates, {self.expected:.2%} is expected from errors.")
        return "\n".join([*lines, UNSEEN])

    def _repr_html_(self) -> str:
        """A notebook shows the whole matrix above the summary, however many classes there are."""
        head = ("ha, from ↓ to →", *self.matrix.columns)
        rows = [(name, *(f"{ha:.3f}" if ha else "" for ha in row)) for name, row in self.matrix.iterrows()]
        return notebook_table("", head, rows, str(self).splitlines())


def change(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    min_confidence: float = 0.0,
    min_area_m2: float = 0.0,
    errors: FalseChange | None = None,
) -> Change:
    """Compares two products where both have pixels; reads them into memory.

    Args:
        first, second: products on one lattice, the earlier first.
        min_confidence: 0..1; pixels with a lower confidence in either map are uncertain.
        min_area_m2: smaller changed patches (8-connected, of any classes) are uncertain.
        errors: of labelled pixels, from `FalseChange.of`.

    Raises:
        ProductError: the maps lie on different lattices, share no ground, or share more than 250 Mpx: clip them first.
        EvaluationError: no pixel has enough confidence in both maps.
    """
    one, two = _aligned(first, second)
    before, after, *sure = _read([p[layer] for layer in ("landcover", "confidence") for p in (one, two)])
    lesser = np.minimum(*sure)
    known = (before != legend.NODATA) & (after != legend.NODATA)
    kept = known & (lesser >= 255 * min_confidence)
    if not kept.any():
        raise EvaluationError(f"no pixel has a confidence of {min_confidence} in both maps; lower min_confidence")
    differ = kept & (before != after)
    share = float(differ.sum() / kept.sum())
    pixel_m2 = geobox_of(one).resolution.x ** 2
    small = _small(differ, min_area_m2 / pixel_m2)
    state = np.where(known, UNCERTAIN, NO_DATA).astype(np.uint8)
    state[kept] = STABLE
    state[differ] = CHANGED
    state[small] = UNCERTAIN
    p, q = (s[kept].astype(np.float32) / 255 for s in sure)
    counted = kept & ~small
    return Change(
        matrix=_matrix(before[counted], after[counted], pixel_m2 / _M2_PER_HA),
        map=one["landcover"]
        .copy(data=state)
        .rename("change")
        .assign_attrs(flag_values=[0, 1, 2, 3], flag_meanings="no_data stable changed uncertain", long_name="change"),
        changed_share=share,
        changed_share_after_filter=float(differ[counted].mean()) if counted.any() else math.nan,
        if_independent=float(np.mean(1 - p * q, dtype=np.float64)),
        if_together=float(np.mean(np.abs(p - q), dtype=np.float64)),
        expected=None if errors is None else errors.expected(lesser[kept]),
    )


def _aligned(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both products cut to their common ground."""
    one, two = geobox_of(first), geobox_of(second)
    try:
        shared = one.overlap_roi(two, tol=_OFF_PX), two.overlap_roi(one, tol=_OFF_PX)
    except ValueError as error:
        raise ProductError(f"the maps lie on different lattices: {one} and {two}") from error
    pixels = math.prod(max(0, part.stop - part.start) for part in shared[0])
    if not 0 < pixels <= _MOST_PIXELS:
        raise ProductError(
            f"the maps share {pixels / 1e6:.0f} Mpx; expected some, and at most {_MOST_PIXELS // 1_000_000}: "
            "clip one of them, or open a coarser level"
        )
    before, after = (
        product[["landcover", "confidence"]].isel(y=rows, x=cols)
        for product, (rows, cols) in zip((first, second), shared, strict=True)
    )
    return before, after


def _read(layers: list[xr.DataArray]) -> list[NDArray[np.uint8]]:
    """Reads layers into memory, with a progress bar."""
    with progress_bar("reading both maps", after_s=SHORT_S) as progress:
        progress.start(len(layers))
        return [layer.to_numpy() for layer in progress.track(layers)]


def _small(differ: NDArray[np.bool_], least_pixels: float) -> NDArray[np.bool_]:
    """True in patches with fewer pixels."""
    if least_pixels <= 1:
        return np.zeros_like(differ)
    patches, count = ndimage.label(differ, structure=np.ones((3, 3), bool))
    too_small = np.bincount(patches.ravel(), minlength=count + 1) < least_pixels
    too_small[0] = False
    small: NDArray[np.bool_] = too_small[patches]
    return small


def _matrix(before: NDArray[np.uint8], after: NDArray[np.uint8], pixel_ha: float) -> pd.DataFrame:
    pairs = confusion_matrix(before, after, len(legend.FLAIR) + 1)
    values = [v for v in legend.BY_VALUE if pairs[v].any() or pairs[:, v].any()]
    names = [legend.BY_VALUE[v].name for v in values]
    hectares = pairs[np.ix_(values, values)] * pixel_ha
    return pd.DataFrame(hectares, index=pd.Index(names, name="from"), columns=pd.Index(names, name="to"))
