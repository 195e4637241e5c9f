"""Writes the change between two editions of the national product: raster, polygons, tables, and places to look at."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from pipeline.cluster.bounded_submission import map_in_order, map_jobs
from pipeline.cluster.client import open_cluster
from pipeline.config import Campaign
from pipeline.durable import sync, write_json
from pipeline.errors import MALFORMED, EvaluationError, ProductError, product_error
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.analysis.campaign_map import update_layers
from pipeline.products.analysis.change import FalseChange
from pipeline.products.analysis.edition_change.change_store import (
    CHANGE_STORE,
    SAMPLE,
    SUMMARY,
    UNIT_M2,
    PolygonCounts,
    change_folder,
    create_change,
    figures_of,
    write_tables,
)
from pipeline.products.analysis.edition_change.comparison import (
    KINDS,
    ChangeJob,
    ChangeTarget,
    EditionLayers,
    TileChange,
    ZoneChange,
    write_change,
)
from pipeline.products.analysis.edition_change.imagery import same_inputs
from pipeline.products.analysis.edition_change.labels import count_errors
from pipeline.products.analysis.edition_change.places import draw_places, write_places
from pipeline.products.analysis.edition_change.zones import Zoning, read_communes, zoning
from pipeline.products.manifest import files_below, write_manifest
from pipeline.products.national.edition_record import Edition, edition_numbers, edition_of, published_edition
from pipeline.products.national.edition_writer import sync_tree
from pipeline.products.national.generalised.layer import LAYER_STORE, read_layer
from pipeline.products.national.grid import GridIndex, NationalGrid, lost_files
from pipeline.products.national.ownership import read_boundary
from pipeline.products.national.zarr_store import check_whole, refuse
from pipeline.products.vectors.change.change_pixels import ChangePixels, changed_windows
from pipeline.products.vectors.change.change_polygons import ChangedPlaces, trace_change, write_change_polygons
from pipeline.progress import SILENT, Progress
from pipeline.runs.publishing.national_lock import lock_national
from pipeline.untrusted.own_files import is_own

_LARGEST_FILE = 5_000
"""Pixels a side of a file, at most; a task takes some 20 bytes for each of its pixels."""


@dataclass(frozen=True)
class ChangeOptions:
    """What counts as change, by which zones it is counted, and the sample."""

    min_confidence: float = 0.0
    """0..1; pixels with a lower confidence in either map are uncertain."""
    min_area_m2: float = 0.0
    """Smaller changed patches (4-connected, of any classes) are uncertain."""
    unit_m2: float = UNIT_M2
    """Smaller polygons of change are left out. A polygon has pixels of one class before and of one after."""
    generalised: bool = False
    """Compare the generalised maps of both editions."""
    places: int = 50
    """Places of each stratum in the sample."""
    seed: int = 2022
    """Of the sample."""
    communes: Path | None = None
    """File of polygons to count by, besides départements."""
    by: str = "code"
    """Their attribute with a number or name."""
    truth_from: Path | None = None
    """Labels of the first date, a raster of FLAIR values: gives the expected share of false change."""
    truth_to: Path | None = None
    """Labels of the second date."""


DEFAULT_CHANGE = ChangeOptions()


@dataclass(frozen=True)
class EditionChange:
    """The change that was written."""

    first: int
    second: int
    folder: Path
    figures: dict[str, Any]
    """Of all pixels, as in `change.json`."""
    places: int
    """Points of the sample."""


def change_editions(
    campaign: Campaign,
    *,
    first: int | None = None,
    second: int | None = None,
    options: ChangeOptions = DEFAULT_CHANGE,
    errors: FalseChange | None = None,
    client: Client | None = None,
    workers: int | None = None,
    wait: bool = False,
    progress: Progress = SILENT,
) -> EditionChange:
    """Compares two editions where both have data, and writes the result into the second one's folder.

    Args:
        campaign: gives the national product, and the polygons of départements.
        first: number of the earlier edition; None for the last one before the second.
        second: number of the later edition; None for the current one.
        options: what counts as change, and by which zones it is counted.
        errors: of labelled pixels, from `FalseChange.of`, instead of the labels that `options` name.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        wait: wait while the national product is locked. Otherwise this is an error.
        progress: counts tiles, then blocks that become polygons.

    Raises:
        ClusterError: the cluster did not start, or was lost.
        LockError: a publish is running.
        ProductError: there are no such editions, they have different grids or share no ground, or a file cannot be read
            or written.
    """
    with lock_national(campaign.output.national, wait=wait) as lock:
        editions = _editions(campaign.output.national, first, second)
        final = change_folder(editions[1].path, editions[0].number, generalised=options.generalised)
        # Both folders lie in one without a manifest, so that `verify` does not read what a killed run leaves.
        beside = final.with_name(f".{final.name}.tmp")
        staging, former = beside / "new", beside / "former"
        _check_own(final, beside)
        shutil.rmtree(beside, ignore_errors=True)
        target, zonings = _target(editions, options, staging / CHANGE_STORE), _zonings(campaign, editions[1], options)
        with product_error(f"{staging}: cannot be written", *MALFORMED):
            create_change(target.store, target.grid, side=target.side, coordinates_from=editions[1].store)
        if errors is None and options.truth_from and options.truth_to:
            errors = count_errors(target, (options.truth_from, options.truth_to))
        tiles, section = _common_tiles(editions), campaign.cluster
        with open_cluster(campaign, client=client, workers=workers) as opened:
            progress.start(len(tiles))
            done = map_jobs(
                _jobs(editions, tiles, zonings),
                partial(write_change, target),
                client=opened,
                per_worker=section.threads,
                lost_s=section.lost_s,
            )
            found = _added_up(progress.track(done))
            for_each = partial(
                map_in_order, client=opened, per_worker=section.threads, lost_s=section.lost_s, progress=progress
            )
            made = ChangedPlaces(editions[0].number, editions[1].number, target.grid.crs, options.unit_m2)
            parts, kinds = _parts(target, found)
            pixels = ChangePixels(target.store, target.grid)
            traced = trace_change(staging / "work", pixels, changed_windows(parts, kinds), made, for_each)
        lock.check()
        polygons = write_change_polygons(staging, *traced, zonings)
        shutil.rmtree(staging / "work", ignore_errors=True)
        about = {"from": editions[0].number, "to": editions[1].number, "options": _plain(options)}
        figures, places = _write_rest(staging, target, found, zonings, polygons, options=options, errors=errors)
        write_json(staging / SUMMARY, about | {"figures": figures})
        with product_error(f"{staging}: cannot be finished"):
            sync_tree(staging)
            write_manifest(staging, files_below(staging))
            # Readers see the former change, none or the new one, whole.
            if final.exists():
                final.rename(former)
            staging.rename(final)
            sync(final.parent)
            shutil.rmtree(beside, ignore_errors=True)
        update_layers(campaign, editions[1])
    shown = campaign.output.national / "editions" / editions[1].path.name / final.name
    return EditionChange(editions[0].number, editions[1].number, shown, figures, places)


def _check_own(*folders: Path) -> None:
    """Raises ProductError where what would be replaced is not this user's."""
    for path in folders:
        if (path.exists() or path.is_symlink()) and not is_own(path, kind="folder"):
            raise ProductError(f"{path}: expected a folder of this user; its owner can remove it")


def _plain(options: ChangeOptions) -> dict[str, Any]:
    """As JSON; files by their names alone, because folders are nobody else's business."""
    return {name: value.name if isinstance(value, Path) else value for name, value in asdict(options).items()}


def _editions(national: Path, first: int | None, second: int | None) -> tuple[Edition, Edition]:
    later = published_edition(national, second)
    earlier = [number for number in edition_numbers(national) if number < later.number]
    if first is None and not earlier:
        raise ProductError(f"{national}: there is no edition before {later.number} to compare it with")
    former = edition_of(national, earlier[-1] if first is None else first)
    if former.number == later.number:
        raise ProductError(f"{national}: edition {later.number} is compared with itself; expected two editions")
    if former.grid != later.grid:
        raise ProductError(
            f"{national}: editions {former.number} and {later.number} have different grids ({former.grid} and "
            f"{later.grid}); expected the same extent, tiles, shards and chunks"
        )
    for edition in (former, later):
        check_whole(edition)
    return former, later


def _target(editions: tuple[Edition, Edition], options: ChangeOptions, store: Path) -> ChangeTarget:
    grid = editions[1].grid
    # Files as large as fit: multiples of the chunk that divide the tile.
    sides = [s for s in range(grid.chunk, grid.tile + 1, grid.chunk) if grid.tile % s == 0]
    first, second = (_layers(edition, generalised=options.generalised) for edition in editions)
    return ChangeTarget(
        first,
        second,
        store,
        grid,
        max((s for s in sides if s <= _LARGEST_FILE), default=sides[0]),
        int(np.ceil(255 * options.min_confidence)),
        int(np.ceil(options.min_area_m2 * PIXELS_PER_M**2)),
    )


def _layers(edition: Edition, *, generalised: bool) -> EditionLayers:
    store = edition.store
    landcover = store / "landcover"
    if generalised:
        layer = read_layer(edition.path)
        if layer is None:
            raise ProductError(
                f"{edition.path}: has no generalised map; `landcover generalise --edition {edition.number}` makes it"
            )
        landcover = layer.folder / LAYER_STORE / "landcover"
        refuse(edition, lost_files([landcover / "c"], edition.digests))
    return EditionLayers(landcover, store / "confidence", store / "domain")


def _zonings(campaign: Campaign, edition: Edition, options: ChangeOptions) -> list[Zoning]:
    crs = edition.grid.crs
    named = [
        (f"D{section.name.departement.zfill(3)}", read_boundary(section.boundary, crs=crs))
        for section in campaign.domains
        if section.boundary
    ]
    found = [zoning("département", named)] if named else []
    return [*found, read_communes(options.communes, options.by, crs)] if options.communes else found


def _common_tiles(editions: tuple[Edition, Edition]) -> list[GridIndex]:
    one, other = (edition.grid.tiles_of(edition.digests) for edition in editions)
    return sorted(one & other)


def _jobs(
    editions: tuple[Edition, Edition], tiles: Sequence[GridIndex], zonings: Sequence[Zoning]
) -> Iterator[ChangeJob]:
    """A job for each tile that both editions have; made when it is submitted, because polygons are large."""
    same = same_inputs(*editions)
    for tile in tiles:
        window = _tile_window(editions[0].grid, tile)
        yield ChangeJob(tile, same.get(tile, frozenset()), {z.kind: z.meeting(window) for z in zonings})


def _tile_window(grid: NationalGrid, tile: GridIndex) -> Window:
    """A tile on the lattice."""
    return Window(grid.extent.row + tile[0] * grid.tile, grid.extent.col + tile[1] * grid.tile, grid.tile, grid.tile)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Results of all tiles: sums over tiles, so that memory does not grow with them."""

    zones: Mapping[tuple[str, int], ZoneChange]
    kinds: Mapping[GridIndex, NDArray[np.int64]]
    """Tile → int64 (file, 5)."""
    lesser: NDArray[np.int64]


def _added_up(results: Iterable[tuple[ChangeJob, TileChange]]) -> _Sums:
    zones: dict[tuple[str, int], ZoneChange] = {}
    kinds: dict[GridIndex, NDArray[np.int64]] = {}
    lesser: NDArray[np.int64] = np.zeros(256, np.int64)
    for job, tile in results:
        for key, zone in tile.zones.items():
            zones[key] = zones[key] + zone if key in zones else zone
        kinds[job.tile] = tile.kinds
        lesser += tile.lesser
    return _Sums(zones, dict(sorted(kinds.items())), lesser)


def _parts(target: ChangeTarget, found: _Sums) -> tuple[list[Window], NDArray[np.int64]]:
    """Windows that cover the compared tiles, and their pixels of each kind: int64 (part, 5)."""
    parts = [part for tile in found.kinds for part in _tile_window(target.grid, tile).split(target.side)]
    return parts, np.concatenate([np.empty((0, len(KINDS)), np.int64), *found.kinds.values()])


def _write_rest(
    folder: Path,
    target: ChangeTarget,
    found: _Sums,
    zonings: Sequence[Zoning],
    polygons: Mapping[tuple[str, int], PolygonCounts],
    *,
    options: ChangeOptions,
    errors: FalseChange | None,
) -> tuple[dict[str, Any], int]:
    """Writes tables and sample; returns the figures of all pixels, and the number of places."""
    zones = found.zones
    if ("all", 0) not in zones or not zones["all", 0].figures[:, 0].any():
        raise ProductError(
            f"{folder.parents[1]}: no pixel is mapped and certain in both editions; expected common ground, or a lower "
            "minimum of the confidence"
        )
    places = draw_places(target, *_parts(target, found), size=options.places, seed=options.seed)
    write_places(folder / SAMPLE, places)
    write_tables(folder, zonings, zones, polygons)
    figures = figures_of(zones["all", 0], polygons["all", 0]) | {
        "expected": _expected(errors, found.lesser),
        "labels_ha": None if errors is None else int(errors.pixels.sum()) / (10_000 * PIXELS_PER_M**2),
        "labels_false_share": None if errors is None else errors.share,
    }
    return figures, len(places)


def _expected(errors: FalseChange | None, lesser: NDArray[np.int64]) -> float | None:
    """Share of the pixels with other imagery on which errors alone change the class; None without labels."""
    try:
        return None if errors is None else errors.expected_of(lesser)
    except EvaluationError:
        return None
