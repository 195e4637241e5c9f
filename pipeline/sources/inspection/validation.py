"""What a delivery promises by its names, against what its headers say; problems as sentences, all of them."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DeliveryError, GridError
from pipeline.fingerprint import file_signature
from pipeline.grid import CRS, PIXELS_PER_M, RESOLUTION_M, Tile
from pipeline.progress import Progress
from pipeline.sources.bit_depth import DEEP, RULE
from pipeline.sources.delivery.headers import Header, read_header
from pipeline.sources.delivery.names import Delivered, Kind
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.inspection.model_card_limits import Excess, outside_france
from pipeline.sources.inspection.scan_cache import Journal
from pipeline.sources.reading.vrt import ELEVATION_TYPES

_IMAGERY_BANDS: dict[Kind, int] = {"rvb": 3, "irc": 3, "height": 1}
_CORNER_TOLERANCE_M = 0.02
"""A tenth of a pixel."""
_COARSEST_M = 5.0
"""RGE ALTI comes at 1 m and 5 m."""
_ELEVATION_FILE_M = 1000.0
"""Side of an elevation file whose pixels are of up to 1 m; RGE ALTI's of 5 m are tiles of 5 km."""
_ELEVATIONS_M = (-500.0, 5000.0)
"""What an elevation may be: a no-data tag inside, but for 0, would cut holes into real terrain."""
_NAMED_RESOLUTION = re.compile(r"[-_](\d+)M(\d\d)[-_.]", re.IGNORECASE)
"""`0M20` in a name: 0.20 m."""


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
    def nodata_believed(self) -> bool:
        """False where the tag's value is legal for a pixel: any of 0..255 in 8 bits, an elevation in a model."""
        value = self.header.nodata
        if value is None or self.kind not in ("dsm", "dtm"):
            return False
        return value == 0 or not _ELEVATIONS_M[0] <= value <= _ELEVATIONS_M[1]

    @property
    def asset(self) -> Asset:
        """As the catalogue keeps it, without a no-data tag that is not to be believed."""
        nodata = self.header.nodata if self.nodata_believed else None
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
    excess: list[Excess] = field(default_factory=list)
    """Limits of the model's card that files pass."""


def examine(
    files: Sequence[Delivered], *, journal: Journal, readers: int, progress: Progress
) -> tuple[list[Examined], list[str]]:
    """Headers and signatures of all files, in their order, and a sentence for each that is not whole.

    A file that the journal knows by path, size and date is not opened.
    """
    good: list[Examined] = []
    problems: list[str] = []
    with ThreadPoolExecutor(readers) as pool:
        for found in progress.track(pool.map(lambda f: _examine(f, journal), files)):
            if isinstance(found, Examined):
                good.append(found)
            else:
                problems.append(found)
    return good, problems


def _examine(file: Delivered, journal: Journal) -> Examined | str:
    try:
        str(file.path).encode()
    except UnicodeEncodeError:
        return f"{readable(file.path)}: its name is not UTF-8; rename it, or the folder above it"
    try:
        stat = file.path.stat()
        key = ["header 3", str(file.path), stat.st_size, stat.st_mtime_ns]
        if entry := journal.get(key):
            return Examined(file, _header_of(entry["header"]), entry["signature"], stat.st_size, stat.st_mtime_ns)
        header, signature = read_header(file.path), file_signature(file.path)
        # An infinite or undefined tag survives JSON as Python writes it.
        journal.put(key, {"header": asdict(header), "signature": signature})
        return Examined(file, header, signature, stat.st_size, stat.st_mtime_ns)
    except DeliveryError as error:
        return str(error)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"


def readable(path: Path) -> str:
    """A path as text that can be printed, whatever bytes its name has."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _header_of(entry: dict[str, Any]) -> Header:
    """A header as the journal kept it: JSON has no tuples."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Header(**fields)


def survey(files: Sequence[Examined], *, tile_size: int, crs: str = CRS) -> Survey:
    """Sorts files to tiles and collects what does not hold of each file, and files that come twice.

    Of elevation files with the same content at the same place, the first one counts.

    Args:
        files: all of a domain.
        tile_size: pixels of a tile's side.
        crs: `EPSG:…` that all files must have.
    """
    found = Survey()
    seen: dict[tuple[Kind, object], Examined] = {}
    for file in files:
        imagery = file.kind in _IMAGERY_BANDS
        places: list[object] = [file.delivered.corner] if imagery else [file.path.name, _place(file.header)]
        first = next((seen[file.kind, p] for p in places if (file.kind, p) in seen), None)
        # Deliveries of two départements have the elevation along their border in common.
        if first and not imagery and first.signature == file.signature:
            continue
        if first:
            pixels = "the same content" if first.signature == file.signature else "other pixels"
            found.problems.append(f"{file.path}: delivered twice, see {first.path} ({pixels}); leave one of them out")
            continue
        seen.update(((file.kind, p), file) for p in places)
        if imagery:
            _survey_imagery(found, file, tile_size, crs)
        else:
            found.problems.extend(_elevation_problems(file, crs))
            found.elevation.append(file)
    return found


def _place(header: Header) -> tuple[object, ...]:
    """What two files share that cover the same pixels."""
    return (*(round(c, 3) for c in header.transform), *header.shape)


def _survey_imagery(found: Survey, file: Examined, tile_size: int, crs: str) -> None:
    try:
        tile = Tile.named(str(file.delivered.corner), tile_size)
    except GridError as error:
        found.problems.append(f"{file.path}: {error}")
        return
    found.problems.extend(f"{file.path}: {wrong}" for wrong in _imagery_problems(file, tile, crs))
    found.excess.extend(_imagery_excess(file, tile, crs))
    beside = found.tiles.setdefault(tile, {})
    pair = [f for f in (*beside.values(), file) if f.kind != "height"]
    if other := next((f for f in pair[:-1] if _place(f.header) != _place(file.header)), None):
        found.problems.append(
            f"{file.path}: lies on another pixel grid than {other.path}; expected one resolution and corner for a tile"
        )
    beside[file.kind] = file


def _imagery_problems(file: Examined, tile: Tile, crs: str) -> list[str]:
    header = file.header
    wrong = _crs_problems(header, crs)
    if header.count != _IMAGERY_BANDS[file.kind]:
        fourth = " (the last is transparency, no infrared)" if header.alpha else ""
        wrong.append(f"has {header.count} bands{fourth}; expected {_IMAGERY_BANDS[file.kind]}")
    if header.dtype != "uint8" and not _too_deep(file):
        wrong.append(_depth_problem(file))
    if placed := _placement_problem(header):
        return [*wrong, placed]
    size = round(tile.window.height * RESOLUTION_M / header.transform[0])
    if header.shape != (size, size):
        wrong.append(f"is {header.shape[0]} × {header.shape[1]} px; expected tiles of {size} × {size} px")
    if file.kind == "height" and header.shape != tile.window.shape:
        wrong.append(
            f"is {header.shape[0]} × {header.shape[1]} px; expected ready heights at {RESOLUTION_M:g} m a pixel"
        )
    wrong += [p for p in (_named_resolution_problem(file), _corner_problem(header, tile)) if p]
    return wrong


def _crs_problems(header: Header, crs: str) -> list[str]:
    if header.crs_text == crs:
        return []
    return [f"CRS is {header.crs_text}; expected {crs}{' (Lambert-93)' if crs == CRS else ''}"]


def _depth_problem(file: Examined) -> str:
    """What to do with samples that are neither 8 bits nor what `bit_depth` accepts."""
    if file.kind == "height":
        return (
            f"samples are {file.header.dtype}; expected uint8 in units of 0.2 m (metres? "
            "gdal_translate -ot Byte -scale 0 51 0 255 makes them so, and negative heights 0)"
        )
    return (
        f"samples are {file.header.dtype}; expected uint8 ({DEEP} where bit_depth is accepted): convert them, "
        "gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT, with the levels that look as BD ORTHO's black and white"
    )


def _too_deep(file: Examined) -> bool:
    """True for imagery whose samples have more bits, and a whole range that is known."""
    return file.kind != "height" and file.header.dtype == DEEP


def _imagery_excess(file: Examined, tile: Tile, crs: str) -> list[Excess]:
    x, y = file.header.transform[0], -file.header.transform[4]
    found = []
    if _too_deep(file):
        sentence = f"{file.path}: samples are {DEEP}; expected uint8; accepted, v is read as {RULE}"
        found.append(Excess("bit_depth", sentence, tile.name))
    if (
        file.kind != "height"
        and file.header.north_up
        and max(abs(x - RESOLUTION_M), abs(y - RESOLUTION_M)) > 1e-6 * RESOLUTION_M
    ):
        sentence = f"resolution is {x:g} × {y:g} m; expected {RESOLUTION_M:g} m, the only one the model is for"
        found.append(Excess("resolution", f"{file.path}: {sentence}; accepted, it is resampled to it", tile.name))
    if crs == CRS and file.kind == "rvb" and outside_france(tile.window.bounds):
        found.append(Excess("territory", f"{file.path}: lies outside metropolitan France", tile.name))
    return found


def _named_resolution_problem(file: Examined) -> str | None:
    named = _NAMED_RESOLUTION.search(file.path.name)
    if named is None:
        return None
    said, has = int(named[1]) + int(named[2]) / 100, file.header.transform[0]
    return (
        None if abs(said - has) <= 1e-3 * said else f"its name says {said:g} m a pixel; the georeference has {has:g} m"
    )


def _placement_problem(header: Header) -> str | None:
    if header.north_up:
        return None
    return f"is rotated or not north-up: transform {header.transform}; expected rows southwards, columns eastwards"


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


def _elevation_problems(file: Examined, crs: str) -> list[str]:
    header = file.header
    wrong = [] if header.crs == "absent" else [f"{w} or none" for w in _crs_problems(header, crs)]
    if header.count != 1:
        wrong.append(f"has {header.count} bands; expected 1")
    if header.dtype not in ELEVATION_TYPES:
        wrong.append(f"samples are {header.dtype}; expected metres as one of {', '.join(sorted(ELEVATION_TYPES))}")
    x, y = header.transform[0], -header.transform[4]
    if placed := _placement_problem(header):
        wrong.append(placed)
    elif abs(x - y) > 1e-6 * x or x > _COARSEST_M:
        wrong.append(f"resolution is {x:g} × {y:g} m; expected square pixels of at most {_COARSEST_M:g} m")
    elif outside := _outside_name(file) or _named_resolution_problem(file):
        wrong.append(outside)
    return [f"{file.path}: {w}" for w in wrong]


def _outside_name(file: Examined) -> str | None:
    corner = named_corner(file.delivered)
    if corner is None:
        return None
    x, y = corner
    step = file.header.transform[0]
    slack, side = step * 1.001, _ELEVATION_FILE_M * max(1.0, step)
    left, bottom, right, top = file.header.bounds
    inside = left >= x - slack and right <= x + side + slack
    if inside and top <= y + slack and bottom >= y - side - slack:
        return None
    return (
        f"its name says that it lies in x {x / 1000:.3f}..{(x + side) / 1000:.3f}, "
        f"y {(y - side) / 1000:.3f}..{y / 1000:.3f} km; "
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
