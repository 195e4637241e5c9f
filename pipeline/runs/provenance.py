"""What a campaign's products share with its deliveries: the lattice, and whose data they are made of."""

from pipeline.config import Campaign, Recipe
from pipeline.errors import CatalogError, ConfigError
from pipeline.grid import CRS
from pipeline.sources.catalog.index import read_description
from pipeline.sources.delivery.attribution import Origin


def lattice_of(campaign: Campaign) -> str:
    """`EPSG:…` of the one lattice on which all of the campaign's indexed domains lie.

    Raises:
        ConfigError: they lie on several.
    """
    found: dict[str, list[str]] = {}
    for section in campaign.domains:
        try:
            found.setdefault(read_description(campaign.catalog, section.name).crs, []).append(section.name)
        except CatalogError:
            # A domain that is not indexed yet has no lattice; who maps it is told so.
            continue
    if len(found) > 1:
        listed = "; ".join(f"{', '.join(names)} in {crs}" for crs, names in sorted(found.items()))
        raise ConfigError(
            f"the campaign's domains lie on {len(found)} lattices: {listed}. One campaign has one lattice, because its "
            "national store is one grid: make a campaign for each, with output folders and extent_km of its own"
        )
    return next(iter(found), CRS)


def product_origin(campaign: Campaign, recipe: Recipe, inputs: Origin) -> Origin:
    """Whose data a map is made of, its licence, and how to cite it: the model's citation, then the data's.

    Attribution follows the delivery, unless the campaign names one itself.
    """
    named = "attribution" in campaign.output.model_fields_set
    # The map is made of the imagery and of the weights: under one licence where both have it.
    licence = recipe.licence if inputs.licence in ("", recipe.licence) else "other"
    data = ", doi ".join(part for part in (inputs.citation, inputs.doi) if part)
    return Origin(
        campaign.output.attribution if named or not inputs.attribution else inputs.attribution,
        licence,
        "; ".join(part for part in (recipe.citation, data) if part),
        recipe.doi,
    )
