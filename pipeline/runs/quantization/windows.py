"""Draws windows to quantize with, and others to compare on, spread over domains, tiles and classes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.config import Campaign, Recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.fingerprint import digest
from pipeline.grid import Tile, Window
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.model import Model
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import Pixels

_SIDE = 512
"""Pixels a side of a window: the size that FLAIR's networks were trained on."""
_LEAST_DATA = 0.5
"""Windows with a smaller share of valid pixels are skipped."""
_SEED = 2022
_REFERENCE = Engine("openvino")
_CHOICE = 3
"""Windows read for each quantization window, so that rare classes can be chosen."""


@dataclass(frozen=True, eq=False)
class SampledWindow:
    """One window and its class map by fp32."""

    domain: str
    """`D034_2021`, or the name of a patch."""
    tile: str
    window: Window
    """On the lattice, aligned to the network's stride, inside its tile."""
    pixels: Pixels
    classes: NDArray[np.uint8]
    """uint8 (y, x), FLAIR values by the fp32 engine; 0 is no data."""

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return f"{self.domain} {self.tile} ({self.window.row}, {self.window.col})"


@dataclass(frozen=True, eq=False)
class WindowSplit:
    """Two sets of windows; no pixel is in both."""

    quantization: tuple[SampledWindow, ...]
    """The ranges of int8 are measured on these."""
    held_out: tuple[SampledWindow, ...]
    """int8 is compared with fp32 on these."""


def draw_windows(
    campaign: Campaign,
    model: Model,
    *,
    domains: Sequence[str] = (),
    windows: int,
    engine: Engine = _REFERENCE,
    progress: Progress = SILENT,
) -> WindowSplit:
    """Draws windows from the catalog and splits them into two sets.

    Three windows are read for each wanted quantization window, in turns over domains and their tiles. The two sets
    then choose from them in turns. Each picks its next window from its least sampled domain and tile, preferring rare
    classes. The same catalog and weights give the same windows.

    Args:
        campaign: its catalog, domains and tile size.
        model: its recipe gives bands and stride; its classes in fp32 decide the split.
        domains: names of some of the campaign's domains; all when empty.
        windows: in each set; fewer where the catalog has no more.
        engine: that maps the windows in fp32.
        progress: counts windows that were read.

    Raises:
        ConfigError: an unknown domain, or no two windows with data.
        CatalogError: a domain that is not indexed.
        SourceError: an input that cannot be read.
    """
    recipe, reference = model.recipe, predictor_for(model, engine)
    names = [campaign.domain(n).name for n in domains] or [d.name for d in campaign.domains]
    # A tile of a small campaign still has some windows to choose from.
    side = max(recipe.stride, min(_SIDE, campaign.grid.tile // 4 // recipe.stride * recipe.stride))
    drawn = _in_turns([_of_domain(campaign, recipe, n, side=side) for n in names])
    progress.start(_CHOICE * windows)
    pool: list[SampledWindow] = []
    for domain, tile, window, mosaic in drawn:
        pixels = mosaic.read(window)
        if pixels.valid.mean() < _LEAST_DATA:
            continue
        pool.append(SampledWindow(domain, tile.name, window, pixels, classes_of(reference, pixels)))
        progress.advance()
        if len(pool) == max(2, _CHOICE * windows):
            break
    if len(pool) < 2:
        raise ConfigError(
            f"domains {', '.join(names)} have {len(pool)} windows of {side} px with data; expected two or more"
        )
    return split(pool, min(windows, len(pool) // 2))


def classes_of(predictor: Predictor, pixels: Pixels) -> NDArray[np.uint8]:
    """The class map of a window by an engine: uint8 (y, x), 0 where there is no data."""
    classes: NDArray[np.uint8] = predictor(pixels.bands[None], pixels.valid[None])[0, 0]
    classes[~pixels.valid] = legend.NODATA
    return classes


_Drawn = tuple[Domain, Tile, Window, Mosaic]


def _of_domain(campaign: Campaign, recipe: Recipe, name: Domain, *, side: int) -> Iterator[_Drawn]:
    """A domain's windows, its tiles in turns, each in a random order of its own."""
    inputs = read_domain(campaign.catalog, name, tile_size=campaign.grid.tile)
    mosaic = Mosaic.of(inputs, bands=recipe.bands, height_step_m=recipe.height_step_m)

    def of_tile(tile: Tile) -> Iterator[_Drawn]:
        rng = np.random.default_rng(int(digest([_SEED, name, tile.name]), 16))
        yield from ((name, tile, w, mosaic) for w in aligned_windows(tile.window, side, recipe.stride, rng=rng))

    tiles = sorted(t.tile for t in inputs.tiles)
    order = np.random.default_rng(int(digest([_SEED, name]), 16)).permutation(len(tiles))
    return _in_turns([of_tile(tiles[i]) for i in order])


def aligned_windows(tile: Window, side: int, stride: int, *, rng: np.random.Generator) -> Iterator[Window]:
    """All windows of `side` × `side` px side by side in a tile from its first multiples of the stride on, shuffled."""
    top, left = (-(-start // stride) * stride for start in (tile.row, tile.col))
    rows, cols = (tile.bottom - top) // side, (tile.right - left) // side
    for place in rng.permutation(max(0, rows) * max(0, cols)):
        row, col = divmod(int(place), cols)
        yield Window(top + row * side, left + col * side, side, side)


def _in_turns(sources: Sequence[Iterator[_Drawn]]) -> Iterator[_Drawn]:
    """Yields one item of each source in turn until all are empty."""
    for turn in zip_longest(*sources):
        yield from (item for item in turn if item is not None)


@dataclass
class _WindowSet:
    """One of the two sets while windows are chosen, with counts of its domains, tiles and classes."""

    taken: list[SampledWindow] = field(default_factory=list)
    domains: Counter[str] = field(default_factory=Counter)
    tiles: Counter[tuple[str, str]] = field(default_factory=Counter)
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def take_from(self, pool: list[SampledWindow]) -> None:
        """Takes the window that this set needs most, the first of equals, out of the pool."""
        # The more pixels of a class a set has, the less another one counts: a new class outweighs a common one.
        worth = 1 / (1 + self.pixels)
        worth[legend.NODATA] = 0
        need = [
            (self.domains[s.domain], self.tiles[s.domain, s.tile], -float(worth @ _histogram(s)), i)
            for i, s in enumerate(pool)
        ]
        chosen = pool.pop(min(need)[-1])
        self.taken.append(chosen)
        self.domains[chosen.domain] += 1
        self.tiles[chosen.domain, chosen.tile] += 1
        self.pixels += _histogram(chosen)


def split(pool: Sequence[SampledWindow], count: int) -> WindowSplit:
    """Splits a pool into two sets of `count` windows each, which choose in turns."""
    left = list(pool)
    sides = (_WindowSet(), _WindowSet())
    for _ in range(count):
        for one in sides:
            one.take_from(left)
    return WindowSplit(*(tuple(s.taken) for s in sides))


def _histogram(window: SampledWindow) -> NDArray[np.int64]:
    return np.bincount(window.classes.ravel(), minlength=256)
