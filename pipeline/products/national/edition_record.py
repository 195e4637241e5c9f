"""The editions on disk, their records (`edition.json`), and which of them is current.

::

    <national>/current                          → editions/000002
    <national>/editions/000002/edition.json     number, parent, grid, domains; digest and tally of each shard
    <national>/editions/000002/product.zarr     the store: see `zarr_store`
    <national>/editions/000002/SHA256SUMS       checksum of every file, and MANIFEST.json: see `manifest`
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError, product_error
from pipeline.grid import CRS
from pipeline.products.manifest import BOTH, changed_files, files_below, has_manifest, read_manifest
from pipeline.products.national.grid import GridIndex, NationalGrid
from pipeline.progress import SILENT, Progress
from pipeline.untrusted.documents import Document, parse_model, read_model

log = logging.getLogger("landcover")

STORE_LAYERS = ("landcover", "confidence", "domain")
"""The store's sharded arrays."""

OUTSIDE, MAPPED, FAILED, MISSING = range(4)
"""Values of `coverage`. A tile with several owners shows the worst: failed, then missing, then mapped."""

REPAIR = "`landcover publish --recheck` writes it again"
SEALED_FOLDERS = ("product.zarr", "pyramid.zarr", "catalog")
"""Folders of an edition in which no file may be added later."""
HIGHEST = "highest"
"""File beside the editions: the highest number of a dropped edition."""


@dataclass(frozen=True)
class Tally:
    """Pixels of a shard or of an edition, counted by the domains that claim and show them."""

    owned: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Domain → pixels that it owns."""
    filled: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Domain → pixels that it shows because their owner has no imagery there."""
    several: int = 0
    """Pixels that several domains claim."""
    nobody: int = 0
    """Pixels of delivered tiles that no domain claims."""

    @classmethod
    def total(cls, tallies: Iterable["Tally"]) -> "Tally":
        """The sum of tallies; domains in order of name."""
        parts = list(tallies)
        owned = sum((Counter(t.owned) for t in parts), Counter[str]())
        filled = sum((Counter(t.filled) for t in parts), Counter[str]())
        several, nobody = sum(t.several for t in parts), sum(t.nobody for t in parts)
        return cls(dict(sorted(owned.items())), dict(sorted(filled.items())), several, nobody)


_Side = Annotated[int, Field(ge=1, le=1 << 26)]
_Corner = Annotated[int, Field(ge=-(1 << 26), le=1 << 26)]
_Index = Annotated[str, Field(pattern=r"^[0-9]{1,7}/[0-9]{1,7}$")]


class _Grid(Document):
    extent: tuple[_Corner, _Corner, _Side, _Side]
    tile: _Side
    shard: _Side
    chunk: _Side
    crs: str = CRS


class _Domain(Document):
    name: str


class _Record(Document):
    """The content of `edition.json`; early releases wrote no tallies."""

    number: int = Field(ge=0)
    created: str
    grid: _Grid
    domains: tuple[_Domain, ...]
    metadata: str
    shards: dict[_Index, str]
    tallies: dict[_Index, Tally] = Field(default={})
    tally: Tally = Tally()
    undelivered_km2: dict[str, float] = Field(default={})
    manifest: bool = False


@dataclass(frozen=True)
class Edition:
    """A finished edition, as its `edition.json` describes it."""

    path: Path
    number: int
    created: str
    """UTC, in the format of RFC 3339."""
    grid: NationalGrid
    domains: tuple[str, ...]
    metadata: str
    """Hash of the store's content besides shards: domain table and coverage."""
    digests: Mapping[GridIndex, str] = field(hash=False)
    """Shard → hash of its inputs."""
    tallies: Mapping[GridIndex, Tally] = field(hash=False)
    """Shard → its pixels, counted; empty in editions of older versions."""
    tally: Tally
    """Sum over all delivered tiles."""
    undelivered_km2: Mapping[str, float] = field(hash=False)
    """Domain → area of its polygon outside the tiles that it was delivered with, if there is any."""
    manifest: bool = False
    """Whether it was written with a manifest; older versions wrote none."""

    @property
    def store(self) -> Path:
        """The Zarr."""
        return self.path / "product.zarr"

    def sealed(self, domain: Domain) -> bool:
        """Whether its publish wrote a manifest beside the tiles of a domain."""
        return self.manifest and (self.path / "catalog" / domain).is_dir()


def current_edition(national: Path) -> Edition | None:
    """The edition that `<national>/current` points to, or None before the first publish.

    Raises:
        ProductError: `current` points to nothing, or the edition's record is damaged.
    """
    pointer = national / "current"
    if not pointer.is_symlink() and not pointer.exists():
        return None
    return read_edition(pointer.resolve())


def editions(national: Path) -> tuple[Edition, ...]:
    """All finished editions, by number.

    Raises:
        ProductError: an edition's record is damaged.
    """
    return tuple(read_edition(national / "editions" / f"{number:06d}") for number in edition_numbers(national))


def edition_of(national: Path, number: int) -> Edition:
    """The edition of this number.

    Raises:
        ProductError: there is none, or its record is damaged.
    """
    numbers = edition_numbers(national)
    if number not in numbers:
        raise ProductError(
            f"{national}: there is no edition {number}; there is {', '.join(map(str, numbers)) or 'none'}"
        )
    return read_edition(national / "editions" / f"{number:06d}")


def published_edition(national: Path, number: int | None = None) -> Edition:
    """The edition of this number, or the current one.

    Raises:
        ProductError: there is none, or its record is damaged.
    """
    found = current_edition(national) if number is None else edition_of(national, number)
    if found is None:
        raise ProductError(f"{national}: nothing is published yet; `landcover publish` makes the first edition")
    return found


def edition_numbers(national: Path) -> list[int]:
    """Numbers of the finished editions, in order; their records need not be readable."""
    return sorted(int(p.name) for p in (national / "editions").glob("*") if p.name.isdigit())


def read_edition(folder: Path) -> Edition:
    """The edition in a folder, current or not.

    Raises:
        ProductError: its record cannot be read.
    """
    path = folder / "edition.json"
    with product_error(f"{path}: the edition's record cannot be read", ValueError, ConfigError):
        return _edition(read_model(_Record, path), folder)


def parse_edition(content: bytes, address: str) -> Edition:
    """The edition of the content of an `edition.json`.

    Args:
        content: of the file.
        address: of the edition, for messages. The edition's `path` names no folder of this machine.

    Raises:
        ProductError: the record cannot be read.
    """
    with product_error(f"{address}/edition.json: the edition's record cannot be read", ValueError, ConfigError):
        return _edition(parse_model(_Record, content), Path(address))


def _edition(record: _Record, folder: Path) -> Edition:
    found = Edition(
        path=folder,
        number=record.number,
        created=record.created,
        grid=NationalGrid.from_json(record.grid.model_dump()),
        domains=tuple(row.name for row in record.domains),
        metadata=record.metadata,
        digests={_parse_index(k): v for k, v in record.shards.items()},
        tallies={_parse_index(k): v for k, v in record.tallies.items()},
        tally=record.tally,
        undelivered_km2=record.undelivered_km2,
        manifest=record.manifest,
    )
    rows, cols = (side // found.grid.shard for side in found.grid.extent.shape)
    if outside := [index for index in found.digests if index[0] >= rows or index[1] >= cols]:
        raise ValueError(f"shard {outside[0]} lies outside its grid of {rows} × {cols} shards")
    return found


def _parse_index(text: str) -> GridIndex:
    row, col = text.split("/")
    return (int(row), int(col))


def parent_edition(national: Path) -> Edition | None:
    """The current edition as the next one may build on it; None where there is none, or its record is damaged."""
    try:
        return current_edition(national)
    except ProductError as error:
        log.warning("%s; everything is written again", error)
        return None


def damaged_files(edition: Edition, *, read_all: bool, below: str = "", progress: Progress = SILENT) -> dict[str, str]:
    """Path → problem of the files of an edition that are not as its commit sealed them.

    Empty for editions of older versions, which have no manifest.

    Args:
        edition: finished.
        read_all: reads every file. Otherwise only those that were changed since, by size and time; and files that were
            added to the store, the levels or the catalog are not looked for.
        below: only files whose paths match this regular expression.
        progress: counts bytes.
    """
    if edition.manifest and not has_manifest(edition.path):
        return {BOTH: "are missing"}
    return damaged_in(edition.path, read_all=read_all, below=below, progress=progress)


def damaged_in(folder: Path, *, read_all: bool, below: str = "", progress: Progress = SILENT) -> dict[str, str]:
    """What `damaged_files` returns, also where the record of the edition cannot be read."""
    manifest = read_manifest(folder)
    wanted = {name: file for name, file in manifest.files.items() if re.search(below, name)}
    # Some files can be checked as long as one part of the manifest can be used.
    problems = {} if below and manifest.files else manifest.problems
    found = {**problems, **changed_files(folder, wanted, read_all=read_all, progress=progress)}
    if read_all and not below and manifest.files:
        for part in SEALED_FOLDERS:
            added = {f"{part}/{name}" for name in files_below(folder / part)} - manifest.files.keys()
            found |= dict.fromkeys(sorted(added), "is not in the manifest; remove it")
    return found


def next_number(national: Path) -> int:
    """The number of the next edition: above all numbers in use and all dropped ones, so that none is used twice.

    Raises:
        ProductError: the file with the highest dropped number cannot be read.
    """
    return max([*edition_numbers(national), _highest_dropped(national)]) + 1


def _highest_dropped(national: Path) -> int:
    path = national / "editions" / HIGHEST
    with product_error(f"{path}: expected a file with the highest number of a dropped edition", ValueError):
        return int(path.read_text(encoding="ascii")) if path.exists() else 0
