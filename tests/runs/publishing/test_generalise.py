"""The generalised map of an edition: one answer, only what a change reaches, whole or absent after a kill."""

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.generalised.layer import (
    GENERALISED_FOLDER,
    PARTS,
    REPLACED,
    STAGING,
    GeneralisedTile,
    LayerPlan,
    plan_layer,
    read_layer,
)
from pipeline.products.national.generalised.layer_writer import begin_layer, finish_layer, remove_unfinished, write_part
from pipeline.products.national.generalised.tile_writer import LayerTarget, write_generalised
from pipeline.runs.publishing.generalise import generalise, plan_generalised, tile_names
from pipeline.runs.publishing.publish import publish
from tests.support.campaigns import Made, make_campaign
from tests.support.file_server import serving
from tests.support.forking import fork
from tests.support.plain_generalise import by_graph
from tests.support.products import sealed_at

DOMAIN = Domain("D034_2021")
UNITS = {"minimum_m2": {"building": 4, "woodland": 12, "pervious surface": 8, "impervious_surface": 8, "vineyard": 20}}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """Four tiles in a row, published: patches of 4 m² and larger."""
    made = make_campaign(tmp_path_factory.mktemp("published"), at=((0, 0), (0, 1), (0, 2), (0, 3)))
    for seed, tile in enumerate(made.delivery.tiles):
        sealed_at(made.products / DOMAIN, tile, domain=DOMAIN, seed=seed)
    made.change(generalise=UNITS)
    publish(made.campaign, client=dask_client)
    return made


@pytest.fixture
def made(published: Made, tmp_path: Path) -> Made:
    return published.copy(tmp_path / "copy")


def layer_files(made: Made) -> dict[str, str]:
    """Hashes of the layer's files but those that name times."""
    folder = made.campaign.output.national / "current" / GENERALISED_FOLDER
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("SHA256SUMS", "MANIFEST.json")
    }


def units(campaign: Campaign) -> NDArray[np.int64]:
    assert campaign.generalise is not None
    return np.array(campaign.generalise.units, np.int64)


def test_the_command_makes_the_map_and_others_know_it(made: Made, scheduler_option: tuple[str, str]) -> None:
    def landcover(*words: str) -> str:
        result = CliRunner().invoke(app, [*words[:1], str(made.config), *words[1:]])
        assert result.exit_code == 0, result.output
        return result.output

    names = [tile.name for tile in made.delivery.tiles]
    assert landcover("generalise", "--dry-run").splitlines()[:4] == names
    output = landcover("generalise", *scheduler_option)
    assert "edition 1: 4 tiles made, 0 unchanged" in output
    national = made.campaign.output.national
    before, after = (open_product(national, level=level)["landcover"].to_numpy() for level in (None, "generalised"))
    expected = by_graph(before, units(made.campaign))
    np.testing.assert_array_equal(after, expected)
    assert (before != after).mean() > 0.1
    layer = read_layer(national / "current")
    assert layer is not None
    assert sum(layer.moved.values()) == (before != after).sum()
    gained, lost = (int(((a == 9) & (b != 9)).sum()) for a, b in ((after, before), (before, after)))
    assert f"vineyard                 gained {gained / 250_000:.2f} ha, lost {lost / 250_000:.2f} ha" in output
    assert "4 tiles made" not in landcover("generalise", *scheduler_option)
    landcover("verify")
    landcover("report")
    page = (national / "current" / "report" / "report.html").read_text()
    assert '<h2 id="generalised">Generalised map</h2>' in page
    assert f"{100 * (before != after).sum() / (before > 0).sum():.2f} %" in page


def most_frequent(classes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The most frequent class of each square of so many pixels, the lowest of equals; 0 where all pixels are nodata."""
    rows, cols = (length // side for length in classes.shape)
    squares = classes.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows, cols, -1)
    counts = (squares[..., None] == np.arange(1, 20)).sum(2)
    return np.where(counts.any(2), counts.argmax(2) + 1, 0)


def test_coarser_levels_are_counted_and_opened_remotely(made: Made, dask_client: Client) -> None:
    national = made.campaign.output.national
    generalise(made.campaign, client=dask_client)
    whole = open_product(national, level="generalised").landcover.to_numpy()
    with serving(national.parent) as server:
        for level, side in (("1", 5), ("4", 250)):
            here = open_product(national, level=f"generalised/{level}")
            assert list(here.data_vars) == ["landcover"]
            np.testing.assert_array_equal(here.landcover, most_frequent(whole, side))
            there = open_product(f"{server}/{national.name}", level=f"generalised/{level}")
            np.testing.assert_array_equal(there.landcover, here.landcover)
            assert there.rio.crs == here.rio.crs
        there = open_product(f"{server}/{national.name}", level="generalised")
        np.testing.assert_array_equal(there.landcover, whole)
        with pytest.raises(ProductError, match="generalised: has no level 9; expected None"):
            open_product(f"{server}/{national.name}", level="generalised/9")
        shard = national / "current" / GENERALISED_FOLDER / "pyramid.zarr" / "2" / "landcover/c/0/1"
        shard.unlink()
        for place in (national, f"{server}/{national.name}"):
            with pytest.raises(ProductError, match="shard is lost"):
                open_product(place, level="generalised/2").landcover.compute()
    with pytest.raises(ProductError, match="has no level shares"):
        open_product(national, level="generalised/shares")
    tree = xr.open_datatree(national / "current" / GENERALISED_FOLDER, engine="zarr")
    np.testing.assert_array_equal(tree["pyramid.zarr/1"].landcover, most_frequent(whole, 5))


def test_a_changed_tile_remakes_the_tiles_that_it_reaches(made: Made, dask_client: Client) -> None:
    tiles = made.delivery.tiles
    generalise(made.campaign, client=dask_client)
    sealed_at(made.products / DOMAIN, tiles[3], domain=DOMAIN, seed=77)
    publish(made.campaign, client=dask_client)
    plan = plan_generalised(made.campaign)
    assert tile_names(plan) == [tiles[2].name, tiles[3].name]
    done = generalise(made.campaign, client=dask_client)
    assert (done.edition, done.made, done.linked) == (2, 2, 2)
    shards = sorted(done.store.glob("landcover/c/0/*"))
    assert [path.stat().st_nlink for path in shards] == [2, 2, 1, 1]
    levels = sorted((done.store.parent / "pyramid.zarr" / "1").glob("landcover/c/0/*"))
    assert [path.stat().st_nlink for path in levels] == [2, 2, 1, 1]
    whole = open_product(made.campaign.output.national)["landcover"].to_numpy()
    again = open_product(made.campaign.output.national, level="generalised")["landcover"].to_numpy()
    np.testing.assert_array_equal(again, by_graph(whole, units(made.campaign)))
    linked = layer_files(made)
    shutil.rmtree(made.campaign.output.national / "editions" / "000001" / GENERALISED_FOLDER)
    shutil.rmtree(made.campaign.output.national / "current" / GENERALISED_FOLDER)
    assert generalise(made.campaign, client=dask_client).made == 4
    assert layer_files(made) == linked


def test_other_units_and_damage_make_tiles_again(made: Made, dask_client: Client) -> None:
    generalise(made.campaign, client=dask_client)
    wanted = layer_files(made)
    generalise(made.change(generalise={"preset": "ocsge"}).campaign, client=dask_client)
    assert layer_files(made) != wanted
    made.change(generalise=UNITS)
    assert generalise(made.campaign, client=dask_client).made == 4
    assert layer_files(made) == wanted
    shard = made.campaign.output.national / "current" / GENERALISED_FOLDER / "landcover.zarr" / "landcover/c/0/1"
    state, content = shard.stat(), bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    output = CliRunner().invoke(app, ["verify", str(made.config)])
    assert f"landcover generalise {made.config} --recheck" in str(output.exception).replace("'", "")
    assert generalise(made.campaign, client=dask_client).made == 0
    assert generalise(made.campaign, client=dask_client, recheck=True).made == 1
    assert layer_files(made) == wanted


def test_what_is_missing_is_named(made: Made) -> None:
    current = made.campaign.output.national / "current"
    with pytest.raises(ProductError, match="has no generalised map; `landcover generalise` makes it"):
        open_product(made.campaign.output.national, level="generalised")
    (current / "product.zarr" / "landcover" / "c" / "0" / "2").unlink()
    with pytest.raises(ProductError, match="shard is lost"):
        plan_generalised(made.campaign)
    (made.campaign.output.national / "current").unlink()
    with pytest.raises(ProductError, match="nothing is published"):
        plan_generalised(made.campaign)
    made.change(generalise=None)
    with pytest.raises(ConfigError, match="has no section `generalise`; add"):
        plan_generalised(made.campaign)
    with pytest.raises(ConfigError, match=r"minimum_m2: 'pond' is neither a group"):
        made.change(generalise={"minimum_m2": {"pond": 3}}).campaign  # noqa: B018


def make_alone(folder: Path, wanted: NDArray[np.int64], *, block: int, seed: int = 0) -> None:
    """What `generalise` does, in this process and in any order of tiles."""
    plan = plan_of(folder, wanted)
    if not plan.nothing_to_do:
        begin_layer(plan)
        target = LayerTarget(plan.edition.store, plan.store, plan.edition.grid, plan.units, block)
        made = {}
        for tile in random.Random(seed).sample(plan.write, len(plan.write)):
            written = write_generalised(target, tile)
            made[tile] = GeneralisedTile(plan.shards_sealed(written.read), written.pixels, written.moved)
            write_part(plan, tile, made[tile])
        finish_layer(plan, made)
    remove_unfinished(plan)


def plan_of(national: Path, wanted: NDArray[np.int64]) -> LayerPlan:
    edition = current_edition(national)
    assert edition is not None
    return plan_layer(edition, wanted)


def test_shards_are_the_same_for_any_block_and_order(made: Made, dask_client: Client) -> None:
    national, shards = made.campaign.output.national, []
    for block, seed in ((200, 1), (256, 2), (1_000, 3)):
        make_alone(national, units(made.campaign), block=block, seed=seed)
        shards.append({name: sha for name, sha in layer_files(made).items() if "/landcover/c/" in name})
        shutil.rmtree(national / "current" / GENERALISED_FOLDER)
    generalise(made.campaign, client=dask_client)
    assert len(shards[0]) == 4
    assert all(found.items() <= layer_files(made).items() for found in shards)


@pytest.mark.slow
def test_killed_at_20_random_moments_the_layer_is_whole_or_absent(made: Made, tmp_path: Path, seed: int) -> None:
    moment, national, ours = random.Random(seed), made.campaign.output.national, units(made.campaign)
    edition = (national / "current").resolve()
    make_alone(national, ours, block=256)
    wanted, kills = layer_files(made), 0
    while kills < 20:
        if moment.random() < 0.3:
            shutil.rmtree(edition / GENERALISED_FOLDER, ignore_errors=True)
        pid = fork(lambda: make_alone(national, ours, block=256, seed=moment.randrange(9)), tmp_path / "log")
        goal, delay_s = moment.randrange(16), moment.random() * 0.03
        while files_beside(edition) < goal and not ended(pid):
            time.sleep(0.001)
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert not os.WIFEXITED(status) or not os.WEXITSTATUS(status), (tmp_path / "log").read_text()
        kills += os.WIFSIGNALED(status)
        assert not (edition / GENERALISED_FOLDER).exists() or layer_files(made) == wanted
    make_alone(national, ours, block=256)
    assert layer_files(made) == wanted
    assert not any((edition / name).exists() for name in (STAGING, PARTS, REPLACED))


def files_beside(edition: Path) -> int:
    return sum(len(names) for name in (STAGING, PARTS) for _, _, names in os.walk(edition / name))


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
