"""The elevation files behind each tile, how much of it they cover, and notes about their headers."""

import re
from collections.abc import Mapping, Sequence

from shapely import STRtree, box, union_all

from pipeline.grid import CRS, Tile
from pipeline.sources.delivery.names import Kind
from pipeline.sources.inspection.inspected_files import InspectedFile
from pipeline.sources.inspection.validation import named_corner

_DATED = re.compile(r"[_-](\d{4})-\d\d-\d\d$")

REACH_M = 100.0
"""Elevation files up to this distance from a tile are behind it: windows reach over its edge."""


class ElevationCoverage:
    """All surface and terrain files of a delivery, found by position.

    Args:
        files: these files.
    """

    def __init__(self, files: Sequence[InspectedFile]) -> None:
        self._files = files
        self._boxes = [box(*f.asset.bounds) for f in files]
        self._tree = STRtree(self._boxes)

    def behind(self, tile: Tile) -> list[InspectedFile]:
        """The files that intersect the tile grown by `REACH_M`."""
        left, bottom, right, top = tile.window.bounds
        grown = box(left - REACH_M, bottom - REACH_M, right + REACH_M, top + REACH_M)
        return [self._files[i] for i in sorted(self._tree.query(grown, predicate="intersects"))]

    def share(self, tile: Tile) -> float:
        """Share, 0..1, of a tile's area that both surface and terrain files cover, ignoring holes in the files."""
        area = box(*tile.window.bounds)
        covered = area
        for kind in ("dsm", "dtm"):
            near = [self._boxes[i] for i in self._tree.query(area) if self._files[i].kind == kind]
            covered = covered.intersection(union_all(near))
        return float(covered.area / area.area)


def header_notes(
    imagery: Mapping[Kind, InspectedFile], elevation: Sequence[InspectedFile], *, crs: str = CRS
) -> list[str]:
    """Oddities in the headers of a tile's files and how they were handled, a sentence each; `crs` is the lattice's."""
    notes = []
    for kind, file in sorted(imagery.items()):
        if file.header.crs == "parameters":
            code = file.header.crs_text
            notes.append(
                f"{kind}: the CRS lacks the code {code}; it is used because its parameters are {_called(code)}'s"
            )
        notes += [f"{kind}: {note}" for note in _validity_notes(file)] if kind != "height" else []
    for kind in ("dsm", "dtm"):
        files = [f for f in elevation if f.kind == kind]
        if without := sum(f.header.crs == "absent" for f in files):
            notes.append(f"{kind}: {without} of {len(files)} files have no CRS: {_called(crs)} is used")
        if by_parameters := sum(f.header.crs == "parameters" for f in files):
            notes.append(f"{kind}: {by_parameters} of {len(files)} files are {_called(crs)} by parameters, not by code")
        if odd := [f for f in files if f.header.nodata is not None and not f.nodata_is_used]:
            notes.append(
                f"{kind}: nodata tag {odd[0].header.nodata:g} of {len(odd)} files ignored: it is a possible elevation"
            )
        if shifted := sum(_half_pixel(f) for f in files):
            notes.append(
                f"{kind}: {shifted} of {len(files)} files lie half a pixel off the corner in their names: "
                "their georeference is used"
            )
    return notes


def _validity_notes(file: InspectedFile) -> list[str]:
    """How a file of imagery's own statements about valid pixels are used."""
    stated, notes = file.header.validity, []
    if stated.masks:
        notes.append("pixels that its mask excludes are nodata")
    if stated.alpha is not None:
        notes.append(f"pixels that its band {stated.alpha} makes transparent are nodata")
    if values := sorted({v for v in stated.nodata if v is not None}):
        tag = ", ".join(map(str, values))
        notes.append(
            f"pixels with the nodata tag {tag} in any band are nodata; if this is a level of the imagery, remove the "
            "tag with `rio edit-info --unset-nodata FILE` and index again"
        )
    elif file.header.nodata is not None:
        notes.append(f"nodata tag {file.header.nodata:g} ignored: no pixel can have this value")
    if stated.unwritten:
        notes.append("blocks that were never written are nodata")
    return notes


def _called(crs: str) -> str:
    return "Lambert-93" if crs == CRS else crs


def year_notes(elevation: Sequence[InspectedFile], year: int) -> list[str]:
    """A sentence for each kind of elevation whose names or folders have another year than the imagery."""
    notes = []
    for kind in ("dsm", "dtm"):
        if years := {y for f in elevation if f.kind == kind and (y := _year(f)) not in (None, year)}:
            named = ", ".join(map(str, sorted(years)))
            notes.append(
                f"{kind}: of {named}, the imagery of {year}: what was built or felled between them has a wrong height"
            )
    return notes


def _year(file: InspectedFile) -> int | None:
    """The year in the file's name, else in the nearest folder whose name ends in a date: `…_D034_2020-12-15`."""
    if file.delivered.year:
        return file.delivered.year
    for folder in file.path.parents:
        if dated := _DATED.search(folder.name):
            return int(dated[1])
    return None


def _half_pixel(file: InspectedFile) -> bool:
    corner = named_corner(file.delivered)
    if corner is None:
        return False
    step = file.header.transform[0]
    off = (file.header.transform[2] - corner[0], file.header.transform[5] - corner[1])
    return all(abs(abs(o) / step - 0.5) < 0.01 for o in off)
