"""Names of editions: `BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01`, and what each of them is good for."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.sources.delivery.departements import departement_named, similar_departement

GEOPLATEFORME = "https://data.geopf.fr/telechargement"
"""IGN's download service."""

Part = Literal["rvb", "irc", "graph", "surface", "terrain", "borders"]
"""What an edition contains: imagery, days of flight, elevation of either kind, or borders."""

_NAME = re.compile(
    r"[A-Za-z][A-Za-z0-9-]*_(?P<version>\d{1,3}-\d{1,3})_(?P<theme>[A-Za-z0-9_-]+)_(?P<zone>[A-Z0-9]{3,4})_"
    r"(?P<date>\d{4}-\d\d-\d\d)",
    re.ASCII,
)
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_ZONE = re.compile(r"D?0*(?P<code>2[AB]|97\d|\d{1,2})", re.IGNORECASE | re.ASCII)
_TERRITORIES = {"D971": "GLP", "D972": "MTQ", "D973": "GUF", "D974": "REU", "D976": "MYT"}
"""Département overseas → zone of its borders."""


@dataclass(frozen=True, order=True)
class RemoteEdition:
    """An edition of a product for one zone. Its name was checked, so it is safe in paths and URLs."""

    product: str
    """As in the service's paths: `BDORTHO`."""
    name: str
    version: tuple[int, int]
    theme: str
    """The part of the name between version and zone: `RVB-0M20_JP2-E080_LAMB93`."""
    zone: str
    date: dt.date
    """The vintage, such as 2021-01-01: not the day of flight."""

    @property
    def part(self) -> Part | None:
        """What this package uses the edition for; None for other products, resolutions and formats."""
        kind, theme = _plain(self.product), self.theme.upper()
        if kind == "BDORTHO":
            parts: dict[str, Part] = {"RVB-0M20_": "rvb", "IRC-0M20_": "irc", "GRAPHE-MOSAIQUAGE_": "graph"}
            return next((part for start, part in parts.items() if theme.startswith(start)), None)
        if kind.startswith("ADMINEXPRESS"):
            return "borders" if "GPKG" in theme else None
        if kind == "RGEALTI":
            return "terrain" if theme.startswith("1M_") else None
        if "LIDARHD" in kind:
            name = self.name.upper() + kind
            return "surface" if "MNS" in name else "terrain" if "MNT" in name else None
        return "surface" if kind == "MNSCORREL" else None

    @property
    def year(self) -> int:
        """The vintage's year."""
        return self.date.year


def parse_edition(product: str, name: str) -> RemoteEdition | None:
    """An edition from its name; None where the name is of another form.

    Example:
        >>> parse_edition("BDORTHO", "BDORTHO_2-0_IRC-0M20_JP2-E080_LAMB93_D034_2021-01-01").part
        'irc'
    """
    match = _NAME.fullmatch(name)
    if not match or len(name) > 150:
        return None
    major, _, minor = match["version"].partition("-")
    try:
        date = dt.date.fromisoformat(match["date"])
    except ValueError:
        return None
    return RemoteEdition(product, name, (int(major), int(minor)), match["theme"].strip("_"), match["zone"], date)


def is_used_product(name: str) -> bool:
    """Whether editions of a product may be of use: BD ORTHO, elevation, borders."""
    kind = _plain(name)
    if not _PRODUCT.fullmatch(name):
        return False
    lidar = "LIDARHD" in kind and ("MNS" in kind or "MNT" in kind)
    return lidar or kind in ("BDORTHO", "RGEALTI", "MNSCORREL", "ADMINEXPRESS", "ADMINEXPRESSCOG")


def parse_zone(text: str) -> str:
    """The service's name of a département: `34`, `034`, `D034` and `Hérault` → `D034`; `2A` → `D02A`.

    Raises:
        ConfigError: not a département.
    """
    match = _ZONE.fullmatch(text)
    code = (match["code"].upper() if match else departement_named(text) or "0").zfill(3)
    if code == "000":
        near = similar_departement(text)
        hint = f"did you mean {near}?" if near else "expected a name or a number, such as Hérault, D034, 2A or 974"
        raise ConfigError(f"{text!r} is not a département; {hint}")
    return f"D{code}"


def border_zones(zone: str) -> tuple[str, ...]:
    """Zones of borders that contain a département, the preferred one first."""
    return (_TERRITORIES.get(zone, zone) if zone > "D970" else "FXX", "FRA")


def _plain(product: str) -> str:
    """`ADMIN-EXPRESS` and `Admin_Express` → `ADMINEXPRESS`."""
    return re.sub(r"[-_]", "", product).upper()
