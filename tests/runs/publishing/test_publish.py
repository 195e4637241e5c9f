"""Publishing a campaign: the files beside the store, and the output of the command."""

import json
import os
from pathlib import Path

import pyogrio
import pytest
from distributed import Client
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import Tile
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.edition_record import STORE_LAYERS
from pipeline.products.national.grid import present_files
from pipeline.products.stac.search import search
from pipeline.runs.publishing import publish
from pipeline.runs.publishing.draft_edition import DraftEdition
from tests.support.campaigns import Made, make_campaign
from tests.support.products import sealed_at

DOMAIN = Domain("D034_2021")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign of two tiles that are sealed and not published."""
    made = make_campaign(tmp_path_factory.mktemp("mapped"), at=((0, 0), (0, 1)))
    for seed, tile in enumerate(made.delivery.tiles):
        sealed_at(made.products / DOMAIN, tile, domain=DOMAIN, seed=seed)
    return made


def write_beside(draft: DraftEdition) -> None:
    """A file a tile: made on the workers where the tile changed, linked where it did not."""
    assert all(
        present_files(draft.plan.target.store / layer / "c") == draft.plan.digests.keys() for layer in STORE_LAYERS
    )
    folder = draft.folder / "beside"
    folder.mkdir()
    for (row, col), text in draft.map_on_workers(sorted(draft.changed), str):
        (folder / f"{row}-{col}").write_text(text)
    for row, col in draft.plan.grid.tiles_of(draft.plan.digests) - draft.changed:
        assert draft.plan.former is not None
        os.link(draft.plan.former / "beside" / f"{row}-{col}", folder / f"{row}-{col}")
    (folder / "store").symlink_to("../product.zarr")
    (folder / ".left.tmp").touch()


def fail(_draft: DraftEdition) -> None:
    raise ProductError("no room for it")


def test_files_beside_the_store_are_written_before_the_commit_or_linked(
    mapped: Made, monkeypatch: pytest.MonkeyPatch, dask_client: Client
) -> None:
    national = mapped.campaign.output.national
    monkeypatch.setattr(publish, "EXTRAS", (write_beside, fail))
    with pytest.raises(ProductError, match="no room"):
        publish.publish(mapped.campaign, client=dask_client)
    assert not (national / "current").exists()

    monkeypatch.setattr(publish, "EXTRAS", (write_beside,))
    first = publish.publish(mapped.campaign, client=dask_client)
    assert (first.edition, first.written, first.linked, first.left_out) == (1, 2, 0, ())
    assert first.tally.owned == {DOMAIN: 2 * 500**2}
    assert (first.tally.several, first.tally.nobody, first.undelivered_km2) == (0, 0, {})

    name = mapped.delivery.tiles[0].name
    item = mapped.products / DOMAIN / f"{DOMAIN}-{name}.json"
    kept = item.rename(item.with_suffix(".away"))
    second = publish.publish(mapped.campaign, client=dask_client)
    assert (second.edition, second.written, second.linked) == (2, 1, 1)
    assert second.unsealed == ((DOMAIN, 1),)
    files = sorted(p.name for p in (national / "current" / "beside").iterdir())
    assert len(files) == 3
    assert files[-1] == "store"
    links = {p: (national / "current" / "beside" / p).stat().st_nlink for p in files[:2]}
    assert sorted(links.values()) == [1, 2]
    assert (national / "current" / "beside" / "store" / "landcover").is_dir()
    kept.rename(item)


def test_the_command_prints_what_it_published(mapped: Made, scheduler_option: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["publish", str(mapped.config), "--wait", *scheduler_option])
    assert done.exit_code == 0, done.output
    assert "pixels inside the boundaries of several domains: 0 (0.00 km²)" in done.output
    again = CliRunner().invoke(app, ["publish", str(mapped.config), *scheduler_option]).output
    assert "0 shards written, 2 unchanged" in again


def test_a_domain_that_is_not_in_the_campaign_is_left_out_and_named(mapped: Made, dask_client: Client) -> None:
    edition = publish.publish(mapped.campaign, client=dask_client).edition
    record = mapped.campaign.output.national / "current" / "edition.json"
    content = json.loads(record.read_bytes())
    content["domains"].append({"code": 3521, "name": "D035_2021", "year": 2021})
    # As an older version wrote it: an edition whose record differs from its manifest is written again.
    record.write_text(json.dumps(content | {"metadata": "of two domains", "manifest": False}))
    for name in (SUMS, SIZES):
        record.with_name(name).unlink()
    done = publish.publish(mapped.campaign, client=dask_client)
    assert (done.edition, done.written, done.left_out) == (edition + 1, 0, ("D035_2021",))


def test_a_sealed_tile_that_is_not_delivered_any_more_is_left_out(mapped: Made, dask_client: Client) -> None:
    last = mapped.delivery.tiles[-1]
    gone = Tile.at(last.window.row, last.window.right, last.window.width)
    sealed = sealed_at(mapped.products / DOMAIN, gone, domain=DOMAIN, seed=9)
    publish.publish(mapped.campaign, client=dask_client)
    national = mapped.campaign.output.national
    shown = {f"{DOMAIN}-{tile.name}" for tile in mapped.delivery.tiles}
    assert {item.id for item in search(national)} == shown
    for index in (
        national / "current" / "landcover.gti.gpkg",
        mapped.products / DOMAIN / f"{DOMAIN}-landcover.gti.gpkg",
    ):
        assert {Path(name).name for name in pyogrio.read_dataframe(index).location} == {
            f"{n}-landcover.tif" for n in shown
        }
    sealed.item_path.unlink()


def test_a_publish_deletes_leftovers_of_killed_publishes_but_not_of_runs(mapped: Made, dask_client: Client) -> None:
    folder = mapped.products / DOMAIN
    theirs = [
        f".{n}.1fa5.tmp" for n in ("quicklook.png", "collection.json", f"{DOMAIN}-landcover.gti.gpkg", "model-1.json")
    ]
    of_a_run = folder / f".{DOMAIN}-{mapped.delivery.tiles[0].name}-landcover.tif.1fa5.tmp"
    for path in (*(folder / name for name in theirs), of_a_run):
        path.touch()
    publish.publish(mapped.campaign, client=dask_client)
    assert [p.name for p in folder.glob(".*.tmp")] == [of_a_run.name]
    of_a_run.unlink()
