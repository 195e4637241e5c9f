"""All that an engine computes, as one network: uint8 in, uint8 out. Every engine runs this graph."""

import torch
from torch import nn

from pipeline.model import Model, lean

NOT_FINITE = 0
"""Confidence where a live logit is NaN or infinite. A softmax over n classes is at least 1 / n, so none is 0."""


class MapGraph(nn.Module):
    """Normalisation, mask, network (live logits only), temperature, softmax and argmax.

    Forward takes pixels uint8 (n, band, y, x) and valid uint8 (n, y, x) of 0 and 1, and gives layers uint8
    (n, layer, y, x): the FLAIR value of the most probable live class, and round(255 × its softmax over the
    live logits divided by the recipe's temperature), `NOT_FINITE` where a logit is.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        recipe = model.recipe
        # A copy, and must be: a loaded model is shared by all of a process, and an engine's `.to` changes in place.
        self.network = lean(model.network, recipe)
        self.temperature = recipe.temperature
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.values: torch.Tensor
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(recipe.std).view(1, -1, 1, 1))
        self.register_buffer("values", torch.tensor(recipe.live, dtype=torch.uint8))

    def logits(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The live logits, float32 (n, class, y, x), as the network gives them: before the temperature."""
        # The mean is subtracted before the mask: zero after normalisation is the channel mean, also for the
        # zeros that convolutions pad with.
        x = (pixels.float() - self.mean) / self.std * valid.float().unsqueeze(1)
        live: torch.Tensor = self.network(x).float()
        return live

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """See the class."""
        logits = self.logits(pixels, valid)
        # A division by 1 would change no bit, but it would change the graph that engines compile.
        if self.temperature != 1.0:
            logits = logits / self.temperature
        best, index = logits.max(dim=1)
        # max softmax = 1 / Σ exp(l - max l): no second array of all the probabilities.
        share = 1.0 / (logits - best.unsqueeze(1)).exp().sum(dim=1)
        confidence = torch.where(torch.isfinite(share), torch.round(share * 255.0), float(NOT_FINITE))
        return torch.stack([self.values[index], confidence.to(torch.uint8)], dim=1)
