"""Patches are split, labelled for the recipe, augmented, and distributed over processes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Recipe
from pipeline.errors import ConfigError
from pipeline.training.dataset import IGNORED_LABEL, PatchDataset, PatchSampler, augment, split_patches
from pipeline.training.run_config import AugmentSection, DataSection
from tests.support.campaigns import RECIPE
from tests.support.flair_dataset import random_set, write_pair

NO_CHANGE = AugmentSection(vertical_flip=0, horizontal_flip=0, rotate_90=0)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_set(tmp_path_factory.mktemp("set"), zones=10, patches=3, side=32)


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.5, 0.8]))
def test_a_zone_is_on_one_side_only(places: Path, seed: int, share: float) -> None:
    data = DataSection(places=(places,), split={"by": "zone", "share": share})  # type: ignore[arg-type]
    split = split_patches(data, seed=seed)
    sides = [{p.unit for p in side} for side in (split.training, split.validation)]
    assert not sides[0] & sides[1]
    assert (len(sides[0]), len(sides[1])) == (round(10 * share), 10 - round(10 * share))
    assert len(split.training) + len(split.validation) == 30
    assert split == split_patches(data, seed=seed)


def test_validation_can_be_domains_or_other_places(places: Path, tmp_path: Path) -> None:
    by_domain = DataSection(places=(places,), split={"by": "domain", "domains": ("D011_2021",)})  # type: ignore[arg-type]
    split = split_patches(by_domain, seed=0)
    assert {p.domain for p in split.training} == {"D010_2021"}
    assert {p.domain for p in split.validation} == {"D011_2021"}
    other = random_set(tmp_path / "other", zones=1, patches=1, side=32)
    given_ = DataSection(places=(places,), split={"by": "given", "validation": (other,)})  # type: ignore[arg-type]
    split = split_patches(given_, seed=0)
    assert (len(split.training), len(split.validation)) == (30, 1)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"by": "domain", "domains": ("D099_2021",)}, "no patches of domains D099_2021"),
        ({"by": "domain", "domains": ("D010_2021", "D011_2021")}, "gives 0 patches for training and 30 for"),
        ({"by": "zone", "share": 0.01}, "gives 0 patches for training"),
    ],
)
def test_an_empty_or_overlapping_side_is_refused(places: Path, rule: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_patches(DataSection(places=(places,), split=rule), seed=0)  # type: ignore[arg-type]
    same = {"by": "given", "validation": (places,)}
    with pytest.raises(ConfigError, match="30 patches are in training and in validation"):
        split_patches(DataSection(places=(places,), split=same), seed=0)  # type: ignore[arg-type]


def test_labels_that_are_not_live_classes_are_ignored(tmp_path: Path) -> None:
    mask = np.repeat(np.arange(20, dtype=np.uint8), 32)[:640].reshape(20, 32)
    write_pair(tmp_path, 1, pixels=np.ones((5, 20, 32), np.uint8), mask=mask)
    split = DataSection(places=(tmp_path,), split={"by": "given", "validation": (tmp_path,)})  # type: ignore[arg-type]
    from pipeline.sources.labels.patches import find_patches

    _, labels = PatchDataset(find_patches(split.places), Recipe(**RECIPE))[0, 0, True]  # type: ignore[arg-type]
    assert labels[:, 0].tolist() == [IGNORED_LABEL, *range(12), *[IGNORED_LABEL] * 7]
    _, uncounted = PatchDataset(find_patches(split.places), Recipe(**RECIPE))[0, 0, False]  # type: ignore[arg-type]
    assert (uncounted == IGNORED_LABEL).all()
    turned = Recipe(**RECIPE | {"logit_values": tuple(range(19, 0, -1))})  # type: ignore[arg-type]
    _, labels = PatchDataset(find_patches(split.places), turned)[0, 0, True]
    assert labels[:, 0].tolist() == [IGNORED_LABEL, *range(18, 6, -1), *[IGNORED_LABEL] * 7], "a label is a logit"


def test_augmentation_is_reproducible_and_moves_labels_with_pixels(places: Path) -> None:
    split = split_patches(DataSection(places=(places,)), seed=0)
    recipe = Recipe(**RECIPE)  # type: ignore[arg-type]
    first, again = (PatchDataset(split.training, recipe, augment=AugmentSection(crop=32), seed=3) for _ in range(2))
    for position in (0, 5):
        for epoch in (0, 1):
            np.testing.assert_array_equal(first[epoch, position, True][0], again[epoch, position, True][0])
    seen = {first[epoch, 0, True][0].numpy().tobytes() for epoch in range(40)}
    assert len(seen) == 8, "flips and turns make the eight symmetries of a square"
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 255, (32, 32))
    pixels = np.stack([labels.astype(np.uint8)] * 2)
    for seed in range(30):
        moved, with_it = augment(pixels, labels, AugmentSection(crop=32), rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(moved[1], with_it)
    same, _ = augment(pixels, labels, NO_CHANGE, rng=rng)
    np.testing.assert_array_equal(same, pixels)
    with pytest.raises(ConfigError, match="crop 64 px exceeds the patch of 32 × 32"):
        augment(pixels, labels, AugmentSection(crop=64), rng=rng)


def test_a_flip_is_as_frequent_as_its_probability() -> None:
    labels = np.arange(16).reshape(4, 4)
    pixels = labels.astype(np.uint8)[None]
    kept = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        moved, _ = augment(pixels, labels, AugmentSection(horizontal_flip=0, rotate_90=0), rng=rng)
        kept += int(moved[0, 0, 0] == 0)
    assert abs(kept / 2000 - 0.5) < 0.04


@given(
    size=st.integers(1, 40),
    world=st.integers(1, 5),
    batch=st.integers(1, 4),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_processes_share_samples_step_by_step_like_one_process(
    size: int, world: int, batch: int, epoch: int, seed: int
) -> None:
    def share_of(rank: int, of: int) -> list[tuple[int, int, bool]]:
        sampler = PatchSampler(size, seed=seed, shuffle=True, rank=rank, world=of)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    alone = share_of(0, 1)
    shares = [share_of(rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "processes with more steps would wait for ever"
    assert sorted(i for share in shares for _, i, counted in share if counted) == list(range(size))
    for start in range(0, len(shares[0]), batch):
        together = {i for share in shares for _, i, counted in share[start : start + batch] if counted}
        assert together == {i for _, i, _ in alone[start * world : (start + batch) * world]}
