"""Maps an image lazily: xarray in, xarray out."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords

from pipeline import legend
from pipeline.config import EngineName, LimitName, Recipe
from pipeline.errors import CardLimitWarning, EngineError, SourceError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, Method, predict_stack, resolve_engine
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import MappedPixels, predict_overlapped
from pipeline.inference.engine import check_gives_features
from pipeline.legend import LAYERS, OptionalLayer, planes_of
from pipeline.model import Ensemble, Model
from pipeline.model.reference_features import ReferenceFile
from pipeline.products.analysis.accessor import register_cover
from pipeline.sources.inspection.model_card_limits import ExceededCardLimit, check_halo
from pipeline.sources.inspection.single_image import check_array, check_raster, place_of
from pipeline.sources.lazy_image import source_of
from pipeline.sources.reading.raster import GeoSource, Raster

Checks = Literal["warn", "raise", "ignore"]


def predict(
    image: GeoSource | xr.DataArray,
    model: Model | Ensemble,
    *,
    layout: Layout | None = None,
    block: int | None = None,
    engine: EngineName | Engine = "auto",
    layers: Sequence[OptionalLayer] = (),
    reference: Path | str | None = None,
    accept: Sequence[LimitName] = (),
    checks: Checks = "warn",
) -> xr.Dataset:
    """Maps an image lazily with Dask, in overlapping windows.

    Args:
        image: from `open_domain` or `open_raster`, or any uint8 array (band, y, x) in memory or on Dask, with the bands
            of the model's recipe. Its coordinate `valid`, bool (y, x), says which pixels are data. Without one, a pixel
            is nodata if a band of imagery has the array's nodata value; the elevation decides nothing.
        model: from `load_model`, or an `Ensemble` of such.
        layout: core, halo and window; by default those of the recipe.
        block: side of a block in pixels, a multiple of the core; by default twice the core.
        engine: `auto`, `torch` or `openvino`, or an `Engine` with its precision.
        layers: optional layers: `probabilities`, and `disagreement` of an `Ensemble`.
        reference: file of `landcover calibrate --reference`, for the novelty score of the image.
        accept: limits of the model's card that the image may exceed, and `halo`.
        checks: what follows where it exceeds others: a `CardLimitWarning` for each, an error, or nothing. All limits of
            `landcover predict` are checked for what `open_raster` returned and for arrays in memory, and place and
            resolution alone for other arrays on Dask, of which nothing is computed. `index` checked a domain.

    Returns:
        Dataset (y, x) with the image's coordinates, of `landcover` (uint8: FLAIR values 1..19, 0 = nodata) and
        `confidence` (uint8: round(255 × greatest softmax over the live logits), 0 = nodata), and of the optional layers
        (uint8: 0 = nodata, else 1 + round(254 × share)); `probabilities` has the dimension `class` too. With a
        reference, `novelty` is a number: the mean over the image's squares, NaN without data. It comes from the same
        forwards if it is computed together with the layers. `.cover` plots the Dataset, cuts it and answers in
        hectares. Windows are aligned to the lattice for what `open_domain` returned, and to the image's corner for any
        other array, a part of a domain among them.

    Raises:
        ConfigError: sizes do not fit each other, or several windows meet and the halo is smaller than the recipe's
            smallest.
        EngineError: the engine is unknown or gives no features for a reference, the bands are not those of the recipe,
            or the array's rows do not run south and its columns east.
        WeightsError: the reference cannot be read, or was made with other weights or another recipe.
        SourceError: with `checks="raise"`, the image exceeds a limit that is not accepted.

    Examples:
        >>> maps = predict(mosaic, load("weights.pth"))  # doctest: +SKIP
        >>> maps.landcover.rio.to_raster("landcover.tif")  # doctest: +SKIP
    """
    register_cover()
    layout = layout or model.recipe.layout()
    resolved = engine if isinstance(engine, Engine) else resolve_engine(engine)
    scoring = _reference(reference, model, resolved)
    method = Method(model, layout, block or 2 * layout.core, resolved, tuple(layers), scoring)
    if isinstance(image, xr.DataArray):
        source = source_of(image)
        if source is None:
            check_halo(model.recipe, layout, accept, shape=(image.sizes.get("y", 0), image.sizes.get("x", 0)))
            return _predict_array(image, method, accept=accept, checks=checks)
        image = source
    _check_bands(image.bands, model.recipe)
    check_halo(model.recipe, layout, accept, shape=image.window.shape)
    if isinstance(image, Raster) and checks != "ignore":
        _report(check_raster(image, model.recipe), accept, checks)
    stack = predict_stack(image, method, window=image.window, whole=scoring is not None)
    return _dataset(stack, xr_coords(image.geobox, dims=("y", "x")), method)


def _reference(path: Path | str | None, model: Model | Ensemble, engine: Engine) -> ReferenceFile | None:
    """The reference, checked."""
    if path is None:
        return None
    if isinstance(model, Ensemble):
        raise EngineError(
            "the novelty score is of a single forward: give a model instead of an Ensemble, or no reference"
        )
    check_gives_features(engine)
    reference = ReferenceFile.of(Path(path))
    reference.check_fits(model.weights_hash, model.recipe)
    return reference


def _predict_array(image: xr.DataArray, method: Method, *, accept: Sequence[LimitName], checks: Checks) -> xr.Dataset:
    """Maps a DataArray: in memory through an `ArraySource`, on Dask by a halo that chunks exchange."""
    recipe, whole = method.model.recipe, method.reference is not None
    if image.dims != ("band", "y", "x") or image.dtype != np.uint8:
        raise EngineError(f"expected a uint8 array (band, y, x); got {image.dtype} {image.dims}")
    if image.sizes["band"] != len(recipe.bands):
        raise EngineError(f"recipe {recipe.name} needs {len(recipe.bands)} bands; got {image.sizes['band']}")
    if image.coords["band"].dtype.kind == "U":
        _check_bands([str(b) for b in image.coords["band"].values], recipe)
    place = place_of(image)
    valid = _valid_of(image, recipe)
    if image.chunks is None:
        window = Window(0, 0, image.sizes["y"], image.sizes["x"])
        source = ArraySource(image.values, np.asarray(valid), window, window)
        stack = predict_stack(source, method, window=window, whole=whole)
    else:
        source = None
        stack = predict_overlapped(image.data, valid, method, whole=whole)
    if checks != "ignore":
        _report(check_array(place, source, recipe), accept, checks)
    return _dataset(stack, image.isel(band=0, drop=True).coords, method)


def _valid_of(image: xr.DataArray, recipe: Recipe) -> Any:
    """bool (y, x), numpy's or Dask's as the image is: True where there is data."""
    if "valid" in image.coords and image.coords["valid"].dims == ("y", "x"):
        valid = image.coords["valid"].data
        return valid if image.chunks is None else da.asarray(valid)
    imagery = image.data[[i for i, band in enumerate(recipe.bands) if band != "elevation"]]
    if image.rio.nodata is None:
        return (da if image.chunks else np).ones(image.shape[1:], np.bool_)
    return (imagery != image.rio.nodata).all(axis=0)


def _report(exceeded: Sequence[ExceededCardLimit], accept: Sequence[LimitName], checks: Checks) -> None:
    refused = [e for e in exceeded if e.limit not in accept]
    if refused and checks == "raise":
        raise SourceError("; ".join(e.single_refusal for e in refused))
    for e in refused:
        warnings.warn(e.single_refusal, CardLimitWarning, stacklevel=3)


def _check_bands(bands: Sequence[str], recipe: Recipe) -> None:
    if tuple(bands) != recipe.bands:
        raise EngineError(f"recipe {recipe.name} needs the bands {', '.join(recipe.bands)}; got {', '.join(bands)}")


def _novelty_sums(mapped: MappedPixels) -> NDArray[np.float64]:
    """Sum and number of the novelties of a block's squares: float64 (2, 1, 1)."""
    own = np.empty(0) if mapped.novelty is None else mapped.novelty
    return np.reshape([own.sum(), float(len(own))], (2, 1, 1))


def _scored(blocks: da.Array) -> tuple[da.Array, da.Array]:
    """The stack of blocks of `MappedPixels`, and the mean novelty of their squares, float64 ()."""
    _, rows, cols = blocks.numblocks
    places = ((2,), (1,) * rows, (1,) * cols)
    sums = da.map_blocks(_novelty_sums, blocks, chunks=places, dtype=np.float64, meta=np.empty((0, 0, 0)))
    total, squares = sums.sum(axis=(1, 2))
    layers = da.map_blocks(attrgetter("layers"), blocks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    return layers, da.where(squares > 0, total, np.nan) / da.maximum(squares, 1)


def _dataset(stack: da.Array, coords: Mapping[Hashable, xr.DataArray], method: Method) -> xr.Dataset:
    """Makes a Dataset of a stack, with those of `y`, `x` and `spatial_ref` that `coords` has.

    With a reference, the blocks of the stack are `MappedPixels`.
    """
    recipe = method.model.recipe
    stack, novelty = _scored(stack) if method.reference else (stack, None)
    live = legend.classes(recipe.live)
    attributes: dict[str, dict[str, Any]] = {
        "landcover": {
            "long_name": "land cover, FLAIR nomenclature",
            "flag_values": [legend.NODATA, *(c.value for c in live)],
            "flag_meanings": " ".join(["no_data", *(c.slug for c in live)]),
        },
        "confidence": {"long_name": "round(255 × greatest softmax over the live classes); 0 is no data"},
    }
    variables = {name: (("y", "x"), stack[i], attributes[name]) for i, name in enumerate(LAYERS)}
    kept = {name: coords[name] for name in ("y", "x", "spatial_ref") if name in coords}
    dataset = xr.Dataset(variables, coords=kept, attrs={"recipe": recipe.name})
    scaled = {"scale_factor": 1 / legend.SHARE_STEPS, "add_offset": -1 / legend.SHARE_STEPS}
    first = len(LAYERS)
    for layer in method.layers:
        planes = stack[first : first + planes_of([layer], recipe.live)]
        first += len(planes)
        if layer == "probabilities":
            dataset[layer] = (("class", "y", "x"), planes, {"long_name": "probability of the class"} | scaled)
            dataset["class"] = ("class", list(recipe.live), {"long_name": "FLAIR value"})
        else:
            dataset[layer] = (("y", "x"), planes[0], {"long_name": "mutual information of forwards, 0..1"} | scaled)
    for name in (*LAYERS, *method.layers):
        dataset[name] = dataset[name].rio.write_nodata(legend.NODATA)
    if novelty is not None:
        dataset["novelty"] = (
            (),
            novelty,
            {"long_name": "how unlike the training imagery; above 1 out of distribution"},
        )
    return dataset
