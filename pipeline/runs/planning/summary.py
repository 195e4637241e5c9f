"""A plan in a few lines, or as JSON: which tiles are to be mapped, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.domain import Domain
from pipeline.runs.planning.forecast import Forecast
from pipeline.runs.planning.plan import DomainPlan, PlannedTile, RunPlan
from pipeline.runs.planning.totals import domain_totals

_SHOWN = 4
"""Names that are listed; the others are only counted."""


@dataclass(frozen=True)
class ReasonGroup:
    """Tiles of a domain that are to be mapped for the same reason."""

    domain: Domain
    reason: str
    tiles: tuple[PlannedTile, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each missing or changed input file of the group."""
        return tuple(dict.fromkeys(cause for t in self.tiles for cause in t.broken))

    def lines(self, *, all_tiles: bool = False) -> list[str]:
        """A line with a count and the first names, or a line per tile; then what will fail."""
        if all_tiles:
            return [
                line
                for t in self.tiles
                for line in (f"{self.domain} {t.tile.name}: {self.reason}", *(f"  will fail: {c}" for c in t.broken))
            ]
        names = [t.tile.name for t in self.tiles]
        count = f"{len(names)} tiles" if len(names) > 1 else "1 tile"
        failing = sum(bool(t.broken) for t in self.tiles)
        lines = [f"{self.domain}: {count} to map ({self.reason}): {_shortened(names, ', ')}"]
        if failing:
            lines.append(f"  {failing} of them will fail: {_shortened(self.broken, '; ')}")
        return lines


def group_by_reason(domain: DomainPlan) -> list[ReasonGroup]:
    """The tiles to map by reason, in the order of the first tile of each group."""
    groups: dict[str, list[PlannedTile]] = {}
    for planned in domain.todo:
        groups.setdefault(str(planned.reason), []).append(planned)
    return [ReasonGroup(domain.name, reason, tuple(tiles)) for reason, tiles in groups.items()]


def stale_lines(plan: RunPlan) -> list[str]:
    """A line for each domain with sealed tiles whose input files changed since they were indexed."""
    return [
        f"{d.name}: {len(d.stale)} input files of sealed tiles changed since they were indexed; run `landcover index` "
        f"to map those tiles again: {_shortened([sentence.partition(': ')[0] for sentence in d.stale], ', ')}"
        for d in plan.domains
        if d.stale
    ]


def plan_as_json(plan: RunPlan, forecast: Forecast) -> dict[str, Any]:
    """The plan in plain values: the totals of each domain, and each tile to map."""
    resolved = plan.resolved
    return {
        "campaign": resolved.campaign.name,
        "engine": resolved.engine.content | {"threads": resolved.engine_threads},
        "layout": asdict(resolved.layout),
        "worker_memory_bytes": asdict(resolved.memory) | {"total": resolved.memory.total},
        "predicted": forecast.as_json(),
        "domains": [
            {
                "name": domain.name,
                "limits": list(domain.inputs.limits),
                "stale": list(domain.stale),
                **asdict(domain_totals(resolved, domain)),
                "to_map": [
                    {"tile": t.tile.name, "reason": t.reason, "fingerprint": t.fingerprint, "broken": list(t.broken)}
                    for t in domain.todo
                ],
            }
            for domain in plan.domains
        ],
    }


def _shortened(parts: Sequence[str], separator: str) -> str:
    more = f"{separator}… {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return separator.join(parts[:_SHOWN]) + more
