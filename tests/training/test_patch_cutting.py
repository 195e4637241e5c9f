"""Cut patches have the pixels of the mosaic and the labels of the reference at their position."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from pipeline.errors import ConfigError
from pipeline.grid import Window
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.labels.patches import find_patches, read_image, read_mask
from pipeline.sources.labels.reference import Reference
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.training.patch_cutting import cut_patches
from tests.support.campaigns import RECIPE, TILE, make_campaign

BANDS = ("red", "green", "blue", "nir", "elevation")


def test_cut_patches_are_found_and_equal_mosaic_and_reference(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "campaign", at=((0, 0), (0, 1)))
    made.index()
    domain = made.delivery.domain
    inputs = read_domain(made.folder / "catalog", domain, tile_size=TILE)
    window = inputs.window
    truth = np.random.default_rng(0).integers(1, 16, window.shape, dtype=np.uint8)
    truth[:, 300:] = 0  # no labels in the east and in most of the second tile
    how = {"driver": "GTiff", "count": 1, "height": window.height, "width": window.width, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "truth.tif", "w", crs="EPSG:2154", transform=Affine(*window.transform), **how
    ) as file:
        file.write(truth, 1)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    options = {"catalog": made.folder / "catalog", "domain": domain, "recipe": str(tmp_path / "tiny.yaml")}
    reference = Reference.open(tmp_path / "truth.tif", nomenclature="flair15")
    patches = cut_patches(reference, **options, out=tmp_path / "set", tile_m=100, size=128, least=0.4)  # type: ignore[arg-type]
    assert patches == find_patches([tmp_path / "set"])
    assert {p.unit for p in patches} == {f"{domain} {inputs.names[0]}"}
    assert len(patches) == 9 - 3 * (384 - 300 > 0.6 * 128)
    mosaic = Mosaic.of(inputs, bands=BANDS)
    table = np.where(np.isin(np.arange(256), [*range(1, 15), 18]), np.arange(256), 0)
    for patch in patches:
        with rasterio.open(patch.image) as file:
            place = Window.from_bounds(tuple(file.bounds))
        np.testing.assert_array_equal(read_image(patch, bands=BANDS), mosaic.read(place).bands)
        np.testing.assert_array_equal(read_mask(patch), table[truth[place.slices_in(window)]])
    with pytest.raises(ConfigError, match="no patch of 4000 px"):
        cut_patches(reference, **options, out=tmp_path / "none", tile_m=100, size=4000)  # type: ignore[arg-type]
