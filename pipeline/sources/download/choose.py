"""Chooses the editions that belong together: imagery of one vintage, and elevation near to it in time."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.domain import Domain
from pipeline.errors import DownloadError
from pipeline.sources.download.editions import Part, RemoteEdition
from pipeline.sources.short_lists import first_lines

Content = Literal["rvb", "irc", "elevation", "graph", "borders"]
"""What can be wanted of a département."""

_SPECTRA: dict[Part, str] = {"rvb": "RVB", "irc": "IRC"}


@dataclass(frozen=True)
class Choice:
    """The editions to download for a domain."""

    domain: Domain
    editions: tuple[RemoteEdition, ...]
    notes: tuple[str, ...]
    """What is wanted and does not exist, or is of another year, a sentence each."""


def choose(available: Sequence[RemoteEdition], *, zone: str, year: int | None, contents: Collection[Content]) -> Choice:
    """Chooses the newest version of imagery of one vintage, its graph, the nearest elevation and the newest borders.

    Args:
        available: editions of all products for the département.
        zone: such as `D034`.
        year: the vintage; by default the newest that has all wanted spectra.
        contents: what is wanted.

    Raises:
        DownloadError: no vintage has all wanted spectra. The message lists the imagery that there is.
    """
    spectra = [part for part in _SPECTRA if part in contents]
    vintage = year if year and not spectra else _vintage(available, zone, year, spectra or list(_SPECTRA))
    chosen: list[RemoteEdition] = []
    notes: list[str] = []
    for part in spectra:
        chosen += _best(available, part, lambda e: e.year == vintage, _newest)
    if "graph" in contents:
        found = _best(available, "graph", lambda e: e.year == vintage, _newest)
        notes += [] if found else [f"no mosaicking graph of {vintage}: days of flight are unknown"]
        chosen += found
    if "elevation" in contents:
        near = _nearest_to(vintage)
        for part, what in (("surface", "surface model (MNS)"), ("terrain", "terrain model (RGE ALTI or MNT)")):
            found = _best(available, part, lambda _: True, near)
            notes += [] if found else [f"no {what} for {zone}: without one, no heights can be made"]
            notes += [f"{e.name} is of {e.year}; the imagery is of {vintage}" for e in found if e.year != vintage]
            chosen += found
    if "borders" in contents:
        found = _best(available, "borders", lambda _: True, lambda e: (e.date, e.version, _is_plain(e), e.name))
        notes += [] if found else ["no ADMIN EXPRESS as a GeoPackage: the boundary is unknown"]
        chosen += found
    return Choice(Domain(f"{zone}_{vintage}"), tuple(chosen), tuple(notes))


def _vintage(available: Sequence[RemoteEdition], zone: str, year: int | None, spectra: Sequence[Part]) -> int:
    years = [{e.year for e in available if e.part == part} for part in spectra]
    common = set.intersection(*years)
    if year in common or (year is None and common):
        return year or max(common)
    wanted = " and ".join(_SPECTRA[part] for part in spectra)
    of_year = f" of {year}" if year else " of one year"
    imagery = sorted((e for e in available if e.product == "BDORTHO"), key=lambda e: (e.date, e.name))
    listed = first_lines([e.name for e in imagery]) or " none"
    other = f"; try --year {max(common)}" if common else ""
    raise DownloadError(f"{zone}: no {wanted} at 0.20 m{of_year}{other}. The service has for this département:{listed}")


def _best(
    available: Iterable[RemoteEdition],
    part: Part,
    fits: Callable[[RemoteEdition], bool],
    value: Callable[[RemoteEdition], Any],
) -> list[RemoteEdition]:
    """The edition of this part with the highest value, if there is any."""
    found = [edition for edition in available if edition.part == part and fits(edition)]
    return [max(found, key=value)] if found else []


def _newest(edition: RemoteEdition) -> Any:
    return edition.version, edition.date, edition.name


def _nearest_to(vintage: int) -> Callable[[RemoteEdition], Any]:
    """Nearest in years; then archives before LiDAR HD, which has thousands of files."""
    return lambda e: (-abs(e.year - vintage), "LIDAR" not in e.product.upper(), e.version, e.date, e.name)


def _is_plain(edition: RemoteEdition) -> bool:
    """ADMIN EXPRESS itself rather than its variant of the official geographic code."""
    return not edition.product.upper().endswith("COG")
