"""Windows to quantise with and to judge by: sampled over domains, tiles and classes, none in both sets."""

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
from pipeline.inference import Predictor
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.index import open_domain
from pipeline.sources.reading.mosaic import Mosaic, Pixels

_SIDE = 512
"""Pixels a side of a window: the size that FLAIR's networks were trained on."""
_LEAST_DATA = 0.5
"""Windows with a smaller share of valid pixels say little; they are passed over."""
_CHOICE = 3
"""Windows looked at for each one that is calibrated on: room to choose rare classes from."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """One window and what fp32 makes of it."""

    domain: str
    """Empty for a patch that belongs to no domain."""
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
class Samples:
    """Both sets; no pixel is in both."""

    calibration: tuple[Sampled, ...]
    held_out: tuple[Sampled, ...]


def sample(
    campaign: Campaign,
    recipe: Recipe,
    *,
    reference: Predictor,
    domains: Sequence[str] = (),
    windows: int,
    seed: int = 2022,
    progress: Progress = SILENT,
) -> Samples:
    """Draws windows from the catalogue and deals them out.

    Three windows are looked at for each that is wanted, in turns of domains and of their tiles; from these
    both sets take theirs in turns, each one's next window from its least used domain and tile, and there the
    one with the classes that it has least of. The same catalogue, weights and seed give the same windows.

    Args:
        campaign: its catalogue, domains and tile size.
        recipe: the network's bands and stride.
        reference: the fp32 engine, by whose classes windows are dealt.
        domains: names of some of the campaign's domains; all when empty.
        windows: to calibrate on, and as many to judge by; fewer where the catalogue has no more.
        seed: of the draw.
        progress: counts windows that were looked at.

    Raises:
        ConfigError: an unknown domain, or no two windows with data.
        CatalogError: a domain that is not indexed.
        SourceError: an input that cannot be read.
    """
    names = [campaign.domain(n).name for n in domains] or [d.name for d in campaign.domains]
    # A tile of a small campaign still has some windows to choose from.
    side = max(recipe.stride, min(_SIDE, campaign.grid.tile // 4 // recipe.stride * recipe.stride))
    drawn = _in_turns([_of_domain(campaign, recipe, n, side=side, seed=seed) for n in names])
    progress.start(_CHOICE * windows)
    pool: list[Sampled] = []
    for domain, tile, window, mosaic in drawn:
        pixels = mosaic.read(window)
        if pixels.valid.mean() < _LEAST_DATA:
            continue
        pool.append(Sampled(domain, tile.name, window, pixels, classes_of(reference, pixels)))
        progress.advance()
        if len(pool) == max(2, _CHOICE * windows):
            break
    if len(pool) < 2:
        raise ConfigError(
            f"domains {', '.join(names)} have {len(pool)} windows of {side} px with data; quantising wants two or more"
        )
    return deal(pool, min(windows, len(pool) // 2))


def classes_of(predictor: Predictor, pixels: Pixels) -> NDArray[np.uint8]:
    """The class map of a window by an engine: uint8 (y, x), 0 where there is no data."""
    classes: NDArray[np.uint8] = predictor(pixels.bands[None], pixels.valid[None])[0, 0]
    classes[~pixels.valid] = legend.NODATA
    return classes


_Drawn = tuple[Domain, Tile, Window, Mosaic]


def _of_domain(campaign: Campaign, recipe: Recipe, name: Domain, *, side: int, seed: int) -> Iterator[_Drawn]:
    """A domain's windows, its tiles in turns, each in a random order of its own."""
    inputs = open_domain(campaign.catalog, name, tile_size=campaign.grid.tile)
    mosaic = Mosaic.of(inputs, bands=recipe.bands, height_step_m=recipe.height_step_m)

    def of_tile(tile: Tile) -> Iterator[_Drawn]:
        rng = np.random.default_rng(int(digest([seed, name, tile.name]), 16))
        yield from ((name, tile, w, mosaic) for w in aligned_windows(tile.window, side, recipe.stride, rng=rng))

    tiles = sorted(t.tile for t in inputs.tiles)
    order = np.random.default_rng(int(digest([seed, name]), 16)).permutation(len(tiles))
    return _in_turns([of_tile(tiles[i]) for i in order])


def aligned_windows(tile: Window, side: int, stride: int, *, rng: np.random.Generator) -> Iterator[Window]:
    """All windows of `side` × `side` px side by side in a tile from its first multiples of the stride on, shuffled."""
    top, left = (-(-start // stride) * stride for start in (tile.row, tile.col))
    rows, cols = (tile.bottom - top) // side, (tile.right - left) // side
    for place in rng.permutation(max(0, rows) * max(0, cols)):
        row, col = divmod(int(place), cols)
        yield Window(top + row * side, left + col * side, side, side)


def _in_turns(sources: Sequence[Iterator[_Drawn]]) -> Iterator[_Drawn]:
    """One of each, again and again, until all are empty."""
    for turn in zip_longest(*sources):
        yield from (item for item in turn if item is not None)


@dataclass
class _Side:
    """One set while windows are dealt, and what it has already."""

    taken: list[Sampled] = field(default_factory=list)
    domains: Counter[str] = field(default_factory=Counter)
    tiles: Counter[tuple[str, str]] = field(default_factory=Counter)
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))

    def take_from(self, pool: list[Sampled]) -> None:
        """Takes the window that this set needs most; of equals the first."""
        # A class counts for the less, the more of it is there: a pixel of a new one outweighs many of a common one.
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


def deal(pool: Sequence[Sampled], count: int) -> Samples:
    """Deals `count` windows of a pool to each of two sets, which take theirs in turns."""
    left = list(pool)
    sides = (_Side(), _Side())
    for _ in range(count):
        for one in sides:
            one.take_from(left)
    calibration, held_out = (tuple(s.taken) for s in sides)
    return Samples(calibration, held_out)


def _histogram(window: Sampled) -> NDArray[np.int64]:
    return np.bincount(window.classes.ravel(), minlength=256)
