"""Days on which a delivery's imagery was flown, from the attribute tables (`.dbf`) that lie in it."""

import datetime as dt
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.sources.delivery.names import files_below, parse_name

Days = tuple[dt.date, dt.date]
"""First and last day of acquisition."""

_DATE_FIELD = re.compile(r"DATE(?!_?(MAJ|EDIT|CREA|LIV))", re.IGNORECASE)
"""Days of flight, not those of an update, an edition or a delivery."""
_NAME_FIELD = "NOM"
_DATES = (re.compile(r"(?P<y>\d{4})-?(?P<m>\d\d)-?(?P<d>\d\d)"), re.compile(r"(?P<d>\d\d)/(?P<m>\d\d)/(?P<y>\d{4})"))
_MAX_YEARS_OFF = 2
"""A vintage is flown in its own year, and completed with images of the neighbouring ones."""
_Table = tuple[list[str], list[dict[str, str]]]
"""Names of all fields in capitals; and rows with the text of dates and tile names, if any field is a date."""

_DBASE_VERSIONS = (b"\x03", b"\x30", b"\x31", b"\x83", b"\x8b")


@dataclass(frozen=True)
class AcquisitionDates:
    """Days of acquisition, as far as a delivery states them."""

    tiles: Mapping[str, Days] = field(default_factory=dict)
    """By the corner in a tile's name, `0595-6890`."""
    domain: Days | None = None
    """Over all rows that name no tile."""
    notes: tuple[str, ...] = ()
    """What attribute tables lacked, a sentence each."""

    def of(self, tile: str) -> Days | None:
        """The tile's own days, else the domain's, else None."""
        return self.tiles.get(tile, self.domain)


def read_acquisition_dates(folders: Iterable[Path], *, year: int) -> AcquisitionDates:
    """Reads days of acquisition from the attribute tables of a delivery.

    `dalles.dbf` and the mosaicking graph are used where they have a field DATE…: with a field NOM that names a tile
    the days are the tile's, otherwise the domain's. Days more than two years off the vintage do not count. How IGN
    names the graph's fields is not documented, so where no table gives a day, the notes list what each has instead.

    Args:
        folders: where the delivery lies.
        year: its vintage.

    Raises:
        DeliveryError: a folder that does not exist or cannot be listed.
    """
    tiles: dict[str, Days] = {}
    unnamed: list[dt.date] = []
    notes = []
    for path in sorted(files_below(folders, (".dbf",))):
        table = _read_table(path)
        found = 0
        for row in table[1] if table else ():
            days = [d for name, text in row.items() if name != _NAME_FIELD and (d := _parse_day(text))]
            days = [d for d in days if abs(d.year - year) <= _MAX_YEARS_OFF]
            found += len(days)
            named = parse_name(Path(row.get(_NAME_FIELD, "")))
            if named is None or named.corner is None:
                unnamed += days
            elif days:
                tiles[named.corner] = _span([*days, *tiles.get(named.corner, ())])
        if not found:
            notes.append(_missing_days(path, table, year))
    domain = _span(unnamed) if unnamed else None
    return AcquisitionDates(tiles, domain, () if tiles or domain else tuple(notes))


def join_days(days: Iterable[Days | None]) -> Days | None:
    """From the first to the last of all days that are known; None where none is."""
    known = [day for span in days if span for day in span]
    return _span(known) if known else None


def _span(days: list[dt.date]) -> Days:
    return min(days), max(days)


def _missing_days(path: Path, table: _Table | None, year: int) -> str:
    """What an attribute table has instead of days."""
    if table is None:
        return f"{path.name}: not a dBASE table, so no days of acquisition are known from it"
    fields, _ = table
    dated = [name for name in fields if _DATE_FIELD.match(name)]
    if not dated:
        return (
            f"{path.name}: no field DATE… that could hold days of acquisition (its fields: {', '.join(fields)}); the "
            f"vintage {year} is used"
        )
    return (
        f"{path.name}: no day within {_MAX_YEARS_OFF} years of {year} in {', '.join(dated)}; the vintage is used "
        "instead"
    )


def _read_table(path: Path) -> _Table | None:
    """The dBASE table; None where the file is another or a damaged one. Rows beyond a truncation are left out."""
    # Importing pyogrio imports geopandas, which no worker and no plan needs.
    import pyogrio
    from pyogrio.errors import DataSourceError

    with path.open("rb") as file:
        # GDAL opens a file as whatever its content looks like; this one may be a dBASE table and nothing else.
        if file.read(1) not in _DBASE_VERSIONS:
            return None
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # Values that do not fit their field are none, and not worth a warning.
        warnings.simplefilter("ignore", RuntimeWarning)
        # Under a name of its own, without the `.shp` and `.cpg` beside it, which may be missing a part.
        alone = Path(folder, "table.dbf")
        alone.symlink_to(path.absolute())
        try:
            fields = [str(name) for name in pyogrio.read_info(alone, encoding="ISO-8859-1")["fields"]]
            wanted = [n for n in fields if n.upper() == _NAME_FIELD or _DATE_FIELD.match(n)]
            rows: list[dict[str, str]] = []
            if any(map(_DATE_FIELD.match, fields)):
                # Arrow's reader, unlike the other one, gives the rows before a truncation and takes impossible dates.
                _, table = pyogrio.read_arrow(alone, columns=wanted, read_geometry=False, encoding="ISO-8859-1")
                rows = [{k.upper(): "" if v is None else str(v) for k, v in r.items()} for r in table.to_pylist()]
        except DataSourceError:
            return None
    return [name.upper() for name in fields], rows


def _parse_day(text: str) -> dt.date | None:
    for pattern in _DATES:
        if match := pattern.match(text):
            try:
                return dt.date(int(match["y"]), int(match["m"]), int(match["d"]))
            except ValueError:
                return None
    return None
