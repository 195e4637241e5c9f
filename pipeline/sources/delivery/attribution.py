"""Whose data a domain is, under which licence, and of which days: it follows the pixels into every product."""

import datetime as dt
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import LimitName
from pipeline.domain import Domain
from pipeline.grid import CRS
from pipeline.sources.delivery.names import Delivered, files_below, parse

LICENCE = "etalab-2.0"
"""BD ORTHO, RGE ALTI and LiDAR HD since 2021."""
_LICENCE_NAME = "Licence Ouverte Etalab 2.0"
PRODUCER = "IGN"

Days = tuple[dt.date, dt.date]
"""First and last day of acquisition."""

_ELEVATION_NAMES = (("LHD_", "LiDAR HD"), ("RGEALTI_", "RGE ALTI"))
_DATE_FIELD = re.compile(r"DATE(?!_?(MAJ|EDIT|CREA|LIV))")
"""Days of flight, not those of an update, an edition or a delivery."""
_DATES = (re.compile(r"(?P<y>\d{4})-?(?P<m>\d\d)-?(?P<d>\d\d)"), re.compile(r"(?P<d>\d\d)/(?P<m>\d\d)/(?P<y>\d{4})"))
_YEARS_OFF = 2
"""A vintage is flown in its own year, and mended with images of the neighbouring ones."""


@dataclass(frozen=True)
class Origin:
    """Whose data, under which licence, cited how; empty where unknown."""

    attribution: str = ""
    """Producer, product and vintage: `IGN, BD ORTHO 2021`."""
    licence: str = ""
    """SPDX identifier in lower case."""
    citation: str = ""
    doi: str = ""

    @classmethod
    def joined(cls, origins: Iterable["Origin"]) -> "Origin":
        """All of them as one; several licences are `other`, as STAC has it."""
        given = list(origins)
        licences = _once(o.licence for o in given)
        return cls(
            "; ".join(_once(o.attribution for o in given)),
            licences[0] if len(licences) == 1 else "other" if licences else "",
            " ".join(_once(o.citation for o in given)),
            " ".join(_once(o.doi for o in given)),
        )


UNKNOWN = Origin()


@dataclass(frozen=True)
class About:
    """What all items of a domain share."""

    domain: Domain
    year: int
    """The vintage."""
    origin: Origin
    crs: str = CRS
    limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that were passed and accepted, sorted."""
    acquired: Days | None = None
    """First and last day over all tiles whose days are known."""


@dataclass(frozen=True)
class Acquired:
    """Days of acquisition, as far as a delivery has them."""

    tiles: Mapping[str, Days] = field(default_factory=dict)
    """By the corner in a tile's name, `0595-6890`."""
    domain: Days | None = None
    """Over everything that names no tile."""
    notes: tuple[str, ...] = ()
    """What attribute tables lacked, a sentence each."""

    def of(self, tile: str) -> Days | None:
        """The tile's own days, else the domain's, else None."""
        return self.tiles.get(tile, self.domain)


def of_files(files: Sequence[Delivered], *, year: int) -> Origin:
    """The origin of files under IGN's names: `IGN, BD ORTHO 2021, LiDAR HD`.

    The citation is what the licence asks for: producer, products with their vintage, and the licence itself.
    """
    products = []
    if any(f.kind in ("rvb", "irc") for f in files):
        products.append(f"BD ORTHO {year}")
    for f in files:
        if f.kind in ("dsm", "dtm"):
            names = [product for prefix, product in _ELEVATION_NAMES if f.path.name.upper().startswith(prefix)]
            products += names or ([f"MNS-Correl {f.year}"] if f.year else [])
    attribution = ", ".join(_once([PRODUCER, *products]))
    return Origin(attribution, LICENCE, f"{attribution} ({_LICENCE_NAME})")


def days_of(folders: Iterable[Path], *, year: int) -> Acquired:
    """Days of acquisition from the attribute tables (`.dbf`) that lie in a delivery.

    `dalles.dbf` and the mosaicking graph, where they have a field DATE…: with a field NOM that names a tile the days
    are the tile's, otherwise the domain's. Days over two years off the vintage are passed over. How IGN names the
    graph's fields is not documented, so where no table gives a day, each says what it has instead.
    """
    tiles: dict[str, Days] = {}
    whole: list[dt.date] = []
    notes = []
    for path in sorted(files_below(folders, (".dbf",))):
        table = _Table.of(path)
        found = 0
        for row in table.rows if table else ():
            days = [d for name, text in row.items() if _DATE_FIELD.match(name) and (d := _day(text))]
            days = [d for d in days if abs(d.year - year) <= _YEARS_OFF]
            found += len(days)
            named = parse(Path(row.get("NOM", "")))
            corner = named.corner if named else None
            if days and corner:
                known = tiles.get(corner, (days[0], days[0]))
                tiles[corner] = (min(*days, known[0]), max(*days, known[1]))
            whole += days if not corner else []
        if not found:
            notes.append(_lacking(path, table, year))
    domain = (min(whole), max(whole)) if whole else None
    return Acquired(tiles, domain, () if tiles or domain else tuple(notes))


def joined_days(days: Iterable[Days | None]) -> Days | None:
    """From the first to the last of all that are known; None where none is."""
    known = [d for d in days if d]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def _lacking(path: Path, table: "_Table | None", year: int) -> str:
    """What an attribute table has instead of days."""
    if table is None:
        return f"{path.name}: is no dBASE table, so no days of acquisition are known from it"
    dated = [name for name in table.fields if _DATE_FIELD.match(name)]
    if not dated:
        return (
            f"{path.name}: no field DATE… that could be days of acquisition (its fields: {', '.join(table.fields)}); "
            f"the vintage {year} stands for them"
        )
    return (
        f"{path.name}: no day within {_YEARS_OFF} years of {year} in {', '.join(dated)}; the vintage stands for the "
        "days of acquisition"
    )


@dataclass(frozen=True)
class _Table:
    """A dBASE III table; rows are read as they are asked for."""

    path: Path
    columns: tuple[tuple[str, int], ...]
    """(field in capitals, bytes) in the order of the file."""
    count: int
    start: int
    """Byte of the first row."""
    length: int
    """Bytes of a row."""

    @classmethod
    def of(cls, path: Path) -> "_Table | None":
        """The table's head; None where the file is no such table."""
        with path.open("rb") as file:
            head = file.read(32)
            if len(head) < 32:
                return None
            count, start, length = struct.unpack("<IHH", head[4:12])
            columns = []
            while len(raw := file.read(32)) == 32 and raw[0] != 0x0D:
                columns.append((raw[:11].split(b"\0")[0].decode("ascii", "replace").upper(), raw[16]))
        return cls(path, tuple(columns), count, start, length)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in capitals."""
        return tuple(name for name, _ in self.columns)

    @property
    def rows(self) -> Iterator[dict[str, str]]:
        """The rows as text, fields by name; none where no field is a date."""
        if not any(_DATE_FIELD.match(name) for name in self.fields):
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            for _ in range(self.count):
                record = file.read(self.length)
                if len(record) < self.length:
                    return
                row, at = {}, 1
                for name, width in self.columns:
                    row[name] = record[at : at + width].decode("latin-1").strip()
                    at += width
                yield row


def _day(text: str) -> dt.date | None:
    for pattern in _DATES:
        if match := pattern.match(text):
            try:
                return dt.date(int(match["y"]), int(match["m"]), int(match["d"]))
            except ValueError:
                return None
    return None


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(t for t in texts if t))
