"""A network cut before its head's upsampling, and the maps that both ways of enlarging give in windows."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.bench.imagery import PatchStack, mirrored
from pipeline.config import Recipe
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.model.inference_network import centre_upsampling

Head = Literal["published", "centred"]
Classes = NDArray[np.uint8]
"""uint8 (y, x): FLAIR values."""


class SplitNetwork:
    """One forward of it gives small logits, which each of its heads enlarges.

    The published head joins corners to corners, the centred one enlarges from the centres of pixels, as
    `optimize_for_inference` does. A network whose head enlarges nothing has the published one only.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        cut: Any = copy.deepcopy(network).eval()
        upsampling = cut.segmentation_head[1]
        cut.segmentation_head[1] = nn.Identity()
        self.heads: dict[Head, nn.Module] = {"published": upsampling}
        if isinstance(upsampling, nn.Upsample):
            self.heads["centred"] = copy.deepcopy(upsampling)
            centre_upsampling(self.heads["centred"])
        self._network = cut.to(memory_format=torch.channels_last)
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (recipe.mean, recipe.std))
        self._live = list(recipe.live_logits)
        self._values = np.array(recipe.live, np.uint8)
        self.class_count = len(recipe.live)

    @torch.inference_mode()
    def small_logits(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Pixels (band, y, x) → live logits before the upsampling, float32 (1, class, y / 4, x / 4)."""
        image = (torch.from_numpy(pixels).float() - self._mean) / self._std
        logits: torch.Tensor = self._network(image[None].contiguous(memory_format=torch.channels_last))
        return logits[:, self._live].contiguous()

    @torch.inference_mode()
    def enlarged(self, logits: torch.Tensor, head: Head) -> torch.Tensor:
        """Small logits → float32 (class, y, x)."""
        large: torch.Tensor = self.heads[head](logits)[0]
        return large

    def classes(self, logits: torch.Tensor) -> Classes:
        """Float32 (class, y, x) → FLAIR values."""
        classes: Classes = self._values[logits.argmax(dim=0).numpy()]
        return classes


def map_whole(network: SplitNetwork, patches: PatchStack, side: int, padding: int) -> Mapping[Head, Classes]:
    """Maps a square in one forward, which also sees `padding` pixels around it."""
    pixels = mirrored(patches, Window(0, 0, side, side).grow(padding))
    logits, inner = network.small_logits(pixels), slice(padding, padding + side)
    return {head: network.classes(network.enlarged(logits, head)[:, inner, inner]) for head in network.heads}


def map_in_windows(
    network: SplitNetwork, patches: PatchStack, layout: Layout, side: int
) -> Mapping[Head, tuple[Classes, Classes]]:
    """Maps a square in windows.

    Args:
        network: gives the heads.
        patches: of the endless plane that is mapped.
        layout: of the windows; its core divides the side.
        side: of the square in pixels.

    Returns:
        Head → two maps. In the plain one each window gives its core. In the blended one the probabilities of two
        windows are averaged across half of their margins on either side of their common edge, with weights from 0 to 1.
    """
    everywhere = Window(0, 0, side, side)
    plain = {head: np.zeros((side, side), np.uint8) for head in network.heads}
    sums = {head: torch.zeros(network.class_count, side, side) for head in network.heads}
    for core, read in layout.windows_of(everywhere):
        logits = network.small_logits(mirrored(patches, read))
        wide = core.grow(layout.halo // 2).intersect(everywhere)
        rows = _weights(core.row, core.bottom, wide.row, wide.bottom, layout.halo)
        cols = _weights(core.col, core.right, wide.col, wide.right, layout.halo)
        weights = torch.from_numpy(np.outer(rows, cols))
        for head in network.heads:
            large = network.enlarged(logits, head)
            plain[head][core.slices] = network.classes(large[:, *core.slices_in(read)])
            shares = torch.softmax(large[:, *wide.slices_in(read)], dim=0)
            sums[head][:, *wide.slices] += shares * weights
    return {head: (plain[head], network.classes(sums[head])) for head in network.heads}


def _weights(start: int, stop: int, first: int, end: int, margin: int) -> NDArray[np.float32]:
    """Weights of the pixels first..end of a window whose core is start..stop; those of two neighbours add up to 1."""
    at = np.arange(first, end) + 0.5
    rising, falling = ((distance + margin / 2) / margin for distance in (at - start, stop - at))
    weights: NDArray[np.float32] = (rising.clip(0, 1) * falling.clip(0, 1)).astype(np.float32)
    return weights
