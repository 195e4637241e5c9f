"""The baseline: a plain loop that works as IGN's command for large rasters does.

It maps windows of 512 px with a margin of 128 and keeps their middle 256 × 256. Two loader processes make batches of 4,
scaled in float64 on the CPU. PyTorch runs eagerly, and the softmax of all logits goes back to the host for its argmax.
The input is a ready raster of five bands, so no JPEG 2000 is decoded here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterWindow
from torch.utils.data import DataLoader, Dataset

from pipeline.bench.machine import Usage, measure
from pipeline.grid import CRS
from pipeline.model import Model
from pipeline.products.tile.cog import write_cog

WINDOW, MARGIN = 512, 128
BATCH, LOADERS = 4, 2
_CORE = WINDOW - 2 * MARGIN


@dataclass(frozen=True)
class ScaledWindows(Dataset[tuple[torch.Tensor, int, int]]):
    """The windows of a square raster, scaled for the network."""

    raster: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    """Side of the raster in pixels, a multiple of the kept middle of a window."""

    def __len__(self) -> int:
        return (self.side // _CORE) ** 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        """A window, float32 (band, y, x) and 0 beyond the raster's edge, with row and column of its kept middle."""
        row, col = (k * _CORE for k in divmod(index, self.side // _CORE))
        place = RasterWindow(col - MARGIN, row - MARGIN, WINDOW, WINDOW)
        with rasterio.open(self.raster) as file:
            pixels = file.read(window=place, boundless=True, fill_value=0).astype(np.float64)
        for band, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            pixels[band] = (pixels[band] - mean) / std
        return torch.as_tensor(pixels, dtype=torch.float32), row, col


def map_in_plain_loop(model: Model, raster: Path, out: Path, *, threads: int, loaders: int = LOADERS) -> Usage:
    """Maps a square raster whose side is a multiple of 256 px; call it in a new process.

    The network is loaded before the clock starts, and the COG is written before it stops.

    Args:
        loaders: forked processes that read and scale; with 0 this process does.
    """
    with rasterio.open(raster) as file:
        side, geobox = file.width, GeoBox(file.shape, file.transform, CRS)
    torch.set_num_threads(threads)
    recipe = model.recipe
    windows = ScaledWindows(raster, recipe.mean, recipe.std, side)
    context = "fork" if loaders else None
    loader: Any = DataLoader(windows, batch_size=BATCH, num_workers=loaders, multiprocessing_context=context)

    def work() -> None:
        classes = _loop(model, loader, side)
        write_cog(out, classes, layer="landcover", geobox=geobox, live=recipe.live, tags={})

    return measure(work)[1]


@torch.inference_mode()
def _loop(model: Model, loader: Any, side: int) -> NDArray[np.uint8]:
    classes = np.zeros((side, side), np.uint8)
    for images, rows, cols in loader:
        shares = torch.softmax(model.network(images), dim=1).cpu().numpy()
        # IGN's argmax is over all logits. Here it skips those that the recipe switches off, which no map may contain.
        best = shares[:, list(model.recipe.live_logits)].argmax(axis=1)
        values = np.asarray(model.recipe.live, np.uint8)[best]
        for value, row, col in zip(values, rows.tolist(), cols.tolist(), strict=True):
            classes[row : row + _CORE, col : col + _CORE] = value[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return classes
