"""What is said of a quantised network: figures as JSON, and one HTML page that needs no other file."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import legend
from pipeline.inference.quantized_model import Quantized
from pipeline.model import Model
from pipeline.runs.quantization.agreement import Agreement
from pipeline.runs.quantization.windows import Sampled, Samples

_SHOWN = 6
"""Windows that agree least, as pictures."""

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1e1e1e}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}i{display:inline-block;width:.9em;height:.9em;margin-right:.4em;
border:1px solid #888;vertical-align:-.1em}figure{margin:1.5rem 0}figure div{display:flex;gap:.5rem;flex-wrap:wrap}
img{width:16rem;max-width:100%;image-rendering:pixelated;display:block}small{color:#555}"""


def as_json(
    model: Model, quantized: Quantized, samples: Samples, tried: Sequence[tuple[str, Agreement]]
) -> dict[str, Any]:
    """The report's figures; the last of `tried` (scheme, agreement) is what was kept."""
    scheme, kept = tried[-1]
    values = sorted(set(np.flatnonzero(kept.confusion.sum(axis=0) + kept.confusion.sum(axis=1)).tolist()))
    return {
        "weights_sha256": model.weights_hash,
        "recipe": model.recipe.model_dump(mode="json"),
        "quantized_sha256": quantized.sha256,
        "scheme": scheme,
        "agreement": kept.overall,
        "agreement_by_class": {legend.BY_VALUE[v].name: share for v, share in kept.by_class.items()},
        "confusion": {
            "rows": "fp32",
            "columns": "int8",
            "classes": [legend.BY_VALUE[v].name for v in values],
            "pixels": kept.confusion[np.ix_(values, values)].tolist(),
        },
        "tried": [{"scheme": name, "agreement": a.overall} for name, a in tried],
        "held_out": [
            {**_placed(w), "agreement": share} for w, share in zip(samples.held_out, kept.by_window, strict=True)
        ],
        "calibration": [_placed(w) for w in samples.calibration],
    }


def _placed(window: Sampled) -> dict[str, Any]:
    w = window.window
    return {"domain": window.domain, "tile": window.tile, "window": [w.row, w.col, w.height, w.width]}


def as_html(
    content: dict[str, Any], windows: Sequence[Sampled], maps: Sequence[NDArray[np.uint8]], agreement: Agreement
) -> str:
    """The page.

    Args:
        content: as `as_json` gives it.
        windows: the held-out windows.
        maps: their class maps in int8.
        agreement: of the same windows, in the same order.
    """
    figures = "".join(_figure(windows[i], maps[i], agreement.by_window[i]) for i in agreement.worst[:_SHOWN])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>int8 against fp32</title><style>{_STYLE}</style>
<h1>int8 against fp32</h1>
<p>On {len(windows)} windows that were not calibrated on, int8 gives {agreement.overall:.3%} of the pixels the class
that fp32 gives them. Calibrated on {len(content["calibration"])} windows, by scheme
“{html.escape(content["scheme"])}”.</p>
<p><small>Recipe {html.escape(content["recipe"]["name"])}, weights {content["weights_sha256"]}, quantised network
{content["quantized_sha256"]}.</small></p>
<h2>Tried</h2>{_table(("scheme", "agreement"), [(t["scheme"], f"{t['agreement']:.3%}") for t in content["tried"]])}
<h2>By class</h2>{_by_class(agreement)}
<h2>Confusion: pixels, fp32 in rows, int8 in columns</h2>{_confusion(content["confusion"])}
<h2>Windows that agree least</h2><p>Image, fp32, int8, and where they differ in red.</p>{figures}
</html>
"""


def _by_class(agreement: Agreement) -> str:
    rows = []
    for value, share in agreement.by_class.items():
        c = legend.BY_VALUE[value]
        pixels = int(agreement.confusion[value].sum())
        rows.append((f'<i style="background:{c.colour}"></i>{c.name}', f"{share:.3%}", f"{pixels:,}"))
    return _table(("class by fp32", "int8 agrees", "pixels"), rows, escaped=True)


def _confusion(confusion: dict[str, Any]) -> str:
    names: list[str] = confusion["classes"]
    rows = [(name, *(f"{n:,}" for n in row)) for name, row in zip(names, confusion["pixels"], strict=True)]
    return _table(("", *names), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, escaped: bool = False) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{c if escaped else html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"


def _figure(window: Sampled, int8: NDArray[np.uint8], share: float) -> str:
    palette = np.full((256, 3), 255, np.uint8)
    for value, (*rgb, alpha) in legend.colormap().items():
        palette[value] = rgb if alpha else (255, 255, 255)
    differ = np.where((window.classes != int8)[..., None], np.array([210, 0, 0]), 235).astype(np.uint8)
    panels = (_seen(window), palette[window.classes], palette[int8], differ)
    names = ("image", "fp32", "int8", "differences")
    images = "".join(f'<img alt="{n}" src="{_data_uri(p)}">' for n, p in zip(names, panels, strict=True))
    return f"<figure><figcaption>{html.escape(window.name)}: {share:.3%}</figcaption><div>{images}</div></figure>"


def _seen(window: Sampled) -> NDArray[np.uint8]:
    """The first three bands as colours; a network of fewer is seen in grey."""
    bands = window.pixels.bands
    shown = bands[:3] if len(bands) >= 3 else np.repeat(bands[:1], 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1))


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    """The picture itself as a URI; PNG, which keeps the colours of classes."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
