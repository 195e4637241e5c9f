"""The report of a quantized network: values as JSON, and one HTML page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.evaluation.product_charts import picture
from pipeline.html_page import render
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.model import Model
from pipeline.products.gis.overviews import class_colours
from pipeline.runs.quantization.unseen_domains import SchemeResult
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit

_SHOWN = 6
"""Windows with the least agreement that are shown as pictures."""


def report_json(
    model: Model, quantized: QuantizedModel, windows: WindowSplit, trials: Sequence[SchemeResult]
) -> dict[str, Any]:
    """The report's values; the last of `trials` is the scheme that was kept."""
    last, kept = trials[-1], trials[-1].seen
    values = sorted(set(np.flatnonzero(kept.confusion.sum(axis=0) + kept.confusion.sum(axis=1)).tolist()))
    return {
        "weights_sha256": model.weights_hash,
        "recipe": model.recipe.model_dump(mode="json"),
        "quantized_sha256": quantized.sha256,
        "scheme": last.scheme,
        "measured_on": "unseen domains" if last.unseen else "seen imagery",
        "agreement": kept.overall,
        "agreement_unseen": last.unseen and last.unseen.agreement.overall,
        "agreement_unseen_by_domain": dict(last.unseen.by_domain) if last.unseen else {},
        "accuracy": last.accuracy and last.accuracy.as_json(),
        "agreement_by_class": {legend.BY_VALUE[v].name: share for v, share in kept.by_class.items()},
        "confusion": {
            "rows": "fp32",
            "columns": "int8",
            "classes": [legend.BY_VALUE[v].name for v in values],
            "pixels": kept.confusion[np.ix_(values, values)].tolist(),
        },
        "tried": [
            {
                "scheme": t.scheme,
                "agreement": t.seen.overall,
                "agreement_unseen": t.unseen and t.unseen.agreement.overall,
            }
            for t in trials
        ],
        "held_out": [
            {**_place(w), "agreement": share} for w, share in zip(windows.held_out, kept.by_window, strict=True)
        ],
        # The quantization windows, under the key that reports had from the first release on.
        "calibration": [_place(w) for w in windows.quantization],
    }


def _place(window: SampledWindow) -> dict[str, Any]:
    w = window.window
    return {"domain": window.domain, "tile": window.tile, "window": [w.row, w.col, w.height, w.width]}


def report_page(content: dict[str, Any], windows: WindowSplit, result: SchemeResult) -> str:
    """The HTML page.

    Args:
        content: the values, from `report_json`.
        windows: of quantization and comparison.
        result: of the scheme that was kept.
    """
    agreement, maps = result.seen, result.maps
    worst = agreement.worst[:_SHOWN]
    return render(
        "quantization.html",
        title="int8 against fp32",
        report=content,
        windows=windows,
        agreement=agreement,
        classes=[
            (legend.BY_VALUE[value], share, int(agreement.confusion[value].sum()))
            for value, share in agreement.by_class.items()
        ],
        examples=[
            (windows.held_out[i].name, agreement.by_window[i], _panels(windows.held_out[i], maps[i])) for i in worst
        ],
    )


def _panels(window: SampledWindow, int8: NDArray[np.uint8]) -> dict[str, bytes]:
    """Title → PNG: the image, both class maps, and their differences in red."""
    bands = window.pixels.bands
    # Three bands are shown in colours, fewer in grey.
    image = np.moveaxis(bands[:3] if len(bands) >= 3 else np.repeat(bands[:1], 3, axis=0), 0, -1)
    differences = np.where((window.classes != int8)[..., None], np.array([210, 0, 0]), 235).astype(np.uint8)
    panels = {
        "image": image,
        "fp32": class_colours(window.classes),
        "int8": class_colours(int8),
        "differences": differences,
    }
    return {title: picture(rgb) for title, rgb in panels.items()}
