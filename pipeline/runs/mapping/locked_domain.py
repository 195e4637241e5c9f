"""A domain that this run holds: its lock, what is still to do of it, and its record."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cluster.slurm.queue import job_runs
from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.errors import LockError, OutOfSpaceError
from pipeline.lock import Holding, holding, left_behind
from pipeline.products.tile.seal import matches, read_sealed, remove_unfinished
from pipeline.runs.mapping.failures import Cause
from pipeline.runs.mapping.shutdown import Stop
from pipeline.runs.planning.plan import DomainPlan, PlannedTile, Settings
from pipeline.runs.tracking.run_record import RUN_FILE, Journal, software


@dataclass(frozen=True)
class RunStarted:
    """The cluster stands."""

    dashboard: str
    tiles: int


@dataclass(frozen=True)
class TileEnded:
    """A tile was sealed, or failed with `error`."""

    domain: Domain
    tile: str
    seconds: float
    """From its submission to its end; tiles in flight overlap."""
    pixels: int
    error: str | None
    suspect: bool = False
    """It cost several workers."""


Listener = Callable[[RunStarted | TileEnded], None]


@contextmanager
def held(
    settings: Settings, plan: DomainPlan, *, listener: Listener, stop: Stop, predicted: Mapping[str, Any] | None
) -> Iterator["HeldDomain"]:
    """Holds a domain until the block ends; tiles whose inputs are gone have then failed already.

    Args:
        settings: of the campaign.
        plan: of the domain.
        listener: told of each tile.
        stop: asked where no tile would fare better.
        predicted: what a forecast gave, for the record.

    Raises:
        LockError: another run holds it.
        StorageError: its folder cannot be written.
    """
    folder = settings.folder(plan.name)
    with holding(folder, what=f"domain {plan.name}", job_runs=job_runs) as lock:
        # What a killed run left; orphaned workers of it may not seal any more, because the lock is ours.
        remove_unfinished(folder, plan.name)
        about = _about(settings) | ({"predicted": dict(predicted)} if predicted else {})
        todo = _still_to_do(settings, plan)
        pixels = {p.tile.name: p.tile.window.pixels for p in todo.todo}
        domain = HeldDomain(todo, lock, Journal(folder, about, tiles=pixels), listener=listener, stop=stop)
        try:
            yield domain
        finally:
            domain.close()


def tidy(settings: Settings, plan: DomainPlan) -> None:
    """Removes what a killed run left in a domain that has nothing to do; another run that lives is left alone."""
    folder = settings.folder(plan.name)
    if left_behind(folder):
        with suppress(LockError), holding(folder, what=f"domain {plan.name}", job_runs=job_runs):
            remove_unfinished(folder, plan.name)
            remove_temporaries(folder, f".{RUN_FILE}.")


def _still_to_do(settings: Settings, plan: DomainPlan) -> DomainPlan:
    """The plan without what another run sealed between the plan and the lock."""
    folder = settings.folder(plan.name)

    def sealed(planned: PlannedTile) -> bool:
        if planned.reason == "forced":
            return False
        found = read_sealed(folder, plan.name, planned.tile)
        return found is not None and found.fingerprint == planned.fingerprint and not matches(found)

    return replace(plan, tiles=tuple(p for p in plan.todo if not sealed(p)))


class HeldDomain:
    """What the driver does with a domain between taking and releasing its lock."""

    def __init__(self, plan: DomainPlan, lock: Holding, journal: Journal, *, listener: Listener, stop: Stop) -> None:
        self.plan, self.lock = plan, lock
        self.events: list[TileEnded] = []
        self.stopper: Cause | None = None
        """What ended the run for all tiles."""
        self._journal, self._listener, self._stop = journal, listener, stop
        for planned in plan.todo:
            if planned.broken:
                self.ended(planned, 0.0, Cause("failed", "; ".join(planned.broken)))

    @property
    def whole(self) -> tuple[PlannedTile, ...]:
        """The tiles whose inputs are there; those that cost workers before come last."""
        return tuple(sorted((t for t in self.plan.todo if not t.broken), key=lambda t: t.suspect))

    @property
    def left(self) -> int:
        """Tiles that were not begun."""
        return len(self.plan.todo) - len(self.events)

    def may_go_on(self) -> bool:
        """False when the run was asked to stop, or the lock is another's now."""
        if not self._stop.reason:
            try:
                self.lock.check()
            except LockError as error:
                self._stop_all(Cause("lock lost", str(error)))
        return not self._stop.reason

    def submitted(self, planned: PlannedTile) -> None:
        """Notes that a tile is in flight."""
        self._note(lambda: self._journal.submitted(planned.tile.name))

    def ended(self, planned: PlannedTile, seconds: float, cause: Cause | None) -> None:
        """Notes that a tile was sealed or, for a cause, was not."""
        error, suspect = (cause.text, cause.kind == "suspect") if cause else (None, False)
        tile, pixels = planned.tile.name, 0 if planned.broken else planned.tile.window.pixels
        if cause and cause.stops_the_run:
            self._stop_all(cause)
        self.events.append(TileEnded(self.plan.name, tile, seconds, pixels, error, suspect))
        self._note(lambda: self._journal.ended(tile, seconds=seconds, error=error, suspect=suspect))
        self._listener(self.events[-1])

    def close(self) -> None:
        """Notes how the run ended."""
        self._note(lambda: self._journal.write("stopped" if self.left else "ended"))

    def _note(self, write: Callable[[], None]) -> None:
        if self.stopper and self.stopper.kind == "lock lost":
            return  # the record is another's now
        try:
            write()
        except OutOfSpaceError as error:
            # The tiles in flight are worth waiting for all the same; the run ends with this error.
            self._stop_all(Cause("no room", str(error)))

    def _stop_all(self, cause: Cause) -> None:
        self.stopper = self.stopper or cause
        self._stop.ask(cause.text)


def _about(settings: Settings) -> dict[str, object]:
    """The part of a run's record that stays: what the campaign resolved to."""
    return {
        "campaign": settings.campaign.model_dump(mode="json")
        | {"engine": settings.engine.name, "engine_threads": settings.engine_threads},
        "weights_sha256": settings.model.weights_hash,
        "quantized_sha256": settings.engine.quantized.sha256 if settings.engine.quantized else None,
        "recipe": settings.recipe.model_dump(mode="json"),
        "software": software(),
    }
