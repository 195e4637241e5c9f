"""Names and folders of IGN's deliveries: reads them, and makes them.

Imagery is named `38-2024-0595-6890-LA93-0M20-E080.jp2` (infrared: `…-0M20-IRC-E080.jp2`), by the
NORTH-WEST corner in km. Surface models are `93-2024-0652-6870-LA93-0M50.tif` (MNS-Correl) or
`LHD_FXX_0932_6453_MNS_0M50_LAMB93_IGN69.tif` (LiDAR HD), terrain models `LHD_FXX_…_MNT_…` or
`RGEALTI_FXX_0845_6446_MNT_LAMB93_IGN69.asc`, a ready height in units of 0.2 m
`38-2024-0595-6890-LA93-0M20-HAUTEUR.tif`. Overseas the territory, projection and height system in the names differ
(`974-2022-0310-7670-U40S-0M20-E080.jp2`, `RGEALTI_REU_…`). A raster with any other name counts as a surface or terrain
model if it lies in a folder named DSM or MNS, DTM or MNT.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.domain import Domain, normal_departement
from pipeline.errors import DeliveryError
from pipeline.sources.gdal_open import is_virtual

Kind = Literal["rvb", "irc", "height", "dsm", "dtm"]

OVERSEAS = {"U20N": 5490, "U21N": 4467, "U22N": 2972, "U40S": 2975, "U38S": 4471}
"""Projection in a delivery's names → EPSG code: RGAF09 (Antilles), RGSPM06, RGFG95, RGR92 (Réunion), RGM04. The name
gives zone and hemisphere of UTM on GRS80."""
_OVERSEAS_DEPARTEMENTS = {"973": "U22N", "974": "U40S", "975": "U21N", "976": "U38S"}

RASTER_SUFFIXES = frozenset({".jp2", ".tif", ".tiff", ".asc"})
"""Of rasters that are read, in lower case."""
_OTHER_RASTERS = frozenset({".ecw", ".img", ".j2k", ".jpeg", ".jpf", ".jpg", ".jpx", ".png", ".vrt"})
"""Of rasters in other formats, which are listed as ignored where their name is that of a delivered file."""
_FOLDERS: dict[str, Kind] = {"DSM": "dsm", "MNS": "dsm", "DTM": "dtm", "MNT": "dtm"}

_CORNER = r"(?P<x>\d{4,6})-(?P<y>\d{4,6})"
_DOMAIN = (
    r"(?P<departement>0?2[AB]|\d{2,3})-(?P<year>\d{4})-"
    + _CORNER
    + r"-(?P<projection>[A-Z0-9]+)-(?P<resolution>\d+M\d\d)"
)
_IMAGERY = re.compile(
    _DOMAIN + r"(-(RVB|RGB)I?R?|(?P<infrared>-IRC))?(?P<quality>-E\d{2,3})?\.(?P<suffix>jp2|tiff?)", re.IGNORECASE
)
_HEIGHT = re.compile(_DOMAIN + r"-HAUTEUR\.tiff?", re.IGNORECASE)
_LIDAR = re.compile(
    r"LHD_[A-Z]{3}_(?P<x>\d{4,6})_(?P<y>\d{4,6})_(?P<model>MNS|MNT)(_[A-Z])?_\d+M\d\d_[A-Z0-9]+_[A-Z0-9]+\.tiff?",
    re.IGNORECASE,
)
_RGE_ALTI = re.compile(
    r"RGEALTI_[A-Z]{3}_(?P<x>\d{4,6})_(?P<y>\d{4,6})_(?P<model>MNT)_[A-Z0-9]+_[A-Z0-9]+\.(asc|tiff?)", re.IGNORECASE
)


@dataclass(frozen=True, order=True)
class DeliveredFile:
    """One file of a delivery, as its name describes it."""

    kind: Kind
    path: Path
    departement: str | None
    """`38`, `2A`, `974`: without leading zeros; None where the name has none."""
    year: int | None
    """Vintage; None where the name has none."""
    corner: str | None
    """`0595-6890`: north-west corner as `grid.Tile` names it; None where the name has none."""
    projection: str | None = None
    """`LA93`, or overseas a key of `OVERSEAS`; None where the name has none."""


def parse_name(path: Path) -> DeliveredFile | None:
    """What a file is by its name, else by its folder's; None where both are unknown.

    Example:
        >>> parse_name(Path("38-2024-0595-6890-LA93-0M20-E080.jp2")).corner
        '0595-6890'
    """
    name = path.name
    if match := _HEIGHT.fullmatch(name):
        return _of_domain("height", path, match)
    if match := _IMAGERY.fullmatch(name):
        return _of_domain(_imagery_kind(match), path, match)
    if match := _LIDAR.fullmatch(name) or _RGE_ALTI.fullmatch(name):
        kind: Kind = "dsm" if match["model"].upper() == "MNS" else "dtm"
        return DeliveredFile(kind, path, None, None, f"{match['x']}-{match['y']}")
    folder = _FOLDERS.get(path.parent.name.upper())
    if folder and path.suffix.lower() in {".tif", ".tiff", ".asc"}:
        return DeliveredFile(folder, path, None, None, None)
    return None


def _imagery_kind(match: re.Match[str]) -> Kind:
    if match["infrared"]:
        return "irc"
    # MNS-Correl is named as imagery is, without the compression, and never comes at 0.20 m.
    plain_tif = match["suffix"].lower() != "jp2" and not match["quality"]
    return "dsm" if plain_tif and match["resolution"].upper() != "0M20" else "rvb"


def _of_domain(kind: Kind, path: Path, match: re.Match[str]) -> DeliveredFile:
    departement = normal_departement(match["departement"])
    corner = f"{match['x']}-{match['y']}"
    return DeliveredFile(kind, path, departement, int(match["year"]), corner, match["projection"].upper())


def find_files(folders: Sequence[Path]) -> tuple[list[DeliveredFile], list[Path]]:
    """Lists all rasters below `folders`. Links to folders are followed; a file that is reached twice counts once.

    Returns:
        Files with a known name, sorted by kind and path, and rasters with an unknown name or another format, sorted.

    Raises:
        DeliveryError: a folder that does not exist or cannot be listed.
    """
    delivered: dict[Path, DeliveredFile] = {}
    ignored: set[Path] = set()
    for path in files_below(folders, RASTER_SUFFIXES | _OTHER_RASTERS):
        if path.suffix.lower() in _OTHER_RASTERS:
            ignored |= {path} if parse_name(path.with_suffix(".tif")) else set()
        elif found := parse_name(path):
            delivered.setdefault(path.resolve(), found)
        else:
            ignored.add(path)
    return sorted(delivered.values()), sorted(ignored)


def files_below(folders: Iterable[Path], suffixes: Container[str]) -> Iterator[Path]:
    """Yields all files below `folders` with one of the suffixes, in lower or upper case.

    Links to folders are followed; a folder that is reached twice counts once.

    Raises:
        DeliveryError: a folder that does not exist or cannot be listed.
    """
    visited: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            remedy = "unpack the archive with `landcover stage`" if is_virtual(folder) else "check the path"
            raise DeliveryError(f"{folder}: no such folder; {remedy}")
        for root, below, files in os.walk(folder.absolute(), followlinks=True, onerror=_raise_unlistable):
            real = os.path.realpath(root)
            if real in visited:
                below.clear()
                continue
            visited.add(real)
            yield from (Path(root, f) for f in files if Path(f).suffix.lower() in suffixes)


def _raise_unlistable(error: OSError) -> None:
    raise DeliveryError(f"{error.filename}: cannot be listed: {error.strerror}; check its permissions") from error


def check_domain(files: Sequence[DeliveredFile], domain: Domain) -> list[str]:
    """One sentence for each file whose name has another département or vintage than `domain`.

    Surface and terrain models are not checked: those of a neighbour or of another year can be used too.
    """
    departement, year = domain.departement, domain.year
    return [
        f"{f.path}: its name has département {f.departement}, vintage {f.year}; expected {departement}, {year} as "
        f"{domain}"
        for f in files
        if f.kind not in ("dsm", "dtm") and f.departement is not None and (f.departement, f.year) != (departement, year)
    ]


def imagery_name(
    corner: str, *, departement: str, year: int, infrared: bool = False, suffix: str = "jp2", quality: int = 80
) -> str:
    """`38-2024-0595-6890-LA93-0M20-E080.jp2`, with `-IRC` where infrared; `corner` as `grid.Tile` names it."""
    infix = "-IRC" if infrared else ""
    return f"{_named(corner, departement, year)}-0M20{infix}-E{quality:03d}.{suffix}"


def height_name(corner: str, *, departement: str, year: int) -> str:
    """`38-2024-0595-6890-LA93-0M20-HAUTEUR.tif`: a ready height, uint8 in units of 0.2 m."""
    return f"{_named(corner, departement, year)}-0M20-HAUTEUR.tif"


def surface_name(corner: str, *, departement: str, year: int) -> str:
    """`93-2024-0652-6870-LA93-0M50.tif`: a surface model of MNS-Correl."""
    return f"{_named(corner, departement, year)}-0M50.tif"


def projection_of(departement: str) -> str:
    """The projection in the names of a département's tiles: `LA93`, overseas `U40S` and the like."""
    code = normal_departement(departement)
    # 971, 972, and 977 and 978 that were part of 971: the Antilles.
    return _OVERSEAS_DEPARTEMENTS.get(code, "U20N" if len(code) == 3 else "LA93")


def _named(corner: str, departement: str, year: int) -> str:
    return f"{_short(departement)}-{year}-{corner}-{projection_of(departement)}"


def lidar_name(corner: str, *, kind: Literal["dsm", "dtm"]) -> str:
    """`LHD_FXX_0932_6453_MNS_0M50_LAMB93_IGN69.tif`: a surface or terrain model of LiDAR HD."""
    model = "MNS" if kind == "dsm" else "MNT"
    return f"LHD_FXX_{corner.replace('-', '_')}_{model}_0M50_LAMB93_IGN69.tif"


def terrain_name(corner: str) -> str:
    """`RGEALTI_FXX_0845_6446_MNT_LAMB93_IGN69.asc`: a terrain model of RGE ALTI."""
    return f"RGEALTI_FXX_{corner.replace('-', '_')}_MNT_LAMB93_IGN69.asc"


def imagery_folder(*, departement: str, year: int, infrared: bool = False) -> Path:
    """The folder of a delivery's imagery, relative to where the delivery was unpacked."""
    colours = "IRC" if infrared else "RVB"
    long = normal_departement(departement).zfill(3)
    top = f"BDORTHO_2-0_{colours}-0M20_JP2-E080_LAMB93_D{long}_{year}-01-01"
    inner = f"OHR_{colours}_0M20_JP2-E080_LAMB93_D{_short(departement)}-{year}"
    return Path(top, "ORTHOHR", f"1_DONNEES_LIVRAISON_{year}-01-01", inner)


def _short(departement: str) -> str:
    """With at least two characters, as in file names: `1` → `01`, `064` → `64`."""
    return normal_departement(departement).zfill(2)
