"""Producers and days of the imagery: from the delivery through items and COGs to the national store."""

import json
from pathlib import Path

import pytest
import rasterio
from distributed import Client

from pipeline.domain import Domain
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.edition_writer import begin, commit
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import plan_edition
from pipeline.products.national.shard_writer import write_shard
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import read_products
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.index import index
from pipeline.stac_fields import providers
from tests.runs.ingest.test_stage import run as stage
from tests.support.archives import make_archives
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.dbase import write_table

WHO = "IGN, BD ORTHO 2021, LiDAR HD"
CITED = f"{WHO} (Licence Ouverte Etalab 2.0)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """Two tiles mapped in this process: one whose days stand in `dalles.dbf`, one of the vintage alone."""
    made = make_campaign(tmp_path_factory.mktemp("attribution"), at=[(0, 0), (0, 1)])
    made.change(grid={"tile": TILE, "block": TILE, "core": TILE, "halo": 16, "window": 576})
    name = f"./34-2021-{made.delivery.tiles[0].name}-LA93-0M20-E080.jp2"
    rows = [(name, "2021-06-14"), (name, "2021-06-17")]
    write_table(made.delivery.folder / "dalles.dbf", {"NOM": 60, "DATE_VOL": 10}, rows)
    made.index()
    run(make_plan(made.campaign), client=dask_client)
    return made


def test_items_and_cogs_have_the_producers_and_days_of_their_data(made: Made) -> None:
    dated, undated = (made.products / "D034_2021" / f"D034_2021-{t.name}" for t in made.delivery.tiles)
    said = json.loads(Path(f"{dated}.json").read_bytes())["properties"]
    assert (said["start_datetime"], said["end_datetime"]) == ("2021-06-14T00:00:00Z", "2021-06-17T23:59:59Z")
    assert said["start_datetime"] < said["datetime"] < said["end_datetime"]
    assert said["landcover:acquired"] is True
    assert (said["landcover:attribution"], said["license"], said["sci:citation"]) == (WHO, "etalab-2.0", CITED)
    assert said["providers"] == [{"name": "IGN", "roles": ["producer", "licensor"]}]
    for layer in ("landcover", "confidence"):
        with rasterio.open(f"{dated}-{layer}.tif") as cog:
            tags = cog.tags()
        assert (tags["acquired"], tags["attribution"], tags["citation"]) == ("2021-06-14/2021-06-17", WHO, CITED)
    other = json.loads(Path(f"{undated}.json").read_bytes())["properties"]
    assert (other["datetime"], other["start_datetime"]) == (None, "2021-01-01T00:00:00Z")
    assert other["landcover:acquired"] is False
    with rasterio.open(f"{undated}-landcover.tif") as cog:
        assert "acquired" not in cog.tags()


def test_the_national_store_has_them_for_each_domain_and_for_all(made: Made, tmp_path: Path) -> None:
    campaign = made.campaign
    grid = NationalGrid(campaign.extent, campaign.grid.tile, campaign.shard, campaign.output.chunk)
    plan = plan_edition(tmp_path / "national", grid, read_products(campaign, status(campaign), "EPSG:2154"))
    begin(plan)
    commit(plan, [write_shard(plan.target, shard) for shard in plan.write])
    national = open_product(tmp_path / "national")
    (row,) = national.attrs["domains"]
    assert row["acquired"] == ["2021-06-14", "2021-06-17"]
    assert (row["attribution"], row["licence"], row["citation"]) == (WHO, "etalab-2.0", CITED)
    assert (row["name"], row["year"], row["campaign"]) == ("D034_2021", 2021, "tiny")
    said = (national.attrs["source"], national.attrs["license"], national.attrs["references"])
    assert said == (WHO, "etalab-2.0", CITED)


def test_staged_heights_keep_their_holes_and_producers(tmp_path: Path) -> None:
    delivery, archives = make_archives(tmp_path / "shipped", at=[(0, 0)])
    stage(archives, tmp_path / "out", treatment="interpolate", remove_small=True)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name.startswith(("LHD", "RGE"))]
    for _ in range(2):  # the second time from what the first one saw
        report = index([tmp_path / "out"], domain=Domain("D034_2021"), catalog=tmp_path / "cat", tile_size=TILE)
        path = tmp_path / "cat" / "D034_2021" / f"D034_2021-{delivery.tiles[0].name}.json"
        said = json.loads(path.read_bytes())["properties"]
        assert said["landcover:attribution"] == "IGN, BD ORTHO 2021, LiDAR HD, RGE ALTI"
        holes = said["landcover:height_holes"]
        assert holes["treatment"] == "interpolate"
        assert 0.005 < holes["filled"] <= holes["share"] < 0.02
        (note,) = [n for n in said["landcover:notes"] if n.startswith("height: ")]
        assert f"{holes['share']:.2%} of the tile are holes" in note
        assert (delivery.tiles[0].name, note) in report.notes


def test_each_producer_is_a_provider_once() -> None:
    given = "IGN, BD ORTHO 2021; A region, ortho 2020; IGN, LiDAR HD"
    assert [p["name"] for p in providers(given)] == ["IGN", "A region"]
