"""A domain's run: plan → hold the domain → submit a bounded number of tiles → seal each → what failed, by name.

1. `make_plan` says which tiles are to be mapped (`runs.planning.plan`).
2. `run` takes the domains' locks, opens the cluster and puts the model on every worker once.
3. Each tile becomes one graph: a task a block, and one that seals. At most `tiles_in_flight` a worker are
   submitted, done in turn, so that one is sealed while the next is mapped; another follows when one is sealed.
4. A tile that fails is named with its cause, and the others go on (`runs.mapping.failures` has the policy).
5. The domain's `run.json` says at any moment how far it is; with failures the run ends in `RunFailed`.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dask.delayed import delayed
from distributed import Client, Future, Worker, WorkerPlugin

from pipeline.cluster import dashboard, equip, in_flight, open_cluster, worker_count
from pipeline.errors import LockError, OutOfSpaceError, RunFailed, RunStopped
from pipeline.grid import Tile
from pipeline.inference import Engine, Predictor, predict_stack, predictor_for
from pipeline.lock import Holding
from pipeline.model import Model
from pipeline.products.tile.seal import SealedTile, seal
from pipeline.products.tile.stac_item import Provenance
from pipeline.runs.mapping.failures import cause_of, limit_losses
from pipeline.runs.mapping.locked_domain import HeldDomain, Listener, RunStarted, TileEnded, held, tidy
from pipeline.runs.mapping.shutdown import Stop, leave_signals_to_the_driver
from pipeline.runs.planning.plan import PlannedTile, RunPlan, Settings
from pipeline.runs.provenance import product_origin
from pipeline.runs.tracking.run_record import software
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.reading.mosaic import Mosaic

__all__ = ["RunStarted", "TileEnded", "run"]


class ResidentModel(WorkerPlugin):
    """Loads the model once in each worker and sets the engine's threads, before any task."""

    name = "landcover-model"

    def __init__(self, model: Model, engine: Engine, threads: int, *, stand_in: Predictor | None = None) -> None:
        self._model, self._engine, self._threads, self._stand_in = model, engine, threads, stand_in

    def setup(self, worker: Worker) -> None:  # noqa: ARG002  (Dask's signature)
        """Called by Dask in the worker's process."""
        leave_signals_to_the_driver()
        predictor_for(self._model, self._engine, threads=self._threads, stand_in=self._stand_in)


def run(
    plan: RunPlan,
    *,
    workers: int | None = None,
    listener: Listener = lambda _: None,
    stop: Stop | None = None,
    predicted: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> tuple[TileEnded, ...]:
    """Maps what the plan has to do, and seals it tile by tile.

    Args:
        plan: as `make_plan` gives it.
        workers: processes, instead of the campaign's number.
        listener: told of each event; progress bars, logs and records come from these.
        stop: asked from outside, such as by `stop_on_signals`: no more tiles are then submitted, and those in
            flight are sealed.
        predicted: domain → what a forecast gave (`wall_s`: seconds), kept in its record for `status`.

    Returns:
        The sealed tiles' events.

    Raises:
        ConfigError: a worker would take more than `cluster.memory_bytes`, or of its GPU more than
            `cluster.device_memory_bytes`; nothing was started.
        LockError: another run holds a domain, then nothing was started; or took it over meanwhile.
        StorageError: an output folder cannot be written; nothing was started.
        OutOfSpaceError: the disk is full or a quota used up; tiles in flight were waited for.
        ClusterError: the cluster could not be had or was lost.
        RunFailed: some tiles failed; the others are sealed.
        RunStopped: it was asked to stop, and there is more to do.
    """
    stop = stop or Stop()
    settings = plan.settings
    for domain in plan.domains:
        if not domain.todo:
            tidy(settings, domain)
    if not plan.todo:
        return ()
    cluster = settings.campaign.cluster
    settings.memory.check(cluster.memory_bytes, cluster.device_memory_bytes)
    with ExitStack() as stack:
        chosen = [
            stack.enter_context(
                held(settings, domain, listener=listener, stop=stop, predicted=predicted.get(domain.name))
            )
            for domain in plan.domains
            if domain.todo
        ]
        if any(domain.whole for domain in chosen) and not stop.reason:
            _run_domains(settings, chosen, workers, listener)
    _raise_unless_all_sealed(chosen, stop)
    return tuple(event for domain in chosen for event in domain.events)


def _raise_unless_all_sealed(domains: list[HeldDomain], stop: Stop) -> None:
    ended = [event for domain in domains for event in domain.events]
    failed = [event for event in ended if event.error]
    left = sum(domain.left for domain in domains)
    listed = "".join(f"\n  {e.domain} {e.tile}: {e.error}" for e in failed)
    also = f"; {len(failed)} failed:{listed}" if failed else ""
    for cause in (domain.stopper for domain in domains if domain.stopper):
        counts = f"{len(ended) - len(failed)} tiles were sealed and {left} not begun"
        if cause.kind == "lock lost":
            raise LockError(f"{cause.text}; {counts}")
        raise OutOfSpaceError(f"{cause.text}; {counts}{also}")
    if left:
        raise RunStopped(
            f"stopped ({stop.reason}) with {len(ended) - len(failed)} tiles sealed and {left} still to do: "
            f"run again{also}"
        )
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(ended)} tiles failed, the others are sealed; mend the cause and run again:{listed}"
        )


def _run_domains(settings: Settings, domains: list[HeldDomain], workers: int | None, listener: Listener) -> None:
    """Maps the tiles whose inputs are whole, on one cluster, domain by domain."""
    with open_cluster(settings.campaign, workers=workers) as client:
        listener(RunStarted(dashboard(client), sum(len(domain.plan.todo) for domain in domains)))
        limit_losses(client)
        resident = ResidentModel(settings.model, settings.engine, settings.engine_threads, stand_in=settings.stand_in)
        equip(client, resident)
        for domain in domains:
            _run_domain(client, settings, domain)


def _run_domain(client: Client, settings: Settings, domain: HeldDomain) -> None:
    """Keeps a bounded number of tiles submitted until it is asked to stop, and notes each as it ends."""
    inputs, section = domain.plan.inputs, settings.campaign.cluster
    mosaic = Mosaic.of(inputs, bands=settings.recipe.bands, height_step_m=settings.recipe.height_step_m)
    since: dict[str, float] = {}
    turn = count()

    def submit(planned: PlannedTile) -> Future[Any]:
        since[planned.tile.name] = time.monotonic()
        # One tile before the next. Dask would take turns between what comes within a minute: tiles in flight would end
        # together, and while they are sealed nothing would be left to infer.
        future: Future[Any] = client.compute(_tile_graph(settings, domain, mosaic, planned), priority=-next(turn))
        domain.submitted(planned)
        return future

    tiles = in_flight(
        takewhile(lambda _: domain.may_go_on(), domain.whole),
        submit,
        client=client,
        # Asked each time: workers of a job join late, and nodes go.
        limit=lambda: section.tiles_in_flight * worker_count(client),
        lost_s=section.lost_s,
    )
    for planned, future in tiles:
        domain.ended(planned, time.monotonic() - since.pop(planned.tile.name), cause_of(future))


def _tile_graph(settings: Settings, domain: HeldDomain, mosaic: Mosaic, planned: PlannedTile) -> Any:
    """One tile, lazily: a task a block, and the seal that takes them all."""
    reads = settings.reads(planned.tile)
    # Only what is behind this tile travels with its tasks, not the domain's thousand files.
    stack = predict_stack(mosaic.around(reads), settings.method, window=planned.tile.window)
    inputs = domain.plan.inputs
    return delayed(_seal_held, pure=False)(
        domain.lock,
        settings.folder(domain.plan.name),
        domain=domain.plan.name,
        tile=planned.tile,
        stack=stack,
        fingerprint=planned.fingerprint,
        live=settings.recipe.live,
        provenance=_provenance(settings, inputs, planned.tile),
        inputs=[asset.href for asset in planned.inputs],
        crs=inputs.crs,
    )


def _seal_held(lock: Holding, folder: Path, **tile: Any) -> SealedTile:
    """Seals in a worker, unless the run's lock is another's by now: a driver that died leaves workers behind.

    Raises:
        LockError: it is.
        ProductError, StorageError: as `seal`.
    """
    lock.check()
    return seal(folder, **tile)


def _provenance(settings: Settings, inputs: DomainInputs, tile: Tile) -> Provenance:
    """How a tile is made; whose data it is and of which days follows the delivery."""
    campaign, recipe = settings.campaign, settings.recipe
    origin = product_origin(campaign, recipe, inputs.origin)
    return Provenance(
        campaign=campaign.name,
        weights=campaign.model.weights,
        weights_sha256=settings.model.weights_hash,
        quantized_sha256=settings.engine.quantized.sha256 if settings.engine.quantized else "",
        recipe=recipe.name,
        engine=settings.engine.name,
        precision=settings.engine.precision,
        engine_threads=settings.engine_threads,
        layout=settings.layout,
        software=tuple(sorted(software().items())),
        licence=origin.licence,
        attribution=origin.attribution,
        citation=origin.citation,
        doi=origin.doi,
        acquired=inputs.tile(tile.name).acquired,
        depends_on=settings.depends_on(tile, inputs),
    )
