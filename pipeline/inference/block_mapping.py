"""Maps images block by block: each block reads its cores and their halo from the source, so blocks are independent.

A block is one task and gives one stacked array (layer, y, x).
"""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from dask import annotate
from dask.base import normalize_token, tokenize
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ConfigError
from pipeline.grid import Window, union
from pipeline.halo import Layout
from pipeline.inference.array_source import ArraySource
from pipeline.inference.engine import BATCH_PIXELS, PLANES, TORCH, Engine
from pipeline.inference.predictor import Predictor, ScoringPredictor, predictor_for
from pipeline.legend import LAYERS, OptionalLayer, planes_of
from pipeline.model import Ensemble, Model
from pipeline.model.reference_features import ReferenceFeatures, ReferenceFile
from pipeline.sources.reading.raster import Pixels, Source

if TYPE_CHECKING:
    # Imported where arrays are made: it imports pandas and xarray, and a worker that maps blocks needs neither.
    import dask.array as da


@dataclass(frozen=True, eq=False)
class Method:
    """How an image is mapped: the network, its windows, and the engine that runs it."""

    model: Model | Ensemble
    layout: Layout
    block: int
    """Side of a block in pixels; a block is one chunk and one task."""
    engine: Engine = TORCH
    layers: tuple[OptionalLayer, ...] = ()
    """Optional layers, whose planes follow after those of `LAYERS`."""
    reference: ReferenceFile | None = None
    """Of the training imagery, for the novelty score; no byte of the layers depends on it."""

    def __post_init__(self) -> None:
        if self.block % self.layout.core:
            raise ConfigError(f"core {self.layout.core} px must divide the block {self.block} px")

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Dask's token, made of everything that a map depends on."""
        own = ("landcover-method", normalize_token(self.model), self.layout, self.block, self.engine, self.layers)
        return (*own, self.reference.sha256) if self.reference else own

    @property
    def planes(self) -> int:
        """Planes of the stack: those of `LAYERS`, and those of the optional layers."""
        return len(LAYERS) + planes_of(self.layers, self.model.recipe.live)

    def map_and_count(self, source: Source, block: Window) -> "MappedPixels":
        """Maps one block with the predictor that this process keeps."""
        predictor = predictor_for(self.model, self.engine, layers=self.layers, features=self.reference is not None)
        reference = self.reference.load() if self.reference else None
        return map_and_count(
            source, block, layout=self.layout, predictor=predictor, planes=self.planes, reference=reference
        )


def predict_stack(source: Source, method: Method, *, window: Window, whole: bool = False) -> "da.Array":
    """Maps a window of a source lazily.

    Args:
        source: the image. Halos are read outside `window` too, and reflected beyond the source's edge.
        method: the network and its windows.
        window: the part to map, inside `source.window`; blocks start at its north-west corner.
        whole: whether a block of the array is a `MappedPixels` instead of the layers in it.

    Returns:
        Dask array (layer, y, x), uint8, with the planes of `LAYERS` and of the method's optional layers, and one chunk
        for each block.
    """
    import dask.array as da

    chunks = da.core.normalize_chunks((method.planes, method.block, method.block), (method.planes, *window.shape))
    given = {"source": source, "method": method, "window": window, "whole": whole}
    name = f"predict-{tokenize(*given.values())}"
    stack: da.Array = da.map_blocks(_map_at, **given, chunks=chunks, dtype=np.uint8, meta=_META, name=name)
    return stack


_META = np.empty((0, 0, 0), np.uint8)


def map_block(source: Source, block: Window, *, layout: Layout, predictor: Predictor) -> NDArray[np.uint8]:
    """The layers of `map_and_count`: uint8 (layer, y, x)."""
    return map_and_count(source, block, layout=layout, predictor=predictor).layers


@dataclass(frozen=True, eq=False)
class MappedPixels:
    """A mapped block or tile."""

    layers: NDArray[np.uint8]
    """uint8 (layer, y, x): `LAYERS`, then the planes of optional layers; 0 in all where the source has nodata."""
    switched_off: int | None
    """Pixels with data where a logit that is switched off is greater than all live ones. None where the engine does not
    tell: a network that an older version quantized."""
    novelty: NDArray[np.float64] | None = None
    """float64 (square,): novelty of its squares, see `reference_features`; None without a reference."""


def map_and_count(
    source: Source,
    block: Window,
    *,
    layout: Layout,
    predictor: Predictor,
    planes: int = len(LAYERS),
    reference: ReferenceFeatures | None = None,
) -> MappedPixels:
    """Maps one block: reads it once with its halo, maps its windows, and drops the halo.

    Args:
        source: the image; beyond its edge it is reflected.
        block: inside `source.window`.
        layout: cuts the block into windows.
        predictor: the engine.
        planes: of the stack: more than `LAYERS` has where the engine makes optional layers too.
        reference: of the training imagery, for the novelty score.
    """
    out = np.zeros((planes, *block.shape), np.uint8)
    read = layout.read_of_block(block)
    pixels = read_reflected(source, read)
    inside = pixels.valid[block.slices_in(read)]
    # A window needs no forward if its core is all nodata.
    jobs = [w for w in layout.windows_of(block) if pixels.valid[w[0].slices_in(read)].any()]
    scored = None if reference is None else ScoringPredictor(predictor, reference)
    how = scored or predictor
    counts = [_map_batch(b, pixels, read=read, block=block, out=out, predictor=how) for b in _batches(jobs)]
    if not inside.all():
        out[:, ~inside] = legend.NODATA
    _give_back_memory()
    return MappedPixels(out, _total(counts), scored.novelty if scored else None)


def _give_back_memory() -> None:
    """Returns free pages between what is in use to the system, where the C library can (glibc).

    Blocks of an image are decoded into parts of all sizes, and gaps between those that stay would add up to 300 MB in
    a worker. It takes some milliseconds.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one of them is not known."""
    known = list(counts)
    return None if None in known else sum(n for n in known if n is not None)


def read_reflected(source: Source, window: Window) -> Pixels:
    """Reads a window that may extend beyond the source, where the image is reflected about its edge pixels.

    As in `numpy.pad(mode="reflect")`, the edge pixel is not repeated, and a narrow image is reflected several times.

    Args:
        source: the image.
        window: overlaps the source.
    """
    read = _read_inside(source.window, window)
    if source.window.contains(window):
        return source.read(read)
    whole = union([read, window])
    pixels = source.read(read, within=whole)
    high, wide = read.slices_in(whole)
    rows = _reflected(whole.row, whole.bottom, source.window.row, source.window.bottom) - whole.row
    cols = _reflected(whole.col, whole.right, source.window.col, source.window.right) - whole.col
    # In place and only in the strips beyond the edge: copying all pixels would take a tenth of their decoding time.
    for array in (*pixels.bands, pixels.valid):
        for strip in (slice(0, high.start), slice(high.stop, None)):
            array[strip] = array[rows[strip]]
        for strip in (slice(0, wide.start), slice(wide.stop, None)):
            array[:, strip] = array[:, cols[strip]]
    return pixels.part(window, of=whole)


def _read_inside(extent: Window, window: Window) -> Window:
    """The part of a source that a window shows, reflected beyond the source's `extent`."""
    rows = _reflected(window.row, window.bottom, extent.row, extent.bottom)
    cols = _reflected(window.col, window.right, extent.col, extent.right)
    return Window.from_edges(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)


def reads_of(extent: Window, blocks: Iterable[Window], *, layout: Layout) -> list[Window]:
    """The windows that mapping some blocks reads from a source, one for each block.

    Args:
        extent: of the source.
        blocks: inside of it.
        layout: cuts a block into windows.
    """
    return [_read_inside(extent, layout.read_of_block(block)) for block in blocks]


def _reflected(start: int, stop: int, low: int, high: int) -> NDArray[np.int64]:
    """Positions start..stop reflected into [low, high)."""
    last = high - low - 1
    if last == 0:
        return np.full(stop - start, low)
    folded = (np.arange(start, stop) - low) % (2 * last)
    return low + np.where(folded > last, 2 * last - folded, folded)


def _batches(jobs: Sequence[tuple[Window, Window]]) -> list[list[tuple[Window, Window]]]:
    """Groups pairs (core, read) into batches of one read shape, of at most `BATCH_PIXELS` or a single window."""
    batches: list[list[tuple[Window, Window]]] = []
    for shape in dict.fromkeys(read.shape for _, read in jobs):
        alike = [job for job in jobs if job[1].shape == shape]
        size = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
        batches += [alike[i : i + size] for i in range(0, len(alike), size)]
    return batches


def _map_batch(
    batch: list[tuple[Window, Window]],
    pixels: Pixels,
    *,
    read: Window,
    block: Window,
    out: NDArray[np.uint8],
    predictor: Predictor,
) -> int | None:
    """Maps windows of one shape and writes their cores into `out`, (layer, y, x) of the block.

    Returns:
        The valid pixels of the cores where a logit that is switched off would have won; None where it is not known.
    """
    places = [window.slices_in(read) for _, window in batch]
    if len(places) == 1:
        # A view is enough, because the engine copies a large window anyway.
        images, valid = pixels.bands[None, :, *places[0]], pixels.valid[None, *places[0]]
    else:
        images = np.stack([pixels.bands[:, rows, cols] for rows, cols in places])
        valid = np.stack([pixels.valid[rows, cols] for rows, cols in places])
    mapped = predictor(images, valid)
    counts: list[int | None] = []
    for at, ((core, window), planes, data) in enumerate(zip(batch, mapped, valid, strict=True)):
        kept = core.slices_in(window)
        if isinstance(predictor, ScoringPredictor):
            predictor.keep(at, data, kept)
        place = core.slices_in(block)
        out[(slice(len(LAYERS)), *place)] = planes[: len(LAYERS), *kept]
        out[(slice(len(LAYERS), None), *place)] = planes[PLANES:, *kept]
        counted = len(planes) >= PLANES
        counts.append(int(np.count_nonzero(planes[len(LAYERS), *kept] & data[kept])) if counted else None)
    return _total(counts)


def predict_tile(source: Source, method: Method, *, window: Window, turn: int = 0) -> Delayed:
    """Maps a window of a source lazily as `predict_stack` does, and counts: a delayed `MappedPixels`.

    Each block is one task, and one more puts them together.

    Args:
        source: the image.
        method: the network and its windows.
        window: the part to map.
        turn: its place among the windows that a cluster maps one after the other.
    """
    blocks, name = list(window.split(method.block)), tokenize(source, method, window)
    mapped = []
    for i, block in enumerate(blocks):
        # Row by row: in Dask's own order, which is none, more decoded pixels would wait for the blocks that need them.
        with annotate(priority=-(turn + i / len(blocks))):
            # Partial functions, because Dask would search arguments for collections, in every field of every dataclass.
            task = delayed(partial(_map_and_count_at, source, method, block))
            mapped.append(task(dask_key_name=f"predict-tile-{name}-{i}"))
    tile: Delayed = delayed(partial(_put_together, window, blocks))(mapped, dask_key_name=f"tile-{name}")
    return tile


def _map_and_count_at(source: Source, method: Method, block: Window) -> MappedPixels:
    return method.map_and_count(source, block)


def _put_together(window: Window, blocks: Sequence[Window], mapped: Sequence[MappedPixels]) -> MappedPixels:
    if len(mapped) == 1:
        return mapped[0]
    layers = np.empty((len(mapped[0].layers), *window.shape), np.uint8)
    for block, own in zip(blocks, mapped, strict=True):
        layers[(slice(None), *block.slices_in(window))] = own.layers
    scores = [own.novelty for own in mapped if own.novelty is not None]
    novelty = np.concatenate(scores) if scores else None
    return MappedPixels(layers, _total(own.switched_off for own in mapped), novelty)


def _map_at(
    *, source: Source, method: Method, window: Window, whole: bool, block_id: tuple[int, int, int]
) -> "NDArray[np.uint8] | MappedPixels":
    """The task of one block, which finds the block by its position in the Dask array."""
    row, col = window.row + block_id[1] * method.block, window.col + block_id[2] * method.block
    mapped = method.map_and_count(source, Window(row, col, method.block, method.block).intersect(window))
    return mapped if whole else mapped.layers


def predict_overlapped(pixels: "da.Array", valid: "da.Array", method: Method, *, whole: bool = False) -> "da.Array":
    """Maps a Dask array with `dask.array.overlap`, deep enough for the widest read of any block.

    Args:
        pixels: uint8 (band, y, x).
        valid: bool (y, x): True = data.
        method: the network and its windows.
        whole: see `predict_stack`.
    """
    import dask.array as da

    window = Window(0, 0, *pixels.shape[1:])
    # A last block narrower than the halo cannot give it to its neighbour, so Dask's helper merges it here.
    reach = method.layout.reach + method.layout.stride
    depth = {0: 0, 1: min(reach, window.height), 2: min(reach, window.width)}
    _, *blocks = da.core.normalize_chunks((len(pixels), method.block, method.block), pixels.shape)
    rows, cols = (da.overlap.ensure_minimum_chunksize(depth[axis], blocks[axis - 1]) for axis in (1, 2))
    row_edges, col_edges = np.cumsum((0, *rows)), np.cumsum((0, *cols))
    both = da.concatenate([pixels, valid[None].astype(np.uint8)])
    overlapped = da.overlap.overlap(both.rechunk((len(pixels) + 1, rows, cols)), depth=depth, boundary="none")

    def mapped(part: NDArray[np.uint8], block_id: tuple[int, int, int]) -> NDArray[np.uint8] | MappedPixels:
        _, i, j = block_id
        at = Window.from_edges(int(row_edges[i]), int(col_edges[j]), int(row_edges[i + 1]), int(col_edges[j + 1]))
        with_halo = at.grow(depth[1], depth[2]).intersect(window)
        found = method.map_and_count(ArraySource(part[:-1], part[-1].astype(np.bool_), with_halo, window), at)
        return found if whole else found.layers

    stack: da.Array = overlapped.map_blocks(mapped, chunks=((method.planes,), rows, cols), dtype=np.uint8, meta=_META)
    return stack
