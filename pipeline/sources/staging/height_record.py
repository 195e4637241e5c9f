"""The tags in which a height file written by `stage` records its holes and the files that it was made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rasterio.errors import RasterioIOError

from pipeline.errors import DeliveryError
from pipeline.grid import Tile
from pipeline.sources.delivery.names import DeliveredFile, Kind, parse_name
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.inspection.inspected_files import InspectedFile
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.staging.hole_filling import REACH_M
from pipeline.untrusted.documents import parse_model

Treatment = Literal["interpolate", "leave"]
"""What happens to holes: interpolated up to `REACH_M`, or left 0, the ground's height."""


@dataclass(frozen=True)
class HeightHoles:
    """The part of a height file without a known height."""

    share: float
    """Share of the tile, 0..1, where the surface or terrain model has nodata."""
    filled: float
    """Share of the tile, 0..1: the part of `share` that was interpolated."""
    treatment: Treatment

    @property
    def note(self) -> str | None:
        """A sentence for the item; None if there is no hole."""
        if self.share == 0:
            return None
        what = f"height: {self.share:.2%} of the tile are holes of the surface or terrain model"
        if self.treatment == "leave":
            return f"{what}, left at 0, the ground's height"
        return f"{what}; {self.filled:.2%} interpolated up to {REACH_M:g} m, the rest left at 0"


@dataclass(frozen=True)
class HeightRecord:
    """What a height file written by `stage` records about itself."""

    holes: HeightHoles
    inputs: Mapping[str, str]
    """`kind/name` → signature of the elevation files that it was made from."""

    def to_tags(self) -> dict[str, str]:
        """The file's tags, for `read_record`."""
        return {
            "height_holes": self.holes.treatment,
            "height_holes_share": repr(self.holes.share),
            "height_filled_share": repr(self.holes.filled),
            "height_inputs": json.dumps(self.inputs, sort_keys=True),
        }


def read_record(path: Path) -> HeightRecord | None:
    """The record in a height file's tags; None if another program wrote the file.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened.
    """
    with environment([path]), open_dataset(path, driver="GTiff") as file:
        tags = file.tags()
    try:
        treatment = tags["height_holes"]
        if treatment not in get_args(Treatment):
            return None
        holes = HeightHoles(float(tags["height_holes_share"]), float(tags["height_filled_share"]), treatment)
        return HeightRecord(holes, parse_model(dict[str, str], tags["height_inputs"]))
    except (KeyError, ValueError):
        return None


def read_records(tiles: Mapping[Tile, Mapping[Kind, InspectedFile]], cache: ScanCache) -> dict[Tile, HeightRecord]:
    """The records of the tiles whose ready height was written by `stage`.

    Raises:
        DeliveryError: a height cannot be opened.
    """
    records = {}
    for tile, files in sorted(tiles.items()):
        if (height := files.get("height")) and (record := _read_cached(height, cache)):
            records[tile] = record
    return records


def _read_cached(height: InspectedFile, cache: ScanCache) -> HeightRecord | None:
    entry = cache.get_or_make(["staged", height.signature], lambda: _entry(height.path))
    return HeightRecord(HeightHoles(**entry["holes"]), entry["inputs"]) if entry["holes"] else None


def _entry(path: Path) -> dict[str, Any]:
    try:
        record = read_record(path)
    except RasterioIOError as error:
        raise DeliveryError(f"{path}: cannot be opened: {error}; stage it again") from error
    return {"holes": asdict(record.holes), "inputs": dict(record.inputs)} if record else {"holes": None}


def inputs_of(assets: Sequence[Asset]) -> dict[str, str]:
    """`kind/name` → signature of elevation files, as a record has them."""
    return {f"{a.kind}/{a.path.name}": a.signature for a in assets}


def made_from(record: HeightRecord) -> list[DeliveredFile]:
    """The elevation files in a record, as their names describe them; they may no longer exist."""
    return [f for name in sorted(record.inputs) if (f := parse_name(Path(name)))]
