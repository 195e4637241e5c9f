"""The Zarr group that an edition's folder is: its `zarr.json` describes level 0 and all other levels as one tree.

::

    <edition>/zarr.json        attributes `multiscales`, `proj:…`, `spatial:…`; consolidated metadata of all below
    <edition>/product.zarr     level 0
    <edition>/pyramid.zarr/1 … the other levels

All addresses in it are real folders, because a bucket has no symbolic links. The two stores stay complete on their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.durable import write_json
from pipeline.errors import product_error
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.pyramid.levels import SHARES, groups, overview_groups, pyramid_of
from pipeline.products.national.zarr_metadata import PLACE_OF_ALL, Frame, conventions
from pipeline.products.national.zarr_store import flags_of
from pipeline.untrusted.documents import read_json


def level_paths(grid: NationalGrid, finest: str = "product.zarr") -> dict[str, Frame]:
    """Path of each level in the folder of an edition, or of its generalised map → its frame, from fine to coarse."""
    levels = {name: frame for name, frame in groups(grid).items() if name != SHARES} | overview_groups(grid)
    return {finest: Frame(grid.extent, grid.crs)} | {f"pyramid.zarr/{n}": f for n, f in levels.items()}


def write_root(store: Path, grid: NationalGrid) -> None:
    """Writes the `zarr.json` of the folder of an edition, or of its generalised map.

    Args:
        store: its level 0, complete, beside its complete pyramid.
        grid: of the edition.

    Raises:
        ProductError: the metadata of a store cannot be read.
    """
    edition, metadata = store.parent, {}
    for part in (store, pyramid_of(edition)):
        with product_error(f"{part / 'zarr.json'}: cannot be read", ValueError, KeyError, TypeError):
            root = read_json(part / "zarr.json")
            below = root.pop("consolidated_metadata")["metadata"]
        metadata[part.name] = root
        for name, node in sorted(below.items()):
            if part != store and name.split("/")[0] == "0":
                continue
            metadata[f"{part.name}/{name}"] = {k: v for k, v in node.items() if k != "consolidated_metadata"}
    write_json(
        edition / "zarr.json",
        {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": _attributes(level_paths(grid, store.name)),
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
        },
    )


def _attributes(levels: Mapping[str, Frame]) -> dict[str, Any]:
    """With `multiscales`: each level is derived from level 0 and has its own transform."""
    finest = next(iter(levels))
    layout = []
    for path, frame in levels.items():
        scale, own = float(frame.factor), frame.attributes
        derived = {} if path == finest else {"derived_from": finest, "resampling_method": "mode"}
        transform = {"scale": [scale, scale], "translation": [0.0, 0.0]}
        place = {key: own[key] for key in ("spatial:shape", "spatial:transform")}
        layout.append({"asset": path, **derived, "transform": transform, **place})
    of_all = levels[finest].attributes
    flags = flags_of("landcover")
    return {
        "zarr_conventions": conventions(("multiscales", "proj", "spatial")),
        "multiscales": {"layout": layout, "resampling_method": "mode"},
        **{key: of_all[key] for key in PLACE_OF_ALL},
        "title": "Land cover in levels",
        **{key: flags[key] for key in ("flag_values", "flag_meanings", "flag_colors")},
    }
