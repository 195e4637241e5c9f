"""Counts a map that is sampled: pixels and confidences of each class, and the confidence at single points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.cluster.parallel_map import parallel_map
from pipeline.errors import ProductError
from pipeline.fingerprint import digest
from pipeline.grid import Window
from pipeline.products.assessment.class_maps import ClassMap, find_maps
from pipeline.products.assessment.reference_sample import blocks_of, count
from pipeline.progress import SILENT, Progress

_HIGHEST = 255


@dataclass(frozen=True, eq=False)
class CountedMap:
    """A map, block by block."""

    blocks: Sequence[tuple[ClassMap, Window]]
    counts: NDArray[np.int64]
    """int64 (block, 20), pixels by value."""
    digest: str
    confidence: NDArray[np.int64] | None = None
    """int64 (20,), sum of the confidences 0..255 by value; None where they were not read, or a map has none."""

    @property
    def pixels(self) -> dict[int, int]:
        """FLAIR value → its pixels."""
        return {v: int(n) for v, n in enumerate(self.counts.sum(axis=0).tolist()) if v and n}

    @property
    def mapped_m2(self) -> dict[int, float]:
        """FLAIR value → its area."""
        pixel_m2 = abs(self.blocks[0][0].geobox.affine.determinant)
        return {v: float(n) * pixel_m2 for v, n in self.pixels.items()}

    @property
    def mean_confidence(self) -> Mapping[int, float] | None:
        """FLAIR value → mean confidence of its pixels, 0..1; None where it is not known."""
        if self.confidence is None:
            return None
        return {v: float(self.confidence[v]) / (_HIGHEST * n) for v, n in self.pixels.items()}

    def confidence_at(self, xy: NDArray[np.float64], mapped: NDArray[np.int64]) -> NDArray[np.float64]:
        """Confidence 0..1 at points, float64 (point,).

        Args:
            xy: float64 (point, 2), metres of the map's CRS.
            mapped: int64 (point,): FLAIR value on the map there. Where maps of several domains overlap, it is that of
                the first map with this class.

        Raises:
            ProductError: a point lies on no map that has its class there.
        """
        found = np.full(len(xy), np.nan)
        for one in dict.fromkeys(one for one, _ in self.blocks):
            cols, rows = one.geobox.wld2pix(xy[:, 0], xy[:, 1])
            at = np.floor(np.stack([rows, cols], axis=-1)).astype(np.int64)
            box = one.window
            inside = ((at >= (box.row, box.col)) & (at < (box.bottom, box.right))).all(axis=1) & np.isnan(found)
            for k in np.flatnonzero(inside).tolist():
                pixel = Window(int(at[k, 0]), int(at[k, 1]), 1, 1)
                if one.read(pixel)[0, 0] == mapped[k]:
                    found[k] = one.read_confidence(pixel)[0, 0] / _HIGHEST
        if (lost := np.flatnonzero(np.isnan(found))).size:
            x, y = xy[lost[0]]
            raise ProductError(
                f"{lost.size} sampled points lie on no map with their class; the first: {x:.2f}, {y:.2f}"
            )
        return found


def count_map(place: Path, *, confidence: bool = False, workers: int = 1, progress: Progress = SILENT) -> CountedMap:
    """Counts the pixels of a map's classes.

    Args:
        place: a GeoTIFF of FLAIR values, a folder of `…-landcover.tif`, or a national product.
        confidence: also sum the confidences, if all of its maps have them.
        workers: processes that read.
        progress: counts blocks.

    Raises:
        ProductError: no maps, or of several CRS or pixel sizes, or one cannot be read.
    """
    maps = find_maps(place)
    if len({(one.geobox.crs, one.geobox.resolution.x) for one in maps}) != 1:
        raise ProductError(f"{place}: the maps have several CRS or pixel sizes; draw a sample from each")
    blocks = blocks_of(maps)
    with_confidence = confidence and all(one.confidence for one in maps)
    counts, digests = np.zeros((len(blocks), len(legend.FLAIR) + 1), np.int64), [""] * len(blocks)
    sums = np.zeros(len(legend.FLAIR) + 1, np.int64)
    progress.start(len(blocks))
    job = partial(_count, with_confidence)
    for at, (values, own, surely) in progress.track(parallel_map(enumerate(blocks), job, workers=workers)):
        counts[at], digests[at] = values, own
        sums += surely
    # Sorted, so that neither names of files nor their order are part of it.
    return CountedMap(blocks, counts, digest(sorted(digests)), sums if with_confidence else None)


def _count(
    confidence: bool,  # noqa: FBT001 (bound by partial, which must come first)
    job: tuple[int, tuple[ClassMap, Window]],
) -> tuple[int, tuple[NDArray[np.int64], str, NDArray[np.int64]]]:
    at, (one, window) = job
    counts, own = count((one, window))
    sums = np.zeros_like(counts)
    if confidence:
        weights = one.read_confidence(window).ravel()
        sums = np.bincount(one.read(window).ravel(), weights=weights, minlength=len(sums))[: len(sums)].astype(np.int64)
    return at, (counts, own, sums)
