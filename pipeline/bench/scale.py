"""How large the benches are: `FULL` measures, `QUICK` only shows that every bench runs."""

from dataclasses import dataclass

from pipeline.demo.network import DEFAULT_FIT, FitSettings
from pipeline.grid import Layout


@dataclass(frozen=True)
class BenchScale:
    """Sizes of the measurements; the code is the same at every scale."""

    tile: int
    """Side of a tile, in pixels."""
    tiles_a_side: int
    """The imagery is a square of this many tiles a side."""
    block: int
    """Side of a block, in pixels."""
    layout: Layout
    patch: int
    """Side of a small window, in pixels: the network's patch."""
    gemm: int
    """Rows and columns of the matrices that are multiplied."""
    repeats: int
    """How often a short measurement is repeated."""
    baseline: int
    """Side of the square that the plain loop maps, in pixels."""
    whole_image: int
    """Side of the image that the network sees in one forward, in pixels."""
    halos: tuple[int, ...]
    """Halos of the curve that `halo` draws, in pixels."""
    country: tuple[int, int]
    """(rows, columns) of the demo country's tiles."""
    fit: FitSettings
    """For the demo country's network."""
    quick: bool = False
    """Runs everything in this process and keeps no rates: the figures mean nothing."""
    full_size: bool = False
    """Gives `rehearsal` and `publish` tiles of 25 000 px, the size that IGN delivers."""


FULL = BenchScale(
    tile=5_000,
    tiles_a_side=2,
    block=5_000,
    layout=Layout(),
    patch=512,
    gemm=4_096,
    repeats=3,
    baseline=2_560,
    whole_image=5_024,
    halos=(0, 32, 64, 96, 128, 160, 208, 256),
    country=(3, 5),
    fit=DEFAULT_FIT,
)
"""100 Mpx, the default windows and the country of `landcover demo`: each bench takes minutes on two cores."""
QUICK = BenchScale(
    tile=500,
    tiles_a_side=2,
    block=500,
    layout=Layout(core=250, halo=32, window=352),
    patch=128,
    gemm=256,
    repeats=1,
    baseline=512,
    whole_image=512,
    halos=(0, 32),
    country=(1, 3),
    fit=FitSettings(steps=2, batch=1, crop=128),
    quick=True,
)
"""1 Mpx: shows that every bench runs."""
