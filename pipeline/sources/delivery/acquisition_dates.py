"""Days on which a delivery's imagery was flown, from the attribute tables (`.dbf`) that lie in it."""

import datetime as dt
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.sources.delivery.names import files_below, parse_name
from pipeline.untrusted.own_files import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

Days = tuple[dt.date, dt.date]
"""First and last day of acquisition."""

_DATE_FIELD = re.compile(r"DATE(?!_?(MAJ|EDIT|CREA|LIV))", re.IGNORECASE)
"""Days of flight, not those of an update, an edition or a delivery."""
_NAME_FIELD = "NOM"
_DATES = (re.compile(r"(?P<y>\d{4})-?(?P<m>\d\d)-?(?P<d>\d\d)"), re.compile(r"(?P<d>\d\d)/(?P<m>\d\d)/(?P<y>\d{4})"))
_TRAINED_MONTHS = range(4, 12)
_MAX_YEARS_OFF = 2
"""A vintage is flown in its own year, and completed with images of the neighbouring ones."""
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


def season_notes(days: Days | None) -> list[str]:
    """A sentence where imagery was flown outside of the season that FLAIR's networks were trained on."""
    if days is None or all(day.month in _TRAINED_MONTHS for day in days):
        return []
    flown = " to ".join(dict.fromkeys(day.isoformat() for day in days))
    return [f"flown {flown}: the model card's networks were trained on imagery of April to November"]


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
        for row in table.to_pylist() if table else ():
            days = [d for name, value in row.items() if _DATE_FIELD.match(name) and (d := _parse_day(str(value)))]
            days = [d for d in days if abs(d.year - year) <= _MAX_YEARS_OFF]
            found += len(days)
            named = parse_name(Path(str(row.get(_NAME_FIELD))))
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


def _missing_days(path: Path, table: "pa.Table | None", year: int) -> str:
    """What an attribute table has instead of days."""
    if table is None:
        return f"{path.name}: not a dBASE table, so no days of acquisition are known from it"
    fields = table.column_names
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


def _read_table(path: Path) -> "pa.Table | None":
    """The dBASE table, its field names in capitals; None where the file is another or a damaged one.

    Rows beyond a truncation are left out.
    """
    # Importing pyogrio imports geopandas, which no worker and no plan needs.
    import pyogrio
    from pyogrio.errors import DataSourceError

    with open_regular(path) as file:
        # GDAL opens a file as whatever its content looks like; this one may be a dBASE table and nothing else.
        if file.read(1) not in _DBASE_VERSIONS:
            return None
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # Values that do not fit their field are read as None; no warning is needed.
        warnings.simplefilter("ignore", RuntimeWarning)
        # Under a name of its own, without the `.shp` and `.cpg` beside it, which may be missing a part.
        alone = Path(folder, "table.dbf")
        alone.symlink_to(path.absolute())
        try:
            # Arrow's reader, unlike the other one, gives the rows before a truncation and takes impossible dates.
            _, table = pyogrio.read_arrow(alone, read_geometry=False, encoding="ISO-8859-1")
        except DataSourceError:
            return None
    return table.rename_columns([name.upper() for name in table.column_names])


def _parse_day(text: str) -> dt.date | None:
    for pattern in _DATES:
        if match := pattern.match(text):
            try:
                return dt.date(int(match["y"]), int(match["m"]), int(match["d"]))
            except ValueError:
                return None
    return None
