"""What heights that `stage` wrote say of themselves while they are indexed: holes, and what they were made from."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import rasterio
from rasterio.errors import RasterioIOError

from pipeline.errors import DeliveryError
from pipeline.grid import Tile
from pipeline.sources.delivery.names import Delivered, Kind, parse
from pipeline.sources.http_path import gdal_headers
from pipeline.sources.inspection.scan_cache import Journal
from pipeline.sources.inspection.validation import Examined
from pipeline.sources.staging.height_cog import Holes, Record, read_record

__all__ = ["Record", "made_from", "records"]


def records(tiles: Mapping[Tile, Mapping[Kind, Examined]], journal: Journal) -> dict[Tile, Record]:
    """The record of each tile whose ready height `stage` wrote; a height of another origin has none.

    Raises:
        DeliveryError: a height cannot be opened.
    """
    found = {}
    for tile, files in sorted(tiles.items()):
        if (height := files.get("height")) and (record := _record(height, journal)):
            found[tile] = record
    return found


def _record(height: Examined, journal: Journal) -> Record | None:
    key = ["staged", height.signature]
    if entry := journal.get(key):
        return Record(Holes(**entry["holes"]), entry["inputs"]) if entry["holes"] else None
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE", **gdal_headers()):
            record = read_record(height.path)
    except RasterioIOError as error:
        raise DeliveryError(f"{height.path}: cannot be opened: {error}; stage it again") from error
    journal.put(key, {"holes": asdict(record.holes), "inputs": dict(record.inputs)} if record else {"holes": None})
    return record


def made_from(record: Record) -> list[Delivered]:
    """The elevation files behind a staged height, as far as their names tell; they may be gone."""
    return [f for name in sorted(record.inputs) if (f := parse(Path(name)))]
