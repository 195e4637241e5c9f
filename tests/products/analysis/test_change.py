"""What two maps of one ground say of change, in small cases that can be counted by hand."""

import numpy as np
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import xarray as xr
from numpy.typing import NDArray

from pipeline.errors import EvaluationError, ProductError
from pipeline.products.analysis.change import CHANGED, STABLE, UNCERTAIN, change


def made_up(classes: NDArray[np.uint8], confidence: int | NDArray[np.uint8] = 255, *, left: float = 0.0) -> xr.Dataset:
    rows, cols = classes.shape
    layers = {
        "landcover": (("y", "x"), classes),
        "confidence": (("y", "x"), np.broadcast_to(np.uint8(confidence), classes.shape)),
    }
    coordinates = {"y": 100 - 0.2 * (np.arange(rows) + 0.5), "x": left + 0.2 * (np.arange(cols) + 0.5)}
    product: xr.Dataset = xr.Dataset(layers, coords=coordinates).rio.write_crs(2154)
    return product


def test_the_matrix_has_hectares_by_class_and_small_patches_are_uncertain() -> None:
    before = np.ones((10, 12), np.uint8)
    after = before.copy()
    after[:4, :5] = 7  # 20 px
    after[9, 11] = 9  # a patch of one
    found = change(made_up(before), made_up(after), min_area_m2=0.1)
    pixel_ha = 0.04 / 10_000
    assert found.matrix.loc["building", "deciduous"] == pytest.approx(20 * pixel_ha)
    assert "vineyard" not in found.matrix.columns
    assert found.matrix.to_numpy().sum() == pytest.approx(119 * pixel_ha)
    assert found.changed_share == pytest.approx(21 / 120)
    assert found.changed_share_after_filter == pytest.approx(20 / 119)
    assert "17.50% of the certain pixels changed class before the minimum-area filter, 16.81% after it" in str(found)
    whole = change(made_up(before), made_up(after))
    assert whole.changed_share_after_filter == whole.changed_share
    alone = change(made_up(before), made_up(np.full_like(after, 7)), min_area_m2=5)
    assert alone.changed_share == 1
    assert np.isnan(alone.changed_share_after_filter)
    assert "none is left after it" in str(alone)
    state = found.map.to_numpy()
    assert [(state == s).sum() for s in (STABLE, CHANGED, UNCERTAIN)] == [99, 20, 1]
    # Certain maps: errors alone show nothing.
    assert found.if_independent == found.if_together == 0


def test_errors_alone_show_between_what_they_show_together_and_apart() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(1, 13, (200, 200)).astype(np.uint8)
    wrong = (truth % 12 + 1).astype(np.uint8)
    p, q = 0.9, 0.7
    luck = rng.random((2, 200, 200))
    for together, says in ((False, "if_independent"), (True, "if_together")):
        other_luck = luck[0] if together else luck[1]
        first = np.where(luck[0] < p, truth, wrong)
        # An error of the second map is another class than one of the first: two errors never agree here.
        second = np.where(other_luck < q, truth, first if together else (wrong % 12 + 1).astype(np.uint8))
        found = change(made_up(first, round(255 * p)), made_up(second, round(255 * q)))
        if together:
            second_differs = float((np.where(luck[0] < p, truth, wrong) != np.where(luck[0] < q, truth, wrong)).mean())
            assert getattr(found, says) == pytest.approx(second_differs, abs=0.02)
        else:
            assert getattr(found, says) == pytest.approx(found.changed_share, abs=0.02)


def test_only_shared_ground_on_one_lattice_is_compared() -> None:
    one = made_up(np.ones((10, 10), np.uint8))
    shifted = made_up(np.full((10, 10), 2, np.uint8), left=1.0)
    found = change(one, shifted)
    assert found.map.shape == (10, 5)
    with pytest.raises(ProductError, match="different lattices"):
        change(one, made_up(np.ones((10, 10), np.uint8), left=0.1))
    with pytest.raises(ProductError, match="share 0 Mpx"):
        change(one, made_up(np.ones((10, 10), np.uint8), left=100.0))
    with pytest.raises(EvaluationError, match="no pixel has a confidence of"):
        change(made_up(np.ones((10, 10), np.uint8), 20), one, min_confidence=0.9)
