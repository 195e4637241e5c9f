"""Bootstrap, figures and page of an evaluation."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import EvaluationError
from pipeline.evaluation import figures, scores
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.evaluation_report import Evaluation, evaluation_page
from pipeline.evaluation.intervals import bootstrap
from pipeline.runs.accuracy.scoring import write_evaluation


def zones(count: int = 30, spread: float = 0.15) -> np.ndarray:
    """Confusion matrices (zone, 3, 3) of zones that differ in accuracy."""
    rng = np.random.default_rng(3)
    found = np.zeros((count, 3, 3), np.int64)
    for zone in found:
        right = np.clip(rng.normal(0.8, spread), 0.05, 1)
        for k in range(3):
            shares = np.full(3, (1 - right) / 2)
            shares[k] = right
            zone[k] = rng.multinomial(rng.integers(500, 1500), shares)
    return found


def test_the_bootstrap_equals_a_plain_loop_and_repeats_with_its_seed() -> None:
    matrices = zones()
    found = bootstrap(matrices, live=(0, 1, 2), draws=400, seed=5)
    rng = np.random.default_rng(5)
    counts = rng.multinomial(len(matrices), np.full(len(matrices), 1 / len(matrices)), size=400)
    accuracies = []
    for drawn in counts:
        matrix = sum(times * m for times, m in zip(drawn, matrices, strict=True))
        accuracies.append(scores(matrix, live=(0, 1, 2))["oa"])
    assert found.means["oa"] == pytest.approx(tuple(np.percentile(accuracies, (2.5, 97.5))))
    assert found == bootstrap(matrices, live=(0, 1, 2), draws=400, seed=5)
    assert found != bootstrap(matrices, live=(0, 1, 2), draws=400, seed=6)


def test_a_class_of_one_zone_is_scored_from_the_draws_that_have_it() -> None:
    matrices = np.zeros((4, 3, 3), np.int64)
    matrices[:, 0, 0] = 100
    matrices[0, 1] = (10, 90, 0)
    found = bootstrap(matrices, live=(0, 1, 2))
    assert found.by_class["recall"][1] == pytest.approx((0.9, 0.9))
    assert np.isnan(found.by_class["recall"][2]).all(), "no zone has class 2"


def test_intervals_contain_the_score_and_widen_with_the_spread_of_zones() -> None:
    def width(spread: float) -> float:
        matrices = zones(spread=spread)
        low, high = bootstrap(matrices, live=(0, 1, 2)).means["oa"]
        assert low < scores(matrices.sum(axis=0), live=(0, 1, 2))["oa"] < high
        return high - low

    assert width(0.01) < width(0.15)


def test_one_zone_gives_no_interval() -> None:
    with pytest.raises(EvaluationError, match="two or more"):
        bootstrap(zones(1), live=(0, 1, 2))


def test_the_page_shows_every_score_and_needs_no_other_file() -> None:
    matrices = zones()
    matrix = np.zeros((19, 19), np.int64)
    matrix[:3, :3] = matrices.sum(axis=0)
    given = Evaluation(
        "A <map>",
        matrix,
        live=(0, 1, 2, 3),
        by_domain={"D004_2021": matrix, "D006_2020": matrix},
        intervals=bootstrap(np.pad(matrices, ((0, 0), (0, 16), (0, 16))), live=(0, 1, 2, 3), draws=50),
        about={"weights": "a & b"},
        reliability=Reliability.of(np.array([0.3, 0.9]), np.array([False, True])),
    )
    written = evaluation_page(given)
    assert "A &lt;map&gt;" in written
    assert "a &amp; b" in written
    assert f"{100 * given.scored('legacy')['miou']:.3f}" in written
    assert f"{100 * given.scored('present')['miou']:.3f}" in written
    assert written.count("absent") == 4  # bare soil's figures
    assert written.count("data:image/png;base64,") == 3
    assert "D006_2020" in written
    assert not re.findall(r'(?:src|href)="(?!data:)', written)


def test_intervals_over_few_zones_carry_a_warning() -> None:
    for count, warned in ((9, True), (10, False)):
        matrices = np.tile(np.diag([5, 4, 3]), (count, 1, 1))
        given = Evaluation("few", matrices.sum(axis=0), live=(0, 1, 2), intervals=bootstrap(matrices, live=(0, 1, 2)))
        assert ("bootstrap over 9 zones. Below 10" in given.few_units) == warned
        assert ("too narrow" in evaluation_page(given)) == warned


def test_a_class_that_was_never_mapped_has_no_precision_anywhere(tmp_path: Path) -> None:
    """Water is never mapped, bare soil never occurs, brushwood does neither."""
    matrix = np.zeros((19, 19), np.int64)
    matrix[0, 0], matrix[4, 0], matrix[0, 3] = 90, 7, 3
    given = Evaluation("m", matrix, live=(0, 3, 4, 7), by_domain={"D034_2021": np.zeros_like(matrix)})
    write_evaluation(tmp_path, given)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["per_class_precision"] == [pytest.approx(100 * 90 / 97), 0, None, None]
    assert written["per_class_recall"] == [pytest.approx(100 * 90 / 93), None, 0, None]
    assert written["per_class_iou"] == [90, 0, 0, None]
    assert written["per_class_fscore"][3] is None
    assert written["by_domain"]["D034_2021"]["present"] == dict.fromkeys(written["modes"]["present"])
    assert written["modes"]["legacy"]["mprecision"] == pytest.approx(90 / 97 / 4), "IGN's rule"
    assert written["modes"]["present"]["mprecision"] == pytest.approx(90 / 97 / 2)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>–</td>") == 2 + 2, "water's precision, bare soil's recall, two of the empty domain"
    assert "nan" not in page


@pytest.mark.parametrize("by", ["precision", "recall"])
def test_a_confusion_figure_is_drawn_also_of_nothing(by: figures.By) -> None:
    with Image.open(io.BytesIO(figures.confusion(np.zeros((2, 2), np.int64), ("a", "b"), by=by))) as picture:
        assert min(picture.size) > 200
