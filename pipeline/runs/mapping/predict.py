"""Maps an image lazily: xarray in, xarray out."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from odc.geo.xr import xr_coords

from pipeline import legend
from pipeline.config import EngineName, LimitName, Recipe
from pipeline.errors import EngineError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, Method, predict_stack, resolve_engine
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import predict_overlapped
from pipeline.legend import LAYERS
from pipeline.model import Model
from pipeline.products.analysis.accessor import register_cover
from pipeline.sources.inspection.model_card_limits import check_halo
from pipeline.sources.lazy_image import source_of
from pipeline.sources.reading.raster import GeoSource


def predict(
    image: GeoSource | xr.DataArray,
    model: Model,
    *,
    layout: Layout | None = None,
    block: int | None = None,
    engine: EngineName | Engine = "auto",
    accept: Sequence[LimitName] = (),
) -> xr.Dataset:
    """Maps an image lazily with Dask, in overlapping windows.

    Args:
        image: from `open_domain` or `open_raster`, or any uint8 array (band, y, x) in memory or on Dask, with the bands
            of the model's recipe. Pixels that have the array's nodata value in all bands are nodata.
        model: from `load_model`.
        layout: core, halo and window; by default `Layout()` with the recipe's stride.
        block: side of a block in pixels, a multiple of the core; by default twice the core.
        engine: `auto`, `torch` or `openvino`, or an `Engine` with its precision.
        accept: limits that may be exceeded: `halo`.

    Returns:
        Dataset (y, x) with the image's coordinates, of `landcover` (uint8: FLAIR values 1..19, 0 = nodata) and
        `confidence` (uint8: round(255 × greatest softmax over the live logits), 0 = nodata). `.cover` plots it, cuts it
        and answers in hectares. Windows are aligned to the lattice for what `open_domain` returned, and to the image's
        corner for any other array, a part of a domain among them.

    Raises:
        ConfigError: sizes do not fit each other, or several windows meet and the halo is smaller than the recipe's
            smallest.
        EngineError: the engine is unknown, or the bands are not those of the recipe.

    Examples:
        >>> maps = predict(mosaic, load("weights.pth"))  # doctest: +SKIP
        >>> maps.landcover.rio.to_raster("landcover.tif")  # doctest: +SKIP
    """
    register_cover()
    layout = layout or Layout(stride=model.recipe.stride)
    resolved = engine if isinstance(engine, Engine) else resolve_engine(engine)
    method = Method(model, layout, block or 2 * layout.core, resolved)
    if isinstance(image, xr.DataArray):
        source = source_of(image)
        if source is None:
            check_halo(model.recipe, layout, accept, shape=(image.sizes.get("y", 0), image.sizes.get("x", 0)))
            return _predict_array(image, method)
        image = source
    _check_bands(image.bands, model.recipe)
    check_halo(model.recipe, layout, accept, shape=image.window.shape)
    stack = predict_stack(image, method, window=image.window)
    return _dataset(stack, xr_coords(image.geobox, dims=("y", "x")), model.recipe)


def _predict_array(image: xr.DataArray, method: Method) -> xr.Dataset:
    """Maps a DataArray: in memory through an `ArraySource`, on Dask by a halo that chunks exchange."""
    recipe = method.model.recipe
    if image.dims != ("band", "y", "x") or image.dtype != np.uint8:
        raise EngineError(f"expected a uint8 array (band, y, x); got {image.dtype} {image.dims}")
    if image.sizes["band"] != len(recipe.bands):
        raise EngineError(f"recipe {recipe.name} needs {len(recipe.bands)} bands; got {image.sizes['band']}")
    if image.coords["band"].dtype.kind == "U":
        _check_bands([str(b) for b in image.coords["band"].values], recipe)
    nodata = image.rio.nodata
    if image.chunks is None:
        window = Window(0, 0, image.sizes["y"], image.sizes["x"])
        source = ArraySource.of(image.values, window, window=window, nodata=nodata)
        stack = predict_stack(source, method, window=window)
    else:
        stack = predict_overlapped(image.data, nodata, method)
    return _dataset(stack, image.isel(band=0, drop=True).coords, recipe)


def _check_bands(bands: Sequence[str], recipe: Recipe) -> None:
    if tuple(bands) != recipe.bands:
        raise EngineError(f"recipe {recipe.name} needs the bands {', '.join(recipe.bands)}; got {', '.join(bands)}")


def _dataset(stack: da.Array, coords: Mapping[Hashable, xr.DataArray], recipe: Recipe) -> xr.Dataset:
    """Makes a Dataset of a stack, with those of `y`, `x` and `spatial_ref` that `coords` has."""
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
    for layer in LAYERS:
        dataset[layer] = dataset[layer].rio.write_nodata(legend.NODATA)
    return dataset
