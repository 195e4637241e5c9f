"""Cuts labelled patches from a domain's imagery and a reference, in FLAIR's layout."""

from pathlib import Path

from pipeline.config import load_recipe
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ConfigError
from pipeline.geobox import lattice_geobox
from pipeline.grid import PIXELS_PER_M
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.reader import read_domain
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
    """Cuts each tile into adjacent patches and writes those without nodata and with enough labels.

    Args:
        reference: classes of any nomenclature; they are written as FLAIR values.
        catalog: folder of the input catalog.
        domain: such as `D034_2021`.
        out: folder of the set; its `metadata.json` contains the position of each patch.
        recipe: name or path; its bands are cut.
        tile_m: side of the catalog's tiles in metres. A tile is a zone, so that neighbours stay together.
        size: side of a patch in pixels.
        least: smallest share, 0..1, of a patch's pixels with a label.
        progress: counts tiles.

    Returns:
        The patches in the order in which they were cut.

    Raises:
        ConfigError: no patch remains.
        CatalogError, SourceError: imagery or the reference cannot be read.
        StorageError: `out` cannot be written.
    """
    rules = load_recipe(recipe)
    inputs = read_domain(catalog, domain, tile_size=tile_m * PIXELS_PER_M)
    mosaic = Mosaic.of(inputs, bands=rules.bands, height_step_m=rules.height_step_m)
    patches: list[Patch] = []
    metadata = {}
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
            patches.append(write_patch(out, (domain, tile.name, len(patches)), pixels.bands, mask, geobox=geobox))
            left, bottom, right, top = window.bounds
            centre = {"patch_centroid_x": (left + right) / 2, "patch_centroid_y": (bottom + top) / 2}
            metadata[patches[-1].name] = {"domain": domain, "zone": tile.name} | centre
    if not patches:
        raise ConfigError(
            f"{reference.path}: no patch of {size} px in {domain} has imagery everywhere and {least:.0%} of labels; "
            "check that the reference covers the imagery"
        )
    write_json(out / "metadata.json", metadata)
    return tuple(patches)
