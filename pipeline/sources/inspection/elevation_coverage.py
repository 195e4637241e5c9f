"""Which elevation files stand behind a tile, how much of it they cover, and what is said about them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shapely import STRtree, box, union_all

from pipeline.grid import CRS, Tile
from pipeline.sources.delivery.names import Kind
from pipeline.sources.inspection.validation import Examined, named_corner

_DATED = re.compile(r"[_-](\d{4})-\d\d-\d\d$")

REACH_M = 100.0
"""Elevation files up to here beyond a tile count as behind it: windows read over its edge."""


@dataclass(frozen=True, eq=False)
class Relief:
    """All surface and terrain files of a delivery, indexed by place."""

    files: Sequence[Examined]
    boxes: Any
    """shapely boxes of the files, in their order."""
    tree: Any
    """shapely's STRtree over `boxes`."""

    @classmethod
    def of(cls, files: Sequence[Examined]) -> "Relief":
        """Over these files."""
        boxes = [box(*f.header.bounds) for f in files]
        return cls(files, boxes, STRtree(boxes))

    def behind(self, tile: Tile) -> list[Examined]:
        """The files that meet the tile grown by `REACH_M`."""
        left, bottom, right, top = tile.window.bounds
        grown = box(left - REACH_M, bottom - REACH_M, right + REACH_M, top + REACH_M)
        return [self.files[i] for i in sorted(self.tree.query(grown, predicate="intersects"))]

    def share(self, tile: Tile) -> float:
        """The share, 0..1, of a tile's area that surface and terrain files both cover; holes in files do not count."""
        area = box(*tile.window.bounds)
        covered = area
        for kind in ("dsm", "dtm"):
            near = [self.boxes[i] for i in self.tree.query(area) if self.files[i].kind == kind]
            covered = covered.intersection(union_all(near))
        return float(covered.area / area.area)


def notes(imagery: Mapping[Kind, Examined], elevation: Sequence[Examined], *, crs: str = CRS) -> list[str]:
    """What was found in a tile's headers and what was done about it, a sentence each; `crs` is the lattice's."""
    said = []
    for kind, file in sorted(imagery.items()):
        if file.header.crs == "parameters":
            code = file.header.crs_text
            said.append(
                f"{kind}: CRS without the code {code}; its projection parameters are {_called(code)}'s: taken so"
            )
        if file.header.nodata is not None:
            said.append(f"{kind}: no-data tag {file.header.nodata:g} ignored: it is a legal value of 8-bit pixels")
    for kind in ("dsm", "dtm"):
        files = [f for f in elevation if f.kind == kind]
        if without := sum(f.header.crs == "absent" for f in files):
            said.append(f"{kind}: {without} of {len(files)} files carry no CRS: taken as {_called(crs)}")
        if by_parameters := sum(f.header.crs == "parameters" for f in files):
            said.append(f"{kind}: {by_parameters} of {len(files)} files are {_called(crs)} by parameters, not by code")
        if odd := [f for f in files if f.header.nodata is not None and not f.nodata_believed]:
            said.append(
                f"{kind}: no-data tag {odd[0].header.nodata:g} of {len(odd)} files ignored: an elevation may be so"
            )
        if shifted := sum(_half_pixel(f) for f in files):
            said.append(
                f"{kind}: {shifted} of {len(files)} files lie half a pixel off their names: "
                "resampled from where their georeference has them"
            )
    return said


def _called(crs: str) -> str:
    return "Lambert-93" if crs == CRS else crs


def other_years(elevation: Sequence[Examined], year: int) -> list[str]:
    """A sentence for each kind of elevation whose names or folders have another year than the imagery."""
    said = []
    for kind in ("dsm", "dtm"):
        years = {_year(f) for f in elevation if f.kind == kind} - {None, year}
        if years:
            named = ", ".join(str(y) for y in sorted(y for y in years if y))
            said.append(
                f"{kind}: of {named}, the imagery of {year}: what was built or felled between has a false height"
            )
    return said


def _year(file: Examined) -> int | None:
    """The year in the file's name, else in the nearest folder that ends in a date: `…_D034_2020-12-15`."""
    if file.delivered.year:
        return file.delivered.year
    for folder in file.path.parents:
        if dated := _DATED.search(folder.name):
            return int(dated[1])
    return None


def _half_pixel(file: Examined) -> bool:
    corner = named_corner(file.delivered)
    if corner is None:
        return False
    step = file.header.transform[0]
    off = (file.header.transform[2] - corner[0], file.header.transform[5] - corner[1])
    return all(abs(abs(o) / step - 0.5) < 0.01 for o in off)
