"""Checks a sealed tile completely: checksums, COG structure, every pixel, and its item."""

import math
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.domain import Domain
from pipeline.errors import LandcoverError, ProductError
from pipeline.fingerprint import file_sha256
from pipeline.grid import CRS, RESOLUTION_M, Tile, Window
from pipeline.products.tile.cog import BLOCK, Cog, open_cog
from pipeline.products.tile.seal import STRIP_ROWS, SealedTile, as_class_pixels, count_values, matches, read_sealed
from pipeline.products.tile.stac_item import (
    CONFIDENCE,
    MAPPED,
    SWITCHED_OFF,
    classes_of,
    invalid,
    mean_confidence,
    reading_item,
    share_name,
    shares,
)
from pipeline.progress import SILENT, Progress
from pipeline.stac_fields import footprint, origin_fields, projection, time_span
from pipeline.untrusted.documents import read_json


def check(sealed: SealedTile, *, crs: str = CRS, progress: Progress = SILENT) -> list[str]:
    """Problems of a sealed tile; empty if there are none.

    Compares with the item: sizes and checksums, the structure, CRS and place of the COGs, and every pixel of both
    layers (classes are counted again; confidence is 0 exactly where there is no data). Validates the item by STAC's
    core schema, and compares its properties with the pixels, the place and the tags of the COGs.

    Args:
        sealed: as its item describes it.
        crs: `EPSG:…` of the expected lattice.
        progress: counts the pixels that are compared; its total is the caller's.

    Returns:
        Sentences, each with the file that it is about.
    """
    problems = [*matches(sealed), *_checksums(sealed), *_item(sealed, crs)]
    if problems:
        # A file that is known to be wrong needs no list of its wrong pixels.
        return problems
    try:
        return _pixels(sealed, progress)
    except ProductError as error:
        return [str(error)]


def changes_of(folder: Path, domain: Domain, tile: Tile) -> list[str]:
    """What was changed in an item that cannot be used, and in its COGs, as far as the rest of it shows.

    Args:
        folder: of the domain's products.
        domain: `D064_2021`.
        tile: whose item `read_sealed` refuses.
    """
    try:
        sealed = read_sealed(folder, domain, tile, own_checksum=False)
        return [] if sealed is None else [*matches(sealed), *_checksums(sealed)] or _pixels(sealed)
    except (OSError, LandcoverError):
        return []


def _checksums(sealed: SealedTile) -> list[str]:
    """Problems of the COGs that have the size in the item."""
    problems = []
    for facts in sealed.files:
        try:
            if facts.path.stat().st_size == facts.size and file_sha256(facts.path) != facts.sha256:
                problems.append(f"{facts.path}: checksum mismatch: SHA-256 differs from {sealed.item_path.name}")
        except FileNotFoundError:
            continue  # `matches` names it
        except OSError as error:
            problems.append(f"{facts.path}: cannot be read: {error.strerror}")
    return problems


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
    reason = invalid(read_json(sealed.item_path))
    return [f"{sealed.item_path}: not a valid STAC item: {reason}"] if reason else []


def _pixels(sealed: SealedTile, progress: Progress = SILENT) -> list[str]:
    landcover, confidence = sealed.files
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    unlike, confidence_sum = 0, 0
    with open_cog(landcover.path) as classes, open_cog(confidence.path) as confidences:
        problems = _structure(classes, sealed) + _structure(confidences, sealed)
        if problems:
            return problems
        for strip in Window(0, 0, *sealed.tile.window.shape).strips(STRIP_ROWS):
            values = classes.read(strip)
            counts += count_values(values)
            certainty = confidences.read(strip)
            confidence_sum += int(certainty.sum(dtype=np.int64))
            unlike += int(np.count_nonzero((values == legend.NODATA) != (certainty == 0)))
            progress.advance(strip.pixels)
        tags = {**classes.dataset.tags(), **classes.dataset.tags(1)}
    counted, expected = as_class_pixels(counts), dict(sealed.class_pixels)
    if counted != expected:
        problems.append(f"{landcover.path}: has class pixels {counted}; the item has {expected}")
    if (sealed.switched_off or 0) > sum(n for value, n in counted.items() if value != legend.NODATA):
        problems.append(f"{sealed.item_path}: {SWITCHED_OFF} is {sealed.switched_off}, more than the mapped pixels")
    if unlike:
        problems.append(f"{confidence.path}: {unlike} pixels are no data in one layer only")
    return problems or _properties(sealed, confidence_sum, tags)


def _properties(sealed: SealedTile, confidence_sum: int, tags: Mapping[str, str]) -> list[str]:
    """Properties of the item that differ from what `seal` writes for these pixels and tags.

    The searched catalog is made from them. Items of older versions lack some, and their COGs lack some tags.
    """
    with reading_item(sealed.item_path):
        content = read_json(sealed.item_path)
        properties = content["properties"]
        classes = content["assets"]["landcover"]["classification:classes"]
        live = [int(key[6:]) for key in tags if key.startswith("class_")] or [int(c["value"]) for c in classes]
        live = sorted(value for value in live if value != legend.NODATA)
        geometry, bbox = footprint(sealed.tile.window, sealed.crs)
        expected = projection(sealed.tile.window, sealed.crs) | {"gsd": RESOLUTION_M} | _of_tags(sealed, tags)
        if MAPPED in properties or any(key in properties for key in map(share_name, live)):
            expected |= shares(sealed.class_pixels, live)
        if CONFIDENCE in properties or sealed.depends_on:
            expected |= mean_confidence(sealed.class_pixels, confidence_sum)
        found = {key: (properties.get(key), value) for key, value in expected.items()}
        found |= {"geometry": (content["geometry"], geometry), "bbox": (content["bbox"], bbox)}
        found["collection"] = (content.get("collection", sealed.domain), sealed.domain)
        found["id"] = (content["id"], sealed.item_path.stem)
        found["classification:classes"] = (classes[1:], classes_of(legend.classes(live)))
        odd = sorted(key for key in properties if key.startswith("landcover:share_") and key not in expected)
    problems = [f"{key} is {got}, expected {value}" for key, (got, value) in found.items() if not _alike(got, value)]
    return [f"{sealed.item_path}: {problem}" for problem in (*problems, *(f"has {key}, of no class" for key in odd))]


def _of_tags(sealed: SealedTile, tags: Mapping[str, str]) -> dict[str, Any]:
    """The item's properties that the tags of its COGs repeat."""
    origin = {key: tags.get(key, "") for key in ("licence", "attribution", "citation", "doi")}
    names = ("campaign", "recipe", "weights_sha256", "domain", "tile", "fingerprint")
    expected: dict[str, Any] = {f"landcover:{name}": tags[name] for name in names if name in tags}
    if "licence" in tags:
        expected |= origin_fields(**origin)
        first, _, last = tags.get("acquired", "").partition("/")
        days = (date.fromisoformat(first), date.fromisoformat(last)) if last else None
        start, middle, end = time_span(days, year=sealed.domain.year)
        expected |= {"start_datetime": start, "datetime": middle, "end_datetime": end}
        expected["landcover:acquired"] = days is not None
    return expected


def _alike(got: Any, expected: Any) -> bool:
    """Whether a value of JSON is as expected; numbers to nine digits, because versions of PROJ differ."""
    if isinstance(expected, datetime):
        return isinstance(got, str) and datetime.fromisoformat(got) == expected
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(_alike(got[k], expected[k]) for k in got)
    if isinstance(expected, list | tuple):
        return isinstance(got, list) and len(got) == len(expected) and all(map(_alike, got, expected))
    if isinstance(expected, float) and isinstance(got, int | float):
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    return bool(got == expected)


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
