"""The Zarr beside level 0: coarser levels, and class counts in cells of 100 m.

::

    <edition>/pyramid.zarr          attributes `multiscales`: a tree for `xarray.open_datatree`
    <edition>/pyramid.zarr/0        → ../product.zarr
    <edition>/pyramid.zarr/1 … 4    `landcover`, `confidence` (y, x) at 1, 2, 10 and 50 m
    <edition>/pyramid.zarr/shares   `count` (class, y, x): pixels of each class in cells of 100 m

Each level is counted from level 0, and a tile's part of each array is one file. Levels whose cells do not divide the
tile are left out.
"""

from collections.abc import Collection, Iterable, Iterator
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from pipeline import legend
from pipeline.durable import link_or_copy
from pipeline.errors import product_error
from pipeline.products.national.edition_record import REPAIR, Edition
from pipeline.products.national.grid import GridIndex, NationalGrid, lost_files, present_files
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.pyramid.levels import SHARES, groups, pyramid_of
from pipeline.products.national.zarr_metadata import COORDINATES, Frame, conventions, create_frame, lost_coordinates
from pipeline.products.national.zarr_store import PLACE, ZSTD, NewStore, consolidate, flags_of, metadata_problems
from pipeline.untrusted.documents import Document, DocumentError, read_model

PYRAMID_VERSION = 1
"""Raised by hand, with `EXTRAS_VERSION`, when the same level 0 gives other bytes: all are then written again."""


class _Attributes(Document):
    pyramid_version: int


class _Root(Document):
    attributes: _Attributes


def _arrays(grid: NationalGrid) -> Iterator[Path]:
    """Folders below the pyramid with a file `<row>/<column>` for each tile."""
    for group in groups(grid):
        if group == SHARES:
            yield Path(group, "count", "c", "0")
        else:
            yield from (Path(group, layer, "c") for layer in legend.LAYERS)


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
    wanted, parent = set(tiles), _usable(former, grid)
    there = [present_files(parent / array) for array in _arrays(grid)] if parent else [set()]
    same = (wanted - set(changed)).intersection(*there)
    same -= {(r, c) for r, c in same if any(f"{path.name}/{a}/{r}/{c}" in damaged for a in _arrays(grid))}
    with product_error(f"{path}: cannot be written"):
        _create(path, target, None if any(COORDINATES.search(name) for name in damaged) else parent)
        for array in _arrays(grid):
            for row in {tile[0] for tile in wanted}:
                (path / array / str(row)).mkdir(parents=True)
            if parent is not None:
                for row, col in same:
                    link_or_copy(parent / array / str(row) / str(col), path / array / str(row) / str(col))
    return tuple(sorted(wanted - same))


def _usable(former: Path | None, grid: NationalGrid) -> Path | None:
    """The pyramid of a former edition, if its files can be linked."""
    if former is None or _version(pyramid_of(former)) != PYRAMID_VERSION or lost_parts(pyramid_of(former), grid, ()):
        return None
    return pyramid_of(former)


def _version(path: Path) -> int | None:
    """The pyramid's version; None where there is no pyramid of ours."""
    try:
        return read_model(_Root, path / "zarr.json").attributes.pyramid_version
    except (FileNotFoundError, DocumentError):
        return None


def _create(path: Path, target: Target, linked_from: Path | None) -> None:
    root = zarr.create_group(NewStore(path), zarr_format=3, attributes=_root_attributes(target.grid))
    (path / "0").symlink_to(Path("..", target.store.name))
    for name, frame in groups(target.grid).items():
        group = root.create_group(name, attributes={"Conventions": "CF-1.11"} | frame.attributes)
        side = target.grid.tile // frame.factor
        if name == SHARES:
            _create_counts(group, frame, side)
        else:
            _create_level(group, frame, side=side, chunk=gcd(side, target.grid.chunk))
        create_frame(group, path / name, frame, linked_from=None if linked_from is None else linked_from / name)
    consolidate(path)


def _root_attributes(grid: NationalGrid) -> dict[str, Any]:
    """The root's attributes, with `multiscales`: each level is derived from level 0 and has its own transform."""
    frames = {"0": Frame(grid.extent, grid.crs)} | {n: f for n, f in groups(grid).items() if n != SHARES}
    layout = []
    for name, frame in frames.items():
        scale = float(frame.factor)
        derived = {"derived_from": "0", "resampling_method": "mode"} if name != "0" else {}
        own = frame.attributes
        place = {key: own[key] for key in ("spatial:shape", "spatial:transform")}
        transform = {"scale": [scale, scale], "translation": [0.0, 0.0]}
        layout.append({"asset": name, **derived, "transform": transform, **place})
    of_all = frames["0"].attributes
    return {
        "zarr_conventions": conventions(("multiscales", "proj", "spatial")),
        "multiscales": {"layout": layout, "resampling_method": "mode"},
        **{key: of_all[key] for key in ("proj:code", "spatial:dimensions", "spatial:bbox")},
        "title": "Land cover in levels, and class shares in cells of 100 m",
        "pyramid_version": PYRAMID_VERSION,
    }


def _create_level(group: Any, frame: Frame, *, side: int, chunk: int) -> None:
    methods = {
        "landcover": "area: mode (comment: counted from level 0, the lowest value of several)",
        "confidence": "area: mean (comment: of level 0's pixels with data, halves up)",
    }
    for layer in legend.LAYERS:
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


def lost_parts(path: Path, grid: NationalGrid, tiles: Iterable[GridIndex]) -> list[str]:
    """Problems: lost files of a pyramid. Empty if there are none. Zarr itself reads a lost file as no data.

    Args:
        path: the pyramid.
        grid: of its edition.
        tiles: that it must have.
    """
    if _version(path) is None:
        return [f"{path / 'zarr.json'}: is missing or damaged; publish again to write it"]
    problems = [p for name, frame in groups(grid).items() for p in lost_coordinates(path / name, frame)]
    return problems + lost_files((path / array for array in _arrays(grid)), tiles)


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
