"""The OpenVINO engine: runs the graph, compiled for this processor."""

import os
import tempfile
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from pipeline.durable import sync, user_cache, write_text
from pipeline.errors import EngineError, StorageError
from pipeline.fingerprint import PRODUCT_VERSION, digest, file_sha256
from pipeline.inference.engine import PLANES, check_finite
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.legend import OptionalLayer
from pipeline.model import Ensemble, Model
from pipeline.untrusted.own_files import is_sealed_off, private_folder

if TYPE_CHECKING:
    # Imported where it is used: inference itself needs no torch, whose import takes a second in each worker.
    import torch

    from pipeline.inference.map_graph import MapGraph

_TRACED_SIDE = 64
"""Side of the image with which the graph is traced, in pixels; the graph does not depend on it."""
_REMEDY = "set LANDCOVER_CACHE to a folder of your own that can be written"
_TRIES = 3
_KEPT_SHAPES = 4
"""Window shapes that stay compiled: a domain has one, and a raster with ragged edges has four."""


class _OpenVinoEngine(ABC):
    """What both predictors have in common: layers alone, or with the features of the same forward."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`."""
        return self._mapped(pixels, valid, [])

    def with_features(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See `FeaturePredictor`; only of a single network, and a predictor that was made with `features`."""
        features: list[NDArray[np.float32]] = []
        return self._mapped(pixels, valid, features), np.concatenate(features)

    @abstractmethod
    def _mapped(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_], features: list[NDArray[np.float32]]
    ) -> NDArray[np.uint8]:
        """The layers; appends the features, if the graph gives them."""


class OpenVinoPredictor(_OpenVinoEngine):
    """Runs the graph compiled by OpenVINO for each shape of window, one window after the other.

    The same window gives the same bytes if processor, libraries and `threads` are the same, whatever the batch, the
    order of windows, the threads that call, or a second compilation. On another processor, or with another number of
    threads, OpenVINO may add products in another order, so the last bits of logits differ. In fp32 a few confidences
    then differ by 1, and classes only where two logits are almost equal. In bf16 single pixels may differ by more.
    """

    def __init__(
        self,
        model: Model,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        quantized: QuantizedModel | None = None,
        features: bool = False,
    ) -> None:
        self.precision = precision
        file = _graph_file(model, precision, quantized, features=features)
        self._request = requests_of(file, precision=precision, threads=threads)
        self._lock = threading.Lock()

    def _mapped(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_], features: list[NDArray[np.float32]]
    ) -> NDArray[np.uint8]:
        with self._lock:
            request = self._request(pixels.shape[1:])
            # A network that an older version quantized has two planes.
            layers = np.empty((len(pixels), *request.get_output_tensor(0).shape[1:]), np.uint8)
            for i in range(len(pixels)):
                given = [np.ascontiguousarray(array[i : i + 1]) for array in (pixels, valid.view(np.uint8))]
                # OpenVINO would copy what it reads, and its results, which are copied here before the next forward.
                planes, *more = request.infer(given, share_inputs=True, share_outputs=True).values()
                layers[i] = planes[0]
                features += [found.copy() for found in more]
        check_finite(layers)
        return layers


class OpenVinoAverage(_OpenVinoEngine):
    """Runs the graph of each member on each turn of a window, and averages their probabilities.

    What `OpenVinoPredictor` says of bytes is true of it too.
    """

    def __init__(
        self,
        model: Model | Ensemble,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        layers: Sequence[OptionalLayer] = (),
        features: bool = False,
    ) -> None:
        import torch

        from pipeline.inference.averaging import Averaging, members_of
        from pipeline.inference.map_graph import ProbabilityGraph

        self.precision = precision
        self._averaging = Averaging.of(model, layers)
        self._values = torch.tensor(model.recipe.live, dtype=torch.uint8)
        files = [converted_graph(member, ProbabilityGraph, features=features) for member in members_of(model)]
        self._requests = [requests_of(file, precision=precision, threads=threads) for file in files]
        self._lock = threading.Lock()

    def _mapped(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_], features: list[NDArray[np.float32]]
    ) -> NDArray[np.uint8]:
        import torch

        forwards = [partial(_infer, request, features) for request in self._requests]
        mapped = []
        with self._lock, torch.inference_mode():
            for i in range(len(pixels)):
                given = (torch.from_numpy(a[i : i + 1]) for a in (pixels, valid.view(np.uint8)))
                mapped.append(self._averaging.planes(forwards, *given, values=self._values).numpy())
        layers = np.concatenate(mapped)
        check_finite(layers)
        return layers


def _infer(
    requests: "Requests", features: list[NDArray[np.float32]], pixels: "torch.Tensor", valid: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    given = [np.ascontiguousarray(array.numpy()) for array in (pixels, valid)]
    planes, shares, *more = requests(given[0].shape[1:]).infer(given, share_inputs=True).values()
    features += more
    return torch.from_numpy(planes.copy()), torch.from_numpy(shares.copy())


Requests = Callable[[tuple[int, ...]], Any]
"""The shape (band, y, x) of a window → a request that infers such windows."""


def requests_of(file: Path, *, precision: str, threads: int | None) -> Requests:
    """The requests of a graph by the shape of a window; those of the last shapes are kept.

    Args:
        file: XML of the graph.
        precision: `fp32`, `bf16` or `int8`.
        threads: of OpenVINO; by default its own number.
    """
    import openvino

    core = openvino.Core()
    options = {
        # Without the hint OpenVINO computes fp32 in bf16 where that is faster. For int8 it covers float operations.
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision],
        # All threads work on one window at a time.
        "PERFORMANCE_HINT": "LATENCY",
        **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
    }
    return lru_cache(maxsize=_KEPT_SHAPES)(partial(_compiled, core, core.read_model(file), options))


def _compiled(core: Any, graph: Any, options: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """The graph compiled for windows (band, y, x); with a fixed shape it is a third faster than with any shape."""
    graph.reshape({0: [1, *shape], 1: [1, *shape[1:]]})
    return core.compile_model(graph, "CPU", options).create_infer_request()


def _graph_file(model: Model, precision: str, quantized: QuantizedModel | None, *, features: bool) -> Path:
    """The XML of the graph: converted from the model, or its int8 version."""
    if precision != "int8":
        return converted_graph(model, features=features)
    if quantized is None:
        raise EngineError("precision int8 needs a quantized network; make one with `landcover quantize`")
    quantized.check_fits(model)
    quantized.check_unchanged()
    return quantized.path


def converted_graph(model: Model, kind: "type[MapGraph] | None" = None, *, features: bool = False) -> Path:
    """Converts the graph to OpenVINO's XML with its weights beside it, or finds it in the cache.

    A conversion takes about ten seconds, and without the cache every worker would repeat it. The cache is a folder that
    only this user can open. A graph whose files are not as they were written, by their checksums, is converted again.

    Args:
        model: the model to convert.
        kind: `ProbabilityGraph` for its probabilities too; by default `MapGraph`.
        features: whether the graph also returns the encoder's deepest features, as its last output.

    Returns:
        path of the XML.

    Raises:
        StorageError: the cache folder cannot be written, or is another user's.
        EngineError: features of a network without an encoder.
    """
    import openvino

    recipe = model.recipe.model_dump(mode="json")
    own = ([kind.__name__] if kind else []) + (["features"] if features else [])
    versions = openvino.__version__, version("torch")
    key = digest([PRODUCT_VERSION, PLANES, *versions, model.weights_hash, recipe, *own])
    path = private_folder(user_cache() / "openvino", remedy=_REMEDY) / f"{key}.xml"
    if not _is_intact(path):
        save_graph(_convert(model, kind, features=features), path)
        # Another worker may replace the graph meanwhile by its own, whose layers have another order in the XML.
        for _ in range(_TRIES):
            write_text(_listed(path), _checksums(path))
            for file in (*_parts(path), _listed(path)):
                file.chmod(0o600)
            if _is_intact(path):
                break
    return path


def _convert(model: Model, kind: "type[MapGraph] | None", *, features: bool) -> Any:
    import openvino
    import torch

    from pipeline.inference.map_graph import FeatureGraph, MapGraph

    example = (
        torch.zeros((1, len(model.recipe.bands), _TRACED_SIDE, _TRACED_SIDE), dtype=torch.uint8),
        torch.ones((1, _TRACED_SIDE, _TRACED_SIDE), dtype=torch.uint8),
    )
    # OpenVINO traces with the deprecated torch.jit. Tracing also warns that it keeps shapes as constants, which is
    # right for this network.
    graph = (kind or MapGraph)(model)
    with quiet():
        return openvino.convert_model((FeatureGraph(graph) if features else graph).eval(), example_input=example)


def _parts(path: Path) -> tuple[Path, Path]:
    return path, path.with_suffix(".bin")


def _listed(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _checksums(path: Path) -> str:
    """SHA-256 of both files, as `sha256sum` prints them."""
    return "".join(f"{file_sha256(part)}  {part.name}\n" for part in _parts(path))


def _is_intact(path: Path) -> bool:
    """Whether both files are as this user wrote them."""
    files = (*_parts(path), _listed(path))
    return all(is_sealed_off(file) for file in files) and _listed(path).read_bytes() == _checksums(path).encode()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings of OpenVINO's converter and of NNCF, and keeps them from reporting their use.

    They report it unless they detect CI. The warnings are about deprecations and versions, which users cannot fix.
    """
    with warnings.catch_warnings(), patch.dict(os.environ, CI="true"):
        warnings.simplefilter("ignore")
        yield


def save_graph(graph: Any, path: Path, *, remedy: str = _REMEDY) -> None:
    """Writes XML and weights; the XML comes last, so if it exists both are complete.

    Args:
        graph: an `openvino.Model`.
        path: of the XML; the weights go beside it, with suffix `.bin`.
        remedy: what to do if it cannot be written, for the error message.

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
