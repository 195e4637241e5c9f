"""A domain whose folder this run has locked: its plan, its run record and the events of its tiles."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from pipeline.domain import Domain
from pipeline.errors import LockError, OutOfSpaceError, ProductError
from pipeline.lock import FolderLock
from pipeline.products.tile.optional_layers import layers_to_make
from pipeline.products.tile.seal import matches, read_sealed
from pipeline.runs.mapping.events import OnEvent, TileEnded
from pipeline.runs.mapping.failures import FailureCause
from pipeline.runs.mapping.idle_domains import constant_fields, lock_domain, remove_leftovers
from pipeline.runs.mapping.shutdown import StopRequest
from pipeline.runs.planning.plan import NOT_SCORED, DomainPlan, PlannedTile, RunPlan
from pipeline.runs.tracking.run_record import RunRecordWriter


@contextmanager
def lock_domains(plan: RunPlan) -> Iterator[dict[Domain, FolderLock]]:
    """Locks the folders of the plan's domains until the block ends, and deletes what killed runs left there.

    Workers of killed runs may still be running, but they seal nothing more, because the lock has another owner now.

    Raises:
        LockError: another run owns one of the locks.
        StorageError: a folder cannot be written.
    """
    campaign = plan.resolved.campaign
    with ExitStack() as locks:
        locked = {domain.name: locks.enter_context(lock_domain(campaign, domain.name)) for domain in plan.domains}
        for name in locked:
            remove_leftovers(campaign.product_folder(name), name)
        yield locked


def drop_sealed_tiles(plan: RunPlan) -> RunPlan:
    """The plan without the tiles that another run sealed between the plan and the lock, and without sealed ones."""
    campaign = plan.resolved.campaign

    def is_sealed(domain: Domain, planned: PlannedTile) -> bool:
        if planned.reason in ("forced", NOT_SCORED):
            return False
        try:
            found = read_sealed(campaign.product_folder(domain), domain, planned.tile)
        except ProductError:
            return False
        if found is None or found.fingerprint != planned.fingerprint or matches(found):
            return False
        return not layers_to_make(campaign.product_folder(domain), domain, planned.tile, planned.layers)

    domains = (replace(d, tiles=tuple(t for t in d.todo if not is_sealed(d.name, t))) for d in plan.domains)
    return replace(plan, domains=tuple(domains))


@contextmanager
def start_records(
    plan: RunPlan,
    locks: Mapping[Domain, FolderLock],
    *,
    on_event: OnEvent,
    stop: StopRequest,
    predicted: Mapping[Domain, Mapping[str, Any]],
) -> Iterator[tuple["LockedDomain", ...]]:
    """Starts the run record of each domain of the plan; the records are closed when the block ends.

    Args:
        plan: the tiles to map.
        locks: domain → its lock.
        on_event: receives the events of the tiles.
        stop: receives a request where a cause affects every tile.
        predicted: domain → its forecast, for the record.

    Raises:
        StorageError: a record cannot be written.
    """
    with ExitStack() as records:
        domains = []
        for planned in plan.domains:
            about = constant_fields(plan.resolved) | {"predicted": dict(predicted.get(planned.name, {}))}
            pixels = {t.tile.name: t.tile.window.pixels for t in planned.todo}
            folder = plan.resolved.campaign.product_folder(planned.name)
            record = RunRecordWriter(folder, about, tiles=pixels)
            domains.append(LockedDomain(planned, locks[planned.name], record, on_event=on_event, stop=stop))
            records.callback(domains[-1].close)
        yield tuple(domains)


class LockedDomain:
    """A domain that this run maps. It records what happens to its tiles, and reports it as events."""

    def __init__(
        self, plan: DomainPlan, lock: FolderLock, record: RunRecordWriter, *, on_event: OnEvent, stop: StopRequest
    ) -> None:
        self.plan, self.lock = plan, lock
        self.events: list[TileEnded] = []
        self.stop_cause: FailureCause | None = None
        """Why the run stopped for all tiles."""
        self._record, self._on_event, self._stop = record, on_event, stop

    @property
    def readable_tiles(self) -> tuple[PlannedTile, ...]:
        """The tiles to map whose input files are as indexed. Tiles that cost workers before come last."""
        return tuple(sorted((t for t in self.plan.todo if not t.broken), key=lambda t: t.suspect))

    @property
    def left(self) -> int:
        """Number of tiles that have not ended."""
        return len(self.plan.todo) - len(self.events)

    def fail_broken_tiles(self) -> None:
        """Fails the tiles whose input files are missing or changed since they were indexed."""
        for planned in self.plan.todo:
            if planned.broken:
                self.ended(planned, 0.0, FailureCause("failed", "; ".join(planned.broken)))

    def may_continue(self) -> bool:
        """False once a stop was requested, or the lock was lost."""
        if not self._stop.reason:
            try:
                self.lock.check()
            except LockError as error:
                self._stop_run(FailureCause("lock lost", str(error)))
        return not self._stop.reason

    def submitted(self, planned: PlannedTile) -> None:
        """Records that a tile is in flight."""
        self._write(lambda: self._record.submitted(planned.tile.name))

    def mapped(self, pixels: int) -> None:
        """Records the pixels of the mapped blocks of its tiles in flight."""
        self._write(lambda: self._record.mapped(pixels))

    def ended(self, planned: PlannedTile, seconds: float, cause: FailureCause | None) -> None:
        """Records and reports that a tile was sealed, or failed with a cause."""
        error, suspect = (cause.text, cause.kind == "suspect") if cause else (None, False)
        tile, pixels = planned.tile.name, 0 if planned.broken else planned.tile.window.pixels
        if cause and cause.stops_the_run:
            self._stop_run(cause)
        self.events.append(TileEnded(self.plan.name, tile, seconds, pixels, error, suspect))
        self._write(lambda: self._record.ended(tile, seconds=seconds, error=error, suspect=suspect))
        self._on_event(self.events[-1])

    def close(self) -> None:
        """Records how the run ended."""
        self._write(lambda: self._record.write("stopped" if self.left else "ended"))

    def _write(self, write: Callable[[], None]) -> None:
        if self.stop_cause and self.stop_cause.kind == "lock lost":
            return  # the record belongs to another run now
        try:
            write()
        except OutOfSpaceError as error:
            # The run waits for the tiles in flight all the same, and ends with this error.
            self._stop_run(FailureCause("out of space", str(error)))

    def _stop_run(self, cause: FailureCause) -> None:
        self.stop_cause = self.stop_cause or cause
        self._stop.request(cause.text)
