"""Makes the generalised map of an edition that is published, tile by tile on the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from distributed import Client

from pipeline.cluster.bounded_submission import map_jobs
from pipeline.cluster.client import open_cluster
from pipeline.config import Campaign
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Tile
from pipeline.products.analysis.campaign_map import update_layers
from pipeline.products.national.edition_record import damaged_files, published_edition
from pipeline.products.national.generalised.layer import (
    GENERALISED_FOLDER,
    LAYER_STORE,
    GeneralisedTile,
    LayerPlan,
    class_balance,
    plan_layer,
    read_layer,
)
from pipeline.products.national.generalised.layer_writer import (
    begin_layer,
    finish_layer,
    remove_unfinished,
    write_part,
)
from pipeline.products.national.generalised.tile_writer import LayerTarget, write_generalised
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.pyramid.edition_root import write_root
from pipeline.products.national.pyramid.overviews import Cells, write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.national.zarr_store import check_whole
from pipeline.progress import SILENT, Progress
from pipeline.runs.publishing.national_lock import lock_national


@dataclass(frozen=True)
class GeneralisedEdition:
    """The generalised map of an edition."""

    edition: int
    store: Path
    """Its Zarr store, as `xarray.open_zarr` takes it."""
    made: int
    """Tiles with new files; 0 where the layer was up to date."""
    linked: int
    """Tiles that are the same as before: hard links, or the files themselves."""
    moved: Mapping[tuple[int, int], int]
    """(from, to), FLAIR values → pixels that changed class."""

    @property
    def balance(self) -> dict[int, tuple[int, int]]:
        """FLAIR value → pixels that the class gained, and that it lost, where there are any."""
        return class_balance(self.moved)


def plan_generalised(campaign: Campaign, edition: int | None = None, *, recheck: bool = False) -> LayerPlan:
    """Plans the generalised map of an edition; writes nothing, and reads no pixel without `recheck`.

    Args:
        campaign: gives the national product and the units.
        edition: its number; None for the current one.
        recheck: read all files of layers to find the damaged ones.

    Raises:
        ConfigError: the campaign has no units.
        ProductError: there is no such edition, or it is damaged.
    """
    if campaign.generalise is None:
        raise ConfigError(
            f"campaign {campaign.name} in {campaign.base}: has no section `generalise`; add `generalise: {{preset: "
            "ocsge}`, or units of your own"
        )
    found = published_edition(campaign.output.national, edition)
    check_whole(found)
    if damaged := damaged_files(found, read_all=False, below=rf"^{found.store.name}/landcover/"):
        name, problem = next(iter(damaged.items()))
        raise ProductError(f"{found.path / name}: {problem}; `landcover publish --recheck` writes it again")
    return plan_layer(found, np.array(campaign.generalise.units, np.int64), recheck=recheck)


def tile_names(plan: LayerPlan) -> list[str]:
    """Names of the tiles that a plan makes, such as `0595-6890`."""
    grid = plan.edition.grid
    corner = grid.extent
    return [
        Tile.at(corner.row + row * grid.tile, corner.col + col * grid.tile, grid.tile).name for row, col in plan.write
    ]


def generalise(
    campaign: Campaign,
    *,
    edition: int | None = None,
    client: Client | None = None,
    workers: int | None = None,
    wait: bool = False,
    recheck: bool = False,
    progress: Progress = SILENT,
) -> GeneralisedEdition:
    """Makes the generalised map of an edition. Tiles that nothing reaches are linked from the edition before.

    It lies in the edition's folder `generalised/`, which appears when it is complete. The next call continues one that
    was killed.

    Args:
        campaign: gives the national product and the units.
        edition: its number; None for the current one.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        wait: wait while the national product is locked. Otherwise this is an error.
        recheck: read all files of layers, and make damaged tiles again.
        progress: counts tiles, then those of the coarser levels.

    Raises:
        ConfigError: the campaign has no units.
        ClusterError: the cluster did not start, or was lost.
        LockError: a publish is running.
        ProductError: there is no such edition, it is damaged, or the layer cannot be written.
    """
    with lock_national(campaign.output.national, wait=wait) as lock:
        plan = plan_generalised(campaign, edition, recheck=recheck)
        if not plan.nothing_to_do:
            begin_layer(plan)
            tiles = plan.edition.grid.tiles_of(plan.edition.digests)
            unchanged = {tile for tile, (folder, _) in plan.kept.items() if folder == plan.former}
            left = begin_pyramid(plan.target, former=plan.former, tiles=tiles, changed=tiles - unchanged)
            made: dict[GridIndex, GeneralisedTile] = {}
            cells: dict[GridIndex, Cells] = {}
            if plan.write or left:
                with open_cluster(campaign, client=client, workers=workers) as opened:
                    made = _make(campaign, plan, client=opened, progress=progress)
                    cells = _make_levels(campaign, plan, left, client=opened, progress=progress)
            write_overviews(plan.target, cells, former=plan.former, tiles=tiles)
            write_root(plan.store, plan.edition.grid)
            lock.check()
            finish_layer(plan, made)
        remove_unfinished(plan)
        update_layers(campaign, plan.edition)
        layer = read_layer(plan.edition.path)
    if layer is None:
        raise ProductError(f"{plan.edition.path / GENERALISED_FOLDER}: was removed meanwhile; run the command again")
    new = len(plan.write)
    store = campaign.output.national / "editions" / plan.edition.path.name / GENERALISED_FOLDER / LAYER_STORE
    return GeneralisedEdition(plan.edition.number, store, new, len(layer.tiles) - new, layer.moved)


def _make(
    campaign: Campaign, plan: LayerPlan, *, client: Client, progress: Progress
) -> dict[GridIndex, GeneralisedTile]:
    """Makes the tiles, one task each, and records each when it is ready."""
    target = LayerTarget(plan.edition.store, plan.store, plan.edition.grid, plan.units)
    section = campaign.cluster
    progress.start(len(plan.write))
    results = map_jobs(
        plan.write, partial(write_generalised, target), client=client, per_worker=section.threads, lost_s=section.lost_s
    )
    made = {}
    for tile, written in progress.track(results):
        made[tile] = GeneralisedTile(plan.shards_sealed(written.read), written.pixels, written.moved)
        write_part(plan, tile, made[tile])
    return made


def _make_levels(
    campaign: Campaign, plan: LayerPlan, tiles: Sequence[GridIndex], *, client: Client, progress: Progress
) -> dict[GridIndex, Cells]:
    """Makes the parts of tiles in the coarser levels; returns their cells of the coarsest ones."""
    section, work = campaign.cluster, partial(write_tile, plan.target)
    progress.start(len(tiles))
    made = map_jobs(tiles, work, client=client, per_worker=section.threads, lost_s=section.lost_s)
    return dict(progress.track(made))
