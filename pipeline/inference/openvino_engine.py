"""The OpenVINO engine: the same graph, compiled for this processor."""

import os
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.durable import sync, user_cache
from pipeline.errors import EngineError, StorageError
from pipeline.fingerprint import PRODUCT_VERSION, digest
from pipeline.inference.map_graph import MapGraph
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.inference.torch_engine import check_finite
from pipeline.model import Model

_EXAMPLE = 64
"""Pixels a side of the input that the graph is traced with; the graph does not depend on it."""

_COMPILED = 4
"""Window shapes kept compiled: a domain has one, a raster with ragged edges four."""


class OpenVinoPredictor:
    """The graph compiled by OpenVINO for each shape of window; windows go one by one."""

    def __init__(
        self,
        model: Model,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        quantized: QuantizedModel | None = None,
    ) -> None:
        import openvino

        self.precision = precision
        self._core = openvino.Core()
        self._graph = self._core.read_model(_graph_file(model, precision, quantized))
        self._options = {
            # fp32 means fp32, also on processors that would rather take bf16; in int8 it is for what stays float.
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision],
            # One window at a time with all of the engine's threads.
            "PERFORMANCE_HINT": "LATENCY",
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
        }
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._held = threading.Lock()

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`."""
        with self._held:
            request = self._request(pixels.shape[1:])
            layers = np.empty((len(pixels), 2, *pixels.shape[2:]), np.uint8)
            for i in range(len(pixels)):
                layers[i] = request.infer([pixels[i : i + 1], valid[i : i + 1].view(np.uint8)])[0][0]
        check_finite(layers)
        return layers

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The compiled graph for windows (band, y, x): a fixed shape runs a third faster than an open one."""
        if shape not in self._requests:
            self._graph.reshape({0: [1, *shape], 1: [1, *shape[1:]]})
            compiled = self._core.compile_model(self._graph, "CPU", self._options)
            self._requests[shape] = compiled.create_infer_request()
            while len(self._requests) > _COMPILED:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


def _graph_file(model: Model, precision: str, quantized: QuantizedModel | None) -> Path:
    """The XML to read: the model's own, or the one that was quantised from it."""
    if precision != "int8":
        return converted(model)
    if quantized is None:
        raise EngineError("precision int8 wants a quantised network: `landcover quantize` makes it")
    quantized.check_fits(model)
    quantized.check_unchanged()
    return quantized.path


def converted(model: Model) -> Path:
    """The graph as OpenVINO's XML, its weights beside it; from the cache where it was converted before.

    Conversion takes some ten seconds, which every worker of a cluster would spend again.

    Raises:
        StorageError: the cache's folder cannot be written.
    """
    import openvino

    recipe = model.recipe.model_dump(mode="json")
    key = digest([PRODUCT_VERSION, openvino.__version__, torch.__version__, model.weights_hash, recipe])
    path = cache_folder() / f"{key}.xml"
    if not path.is_file():
        example = (
            torch.zeros((1, len(model.recipe.bands), _EXAMPLE, _EXAMPLE), dtype=torch.uint8),
            torch.ones((1, _EXAMPLE, _EXAMPLE), dtype=torch.uint8),
        )
        with warnings.catch_warnings(), without_telemetry():
            # OpenVINO traces with torch.jit, whose deprecation is its makers' to mend; tracing says of constants
            # such as shapes that it keeps them, which is what a fixed network wants.
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(MapGraph(model).eval(), example_input=example)
        save_graph(graph, path)
    return path


@contextmanager
def without_telemetry() -> Iterator[None]:
    """OpenVINO's converter and NNCF report their use to their makers unless they believe to run in CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def cache_folder() -> Path:
    """Where converted graphs are kept."""
    return user_cache() / "openvino"


def save_graph(graph: Any, path: Path, *, remedy: str = "set LANDCOVER_CACHE to a folder that can be") -> None:
    """Writes XML and weights, the XML last: where it stands, both are whole.

    Args:
        graph: an `openvino.Model`.
        path: of the XML; the weights go beside it with suffix `.bin`.
        remedy: what to do where it cannot be written, for the error's message.

    Raises:
        StorageError: the folder cannot be written.
    """
    import openvino

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            openvino.save_model(graph, Path(folder, path.name), compress_to_fp16=False)
            for part in (path.with_suffix(".bin"), path):
                sync(Path(folder, part.name))
                Path(folder, part.name).replace(part)
        sync(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}; {remedy}") from error
