"""What lies in folders: deliveries by domain, archives that are not unpacked yet, and an input catalog."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import ConfigError, DeliveryError
from pipeline.grid import PIXELS_PER_M
from pipeline.sources.delivery.headers import peek_header
from pipeline.sources.delivery.names import DeliveredFile, find_files
from pipeline.sources.download.editions import parse_zone
from pipeline.sources.short_lists import first_names

_ARCHIVE = re.compile(r"(?P<base>.+\.7z)(\.\d{3,})?", re.IGNORECASE)
_IMAGERY_ARCHIVE = re.compile(
    r"BDORTHO_.*(RVB|IRC).*_D(?P<code>\w{2,3})_(?P<year>\d{4})-\d\d-\d\d.*\.7z", re.IGNORECASE
)

_BD_ORTHO_TILE = 25_000
"""Side in pixels."""


@dataclass(frozen=True)
class FoundDelivery:
    """The delivery of one domain."""

    domain: Domain
    folders: tuple[Path, ...]
    """What `index` reads: folders with its imagery, and those with elevation and dates."""
    tile_size: int
    """Side of its tiles in pixels of 0.20 m, by the header of one file."""


def find_deliveries(folders: Sequence[Path]) -> tuple[FoundDelivery, ...]:
    """Finds the domains whose imagery lies below folders. A folder of several domains is split into its sub-folders.

    Raises:
        DeliveryError: a folder cannot be listed, files of several domains lie in one folder, or a file cannot be
            opened.
    """
    parts = [part for folder in folders for part in _split(folder.absolute())]
    shared = [folder for folder, files in parts if not files]
    found = []
    for domain in sorted({d for _, files in parts for d in files}):
        own = [(folder, files[domain]) for folder, files in parts if domain in files]
        found.append(FoundDelivery(domain, (*(folder for folder, _ in own), *shared), _tile_size(own[0][1])))
    return tuple(found)


def tile_size_below(folders: Sequence[Path]) -> int:
    """Side of the tiles in pixels of 0.20 m, by the header of one image below folders; BD ORTHO's where there is none.

    Raises:
        DeliveryError: a folder cannot be listed, or the image cannot be opened.
    """
    images = (file for file in find_files(folders)[0] if file.kind == "rvb")
    first = next(images, None)
    return _tile_size(first) if first else _BD_ORTHO_TILE


def _tile_size(image: DeliveredFile) -> int:
    header = peek_header(image.path)
    return round(header.shape[1] * header.transform[0] * PIXELS_PER_M)


def _split(folder: Path) -> list[tuple[Path, dict[Domain, DeliveredFile]]]:
    """A folder, or its sub-folders where it has several domains; each with one image of each of its domains."""
    delivered, _ = find_files([folder])
    images = [f for f in delivered if f.kind == "rvb"]
    domains = {domain: f for f in reversed(images) if (domain := _domain_of(f))}
    if len(domains) <= 1:
        return [(folder, domains)]
    if mixed := [f for f in images if f.path.parent == folder]:
        raise DeliveryError(
            f"{folder}: has imagery of {', '.join(sorted(domains))} in one folder, such as {mixed[0].path.name}; give "
            "each domain a folder of its own"
        )
    return [part for below in sorted(folder.iterdir()) if below.is_dir() for part in _split(below)]


def _domain_of(file: DeliveredFile) -> Domain | None:
    if file.departement is None or file.year is None:
        return None
    try:
        return Domain(f"D{file.departement.zfill(3)}_{file.year}")
    except ConfigError:
        return None


def archives_below(folder: Path) -> tuple[Path, ...]:
    """The 7z archives below a folder; of each one volume.

    Raises:
        DeliveryError: the folder does not exist or cannot be listed.
    """
    if not folder.is_dir():
        raise DeliveryError(f"{folder}: no such folder; check the path")
    first: dict[Path, Path] = {}
    for root, _, files in os.walk(folder.absolute(), followlinks=True):
        for name in sorted(files):
            if match := _ARCHIVE.fullmatch(name):
                first.setdefault(Path(root, match["base"]), Path(root, name))
    return tuple(sorted(first.values()))


def domain_of_archives(archives: Sequence[Path], folder: Path) -> Domain:
    """The domain of a folder of archives: by the names of BD ORTHO's, else by the folder's own.

    Raises:
        DeliveryError: they name several domains, or none.
    """
    named = {
        Domain(f"D{match['code'].upper().zfill(3)}_{match['year']}")
        for path in archives
        if (match := _IMAGERY_ARCHIVE.match(path.name))
    }
    if len(named) == 1:
        return named.pop()
    if named:
        raise DeliveryError(
            f"{folder}: has archives of {', '.join(sorted(named))}; give each domain a folder of its own"
        )
    try:
        return Domain(folder.absolute().name)
    except ConfigError as error:
        raise DeliveryError(
            f"{folder}: no domain is known for its archives, such as {first_names([p.name for p in archives], 2)}; "
            "name the folder after it, such as D034_2021, or unpack them with `landcover stage`"
        ) from error


def named_delivery(name: str, around: Path) -> Path:
    """The delivery of a département by its name or number: a folder such as `D034_2021`, here or one level below.

    Args:
        name: `Hérault`, `34`, `D034`.
        around: where to look.

    Raises:
        ConfigError: not a département, or not exactly one such folder.
    """
    try:
        zone = parse_zone(name)
    except ConfigError as error:
        raise ConfigError(f"{name}: no such folder; check the path. As the name of a département, {error}") from error
    found = [path for pattern in ("", "*/") for path in sorted(around.glob(f"{pattern}{zone}_20??")) if path.is_dir()]
    if not found:
        raise ConfigError(
            f"{name}: no folder {zone}_YEAR is here or one level below; give its path, or download it: landcover fetch "
            f"{zone} --out deliveries"
        )
    if len(found) > 1:
        raise ConfigError(f"{name}: found {', '.join(map(str, found))}; give one of these paths")
    return found[0]


def indexed_domains(folder: Path) -> tuple[Domain, ...]:
    """The domains of an input catalog; none where the folder is not one."""
    if not (folder / "catalog.json").is_file():
        return ()
    return tuple(Domain(path.parent.name) for path in sorted(folder.glob("D*/collection.json")))
