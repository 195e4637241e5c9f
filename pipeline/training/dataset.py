"""Labelled patches for training: split into training and validation, augmented, and distributed over processes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from pipeline.config import Recipe
from pipeline.errors import ConfigError
from pipeline.sources.labels.patches import Patch, find_patches, read_image, read_mask
from pipeline.training.run_config import AugmentSection, DataSection

IGNORED_LABEL = 255
"""Label of pixels that the loss ignores."""

SampleIndex = tuple[int, int, bool]
"""(epoch, position, counted): a sample that is not counted fills a process's last batch, and its labels are ignored."""
Sample = tuple[torch.Tensor, torch.Tensor]
"""Pixels, uint8 (band, y, x), and labels, int64 (y, x): network indices or `IGNORED_LABEL`."""


@dataclass(frozen=True)
class Split:
    """Patches for training and patches for validation."""

    training: tuple[Patch, ...]
    validation: tuple[Patch, ...]


def split_patches(data: DataSection, *, seed: int) -> Split:
    """Finds the patches and splits them.

    Args:
        data: the patches, and the rule of the split.
        seed: decides which zones train.

    Raises:
        DeliveryError: patches are missing, or there are none.
        ConfigError: one side is empty, or a patch is on both sides.
    """
    patches = find_patches(data.places, metadata=data.metadata)
    rule = data.split
    if rule.by == "given":
        split = Split(patches, find_patches(rule.validation, metadata=data.metadata))
        if both := {p.image for p in split.training} & {p.image for p in split.validation}:
            raise ConfigError(f"{len(both)} patches are in training and in validation, such as {min(both)}")
    elif rule.by == "domain":
        if unknown := set(rule.domains) - {p.domain for p in patches}:
            raise ConfigError(f"there are no patches of domains {', '.join(sorted(unknown))}")
        split = _split_by(patches, [p.domain in rule.domains for p in patches])
    else:
        units = sorted({p.unit for p in patches})
        order = np.random.default_rng(seed).permutation(len(units))
        kept = {units[i] for i in order[: round(rule.share * len(units))]}
        split = _split_by(patches, [p.unit not in kept for p in patches])
    if not split.training or not split.validation:
        raise ConfigError(
            f"the split by {rule.by} gives {len(split.training)} patches for training and {len(split.validation)} for "
            "validation; expected at least one of each"
        )
    return split


def _split_by(patches: Sequence[Patch], validates: Sequence[bool]) -> Split:
    sides = tuple(tuple(p for p, v in zip(patches, validates, strict=True) if v is side) for side in (False, True))
    return Split(*sides)


class PatchDataset(Dataset[Sample]):
    """Reads and augments patches by epoch and position."""

    def __init__(
        self, patches: Sequence[Patch], recipe: Recipe, *, augment: AugmentSection | None = None, seed: int = 0
    ) -> None:
        self.patches = tuple(patches)
        self.bands = recipe.bands
        self.augment = augment
        self.seed = seed
        self._labels = np.full(256, IGNORED_LABEL, np.int64)
        # A label is its class's logit. Labels that are not live classes are ignored, like pixels without a label.
        self._labels[list(recipe.live)] = recipe.live_logits

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: SampleIndex) -> Sample:
        epoch, position, counted = index
        patch = self.patches[position]
        pixels, labels = read_image(patch, bands=self.bands), self._labels[read_mask(patch)]
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, epoch, position))
            pixels, labels = augment(pixels, labels, self.augment, rng=rng)
        if not counted:
            labels = np.full_like(labels, IGNORED_LABEL)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(np.ascontiguousarray(labels))


def augment(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], how: AugmentSection, *, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Crops, flips and turns a patch at random: pixels (band, y, x) and labels (y, x) in the same way.

    Raises:
        ConfigError: the patch is smaller than a crop.
    """
    height, width = labels.shape
    if how.crop is not None:
        if how.crop > min(height, width):
            raise ConfigError(f"augment.crop {how.crop} px exceeds the patch of {height} × {width} px")
        y, x = (int(rng.integers(0, n - how.crop + 1)) for n in (height, width))
        where = (slice(y, y + how.crop), slice(x, x + how.crop))
        pixels, labels = pixels[:, *where], labels[where]
    # All numbers are always drawn, so that a probability changes only its own effect.
    vertical, horizontal, turn = rng.random(3)
    quarters = int(rng.integers(4))
    if vertical < how.vertical_flip:
        pixels, labels = pixels[:, ::-1], labels[::-1]
    if horizontal < how.horizontal_flip:
        pixels, labels = pixels[..., ::-1], labels[:, ::-1]
    if turn < how.rotate_90:
        pixels, labels = np.rot90(pixels, quarters, axes=(1, 2)), np.rot90(labels, quarters)
    return pixels, labels


class PatchSampler(Sampler[SampleIndex]):
    """Gives each sample to one process in each epoch, in an order that follows from seed and epoch.

    Process r of n takes every n-th sample from r on. In each step, n processes with batches of b therefore see the
    samples that one process with batches of n × b sees. Samples that only fill up a process's share are not counted.
    """

    def __init__(self, size: int, *, seed: int, shuffle: bool, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.shuffle, self.rank, self.world = size, seed, shuffle, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls it before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.size / self.world)

    def __iter__(self) -> Iterator[SampleIndex]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for place in range(self.rank, len(self) * self.world, self.world):
            yield self.epoch, int(order[place % self.size]), place < self.size
