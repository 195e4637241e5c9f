"""Counts the false change of two editions where labels of both dates exist."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis.change import FalseChange
from pipeline.products.analysis.edition_change.comparison import ChangeTarget
from pipeline.products.assessment.class_maps import ClassMap, find_maps
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import read_zarr

_SIDE = 2_000
"""Pixels a side of what is read at once."""


def count_errors(target: ChangeTarget, truth: tuple[Path, Path]) -> FalseChange:
    """Counts labelled pixels whose true class is the same at both dates, and those on which the editions differ.

    Args:
        target: the editions.
        truth: rasters of FLAIR values on the lattice, or folders of `…-landcover.tif`, of the two dates; 0 for unknown.

    Raises:
        ProductError: they cannot be read, do not lie on the lattice, or have no ground in common with the editions.
    """
    first, second = (_labelled(path, target.grid) for path in truth)
    errors = None
    for one, window in first:
        for other, beside in second:
            for part in _parts(window.intersect(beside).intersect(target.grid.extent)):
                found = _count(target, part, one.read(part.within(window)), other.read(part.within(beside)))
                errors = found if errors is None else errors + found
    if errors is None or not errors.pixels.sum():
        raise ProductError(
            f"{truth[0]}, {truth[1]}: no pixel has the same class in both where both editions are mapped; expected "
            "labels of the ground that the editions show"
        )
    return errors


def _labelled(path: Path, grid: NationalGrid) -> list[tuple[ClassMap, Window]]:
    """The rasters of a date, with their windows of the lattice."""
    found = []
    for one in find_maps(path):
        box = one.geobox.boundingbox
        window = Window.from_bounds((box.left, box.bottom, box.right, box.top))
        if f"EPSG:{one.geobox.crs.epsg if one.geobox.crs else None}" != grid.crs or window.shape != one.geobox.shape:
            raise ProductError(f"{one.path}: expected pixels of 0.20 m in {grid.crs}; found {one.geobox}")
        found.append((one, window))
    return found


def _parts(shared: Window) -> Iterator[Window]:
    if shared.pixels:
        yield from shared.split(_SIDE)


def _count(target: ChangeTarget, part: Window, *truth: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> FalseChange:
    own = part.within(target.grid.extent)
    maps = [read_zarr(edition.landcover, own) for edition in (target.first, target.second)]
    sure = [read_zarr(edition.confidence, own) for edition in (target.first, target.second)]
    return FalseChange.of(*maps, lesser=np.minimum(*sure), truth=(truth[0], truth[1]))
