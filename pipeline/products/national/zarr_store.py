"""The national store: plain Zarr v3 that xarray, rioxarray and odc-geo open, written, read by windows and checked.

Arrays `landcover`, `confidence` (uint8) and `domain` (uint16) of dimensions (y, x), sharded; `x` and `y`
are pixel centres in metres; `spatial_ref` has the CRS; `coverage` (tile_y, tile_x) has the state of each tile, and so
which shards must exist.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from pipeline import legend
from pipeline.errors import MALFORMED, ProductError, product_error
from pipeline.fingerprint import PRODUCT_VERSION
from pipeline.grid import Window
from pipeline.products.manifest import files_below
from pipeline.products.national.edition_record import OUTSIDE, REPAIR, STORE_LAYERS, Edition, damaged_files
from pipeline.products.national.grid import GridIndex, NationalGrid, lost_files
from pipeline.products.national.zarr_metadata import Frame, count_chunks, create_frame, lost_coordinates
from pipeline.untrusted.documents import Document, DocumentError, read_model

ZSTD = ZstdCodec(level=5, checksum=True)
"""On real maps and confidences, level 9 saves 4..8 % more in 2.4 times the time, and level 1 saves little time. By the
checksum, every reader notices a damaged chunk; chunks of older versions have none and are read as well."""
PLACE = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
"""Attributes that name the CRS's variable; by `coordinates`, plain xarray attaches it to each layer for rioxarray."""
_DTYPES = {"landcover": "uint8", "confidence": "uint8", "domain": "uint16"}


class NewStore(LocalStore):
    """A Zarr that one process creates. `LocalStore` makes some files by hard links, which not all file systems have."""

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Writes a file that does not exist yet."""
        if not await self.exists(key):
            await self.set(key, value)


def create_store(
    path: Path,
    grid: NationalGrid,
    *,
    domains: Sequence[Mapping[str, Any]],
    coverage: NDArray[np.uint8],
    coordinates_from: Path | None,
) -> None:
    """Creates a store with everything but its shards.

    Args:
        path: the Zarr to create; must not exist.
        grid: extent, tile, shard and chunk.
        domains: the table that explains the numbers of the `domain` layer.
        coverage: uint8 (tile_y, tile_x).
        coordinates_from: a store of the same grid, to whose coordinates this one links; None to write them.
    """
    frame = Frame(grid.extent, grid.crs)
    root = zarr.create_group(NewStore(path), zarr_format=3, attributes=_group_attributes(domains) | frame.attributes)
    for layer in STORE_LAYERS:
        root.create_array(
            layer,
            shape=grid.extent.shape,
            shards=(grid.shard, grid.shard),
            chunks=(grid.chunk, grid.chunk),
            dtype=_DTYPES[layer],
            fill_value=0,
            compressors=[ZSTD],
            dimension_names=("y", "x"),
            attributes=PLACE | flags_of(layer, domains),
        )
    create_frame(root, path, frame, linked_from=coordinates_from)
    root.create_array(
        "coverage",
        data=coverage,
        chunks=grid.tiles_shape,
        fill_value=OUTSIDE,
        dimension_names=("tile_y", "tile_x"),
        attributes={
            "long_name": "what the tiles of the national grid hold",
            "flag_values": [0, 1, 2, 3],
            "flag_meanings": "outside mapped failed missing",
        },
        config={"write_empty_chunks": True},
    )
    consolidate(path)


def consolidate(path: Path) -> None:
    """Consolidates the metadata of a store, so that opening it reads one file."""
    with warnings.catch_warnings():
        # Zarr warns that its version 3 does not specify consolidated metadata yet; xarray warns where they are missing.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path, zarr_format=3)


def _group_attributes(domains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Attributes of the root group: source, references and licence of all domains under CF's names, and their table."""

    def joined(key: str) -> str:
        return "; ".join(dict.fromkeys(str(d[key]) for d in domains if d.get(key)))

    given = {"source": joined("attribution"), "references": joined("citation"), "license": joined("licence")}
    return {
        "Conventions": "CF-1.11",
        "title": "Land cover at 0.20 m",
        **{key: value for key, value in given.items() if value},
        "product_version": PRODUCT_VERSION,
        "domains": [dict(d) for d in domains],
    }


def flags_of(layer: str, domains: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Names and flags of a layer, as attributes of its array; `domains` is the table of the `domain` layer only."""
    if layer == "landcover":
        return {
            "long_name": "land cover",
            "flag_values": [legend.NODATA, *(c.value for c in legend.FLAIR)],
            "flag_meanings": " ".join(["no_data", *(c.slug for c in legend.FLAIR)]),
            "flag_colors": " ".join(["#000000", *(c.colour for c in legend.FLAIR)]),
            "nodata": legend.NODATA,
        }
    if layer == "confidence":
        return {"long_name": "255 × probability of the class; 0 is no data", "nodata": 0}
    return {
        "long_name": "domain that owns the pixel; see the group's table `domains`",
        "flag_values": [0, *(int(d["code"]) for d in domains)],
        "flag_meanings": " ".join(["nobody", *(str(d["name"]) for d in domains)]),
        "nodata": 0,
    }


def write_layer(path: Path, layer: str, index: GridIndex, *, shard: int, pixels: NDArray[Any] | int) -> Path:
    """Writes one whole shard, also where all its pixels are 0; returns its file.

    Args:
        path: the Zarr.
        layer: one of `STORE_LAYERS`.
        index: (row, column) of the shard.
        shard: pixels a side.
        pixels: (y, x) of the layer's dtype, or one value for all.
    """
    array: Any = zarr.open_array(path / layer, mode="r+", zarr_format=3)
    rows, cols = (slice(i * shard, (i + 1) * shard) for i in index)
    array.with_config({"write_empty_chunks": True})[rows, cols] = pixels
    return path / layer / "c" / str(index[0]) / str(index[1])


def read_zarr(path: Path, window: Window) -> NDArray[Any]:
    """A window of a Zarr array (y, x), in its dtype; 0 where the window leaves the array.

    Args:
        path: of the array, such as `product.zarr/landcover`.
        window: pixels from the array's first one.

    Raises:
        ProductError: it cannot be opened or read.
    """
    with product_error(f"{path}: cannot be read; run `landcover verify`", *MALFORMED):
        array: Any = zarr.open_array(path, mode="r", zarr_format=3)
        inside = window.intersect(Window(0, 0, *array.shape))
        if inside == window:
            return np.asarray(array[window.slices])
        pixels: NDArray[Any] = np.zeros(window.shape, array.dtype)
        if inside.pixels:
            pixels[inside.slices_in(window)] = array[inside.slices]
        return pixels


def check_shards(edition: Edition, *, crs: str | None = None) -> list[str]:
    """Problems: files of an edition's store that coverage or record list and that are lost. Empty if there are none.

    Zarr itself reads a lost file as no data.

    Args:
        edition: finished.
        crs: `EPSG:…` of the expected lattice; None to accept any.
    """
    if crs is not None and edition.grid.crs != crs:
        return [f"{edition.store}: is in {edition.grid.crs}, expected {crs}; publish again"]
    if problems := metadata_problems(edition, edition.store):
        return problems
    problems = lost_coordinates(edition.store, Frame(edition.grid.extent, edition.grid.crs))
    if not count_chunks(edition.store / "coverage"):
        problems.append(f"{edition.store / 'coverage'}: 0 of 1 chunks are there")
    if problems:
        return problems
    try:
        coverage = read_zarr(edition.store / "coverage", Window(0, 0, *edition.grid.tiles_shape))
    except ProductError as error:
        return [str(error)]
    tiles = [(int(i), int(j)) for i, j in np.argwhere(coverage != OUTSIDE)]
    promised = {shard for tile in tiles for shard in edition.grid.shards_of(tile)} | edition.digests.keys()
    return lost_files((edition.store / layer / "c" for layer in STORE_LAYERS), promised)


class _ChunkShape(Document):
    chunk_shape: tuple[int, ...]


class _ChunkGrid(Document):
    name: Literal["regular"]
    configuration: _ChunkShape


class _ZarrNode(Document):
    """What zarr needs of a `zarr.json`; editions of older versions have no manifest that shows more."""

    zarr_format: Literal[3]
    node_type: Literal["group", "array"]
    attributes: dict[str, Any] = Field(default={})
    shape: tuple[Annotated[int, Field(ge=0, le=1 << 32)], ...] = ()
    data_type: Literal["uint8", "uint16", "uint32", "int64", "float64"] | None = None
    chunk_grid: _ChunkGrid | None = None
    codecs: tuple[dict[str, Any], ...] = ()


def metadata_problems(edition: Edition, store: Path) -> list[str]:
    """Problems of the `zarr.json` of a store and of its arrays, found before zarr opens them."""
    problems = damaged_files(edition, read_all=True, below=rf"^(edition\.json|{store.name}/(.*/)?zarr\.json)$")
    for path in () if edition.manifest else (store / name for name in files_below(store) if name.endswith("zarr.json")):
        try:
            read_model(_ZarrNode, path)
        except (FileNotFoundError, DocumentError) as error:
            problems[path.relative_to(edition.path).as_posix()] = str(error)
    return [f"{edition.path / name}: {problem}; {REPAIR}" for name, problem in sorted(problems.items())]


def check_whole(edition: Edition) -> None:
    """Raises ProductError if `check_shards` finds a problem."""
    refuse(edition, check_shards(edition))


def refuse(edition: Edition, problems: Sequence[str]) -> None:
    """Raises ProductError with the first problems, if there are any."""
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ProductError(f"{edition.path} is not complete: {shown}")
