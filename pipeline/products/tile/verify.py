"""Checks a sealed tile completely: checksums, COG structure, every pixel, and its item."""

import json

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.fingerprint import file_sha256
from pipeline.grid import CRS, Window
from pipeline.products.tile.cog import BLOCK, Cog, open_cog
from pipeline.products.tile.seal import STRIP_ROWS, SealedTile, as_class_pixels, count_values, matches, read_sealed
from pipeline.products.tile.stac_item import invalid


def check(sealed: SealedTile, *, crs: str = CRS) -> list[str]:
    """Problems of a sealed tile; empty if there are none.

    Compares with the item: sizes and checksums, the structure, CRS and place of the COGs, and every pixel of both
    layers (classes are counted again; confidence is 0 exactly where there is no data). Validates the item by STAC's
    core schema.

    Args:
        sealed: as its item describes it.
        crs: `EPSG:…` of the expected lattice.

    Returns:
        Sentences, each with the file that it is about.
    """
    problems = matches(sealed) or _checksums(sealed)
    problems += _item(sealed, crs)
    if problems:
        # A file that is known to be wrong needs no list of its wrong pixels.
        return problems
    try:
        return _pixels(sealed)
    except ProductError as error:
        return [str(error)]


def _checksums(sealed: SealedTile) -> list[str]:
    return [
        f"{facts.path}: checksum mismatch: SHA-256 differs from {sealed.item_path.name}; the file was changed"
        for facts in sealed.files
        if file_sha256(facts.path) != facts.sha256
    ]


def _item(sealed: SealedTile, crs: str) -> list[str]:
    if sealed.crs != crs:
        return [f"{sealed.item_path}: proj:code is {sealed.crs}, expected {crs}; run the tile again"]
    try:
        now = read_sealed(sealed.item_path.parent, sealed.domain, sealed.tile)
    except ProductError as error:
        return [str(error)]
    if now is None:
        return [f"{sealed.item_path}: the item is missing"]
    if now != sealed:
        return [f"{sealed.item_path}: the item was replaced during the check; verify again"]
    reason = invalid(json.loads(sealed.item_path.read_bytes()))
    return [f"{sealed.item_path}: not a valid STAC item: {reason}"] if reason else []


def _pixels(sealed: SealedTile) -> list[str]:
    landcover, confidence = sealed.files
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    unlike = 0
    with open_cog(landcover.path) as classes, open_cog(confidence.path) as confidences:
        problems = _structure(classes, sealed) + _structure(confidences, sealed)
        if problems:
            return problems
        for strip in Window(0, 0, *sealed.tile.window.shape).strips(STRIP_ROWS):
            values = classes.read(strip)
            counts += count_values(values)
            unlike += int(np.count_nonzero((values == legend.NODATA) != (confidences.read(strip) == 0)))
    counted, expected = as_class_pixels(counts), dict(sealed.class_pixels)
    if counted != expected:
        problems.append(f"{landcover.path}: has class pixels {counted}; the item has {expected}")
    if unlike:
        problems.append(f"{confidence.path}: {unlike} pixels are no data in one layer only")
    return problems


def _structure(cog: Cog, sealed: SealedTile) -> list[str]:
    """Properties of an open COG that differ from what `seal` writes."""
    tile, dataset = sealed.tile, cog.dataset
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    factors = [2**i for i in range(1, 32) if max(tile.window.shape) > BLOCK * 2 ** (i - 1)]
    expected_and_got = {
        "layout": ("COG", structure.get("LAYOUT")),
        "compression": ("ZSTD", structure.get("COMPRESSION")),
        "bands": (("uint8",), dataset.dtypes),
        "no data": (legend.NODATA, dataset.nodata),
        "shape": (tile.window.shape, dataset.shape),
        "block": ((BLOCK, BLOCK), dataset.block_shapes[0]),
        "transform": (tile.window.transform, tuple(dataset.transform)[:6]),
        "CRS": (sealed.crs, dataset.crs.to_string() if dataset.crs else None),
        "overviews": (factors, dataset.overviews(1)),
    }
    return [
        f"{cog.path}: {what} is {got}, expected {expected}"
        for what, (expected, got) in expected_and_got.items()
        if expected != got
    ]
