"""The Zarr beside level 0: coarser levels, and class counts in cells of 100 m.

::

    <edition>/pyramid.zarr/0        → ../product.zarr, for readers of former versions; see `edition_root`
    <edition>/pyramid.zarr/1 … 4    `landcover`, `confidence` (y, x) at 1, 2, 10 and 50 m
    <edition>/pyramid.zarr/5 … 7    the same at 250 m, 1 km and 5 km
    <edition>/pyramid.zarr/shares   `count` (class, y, x): pixels of each class in cells of 100 m

Each level is counted from level 0. A tile's part of an array is one file; at levels 5 to 7, a file has many tiles.
Levels whose cells do not divide the tile are left out.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from pipeline import legend
from pipeline.durable import link_or_copy
from pipeline.errors import product_error
from pipeline.legend import LAYERS, Layer
from pipeline.products.national.edition_record import REPAIR, Edition
from pipeline.products.national.grid import GridIndex, NationalGrid, lost_files, present_files
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.pyramid.levels import SHARES, groups, overview_groups, pyramid_of
from pipeline.products.national.pyramid.overviews import CHUNK, any_overview, lost_overviews
from pipeline.products.national.zarr_metadata import (
    COORDINATES,
    PLACE_OF_ALL,
    Frame,
    conventions,
    create_frame,
    lost_coordinates,
)
from pipeline.products.national.zarr_store import PLACE, ZSTD, NewStore, consolidate, flags_of, metadata_problems
from pipeline.untrusted.documents import Document, DocumentError, read_model

PYRAMID_VERSION = 2
"""Raised by hand, with `EXTRAS_VERSION`, when the same level 0 gives other bytes: all are then written again."""


class _Attributes(Document):
    pyramid_version: int


class _Root(Document):
    attributes: _Attributes


def _arrays(grid: NationalGrid, layers: Sequence[Layer] = LAYERS) -> Iterator[Path]:
    """Folders below the pyramid with a file `<row>/<column>` for each tile."""
    for group in groups(grid, layers):
        if group == SHARES:
            yield Path(group, "count", "c", "0")
        else:
            yield from (Path(group, layer, "c") for layer in layers)


def begin_pyramid(
    target: Target,
    *,
    former: Path | None,
    tiles: Iterable[GridIndex],
    changed: Iterable[GridIndex],
    damaged: Collection[str] = (),
) -> tuple[GridIndex, ...]:
    """Creates the pyramid of a new edition: metadata, and links to the files of unchanged tiles.

    Args:
        target: the edition, with a complete level 0.
        former: folder of an edition on the same grid; None if there is none.
        tiles: all tiles that the edition covers.
        changed: those whose level 0 differs from `former`.
        damaged: paths of files of `former` that are not linked.

    Returns:
        The tiles that `write_tile` must write.

    Raises:
        ProductError: it cannot be written.
    """
    path, grid = pyramid_of(target.store.parent), target.grid
    wanted, arrays = set(tiles), tuple(_arrays(grid, target.layers))
    parent = None if any_overview(damaged) else linkable(former, grid, target.layers)
    there = [present_files(parent / array) for array in arrays] if parent else [set()]
    same = (wanted - set(changed)).intersection(*there)
    same -= {(r, c) for r, c in same if any(f"{path.name}/{a}/{r}/{c}" in damaged for a in arrays)}
    with product_error(f"{path}: cannot be written"):
        _create(path, target, None if any(COORDINATES.search(name) for name in damaged) else parent)
        for array in arrays:
            for row in {tile[0] for tile in wanted}:
                (path / array / str(row)).mkdir(parents=True)
            if parent is not None:
                for row, col in same:
                    link_or_copy(parent / array / str(row) / str(col), path / array / str(row) / str(col))
    return tuple(sorted(wanted - same))


def linkable(former: Path | None, grid: NationalGrid, layers: Sequence[Layer] = LAYERS) -> Path | None:
    """The pyramid of a former edition, if its files can be linked."""
    path = former and pyramid_of(former)
    if path is None or _version(path) != PYRAMID_VERSION or lost_parts(path, grid, (), layers):
        return None
    return path


def _version(path: Path) -> int | None:
    """The pyramid's version; None where there is no pyramid of ours."""
    try:
        return read_model(_Root, path / "zarr.json").attributes.pyramid_version
    except (FileNotFoundError, DocumentError):
        return None


def _create(path: Path, target: Target, linked_from: Path | None) -> None:
    whole = target.layers == LAYERS
    root = zarr.create_group(NewStore(path), zarr_format=3, attributes=_root_attributes(target.grid, shares=whole))
    if whole:
        (path / "0").symlink_to(Path("..", target.store.name))
    coarsest = overview_groups(target.grid)
    for name, frame in (groups(target.grid, target.layers) | coarsest).items():
        group = root.create_group(name, attributes={"Conventions": "CF-1.11"} | frame.attributes)
        side = target.grid.tile // frame.factor
        if name == SHARES:
            _create_counts(group, frame, side)
        elif name in coarsest:
            _create_level(group, frame, target.layers, side=CHUNK, chunk=CHUNK)
        else:
            _create_level(group, frame, target.layers, side=side, chunk=gcd(side, target.grid.chunk))
        create_frame(group, path / name, frame, linked_from=None if linked_from is None else linked_from / name)
    consolidate(path)


def _root_attributes(grid: NationalGrid, *, shares: bool) -> dict[str, Any]:
    of_all = Frame(grid.extent, grid.crs).attributes
    return {
        "zarr_conventions": conventions(("proj", "spatial")),
        **{key: of_all[key] for key in PLACE_OF_ALL},
        "title": "Land cover in levels" + (", and class shares in cells of 100 m" if shares else ""),
        "pyramid_version": PYRAMID_VERSION,
    }


def _create_level(group: Any, frame: Frame, layers: Sequence[Layer], *, side: int, chunk: int) -> None:
    methods = {
        "landcover": "area: mode (comment: counted from level 0, the lowest value of several)",
        "confidence": "area: mean (comment: of level 0's pixels with data, halves up)",
    }
    for layer in layers:
        group.create_array(
            layer,
            shape=frame.geobox.shape,
            # Plain chunks where a shard would have only one, because more readers know them.
            shards=(side, side) if chunk < side else None,
            chunks=(chunk, chunk),
            dtype="uint8",
            fill_value=legend.NODATA,
            compressors=[ZSTD],
            dimension_names=("y", "x"),
            attributes=PLACE | flags_of(layer) | {"cell_methods": methods[layer]},
        )


def _create_counts(group: Any, frame: Frame, side: int) -> None:
    flags = flags_of("landcover")
    group.create_array(
        "count",
        shape=(CLASSES, *frame.geobox.shape),
        chunks=(CLASSES, side, side),
        dtype="uint32",
        fill_value=0,
        compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=4)],
        dimension_names=("class", "y", "x"),
        attributes={
            "long_name": "pixels of 0.20 m of each class in the cell; all 0 where no tile was delivered",
            "units": "1",
            "cell_methods": "area: sum",
            "pixels_per_cell": frame.factor**2,
            **PLACE,
        },
    )
    group.create_array(
        "class",
        data=np.arange(CLASSES, dtype=np.uint8),
        chunks=(CLASSES,),
        fill_value=legend.NODATA,
        dimension_names=("class",),
        attributes={key: flags[key] for key in ("long_name", "flag_values", "flag_meanings")},
    )


def lost_parts(
    path: Path, grid: NationalGrid, tiles: Iterable[GridIndex], layers: Sequence[Layer] = LAYERS
) -> list[str]:
    """Problems: lost files of a pyramid. Empty if there are none. Zarr itself reads a lost file as no data.

    Args:
        path: the pyramid.
        grid: of its edition.
        tiles: that it must have.
        layers: that it has.
    """
    if (version := _version(path)) is None:
        return [f"{path / 'zarr.json'}: is missing or damaged; publish again to write it"]
    levels = all_groups(path, grid, layers)
    problems = [p for name, frame in levels.items() for p in lost_coordinates(path / name, frame)]
    problems += lost_overviews(path, grid, layers) if version > 1 else []
    return problems + lost_files((path / array for array in _arrays(grid, layers)), tiles)


def all_groups(path: Path, grid: NationalGrid, layers: Sequence[Layer] = LAYERS) -> dict[str, Frame]:
    """The groups of a pyramid besides level 0. Version 1 had none of the coarsest."""
    return groups(grid, layers) | (overview_groups(grid) if _version(path) != 1 else {})


def check_pyramid(edition: Edition) -> list[str]:
    """Problems: files of an edition's levels and shares that are lost. Empty if there are none."""
    path, grid = pyramid_of(edition.path), edition.grid
    whole = lost_parts(path, grid, ()) or metadata_problems(edition, path)
    return whole or link_problems(edition.path) or lost_parts(path, grid, grid.tiles_of(edition.digests))


def link_problems(folder: Path) -> list[str]:
    """Problems of the link from an edition's levels to its level 0, which is in no manifest."""
    link, expected = pyramid_of(folder) / "0", Path("..", "product.zarr")
    if not link.parent.is_dir():
        return []
    if link.readlink() == expected if link.is_symlink() else link.is_dir():
        return []
    return [f"{link}: expected a link to {expected}; {REPAIR}"]
