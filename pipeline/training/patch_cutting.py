"""Labelled patches out of a domain's imagery and a reference, in FLAIR's layout."""

from pathlib import Path

from pipeline.config import load_recipe
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ConfigError
from pipeline.geobox import lattice_geobox
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.index import open_domain
from pipeline.sources.labels.patches import Patch, write_patch
from pipeline.sources.labels.reference import Reference
from pipeline.sources.reading.mosaic import Mosaic


def cut_patches(
    reference: Reference,
    *,
    catalog: Path,
    domain: Domain,
    out: Path,
    recipe: str,
    tile_m: int = 5_000,
    size: int = 512,
    least: float = 0.5,
    progress: Progress = SILENT,
) -> tuple[Patch, ...]:
    """Cuts each tile into patches side by side and keeps those that are imagery throughout and labelled enough.

    Args:
        reference: classes of any nomenclature, written as FLAIR values.
        catalog: folder of the input catalogue.
        domain: `D034_2021`.
        out: folder of the set; `metadata.json` says where each patch lies.
        recipe: name or path; its bands are cut.
        tile_m: side of the catalogue's tiles in metres; a tile is a zone, so that neighbours stay together.
        size: pixels a side of a patch.
        least: share of a patch's pixels that have a label, 0..1.
        progress: counts tiles.

    Raises:
        ConfigError: no patch is left.
        CatalogError, SourceError: imagery or a reference that cannot be had.
        StorageError: `out` cannot be written.
    """
    rules = load_recipe(recipe)
    inputs = open_domain(catalog, domain, tile_size=tile_m * PIXELS_PER_M)
    mosaic = Mosaic.of(inputs, bands=rules.bands, height_step_m=rules.height_step_m)
    cut: list[Patch] = []
    about = {}
    tiles = sorted(t.tile for t in inputs.tiles)
    progress.start(len(tiles))
    for tile in progress.track(tiles):
        for window in tile.window.split(size):
            geobox = lattice_geobox(window, inputs.crs)
            mask = reference.read(geobox)
            if window.shape != (size, size) or not mask.any() or (mask > 0).mean() < least:
                continue
            pixels = mosaic.read(window)
            if not pixels.valid.all():
                continue
            cut.append(write_patch(out, (domain, tile.name, len(cut)), pixels.bands, mask, geobox=geobox))
            about[cut[-1].name] = _about(domain, tile.name, window)
    if not cut:
        raise ConfigError(
            f"{reference.path}: no patch of {size} px in {domain} is imagery throughout and {least:.0%} labelled; do "
            "they lie on each other?"
        )
    write_json(out / "metadata.json", about)
    return tuple(cut)


def _about(domain: Domain, zone: str, window: Window) -> dict[str, str | float]:
    left, bottom, right, top = window.bounds
    place = {"patch_centroid_x": (left + right) / 2, "patch_centroid_y": (bottom + top) / 2}
    return {"domain": domain, "zone": zone} | place
