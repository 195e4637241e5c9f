"""Networks whose arithmetic is exact, so that maps can be compared byte for byte."""

from typing import ClassVar

import torch
from torch import nn

from pipeline.config import Recipe
from pipeline.model import Model

STRIDE = 4


def exact_recipe(*, logits: int = 5, live: tuple[int, ...] = (1, 2, 3, 5), bands: int = 5) -> Recipe:
    """Normalisation that changes nothing."""
    names = ("red", "green", "blue", "nir", "elevation")[:bands]
    return Recipe(
        name="exact",
        stride=STRIDE,
        bands=names,
        mean=(0.0,) * bands,
        std=(1.0,) * bands,
        logits=logits,
        live=live,
    )


class Strided(nn.Module):
    """Two strided convolutions and back: stride 4, receptive field of ±8 px, integer weights.

    Sums of integers below 2^24 are exact in float32 whatever their order, so the size of a window changes
    no bit of a logit.
    """

    def __init__(self, bands: int, logits: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.down = nn.Conv2d(bands, 4, 3, stride=2, padding=1)
        self.downer = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up = nn.Upsample(scale_factor=4, mode="nearest")
        self.head = nn.Conv2d(4 + bands, logits, 3, padding=1)
        for parameter in self.parameters():
            drawn = torch.randint(-1, 2, parameter.shape, generator=generator)
            parameter.data = drawn.to(torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.downer(torch.relu(self.down(x)))
        # Scaled by a power of two: the softmax then has something to tell apart, and nothing is rounded.
        return self.head(torch.cat([self.up(torch.relu(deep)), x], 1)) * 2.0**-9


class Greedy(Strided):
    """Takes no more than `room` windows at once, as a device does; `sizes` are what it was given."""

    # Of the class, because an engine works on a copy of the network.
    room = 0
    sizes: ClassVar[list[int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > type(self).room:
            raise torch.OutOfMemoryError("made up")
        return super().forward(x)


def exact_model(recipe: Recipe | None = None, *, seed: int = 0) -> Model:
    recipe = recipe or exact_recipe()
    return Model.in_memory(Strided(len(recipe.bands), recipe.logits, seed), recipe)
