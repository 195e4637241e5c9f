"""Writes the input catalog from deliveries and external catalogs, for the bands of a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipeline.config import LimitName, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.grid import PIXELS_PER_M
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.external_stac import Query
from pipeline.sources.catalog.index import IndexReport, index


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
    """Indexes a domain as `pipeline.sources.catalog.index.index` does, with the arguments of the command line.

    Args:
        sources: folders, paths or URLs of static STAC catalogs, URLs of STAC APIs.
        domain: such as `D064_2021`.
        catalog: the catalog's folder.
        tile_m: side of a tile in metres.
        recipe: name or path; it gives the bands and the training statistics.
        accept: names of limits of the model card that may be exceeded.
        query: which items of catalogs and APIs.
        progress: counts files, then tiles.

    Raises:
        ConfigError: `accept` contains an unknown limit, or there is no such recipe.
    """
    if unknown := set(accept) - set(get_args(LimitName)):
        raise ConfigError(
            f"unknown limit {', '.join(sorted(unknown))}; expected some of {', '.join(get_args(LimitName))}"
        )
    return index(
        sources,
        domain=domain,
        catalog=catalog,
        tile_size=tile_m * PIXELS_PER_M,
        recipe=load_recipe(recipe),
        accept=tuple(name for name in get_args(LimitName) if name in accept),
        query=query,
        progress=progress,
    )
