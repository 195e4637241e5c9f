"""Writes the layer: `begin_layer`, `write_generalised` and `write_part` for each tile, then `finish_layer`.

It is written under a temporary name. What a killed call finished is kept: a tile is recorded when its files are synced.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zarr

from pipeline import legend
from pipeline.durable import link_or_copy, sync, write_json
from pipeline.errors import MALFORMED, ProductError, product_error
from pipeline.fingerprint import digest
from pipeline.products.manifest import files_below, write_manifest
from pipeline.products.national.edition_writer import sync_tree
from pipeline.products.national.generalised.layer import (
    GENERALISED_FOLDER,
    GENERALISED_VERSION,
    LAYER_RECORD,
    LAYER_STORE,
    PARTS,
    REPLACED,
    STAGING,
    GeneralisedTile,
    LayerPlan,
    pixels_of,
)
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.zarr_metadata import Frame, create_frame
from pipeline.products.national.zarr_store import PLACE, ZSTD, NewStore, consolidate, flags_of
from pipeline.untrusted.documents import read_json
from pipeline.untrusted.own_files import is_own


def begin_layer(plan: LayerPlan) -> None:
    """Creates the layer under its temporary name, with its metadata and links to the files of tiles that are kept.

    Raises:
        ProductError: it cannot be written, or a folder there is another user's.
    """
    for name in (GENERALISED_FOLDER, STAGING, PARTS, REPLACED):
        path = plan.edition.path / name
        if (path.exists() or path.is_symlink()) and not is_own(path, kind="folder"):
            raise ProductError(f"{path}: expected a folder of this user; its owner can remove it")
    grid, chunks = plan.edition.grid, plan.store / "landcover" / "c"
    ready = {tile for tile, (folder, _) in plan.kept.items() if folder == plan.staging}
    with product_error(f"{plan.staging}: cannot be written", *MALFORMED):
        _remove_all_but(plan.staging, {chunks / f"{row}" / f"{col}" for t in ready for row, col in grid.shards_of(t)})
        _create(plan)
        for tile in plan.kept.keys() - ready:
            source = plan.kept[tile][0] / LAYER_STORE / "landcover" / "c"
            for row, col in grid.shards_of(tile):
                link_or_copy(source / str(row) / str(col), chunks / str(row) / str(col))


def _remove_all_but(folder: Path, kept: Collection[Path]) -> None:
    """Removes what a killed call left. Shards that are not kept may be links to files of other editions."""
    for parent, folders, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            if path not in kept:
                path.unlink()
        for path in (Path(parent, name) for name in folders):
            if not any(path.iterdir()):
                path.rmdir()


def _create(plan: LayerPlan) -> None:
    """Creates the layer's Zarr with everything but its shards."""
    grid, path = plan.edition.grid, plan.store
    frame = Frame(grid.extent, grid.crs)
    root = zarr.create_group(NewStore(path), zarr_format=3, attributes=_attributes(plan) | frame.attributes)
    root.create_array(
        "landcover",
        shape=grid.extent.shape,
        shards=(grid.shard, grid.shard),
        chunks=(grid.chunk, grid.chunk),
        dtype="uint8",
        fill_value=legend.NODATA,
        compressors=[ZSTD],
        dimension_names=("y", "x"),
        attributes=PLACE | flags_of("landcover") | {"long_name": "generalised land cover"},
    )
    create_frame(root, path, frame, linked_from=plan.edition.store)
    consolidate(path)
    for row in sorted({index[0] for index in plan.edition.digests}):
        (path / "landcover" / "c" / str(row)).mkdir(parents=True, exist_ok=True)
    (plan.edition.path / PARTS).mkdir(exist_ok=True)


def _attributes(plan: LayerPlan) -> dict[str, Any]:
    given = read_json(plan.edition.store / "zarr.json").get("attributes", {})
    return {
        **{key: given[key] for key in ("Conventions", "source", "references", "license", "domains") if key in given},
        "title": "Land cover at 0.20 m, generalised",
        "minimum_pixels": pixels_of(plan.units),
        "generalised_version": GENERALISED_VERSION,
    }


def write_part(plan: LayerPlan, index: GridIndex, tile: GeneralisedTile) -> None:
    """Records a tile whose shards are written and synced, so that a later call need not make it again.

    Raises:
        StorageError: it cannot be written.
    """
    content = {"version": GENERALISED_VERSION, "units": pixels_of(plan.units), "tile": asdict(tile)}
    write_json(plan.edition.path / PARTS / f"{index[0]}-{index[1]}.json", content)


def finish_layer(plan: LayerPlan, made: Mapping[GridIndex, GeneralisedTile]) -> None:
    """Writes record and manifest, and gives the layer its name. A reader sees the former one, none for a moment, this.

    Args:
        plan: the plan that `begin_layer` took.
        made: the tiles that were written.

    Raises:
        ProductError: it cannot be written. The former layer stays.
        StorageError: the record cannot be written.
    """
    tiles = {tile: kept for tile, (_, kept) in plan.kept.items()} | dict(made)
    content = {
        "version": GENERALISED_VERSION,
        "units": pixels_of(plan.units),
        "tiles": {f"{r}/{c}": asdict(tile) for (r, c), tile in sorted(tiles.items())},
    }
    final, replaced = plan.edition.path / GENERALISED_FOLDER, plan.edition.path / REPLACED
    with product_error(f"{plan.staging}: cannot be finished"):
        write_json(plan.staging / LAYER_RECORD, {"fingerprint": digest(content), **content}, indent=None)
        sync_tree(plan.staging)
        write_manifest(plan.staging, files_below(plan.staging))
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            final.rename(replaced)
        plan.staging.rename(final)
        sync(plan.edition.path)


def remove_unfinished(plan: LayerPlan) -> None:
    """Removes what is left beside the finished layer."""
    for name in (PARTS, STAGING, REPLACED):
        if is_own(plan.edition.path / name, kind="folder"):
            shutil.rmtree(plan.edition.path / name)
