"""Post-training quantization of the OpenVINO graph to int8 by NNCF, from unlabelled windows.

Only the network is quantized. The operations before it (mask, normalisation) and after it (class mask, softmax,
argmax) stay in float, and the graph still takes uint8 and gives uint8.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EngineError, StorageError
from pipeline.inference.openvino_engine import converted_graph, quiet, save_graph
from pipeline.inference.quantized_model import QuantizedModel, describe, read_quantized
from pipeline.model import Model
from pipeline.sources.reading.raster import Pixels

_SEARCH_STEPS = 20
"""Operations that the accuracy control may return to float; each costs a pass over all its windows."""


@dataclass(frozen=True)
class Scheme:
    """One way to quantize."""

    name: str
    ranges: Literal["minmax", "default"]
    """Of activations: minimum to maximum over all windows, or NNCF's mean over windows."""
    bias_correction: bool
    """Shift biases so that a layer's mean output equals that of fp32."""
    accuracy_control: bool = False
    """Return operations to float, the worst first, until the windows agree; slow."""


SCHEMES = (
    Scheme("minmax", "minmax", bias_correction=False),
    Scheme("minmax, biases corrected", "minmax", bias_correction=True),
    Scheme("NNCF's default", "default", bias_correction=True),
)
"""In the order in which they are tried.

Quantized with the left halves of five real patches, they agree with fp32 on 0.9949, 0.9943 and 0.984 of the right
halves' pixels; on the demo's small network on 0.996, 0.995, 0.996. All run equally fast.
"""
CONTROLLED = Scheme("minmax, accuracy control", "minmax", bias_correction=True, accuracy_control=True)


def require_nncf() -> None:
    """Raises EngineError where OpenVINO or NNCF is not installed."""
    try:
        with quiet():
            import nncf
            import openvino  # noqa: F401
    except ImportError as error:
        wanted = "quantization needs OpenVINO and NNCF: pip install 'landcover-pipeline[cpu]'"
        raise EngineError(f"{wanted} ({error})") from error
    nncf.set_log_level(logging.ERROR)


def quantize_graph(
    model: Model, windows: Sequence[Pixels], scheme: Scheme, *, max_drop: float = 0.01, features: bool = False
) -> Any:
    """Quantizes the graph of a model.

    Args:
        model: as `pipeline.load_model` gives it.
        windows: to quantize with, all of one shape, sides multiples of the network's stride.
        scheme: one of `SCHEMES`, or `CONTROLLED`.
        max_drop: the disagreement with fp32 that the accuracy control accepts, 0..1.
        features: whether the graph also returns the encoder's deepest features.

    Returns:
        An `openvino.Model` with the graph's inputs and outputs (see `graph.MapGraph`), of any window's size.

    Raises:
        EngineError: NNCF is not installed, there is no window, or their shapes differ.
    """
    require_nncf()
    import nncf
    import openvino

    shapes = {w.bands.shape for w in windows}
    if len(shapes) != 1:
        raise EngineError(f"expected one or more quantization windows of one shape; got shapes {sorted(shapes)}")
    graph = openvino.Core().read_model(converted_graph(model, features=features))
    _name_by_place(graph)
    open_shapes = [i.partial_shape for i in graph.inputs]
    # A fixed shape: NNCF compiles the graph several times, and runs an open one a third slower.
    graph.reshape({0: [1, *shapes.pop()], 1: [1, *windows[0].valid.shape]})
    common = {
        # Weights per channel and symmetric, activations with a zero point where they are not symmetric.
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(windows),
        "ignored_scope": nncf.IgnoredScope(names=_outside_network(graph), validate=False),
    }
    with quiet():
        if scheme.accuracy_control:
            quantized = _controlled(model, graph, windows, scheme, max_drop=max_drop, common=common)
        else:
            quantized = nncf.quantize(
                graph, nncf.Dataset(list(windows), _inputs), advanced_parameters=_advanced(scheme), **common
            )
    quantized.reshape(dict(enumerate(open_shapes)))
    _name_by_place(quantized)
    describe(quantized, model, scheme=scheme.name)
    return quantized


def save_quantized(graph: Any, path: Path) -> QuantizedModel:
    """Writes a quantized graph: XML and `.bin`, the XML last.

    Raises:
        StorageError: the folder cannot be written.
    """
    remedy = "choose another place, and make room"
    try:
        # An XML beside the weights of another network would look complete.
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}; {remedy}") from error
    save_graph(graph, path, remedy=remedy)
    return read_quantized(path)


def _advanced(scheme: Scheme) -> Any:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    ranges = {"activations_range_estimator_params": RangeEstimatorParametersSet.MINMAX}
    return nncf.AdvancedQuantizationParameters(
        disable_bias_correction=not scheme.bias_correction, **(ranges if scheme.ranges == "minmax" else {})
    )


def _controlled(
    model: Model, graph: Any, windows: Sequence[Pixels], scheme: Scheme, *, max_drop: float, common: dict[str, Any]
) -> Any:
    """Accuracy control, where accuracy is the agreement with fp32 over the quantization windows."""
    import nncf
    import openvino

    fp32 = openvino.Core().compile_model(converted_graph(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pairs = [(w, _classes(fp32, w)) for w in windows]

    def agreement(compiled: Any, chosen: Iterable[tuple[Pixels, NDArray[np.uint8]]]) -> tuple[float, list[float]]:
        shares = [float((_classes(compiled, w) == truth)[w.valid].mean()) for w, truth in chosen]
        return float(np.mean(shares)), shares

    return nncf.quantize_with_accuracy_control(
        graph,
        nncf.Dataset(list(windows), _inputs),
        nncf.Dataset(pairs, lambda pair: _inputs(pair[0])),
        validation_fn=agreement,
        max_drop=max_drop,
        advanced_quantization_parameters=_advanced(scheme),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(max_num_iterations=_SEARCH_STEPS),
        **common,
    )


def _classes(compiled: Any, window: Pixels) -> NDArray[np.uint8]:
    """The class map (y, x) of a window by a compiled graph."""
    classes: NDArray[np.uint8] = compiled(_inputs(window))[0][0, 0].copy()
    return classes


def _inputs(window: Pixels) -> list[NDArray[np.uint8]]:
    """A window as the graph's two inputs."""
    return [window.bands[None], window.valid[None].view(np.uint8)]


def _name_by_place(graph: Any) -> None:
    """Names operations by kind and place: OpenVINO counts through a process, and names are in the XML's hash."""
    for place, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{place}")


def _outside_network(graph: Any) -> list[str]:
    """Names of the operations without a convolution before them, or without one after them.

    They are found by position, because the conversion renames fused convolutions.
    """
    operations = graph.get_ordered_ops()
    # Convolution, GroupConvolution, ConvolutionBackpropData.
    weighted = {o.get_friendly_name() for o in operations if "Convolution" in o.get_type_name()}

    def reached(ordered: Iterable[Any], neighbours: Callable[[Any], Iterable[Any]]) -> set[str]:
        found = set(weighted)
        for operation in ordered:
            if any(n.get_friendly_name() in found for n in neighbours(operation)):
                found.add(operation.get_friendly_name())
        return found

    after = reached(operations, lambda o: (i.get_source_output().get_node() for i in o.inputs()))
    before = reached(
        reversed(operations), lambda o: (t.get_node() for out in o.outputs() for t in out.get_target_inputs())
    )
    plain = {"Constant", "Parameter", "Result"}
    names = [o.get_friendly_name() for o in operations if o.get_type_name() not in plain]
    return [n for n in names if n not in after or n not in before]
