"""How large the benches are: `FULL` measures, `QUICK` only shows that every bench runs."""

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.demo.network import DEFAULT_FIT, FitSettings
from pipeline.halo import Layout


@dataclass(frozen=True)
class BenchScale:
    """Sizes of the measurements; the code is the same at every scale. The defaults are the full scale."""

    tile: int = 5_000
    """Side of a tile, in pixels."""
    tiles_a_side: int = 2
    """The imagery is a square of this many tiles a side."""
    block: int = 5_000
    """Side of a block, in pixels."""
    wide: int = 25_000
    """Side of the tile that `feed` reads parts of, in pixels."""
    layout: Layout = Layout()
    patch: int = 512
    """Side of a small window, in pixels: the network's patch."""
    gemm: int = 4_096
    """Rows and columns of the matrices that are multiplied."""
    repeats: int = 3
    """How often a short measurement is repeated."""
    baseline: int = 2_560
    """Side of the square that the plain loop maps, in pixels."""
    whole_image: int = 5_024
    """Side of the image that the network sees in one forward, in pixels."""
    halos: tuple[int, ...] = (0, 32, 64, 96, 128, 160, 208, 256)
    """Halos of the curve that `halo` draws, in pixels."""
    country: tuple[int, int] = (3, 5)
    """(rows, columns) of the demo country's tiles."""
    fit: FitSettings = DEFAULT_FIT
    """For the demo country's network."""
    gpu_windows: tuple[tuple[int, int], ...] = ((512, 16), (1_024, 8), (5_376, 1))
    """(side in pixels, windows of one call) that `gpu` measures beside the layout's."""
    stand_in: Literal["demo", "noise", "noise and a light network"] = "demo"
    """What takes the place of missing real files: the demo's country and network, which take minutes; or noise and a
    network of the default recipe without training, which are enough to measure speed; or a light one, which is not."""
    until: float | None = None
    """`time.monotonic()` after which `gpu` starts no more measurements."""
    quick: bool = False
    """Runs everything in this process and keeps no rates: the figures mean nothing."""
    loader: bool = False
    """Lets `train` measure the loader and the step instead of a training."""
    full_size: bool = False
    """Gives `rehearsal` and `publish` tiles of 25 000 px, the size that IGN delivers."""


FULL = BenchScale()
"""100 Mpx, the default windows and the country of `landcover demo`: each bench takes minutes on two cores."""
QUICK = BenchScale(
    tile=500,
    block=500,
    wide=2_000,
    layout=Layout(core=250, halo=32, window=352),
    patch=128,
    gemm=256,
    repeats=1,
    baseline=512,
    whole_image=512,
    halos=(0, 32),
    gpu_windows=((160, 2),),
    country=(1, 3),
    fit=FitSettings(steps=2, batch=1, crop=128),
    quick=True,
)
"""1 Mpx: shows that every bench runs."""


def gpu_alone(scale: BenchScale) -> BenchScale:
    """The scale where `gpu` is the only bench: a device that is lent for minutes must not wait for imagery."""
    return replace(scale, tiles_a_side=1, stand_in="noise and a light network" if scale.quick else "noise")
