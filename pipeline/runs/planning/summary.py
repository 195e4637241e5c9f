"""A plan in few lines, or as JSON: what is to be mapped and why, for a nation as for one tile."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.domain import Domain
from pipeline.runs.planning.forecast import Forecast
from pipeline.runs.planning.plan import DomainPlan, PlannedTile, RunPlan, totals

_SHOWN = 4
"""Names of a group, and files that will fail, before the rest is only counted."""


@dataclass(frozen=True)
class Group:
    """Tiles of a domain that are to be mapped for one reason."""

    domain: Domain
    reason: str
    tiles: tuple[PlannedTile, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each input file because of which tiles of the group will fail, each once."""
        return tuple(dict.fromkeys(cause for t in self.tiles for cause in t.broken))

    def lines(self, *, all_tiles: bool = False) -> list[str]:
        """One line with a count and the first names, or one a tile; then what will fail."""
        names = [t.tile.name for t in self.tiles]
        if all_tiles:
            return [
                line
                for t in self.tiles
                for line in (f"{self.domain} {t.tile.name}: {self.reason}", *(f"  will fail: {c}" for c in t.broken))
            ]
        count = f"{len(names)} tiles" if len(names) > 1 else "1 tile"
        failing = sum(bool(t.broken) for t in self.tiles)
        said = [f"{self.domain}: {count} {self.reason}: {_first(names, ', ')}"]
        if failing:
            said.append(f"  {failing} of them will fail: {_first(self.broken, '; ')}")
        return said


def _first(parts: Sequence[str], between: str) -> str:
    more = f"{between}… {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return between.join(parts[:_SHOWN]) + more


def groups(domain: DomainPlan) -> list[Group]:
    """The tiles to map by reason, in the order of each one's first tile."""
    by_reason: dict[str, list[PlannedTile]] = {}
    for planned in domain.todo:
        if planned.reason:
            by_reason.setdefault(planned.reason, []).append(planned)
    return [Group(domain.name, reason, tuple(tiles)) for reason, tiles in by_reason.items()]


def stale_lines(plan: RunPlan) -> list[str]:
    """A line for each domain with inputs that changed since they were indexed, behind tiles that stay as they are."""
    return [
        f"{d.name}: {len(d.stale)} input files changed since they were indexed; index the domain again, else what is "
        f"sealed of them stays as it is: {_first([sentence.partition(': ')[0] for sentence in d.stale], ', ')}"
        for d in plan.domains
        if d.stale
    ]


def as_json(plan: RunPlan, predicted: Forecast) -> dict[str, Any]:
    """All of a plan in plain values: each domain's totals, and each tile that is to be mapped."""
    settings = plan.settings
    return {
        "campaign": settings.campaign.name,
        "engine": settings.engine.content | {"threads": settings.engine_threads},
        "layout": asdict(settings.layout),
        "worker_memory_bytes": asdict(settings.memory) | {"total": settings.memory.total},
        "predicted": predicted.as_json(),
        "domains": [
            {
                "name": domain.name,
                "limits": list(domain.inputs.limits),
                "stale": list(domain.stale),
                **asdict(totals(settings, domain)),
                "to_map": [
                    {"tile": t.tile.name, "reason": t.reason, "fingerprint": t.fingerprint, "broken": list(t.broken)}
                    for t in domain.todo
                ],
            }
            for domain in plan.domains
        ],
    }
