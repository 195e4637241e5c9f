"""Where products come from: lattice, producers, licence and citation of the deliveries, and the software versions."""

import platform
from importlib.metadata import PackageNotFoundError, version

from pipeline import __version__
from pipeline.config import Campaign, Recipe
from pipeline.errors import CatalogError, ConfigError
from pipeline.grid import CRS, Tile
from pipeline.products.tile.stac_item import Provenance
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign
from pipeline.sources.catalog.reader import read_description
from pipeline.sources.delivery.attribution import Origin
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.gdal_drivers import gdal_version, openjpeg_version

_PACKAGES = ("torch", "openvino", "segmentation-models-pytorch", "dask", "rasterio", "numpy", "xarray")


def software() -> dict[str, str]:
    """Versions of the software that computes a result. No fingerprint contains them."""
    decoders = {"gdal": gdal_version(), "openjpeg": openjpeg_version()}
    own = {"python": platform.python_version(), "landcover-pipeline": __version__}
    versions = {**own, **{name: _installed_version(name) for name in _PACKAGES}, **decoders}
    return {name: found for name, found in versions.items() if found}


def _installed_version(package: str) -> str:
    """Empty where it is not installed: a machine with a GPU maps without xarray."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def campaign_crs(campaign: Campaign) -> str:
    """`EPSG:…` of the lattice of the campaign's domains. Domains that are not indexed yet are left out.

    Raises:
        ConfigError: the domains lie on several lattices.
    """
    found: dict[str, list[str]] = {}
    for section in campaign.domains:
        try:
            found.setdefault(read_description(campaign.catalog, section.name).crs, []).append(section.name)
        except CatalogError:
            # A domain without a catalog has no lattice; a plan that includes it raises this error.
            continue
    if len(found) > 1:
        listed = "; ".join(f"{', '.join(names)} in {crs}" for crs, names in sorted(found.items()))
        raise ConfigError(
            f"the campaign's domains lie on {len(found)} lattices: {listed}. The national store is a single grid, so "
            "make a campaign for each lattice, with its own output folders and extent_km"
        )
    return next(iter(found), CRS)


def product_origin(campaign: Campaign, recipe: Recipe, inputs: Origin) -> Origin:
    """Producers, licence and citation of a map: the model's citation, then that of the data.

    The attribution is that of the delivery, unless the campaign sets one.
    """
    is_set = "attribution" in campaign.output.model_fields_set
    # The map is made from imagery and weights; it has a single licence only where both have the same.
    licence = recipe.licence if inputs.licence in ("", recipe.licence) else "other"
    data = ", doi ".join(part for part in (inputs.citation, inputs.doi) if part)
    return Origin(
        campaign.output.attribution if is_set or not inputs.attribution else inputs.attribution,
        licence,
        "; ".join(part for part in (recipe.citation, data) if part),
        recipe.doi,
    )


def tile_provenance(resolved: ResolvedCampaign, inputs: DomainInputs, tile: Tile) -> Provenance:
    """How a tile is made, and from whose data of which days, for its item and its COGs."""
    campaign, recipe = resolved.campaign, resolved.recipe
    origin = product_origin(campaign, recipe, inputs.origin)
    members = zip(campaign.model.members, resolved.weights.members, strict=False)
    return Provenance(
        campaign=campaign.name,
        weights=campaign.model.title,
        weights_sha256=resolved.weights.weights_hash,
        quantized_sha256=resolved.engine.quantized.sha256 if resolved.engine.quantized else "",
        recipe=recipe.name,
        engine=resolved.engine.name,
        precision=resolved.engine.precision,
        engine_threads=resolved.engine_threads,
        layout=resolved.layout,
        software=tuple(sorted(software().items())),
        licence=origin.licence,
        attribution=origin.attribution,
        citation=origin.citation,
        doi=origin.doi,
        acquired=inputs.tile(tile.name).acquired,
        depends_on=resolved.depends_on(tile, inputs),
        members=tuple((n.weights, w.weights_hash, w.recipe.name) for n, w in members),
        tta=campaign.model.tta,
        temperature=campaign.model.temperature,
    )
