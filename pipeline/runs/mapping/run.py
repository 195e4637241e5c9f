"""Runs a plan: maps its tiles on a cluster and seals each one.

`run` orders the steps. Each tile is one Dask graph with a task per block and one that seals. At most `tiles_in_flight`
tiles per worker are submitted, in turn, so that one is sealed while the next is mapped. A tile that fails is recorded
with its cause, and the others continue: `runs.mapping.failures` has the policy.
"""

import gc
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dask.delayed import delayed
from distributed import Client, Future, Worker, WorkerPlugin

from pipeline.cluster.bounded_submission import submit_bounded
from pipeline.cluster.client import dashboard, open_cluster, register_plugin
from pipeline.cluster.connection import worker_count
from pipeline.cluster.worker_resources import share_of_memory
from pipeline.domain import Domain
from pipeline.errors import ClusterError, ConfigError, LockError, OutOfSpaceError, RunFailed, RunStopped
from pipeline.inference import MappedPixels, Method, Predictor, predict_tile, predictor_for, reads_of
from pipeline.legend import LAYERS, OptionalLayer
from pipeline.lock import FolderLock
from pipeline.products.tile.optional_layers import seal_layers
from pipeline.products.tile.seal import seal
from pipeline.progress import SILENT, Progress
from pipeline.runs.mapping.block_progress import BlockProgress
from pipeline.runs.mapping.events import OnEvent, RunStarted, SealedTiles, TileEnded
from pipeline.runs.mapping.failures import failure_cause, limit_worker_losses
from pipeline.runs.mapping.idle_domains import clean_idle_domains, refuse_damaged, run_empty_plan
from pipeline.runs.mapping.locked_domain import (
    LockedDomain,
    drop_sealed_tiles,
    lock_domains,
    start_records,
)
from pipeline.runs.mapping.shutdown import StopRequest, ignore_stop_signals
from pipeline.runs.planning.automatic_choices import RE_RESOLVE, refuse_unable
from pipeline.runs.planning.plan import PlannedTile, RunPlan
from pipeline.runs.planning.provenance import tile_provenance
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign
from pipeline.sources.reading.mosaic import Mosaic

__all__ = ["RunStarted", "TileEnded", "run"]

log = logging.getLogger("landcover")


def run(
    plan: RunPlan,
    *,
    client: Client | None = None,
    workers: int | None = None,
    on_event: OnEvent = lambda _: None,
    stop: StopRequest | None = None,
    predicted: Mapping[Domain, Mapping[str, Any]] = MappingProxyType({}),
    progress: Progress = SILENT,
) -> SealedTiles:
    """Maps the tiles of a plan and seals each one.

    1. Deletes what killed runs left in domains that have nothing to do.
    2. Compares the projected memory of a worker with the campaign's limits, and keeps choices that were made again.
    3. Locks the domains that have tiles to map, and deletes what killed runs left there.
    4. Drops the tiles that another run sealed since the plan was made.
    5. Starts the run records, and fails the tiles whose input files are missing or changed.
    6. Maps and seals the other tiles on the cluster.
    7. Returns the sealed tiles, or raises what kept others from being sealed.

    Args:
        plan: as `make_plan` returns it.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        on_event: receives the events of the run.
        stop: a request to stop the run, such as from `stop_on_signals`. No more tiles are then submitted, and the
            tiles in flight are sealed.
        predicted: domain → its forecast (`wall_s`: seconds), which the run record keeps for `status`.
        progress: counts pixels, block by block.

    Returns:
        The events of the sealed tiles.

    Raises:
        ConfigError: a worker would exceed `cluster.memory_bytes` or `cluster.device_memory_bytes`, or its share of the
            memory here. Nothing started.
        LockError: another run owns the lock of a domain, and nothing started; or it took over the lock meanwhile.
        StorageError: a product folder cannot be written. Nothing started.
        OutOfSpaceError: the disk is full, or a quota is used up. The tiles in flight have ended.
        ClusterError: the cluster did not start, or was lost.
        RunFailed: some tiles failed, or a domain's files are damaged; the other tiles are sealed.
        RunStopped: a stop was requested, and there are more tiles to map.

    Examples:
        >>> run(make_plan(load_campaign("build/demo/campaign.yaml")), workers=2)  # no tile is left to map
        ()
    """
    stop = stop or StopRequest()
    if not plan.todo:
        run_empty_plan(plan)
        return SealedTiles()
    clean_idle_domains(plan)
    choices = plan.resolved.choices
    _check_memory(plan.resolved, own=client is None, workers=workers)
    if choices:
        choices.keep()
    plan = replace(plan, domains=tuple(domain for domain in plan.domains if domain.todo))
    with lock_domains(plan) as locks:
        remaining = drop_sealed_tiles(plan)
        with start_records(remaining, locks, on_event=on_event, stop=stop, predicted=predicted) as domains:
            for domain in domains:
                domain.fail_broken_tiles()
            if any(domain.readable_tiles for domain in domains) and not stop.reason:
                with open_cluster(plan.resolved.campaign, client=client, workers=workers) as opened:
                    _map_domains(plan.resolved, domains, client=opened, on_event=on_event, progress=progress)
    sealed = _sealed_tiles(domains, stop)
    refuse_damaged(plan)
    return sealed


def _check_memory(resolved: ResolvedCampaign, *, own: bool, workers: int | None) -> None:
    """Compares the projected memory of a worker with the campaign's limits, and with its share of an own cluster."""
    cluster, choices = resolved.campaign.cluster, resolved.choices
    chosen = choices.now.windows if choices else None
    try:
        resolved.memory.check(cluster.memory_bytes, cluster.device_memory_bytes, auto=chosen is not None)
        if own and not cluster.scheduler:
            resolved.memory.check_share(share_of_memory(resolved.campaign, workers))
    except ConfigError as error:
        if chosen is None:
            raise
        stated = chosen.memory_bytes / 1e9
        raise ConfigError(
            f"{error}. `grid: auto` chose these sizes for cluster.memory_bytes of {stated:.2f} GB: {RE_RESOLVE}"
        ) from error


def _map_domains(
    resolved: ResolvedCampaign,
    domains: Sequence[LockedDomain],
    *,
    client: Client,
    on_event: OnEvent,
    progress: Progress,
) -> None:
    """Loads the model on each worker, and maps the domains one after the other."""
    todo, grid = sum(len(domain.plan.todo) for domain in domains), resolved.campaign.grid
    on_event(RunStarted(dashboard(client), todo))
    limit_worker_losses(client)
    needed = resolved.memory.total if resolved.choices else None
    resident = ResidentModel(resolved.method, resolved.engine_threads, stand_in=resolved.stand_in, needed_bytes=needed)
    register_plugin(client, resident)
    blocks = BlockProgress(client, progress, tiles=todo, tile=grid.tile, block=grid.block)
    for domain in domains:
        _map_domain(resolved, domain, client=client, blocks=blocks)


def _map_domain(resolved: ResolvedCampaign, domain: LockedDomain, *, client: Client, blocks: BlockProgress) -> None:
    """Keeps a limited number of tiles submitted until a stop is requested, and records each as it ends."""
    recipe, section = resolved.recipe, resolved.campaign.cluster
    mosaic = Mosaic.of(domain.plan.inputs, bands=recipe.bands, height_step_m=recipe.height_step_m)
    submitted_at: dict[str, float] = {}
    in_order = domain.readable_tiles
    turn = count()

    def submit(planned: PlannedTile) -> Future[Any]:
        submitted_at[planned.tile.name] = time.monotonic()
        at = next(turn)
        following = in_order[at + 1 : at + 1 + section.tiles_in_flight]
        # One tile before the next. Dask would alternate between tiles that are submitted within a minute: they would
        # end together, and while they are sealed there would be nothing left to infer.
        graph = _tile_graph(resolved, domain, mosaic, planned, following=following, turn=at)
        future: Future[Any] = client.compute(graph, priority=-at)
        domain.submitted(planned)
        return future

    tiles = submit_bounded(
        takewhile(lambda _: domain.may_continue(), in_order),
        submit,
        client=client,
        # Counted each time: workers of a job join late, and nodes may go.
        limit=lambda: section.tiles_in_flight * worker_count(client),
        lost_s=section.lost_s,
        stopping=lambda: not domain.may_continue(),
        on_wait=lambda: domain.mapped(blocks.update()),
    )
    try:
        with closing(tiles):
            for planned, future in tiles:
                blocks.tile_ended()
                domain.ended(planned, time.monotonic() - submitted_at.pop(planned.tile.name), failure_cause(future))
    except ClusterError as error:
        if domain.may_continue():
            raise
        # The stop's own error says how many tiles are left.
        log.warning("%s", error)


def _tile_graph(
    resolved: ResolvedCampaign,
    domain: LockedDomain,
    mosaic: Mosaic,
    planned: PlannedTile,
    *,
    following: Sequence[PlannedTile],
    turn: int,
) -> Any:
    """The lazy graph of a tile: a task per block, one that puts them together, and one that seals the tile.

    Args:
        following: the tiles that are mapped next, and share pixels of files with this one.
        turn: number of tiles of the domain that were submitted before.
    """
    inputs, name = domain.plan.inputs, domain.plan.name
    # Only the files that this tile reads travel with its tasks, not the thousands of the domain.
    around, size = resolved.read_window(planned.tile), resolved.campaign.grid.block
    blocks = [block for tile in (planned, *following) for block in tile.tile.window.split(size)]
    reads = [r for r in reads_of(mosaic.window, blocks, layout=resolved.layout) if r.intersect(around).pixels]
    part = mosaic.around(around).planned(reads, resolved.campaign.cluster.decoded_cache_mb * 2**20)
    return delayed(_seal_if_locked, pure=False)(
        domain.lock,
        resolved.campaign.product_folder(name),
        predict_tile(part, resolved.method, window=planned.tile.window, turn=turn),
        domain=name,
        tile=planned.tile,
        fingerprint=planned.fingerprint,
        keeps_map=planned.keeps_map,
        layers=resolved.campaign.layers,
        layer_fingerprints=planned.layers,
        live=resolved.recipe.live,
        provenance=replace(
            tile_provenance(resolved, inputs, planned.tile),
            novelty_fingerprint=resolved.novelty_fingerprint(planned.fingerprint),
        ),
        inputs=[asset.href for asset in planned.inputs],
        crs=inputs.crs,
    )


def _seal_if_locked(
    lock: FolderLock,
    folder: Path,
    mapped: MappedPixels,
    *,
    keeps_map: bool,
    layers: Sequence[OptionalLayer],
    layer_fingerprints: Mapping[OptionalLayer, str],
    **tile: Any,
) -> None:
    """Seals a tile in a worker if this run still owns the lock: a dead driver may leave its workers behind.

    A map that is up to date stays as it is, and only its optional layers are sealed.

    Raises:
        LockError: the lock was lost.
        ProductError, StorageError: as for `seal`.
    """
    lock.check()
    classes, planes = mapped.layers[: len(LAYERS)], mapped.layers[len(LAYERS) :]
    if mapped.novelty is not None and len(mapped.novelty):
        # Rounded, because the last digits depend on the engine's threads.
        novelty = round(float(mapped.novelty.mean()), 4)
        tile["provenance"] = replace(tile["provenance"], novelty=novelty)
    if not keeps_map:
        seal(folder, stack=classes, switched_off=mapped.switched_off, **tile)
    own = {key: tile[key] for key in ("domain", "tile", "live", "provenance", "crs")}
    seal_layers(folder, layer_fingerprints, planes=planes, layers=layers, of_map=tile["fingerprint"], **own)


def _sealed_tiles(domains: Sequence[LockedDomain], stop: StopRequest) -> SealedTiles:
    """The events of the sealed tiles, if all tiles are sealed. Otherwise raises the error that `run` documents."""
    ended = [event for domain in domains for event in domain.events]
    failed = [event for event in ended if event.error]
    left = sum(domain.left for domain in domains)
    listed = "".join(f"\n  {e.domain} {e.tile}: {e.error}" for e in failed)
    also_failed = f"; {len(failed)} failed:{listed}" if failed else ""
    counts = f"{len(ended) - len(failed)} tiles are sealed, {left} are still to map"
    for cause in (domain.stop_cause for domain in domains if domain.stop_cause):
        if cause.kind == "lock lost":
            raise LockError(f"{cause.text}; {counts}")
        raise OutOfSpaceError(f"{cause.text}; {counts}{also_failed}")
    if left:
        raise RunStopped(f"stopped by {stop.reason}: {counts}; run again to resume{also_failed}")
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(ended)} tiles failed, the others are sealed. Fix the causes, then run again; "
            f"`landcover run --failed` maps only the failed tiles:{listed}"
        )
    return SealedTiles(ended)


class ResidentModel(WorkerPlugin):
    """Loads the model once in each worker and sets the engine's threads, before the first task.

    Args:
        model: of the campaign.
        engine: that runs it.
        threads: of the engine.
        stand_in: replaces the engine's predictor.
        needed_bytes: projected memory of a worker, where sizes or precision were `auto`: a machine that cannot run
            what was chosen is refused. None where the campaign states all.
    """

    name = "landcover-model"

    def __init__(
        self, method: Method, threads: int, *, stand_in: Predictor | None = None, needed_bytes: int | None = None
    ) -> None:
        self._method, self._threads, self._stand_in = method, threads, stand_in
        self._needed_bytes = needed_bytes

    def setup(self, worker: Worker) -> None:
        """Dask calls it in the worker's process."""
        if self._needed_bytes is not None:
            limit = worker.memory_manager.memory_limit or None
            engine = self._method.engine
            refuse_unable(engine, host=platform.node(), needed_bytes=self._needed_bytes, memory_bytes=limit)
        ignore_stop_signals()
        own = self._method
        predictor_for(
            own.model,
            own.engine,
            layers=own.layers,
            features=own.reference is not None,
            threads=self._threads,
            stand_in=self._stand_in,
        )
        # What is imported and loaded stays to the end. The garbage collector would traverse it again and again, and for
        # more than a second when the worker ends.
        gc.freeze()
