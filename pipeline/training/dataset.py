"""Labelled patches as a network takes them: split, augmented, and dealt to processes."""

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

IGNORE = 255
"""Label that the loss does not count."""

Index = tuple[int, int, bool]
"""(epoch, position, counted): a sample that is not counted only fills a process's last batch, its labels ignored."""
Sample = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Split:
    """Patches that train and patches that validate."""

    training: tuple[Patch, ...]
    validation: tuple[Patch, ...]


def split_patches(data: DataSection, *, seed: int) -> Split:
    """Finds and splits patches as the section says.

    Raises:
        DeliveryError: patches that are missing or none.
        ConfigError: a side is empty, or a patch stands on both.
    """
    patches = find_patches(data.places, metadata=data.metadata)
    rule = data.split
    if rule.by == "given":
        split = Split(patches, find_patches(rule.validation, metadata=data.metadata))
        if both := {p.image for p in split.training} & {p.image for p in split.validation}:
            raise ConfigError(f"{len(both)} patches train and validate, among them {min(both)}")
    elif rule.by == "domain":
        if unknown := set(rule.domains) - {p.domain for p in patches}:
            raise ConfigError(f"no patches of domains {', '.join(sorted(unknown))}")
        split = _divided(patches, [p.domain in rule.domains for p in patches])
    else:
        units = sorted({p.unit for p in patches})
        order = np.random.default_rng(seed).permutation(len(units))
        kept = {units[i] for i in order[: round(rule.share * len(units))]}
        split = _divided(patches, [p.unit not in kept for p in patches])
    if not split.training or not split.validation:
        raise ConfigError(
            f"split by {rule.by} gives {len(split.training)} patches to train and {len(split.validation)} to validate; "
            "expected some of each"
        )
    return split


def _divided(patches: Sequence[Patch], validates: Sequence[bool]) -> Split:
    sides = tuple(tuple(p for p, v in zip(patches, validates, strict=True) if v is side) for side in (False, True))
    return Split(*sides)


class Patches(Dataset[Sample]):
    """Patches by (epoch, position, counted): uint8 (band, y, x), and int64 (y, x), network indices or `IGNORE`."""

    def __init__(
        self, patches: Sequence[Patch], recipe: Recipe, *, augment: AugmentSection | None = None, seed: int = 0
    ) -> None:
        self.patches = tuple(patches)
        self.bands = recipe.bands
        self.augment = augment
        self.seed = seed
        self._labels = np.full(256, IGNORE, np.int64)
        # Labels over the recipe's classes are ignored, as what has no label is.
        self._labels[list(recipe.live)] = np.array(recipe.live) - 1

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: Index) -> Sample:
        epoch, position, counted = index
        patch = self.patches[position]
        pixels, labels = read_image(patch, bands=self.bands), self._labels[read_mask(patch)]
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, epoch, position))
            pixels, labels = augmented(pixels, labels, self.augment, rng=rng)
        if not counted:
            labels = np.full_like(labels, IGNORE)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(np.ascontiguousarray(labels))


def augmented(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], how: AugmentSection, *, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A patch cropped, flipped and turned at random; pixels (band, y, x) and labels (y, x) alike.

    Raises:
        ConfigError: a patch smaller than a crop.
    """
    height, width = labels.shape
    if how.crop is not None:
        if how.crop > min(height, width):
            raise ConfigError(f"augment.crop {how.crop} px is more than a patch of {height} × {width} px has")
        y, x = (int(rng.integers(0, n - how.crop + 1)) for n in (height, width))
        where = (slice(y, y + how.crop), slice(x, x + how.crop))
        pixels, labels = pixels[:, *where], labels[where]
    # Every draw is made whatever the others gave, so that a probability changes its own effect only.
    vertical, horizontal, turn = rng.random(3)
    quarters = int(rng.integers(4))
    if vertical < how.vertical_flip:
        pixels, labels = pixels[:, ::-1], labels[::-1]
    if horizontal < how.horizontal_flip:
        pixels, labels = pixels[..., ::-1], labels[:, ::-1]
    if turn < how.rotate_90:
        pixels, labels = np.rot90(pixels, quarters, axes=(1, 2)), np.rot90(labels, quarters)
    return pixels, labels


class Dealt(Sampler[Index]):
    """Each sample once an epoch over all processes, in an order that follows from seed and epoch.

    Process r takes every world-th sample from r on, so that n processes with batches of b see, step by step, what one
    process with batches of n × b sees. What fills the last process's share is not counted.
    """

    def __init__(self, size: int, *, seed: int, shuffle: bool, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.shuffle, self.rank, self.world = size, seed, shuffle, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says before each epoch which one it is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.size / self.world)

    def __iter__(self) -> Iterator[Index]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for place in range(self.rank, len(self) * self.world, self.world):
            yield self.epoch, int(order[place % self.size]), place < self.size
