"""A run: the sealed bytes depend on the campaign and its inputs alone."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from distributed import Client
from typer.testing import CliRunner

import pipeline
from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import ConfigError, LandcoverError, RunFailed, StorageError
from pipeline.model import load_model
from pipeline.runs.mapping.events import RunStarted, TileEnded
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.lazy_image import to_xarray
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.campaigns import (
    Made,
    cog_bytes,
    kill_all,
    make_campaign,
    start,
    strays,
    wait_for_cogs,
    workers_of,
    write_weights,
)
from tests.support.waiting import LONGEST_S

DOMAIN = Domain("D034_2021")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """A campaign that was run and published; tests must not change it."""
    made = make_campaign(tmp_path_factory.mktemp("mapped"))
    run(make_plan(made.campaign), client=dask_client)
    publish(made.campaign, client=dask_client)
    return made


@pytest.fixture
def copy(mapped: Made, tmp_path: Path) -> Made:
    """A copy of the campaign, sealed and published, that a test may change."""
    return mapped.copy(tmp_path / "copy")


def todo(made: Made, **options: object) -> list[str]:
    return [t.tile.name for d in make_plan(made.campaign, **options).domains for t in d.todo]  # type: ignore[arg-type]


def test_all_tiles_are_sealed_and_a_second_run_does_nothing(mapped: Made, dask_client: Client) -> None:
    (state,) = status(mapped.campaign)
    assert state.sealed == tuple(sorted(t.name for t in mapped.delivery.tiles))
    assert (state.damaged, state.failed, state.missing) == ((), (), ())
    assert not strays(mapped.products)
    before = {p: p.stat().st_mtime_ns for p in mapped.products.rglob("*")}
    events: list[object] = []
    assert run(make_plan(mapped.campaign), on_event=events.append, client=dask_client) == ()
    assert not events, "a cluster was started without need"
    assert {p: p.stat().st_mtime_ns for p in mapped.products.rglob("*")} == before


def test_sealed_tiles_are_equal_to_predict_on_the_mosaic(mapped: Made) -> None:
    campaign = mapped.campaign
    model = load_model(campaign.weights, str(mapped.folder / "tiny.yaml"))
    inputs = read_domain(campaign.catalog, DOMAIN, tile_size=500)
    mosaic = Mosaic.of(inputs, bands=model.recipe.bands)
    layout = campaign.grid.layout(32)
    for image in (mosaic, to_xarray(mosaic, name="mosaic", block=250)):
        dataset = pipeline.predict(image, model, layout=layout, block=250, engine=campaign.engine).compute(
            scheduler="threads"
        )
        for tile in mapped.delivery.tiles:
            rows, cols = tile.window.slices_in(mosaic.window)
            for name in ("landcover", "confidence"):
                with rasterio.open(mapped.products / DOMAIN / f"{DOMAIN}-{tile.name}-{name}.tif") as cog:
                    np.testing.assert_array_equal(cog.read(1), dataset[name].values[rows, cols])


def test_tiles_of_jpeg_2000_have_the_pixels_of_reads_without_a_plan(tmp_path: Path, dask_client: Client) -> None:
    """A run decodes each file's internal tiles once; `predict` on the mosaic reads window by window."""
    made = make_campaign(tmp_path / "made", at=[(0, 0), (0, 1)], suffix="jp2")
    run(make_plan(made.campaign), client=dask_client)
    model = load_model(made.campaign.weights, str(made.folder / "tiny.yaml"))
    mosaic = Mosaic.of(read_domain(made.campaign.catalog, DOMAIN, tile_size=500), bands=model.recipe.bands)
    layout = made.campaign.grid.layout(32)
    dataset = pipeline.predict(mosaic, model, layout=layout, block=250, engine="torch").compute(scheduler="threads")
    for tile in made.delivery.tiles:
        rows, cols = tile.window.slices_in(mosaic.window)
        with rasterio.open(made.products / DOMAIN / f"{DOMAIN}-{tile.name}-landcover.tif") as cog:
            np.testing.assert_array_equal(cog.read(1), dataset["landcover"].values[rows, cols])
    before = cog_bytes(made.products)
    shutil.rmtree(made.products)
    made.change(cluster={"gdal_cache_mb": 64, "decoded_cache_mb": 0, "threads": 1})
    run(make_plan(made.campaign), client=dask_client)
    assert cog_bytes(made.products) == before


def test_blocks_are_mapped_row_by_row(tmp_path: Path, dask_client: Client) -> None:
    """In Dask's own order, more decoded pixels would wait for the blocks that need them."""
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    made.change(grid={"tile": 500, "block": 125, "core": 125, "halo": 32, "window": 224})
    run(make_plan(made.campaign), client=dask_client)
    (log,) = dask_client.run(lambda dask_worker: [(e[0], e[2]) for e in dask_worker.state.log if len(e) > 2]).values()
    started = [str(key) for key, state in log if state == "executing" and str(key).startswith("predict-tile")][-16:]
    blocks = [int(key.rsplit("-", 1)[1]) for key in started]
    assert sorted(blocks) == list(range(16))
    waited = blocks[3:]  # Dask gives an idle worker of two threads three tasks at once, in an order of its own
    assert waited == sorted(waited)


@pytest.mark.slow
def test_workers_in_one_or_two_processes_seal_the_same_bytes(copy: Made, mapped: Made) -> None:
    shutil.rmtree(copy.products)
    copy.change(cluster={"threads": 4, "tiles_in_flight": 3, "gdal_cache_mb": 16}, engine_threads=2)
    events: list[RunStarted | TileEnded] = []
    run(make_plan(copy.campaign), workers=2, on_event=events.append)
    assert isinstance(events[0], RunStarted)
    assert events[0].dashboard is None, "nobody asked for one"
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(
    copy: Made, mapped: Made, victim: str, seed: int, dask_client: Client
) -> None:
    moment = random.Random(seed)
    shutil.rmtree(copy.folder / "national", ignore_errors=True)  # it says that the domain has a manifest
    while not killed(copy, victim, moment):
        pass
    run(make_plan(copy.campaign), client=dask_client)
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)
    assert not strays(copy.products)
    assert verify(copy.campaign).domains[0].problems == ()


def killed(made: Made, victim: str, moment: random.Random) -> bool:
    """Kills the driver or a worker of a run that has sealed nothing yet; False where the run came to its end before."""
    shutil.rmtree(made.products)
    process = start(made, "--workers", "1" if victim == "driver" else "2")
    try:
        wait_for_cogs(made, process, moment.randrange(1, 8))
        time.sleep(moment.random() * 0.3)
        workers = workers_of(process.pid)
        if victim == "driver":
            kill_all(process)
        elif workers:
            os.kill(moment.choice(workers), signal.SIGKILL)
            assert process.wait(timeout=LONGEST_S) == 0, (made.folder / "run.log").read_text()
        return bool(workers)
    except ProcessLookupError:
        return False
    finally:
        if process.poll() is None:
            kill_all(process)


def test_a_tile_without_an_item_is_mapped_again_and_reported_by_events(
    copy: Made, mapped: Made, dask_client: Client
) -> None:
    name = copy.delivery.tiles[2].name
    folder = copy.products / DOMAIN
    (folder / f"{DOMAIN}-{name}.json").unlink()
    (folder / f".{DOMAIN}-{name}-landcover.tif.0000.tmp").write_bytes(b"half a file")
    # A publish, which locks the nation and not the domain, may be writing this file.
    of_a_publish = folder / f".{DOMAIN}-landcover.gti.gpkg.0000.tmp"
    of_a_publish.touch()
    assert todo(copy) == [name]
    events: list[RunStarted | TileEnded] = []
    run(make_plan(copy.campaign), on_event=events.append, client=dask_client)
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)
    assert strays(copy.products) == [of_a_publish]
    started, ended = events
    assert isinstance(started, RunStarted)
    assert started.dashboard is not None
    assert started.dashboard.endswith("/status")
    assert isinstance(ended, TileEnded)
    assert (ended.tile, ended.pixels, ended.error) == (name, 250_000, None)
    record = json.loads((folder / "run.json").read_text())
    assert record["campaign"]["engine"] == "torch"
    assert record["campaign"]["engine_threads"] >= 1
    assert record["failed"] == {}


def test_other_weights_remap_every_tile_and_a_copy_of_them_none(copy: Made) -> None:
    shutil.copy(copy.folder / "weights.pth", copy.folder / "same.pth")
    copy.change(model={"weights": "same.pth", "recipe": "tiny.yaml"})
    assert todo(copy) == []
    write_weights(copy.folder / "other.pth", copy.folder / "tiny.yaml", seed=1)
    copy.change(model={"weights": "other.pth", "recipe": "tiny.yaml"})
    assert len(todo(copy)) == 6


def test_a_changed_input_remaps_only_the_tiles_that_read_it(copy: Made) -> None:
    tiles = {t.name: t.window for t in copy.delivery.tiles}
    name = copy.delivery.tiles[0].name
    path = copy.imagery(name)
    with rasterio.open(path) as source:
        pixels, profile = source.read(), source.profile
    pixels[:, 100, 100] ^= 255
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)
    copy.index()
    layout = copy.campaign.grid.layout(32)
    reading = sorted(n for n, w in tiles.items() if layout.read_of_block(w).intersect(tiles[name]).pixels)
    assert sorted(todo(copy)) == reading
    assert len(reading) < len(tiles)


def test_another_window_layout_remaps_every_tile_and_other_blocks_none(copy: Made) -> None:
    copy.change(grid={"tile": 500, "block": 125, "core": 125, "halo": 32, "window": 224}, cluster={"threads": 1})
    assert todo(copy) == []
    copy.change(grid={"tile": 500, "block": 250, "core": 125, "halo": 20, "window": 224})
    assert len(todo(copy)) == 6


def test_force_and_tile_select_tiles_to_map_again(copy: Made) -> None:
    name = copy.delivery.tiles[1].name
    assert todo(copy, tiles=[name], force=True) == [name]
    assert todo(copy, tiles=[name]) == []
    with pytest.raises(ConfigError, match="is not in the catalog of D034_2021"):
        todo(copy, tiles=["00001-00001"])
    with pytest.raises(ConfigError, match=r"unknown domain 'D066_2020': the campaign has D034_2021"):
        todo(copy, domains=["D066_2020"])


@pytest.mark.slow
def test_a_broken_input_fails_its_tiles_and_the_others_are_sealed(tmp_path: Path, dask_client: Client) -> None:
    made = make_campaign(tmp_path, at=[(0, 0), (0, 1), (0, 2), (0, 3)], suffix="jp2")
    broken = made.delivery.tiles[0]
    path = made.imagery(broken.name)
    layout = made.campaign.grid.layout(32)
    reading = {t.name for t in made.delivery.tiles if layout.read_of_block(t.window).intersect(broken.window).pixels}
    plan = make_plan(made.campaign)
    # Broken after the plan: the task that reads it must notice.
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFailed, match=path.name) as caught:
        run(plan, client=dask_client)
    (state,) = status(made.campaign)
    failed = {name for name, _ in state.failed}
    assert broken.name in failed
    assert failed <= reading
    assert all(name in str(caught.value) for name in failed)
    assert set(state.sealed) == {t.name for t in made.delivery.tiles} - failed
    assert not strays(made.products)

    # Broken before the plan: the tiles fail before a cluster starts.
    events: list[object] = []
    with pytest.raises(RunFailed, match="has changed since it was indexed"):
        run(make_plan(made.campaign), on_event=events.append, client=dask_client)
    assert all(isinstance(e, TileEnded) and e.error for e in events)

    path.write_bytes(whole)
    assert {e.tile for e in run(make_plan(made.campaign), client=dask_client)} == failed
    assert not status(made.campaign)[0].failed


def test_an_output_that_cannot_be_written_stops_the_run_before_it_starts(copy: Made, dask_client: Client) -> None:
    (copy.folder / "file").write_text("no folder")
    copy.change(output={**copy.campaign.output.model_dump(mode="json"), "domains": "file"})
    events: list[object] = []
    with pytest.raises(StorageError, match=r"file/D034_2021 cannot be written"):
        run(make_plan(copy.campaign), on_event=events.append, client=dask_client)
    assert not events


def test_verify_finds_a_changed_byte_a_lost_file_and_a_missing_tile(copy: Made) -> None:
    assert verify(copy.campaign).clean
    folder = copy.products / DOMAIN
    first, second, third = (f"{DOMAIN}-{t.name}" for t in copy.delivery.tiles[:3])
    cog = folder / f"{first}-landcover.tif"
    content = bytearray(cog.read_bytes())
    content[len(content) // 2] ^= 1
    cog.write_bytes(content)
    (folder / f"{second}-confidence.tif").unlink()
    (folder / f"{third}.json").unlink()
    verified = verify(copy.campaign)
    assert not verified.clean
    (domain,) = verified.domains
    assert any(cog.name in p and "SHA-256" in p for p in domain.problems)
    assert any(f"{second}-confidence.tif" in p and "missing" in p for p in domain.problems)
    assert domain.missing == (copy.delivery.tiles[2].name,)


def test_a_publish_writes_a_searchable_catalog_and_files_for_gis(mapped: Made, tmp_path: Path) -> None:
    edition = mapped.campaign.output.national / "current"
    domain = mapped.products / DOMAIN
    for path in (edition / "landcover.gti.gpkg", domain / f"{DOMAIN}-landcover.gti.gpkg"):
        with rasterio.open(path) as index, rasterio.open(next(domain.glob("*-landcover.tif"))) as cog:
            rows, cols = index.window(*cog.bounds).round().toranges()
            np.testing.assert_array_equal(index.read(1, window=(rows, cols)), cog.read(1))
    for name in ("landcover.qml", "quicklook.png", "catalog/collection.json"):
        assert (edition / name).is_file()
    names = sorted(item.stem for item in domain.glob(f"{DOMAIN}-*-*.json"))
    command = ["search", str(mapped.config), "--domain", DOMAIN, "--datetime", "2021", "--min-confidence", "0.01"]
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "found.json")])
    assert found.exit_code == 0, found.output
    assert f"{len(names)} tiles found" in found.output
    items = json.loads((tmp_path / "found.json").read_text())["features"]
    assert [item["id"] for item in items] == names
    assert all(Path(asset["href"]).is_file() for item in items for asset in item["assets"].values())
    none = tmp_path / "none.json"
    nothing = CliRunner().invoke(app, ["search", str(edition), "--domain", "D001_2020", "--out", str(none)])
    assert f"0 tiles found\nthe product has {len(names)} tiles of {DOMAIN}, from " in nothing.output
    assert not none.exists()
    wrong = CliRunner().invoke(app, ["search", str(edition), "--min-share", "vineyard"])
    assert isinstance(wrong.exception, ConfigError)


def test_publishing_again_writes_only_changed_shards(copy: Made, dask_client: Client) -> None:
    assert publish(copy.campaign, client=dask_client).written == 0
    write_weights(copy.folder / "other.pth", copy.folder / "tiny.yaml", seed=1)
    copy.change(model={"weights": "other.pth", "recipe": "tiny.yaml"})
    name = copy.delivery.tiles[3].name
    run(make_plan(copy.campaign, tiles=[name]), client=dask_client)
    published = publish(copy.campaign, client=dask_client)
    assert (published.edition, published.written, published.linked) == (2, 1, 5)


def test_commands_end_with_their_exit_codes(copy: Made) -> None:
    runner = CliRunner()
    config = str(copy.config)
    for command in (["plan", config], ["status", config], ["verify", config], ["run", config]):
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
    assert "nothing to do" in runner.invoke(app, ["run", config]).output
    (copy.products / DOMAIN / f"{DOMAIN}-{copy.delivery.tiles[0].name}.json").unlink()
    result = runner.invoke(app, ["verify", config, "--json", str(copy.folder / "v.json")])
    assert isinstance(result.exception, LandcoverError)
    assert result.exception.exit_code == 4
    assert json.loads((copy.folder / "v.json").read_text())["clean"] is False
    assert runner.invoke(app, ["nothing"]).exit_code == 2
