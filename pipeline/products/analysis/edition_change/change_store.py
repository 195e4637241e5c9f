"""The files of a change: its Zarr, the tables by zone, and the summary.

::

    <edition>/change-000001/change.zarr      `from`, `to`, `confidence`, `change` (y, x), from edition 1 to this one
    <edition>/change-000001/change.json      options, pixels and shares
    <edition>/change-000001/areas.csv        hectares by zone: compared, changed, and what errors alone would show
    <edition>/change-000001/classes.csv      hectares from class to class by zone
    <edition>/change-000001/polygons.parquet changed places with the minimum unit or more, and polygons.gpkg the same
    <edition>/change-000001/sample.gpkg      places to look at
    <edition>/change-000001/SHA256SUMS       and MANIFEST.json: see `products.manifest`
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from pipeline import legend
from pipeline.durable import write_text
from pipeline.grid import PIXELS_PER_M
from pipeline.products.analysis.edition_change.comparison import KINDS, LAND, LAYERS_OF_CHANGE, MAP, ZoneChange
from pipeline.products.analysis.edition_change.zones import Zoning
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_metadata import Frame, create_frame
from pipeline.products.national.zarr_store import PLACE, ZSTD, NewStore, consolidate, flags_of
from pipeline.untrusted.documents import Document, read_model

CHANGE_STORE, SUMMARY, AREAS, CLASSES_TABLE, SAMPLE = (
    "change.zarr",
    "change.json",
    "areas.csv",
    "classes.csv",
    "sample.gpkg",
)
UNIT_M2 = 50.0
"""Area of the smallest polygons by default."""
CHANGE_FOLDER = re.compile(r"change-([0-9]{6})(-generalised)?")
_COLOURS = ("#000000", "#e8e4da", "#d7301f", "#984ea3", "#9ebcda")
_PIXELS_A_HA = 10_000 * PIXELS_PER_M**2


def change_folder(edition: Path, first: int, *, generalised: bool) -> Path:
    """The folder of the change from an edition to the one in `edition`."""
    return edition / f"change-{first:06d}{'-generalised' if generalised else ''}"


def create_change(path: Path, grid: NationalGrid, *, side: int, coordinates_from: Path) -> None:
    """Creates the Zarr with everything but its files of pixels.

    Args:
        path: the Zarr to create.
        grid: of both editions.
        side: pixels of a file.
        coordinates_from: a store of the same grid, to whose coordinates this one links.
    """
    frame = Frame(grid.extent, grid.crs)
    title = {"Conventions": "CF-1.11", "title": "Change of land cover between two editions"}
    root = zarr.create_group(NewStore(path), zarr_format=3, attributes=title | frame.attributes)
    for layer in LAYERS_OF_CHANGE:
        root.create_array(
            layer,
            shape=grid.extent.shape,
            shards=(side, side) if grid.chunk < side else None,
            chunks=(min(grid.chunk, side),) * 2,
            dtype="uint8",
            fill_value=0,
            compressors=[ZSTD],
            dimension_names=("y", "x"),
            attributes=PLACE | _attributes(layer),
        )
    create_frame(root, path, frame, linked_from=coordinates_from)
    consolidate(path)


def _attributes(layer: str) -> dict[str, Any]:
    if layer == "change":
        flags = {"flag_values": list(range(len(KINDS))), "flag_meanings": " ".join(KINDS)}
        return {
            **flags,
            "flag_colors": " ".join(_COLOURS),
            "long_name": "what changed between the editions",
            "nodata": 0,
        }
    if layer == "confidence":
        return {"long_name": "the lower of both confidences where the class changed; 0 elsewhere", "nodata": 0}
    when = "before" if layer == "from" else "after"
    return flags_of("landcover") | {"long_name": f"land cover {when} the change; 0 where the class is the same"}


@dataclass(frozen=True, eq=False)
class PolygonCounts:
    """The polygons of a zone."""

    polygons: Counter[tuple[str, int, int]]
    """(kind of change, class before, class after) → number."""
    pixels: Counter[tuple[str, int, int]]

    @classmethod
    def none(cls) -> "PolygonCounts":
        """No polygons."""
        return cls(Counter(), Counter())

    def of_kind(self, kind: str) -> dict[str, Any]:
        """Number and hectares of the polygons of a kind of change."""
        number, pixels = (
            sum(n for (own, *_), n in counter.items() if own == kind) for counter in (self.polygons, self.pixels)
        )
        return {f"{kind}_polygons": number, f"{kind}_polygons_ha": _ha(pixels)}


def figures_of(zone: ZoneChange, polygons: PolygonCounts) -> dict[str, Any]:
    """Hectares and shares of a zone, as in `change.json` and `areas.csv`; None where nothing was compared.

    Args:
        zone: its pixels.
        polygons: that lie in it.
    """
    (sure, differ, kept, apart, together), (same, moved, moved_kept, *_) = zone.figures.tolist()
    return {
        "compared_ha": _ha(sure + same),
        "uncertain_ha": _ha(zone.unsure + differ - kept + moved - moved_kept),
        "other_imagery_ha": _ha(sure),
        "land_change_ha": _ha(kept),
        "land_change_share": _share(differ, sure),
        "land_change_share_after_filter": _share(kept, sure - (differ - kept)),
        "if_together": _share(together, sure * 255**2),
        "if_independent": _share(apart, sure * 255**2),
        "same_imagery_ha": _ha(same),
        "map_change_ha": _ha(moved_kept),
        "map_change_share": _share(moved, same),
        **polygons.of_kind(KINDS[LAND]),
        **polygons.of_kind(KINDS[MAP]),
    }


def _ha(pixels: int) -> float:
    return round(pixels / _PIXELS_A_HA, 4)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def write_tables(
    folder: Path,
    zonings: Sequence[Zoning],
    zones: Mapping[tuple[str, int], ZoneChange],
    polygons: Mapping[tuple[str, int], PolygonCounts],
) -> None:
    """Writes the tables by zone.

    Args:
        folder: of the change.
        zonings: kinds of zones.
        zones: (kind, number) → its pixels.
        polygons: (kind, number) → its polygons.

    Raises:
        StorageError: a file cannot be written.
    """
    names = {("all", 0): "all"} | {(z.kind, n): name for z in zonings for n, name in enumerate(z.names, start=1)}
    none = PolygonCounts.none()
    found = [(key[0], name, zones[key], polygons.get(key, none)) for key, name in names.items() if key in zones]
    rows = [{"kind": kind, "zone": name} | figures_of(zone, own) for kind, name, zone, own in found]
    write_text(folder / AREAS, _csv(rows))
    write_text(folder / CLASSES_TABLE, _csv(list(_by_class(found))))


def _by_class(found: Sequence[tuple[str, str, ZoneChange, PolygonCounts]]) -> Iterator[dict[str, Any]]:
    for kind, name, zone, own in found:
        for imagery, before, after in zip(*(axis.tolist() for axis in zone.classes.nonzero()), strict=True):
            change = KINDS[2 + imagery], before, after
            yield {
                "kind": kind,
                "zone": name,
                "change": change[0],
                "from": legend.BY_VALUE[before].slug,
                "to": legend.BY_VALUE[after].slug,
                "ha": _ha(int(zone.classes[imagery, before, after])),
                "polygons": own.polygons[change],
                "polygons_ha": _ha(own.pixels[change]),
            }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """With an empty field for what does not exist."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


class _Options(Document):
    """The options of a change, as `change.json` has them."""

    min_confidence: float = 0.0
    min_area_m2: float = 0.0
    unit_m2: float = UNIT_M2
    places: int = 50
    seed: int = 2022
    communes: str | None = None
    by: str = "code"
    truth_from: str | None = None
    truth_to: str | None = None


class _Summary(Document):
    """What is read of `change.json`."""

    options: _Options


def options_of(folder: Path) -> list[str]:
    """The options of `landcover change` that wrote a folder, but for the editions; few where they are not known."""
    found = ["--generalised"] if folder.name.endswith("-generalised") else []
    with suppress(OSError, ValueError):
        made = read_model(_Summary, folder / SUMMARY).options
        for name, value in made.model_dump(exclude_defaults=True).items():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            found += [f"--{name.removesuffix('_m2').replace('_', '-')}", shown]
    return found
