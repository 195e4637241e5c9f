"""Writes a campaign for deliveries: a commented YAML file that `landcover plan` accepts as it is."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import LimitName, Recipe, load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.durable import write_json, write_text
from pipeline.errors import ConfigError, DeliveryError
from pipeline.model.matching_recipe import matching_recipe
from pipeline.progress import Progress
from pipeline.runs.ingest.campaign_text import CampaignDomain, CampaignParts, campaign_text
from pipeline.runs.ingest.found_deliveries import FoundDelivery, archives_below, find_deliveries, indexed_domains
from pipeline.sources.catalog.index import IndexReport, index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.admin_express import boundary_file, find_boundary

ShowProgress = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar with this description."""
CATALOG = "catalog"
"""Folder of the input catalog beside a new campaign."""


@dataclass(frozen=True)
class NewCampaign:
    """A campaign that was written."""

    path: Path
    parts: CampaignParts
    indexed: tuple[IndexReport, ...]
    """Of the domains that were not indexed before."""


def init(
    folders: Sequence[Path],
    *,
    weights: str,
    out: Path,
    recipe: str | None = None,
    accept: Sequence[LimitName] = (),
    force: bool = False,
    bar: ShowProgress,
) -> NewCampaign:
    """Writes a campaign for everything that lies in folders.

    1. Finds the recipe of the weights, and checks that it fits.
    2. Finds the domains: in an input catalog among the folders, and in deliveries and staged data.
    3. Indexes the domains that are not indexed yet, into the catalog among the folders, or else beside the campaign.
    4. Takes the boundary of each département from ADMIN EXPRESS, where one of the folders has it.
    5. Writes the campaign, and loads it.

    Args:
        folders: input catalogs, deliveries or staged data; one catalog at most.
        weights: a path, or `hf://…`.
        out: the YAML file.
        recipe: a name or a path; by default the one that fits the weights.
        accept: limits of the model card that the imagery may exceed.
        force: replace an existing file.
        bar: opens progress bars.

    Raises:
        ConfigError: the file exists, there are several catalogs, or domains that do not fit into one campaign.
        DeliveryError: there is no imagery, archives are not unpacked, or the imagery has problems; all are listed.
        WeightsError: the weights cannot be loaded, or no recipe fits them.
        StorageError: the folder of the file cannot be written.
    """
    out = out.absolute()
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; --force replaces it, or choose another --out")
    chosen = recipe or matching_recipe(weights)
    loaded = load_recipe(chosen)
    catalog, deliveries = _sort(folders, out)
    found = find_deliveries(deliveries)
    domains = sorted({*indexed_domains(catalog), *(f.domain for f in found)})
    if not domains:
        raise _nothing_found(folders, deliveries)
    missing = [f for f in found if f.domain not in indexed_domains(catalog)]
    indexed = tuple(index_delivery(f, catalog=catalog, recipe=loaded, accept=accept, bar=bar) for f in missing)
    parts = CampaignParts(
        name=_campaign_name(domains),
        catalog=catalog,
        weights=weights,
        recipe_name=chosen if chosen == Path(chosen).stem else str(Path(chosen).expanduser().absolute()),
        recipe=loaded,
        domains=tuple(_described(catalog, name, deliveries, out.parent) for name in domains),
    )
    write_text(out, campaign_text(parts, out.parent))
    load_campaign(out).grid.layout(loaded.stride)
    return NewCampaign(out, parts, indexed)


def index_delivery(
    found: FoundDelivery, *, catalog: Path, recipe: Recipe, accept: Sequence[LimitName], bar: ShowProgress
) -> IndexReport:
    """Indexes a delivery that was found in folders; see `index`."""
    with bar(f"index {found.domain}") as progress:
        return index(
            found.folders,
            domain=found.domain,
            catalog=catalog,
            tile_size=found.tile_size,
            recipe=recipe,
            accept=accept,
            progress=progress,
        )


def _sort(folders: Sequence[Path], out: Path) -> tuple[Path, list[Path]]:
    """The catalog, and the folders of deliveries."""
    for folder in folders:
        if not folder.is_dir():
            raise DeliveryError(f"{folder}: no such folder; check the path")
    catalogs = [folder for folder in folders if indexed_domains(folder)]
    if len(catalogs) > 1:
        raise ConfigError(f"a campaign has one catalog, found {', '.join(map(str, catalogs))}; choose one of them")
    catalog = (catalogs or [out.parent / CATALOG])[0].absolute()
    return catalog, [folder for folder in folders if folder not in catalogs]


def _nothing_found(folders: Sequence[Path], deliveries: Sequence[Path]) -> DeliveryError:
    where = ", ".join(map(str, folders))
    if archives := [a for folder in deliveries for a in archives_below(folder)]:
        return DeliveryError(
            f"{where}: has archives that are not unpacked, such as {archives[0].name}; run `landcover stage` first, or "
            "`landcover map`, which does all steps"
        )
    return DeliveryError(
        f"{where}: no imagery and no input catalog; expected files such as 38-2024-0595-6890-LA93-0M20-E080.jp2"
    )


def _described(catalog: Path, domain: Domain, deliveries: Sequence[Path], folder: Path) -> CampaignDomain:
    """A domain as it is indexed, and the file of its boundary, which is written where a delivery has one."""
    inputs, path = read_domain(catalog, domain), boundary_file(folder, domain.departement)
    if boundary := find_boundary(deliveries, domain.departement):
        write_json(path, boundary.geojson, indent=None)
    return CampaignDomain(inputs, path if boundary or path.is_file() else None)


def _campaign_name(domains: Sequence[Domain]) -> str:
    """`D034_2021`, or `D030_2024-and-2-more`."""
    more = len(domains) - 1
    return domains[0] + (f"-and-{more}-more" if more else "")
