"""The editions on disk, their records (`edition.json`), and which of them is current.

::

    <national>/current                          → editions/000002
    <national>/editions/000002/edition.json     number, parent, grid, domains; digest and tally of each shard
    <national>/editions/000002/product.zarr     the store: see `zarr_store`
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import MALFORMED, ProductError, product_error
from pipeline.products.national.grid import GridIndex, NationalGrid

STORE_LAYERS = ("landcover", "confidence", "domain")
"""The store's sharded arrays."""

OUTSIDE, MAPPED, FAILED, MISSING = range(4)
"""Values of `coverage`. A tile with several owners shows the worst: failed, then missing, then mapped."""

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

    @property
    def store(self) -> Path:
        """The Zarr."""
        return self.path / "product.zarr"


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
    return tuple(read_edition(national / "editions" / f"{number:06d}") for number in _numbers(national))


def edition_of(national: Path, number: int) -> Edition:
    """The edition of this number.

    Raises:
        ProductError: there is none, or its record is damaged.
    """
    numbers = _numbers(national)
    if number not in numbers:
        raise ProductError(
            f"{national}: there is no edition {number}; there is {', '.join(map(str, numbers)) or 'none'}"
        )
    return read_edition(national / "editions" / f"{number:06d}")


def _numbers(national: Path) -> list[int]:
    return sorted(int(p.name) for p in (national / "editions").glob("*") if p.name.isdigit())


def read_edition(folder: Path) -> Edition:
    """The edition in a folder, current or not.

    Raises:
        ProductError: its record cannot be read.
    """
    path = folder / "edition.json"
    with product_error(f"{path}: the edition's record cannot be read", *MALFORMED):
        content = json.loads(path.read_bytes())
        return Edition(
            path=folder,
            number=int(content["number"]),
            created=str(content["created"]),
            grid=NationalGrid.from_json(content["grid"]),
            domains=tuple(str(row["name"]) for row in content["domains"]),
            metadata=str(content["metadata"]),
            digests={_parse_index(k): str(v) for k, v in content["shards"].items()},
            tallies={_parse_index(k): Tally(**v) for k, v in content.get("tallies", {}).items()},
            tally=Tally(**content.get("tally", {})),
            undelivered_km2=dict(content.get("undelivered_km2", {})),
        )


def _parse_index(text: str) -> GridIndex:
    row, col = text.split("/")
    return (int(row), int(col))


def next_number(national: Path) -> int:
    """The number of the next edition: above all numbers in use and all dropped ones, so that none is used twice.

    Raises:
        ProductError: the file with the highest dropped number cannot be read.
    """
    return max([*_numbers(national), _highest_dropped(national)]) + 1


def _highest_dropped(national: Path) -> int:
    path = national / "editions" / HIGHEST
    with product_error(f"{path}: expected a file with the highest number of a dropped edition", ValueError):
        return int(path.read_text(encoding="ascii")) if path.exists() else 0
