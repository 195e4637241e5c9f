"""Fits a small network to the demo's country, in a minute and a half on two cores.

It has a light encoder and starts from random weights, without a hub. It shows how mapping works, not how well it can.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.config import Recipe
from pipeline.demo.landscape import CLASSES
from pipeline.errors import ConfigError
from pipeline.model.network import build_network
from pipeline.model.saving import save_recipe, save_weights

ENCODER = "tu-regnetx_002"
"""2.7 million parameters with the U-Net. It has no squeeze-and-excitation, whose mean over the whole window would make
the map depend on where windows begin."""
SMALLEST_HALO = 64
"""In pixels. The demo's campaign has 96, with which its windows meet without seams."""
DECODER_CHANNELS = (64, 32, 32, 16, 16)


@dataclass(frozen=True, eq=False)
class TrainingTile:
    """A tile to fit on."""

    name: str
    pixels: NDArray[np.uint8]
    """uint8 (band, y, x): red, green, blue, near infrared, height in units of 0.2 m."""
    truth: NDArray[np.uint8]
    """uint8 (y, x): FLAIR values 1..12, and 0 where there is no label."""


@dataclass(frozen=True)
class FitSettings:
    """Length and size of a fit; the defaults take a minute and a half on two cores."""

    steps: int = 600
    batch: int = 4
    """Crops in a step."""
    crop: int = 192
    """Side of a crop in pixels, a multiple of 32."""
    learning_rate: float = 8e-3


DEFAULT_FIT = FitSettings()


@dataclass(frozen=True)
class FittedNetwork:
    """The files of a fitted network, for `pipeline.load_model(weights, str(recipe))`."""

    weights: Path
    """`demo_weights.pth`: float32, with the keys of FLAIR-INC files."""
    recipe: Path
    """`demo.yaml`: a `pipeline.config.Recipe`."""


def fit(
    tiles: Sequence[TrainingTile],
    folder: Path,
    *,
    seed: int = 2022,
    settings: FitSettings = DEFAULT_FIT,
    threads: int | None = None,
) -> FittedNetwork:
    """Fits a U-Net with a light encoder to tiles, and writes its weights and recipe.

    On one machine the same tiles, seed, settings and threads give the same weights.

    Args:
        tiles: images with labels.
        folder: for weights and recipe.
        seed: decides the first weights and the crops.
        settings: length and size of the fit.
        threads: threads of torch during the fit; by default as many as torch has now.

    Raises:
        ConfigError: no tiles, pixels and labels of different shapes, or a tile smaller than a crop.
        StorageError: `folder` cannot be written.
    """
    _check(tiles, settings)
    recipe = _recipe(tiles)
    network = fit_network(partial(build_network, recipe), tiles, recipe, seed=seed, settings=settings, threads=threads)
    fitted = FittedNetwork(folder / "demo_weights.pth", folder / "demo.yaml")
    save_weights(fitted.weights, network.state_dict())
    save_recipe(fitted.recipe, recipe)
    return fitted


def fit_network(
    build: Callable[[], nn.Module],
    tiles: Sequence[TrainingTile],
    recipe: Recipe,
    *,
    seed: int,
    settings: FitSettings,
    threads: int | None = None,
) -> nn.Module:
    """Builds a network and fits it to tiles; returns it in evaluation mode.

    Args:
        build: makes the network of the recipe, with random weights that follow from the seed.
        tiles: images with labels, at least as large as a crop.
        recipe: its normalisation and classes; logit i is FLAIR value i + 1.
        seed, settings, threads: as `fit`.
    """
    with _seeded_torch(seed, threads):
        network = build()
        _train(network, tiles, recipe, seed=seed, settings=settings)
    return network


def _check(tiles: Sequence[TrainingTile], settings: FitSettings) -> None:
    if not tiles:
        raise ConfigError("no tiles to fit on: expected at least one")
    for tile in tiles:
        bands, *shape = tile.pixels.shape
        if tuple(shape) != tile.truth.shape or bands != 5 or min(shape) < settings.crop:
            raise ConfigError(
                f"tile {tile.name}: expected pixels (5, y, x) and labels (y, x) with sides of at least {settings.crop} "
                f"px; got {tile.pixels.shape} and {tile.truth.shape}"
            )


def _recipe(tiles: Sequence[TrainingTile]) -> Recipe:
    """A recipe with the means and deviations of the tiles' pixels."""
    pixels = np.concatenate([tile.pixels.reshape(5, -1) for tile in tiles], axis=1)
    return Recipe(
        name="demo",
        encoder=ENCODER,
        decoder_channels=DECODER_CHANNELS,
        mean=tuple(round(float(m), 2) for m in pixels.mean(axis=1)),
        std=tuple(round(max(float(s), 0.01), 2) for s in pixels.std(axis=1)),
        live=CLASSES,
        smallest_halo=SMALLEST_HALO,
        licence="apache-2.0",
        citation="landcover-pipeline's demo: a procedural landscape, no real place",
    )


def _train(
    network: nn.Module,
    tiles: Sequence[TrainingTile],
    recipe: Recipe,
    *,
    seed: int,
    settings: FitSettings,
) -> None:
    """Minimizes cross-entropy over the live logits; the others keep random weights, and inference must mask them."""
    live = torch.tensor([value - 1 for value in recipe.live])
    target_of = torch.full((256,), -1, dtype=torch.int64)
    target_of[live + 1] = torch.arange(len(live))
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (recipe.mean, recipe.std))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    network.train()
    # Convolutions are a third faster in this layout. Torch's type stubs lack this form of `to`.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = _crops(tiles, settings, np.random.default_rng(seed))
    for pixels, truth in islice(crops, settings.steps):
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
    tiles: Sequence[TrainingTile], settings: FitSettings, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yields batches (n, band, y, x) and (n, y, x) for ever; each crop is turned and flipped at random."""
    order: list[int] = []
    while True:
        pixels: list[NDArray[np.uint8]] = []
        truth: list[NDArray[np.uint8]] = []
        for _ in range(settings.batch):
            order = order or list(rng.permutation(len(tiles)))
            tile = tiles[order.pop()]
            y, x = (int(rng.integers(0, n - settings.crop + 1)) for n in tile.truth.shape)
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            where = (slice(y, y + settings.crop), slice(x, x + settings.crop))
            for into, array in ((pixels, tile.pixels[:, *where]), (truth, tile.truth[where])):
                turned = np.rot90(array, turns, axes=(-2, -1))
                into.append(turned[..., ::-1] if flip else turned)
        yield np.stack(pixels), np.stack(truth)


@contextmanager
def _seeded_torch(seed: int, threads: int | None) -> Iterator[None]:
    """Sets torch's seed and threads inside the block, and restores both after it."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            torch.set_num_threads(threads or before)
            yield
        finally:
            torch.set_num_threads(before)
