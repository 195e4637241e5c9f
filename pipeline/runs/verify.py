"""Everything read again: each COG, checksum and item, and the national store beside them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Campaign
from pipeline.products.check import check
from pipeline.products.item import list_sealed
from pipeline.products.pyramid import check_pyramid
from pipeline.products.record import current_edition
from pipeline.products.store import check_shards
from pipeline.runs.origin import lattice_of
from pipeline.runs.status import status


@dataclass(frozen=True)
class DomainVerified:
    """What was read of a domain's product, and what is wrong with it."""

    domain: str
    tiles: int
    files: int
    missing: tuple[str, ...]
    """Tiles of the catalogue that are not sealed."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """The outcome of a verification; `clean` where nothing is missing or wrong."""

    domains: tuple[DomainVerified, ...]
    national: tuple[str, ...] | None
    """Problems of the national product; None where nothing is published."""

    @property
    def clean(self) -> bool:
        """True where nothing is missing or wrong."""
        return not self.national and not any(d.missing or d.problems for d in self.domains)

    def as_json(self) -> dict[str, Any]:
        """The figures, for `--json`."""
        return {
            "clean": self.clean,
            "checksums_checked": sum(d.files for d in self.domains),
            "tiles_checked": sum(d.tiles for d in self.domains),
            "domains": [asdict(d) for d in self.domains],
            "national": None if self.national is None else list(self.national),
        }


def verify(
    campaign: Campaign, *, threads: int = 2, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Verified:
    """Reads every sealed tile again, and the national store's current edition.

    Args:
        campaign: names domains and folders.
        threads: tiles read side by side.
        progress: told (tiles read, tiles in all).

    Raises:
        CatalogError: a domain that is not indexed.
        ConfigError: domains on several lattices.
        ProductError: an item or an edition's record that cannot be read.
    """
    states, crs = status(campaign), lattice_of(campaign)
    sealed = {s.domain: list_sealed(campaign.output.domains / s.domain, s.domain, campaign.grid.tile) for s in states}
    jobs = [(name, tile) for name, tiles in sealed.items() for tile in tiles]
    found: dict[str, list[str]] = {name: [] for name in sealed}
    with ThreadPoolExecutor(threads) as pool:
        for done, ((name, tile), problems) in enumerate(
            zip(jobs, pool.map(lambda job: check(job[1], crs=crs), jobs), strict=True), start=1
        ):
            found[name] += [f"{tile.tile.name}: {problem}" for problem in problems]
            progress(done, len(jobs))
    domains = tuple(
        DomainVerified(
            s.domain,
            len(sealed[s.domain]),
            sum(len(t.files) for t in sealed[s.domain]),
            tuple(sorted([*s.missing, *(name for name, _ in s.failed)])),
            tuple(found[s.domain]),
        )
        for s in states
    )
    edition = current_edition(campaign.output.national)
    national = None if edition is None else (*check_shards(edition, crs=crs), *check_pyramid(edition))
    return Verified(domains, national)
