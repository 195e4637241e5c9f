"""A delivery on disk → the input catalogue, for the bands that a recipe wants."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import load_recipe
from pipeline.grid import PIXELS_PER_M
from pipeline.sources import catalog as catalogs
from pipeline.sources.catalog import IndexReport


def index_domain(
    folders: Sequence[Path],
    *,
    domain: str,
    catalog: Path,
    tile_m: int,
    recipe: str,
    progress: Callable[[int, int], None],
) -> IndexReport:
    """See `pipeline.sources.catalog.index`; tiles in metres, bands by the recipe's name."""
    bands = load_recipe(recipe).bands
    return catalogs.index(
        folders, domain=domain, catalog=catalog, tile_size=tile_m * PIXELS_PER_M, bands=bands, progress=progress
    )
