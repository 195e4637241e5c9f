"""Averages the probabilities of several networks over turned windows, on whatever device the pixels are."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import nn

from pipeline.errors import EngineError
from pipeline.inference.engine import NOT_FINITE
from pipeline.inference.map_graph import MapGraph, ProbabilityGraph
from pipeline.inference.turns import TURNS, Turn
from pipeline.legend import SHARE_STEPS, OptionalLayer
from pipeline.model import Ensemble, Model

Forward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Pixels, uint8 (n, band, y, x), and valid, uint8 (n, y, x) → what `ProbabilityGraph` returns."""


@dataclass(frozen=True, eq=False)
class Averaging:
    """What is averaged: the members' bands, the turns of a window, and the layers that are made of it."""

    bands: tuple[tuple[int, ...], ...]
    """For each member, the places of its bands among those of the window."""
    turns: tuple[Turn, ...]
    layers: tuple[OptionalLayer, ...]
    temperature: float = 1.0
    """Of the mean probabilities: their logarithms are divided by it, and the softmax of these is the confidence."""

    @classmethod
    def of(cls, model: Model | Ensemble, layers: Sequence[OptionalLayer]) -> "Averaging":
        """The averaging of a model, or of a single network without turns.

        Raises:
            EngineError: the layer `disagreement` of a single forward.
        """
        joint = model.recipe.bands
        bands = tuple(tuple(joint.index(band) for band in member.recipe.bands) for member in members_of(model))
        tta, temperature = (model.tta, model.temperature) if isinstance(model, Ensemble) else ("none", 1.0)
        averaging = cls(bands, TURNS[tta], tuple(layers), temperature)
        if "disagreement" in layers and averaging.count == 1:
            raise EngineError("a single forward has no disagreement; give an Ensemble of several members, or with tta")
        return averaging

    @property
    def count(self) -> int:
        """Forwards of a window."""
        return len(self.bands) * len(self.turns)

    def planes(
        self, forwards: Sequence[Forward], pixels: torch.Tensor, valid: torch.Tensor, *, values: torch.Tensor
    ) -> torch.Tensor:
        """Runs all forwards and makes the planes of `Predictor`, and those of the layers after them.

        The mean of the probabilities decides: the class is that of the greatest mean, the confidence is that mean after
        the temperature, and a logit that is switched off wins where it does so in more than half of the forwards. The
        planes of a single forward are its own.

        Args:
            forwards: of the members.
            pixels: uint8 (n, band, y, x).
            valid: uint8 (n, y, x).
            values: uint8 (class,), FLAIR values of the live classes.

        Returns:
            uint8 (n, plane, y, x).
        """
        total = entropy = wins = planes = torch.empty(0)
        number = 0
        for planes, shares in self._forwards(forwards, pixels, valid):
            total = total + shares if number else shares
            if "disagreement" in self.layers:
                entropy = entropy + _entropy(shares) if number else _entropy(shares)
            wins = wins + planes[:, 2].int() if number else planes[:, 2].int()
            number += 1
        mean = total / number if number > 1 else total
        calibrated = mean if self.temperature == 1.0 else (_logarithm(mean) / self.temperature).softmax(dim=1)
        if number > 1:
            # Classes are those of the mean: rounding could make two calibrated shares equal.
            best, index = mean.max(dim=1)
            best = best if self.temperature == 1.0 else calibrated.amax(dim=1)
            confidence = torch.where(torch.isfinite(best), torch.round(best * 255.0), float(NOT_FINITE))
            planes = torch.stack([values[index], *(p.to(torch.uint8) for p in (confidence, 2 * wins > number))], dim=1)
        made = {
            "probabilities": lambda: calibrated,
            "disagreement": lambda: _information(_entropy(mean) - entropy / number, number, mean.shape[1]).unsqueeze(1),
        }
        return torch.cat([planes, *(_as_bytes(made[layer]()) for layer in self.layers)], dim=1)

    def logits(self, forwards: Sequence[Forward], pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Logarithm of the mean probabilities, which the temperature divides: float32 (n, class, y, x).

        Args:
            forwards, pixels, valid: as for `planes`.
        """
        shares = (shares for _, shares in self._forwards(forwards, pixels, valid))
        return _logarithm(reduce(torch.add, shares) / self.count)

    def _forwards(
        self, forwards: Sequence[Forward], pixels: torch.Tensor, valid: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Planes and probabilities of each forward, in the window's own position."""
        for forward, bands in zip(forwards, self.bands, strict=True):
            own = pixels if len(bands) == pixels.shape[1] and sorted(bands) == list(bands) else pixels[:, list(bands)]
            for turn in self.turns:
                planes, shares = forward(turn.apply(own), turn.apply(valid))
                yield turn.undo(planes), turn.undo(shares)


def _logarithm(shares: torch.Tensor) -> torch.Tensor:
    return shares.clamp_min(torch.finfo(shares.dtype).tiny).log()


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    """Shannon's entropy in nats over the classes: (n, class, y, x) → (n, y, x)."""
    return -(shares * _logarithm(shares)).sum(dim=1)


def _information(nats: torch.Tensor, forwards: int, classes: int) -> torch.Tensor:
    """Mutual information as a share of the most that so many forwards and classes can have, 0..1."""
    return (nats / math.log(min(forwards, classes))).clamp(0.0, 1.0)


def _as_bytes(shares: torch.Tensor) -> torch.Tensor:
    """Shares 0..1 as bytes 1..255: 0 is left for nodata."""
    return (1.0 + torch.round(shares * SHARE_STEPS)).to(torch.uint8)


class AverageGraph(nn.Module):
    """The forwards of all members and turns as one graph on one device, so a window is uploaded once."""

    def __init__(self, model: Model | Ensemble, layers: Sequence[OptionalLayer] = ()) -> None:
        super().__init__()
        self.averaging = Averaging.of(model, layers)
        self.members = nn.ModuleList(ProbabilityGraph(member) for member in members_of(model))
        self.values: torch.Tensor
        self.register_buffer("values", torch.tensor(model.recipe.live, dtype=torch.uint8))

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder of a single network; see `MapGraph`."""
        only = self.members[0] if len(self.members) == 1 else None
        return only.encoder if isinstance(only, MapGraph) else None

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Pixels, uint8 (n, band, y, x), and valid, uint8 (n, y, x), to planes, uint8 (n, plane, y, x)."""
        return self.averaging.planes(self._forwards, pixels, valid, values=self.values)

    def logits(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """See `Averaging.logits`."""
        return self.averaging.logits(self._forwards, pixels, valid)

    @property
    def _forwards(self) -> list[Forward]:
        return [_channels_last(member) for member in self.members]


def _channels_last(graph: nn.Module) -> Forward:
    def forward(pixels: torch.Tensor, valid: torch.Tensor) -> Any:
        return graph(pixels.contiguous(memory_format=torch.channels_last), valid.contiguous())

    return forward


def members_of(model: Model | Ensemble) -> tuple[Model, ...]:
    """The networks that map a window, in the order in which their probabilities are added."""
    return model.members if isinstance(model, Ensemble) else (model,)
