"""The polygons of a class raster, made in cells and blocks of any size, in any order."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import shapely
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.products.vectors.coverage.blocks import Block, Finished, cell_block, merge

Raster = NDArray[np.uint8]


class Coverage(NamedTuple):
    """Polygons in order of their first pixels."""

    polygons: NDArray[np.object_]
    """In pixels: x to the east, y to the north."""
    classes: NDArray[np.int64]
    first: NDArray[np.int64]

    def same(self, other: "Coverage") -> bool:
        """Whether bytes and values are equal."""
        wkb = [shapely.to_wkb(c.polygons).tolist() for c in (self, other)]
        return wkb[0] == wkb[1] and all(np.array_equal(a, b) for a, b in zip(self[1:], other[1:], strict=True))


def coverage_of(
    classes: Raster,
    *,
    cell: int,
    across: int = 1,
    tolerance: float = 0,
    corner: tuple[int, int] = (0, 0),
    shuffle: Callable[[list[tuple[int, int]]], Iterable[tuple[int, int]]] = sorted,
) -> Coverage:
    """Vectorizes a raster.

    Args:
        classes: (y, x), 0 for no data.
        cell: side of a cell.
        across: cells on a side of a block of the lowest level.
        tolerance: in pixels.
        corner: pixel of the lattice where the raster begins; cells begin at multiples of their side.
        shuffle: the order of the cells.
    """
    row, col = corner[0] // cell * cell, corner[1] // cell * cell
    lead = corner[0] - row, corner[1] - col
    reach = max(start + side + 1 for start, side in zip(lead, classes.shape, strict=True))
    whole = cell * across
    while whole < reach:
        whole *= 2
    padded = np.zeros((whole + 2, whole + 2), np.uint8)
    padded[1 + lead[0] :, 1 + lead[1] :][: classes.shape[0], : classes.shape[1]] = classes
    finished: list[Finished] = []
    blocks: dict[tuple[int, int], Block] = {}
    for i, j in shuffle([(i, j) for i in range(whole // cell) for j in range(whole // cell)]):
        window = padded[i * cell : (i + 1) * cell + 2, j * cell : (j + 1) * cell + 2]
        if window.any():
            ones = np.ones((cell, cell), np.uint8)
            place = (row + i * cell, col + j * cell)
            block = cell_block(window, ones, ones.astype(np.uint16), corner=place, tolerance=tolerance)
            done, blocks[i, j] = merge({(0, 0): block}, across=1)
            finished.append(done)
    size, number = across, whole // cell
    while number > 1 or size > 1:
        groups: dict[tuple[int, int], dict[tuple[int, int], Block]] = {}
        for (i, j), block in blocks.items():
            groups.setdefault((i // size, j // size), {})[i % size, j % size] = block
        merged = {place: merge(parts, across=size) for place, parts in groups.items()}
        finished += [done for done, _ in merged.values()]
        blocks = {place: block for place, (_, block) in merged.items()}
        number, size = number // size, 2 if number // size > 1 else 1
    assert all(not len(block.classes) for block in blocks.values())
    polygons = np.concatenate([f.rings.polygons() for f in finished] or [np.empty(0, object)])
    polygons = shapely.transform(polygons, lambda places: np.rint(places * 5))
    values, first = (
        np.concatenate([getattr(f, name) for f in finished] or [np.empty(0, int)]) for name in ("classes", "first")
    )
    order = np.argsort(first)
    return Coverage(polygons[order], values[order], first[order])


@st.composite
def rasters(draw: st.DrawFn, *, most: int = 28) -> Raster:
    """Class rasters from pure noise to large patches, with holes of no data."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = ndimage.gaussian_filter(random.normal(size=(height, width)), draw(st.sampled_from([0, 0.7, 1.5, 3])))
    levels = np.quantile(noise, np.linspace(0, 1, draw(st.integers(2, 6)))[1:-1])
    return (np.digitize(noise, levels) + draw(st.sampled_from([0, 1]))).astype(np.uint8)
