"""Territories overseas lie on lattices of their own, and so do all of their products."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  registers the `odc` accessor
import pytest
import rasterio
import rioxarray
import xarray as xr
import yaml
from distributed import Client
from pyproj import Transformer

from pipeline.config import load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError, DeliveryError, ProductError
from pipeline.grid import Tile, union
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import plan_edition
from pipeline.products.tile.seal import list_sealed
from pipeline.products.tile.verify import check
from pipeline.progress import SILENT
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from pipeline.sources.catalog.index import index as index_domain
from tests.support.campaigns import RECIPE, TILE, write_weights
from tests.support.deliveries import hills, make_delivery, noise, roofs, write_pair, write_relief

DOMAIN = Domain("D974_2022")
REUNION = "EPSG:2975"
TILES = (Tile.named("03100-76700", TILE), Tile.named("03101-76700", TILE))
"""100 m each, side by side, in the west of Réunion: x 310 km is 190 km west of 57° E, UTM 40 S."""


def deliver(folder: Path) -> Path:
    """Imagery of Réunion under IGN's names, surfaces and terrain beside it."""
    for tile in TILES:
        write_pair(folder, tile, noise(tile), domain=DOMAIN, crs=REUNION)
        path = write_relief(folder, "dsm", roofs, corner=tile.name, side_m=100, crs=REUNION)
        path.rename(path.with_name(path.name.replace("FXX", "REU").replace("LAMB93_IGN69", "RGR92UTM40S_REUN89")))
        # Esri ASCII has no CRS: it is the lattice's.
        path = write_relief(folder, "dtm", hills, corner=tile.name, side_m=101, step=1.0, as_rge_alti=True)
        path.rename(path.with_name(path.name.replace("FXX", "REU").replace("LAMB93_IGN69", "RGR92UTM40S_REUN89")))
    return folder


def index(folder: Path, catalog: Path, domain: str = DOMAIN, *, accept: tuple[str, ...] = ("territory",)) -> Any:
    return index_domain(
        [str(folder)],
        domain=domain,
        catalog=catalog,
        tile_size=TILE,
        recipe=load_recipe(str(catalog.parent / "tiny.yaml")),
        accept=(*accept, "radiometry"),
    )


def write_campaign(folder: Path, **sections: Any) -> Path:
    content = {
        "name": "reunion",
        "catalog": "catalog",
        "model": {"weights": "weights.pth", "recipe": "tiny.yaml"},
        "domains": [{"name": DOMAIN}],
        "engine": "torch",
        "grid": {"tile": TILE, "block": 250, "core": 250, "halo": 16, "window": 320},
        "output": {"extent_km": [309.9, 7669.8, 310.3, 7670.0], "chunk": 100},
        "cluster": {"gdal_cache_mb": 64, "decoded_cache_mb": 64},
        "accept_limits": ["territory"],
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | sections))
    return path


@pytest.fixture
def reunion(tmp_path: Path) -> Path:
    """A folder with the delivery in `in`, indexed in `catalog`, and random weights."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    write_weights(tmp_path / "weights.pth", tmp_path / "tiny.yaml")
    deliver(tmp_path / "in")
    index(tmp_path / "in", tmp_path / "catalog")
    return tmp_path


def test_an_overseas_delivery_is_mapped_on_its_own_lattice(reunion: Path, dask_client: Client) -> None:
    with pytest.raises(DeliveryError, match="département 974 is outside metropolitan France"):
        index(reunion / "in", reunion / "refused", accept=())
    with pytest.raises(ConfigError, match=r"does not accept: territory"):
        make_plan(load_campaign(write_campaign(reunion, accept_limits=[])))
    with pytest.raises(ConfigError, match=r"of EPSG:2975; its tiles cover \[310, 7669\.9, 310\.2, 7670\]\. Set an ext"):
        make_plan(load_campaign(write_campaign(reunion, output={"chunk": 100})))

    boundary = reunion / "boundary.geojson"
    boundary.write_text(json.dumps(western_half()))
    campaign = load_campaign(write_campaign(reunion, domains=[{"name": DOMAIN, "boundary": str(boundary)}]))
    assert len(run(make_plan(campaign), client=dask_client)) == 2
    assert publish(campaign, client=dask_client).unsealed == ()
    verified = verify(campaign)
    assert verified.clean, verified

    for tile in TILES:
        cog = rioxarray.open_rasterio(reunion / "products" / DOMAIN / f"{DOMAIN}-{tile.name}-landcover.tif")
        assert isinstance(cog, xr.DataArray)
        assert cog.odc.crs.to_epsg() == cog.rio.crs.to_epsg() == 2975
        assert cog.odc.geobox.boundingbox.bbox == tile.window.bounds
        left, _, _, top = tile.window.bounds
        assert (float(cog.x[0]), float(cog.y[0])) == pytest.approx((left + 0.1, top - 0.1), abs=1e-6)
        said = json.loads((reunion / "products" / DOMAIN / f"{DOMAIN}-{tile.name}.json").read_bytes())
        assert said["properties"]["proj:code"] == REUNION
        assert said["properties"]["proj:bbox"] == list(tile.window.bounds)
        # By hand: 190 km west of 57° E on the parallel of 21° S, 2330 km of meridian south of the equator.
        west, south, east, north = said["bbox"]
        assert ((west + east) / 2, (south + north) / 2) == pytest.approx((55.172, -21.062), abs=0.01)

    national = open_product(reunion / "national")
    assert national.landcover.rio.crs.to_epsg() == national.landcover.odc.crs.to_epsg() == 2975
    owner = national.domain.sel(y=slice(7_670_000, 7_669_900))
    assert (owner.sel(x=slice(310_000, 310_100)).values == 30_422).all(), "département 974 counts as 304"
    assert not owner.sel(x=slice(310_100, 310_200)).values.any(), "the polygon ends between the tiles"
    cog = rioxarray.open_rasterio(reunion / "products" / DOMAIN / f"{DOMAIN}-{TILES[0].name}-landcover.tif")
    here = national.landcover.sel(x=cog.x, y=cog.y, method="nearest", tolerance=1e-6)
    np.testing.assert_array_equal(here.values, cog.values[0])


def western_half() -> dict[str, Any]:
    """A polygon in degrees whose east edge is x = 310.1 km of the lattice."""
    to_degrees = Transformer.from_crs(REUNION, "EPSG:4326", always_xy=True)
    edges = [(309_000, 7_669_000), (310_100, 7_669_000), (310_100, 7_671_000), (309_000, 7_671_000)]
    ring = [to_degrees.transform(x, y) for x, y in edges]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def test_staged_heights_overseas_lie_on_the_same_lattice(reunion: Path) -> None:
    from pipeline.runs.ingest.stage import stage

    how = {"domain": DOMAIN, "tile_m": TILE // 5, "treatment": "leave", "remove_small": False}
    report = stage([reunion / "in"], out=reunion / "staged", bar=lambda _: nullcontext(SILENT), **how)  # type: ignore[arg-type]
    assert len(report.heights.written) == 2
    path = next((reunion / "staged").rglob(f"974-2022-{TILES[0].name}-U40S-0M20-HAUTEUR.tif"))
    with rasterio.open(path) as height:
        assert (height.crs.to_epsg(), height.bounds) == (2975, TILES[0].window.bounds)
    before = make_plan(load_campaign(write_campaign(reunion))).domains[0].inputs
    indexed = index_domain(
        [str(reunion / "in"), str(reunion / "staged")],
        domain=DOMAIN,
        catalog=reunion / "catalog",
        tile_size=TILE,
        recipe=load_recipe(str(reunion / "tiny.yaml")),
        accept=("territory", "radiometry"),
    )
    assert not any("CRS" in said and "expected" in said for _, said in indexed.notes)
    from pipeline.sources.catalog.reader import read_domain
    from pipeline.sources.domain_inputs import BANDS
    from pipeline.sources.reading.mosaic import Mosaic

    after = read_domain(reunion / "catalog", DOMAIN, tile_size=TILE)
    window = union([t.window for t in TILES])
    one, other = (Mosaic.of(inputs, bands=BANDS).read(window).bands for inputs in (before, after))
    np.testing.assert_array_equal(one, other)


def test_one_campaign_has_one_lattice(reunion: Path) -> None:
    delivery = make_delivery(reunion / "metropolitan", at=[(0, 0)], size=TILE)
    index(delivery.folder, reunion / "catalog", delivery.domain)
    both = [{"name": DOMAIN}, {"name": delivery.domain}]
    campaign = load_campaign(write_campaign(reunion, domains=both))
    for command in (
        lambda: make_plan(campaign, domains=[DOMAIN]),
        lambda: publish(campaign),
        lambda: verify(campaign),
    ):
        with pytest.raises(ConfigError, match=r"on 2 lattices: D034_2021 in EPSG:2154; D974_2022 in EPSG:2975\."):
            command()


def test_tiles_of_another_lattice_are_neither_verified_nor_published(tmp_path: Path) -> None:
    from tests.support.products import GRID, product, sealed_at, tile_at

    tile, other_domain = tile_at(0, 0), Domain("D064_2021")
    sealed_at(tmp_path / other_domain, tile)
    (sealed,) = list_sealed(tmp_path / other_domain, other_domain, tile.window.height)
    assert check(sealed) == []
    assert "proj:code is EPSG:2154, expected EPSG:2975" in check(sealed, crs=REUNION)[0]
    other = NationalGrid(GRID.extent, GRID.tile, GRID.shard, GRID.chunk, REUNION)
    with pytest.raises(ProductError, match="is in EPSG:2154; expected the nation's lattice, EPSG:2975"):
        plan_edition(tmp_path / "national", other, [product(tmp_path, other_domain, {tile: 0})])
