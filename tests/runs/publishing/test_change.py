"""The change between two editions, as the command writes it, and on a country whose truth is known at both dates."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401 (registers .rio)
import xarray as xr
from distributed import Client
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis.change import FalseChange
from pipeline.products.analysis.open_product import open_product
from pipeline.products.manifest import SIZES, SUMS, changed_additions
from pipeline.products.tile.cog import read_cog
from pipeline.runs.accuracy.change_sample import evaluate_change_sample
from pipeline.runs.publishing import write_change
from pipeline.runs.publishing.generalise import generalise
from pipeline.runs.publishing.publish import publish
from pipeline.runs.publishing.write_change import ChangeOptions, change_editions
from tests.support.campaigns import Made, make_campaign
from tests.support.forking import fork
from tests.support.products import sealed_at

DOMAIN = Domain("D034_2021")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """Two editions of two tiles of one vintage; one tile was mapped again with other weights."""
    made = make_campaign(tmp_path_factory.mktemp("made"), at=((0, 0), (0, 1)))
    tiles = made.delivery.tiles
    for seed, tile in enumerate(tiles):
        sealed_at(made.products / DOMAIN, tile, domain=DOMAIN, seed=seed)
    publish(made.campaign, client=dask_client)
    sealed_at(made.products / DOMAIN, tiles[1], domain=DOMAIN, seed=77)
    publish(made.campaign, client=dask_client)
    return made


def test_the_command_counts_other_weights_apart(made: Made, scheduler_option: tuple[str, str]) -> None:
    west, east = (tile.window for tile in made.delivery.tiles)
    communes = made.folder / "communes.geojson"
    boxes = gpd.GeoSeries.from_wkt([f"POLYGON (({_ring(window)}))" for window in (west, east)], crs=2154)
    gpd.GeoDataFrame({"code": ["34001", "34002"]}, geometry=boxes).to_crs(4326).to_file(communes)
    left = made.campaign.output.national / "editions" / "000002" / ".change-000001.tmp"
    left.mkdir()
    (left / "half").touch()
    result = CliRunner().invoke(
        app, ["change", str(made.config), "--communes", str(communes), "--unit", "5", *scheduler_option]
    )
    assert result.exit_code == 0, result.output
    before, after = (open_product(made.campaign.output.national, edition=n)["landcover"].to_numpy() for n in (1, 2))
    known = (before > 0) & (after > 0)
    hectares = (known & (before != after)).sum() / 250_000
    assert "land with other imagery: 0.00 ha" in result.output
    assert f"map differs: {100 * hectares * 250_000 / known.sum():.2f} %, {hectares:.2f} ha" in result.output
    folder = made.campaign.output.national / "current" / "change-000001"
    areas = pd.read_csv(folder / "areas.csv", dtype={"zone": str}).set_index("zone")
    assert areas.map_change_ha.to_dict() == pytest.approx({"all": hectares, "34001": 0, "34002": hectares}, abs=2e-4)
    raster = xr.open_zarr(folder / "change.zarr")
    assert (raster["change"].to_numpy() == 3).sum() == (known & (before != after)).sum()
    assert (raster.rio.crs.to_epsg(), raster["change"].attrs["flag_meanings"].split()[3]) == (2154, "map_change")
    polygons = gpd.read_parquet(folder / "polygons.parquet")
    assert set(polygons.change) <= {"map_change"}
    assert polygons.area_m2.min() >= 5
    assert areas.map_change_polygons["all"] == (polygons.commune == "34002").sum() == len(polygons) > 0
    assert areas.map_change_polygons_ha["34002"] == pytest.approx(polygons.area_m2.sum() / 10_000, abs=1e-4)
    classes = pd.read_csv(folder / "classes.csv")
    assert classes[classes.zone == "all"].polygons.sum() == len(polygons)
    assert f"{len(polygons)} polygons of 5 m² or more, {polygons.area_m2.sum() / 10_000:.2f} ha" in result.output
    assert not (folder / "work").exists()
    places = gpd.read_file(folder / "sample.gpkg")
    assert places.stratum.value_counts().to_dict() == {"stable": 50, "map_change": 50}
    assert json.loads((folder / "change.json").read_text())["figures"]["land_change_share"] is None
    assert not left.exists()
    check_repair(made, folder)


def test_interpreted_places_give_areas_of_change(made: Made, tmp_path: Path, dask_client: Client) -> None:
    done = change_editions(made.campaign, client=dask_client)
    path = tmp_path / "sample.gpkg"
    places = gpd.read_file(made.campaign.output.national / "current" / done.folder.name / "sample.gpkg")
    words = ["evaluate", "--sample", str(path), "--out", str(tmp_path / "out")]
    places["reference_from"] = places["reference_to"] = places["from"]
    places.iloc[1:].to_file(path, layer="places")
    lost = CliRunner().invoke(app, words)
    assert "were drawn; expected all" in str(lost.exception)
    open_place = places.copy()
    open_place.loc[3, "reference_to"] = 0
    open_place.to_file(path, layer="places")
    assert "1 of 100 places have no FLAIR value" in str(CliRunner().invoke(app, words).exception)
    stable = np.flatnonzero(places.stratum == "stable")[:5]
    places.loc[stable, ["reference_from", "reference_to"]] = 18, 1
    places.to_file(path, layer="places")
    assert "goes without a map" in str(CliRunner().invoke(app, [*words, str(tmp_path)]).exception)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    expected = 0.1 * places.stratum_m2[places.stratum == "stable"].iloc[0]
    found = json.loads((tmp_path / "out" / "change-areas.json").read_text())
    assert found["changed_m2"]["value"] == pytest.approx(expected)
    assert [(row["from"], row["to"]) for row in found["by_class"]] == [("greenhouse", "building")]
    assert f"land that changed: {expected / 10_000:,.2f} (" in result.output


def check_repair(made: Made, folder: Path) -> None:
    """`verify` finds damage of the change and names the command that writes it again."""
    assert CliRunner().invoke(app, ["verify", str(made.config)]).exit_code == 0
    table, content = folder / "areas.csv", (folder / "areas.csv").read_text()
    table.write_text(content.replace("34002", "34003"))
    failed = CliRunner().invoke(app, ["verify", str(made.config)])
    expected = f"landcover change {made.config} --from 1 --to 2 --unit 5 --communes communes.geojson"
    assert expected in str(failed.exception).replace("'", "").splitlines()[-1]
    assert "landcover report" not in str(failed.exception)
    table.write_text(content)


def _ring(window: Window) -> str:
    left, bottom, right, top = window.bounds
    return f"{left} {bottom}, {right} {bottom}, {right} {top}, {left} {top}, {left} {bottom}"


@pytest.mark.slow
def test_killed_at_20_random_moments_the_change_is_whole_or_absent(made: Made, tmp_path: Path, seed: int) -> None:
    moment, folder = random.Random(seed), made.campaign.output.national.resolve() / "editions" / "000002"
    final, options = folder / "change-000001", ChangeOptions(unit_m2=1, places=200)
    shutil.rmtree(final, ignore_errors=True)
    start = time.monotonic()
    assert os.waitpid(fork(lambda: change_alone(made.campaign, options), tmp_path / "log"), 0)[1] == 0
    lasts, wanted, kills = time.monotonic() - start, hashes(final), 0
    assert len(wanted) > 15
    while kills < 20:
        pid = fork(lambda: change_alone(made.campaign, options), tmp_path / "log")
        time.sleep(moment.uniform(0, lasts))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert not os.WIFEXITED(status) or not os.WEXITSTATUS(status), (tmp_path / "log").read_text()
        kills += os.WIFSIGNALED(status)
        assert changed_additions(folder) == {}
        assert not final.exists() or hashes(final) == wanted
    shutil.rmtree(final, ignore_errors=True)
    assert os.waitpid(fork(lambda: change_alone(made.campaign, options), tmp_path / "log"), 0)[1] == 0
    assert hashes(final) == wanted
    assert not list(folder.glob(".change*"))


def change_alone(campaign: Campaign, options: ChangeOptions) -> None:
    """Compares in this process: a forked one has no threads for a client."""

    def in_any_order(jobs: Iterable[Any], function: Callable[[Any], Any], **_: object) -> Iterator[tuple[Any, Any]]:
        listed = list(jobs)
        return ((job, function(job)) for job in random.sample(listed, len(listed)))

    def in_order(jobs: Iterable[Any], function: Callable[[Any], Any], **_: object) -> list[Any]:
        found = dict(in_any_order(jobs, function))
        return [found[job] for job in jobs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_change, "open_cluster", lambda *_, **__: nullcontext())
        patch.setattr(write_change, "map_jobs", in_any_order)
        patch.setattr(write_change, "map_in_order", in_order)
        change_editions(campaign, options=options)


def hashes(folder: Path) -> dict[str, str]:
    """Path → hash of the files but the manifest, which has times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (SUMS, SIZES))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_what_cannot_be_compared_is_named(made: Made, dask_client: Client) -> None:
    with pytest.raises(ProductError, match="there is no edition before 1"):
        change_editions(made.campaign, second=1, client=dask_client)
    with pytest.raises(ProductError, match="there is no edition 9; there is 1, 2"):
        change_editions(made.campaign, first=9, client=dask_client)
    with pytest.raises(ProductError, match="is compared with itself"):
        change_editions(made.campaign, first=2, client=dask_client)
    with pytest.raises(ProductError, match=r"has no generalised map; `landcover generalise --edition 1`"):
        change_editions(made.campaign, options=ChangeOptions(generalised=True), client=dask_client)


def test_generalised_maps_are_compared_too(made: Made, dask_client: Client) -> None:
    made.change(generalise={"preset": "ocsge"})
    for number in (1, 2):
        generalise(made.campaign, edition=number, client=dask_client)
    done = change_editions(made.campaign, options=ChangeOptions(generalised=True), client=dask_client)
    national = made.campaign.output.national
    before, after = (open_product(national, edition=n, level="generalised")["landcover"].to_numpy() for n in (1, 2))
    differ = (before > 0) & (after > 0) & (before != after)
    assert done.figures["map_change_ha"] == pytest.approx(differ.sum() / 250_000, abs=1e-4)
    assert done.folder.name == "change-000001-generalised"


@pytest.fixture
def vintages(campaign: Campaign, tmp_path: Path, dask_client: Client) -> Campaign:
    """The demo's two vintages as two editions; both have the tile on the border."""
    alone = campaign.model_copy(
        update={"output": campaign.output.model_copy(update={"national": tmp_path / "national"})}
    )
    for section in campaign.domains:
        only = section.model_copy(update={"boundary": None})
        publish(alone.model_copy(update={"domains": (only,)}), client=dask_client)
    return alone


@pytest.mark.slow
def test_expected_false_change_is_near_the_measured_one(
    demo: Path, vintages: Campaign, tmp_path: Path, dask_client: Client
) -> None:
    products = [open_product(vintages.output.national, edition=n) for n in (1, 2)]
    maps, sure = ([p[layer].to_numpy() for p in products] for layer in ("landcover", "confidence"))
    truth = [on_extent(demo.parent / "country" / "truth" / f"{s.name}.tif", vintages) for s in vintages.domains]
    known = (maps[0] > 0) & (maps[1] > 0)
    unchanged, lesser = known & (truth[0] == truth[1]), np.minimum(*sure)
    measured = (maps[0] != maps[1])[unchanged].mean()
    # Labels of every second row of pixels, and the change of all: what a user has is a part.
    rows = np.arange(len(known)) % 2 == 0
    errors = FalseChange.of(*(m[rows] for m in maps), lesser=lesser[rows], truth=(truth[0][rows], truth[1][rows]))
    done = change_editions(vintages, errors=errors, client=dask_client)
    assert done.figures["other_imagery_ha"] == pytest.approx(known.sum() / 250_000, abs=1e-4)
    assert done.figures["expected"] == pytest.approx(measured, abs=0.02)
    country = [demo.parent / "country" / "truth" / f"{s.name}.tif" for s in vintages.domains]
    labelled = change_editions(
        vintages, options=ChangeOptions(truth_from=country[0], truth_to=country[1]), client=dask_client
    ).figures
    assert labelled["labels_false_share"] == pytest.approx(measured)
    assert labelled["expected"] == pytest.approx(measured, abs=0.02)
    assert labelled["labels_ha"] == pytest.approx(unchanged.sum() / 250_000)
    assert done.figures["land_change_share"] == pytest.approx((maps[0] != maps[1])[known].mean())
    # People who see the truth at the places give an area whose interval has the true one.
    places = gpd.read_file(done.folder / "sample.gpkg")
    rows = (-places.y * 5 // 1).astype(int) - vintages.extent.row
    columns = (places.x * 5 // 1).astype(int) - vintages.extent.col
    places["reference_from"], places["reference_to"] = (t[rows, columns] for t in truth)
    places.to_file(tmp_path / "sample.gpkg", layer="places")
    areas, _ = evaluate_change_sample(tmp_path / "sample.gpkg", out=tmp_path)
    assert areas.changed.low <= (known & (truth[0] != truth[1])).sum() / 25 <= areas.changed.high
    filtered = change_editions(vintages, options=ChangeOptions(min_area_m2=50), client=dask_client)
    assert filtered.figures["land_change_share"] == done.figures["land_change_share"]
    assert filtered.figures["land_change_share_after_filter"] < done.figures["land_change_share"]
    kinds = xr.open_zarr(filtered.folder / "change.zarr")["change"].to_numpy()
    assert (kinds == 2)[unchanged].mean() < measured
    shutil.rmtree(filtered.folder)


def on_extent(path: Path, campaign: Campaign) -> NDArray[np.uint8]:
    """A raster of classes on the extent of the nation; 0 outside."""
    with rasterio.open(path) as file:
        own = Window.from_bounds(tuple(file.bounds))
        found = np.zeros(campaign.extent.shape, np.uint8)
        part = own.intersect(campaign.extent)
        found[part.slices_in(campaign.extent)] = read_cog(path, part.within(own))
    return found
