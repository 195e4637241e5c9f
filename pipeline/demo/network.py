"""A small network of the same code, fitted to the demo's country in a minute and a half on two cores.

It proves the path, not the art: from scratch, no hub, a light encoder, plain cross-entropy.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from pipeline.config import Recipe
from pipeline.demo.landscape import CLASSES
from pipeline.durable import replacing
from pipeline.errors import ConfigError
from pipeline.model.network import build
from pipeline.progress import SILENT, Progress

ENCODER = "tu-regnetx_002"
"""2.7 million parameters with the U-Net. No squeeze-and-excitation, whose mean over the whole window would make the
map depend on where windows begin; and the same bits for any number of threads, which not all light encoders give."""
DECODER_CHANNELS = (64, 32, 32, 16, 16)
_PREFIX = "model.seg_model."


@dataclass(frozen=True, eq=False)
class Sample:
    """One tile to fit on."""

    name: str
    pixels: NDArray[np.uint8]
    """(band, y, x) in the order of the recipe: red, green, blue, near infrared, height in steps of 0.2 m."""
    truth: NDArray[np.uint8]
    """(y, x), FLAIR values 1..12; 0 counts for nothing."""


@dataclass(frozen=True)
class Effort:
    """How hard to try; the defaults take a minute and a half on two cores."""

    steps: int = 600
    batch: int = 4
    crop: int = 192
    """Pixels a side, a multiple of 32."""
    learning_rate: float = 8e-3


DEFAULT_EFFORT = Effort()


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind; `pipeline.model.load(str(weights), str(recipe))` takes both."""

    weights: Path
    """`<name>_weights.pth`: float32, keys as in the FLAIR-INC files."""
    recipe: Path
    """`<name>.yaml`: a `pipeline.config.Recipe`."""


def fit(
    samples: Sequence[Sample],
    folder: Path,
    *,
    name: str = "demo",
    seed: int = 2022,
    effort: Effort = DEFAULT_EFFORT,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Fitted:
    """Fits a U-Net with a light encoder to the samples and writes weights and recipe into `folder`.

    The same samples, seed, effort and threads give the same weights on one machine.

    Args:
        threads: torch's threads while fitting; by default as many as torch has now.

    Raises:
        ConfigError: no samples, shapes that do not fit each other, or a sample smaller than a crop.
        StorageError: `folder` cannot be written.
    """
    _check(samples, effort)
    recipe = _recipe(samples, name)
    with _torch_as(seed, threads):
        network = build(recipe)
        _train(network, samples, recipe, seed=seed, effort=effort, progress=progress)
    tensors = OrderedDict((_PREFIX + key, value.detach().clone()) for key, value in network.state_dict().items())
    fitted = Fitted(folder / f"{name}_weights.pth", folder / f"{name}.yaml")
    with replacing(fitted.weights) as temporary:
        torch.save(tensors, temporary)
    with replacing(fitted.recipe) as temporary:
        temporary.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return fitted


def _check(samples: Sequence[Sample], effort: Effort) -> None:
    if not samples:
        raise ConfigError("nothing to fit on: expected at least one sample")
    for sample in samples:
        bands, *shape = sample.pixels.shape
        if tuple(shape) != sample.truth.shape or bands != 5 or min(shape) < effort.crop:
            raise ConfigError(
                f"sample {sample.name}: expected pixels (5, y, x) and truth (y, x) of {effort.crop} px a side "
                f"or more; got {sample.pixels.shape} and {sample.truth.shape}"
            )


def _recipe(samples: Sequence[Sample], name: str) -> Recipe:
    """The recipe with the means and deviations of the samples' own pixels."""
    pixels = np.concatenate([s.pixels.reshape(5, -1) for s in samples], axis=1)
    return Recipe(
        name=name,
        encoder=ENCODER,
        decoder_channels=DECODER_CHANNELS,
        mean=tuple(round(float(m), 2) for m in pixels.mean(axis=1)),
        std=tuple(round(max(float(s), 0.01), 2) for s in pixels.std(axis=1)),
        live=CLASSES,
        licence="apache-2.0",
        citation="landcover-pipeline's demo: a procedural landscape, no real place",
    )


def _train(
    network: nn.Module,
    samples: Sequence[Sample],
    recipe: Recipe,
    *,
    seed: int,
    effort: Effort,
    progress: Progress,
) -> None:
    """Cross-entropy over the live logits alone: the others stay as they were drawn, and inference must mask them."""
    live = torch.tensor([value - 1 for value in recipe.live])
    target_of = torch.full((256,), -1, dtype=torch.int64)
    target_of[live + 1] = torch.arange(len(live))
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (recipe.mean, recipe.std))
    optimizer = torch.optim.AdamW(network.parameters(), lr=effort.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=effort.learning_rate, total_steps=effort.steps, pct_start=0.2
    )
    network.train()
    # torch's stubs lack this form of `to`; convolutions are a third faster in it.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = _crops(samples, effort, np.random.default_rng(seed))
    progress.start(effort.steps)
    for _ in progress.track(range(effort.steps)):
        pixels, truth = next(crops)
        images = ((torch.from_numpy(pixels) - mean) / std).to(memory_format=torch.channels_last)
        logits = network(images)[:, live]
        loss = nn.functional.cross_entropy(logits, target_of[torch.from_numpy(truth).long()], ignore_index=-1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    network.eval()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _crops(
    samples: Sequence[Sample], effort: Effort, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Endless batches (n, band, y, x) and (n, y, x), each crop turned and flipped at random; samples take turns."""
    order: list[int] = []
    while True:
        pixels: list[NDArray[np.uint8]] = []
        truth: list[NDArray[np.uint8]] = []
        for _ in range(effort.batch):
            order = order or list(rng.permutation(len(samples)))
            sample = samples[order.pop()]
            y, x = (int(rng.integers(0, n - effort.crop + 1)) for n in sample.truth.shape)
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            where = (slice(y, y + effort.crop), slice(x, x + effort.crop))
            for into, array in ((pixels, sample.pixels[:, *where]), (truth, sample.truth[where])):
                turned = np.rot90(array, turns, axes=(-2, -1))
                into.append(turned[..., ::-1] if flip else turned)
        yield np.stack(pixels), np.stack(truth)


@contextmanager
def _torch_as(seed: int, threads: int | None) -> Iterator[None]:
    """Torch's random state and threads for the time of a fit; both are as before afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            torch.set_num_threads(threads or before)
            yield
        finally:
            torch.set_num_threads(before)
