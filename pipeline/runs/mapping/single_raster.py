"""Maps a single georeferenced raster into two COGs, without a catalog."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.array import store
from dask.callbacks import Callback

from pipeline.config import EngineName, LimitName, Precision, Recipe, load_recipe
from pipeline.errors import ConfigError, ProductError, SourceError
from pipeline.halo import Layout
from pipeline.inference import resolve_engine
from pipeline.legend import LAYERS, AnyLayer, OptionalLayer
from pipeline.model import load_model
from pipeline.products.tile.cog import cog_by_windows, open_cog
from pipeline.progress import SILENT, Progress
from pipeline.runs.mapping.predict import predict
from pipeline.sources.inspection.single_image import check_raster_pixels
from pipeline.sources.reading.raster import Raster

_BLOCK = 5_000
_log = logging.getLogger("landcover")


@dataclass(frozen=True)
class PredictedRaster:
    """The files that were written, and their size."""

    landcover: Path
    confidence: Path
    pixels: int
    probabilities: Path | None = None
    novelty: float | None = None
    """Mean over the raster's squares; None without a reference, or without data."""


def predict_raster(  # noqa: PLR0913  as many as the command has options
    raster: Path,
    *,
    weights: str,
    sha256: str | None = None,
    out: Path,
    recipe: str,
    window: int | None = None,
    halo: int | None = None,
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    quantized: Path | None = None,
    probabilities: bool = False,
    reference: Path | None = None,
    accept: Sequence[LimitName] = (),
    allow_vrt: bool = False,
    on_message: Callable[[str], None] = _log.warning,
    progress: Progress = SILENT,
) -> PredictedRaster:
    """Maps one raster in windows that are aligned to its corner; memory does not depend on its size.

    Args:
        raster: uint8, georeferenced, with the recipe's bands in their order.
        weights: path or `hf://…`.
        sha256: checksum that the weights must have.
        out: folder for `<stem>-landcover.tif` and `<stem>-confidence.tif`; a raster that is not named `.tif` keeps its
            suffix there: `<name>-landcover.tif`.
        recipe: name of a recipe, or path of its YAML file.
        window: side of the network's window in pixels; 2 848 by default, or the recipe's.
        halo: smallest number of pixels around a core; 160 by default, or the recipe's.
        engine: `auto`, `torch` or `openvino`.
        precision: arithmetic of the forward pass.
        quantized: the XML file that `landcover quantize` made from these weights; for precision int8 only.
        probabilities: also write `<stem>-probabilities.tif`, with a band for each live class.
        reference: file of `landcover calibrate --reference`: the raster gets a novelty score, of the same forwards.
        accept: limits of the model's card that it may exceed, and `halo`.
        allow_vrt: whether it may be a virtual raster, whose author decides what files and servers are read.
        on_message: gets accepted limits and doubts, a sentence each.
        progress: counts blocks.

    Raises:
        ConfigError: window and halo do not fit each other or the network's stride, the halo is too small for the
            recipe, or a quantized network is given without precision int8.
        EngineError: the engine or precision is not available, or gives no features for a reference, or the quantized
            network was made from other weights.
        SourceError: the raster cannot be read, its bands are not the recipe's, or it exceeds a limit that is not
            accepted.
        WeightsError: the weights are missing, or do not fit the recipe; or the reference does not fit them.
        ProductError: `out` cannot be written, or has the map of another raster under the same name.

    Example:
        >>> predict_raster(Path("ortho.tif"), weights="w.pth", out=Path("maps"), recipe="own.yaml")  # doctest: +SKIP
    """
    if quantized and precision != "int8":
        raise ConfigError(f"{quantized} needs precision int8, found {precision}; use --precision int8")
    rules = load_recipe(recipe)
    default = rules.layout()
    if window is None and halo is None:
        layout = default
    else:
        layout = Layout.for_window(window or default.window, default.halo if halo is None else halo, rules.stride)
    source = Raster.open(raster, bands=rules.bands, allow_vrt=allow_vrt)
    _check(source, rules, accept, on_message)
    stem = raster.stem if raster.suffix == ".tif" else raster.name
    layers: tuple[OptionalLayer, ...] = ("probabilities",) if probabilities else ()
    paths: dict[AnyLayer, Path] = {name: out / f"{stem}-{name}.tif" for name in (*LAYERS, *layers)}
    for path in paths.values():
        _check_same_place(path, source)
    model = load_model(weights, rules, sha256=sha256)
    resolved = resolve_engine(engine, precision=precision, quantized=quantized, model=model)
    block = max(1, _BLOCK // layout.core) * layout.core
    dataset = predict(
        source,
        model,
        layout=layout,
        block=block,
        engine=resolved,
        layers=layers,
        reference=reference,
        accept=accept,
        checks="ignore",
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"folder {out} cannot be made: {error.strerror or error}") from error
    progress.start(math.prod(dataset["landcover"].data.numblocks))

    def count(key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and str(key[0]).startswith("predict-"):
            progress.advance()

    tags = {"RECIPE": rules.name, "WEIGHTS": weights, "LICENCE": rules.licence, "CITATION": rules.citation}
    with ExitStack() as stack:
        drafts: list[Any] = [
            stack.enter_context(
                cog_by_windows(paths[name], layer=name, geobox=source.geobox, live=rules.live, tags=tags)
            )
            for name in paths
        ]
        novelty = np.full((), np.nan)
        variables, targets = (list(paths), drafts) if reference is None else ([*paths, "novelty"], [*drafts, novelty])
        with Callback(posttask=count):
            # In this process, which has the files open, whatever Dask client the caller has.
            store([dataset[name].data for name in variables], targets, lock=False, scheduler="threads")
    score = None if np.isnan(novelty) else round(float(novelty), 4)
    return PredictedRaster(
        paths["landcover"], paths["confidence"], source.window.pixels, paths.get("probabilities"), score
    )


def _check(source: Raster, rules: Recipe, accept: Sequence[LimitName], on_message: Callable[[str], None]) -> None:
    """Compares the raster with the limits of the model's card.

    Raises:
        SourceError: it exceeds one that is not accepted, or has no valid pixel.
    """
    exceeded, doubts = check_raster_pixels(source, rules)
    if refused := [e.single_refusal for e in exceeded if e.limit not in accept]:
        raise SourceError(f"{source.path}: {'; '.join(refused)}")
    for sentence in [*(e.note for e in exceeded), *doubts]:
        on_message(f"{source.path}: {sentence}")


def _check_same_place(path: Path, source: Raster) -> None:
    """Refuses to replace a map that lies elsewhere: it is of another raster with the same name."""
    if not path.exists():
        return
    with open_cog(path) as cog:
        if cog.dataset.shape != source.window.shape or not cog.dataset.transform.almost_equals(source.geobox.affine):
            raise ProductError(
                f"{path}: is the map of another raster with this name, at {tuple(cog.dataset.bounds)}; expected "
                f"{source.geobox.boundingbox.bbox}: remove it, or choose another folder with --out"
            )
