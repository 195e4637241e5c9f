"""Confusion matrix and scores against scikit-learn, against IGN's rule, and against the published table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import confusion_matrix as by_sklearn
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from pipeline.errors import EvaluationError
from pipeline.evaluation import confusion_matrix, metrics, scores
from pipeline.evaluation.metrics import as_ign

CARD = {
    "building": (82.564, 90.449, 90.412, 90.486),
    "pervious surface": (54.149, 70.255, 70.723, 69.794),
    "impervious surface": (73.807, 84.930, 85.848, 84.032),
    "bare soil": (59.013, 74.224, 78.795, 70.154),
    "water": (87.216, 93.172, 91.692, 94.699),
    "coniferous": (61.591, 76.231, 79.304, 73.387),
    "deciduous": (72.225, 83.873, 81.728, 86.133),
    "brushwood": (31.187, 47.546, 57.056, 40.754),
    "vineyard": (76.105, 86.432, 84.264, 88.714),
    "herbaceous vegetation": (51.340, 67.847, 70.134, 65.705),
    "agricultural land": (57.558, 73.063, 67.249, 79.978),
    "plowed land": (45.840, 62.863, 61.094, 64.737),
}
"""IoU, F-score, precision, recall in percent, as the card of FLAIR-INC_rgbie_12cl_resnet34-unet publishes them."""
CARD_MEANS = (62.716, 75.907, 76.525, 75.714)


def labels(n: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    shape = st.shared(npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=12), key="shape")
    truth = npst.arrays(np.uint8, shape, elements=st.sampled_from([*range(n), 255]))
    return st.tuples(truth, npst.arrays(np.uint8, shape, elements=st.integers(0, n - 1)))


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(drawn=st.integers(1, 19).flatmap(lambda n: st.tuples(st.just(n), labels(n))))
def test_the_matrix_is_that_of_scikit_learn(drawn: tuple[int, tuple[np.ndarray, np.ndarray]]) -> None:
    n, (truth, prediction) = drawn
    counted = truth != 255
    expected = np.zeros((n, n), int)
    if counted.any():
        expected = by_sklearn(truth[counted], prediction[counted], labels=range(n))
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, n), expected)


@given(labels(7), st.integers(1, 50))
def test_parts_add_up_to_the_whole_whatever_is_counted_at_once(
    drawn: tuple[np.ndarray, np.ndarray], strip: int
) -> None:
    truth, prediction = (a.ravel() for a in drawn)
    whole = confusion_matrix(truth, prediction, 7)
    cut = truth.size // 3
    parts = confusion_matrix(truth[cut:], prediction[cut:], 7) + confusion_matrix(truth[:cut], prediction[:cut], 7)
    np.testing.assert_array_equal(parts, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_STRIP", strip)
        np.testing.assert_array_equal(confusion_matrix(truth, prediction, 7), whole)


def test_nodata_minus_one_is_ignored_in_both_types_whatever_was_predicted() -> None:
    mask = np.array([0, 1, 2, 0], np.uint8)
    for truth in (mask - np.uint8(1), mask.astype(np.int16) - 1):
        matrix = confusion_matrix(truth, np.array([200, 0, 0, 77]), 2)
        np.testing.assert_array_equal(matrix, [[1, 0], [1, 0]])


def test_nothing_counted_gives_no_scores() -> None:
    matrix = confusion_matrix(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 3)
    assert not matrix.any()
    for mode in metrics.MODES:
        found = scores(matrix, live=(0, 1), mode=mode)
        assert np.isnan([found["oa"], *found["iou"], *found["precision"], *found["recall"], *found["fscore"]]).all()
        # IGN's rule counts what does not exist as 0.
        assert found["miou"] == 0 if mode == "legacy" else np.isnan(found["miou"])
    assert confusion_matrix([], [], 3).sum() == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "n", "said"),
    [
        ([0, 19], [0, 0], 19, r"truth has labels \[19\]; expected network indices 0..18"),
        ([0, -2], [0, 0], 19, r"truth has labels \[-2\]"),
        ([0, 0], [0, 19], 19, r"prediction has labels \[19\]"),
        ([0, 0], [0, 255], 19, r"prediction has labels \[255\]"),
        ([0, 0], [0], 19, r"one shape, got \(2,\) and \(1,\)"),
        ([0.0], [0], 19, "truth in integers"),
        ([0], [True], 19, "prediction in integers"),
        ([0], [0], 0, "1..255 classes, got 0"),
        ([0], [0], 256, "1..255 classes, got 256"),
    ],
)
def test_what_is_no_label_is_refused(truth: list[int], prediction: list[int], n: int, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        confusion_matrix(truth, prediction, n)


def test_the_published_table_is_consistent_with_our_formulas() -> None:
    iou, fscore, precision, recall = np.array(list(CARD.values())).T / 100
    # Any matrix with these column and row sums will do: one hit count, the rest in a thirteenth, judged class.
    for k in range(12):
        hits = 1e12
        false_alarms, misses = hits / precision[k] - hits, hits / recall[k] - hits
        found = scores(np.array([[hits, misses], [false_alarms, 0]]), live=(0, 1))
        assert found["precision"][0] == pytest.approx(precision[k])
        assert found["recall"][0] == pytest.approx(recall[k])
        assert found["fscore"][0] == pytest.approx(fscore[k], abs=1e-5)
        assert found["iou"][0] == pytest.approx(iou[k], abs=1e-5)
        assert found["iou"][0] == pytest.approx(found["fscore"][0] / (2 - found["fscore"][0]))
    assert 100 * np.mean([iou, fscore, precision, recall], axis=1) == pytest.approx(CARD_MEANS, abs=6e-4)


@given(npst.arrays(np.int64, (6, 6), elements=st.integers(0, 9)), st.sets(st.integers(0, 5), min_size=1))
def test_legacy_deletes_rows_and_columns_and_counts_absent_classes_as_nothing(
    matrix: np.ndarray, chosen: set[int]
) -> None:
    live = sorted(chosen)
    # IGN's rule, step by step: weight 0 → delete rows, delete columns, ratios, NaN → 0, plain means.
    unused = [i for i in range(6) if i not in chosen]
    cleaned = np.delete(np.delete(matrix, unused, axis=0), unused, axis=1)
    hits = np.diag(cleaned)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.nan_to_num(hits / cleaned.sum(axis=0))
        recall = np.nan_to_num(hits / cleaned.sum(axis=1))
        expected = {
            "iou": np.nan_to_num(hits / (cleaned.sum(axis=0) + cleaned.sum(axis=1) - hits)),
            "precision": precision,
            "recall": recall,
            "fscore": np.nan_to_num(2 * precision * recall / (precision + recall)),
        }
        oa = np.trace(cleaned) / cleaned.sum()
    found = scores(matrix, live=live, mode="legacy")
    assert found["oa"] == pytest.approx(oa, nan_ok=True)
    for name, values in expected.items():
        np.testing.assert_allclose(np.nan_to_num(found[name]), values)
        assert found["m" + name] == pytest.approx(values.mean())


def test_present_takes_means_over_the_figures_that_exist() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, 500), rng.integers(0, 5, 500)  # 4 is only predicted, 5 never occurs
    found = scores(confusion_matrix(truth, prediction, 6), live=range(6), mode="present")
    assert found["present"].tolist() == [True] * 5 + [False]
    occurring = {"labels": range(5), "average": "macro", "zero_division": np.nan}
    # scikit-learn's Jaccard score takes no NaN, and every class here has one.
    assert found["miou"] == pytest.approx(jaccard_score(truth, prediction, **occurring | {"zero_division": 0}))
    assert found["mfscore"] == pytest.approx(f1_score(truth, prediction, **occurring))
    assert found["mprecision"] == pytest.approx(precision_score(truth, prediction, **occurring))
    assert found["mrecall"] == pytest.approx(recall_score(truth, prediction, **occurring))
    assert np.isnan(found["recall"][4]), "never occurs in the truth"
    assert found["precision"][4] == 0, "is on the map, and always wrong"
    assert found["miou"] * 5 / 6 == pytest.approx(scores(confusion_matrix(truth, prediction, 6), live=range(6))["miou"])


def test_one_class_that_is_always_right_scores_one() -> None:
    for mode in metrics.MODES:
        found = scores(confusion_matrix([0, 0], [0, 0], 1), live=(0,), mode=mode)
        assert [found[k] for k in ("oa", "miou", "mfscore", "mprecision", "mrecall")] == [1] * 5


@pytest.mark.parametrize(
    ("matrix", "live", "mode", "said"),
    [
        (np.ones((2, 3)), (0,), "legacy", "square matrix"),
        (-np.ones((2, 2)), (0,), "legacy", "square matrix"),
        (np.ones((2, 2)), (), "legacy", r"live classes of 0..1, each once; got \[\]"),
        (np.ones((2, 2)), (0, 0), "legacy", "each once"),
        (np.ones((2, 2)), (2,), "legacy", "live classes"),
        (np.ones((2, 2)), (0,), "new", "unknown mode 'new': expected legacy or present"),
    ],
)
def test_what_cannot_be_scored_is_refused(matrix: np.ndarray, live: tuple[int, ...], mode: str, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        scores(matrix, live=live, mode=mode)  # type: ignore[arg-type]


def test_metrics_json_has_the_keys_of_ign_in_percent() -> None:
    written = as_ign(scores(np.array([[3, 1, 0], [1, 3, 0], [0, 0, 9]]), live=(0, 1)), live=(0, 1))
    assert written["Avg_metrics_name"] == ["mIoU", "Overall Accuracy", "Fscore", "Precision", "Recall"]
    assert written["Avg_metrics"] == pytest.approx([60, 75, 75, 75, 75])
    assert written["classes"] == ["building", "pervious surface"]
    assert written["per_class_iou"] == pytest.approx([60, 60])
    assert {"per_class_fscore", "per_class_precision", "per_class_recall"} <= written.keys()
