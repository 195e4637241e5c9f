"""A domain's run: plan → submit a bounded number of tiles → seal each → what failed, by name.

1. `make_plan` says which tiles are to be mapped (`runs.plan`).
2. `run` opens the cluster and puts the model on every worker once.
3. Each tile becomes one graph: a task a block, and one that seals. At most `tiles_in_flight` a worker are
   submitted, done in turn, so that one is sealed while the next is mapped; another follows when one is sealed.
4. A tile that fails is named with its cause, and the others go on.
5. The domain's `run.json` says how it went; with failures the run ends in `RunFailed`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dask.delayed import delayed
from distributed import Client, Future, Worker, WorkerPlugin
from distributed.scheduler import KilledWorker

from pipeline.cluster import in_flight, open_cluster
from pipeline.durable import write_json
from pipeline.errors import LandcoverError, ProductError, RunFailed
from pipeline.grid import Tile
from pipeline.inference import Engine, Predictor, predict_stack, predictor_for
from pipeline.model import Model
from pipeline.products.item import seal
from pipeline.products.stac import Provenance
from pipeline.runs.origin import product_origin
from pipeline.runs.plan import DomainPlan, PlannedTile, RunPlan, Settings
from pipeline.runs.record import RUN_FILE, read_run, software
from pipeline.sources.inputs import DomainInputs
from pipeline.sources.mosaic import Mosaic


@dataclass(frozen=True)
class TileEnded:
    """A tile was sealed, or failed with `error`."""

    domain: str
    tile: str
    seconds: float
    """From its submission to its end; tiles in flight overlap."""
    pixels: int
    error: str | None


@dataclass(frozen=True)
class RunStarted:
    """The cluster stands."""

    dashboard: str
    tiles: int


Listener = Callable[[RunStarted | TileEnded], None]


class ResidentModel(WorkerPlugin):
    """Loads the model once in each worker and sets the engine's threads, before any task."""

    name = "landcover-model"

    def __init__(self, model: Model, engine: Engine, threads: int, *, stand_in: Predictor | None = None) -> None:
        self._model, self._engine, self._threads, self._stand_in = model, engine, threads, stand_in

    def setup(self, worker: Worker) -> None:  # noqa: ARG002  (Dask's signature)
        """Called by Dask in the worker's process."""
        predictor_for(self._model, self._engine, threads=self._threads, stand_in=self._stand_in)


def run(plan: RunPlan, *, workers: int | None = None, listener: Listener = lambda _: None) -> tuple[TileEnded, ...]:
    """Maps what the plan has to do, and seals it tile by tile.

    Args:
        plan: as `make_plan` gives it.
        workers: processes, instead of the campaign's number.
        listener: told of each event; progress bars, logs and records come from these.

    Returns:
        The sealed tiles' events.

    Raises:
        ConfigError: a worker would take more than `cluster.memory_bytes`, or of its GPU more than
            `cluster.device_memory_bytes`; nothing was started.
        ProductError: an output folder cannot be written; nothing was started.
        RunFailed: some tiles failed; the others are sealed.
    """
    settings = plan.settings
    if not plan.todo:
        return ()
    cluster = settings.campaign.cluster
    settings.memory.check(cluster.memory_bytes, cluster.device_memory_bytes)
    for domain in plan.domains:
        _prepare(settings.folder(domain.name))
    ended = [_broken(d, t) for d in plan.domains for t in d.todo if t.broken]
    for event in ended:
        listener(event)
    if len(ended) < plan.todo:
        ended += _run_domains(plan, workers, listener)
    for domain in plan.domains:
        _record(settings, domain, [e for e in ended if e.domain == domain.name])
    failed = [e for e in ended if e.error]
    if failed:
        listed = "\n".join(f"  {e.domain} {e.tile}: {e.error}" for e in failed)
        raise RunFailed(
            f"{len(failed)} of {len(ended)} tiles failed, the others are sealed; "
            f"mend the cause and run again:\n{listed}"
        )
    return tuple(ended)


def _prepare(folder: Path) -> None:
    """Makes sure before anything starts that a domain's folder can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ProductError(
            f"{folder} cannot be written: {error}; change output.domains or the folder's rights"
        ) from error


def _broken(domain: DomainPlan, planned: PlannedTile) -> TileEnded:
    """A tile that fails before it starts: its inputs are not what was indexed."""
    return TileEnded(domain.name, planned.tile.name, 0.0, 0, "; ".join(planned.broken))


def _run_domains(plan: RunPlan, workers: int | None, listener: Listener) -> list[TileEnded]:
    """Maps the tiles whose inputs are whole, on one cluster, domain by domain."""
    settings = plan.settings
    ended = []
    with open_cluster(settings.campaign, workers=workers) as client:
        listener(RunStarted(client.dashboard_link, plan.todo))
        resident = ResidentModel(settings.model, settings.engine, settings.engine_threads, stand_in=settings.stand_in)
        client.register_plugin(resident)
        for domain in plan.domains:
            for event in _run_domain(client, settings, domain, workers or settings.campaign.cluster.workers):
                listener(event)
                ended.append(event)
    return ended


def _run_domain(client: Client, settings: Settings, domain: DomainPlan, workers: int) -> Iterator[TileEnded]:
    """Keeps a bounded number of tiles submitted, and yields each as it ends."""
    mosaic = Mosaic.of(domain.inputs, bands=settings.recipe.bands, height_step_m=settings.recipe.height_step_m)
    since: dict[str, float] = {}
    turn = count()

    def submit(planned: PlannedTile) -> Future[Any]:
        since[planned.tile.name] = time.monotonic()
        # One tile before the next. Dask would take turns between what comes within a minute: tiles in flight would end
        # together, and while they are sealed nothing would be left to infer.
        future: Future[Any] = client.compute(_tile_graph(settings, domain, mosaic, planned), priority=-next(turn))
        return future

    whole = (planned for planned in domain.todo if not planned.broken)
    for planned, future in in_flight(whole, submit, limit=settings.campaign.cluster.tiles_in_flight * workers):
        name = planned.tile.name
        seconds = time.monotonic() - since.pop(name)
        yield TileEnded(domain.name, name, seconds, planned.tile.window.pixels, _cause(future))


def _tile_graph(settings: Settings, domain: DomainPlan, mosaic: Mosaic, planned: PlannedTile) -> Any:
    """One tile, lazily: a task a block, and the seal that takes them all."""
    reads = settings.reads(planned.tile)
    # Only what is behind this tile travels with its tasks, not the domain's thousand files.
    stack = predict_stack(mosaic.around(reads), settings.method, window=planned.tile.window)
    assets = domain.inputs.behind(reads)
    return delayed(seal, pure=False)(
        settings.folder(domain.name),
        domain=domain.name,
        tile=planned.tile,
        stack=stack,
        fingerprint=planned.fingerprint,
        live=settings.recipe.live,
        provenance=_provenance(settings, domain.inputs, planned.tile),
        inputs=[asset.href for asset in assets],
        crs=domain.inputs.crs,
    )


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
    )


def _cause(future: Future[Any]) -> str | None:
    """Why a tile failed, in one line; None where it is sealed."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, KilledWorker):
        return "its worker died again and again (killed, or out of memory)"
    if isinstance(error, LandcoverError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _record(settings: Settings, domain: DomainPlan, events: list[TileEnded]) -> None:
    """Writes the domain's `run.json`: the resolved campaign, and all failures that still stand."""
    folder = settings.folder(domain.name)
    former = read_run(folder).get("failed", {})
    attempted = {e.tile for e in events}
    failed = {t: m for t, m in former.items() if t not in attempted} | {e.tile: e.error for e in events if e.error}
    write_json(
        folder / RUN_FILE,
        {
            "campaign": settings.campaign.model_dump(mode="json")
            | {"engine": settings.engine.name, "engine_threads": settings.engine_threads},
            "weights_sha256": settings.model.weights_hash,
            "quantized_sha256": settings.engine.quantized.sha256 if settings.engine.quantized else None,
            "recipe": settings.recipe.model_dump(mode="json"),
            "software": software(),
            "tiles": [
                {"tile": e.tile, "seconds": round(e.seconds, 3), "pixels": e.pixels} for e in events if not e.error
            ],
            "failed": dict(sorted(failed.items())),
        },
    )
