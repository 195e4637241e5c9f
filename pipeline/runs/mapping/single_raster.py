"""Maps a single georeferenced raster into two COGs, without a catalog."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask.array import store
from dask.callbacks import Callback

from pipeline.config import EngineName, LimitName, Precision, load_recipe
from pipeline.errors import ConfigError, ProductError
from pipeline.halo import Layout
from pipeline.inference import resolve_engine
from pipeline.legend import LAYERS
from pipeline.model import load_model
from pipeline.products.tile.cog import cog_by_windows
from pipeline.progress import SILENT, Progress
from pipeline.runs.mapping.predict import predict
from pipeline.sources.reading.raster import Raster

_BLOCK = 5_000


@dataclass(frozen=True)
class PredictedRaster:
    """The files that were written, and their size."""

    landcover: Path
    confidence: Path
    pixels: int


def predict_raster(  # noqa: PLR0913  as many as the command has options
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
    accept: Sequence[LimitName] = (),
    allow_vrt: bool = False,
    progress: Progress = SILENT,
) -> PredictedRaster:
    """Maps one raster in windows that are aligned to its corner; memory does not depend on its size.

    Args:
        raster: uint8, georeferenced, with the recipe's bands in their order.
        weights: path or `hf://…`.
        out: folder for `<stem>-landcover.tif` and `<stem>-confidence.tif`.
        recipe: name of a recipe, or path of its YAML file.
        window: side of the network's window in pixels; 2 848 by default.
        halo: smallest number of pixels around a core; 160 by default.
        engine: `auto`, `torch` or `openvino`.
        precision: arithmetic of the forward pass.
        quantized: the XML file that `landcover quantize` made from these weights; for precision int8 only.
        accept: limits that may be exceeded: `halo`.
        allow_vrt: whether it may be a virtual raster, whose author decides what files and servers are read.
        progress: counts blocks.

    Raises:
        ConfigError: window and halo do not fit each other or the network's stride, the halo is too small for the
            recipe, or a quantized network is given without precision int8.
        EngineError: the engine or precision is not available, or the quantized network was made from other weights.
        SourceError: the raster cannot be read, or its bands are not the recipe's.
        WeightsError: the weights are missing, or do not fit the recipe.
        ProductError: `out` cannot be written.

    Example:
        >>> predict_raster(Path("ortho.tif"), weights="w.pth", out=Path("maps"), recipe="own.yaml")  # doctest: +SKIP
    """
    if quantized and precision != "int8":
        raise ConfigError(f"{quantized} needs precision int8, found {precision}; use --precision int8")
    rules = load_recipe(recipe)
    default = Layout(stride=rules.stride)
    if window is None and halo is None:
        layout = default
    else:
        layout = Layout.for_window(window or default.window, default.halo if halo is None else halo, rules.stride)
    source = Raster.open(raster, bands=rules.bands, allow_vrt=allow_vrt)
    model = load_model(weights, rules)
    resolved = resolve_engine(engine, precision=precision, quantized=quantized, model=model)
    block = max(1, _BLOCK // layout.core) * layout.core
    dataset = predict(source, model, layout=layout, block=block, engine=resolved, accept=accept)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"folder {out} cannot be made: {error.strerror or error}") from error
    progress.start(math.prod(dataset["landcover"].data.numblocks))

    def count(key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and str(key[0]).startswith("predict-"):
            progress.advance()

    paths = {name: out / f"{raster.stem}-{name}.tif" for name in LAYERS}
    tags = {"RECIPE": rules.name, "WEIGHTS": weights, "LICENCE": rules.licence, "CITATION": rules.citation}
    with ExitStack() as stack:
        drafts: list[Any] = [
            stack.enter_context(
                cog_by_windows(paths[name], layer=name, geobox=source.geobox, live=rules.live, tags=tags)
            )
            for name in LAYERS
        ]
        with Callback(posttask=count):
            # In this process, which has the files open, whatever Dask client the caller has.
            store([dataset[name].data for name in LAYERS], drafts, lock=False, scheduler="threads")
    return PredictedRaster(paths["landcover"], paths["confidence"], source.window.pixels)
