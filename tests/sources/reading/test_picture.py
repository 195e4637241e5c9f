"""Pictures of the imagery: the delivered colours to the pixel, means at coarser resolutions, nothing outside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.grid import Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading.picture import read_picture
from tests.support.deliveries import Delivery, make_delivery


@pytest.fixture(scope="module", params=["tif", "jp2"])
def delivered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Delivery, list[Asset]]:
    folder = tmp_path_factory.mktemp("picture")
    made = make_delivery(folder / "delivery", suffix=request.param)
    index([made.folder], domain=made.domain, catalog=folder / "catalog", tile_size=250)
    inputs = read_domain(folder / "catalog", made.domain, tile_size=250)
    return made, [a for a in inputs.assets if a.kind == "rvb"]


def test_pixels_are_those_of_the_delivery(delivered: tuple[Delivery, list[Asset]]) -> None:
    made, assets = delivered
    window = Window(made.window.row - 100, made.window.col + 130, 512, 512)
    picture = read_picture(assets, window, factor=1)
    inside = window.intersect(made.window)
    here, there = inside.slices_in(window), inside.slices_in(made.window)
    assert (picture.covered[here] == made.covered[there]).all()
    assert picture.covered.sum() == made.covered[there].sum()
    assert (picture.colours[here] == np.moveaxis(made.imagery[:3, *there], 0, -1)).all()


def test_coarser_pictures_have_means(delivered: tuple[Delivery, list[Asset]]) -> None:
    made, assets = delivered
    window = Window(made.window.row, made.window.col, 240, 240)
    picture = read_picture(assets, window, factor=4)
    expected = made.imagery[:3, :240, :240].reshape(3, 60, 4, 60, 4).mean((2, 4))
    # A JPEG 2000 file's own coarser level is a wavelet's, not the mean.
    assert np.abs(np.moveaxis(picture.colours, -1, 0) - expected).mean() < 25
    assert abs(float(picture.colours.mean()) - expected.mean()) < 2


def test_a_lost_file_is_named(delivered: tuple[Delivery, list[Asset]], tmp_path: Path) -> None:
    made, assets = delivered
    lost = replace(assets[0], path=tmp_path / "lost.tif")
    with pytest.raises(SourceError, match=r"lost\.tif: cannot be read"):
        read_picture([lost], made.window, factor=1)
