"""Maps a delivery: stage, index, write a campaign, plan, run, publish and report; each step resumes.

<out>/staged/<domain>/      unpacked archives
<out>/catalog/              input catalog
<out>/campaign.yaml         kept as it is once it exists
<out>/products/, national/  as every campaign has them
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from pipeline.config import Campaign, ClusterKind, LimitName, load_campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError, DeliveryError
from pipeline.progress import OnMessage
from pipeline.runs.ingest.found_deliveries import FoundDelivery, archives_below, domain_of_archives, find_deliveries
from pipeline.runs.ingest.new_campaign import CATALOG, NewCampaign, ShowProgress, index_delivery, init
from pipeline.runs.ingest.stage import stage
from pipeline.runs.mapping.events import OnEvent
from pipeline.runs.mapping.run import run
from pipeline.runs.mapping.shutdown import StopRequest
from pipeline.runs.planning.forecast import forecast_domains
from pipeline.runs.planning.plan import RunPlan, make_plan
from pipeline.runs.publishing.publish import PublishedEdition, publish
from pipeline.runs.quality.write_reports import write_reports

CAMPAIGN_FILE, STAGED, QGIS_INDEX = "campaign.yaml", "staged", "landcover.gti.gpkg"


@dataclass(frozen=True)
class MapRequest:
    """What to map, and where to."""

    folder: Path
    """Archives, or an unpacked or staged delivery."""
    weights: str
    out: Path
    recipe: str | None = None
    accept: tuple[LimitName, ...] = ()


@dataclass(frozen=True)
class FinishedMap:
    """A map that is complete."""

    campaign: Path
    tiles: int
    """Tiles that were mapped by this call."""
    edition: PublishedEdition
    reports: tuple[Path, ...]
    """Pages of the domains, then of the edition."""
    landcover: Path
    """The index of all tiles, which QGIS opens as one raster."""


def map_delivery(
    request: MapRequest,
    *,
    confirm: Callable[[Path, RunPlan], bool],
    bar: ShowProgress,
    on_message: OnMessage,
    stop: StopRequest | None = None,
    client: Client | None = None,
    on_cluster: tuple[ClusterKind | None, str | None] = (None, None),
    workers: int | None = None,
    on_event: OnEvent = lambda _: None,
) -> FinishedMap | None:
    """Maps a delivery from what lies in its folder to the report. Call it again after an interruption.

    1. Unpacks archives, if there are any that were not indexed yet.
    2. Indexes each domain.
    3. Writes `campaign.yaml`, unless there is one.
    4. Plans, and asks whether to run.
    5. Runs, publishes and reports, as the commands of these names do.

    Args:
        request: what to map.
        confirm: gets the campaign's file and the plan, if tiles are to be mapped; False ends here.
        bar: opens progress bars.
        on_message: called with a line after each step.
        stop: a request to stop the run.
        client: a client of a running cluster; by default the campaign's cluster is opened.
        on_cluster: kind and scheduler, instead of the campaign's.
        workers: number of worker processes, instead of the campaign's.
        on_event: receives the events of the run.

    Returns:
        None where the plan was not confirmed.

    Raises:
        ConfigError: `out` lies in the delivery, or its campaign has other weights or domains.
        LandcoverError: as each step raises it.
    """
    folder, out = request.folder.absolute(), request.out.absolute()
    if out.is_relative_to(folder):
        raise ConfigError(f"--out {request.out} lies inside {request.folder}; choose a folder outside of the delivery")
    sources = _staged(folder, out, bar=bar, on_message=on_message)
    campaign_file = _campaign(request, sources, out, bar=bar, on_message=on_message)
    campaign = load_campaign(campaign_file).on_cluster(*on_cluster)
    plan = make_plan(campaign)
    if plan.todo and not confirm(campaign_file, plan):
        return None
    with bar("run") as progress:
        predicted = forecast_domains(plan) if plan.todo else {}
        ended = run(
            plan,
            client=client,
            workers=workers,
            on_event=on_event,
            stop=stop,
            predicted=predicted,
            progress=progress,
        )
    on_message(f"run: {len(ended)} tiles mapped" if ended else "run: every tile is mapped already")
    with bar("publish") as progress:
        edition = publish(campaign, client=client, workers=workers, progress=progress)
    on_message(f"publish: edition {edition.edition}, {edition.written} shards written, {edition.linked} unchanged")
    with bar("report") as progress:
        reports = write_reports(campaign, progress=progress)
    on_message(f"report: {len(reports)} pages written")
    return FinishedMap(campaign_file, len(ended), edition, reports, edition.store.with_name(QGIS_INDEX))


def _staged(folder: Path, out: Path, *, bar: ShowProgress, on_message: OnMessage) -> tuple[Path, ...]:
    """The folders to index: the delivery's, and that of its unpacked archives."""
    archives = archives_below(folder)
    if not archives:
        return (folder,)
    domain = domain_of_archives(archives, folder)
    staged = out / STAGED / domain
    if _indexed_since(archives, out / CATALOG / domain / "collection.json"):
        on_message(f"stage: {len(archives)} archives are unpacked already in {STAGED}/{domain}")
        return (staged, folder)
    report = stage(
        [*archives, folder],
        domain=domain,
        out=staged,
        tile_m=None,
        treatment="interpolate",
        remove_small=False,
        bar=bar,
    )
    written = sum(part.written for _, part in report.unpacked)
    on_message(
        f"stage: {written} files unpacked, {len(report.heights.written)} height files written, in {STAGED}/{domain}"
    )
    return report.folders


def _indexed_since(archives: tuple[Path, ...], collection: Path) -> bool:
    """Whether the domain was indexed after the last change of its archives, and so after they were unpacked."""
    try:
        indexed = collection.stat().st_mtime_ns
        return all(v.stat().st_ctime_ns < indexed for a in archives for v in a.parent.glob(f"{_base(a)}*"))
    except FileNotFoundError:
        return False


def _base(archive: Path) -> str:
    name = archive.name
    return name[: name.lower().index(".7z")]


def _campaign(
    request: MapRequest, sources: tuple[Path, ...], out: Path, *, bar: ShowProgress, on_message: OnMessage
) -> Path:
    """Indexes what lies in the folders and writes the campaign; an existing one is checked and kept."""
    path, found = out / CAMPAIGN_FILE, find_deliveries(sources)
    if not found:
        raise DeliveryError(
            f"{request.folder}: no imagery and no archives; expected files such as "
            "38-2024-0595-6890-LA93-0M20-E080.jp2, or BDORTHO_….7z.001"
        )
    if not path.exists():
        new = init(
            sources,
            weights=request.weights,
            out=path,
            recipe=request.recipe,
            accept=request.accept,
            bar=bar,
        )
        if len(new.indexed) == len(found):
            on_message(_indexed_line(found, sum(len(r.tiles) for r in new.indexed)))
            on_message(_written_line(new))
            return path
        on_message(_written_line(new))
    campaign = load_campaign(path)
    _check_same(request, campaign, path, [f.domain for f in found])
    accept = tuple({*request.accept, *campaign.accept_limits})
    reports = [
        index_delivery(f, catalog=campaign.catalog, recipe=campaign.recipe(), accept=accept, bar=bar) for f in found
    ]
    on_message(_indexed_line(found, sum(len(r.tiles) for r in reports)))
    return path


def _written_line(new: NewCampaign) -> str:
    return f"init: {new.path.name} written, with the recipe {new.parts.recipe.name}"


def _indexed_line(found: tuple[FoundDelivery, ...], tiles: int) -> str:
    return f"index: {', '.join(f.domain for f in found)}, {tiles} tiles"


def _check_same(request: MapRequest, campaign: Campaign, path: Path, domains: list[Domain]) -> None:
    given = request.weights
    weights = given if given.startswith("hf://") else str(Path(given).expanduser().absolute())
    if weights != campaign.weights:
        raise ConfigError(
            f"{path} has model.weights {campaign.weights}, found --weights {given}; change it there, or choose another "
            "--out"
        )
    if missing := sorted(set(domains) - {section.name for section in campaign.domains}):
        raise ConfigError(f"{path} does not have {', '.join(missing)}; add it to its domains, or choose another --out")
