"""Seams of the demo's country with and without a halo, limits, verification, and reports in a browser."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from distributed import Client
from PIL import Image
from typer.testing import CliRunner

from pipeline import legend
from pipeline.cli import app
from pipeline.config import Campaign, load_campaign
from pipeline.demo.walkthrough import seams_without_halo
from pipeline.domain import Domain
from pipeline.errors import ProductError, VerifyFailed
from pipeline.products.analysis.open_product import open_product
from pipeline.products.gis.overviews import overview
from pipeline.products.manifest import read_manifest
from pipeline.products.national.grid import NationalGrid
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quality.verify import verify
from pipeline.runs.quality.write_reports import write_reports
from tests.support.browser import outside, screenshot
from tests.support.paths import ROOT
from tests.support.progress import Recorder
from tests.support.report_page import limit_rows

DOMAINS = (Domain("D034_2021"), Domain("D030_2024"))
pytestmark = pytest.mark.xdist_group("demo")


def verified(config: Path, json_file: Path) -> dict[str, object]:
    """The JSON of `landcover verify`; raises its errors."""
    result = CliRunner().invoke(app, ["verify", str(config), "--json", str(json_file)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    figures: dict[str, object] = json.loads(json_file.read_text())
    return figures


@pytest.mark.slow
def test_with_its_halo_the_demo_has_no_seams_and_without_one_it_has(
    demo: Path, campaign: Campaign, tmp_path: Path, dask_client: Client
) -> None:
    figures = verified(demo, tmp_path / "verify.json")
    for kind, found in figures["seam_ratio"].items():  # type: ignore[attr-defined]
        assert abs(found["ratio"] - 1) <= max(0.03, 3 * found["standard_error"]), kind
    bare = seams_without_halo(campaign.on_cluster(scheduler=dask_client.scheduler.address), tmp_path / "bare")
    everywhere = (bare.window + bare.block + bare.tile).seam_ratio
    assert everywhere is not None
    assert everywhere.exceeds(1.0)


def test_verify_reports_coverage_holes_and_seams(demo: Path, campaign: Campaign, tmp_path: Path) -> None:
    figures = verified(demo, tmp_path / "verify.json")
    assert figures["clean"] is True
    assert (figures["tiles_checked"], figures["checksums_checked"]) == (4, 8)
    assert figures["coverage"] == {
        "expected": 4,
        "sealed": 4,
        "failed": 0,
        "missing": 0,
        "damaged": 0,
        "share": 1.0,
    }
    assert figures["elevation_holes"] == {"tiles": 4, "tiles_counted": 0, "share": None}
    assert figures["seam_ratio"].keys() == {"window", "block", "tile"}  # type: ignore[attr-defined]
    assert figures["border_ratio"]["ratio"] > 1  # type: ignore[index]
    assert [d["domain"] for d in figures["domains"]] == [d.name for d in campaign.domains]  # type: ignore[attr-defined]


def test_an_exceeded_limit_fails_verify_and_maps_nothing_again(demo: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(demo.read_text())
    strict = demo.with_name("strict.yaml")
    strict.write_text(yaml.safe_dump(content | {"limits": {"seam_ratio": 0.2, "no_data_share": 0.5}}))
    with pytest.raises(VerifyFailed, match=r"D034_2021: seam_ratio\.window is .*; the limit is 0\.2") as failed:
        verified(strict, tmp_path / "verify.json")
    assert failed.value.exit_code == 4
    assert "no_data_share" not in str(failed.value)
    figures = json.loads((tmp_path / "verify.json").read_text())
    assert (figures["clean"], figures["domains"][0]["problems"]) == (False, [])
    assert {(e["domain"], e["limit"]) for e in figures["exceeded"]} == {(name, 0.2) for name in DOMAINS}
    assert make_plan(load_campaign(strict)).todo == 0


def test_a_missing_tile_fails_verify_unless_the_limit_allows_it(demo: Path, tmp_path: Path) -> None:
    campaign = load_campaign(demo)
    tile = list_sealed(campaign.product_folder(DOMAINS[0]), DOMAINS[0], campaign.grid.tile)[0]
    aside = tmp_path / tile.item_path.name
    tile.item_path.rename(aside)
    allowing = demo.with_name("allowing.yaml")
    allowing.write_text(yaml.safe_dump(yaml.safe_load(demo.read_text()) | {"limits": {"missing_tiles": 1}}))
    try:
        with pytest.raises(VerifyFailed, match=rf"{DOMAINS[0]} {tile.tile.name}: not sealed"):
            verified(demo, tmp_path / "verify.json")
        figures = verified(allowing, tmp_path / "verify.json")
        assert (figures["clean"], figures["coverage"]["missing"]) == (True, 1)  # type: ignore[index]
        (page,) = write_reports(campaign, domains=[DOMAINS[0]])
        text = page.read_text()
        assert re.search(rf'Missing: <a href="[^"]*">{tile.tile.name}</a></p>', text)
        assert limit_rows(text)["tiles that are not sealed"] == ["1", "0", "exceeded"]
        assert re.search(r'<div class="bad"><dt>limit is exceeded</dt><dd>1</dd>', text)
    finally:
        aside.rename(tile.item_path)


@pytest.fixture(scope="module")
def pages(demo: Path) -> tuple[Path, ...]:
    """The reports of both domains and of the nation."""
    seen, campaign = Recorder(), load_campaign(demo)
    written = write_reports(campaign, progress=seen)
    assert (seen.totals, seen.done) == ([pixels_of(campaign), 3], 3)
    return written


def pixels_of(campaign: Campaign) -> int:
    domains = (list_sealed(campaign.product_folder(name), name, campaign.grid.tile) for name in DOMAINS)
    return sum(tile.tile.window.pixels for sealed in domains for tile in sealed)


def test_verify_counts_the_bytes_of_the_edition_then_every_pixel_twice(campaign: Campaign) -> None:
    seen = Recorder()
    verify(campaign, progress=seen)
    sizes, pixels = seen.totals
    edition = campaign.output.national / "current"
    assert sizes == sum(file.size or 0 for file in read_manifest(edition).files.values())
    assert (pixels, seen.done) == (2 * pixels_of(campaign), pixels)


def test_each_domain_and_the_edition_have_a_self_contained_page(pages: tuple[Path, ...], campaign: Campaign) -> None:
    edition = campaign.output.national.resolve() / "editions" / "000001"
    page = "report/report.html"
    assert pages == (*(campaign.product_folder(name) / page for name in DOMAINS), edition / page)
    for path in pages:
        assert outside(path.read_text()) == []
    own, other, nation = (path.read_text() for path in pages)
    for heading in ("Classes", "Confidence", "Coverage", "Elevation", "Seams", "Radiometry", "Throughput"):
        assert all(f">{heading}</h2>" in text for text in (own, other, nation))
    assert ">Domains</h2>" in nation
    assert "borders of domains" in nation
    tally = json.loads((edition / "edition.json").read_bytes())["tally"]
    assert sorted(tally["owned"]) == sorted(DOMAINS)
    assert f"Claimed by several domains: {tally['several']:,} pixels" in nation
    assert f"by none, in delivered tiles: {tally['nobody']:,} pixels" in nation
    assert all(f"<td>{tally['owned'][name] / 25e6:,.2f} km²</td>" in nation for name in DOMAINS)
    assert ">Claims</h2>" not in own
    assert "borders of domains" not in own
    assert DOMAINS[1] in own, "the neighbour's shares stand beside its own"


def test_the_national_picture_shows_the_owner_of_each_pixel(campaign: Campaign) -> None:
    national = campaign.output.national
    opened = open_product(national)
    classes, shown = opened.landcover.to_numpy(), opened.domain.to_numpy()
    picture = np.asarray(Image.open(national / "current" / "quicklook.png"))
    step = -(-classes.shape[1] // picture.shape[1])
    height, width = (n // step for n in classes.shape)
    cells = classes[: height * step, : width * step].reshape(height, step, width, step).swapaxes(1, 2)
    owners = shown[: height * step, : width * step].reshape(height, step, width, step).swapaxes(1, 2)
    first = cells[..., 0, 0]
    plain = (cells == first[..., None, None]).all((2, 3))
    np.testing.assert_array_equal(picture[:height, :width][plain], first[plain])
    older = plain & (owners == 3421).all((2, 3)) & (first != 0)
    newest = overview(
        list_sealed(campaign.product_folder(DOMAINS[1]), DOMAINS[1], campaign.grid.tile),
        "landcover",
        within=NationalGrid.from_json(_record(national)["grid"]).extent,
        side=max(picture.shape),
    )[:height, :width]
    assert (older & (newest != 0) & (newest != first)).any(), "else any order of drawing would pass"


def _record(national: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((national / "current" / "edition.json").read_bytes())
    return found


def test_shares_in_the_report_are_those_of_the_pixels(pages: tuple[Path, ...], campaign: Campaign) -> None:
    sealed = list_sealed(campaign.product_folder(DOMAINS[0]), DOMAINS[0], campaign.grid.tile)
    counts = sum((np.array([s.class_pixels.get(v, 0) for v in range(1, 13)]) for s in sealed), np.zeros(12, np.int64))
    water = 100 * counts[4] / counts.sum()
    swatch = f'<i style="background:{legend.BY_VALUE[5].colour}"></i>water</td><td>{water:.2f} %'
    assert swatch in pages[0].read_text()


def test_texts_from_the_campaign_are_escaped(campaign: Campaign) -> None:
    evil = campaign.model_copy(update={"name": "<script>alert(1)</script>"})
    (path,) = write_reports(evil, domains=[DOMAINS[0]])
    assert "<script" not in path.read_text()
    assert "&lt;script&gt;" in path.read_text()


def test_without_a_sealed_tile_there_is_nothing_to_report(campaign: Campaign, tmp_path: Path) -> None:
    empty = campaign.model_copy(update={"output": campaign.output.model_copy(update={"domains": tmp_path})})
    with pytest.raises(ProductError, match="no tile is sealed yet"):
        write_reports(empty)
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.browser
def test_a_request_to_another_server_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://example.org/a.png">')
    assert outside(page.read_text()) == ["http://example.org/a.png"]
    assert screenshot(page, tmp_path / "page.png", work=tmp_path, size=(200, 200)) == {"http://example.org/a.png"}


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("which", [0, 2], ids=["domain", "nation"])
def test_a_browser_draws_the_page_without_any_request(pages: tuple[Path, ...], tmp_path: Path, which: int) -> None:
    picture = ROOT / "build" / "reports" / f"{('domain', '', 'nation')[which]}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    assert screenshot(pages[which], picture, work=tmp_path, size=(1100, 5600)) == set()
    with Image.open(picture) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert pixels.shape == (5600, 1100, 3)
    seen = {tuple(c) for c in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert legend.BY_VALUE[5].rgb in seen, "the map is drawn in the legend's colours"
    assert len(seen) > 200, "text and charts"
