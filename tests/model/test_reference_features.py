"""The reference of features: independent formulas for shrinkage, distance and pooling; files that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Recipe
from pipeline.errors import EvaluationError, WeightsError
from pipeline.model.reference_features import ReferenceFile, fit_reference, pool_squares, shrunk_covariance
from tests.support.campaigns import RECIPE

TINY = Recipe(**RECIPE)  # type: ignore[arg-type]


def squares(count: int = 120, channels: int = 30, seed: int = 0, away: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(channels, channels))
    return (rng.normal(size=(count, channels)) @ mixing + away).astype(np.float32)


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_state_it() -> None:
    values = squares(25, 40).astype(float)
    values -= values.mean(axis=0)
    n, channels = values.shape
    sample = np.mean([np.outer(x, x) for x in values], axis=0)
    # Lemma 3.1 to 3.4 and equation 14 of the paper, with the norm |A|² = tr(A Aᵀ) / p.
    m = np.trace(sample) / channels
    d2 = ((sample - m * np.eye(channels)) ** 2).sum() / channels
    b2 = min(d2, sum(((np.outer(x, x) - sample) ** 2).sum() / channels for x in values) / n**2)
    expected = b2 / d2 * m * np.eye(channels) + (1 - b2 / d2) * sample
    np.testing.assert_allclose(shrunk_covariance(values), expected)
    assert np.linalg.cond(expected) < 1e3 < np.linalg.cond(sample)


def test_distances_are_mahalanobis_and_the_threshold_is_of_zones_left_out() -> None:
    values, zones = squares(), [f"Z{k // 10}" for k in range(120)]
    found = fit_reference(values, zones, weights_sha256="aa", recipe=TINY)
    deviation = values.std(axis=0, dtype=np.float64)
    centred = (values - values.mean(axis=0, dtype=np.float64)) / np.maximum(deviation, 0.1 * deviation.mean())
    inverse = np.linalg.inv(shrunk_covariance(centred))
    expected = [np.sqrt(x @ inverse @ x / len(x)) for x in centred]
    np.testing.assert_allclose(found.novelty(values) * found.threshold, expected)
    names = sorted(set(zones))
    index = np.array([names.index(z) for z in zones])
    left_out = []
    for zone in range(12):
        # Five folds: two or three zones are left out at once.
        rest = values[index % 5 != zone % 5].astype(float)
        deviation = np.maximum(rest.std(axis=0), 0.1 * rest.std(axis=0).mean())
        inverse = np.linalg.inv(shrunk_covariance((rest - rest.mean(axis=0)) / deviation))
        away = (values[index == zone] - rest.mean(axis=0)) / deviation
        left_out.append(np.mean([np.sqrt(x @ inverse @ x / len(x)) for x in away]))
    assert found.threshold == pytest.approx(np.quantile(left_out, 0.99))
    # New zones of the same kind exceed 1 in one of 13 cases; fitted ones never; others nearly always.
    fresh = (found.novelty(squares(2_000, seed=1)).reshape(-1, 10).mean(axis=1) > 1).mean()
    assert 0.01 < fresh < 2 / 13
    assert found.novelty(values).reshape(-1, 10).mean(axis=1).max() < 1
    assert (found.novelty(squares(500, seed=2, away=25.0)).reshape(-1, 10).mean(axis=1) > 1).mean() > 0.9
    with pytest.raises(EvaluationError, match="found 1 zones"):
        fit_reference(values, ["Z"] * 120, weights_sha256="aa", recipe=TINY)
    with pytest.raises(EvaluationError, match="and 12 squares"):
        fit_reference(values[:12], zones[4:16], weights_sha256="aa", recipe=TINY)


def test_squares_are_means_of_the_cores_cells_with_data() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 20, 20)).astype(np.float32)
    valid = np.ones((640, 640), bool)
    # Rows 40..599 have the whole cells 2..17: two squares of eight. Columns 0..327 have the cells 0..9: one square.
    found = pool_squares(features, valid, (slice(40, 600), slice(0, 328)))
    expected = [features[:, a:b, 0:10].mean(axis=(1, 2)) for a, b in ((2, 10), (10, 18))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    valid[:320, :320] = False
    (half,) = pool_squares(features, valid, (slice(320, 640), slice(0, 320)))
    np.testing.assert_allclose(half, features[:, 10:, :10].mean(axis=(1, 2)), rtol=1e-5)
    assert pool_squares(features, valid, (slice(0, 320), slice(0, 320))).shape == (0, 3)
    assert pool_squares(features, valid, (slice(33, 63), slice(0, 320))).shape == (0, 3), "no whole cell"


def test_a_file_is_read_as_it_was_written_and_others_are_refused(tmp_path: Path) -> None:
    found = fit_reference(squares(), [f"Z{k // 10}" for k in range(120)], weights_sha256="aa", recipe=TINY)
    path = tmp_path / "reference.safetensors"
    found.save(path)
    first = path.read_bytes()
    found.save(path)
    assert path.read_bytes() == first
    file = ReferenceFile.of(path)
    np.testing.assert_array_equal(file.load().novelty(squares(5)), found.novelty(squares(5)))
    file.check_fits("aa", TINY.model_copy(update={"temperature": 2.0}))
    with pytest.raises(WeightsError, match="made with another weight: aa, expected bb"):
        file.check_fits("bb", TINY)
    with pytest.raises(WeightsError, match="made with another recipe"):
        file.check_fits("aa", TINY.model_copy(update={"mean": (1.0,) * 5}))
    path.write_bytes(first[:-1])
    with pytest.raises(WeightsError, match="changed while it was used"):
        replace(file, sha256="0" * 64).load()
    with pytest.raises(WeightsError, match="not a reference of features"):
        ReferenceFile.of(path).load()
    for content in (b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="not a reference of features"):
            ReferenceFile.of(path).load()
    with pytest.raises(WeightsError, match="calibrate --reference"):
        ReferenceFile.of(tmp_path / "none")
