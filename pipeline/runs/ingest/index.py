"""Deliveries and ready catalogues → the input catalogue, for the bands that a recipe wants."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipeline.config import LimitName, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.grid import PIXELS_PER_M
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog import index as catalogs
from pipeline.sources.catalog.index import IndexReport, Query


def index_domain(
    sources: Sequence[str],
    *,
    domain: Domain,
    catalog: Path,
    tile_m: int,
    recipe: str,
    accept: Sequence[str] = (),
    query: Query | None = None,
    progress: Progress = SILENT,
) -> IndexReport:
    """See `pipeline.sources.catalog.index.index`; tiles in metres, bands and training statistics by the recipe's name.

    Raises:
        ConfigError: `accept` names what is no limit, or there is no such recipe.
    """
    if unknown := set(accept) - set(get_args(LimitName)):
        raise ConfigError(
            f"unknown limit {', '.join(sorted(unknown))}: expected some of {', '.join(get_args(LimitName))}"
        )
    return catalogs.index(
        sources,
        domain=domain,
        catalog=catalog,
        tile_size=tile_m * PIXELS_PER_M,
        recipe=load_recipe(recipe),
        accept=tuple(name for name in get_args(LimitName) if name in accept),
        query=query,
        progress=progress,
    )
