"""What a delivery promises by its names, against what its headers say; problems as sentences, all of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DeliveryError, GridError
from pipeline.fingerprint import file_signature
from pipeline.grid import CRS, PIXELS_PER_M, RESOLUTION_M, Tile
from pipeline.sources.delivery import Delivered, Kind
from pipeline.sources.headers import Header, read_header
from pipeline.sources.inputs import Asset
from pipeline.sources.vrt import ELEVATION_TYPES

_IMAGERY_BANDS: dict[Kind, int] = {"rvb": 3, "irc": 3, "height": 1}
_CORNER_TOLERANCE_M = 0.02
"""A tenth of a pixel."""
_COARSEST_M = 5.0
"""RGE ALTI comes at 1 m and 5 m."""
_ELEVATION_FILE_M = 1000.0
"""Side of an elevation file."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Examined:
    """A delivered file and its header."""

    delivered: Delivered
    header: Header
    signature: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.delivered.path

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.delivered.kind

    @property
    def asset(self) -> Asset:
        """As the catalogue keeps it; the no-data tag of 8-bit files is dropped, its value is legal there."""
        nodata = self.header.nodata if self.kind in ("dsm", "dtm") else None
        return Asset(
            self.kind,
            self.path,
            self.signature,
            self.size,
            self.mtime_ns,
            self.header.transform,
            self.header.shape,
            self.header.dtype,
            self.header.block,
            None if nodata is None else str(nodata),
        )


@dataclass(frozen=True)
class Survey:
    """A delivery, examined."""

    tiles: dict[Tile, dict[Kind, Examined]] = field(default_factory=dict)
    """Imagery and ready heights, by tile."""
    elevation: list[Examined] = field(default_factory=list)
    """Surface and terrain models."""
    problems: list[str] = field(default_factory=list)
    """One sentence each."""


def examine(files: Sequence[Delivered], *, readers: int, progress: Progress | None) -> tuple[list[Examined], list[str]]:
    """Headers and signatures of all files, in their order, and a sentence for each that is not whole."""
    good: list[Examined] = []
    problems: list[str] = []
    with ThreadPoolExecutor(readers) as pool:
        for done, found in enumerate(pool.map(_examine, files), start=1):
            if isinstance(found, Examined):
                good.append(found)
            else:
                problems.append(found)
            if progress:
                progress(done, len(files))
    return good, problems


def _examine(file: Delivered) -> Examined | str:
    try:
        header = read_header(file.path)
        stat = file.path.stat()
        return Examined(file, header, file_signature(file.path), stat.st_size, stat.st_mtime_ns)
    except DeliveryError as error:
        return str(error)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"


def survey(files: Sequence[Examined], *, tile_size: int) -> Survey:
    """Sorts files to tiles and collects what does not hold of each file, and files that come twice."""
    found = Survey()
    seen: dict[tuple[Kind, str], Path] = {}
    for file in files:
        corner = file.delivered.corner if file.kind in _IMAGERY_BANDS else None
        key = (file.kind, corner or file.path.name)
        if first := seen.get(key):
            found.problems.append(f"{file.path}: delivered twice, see {first}; leave one of them out")
            continue
        seen[key] = file.path
        if file.kind in _IMAGERY_BANDS:
            _survey_imagery(found, file, tile_size)
        else:
            found.problems.extend(_elevation_problems(file))
            found.elevation.append(file)
    return found


def _survey_imagery(found: Survey, file: Examined, tile_size: int) -> None:
    try:
        tile = Tile.named(str(file.delivered.corner), tile_size)
    except GridError as error:
        found.problems.append(f"{file.path}: {error}")
        return
    found.problems.extend(_imagery_problems(file, tile))
    found.tiles.setdefault(tile, {})[file.kind] = file


def _imagery_problems(file: Examined, tile: Tile) -> list[str]:
    header, size = file.header, tile.window.height
    wrong = []
    if header.crs in ("absent", "other"):
        wrong.append(f"CRS is {header.crs_text}; expected {CRS} (Lambert-93)")
    if header.count != _IMAGERY_BANDS[file.kind]:
        wrong.append(f"has {header.count} bands; expected {_IMAGERY_BANDS[file.kind]}")
    if header.dtype != "uint8":
        wrong.append(f"samples are {header.dtype}; expected uint8")
    if header.shape != (size, size):
        wrong.append(f"is {header.shape[0]} × {header.shape[1]} px; expected tiles of {size} × {size} px")
    if placed := _placement_problem(header) or _resolution_problem(header) or _corner_problem(header, tile):
        wrong.append(placed)
    return [f"{file.path}: {w}" for w in wrong]


def _placement_problem(header: Header) -> str | None:
    if header.north_up:
        return None
    return f"is rotated or not north-up: transform {header.transform}; expected rows southwards, columns eastwards"


def _resolution_problem(header: Header) -> str | None:
    x, y = header.transform[0], -header.transform[4]
    if max(abs(x - RESOLUTION_M), abs(y - RESOLUTION_M)) <= 1e-6 * RESOLUTION_M:
        return None
    return f"resolution is {x:g} × {y:g} m; expected {RESOLUTION_M:g} m, the only one the model is for"


def _corner_problem(header: Header, tile: Tile) -> str | None:
    """The name gives the NORTH-west corner: y is the north edge."""
    left, _, _, top = tile.window.bounds
    x, y = header.transform[2], header.transform[5]
    if max(abs(x - left), abs(y - top)) <= _CORNER_TOLERANCE_M:
        return None
    said = f"x {left / 1000:.3f}, y {top / 1000:.3f} km"
    has = f"x {x / 1000:.3f}, y {y / 1000:.3f} km"
    sentence = f"its name says that the north-west corner is {said}; the georeference has {has}"
    try:
        sentence += (
            f", which is tile {Tile.at(-round(y * PIXELS_PER_M), round(x * PIXELS_PER_M), tile.window.height).name}"
        )
    except GridError:
        sentence += ", where no tile of this size starts"
    if abs(y - top - tile.window.height / PIXELS_PER_M) <= _CORNER_TOLERANCE_M and abs(x - left) <= _CORNER_TOLERANCE_M:
        sentence += " (y in a name is the north edge, not the south one)"
    return sentence


def _elevation_problems(file: Examined) -> list[str]:
    header = file.header
    wrong = []
    if header.crs == "other":
        wrong.append(f"CRS is {header.crs_text}; expected {CRS} (Lambert-93) or none")
    if header.count != 1:
        wrong.append(f"has {header.count} bands; expected 1")
    if header.dtype not in ELEVATION_TYPES:
        wrong.append(f"samples are {header.dtype}; expected metres as one of {', '.join(sorted(ELEVATION_TYPES))}")
    x, y = header.transform[0], -header.transform[4]
    if placed := _placement_problem(header):
        wrong.append(placed)
    elif abs(x - y) > 1e-6 * x or x > _COARSEST_M:
        wrong.append(f"resolution is {x:g} × {y:g} m; expected square pixels of at most {_COARSEST_M:g} m")
    elif outside := _outside_name(file):
        wrong.append(outside)
    return [f"{file.path}: {w}" for w in wrong]


def _outside_name(file: Examined) -> str | None:
    corner = named_corner(file.delivered)
    if corner is None:
        return None
    x, y = corner
    slack = file.header.transform[0] * 1.001
    left, bottom, right, top = file.header.bounds
    inside = left >= x - slack and right <= x + _ELEVATION_FILE_M + slack
    if inside and top <= y + slack and bottom >= y - _ELEVATION_FILE_M - slack:
        return None
    return (
        f"its name says that it lies in x {x / 1000:.3f}..{x / 1000 + 1:.3f}, y {y / 1000 - 1:.3f}..{y / 1000:.3f} km; "
        f"the georeference has x {left / 1000:.4f}..{right / 1000:.4f}, y {bottom / 1000:.4f}..{top / 1000:.4f} km"
    )


def named_corner(file: Delivered) -> tuple[float, float] | None:
    """(x, y) in metres of the north-west corner in a name; None where it has none."""
    if file.corner is None:
        return None
    # 4 digits are kilometres, 5 hectometres, 6 decametres.
    x, y = (int(part) * 10.0 ** (7 - len(part)) for part in file.corner.split("-"))
    return x, y


def pair_problems(files: Sequence[Delivered], *, infrared: bool) -> list[str]:
    """A sentence for each tile without RVB, or without IRC where `infrared` is wanted, by the names alone."""
    corners: dict[str, dict[Kind, Path]] = {}
    for file in files:
        if file.kind in _IMAGERY_BANDS and file.corner is not None:
            corners.setdefault(file.corner, {})[file.kind] = file.path
    problems = []
    for corner, kinds in sorted(corners.items()):
        for kind in ("rvb", "irc") if infrared else ("rvb",):
            if kind not in kinds:
                other = next(iter(kinds.values()))
                problems.append(f"tile {corner}: has no {kind.upper()} beside {other}; deliver it too")
    return problems
