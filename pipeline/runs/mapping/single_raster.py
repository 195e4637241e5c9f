"""One georeferenced raster → two COGs, without a catalogue."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute
from dask.callbacks import Callback

from pipeline.config import EngineName, Precision, load_recipe
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Layout
from pipeline.inference import predict, resolve_engine
from pipeline.legend import LAYERS
from pipeline.model import load
from pipeline.products.tile.cog import write_cog
from pipeline.progress import SILENT, Progress
from pipeline.sources.reading.mosaic import Raster

_BLOCK = 5_000


@dataclass(frozen=True)
class Predicted:
    """What was written."""

    landcover: Path
    confidence: Path
    pixels: int
    class_pixels: tuple[tuple[int, int], ...]
    """(FLAIR value, count) of the classes that occur; 0 is no data."""


def predict_raster(
    raster: Path,
    *,
    weights: str,
    out: Path,
    recipe: str,
    window: int | None = None,
    halo: int | None = None,
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    quantized: Path | None = None,
    progress: Progress = SILENT,
) -> Predicted:
    """Maps one raster whose bands are the recipe's, in windows aligned to its own corner.

    Args:
        raster: uint8, georeferenced, bands in the recipe's order.
        weights: path or `hf://…`.
        out: folder; `<stem>-landcover.tif` and `<stem>-confidence.tif` are written there.
        recipe: name or path of a recipe's YAML.
        window: what the network sees at once, pixels a side; 2 848 by default.
        halo: pixels around a core, at least; 160 by default.
        engine: `auto`, `torch` or `openvino`.
        precision: arithmetic of the forward.
        quantized: the XML that `landcover quantize` made of these weights; with precision int8, and only then.
        progress: counts blocks.

    Raises:
        ConfigError: window and halo that do not fit each other or the network's stride, or a quantised network
            without precision int8.
        EngineError: an engine or precision that is not to be had, or a quantised network of other weights.
        SourceError: a raster that cannot be read or whose bands are not the recipe's.
        WeightsError: weights that cannot be had or do not fit.
        ProductError: `out` cannot be written.
    """
    if quantized and precision != "int8":
        raise ConfigError(f"a quantised network ({quantized}) runs in int8, got {precision}: ask for --precision int8")
    rules = load_recipe(recipe)
    default = Layout(stride=rules.stride)
    if window is None and halo is None:
        layout = default
    else:
        layout = Layout.for_window(window or default.window, default.halo if halo is None else halo, rules.stride)
    source = Raster.open(raster, bands=rules.bands)
    model = load(weights, rules)
    resolved = resolve_engine(engine, precision=precision, quantized=quantized, model=model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"{out} cannot be made: {error}") from error
    block = max(1, _BLOCK // layout.core) * layout.core
    dataset = predict(source, model, layout=layout, block=block, engine=resolved)
    progress.start(math.prod(dataset["landcover"].data.numblocks))
    with _CountBlocks(progress):
        layers = dict(zip(LAYERS, compute(*(dataset[name].data for name in LAYERS)), strict=True))
    paths = {name: out / f"{raster.stem}-{name}.tif" for name in LAYERS}
    tags = {"RECIPE": rules.name, "WEIGHTS": weights, "LICENCE": rules.licence, "CITATION": rules.citation}
    for name in LAYERS:
        write_cog(
            paths[name],
            layers[name],
            layer=name,
            transform=source.transform,
            crs=source.crs,
            live=rules.live,
            tags=tags,
        )
    values, counts = np.unique(layers["landcover"], return_counts=True)
    return Predicted(
        paths["landcover"],
        paths["confidence"],
        source.window.pixels,
        tuple((int(v), int(n)) for v, n in zip(values, counts, strict=True)),
    )


class _CountBlocks(Callback):
    """Reports each block that is done, from Dask's own events."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(posttask=self._count)  # type: ignore[no-untyped-call]  # Dask's own
        self._progress = progress

    def _count(self, key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and str(key[0]).startswith("predict-"):
            self._progress.advance()
