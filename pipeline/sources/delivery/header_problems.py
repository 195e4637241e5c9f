"""Sentences for what a header has that a network was not trained on; the same for deliveries and single rasters."""

import re
from math import isfinite
from pathlib import Path

import numpy as np

from pipeline.grid import CRS, RESOLUTION_M, Affine6
from pipeline.sources.bit_depth import DEEP, RULE
from pipeline.sources.delivery.headers import Header, is_north_up

DEEP_SENTENCE = f"samples are {DEEP}; expected uint8; accepted samples v are read as {RULE}"
OUTSIDE = "lies outside metropolitan France"
_LEAST_SIDE = 1e-9
"""Of a pixel, in metres or degrees: smaller ones are damage."""
_NUMBER = r"\s*(-?\d+\.?\d*)\s*"
_POINT = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*\({_NUMBER},{_NUMBER}\)")
"""`(900000.0,6500000.0) (0,0)`: a place on the map and its column and row."""


def crs_problem(header: Header, crs: str = CRS) -> str:
    """What is wrong with a CRS that is not the expected one, and how to write that one into the header."""
    expected = f"{crs}{' (Lambert-93)' if crs == CRS else ''}"
    remedy = f"; if it is that one, write it into the file: `rio edit-info --crs {crs} FILE`"
    return f"CRS is {header.crs_text}; expected {expected}{remedy if header.crs == 'absent' or header.local else ''}"


def no_georeference(path: Path, header: Header) -> str | None:
    """A sentence where a raster does not say where it lies, and how to write its place into it."""
    if list(header.transform) != [1, 0, 0, 0, 1, 0]:
        return None
    sentence = f"has no georeference, and CRS is {header.crs_text}; expected both"
    for table in (path.with_suffix(".tab"), path.with_suffix(".TAB")):
        if coefficients := _coefficients_of_table(table):
            return (
                f"{sentence}: {table.name} beside it has its place, which is not read of it; write it into the file: "
                f"`rio edit-info --crs {CRS} --transform '{list(coefficients)}' {path.name}`, if its CRS is Lambert-93"
            )
    return (
        f"{sentence}: write them into the file: `rio edit-info --crs {CRS} --transform "
        f"'[{RESOLUTION_M:g}, 0, WEST, 0, -{RESOLUTION_M:g}, NORTH]' {path.name}`"
    )


def _coefficients_of_table(path: Path) -> Affine6 | None:
    """The transform that the control points of a MapInfo table give; None where there is no such table."""
    try:
        with path.open(encoding="latin-1") as file:
            points = _POINT.findall(file.read(1 << 16))
    except OSError:
        return None
    if len(points) < 3:
        return None
    x, y, col, row = np.array(points, float).T
    corners = np.stack([col, row, np.ones(len(points))], axis=1)
    (a, b, c), (d, e, f) = (np.linalg.lstsq(corners, to, rcond=None)[0].round(6).tolist() for to in (x, y))
    return a, b, c, d, e, f


def depth_problem(dtype: str, *, height: bool = False) -> str:
    """What is wrong with samples that neither have 8 bits nor are accepted by `bit_depth`, and how to convert them."""
    if height:
        return (
            f"samples are {dtype}; expected uint8 in units of 0.2 m: if they are metres, convert them with "
            "gdal_translate -ot Byte -scale 0 51 0 255 IN OUT, which makes negative heights 0"
        )
    return (
        f"samples are {dtype}; expected uint8 ({DEEP} where bit_depth is accepted): convert them with "
        "gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT, where LOW and HIGH look like BD ORTHO's black and white"
    )


def other_resolution(x: float, y: float) -> str | None:
    """A sentence where pixels of this width and height in metres have another size than the training images'."""
    if max(abs(x - RESOLUTION_M), abs(y - RESOLUTION_M)) <= 1e-6 * RESOLUTION_M:
        return None
    return f"resolution is {x:g} × {y:g} m; expected {RESOLUTION_M:g} m"


def placement_problem(transform: Affine6) -> str | None:
    """A sentence where rows do not run south, columns do not run east, or pixels have no size."""
    if is_north_up(transform):
        if all(map(isfinite, transform)) and min(transform[0], -transform[4]) > _LEAST_SIDE:
            return None
        return f"cannot be placed: transform {transform}; expected pixels of {RESOLUTION_M:g} m"
    return (
        f"is rotated or not north-up: transform {transform}; expected rows that run south, columns east: "
        f"`rio warp IN OUT --dst-crs {CRS} --res {RESOLUTION_M:g}` resamples it"
    )
