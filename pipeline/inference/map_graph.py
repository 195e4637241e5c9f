"""The graph that every engine runs: a network from uint8 images to uint8 layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pipeline.errors import EngineError
from pipeline.inference.engine import NOT_FINITE
from pipeline.model import Model, optimize_for_inference


class MapGraph(nn.Module):
    """Normalisation, mask, network, temperature, softmax and argmax.

    `forward` takes pixels, uint8 (n, band, y, x), and valid, uint8 (n, y, x) of 0 and 1. It returns `PLANES` planes,
    uint8 (n, plane, y, x): the FLAIR value of the most probable live class; its confidence round(255 × softmax), where
    the softmax is over the live logits divided by the recipe's temperature; and 1 where a logit that is switched off is
    greater than all live ones, else 0. The confidence is `NOT_FINITE` if a live logit is not finite.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        recipe = model.recipe
        # This is a copy. It must be, because a process shares a loaded model and an engine's `.to` works in place.
        self.network = optimize_for_inference(model.network, recipe)
        self.temperature = recipe.temperature
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.values: torch.Tensor
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(recipe.std).view(1, -1, 1, 1))
        self.register_buffer("values", torch.tensor(recipe.live, dtype=torch.uint8))

    @property
    def encoder(self) -> nn.Module | None:
        """The part that computes features of decreasing resolution, in a list; None for networks without one."""
        first = self.network[0] if isinstance(self.network, nn.Sequential) else self.network
        return getattr(first, "encoder", None)

    def logits(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The network's live logits before the temperature: float32 (n, class, y, x)."""
        return self._all_logits(pixels, valid)[0]

    def _all_logits(self, pixels: torch.Tensor, valid: torch.Tensor) -> list[torch.Tensor]:
        """The live logits, and those that are switched off where there are some."""
        # Masked after normalisation, invalid pixels have the channel mean, like the zeros with which convolutions pad.
        x = (pixels.float() - self.mean) / self.std * valid.float().unsqueeze(1)
        return [logits.float() for logits in self.network(x)]

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> Any:
        """See the class."""
        return self._planes(pixels, valid)[0]

    def _planes(self, pixels: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The planes, the exponentials of the live logits, (n, class, y, x), and what makes probabilities of them."""
        logits, *switched_off = self._all_logits(pixels, valid)
        # A division by 1 would change no value, but it would change the graph that engines compile.
        if self.temperature != 1.0:
            logits = logits / self.temperature
        best, index = logits.max(dim=1)
        # The greatest softmax is 1 / Σ exp(l - max l), which needs no array of all probabilities.
        exponentials = (logits - best.unsqueeze(1)).exp()
        share = 1.0 / exponentials.sum(dim=1)
        confidence = torch.where(torch.isfinite(share), torch.round(share * 255.0), float(NOT_FINITE))
        wins = torch.zeros_like(best, dtype=torch.bool)
        for others in switched_off:
            wins = others.amax(dim=1) / self.temperature > best
        planes = torch.stack([self.values[index], confidence.to(torch.uint8), wins.to(torch.uint8)], dim=1)
        return planes, exponentials, share


class ProbabilityGraph(MapGraph):
    """As `MapGraph`, and returns the probabilities of the live classes beside the planes: float32 (n, class, y, x)."""

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> Any:
        """See the class."""
        planes, exponentials, share = self._planes(pixels, valid)
        return planes, exponentials * share.unsqueeze(1)


class FeatureGraph(nn.Module):
    """A graph that also returns the encoder's deepest features, float32 (n, channel, row, col), after its outputs."""

    def __init__(self, graph: MapGraph) -> None:
        super().__init__()
        encoder_of(graph)
        # Not `graph`: traced modules have an attribute of this name.
        self.mapping = graph

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `MapGraph`."""
        with keeping_features(encoder_of(self.mapping)) as kept:
            made = self.mapping(pixels, valid)
        # In bf16 OpenVINO keeps in float32 what lies between an output and the convolutions before it. Without another
        # convolution these would be the encoder's last sums, and the map would change.
        channels = int(kept[-1].shape[1])
        features = functional.conv2d(kept[-1], torch.ones(channels, 1, 1, 1), groups=channels)
        return (*(made if isinstance(made, tuple) else (made,)), features)


def encoder_of(graph: Any) -> nn.Module:
    """The encoder of a `MapGraph` or an `AverageGraph`.

    Raises:
        EngineError: it has none.
    """
    encoder: nn.Module | None = graph.encoder
    if encoder is None:
        raise EngineError("the novelty score needs a network with an encoder; remove the reference")
    return encoder


@contextmanager
def keeping_features(encoder: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Lists the deepest features, float32 (n, channel, row, col), of each forward: what the encoder returns last."""
    kept: list[torch.Tensor] = []
    hook = encoder.register_forward_hook(lambda _module, _given, found: kept.append(found[-1].float()))
    try:
        yield kept
    finally:
        hook.remove()
