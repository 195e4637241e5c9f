"""Measures a quantization on imagery that it has not seen: one domain after the other is left out and compared.

A network whose ranges were measured on some domains agrees less with fp32 on others, whose radiometry differs. With
labelled patches, accuracy is measured too: of fp32, and of the int8 network that has not seen the patch's domain.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ConfigError
from pipeline.evaluation import confusion_matrix, scores
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import Scheme, quantize_graph, save_quantized
from pipeline.model import Model
from pipeline.runs.quantization.agreement import Agreement, agree
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit, classes_of
from pipeline.sources.labels.patches import Patch, read_image, read_mask
from pipeline.sources.reading.raster import Pixels

_MOST_FOLDS = 10
"""More domains are left out in this many groups, because each group needs a quantization of its own."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Confusion matrices of labelled patches: int64 (19, 19), rows truth, network indices."""

    live: tuple[int, ...]
    """FLAIR values of the compared classes."""
    fp32: NDArray[np.int64]
    int8: NDArray[np.int64]
    patches: int
    unseen: int
    """Patches of these whose domain int8 has not seen: the others were mapped by a network that has."""

    def as_json(self) -> dict[str, Any]:
        """Shares 0..1."""
        index = [value - 1 for value in self.live]
        found = {
            name: {key: scores(matrix, live=index, mode="present")[key] for key in ("oa", "miou")}
            for name, matrix in (("fp32", self.fp32), ("int8", self.int8))
        }
        return {"patches": self.patches, "patches_unseen": self.unseen, **found}


@dataclass(frozen=True, eq=False)
class UnseenDomains:
    """What int8 gives on domains that it was not quantized with."""

    agreement: Agreement
    """With fp32, on the held-out windows of every domain that was left out."""
    by_domain: dict[str, float]
    """Domain → share of its valid pixels that agree, 0..1."""


@dataclass(frozen=True, eq=False)
class SchemeResult:
    """What was measured of one scheme."""

    scheme: str
    seen: Agreement
    """Of the network that is written, on held-out windows of the domains that it was quantized with."""
    maps: list[NDArray[np.uint8]]
    """Its class maps of these windows."""
    unseen: UnseenDomains | None
    """None where there is one domain only."""
    accuracy: Accuracy | None
    """None without labelled patches."""

    @property
    def decisive(self) -> Agreement:
        """The agreement that the limit is compared with: of unseen domains, else of seen imagery."""
        return self.unseen.agreement if self.unseen else self.seen


def measure_scheme(
    model: Model, graph: Any, windows: WindowSplit, scheme: Scheme, *, max_drop: float, labelled: Sequence[Patch] = ()
) -> SchemeResult:
    """Compares a quantized graph with fp32, and graphs of the same scheme that have not seen a domain.

    Args:
        model: the network in fp32.
        graph: quantized with all of `windows.quantization`.
        windows: of the domains.
        scheme: by which the graph was made.
        max_drop: of the accuracy control.
        labelled: patches to measure accuracy on.

    Raises:
        SourceError: a patch cannot be read.
        ConfigError: a patch's sides are not multiples of the network's stride.
    """
    with _running(model, graph) as predictor:
        maps = [classes_of(predictor, w.pixels) for w in windows.held_out]
        seen = agree([w.classes for w in windows.held_out], maps)
        left_out = {domain for group in _groups(windows) for domain in group}
        known = [p for p in labelled if p.domain not in left_out]
        matrix = sum((_confusion(predictor, model, p) for p in known), _nothing())
    quantized_with = {w.domain for w in windows.quantization}
    strangers = sum(p.domain not in quantized_with for p in known)
    unseen: dict[int, NDArray[np.uint8]] = {}
    for group in _groups(windows):
        others = [w.pixels for w in windows.quantization if w.domain not in group]
        with _running(model, quantize_graph(model, others, scheme, max_drop=max_drop)) as predictor:
            unseen |= {i: classes_of(predictor, w.pixels) for i, w in enumerate(windows.held_out) if w.domain in group}
            matrix = sum((_confusion(predictor, model, p) for p in labelled if p.domain in group), matrix)
    accuracy = None
    if labelled:
        fp32 = predictor_for(model, Engine("openvino"))
        whole = sum((_confusion(fp32, model, p) for p in labelled), _nothing())
        count = strangers + len(labelled) - len(known)
        accuracy = Accuracy(model.recipe.live, whole, matrix, len(labelled), count)
    return SchemeResult(scheme.name, seen, maps, _of_unseen(windows, unseen), accuracy)


def _groups(windows: WindowSplit) -> list[frozenset[str]]:
    """Domains that are left out together: each alone, or a tenth of many. Empty where nothing would be left."""
    domains = sorted({w.domain for w in windows.held_out})
    groups = [frozenset(domains[start::_MOST_FOLDS]) for start in range(min(_MOST_FOLDS, len(domains)))]
    return [g for g in groups if any(w.domain not in g for w in windows.quantization)] if len(groups) > 1 else []


def _of_unseen(windows: WindowSplit, maps: dict[int, NDArray[np.uint8]]) -> UnseenDomains | None:
    chosen = sorted(maps)
    return of_domains([windows.held_out[i] for i in chosen], [maps[i] for i in chosen]) if chosen else None


def of_domains(windows: Sequence[SampledWindow], maps: Sequence[NDArray[np.uint8]]) -> UnseenDomains:
    """Agreement of class maps with those of fp32, together and for each domain.

    Args:
        windows: with their class maps by fp32.
        maps: the same windows by the other network.
    """
    by_domain = {}
    for domain in sorted({w.domain for w in windows}):
        own = [i for i, w in enumerate(windows) if w.domain == domain]
        by_domain[domain] = agree([windows[i].classes for i in own], [maps[i] for i in own]).overall
    return UnseenDomains(agree([w.classes for w in windows], maps), by_domain)


@contextmanager
def _running(model: Model, graph: Any) -> Iterator[Predictor]:
    """The predictor of a quantized graph, saved and read again as a run would."""
    with tempfile.TemporaryDirectory(prefix="landcover-quantize-") as folder:
        quantized = save_quantized(graph, Path(folder, "model.xml"))
        yield OpenVinoPredictor(model, precision="int8", quantized=quantized)


def _confusion(predictor: Predictor, model: Model, patch: Patch) -> NDArray[np.int64]:
    """The confusion matrix of one patch, mapped as one window."""
    stride, pixels, truth = model.recipe.stride, read_image(patch, bands=model.recipe.bands), read_mask(patch)
    if truth.shape[0] % stride or truth.shape[1] % stride:
        raise ConfigError(
            f"{patch.image}: found {truth.shape[0]} × {truth.shape[1]} px, expected multiples of the network's "
            f"stride, {stride}"
        )
    classes = classes_of(predictor, Pixels(pixels, np.ones(truth.shape, np.bool_)))
    # Uint8 wraps: no label, 0, becomes 255, which the matrix ignores.
    return confusion_matrix(truth - np.uint8(1), classes - np.uint8(1), len(legend.FLAIR))


def _nothing() -> NDArray[np.int64]:
    return np.zeros((len(legend.FLAIR),) * 2, np.int64)
