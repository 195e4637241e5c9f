"""Compares the names of a delivery's files with their headers; lists every problem as a sentence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import GridError
from pipeline.grid import CRS, PIXELS_PER_M, RESOLUTION_M, Tile
from pipeline.sources.delivery.header_problems import (
    DEEP_SENTENCE,
    OUTSIDE,
    crs_problem,
    depth_problem,
    no_georeference,
    other_resolution,
    placement_problem,
)
from pipeline.sources.delivery.headers import Header
from pipeline.sources.delivery.names import DeliveredFile, Kind, imagery_name
from pipeline.sources.inspection.inspected_files import InspectedFile
from pipeline.sources.inspection.model_card_limits import ExceededCardLimit, outside_france
from pipeline.sources.reading.vrt import ELEVATION_TYPES

_IMAGERY_BANDS: dict[Kind, int] = {"rvb": 3, "irc": 3, "height": 1}
_CORNER_TOLERANCE_M = 0.02
"""A tenth of a pixel."""
_COARSEST_M = 5.0
"""RGE ALTI comes at 1 m and 5 m."""
_ELEVATION_FILE_M = 1000.0
"""Side of an elevation file with pixels of up to 1 m; RGE ALTI's files of 5 m pixels cover 5 km."""
_NAMED_RESOLUTION = re.compile(r"[-_](\d+)M(\d\d)[-_.]", re.IGNORECASE)
"""`0M20` in a name: 0.20 m."""


@dataclass(frozen=True)
class ValidatedDelivery:
    """A delivery's files by tile, and what is wrong with them."""

    tiles: dict[Tile, dict[Kind, InspectedFile]] = field(default_factory=dict)
    """Imagery and ready heights, by tile."""
    elevation: list[InspectedFile] = field(default_factory=list)
    """Surface and terrain models."""
    problems: list[str] = field(default_factory=list)
    """One sentence each."""
    exceeded: list[ExceededCardLimit] = field(default_factory=list)
    """Limits of the model card that files exceed."""


def validate(files: Sequence[InspectedFile], *, tile_size: int, crs: str = CRS) -> ValidatedDelivery:
    """Sorts files by tile and checks each one; files that were delivered twice are problems too.

    Of elevation files with the same content at the same place, the first one counts.

    Args:
        files: all files of a domain.
        tile_size: side of a tile in pixels.
        crs: `EPSG:…` that all files must have.
    """
    found = ValidatedDelivery()
    first_at: dict[tuple[Kind, object], InspectedFile] = {}
    for file in files:
        imagery = file.kind in _IMAGERY_BANDS
        places: list[object] = [file.delivered.corner] if imagery else [file.path.name, _place(file.header)]
        first = next((first_at[file.kind, p] for p in places if (file.kind, p) in first_at), None)
        # Deliveries of two départements share the elevation along their border.
        if first and not imagery and first.signature == file.signature:
            continue
        if first:
            pixels = "the same content" if first.signature == file.signature else "other pixels"
            found.problems.append(f"{file.path}: delivered twice, see {first.path} ({pixels}); leave one of them out")
            continue
        first_at.update(((file.kind, p), file) for p in places)
        if imagery:
            _add_imagery(found, file, tile_size, crs)
        else:
            found.problems.extend(_elevation_problems(file, crs))
            found.elevation.append(file)
    return found


def _place(header: Header) -> tuple[object, ...]:
    """Transform and shape, which two files share if they cover the same pixels."""
    return (*(round(c, 3) for c in header.transform), *header.shape)


def _add_imagery(found: ValidatedDelivery, file: InspectedFile, tile_size: int, crs: str) -> None:
    try:
        tile = Tile.named(str(file.delivered.corner), tile_size)
    except GridError as error:
        found.problems.append(f"{file.path}: {error}")
        return
    found.problems.extend(f"{file.path}: {wrong}" for wrong in _imagery_problems(file, tile, crs))
    found.exceeded.extend(_exceeded_limits(file, tile, crs))
    beside = found.tiles.setdefault(tile, {})
    pair = [f for f in (*beside.values(), file) if f.kind != "height"]
    if other := next((f for f in pair[:-1] if _place(f.header) != _place(file.header)), None):
        found.problems.append(
            f"{file.path}: lies on another pixel grid than {other.path}; expected the same resolution and corner"
        )
    beside[file.kind] = file


def _imagery_problems(file: InspectedFile, tile: Tile, crs: str) -> list[str]:
    header = file.header
    wrong = _crs_problems(header, crs)
    if header.colour_bands != _IMAGERY_BANDS[file.kind]:
        wrong.append(_count_problem(file))
    elif colour := _colour_problem(file):
        wrong.append(colour)
    if header.dtype != "uint8" and not file.asset.deep:
        wrong.append(depth_problem(header.dtype, height=file.kind == "height"))
    if placed := no_georeference(file.path, header) or placement_problem(header.transform):
        return [*wrong, placed]
    size = round(tile.window.height * RESOLUTION_M / header.transform[0])
    if header.shape != (size, size):
        wrong.append(f"is {header.shape[0]} × {header.shape[1]} px; expected tiles of {size} × {size} px")
    if file.kind == "height" and header.shape != tile.window.shape:
        wrong.append(
            f"is {header.shape[0]} × {header.shape[1]} px; expected ready heights with pixels of {RESOLUTION_M:g} m"
        )
    wrong += [p for p in (_named_resolution_problem(file), _corner_problem(header, tile)) if p]
    return wrong


def _crs_problems(header: Header, crs: str) -> list[str]:
    return [] if header.crs_text == crs else [crs_problem(header, crs)]


def _count_problem(file: InspectedFile) -> str:
    """What is wrong with a number of bands; how to split one file with colours and infrared into the two of IGN."""
    count, path, delivered = file.header.count, file.path, file.delivered
    sentence = f"has {count} band{'s' if count > 1 else ''}; expected {_IMAGERY_BANDS[file.kind]}"
    if file.kind == "height" or count != 4 or delivered.corner is None:
        return sentence
    departement, year = str(delivered.departement), delivered.year or 0
    colours, infrared = (
        imagery_name(delivered.corner, departement=departement, year=year, infrared=i, suffix="tif")
        for i in (False, True)
    )
    return (
        f"{sentence}: if they are red, green, blue and near infrared, split them and remove this file: "
        f"`rio stack {path.name} --bidx 1,2,3 -o {colours}` and `rio stack {path.name} --bidx 4,1,2 -o {infrared}`"
    )


def unsplit_infrared(tiles: Mapping[Tile, Mapping[Kind, InspectedFile]]) -> list[str]:
    """A sentence for each file of four bands without an infrared file beside it, whose fourth is declared transparent.

    It may be infrared: GDAL declares the fourth band of 8-bit files so.
    """
    return [
        f"{file.path}: {_count_problem(file)}"
        for _, files in sorted(tiles.items())
        if (file := files.get("rvb"))
        and "irc" not in files
        and file.header.count == 4
        and file.header.colour_bands == 3
    ]


def _colour_problem(file: InspectedFile) -> str | None:
    """A sentence where a file of colours declares them in another order; infrared files declare what they show."""
    found = file.header.colours[:3]
    if file.kind != "rvb" or sorted(found) != ["blue", "green", "red"] or found == ("red", "green", "blue"):
        return None
    return f"its bands are {', '.join(found)} by their colour interpretation; expected red, green, blue"


def _exceeded_limits(file: InspectedFile, tile: Tile, crs: str) -> list[ExceededCardLimit]:
    found = []
    if file.asset.deep:
        found.append(ExceededCardLimit("bit_depth", f"{file.path}: {DEEP_SENTENCE}", tile.name))
    if file.kind != "height" and file.header.north_up and (other := other_resolution(*_sides(file.header))):
        sentence = f"{file.path}: {other}; accepted imagery is resampled"
        found.append(ExceededCardLimit("resolution", sentence, tile.name))
    if crs == CRS and file.kind == "rvb" and outside_france(tile.window.bounds):
        found.append(ExceededCardLimit("territory", f"{file.path}: {OUTSIDE}", tile.name))
    return found


def _sides(header: Header) -> tuple[float, float]:
    return header.transform[0], -header.transform[4]


def _named_resolution_problem(file: InspectedFile) -> str | None:
    named = _NAMED_RESOLUTION.search(file.path.name)
    if named is None:
        return None
    expected, actual = int(named[1]) + int(named[2]) / 100, file.header.transform[0]
    if abs(expected - actual) <= 1e-3 * expected:
        return None
    return f"its name says {expected:g} m a pixel; the georeference has {actual:g} m"


def _corner_problem(header: Header, tile: Tile) -> str | None:
    """A sentence where the georeference is not at the NORTH-west corner in the name: its y is the north edge."""
    left, _, _, top = tile.window.bounds
    x, y = header.transform[2], header.transform[5]
    if max(abs(x - left), abs(y - top)) <= _CORNER_TOLERANCE_M:
        return None
    sentence = (
        f"its name says that the north-west corner is x {left / 1000:.3f}, y {top / 1000:.3f} km; the georeference has "
        f"x {x / 1000:.3f}, y {y / 1000:.3f} km"
    )
    try:
        other = Tile.at(-round(y * PIXELS_PER_M), round(x * PIXELS_PER_M), tile.window.height)
        sentence += f", which is tile {other.name}"
    except GridError:
        sentence += ", where no tile of this size starts"
    if abs(y - top - tile.window.height / PIXELS_PER_M) <= _CORNER_TOLERANCE_M and abs(x - left) <= _CORNER_TOLERANCE_M:
        sentence += " (y in a name is the north edge, not the south one)"
    return sentence


def _elevation_problems(file: InspectedFile, crs: str) -> list[str]:
    header = file.header
    wrong = [] if header.crs == "absent" else [f"{w}, or no CRS" for w in _crs_problems(header, crs)]
    if header.count != 1:
        wrong.append(f"has {header.count} bands; expected 1")
    if header.dtype not in ELEVATION_TYPES:
        wrong.append(f"samples are {header.dtype}; expected metres as one of {', '.join(sorted(ELEVATION_TYPES))}")
    if header.validity.masks or (header.validity.unwritten and header.nodata is None):
        what = "it has a mask" if header.validity.masks else "some of its blocks were never written"
        wrong.append(f"{what}; expected a nodata value where there is no elevation: write one, or download it again")
    x, y = _sides(header)
    if placed := placement_problem(header.transform):
        wrong.append(placed)
    elif abs(x - y) > 1e-6 * x or x > _COARSEST_M:
        wrong.append(f"resolution is {x:g} × {y:g} m; expected square pixels of at most {_COARSEST_M:g} m")
    elif outside := _outside_name(file) or _named_resolution_problem(file):
        wrong.append(outside)
    return [f"{file.path}: {w}" for w in wrong]


def _outside_name(file: InspectedFile) -> str | None:
    corner = named_corner(file.delivered)
    if corner is None:
        return None
    x, y = corner
    step = file.header.transform[0]
    slack, side = step * 1.001, _ELEVATION_FILE_M * max(1.0, step)
    left, bottom, right, top = file.asset.bounds
    inside = left >= x - slack and right <= x + side + slack
    if inside and top <= y + slack and bottom >= y - side - slack:
        return None
    return (
        f"its name says that it lies in x {x / 1000:.3f}..{(x + side) / 1000:.3f}, "
        f"y {(y - side) / 1000:.3f}..{y / 1000:.3f} km; "
        f"the georeference has x {left / 1000:.4f}..{right / 1000:.4f}, y {bottom / 1000:.4f}..{top / 1000:.4f} km"
    )


def named_corner(file: DeliveredFile) -> tuple[float, float] | None:
    """(x, y) in metres of the north-west corner in a file's name; None where the name has none."""
    if file.corner is None:
        return None
    # 4 digits are kilometres, 5 hectometres, 6 decametres.
    x, y = (int(part) * 10.0 ** (7 - len(part)) for part in file.corner.split("-"))
    return x, y


def pair_problems(files: Sequence[DeliveredFile], *, infrared: bool) -> list[str]:
    """A sentence for each tile whose names lack an RVB, or an IRC where `infrared` is wanted."""
    corners: dict[str, dict[Kind, Path]] = {}
    for file in files:
        if file.kind in _IMAGERY_BANDS and file.corner is not None:
            corners.setdefault(file.corner, {})[file.kind] = file.path
    return [
        f"tile {corner}: has no {kind.upper()} beside {next(iter(kinds.values()))}; add it to the delivery"
        for corner, kinds in sorted(corners.items())
        for kind in (("rvb", "irc") if infrared else ("rvb",))
        if kind not in kinds
    ]
