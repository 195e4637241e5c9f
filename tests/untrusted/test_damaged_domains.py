"""A damaged file of one domain stops that domain only, and is named; a moved tile fails by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from pipeline.domain import Domain
from pipeline.errors import CatalogError, ProductError, RunFailed, SourceError
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.index import index
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.untrusted.own_checksum import KEY
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.deliveries import make_delivery

OTHER = Domain("D035_2022")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign of two domains with a tile each."""
    made = make_campaign(tmp_path_factory.mktemp("domains"), at=((0, 0),))
    other = make_delivery(made.folder / "other", at=((0, 1),), size=TILE, domain=OTHER)
    index([other.folder], domain=other.domain, catalog=made.folder / "catalog", tile_size=TILE)
    left, bottom, right, top = made.delivery.window.bounds
    extent = [edge / 1000 for edge in (left, bottom, right + right - left, top)]
    return made.change(
        domains=[{"name": str(made.delivery.domain)}, {"name": str(OTHER)}], output={"extent_km": extent, "chunk": 100}
    )


def spoil(path: Path, change: Callable[[Any], None] | None = None) -> Callable[[], None]:
    """Damages a JSON file, or changes its content; returns what restores it."""
    whole = path.read_bytes()
    content = json.loads(whole)
    if change:
        change(content)
    path.write_text(json.dumps(content) if change else "{")
    return lambda: path.write_bytes(whole) and None


def item_of(made: Made, domain: str) -> Path:
    return next((made.folder / "catalog" / domain).glob(f"{domain}-*.json"))


def test_a_damaged_catalog_item_stops_its_domain_only(two: Made, dask_client: Client) -> None:
    campaign, own = two.campaign, two.delivery.domain
    for path in (item_of(two, OTHER), two.folder / "catalog" / OTHER / "collection.json"):
        restore = spoil(path)
        plan, (first, second) = make_plan(campaign), status(campaign)
        assert [d.name for d in plan.domains] == [own]
        assert path.name in plan.damaged[0]
        assert first.problem is None
        assert path.name in str(second.problem)
        with pytest.raises((CatalogError, ProductError), match=path.name):
            make_plan(campaign, domains=[OTHER])
        with pytest.raises(RunFailed, match=path.name):
            run(plan, client=dask_client)
        assert status(campaign)[0].sealed
        restore()


@pytest.mark.parametrize("content", ["{", '{"state": "ended", "tiles": 3}', None])
def test_a_damaged_or_lost_run_record_is_named_and_written_again(
    two: Made, dask_client: Client, content: str | None
) -> None:
    run(make_plan(two.campaign), client=dask_client)
    publish(two.campaign, client=dask_client)
    record = two.products / OTHER / "run.json"
    record.unlink()
    if content is not None:
        record.write_text(content)
        assert str(record) in str(status(two.campaign)[1].problem)
    assert status(two.campaign)[0].problem is None
    assert any(str(record) in problem for problem in verify(two.campaign).domains[1].problems)
    plan = make_plan(two.campaign)
    assert (plan.todo, plan.domains[0].record_problem) == (0, None)
    assert str(record) in str(plan.domains[1].record_problem)
    run(plan, client=dask_client)
    assert verify(two.campaign).clean


def test_a_damaged_cog_is_not_published(two: Made, dask_client: Client) -> None:
    run(make_plan(two.campaign), client=dask_client)
    shutil.rmtree(two.folder / "national", ignore_errors=True)
    cog = next((two.products / OTHER).glob("*-landcover.tif"))
    whole = cog.read_bytes()
    cog.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ProductError, match=rf"{cog.name}.*run --force --domain {OTHER} --tile"):
        publish(two.campaign, client=dask_client)
    cog.write_bytes(whole)
    publish(two.campaign, client=dask_client)


def test_a_page_that_a_killed_publish_left_half_written_is_removed(two: Made, dask_client: Client) -> None:
    run(make_plan(two.campaign), client=dask_client)
    publish(two.campaign, client=dask_client)
    folder = (two.folder / "national/current").resolve() / "map"
    folder.mkdir(exist_ok=True)  # without Node there is no page
    left, own = folder / ".page.json.d05e90188f263bf5.tmp", folder / "notes.tmp"
    left.write_text("half")
    own.write_text("mine")
    publish(two.campaign, client=dask_client)
    assert not left.exists()
    assert own.read_text() == "mine"
    own.unlink()


def test_a_damaged_sealed_item_is_named_left_out_and_mapped_again(two: Made, dask_client: Client) -> None:
    campaign = two.campaign
    run(make_plan(campaign), client=dask_client)
    item = next((two.products / OTHER).glob(f"{OTHER}-*-*.json"))
    before = {path.name: path.read_bytes() for path in item.parent.glob("*.tif")}
    spoil(item)
    assert [len(state.damaged) for state in status(campaign)] == [0, 1]
    assert item.name in publish(campaign, client=dask_client).damaged[0]
    verified = verify(campaign)
    assert item.name in verified.domains[1].problems[0]
    assert verified.nation.problems == ()
    plan = make_plan(campaign)
    assert [tile.reason for domain in plan.domains for tile in domain.todo] == ["item damaged"]
    run(plan, client=dask_client)
    assert {path.name: path.read_bytes() for path in item.parent.glob("*.tif")} == before
    assert publish(campaign, client=dask_client).damaged == ()
    assert not verify(campaign).domains[1].problems


def test_files_beside_the_tiles_of_a_domain_are_sealed_by_a_publish(two: Made, dask_client: Client) -> None:
    publish(two.campaign, client=dask_client)
    folder = two.products / OTHER
    for name in ("collection.json", f"{OTHER}-landcover.gti.gpkg", "quicklook.png", f"{OTHER}-landcover.qml"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert any(name in problem for problem in verify(two.campaign).domains[1].problems)
    publish(two.campaign, client=dask_client)
    assert not verify(two.campaign).domains[1].problems


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("landcover:share_building", 0.9),
        ("landcover:confidence", 0.99),
        ("landcover:attribution", "Somebody"),
        ("proj:transform", [0.2, 0.0, 0.0, 0.0, -0.2, 0.0]),
        ("start_datetime", "2001-01-01T00:00:00Z"),
    ],
)
def test_an_edited_property_of_a_sealed_item_is_found(two: Made, dask_client: Client, key: str, value: Any) -> None:
    if todo := make_plan(two.campaign):
        run(todo, client=dask_client)
    item = next((two.products / OTHER).glob(f"{OTHER}-*-*.json"))
    for older in (False, True):
        restore = spoil(item, lambda content: edit(content, content["properties"], {key: value}, older))  # noqa: B023
        problems = verify(two.campaign).domains[1].problems
        restore()
        assert any(item.name in problem and key in problem for problem in problems)
        assert older or any(item.name in problem and "checksum mismatch" in problem for problem in problems)


def edit(content: Any, part: Any, values: dict[str, Any], older: bool) -> None:
    """Edits an item; those of older versions have no checksum."""
    part.update(values)
    if older:
        del content[KEY]


@pytest.mark.parametrize("key", ["created", "landcover:weights", "landcover:engine"])
def test_an_edit_that_no_pixel_shows_is_found(two: Made, dask_client: Client, key: str) -> None:
    if todo := make_plan(two.campaign):
        run(todo, client=dask_client)
    item = next((two.products / OTHER).glob(f"{OTHER}-*-*.json"))
    restore = spoil(item, lambda content: content["properties"].update({key: "2001-01-01T00:00:00Z"}))
    assert [len(state.damaged) for state in status(two.campaign)] == [0, 1]
    restore()


def test_edited_class_names_of_a_sealed_item_are_found(two: Made, dask_client: Client) -> None:
    run(make_plan(two.campaign), client=dask_client)
    item = next((two.products / OTHER).glob(f"{OTHER}-*-*.json"))
    classes = "classification:classes"
    restore = spoil(item, lambda content: content["assets"]["landcover"][classes][1].update(title="castle"))
    problems = verify(two.campaign).domains[1].problems
    restore()
    assert any("castle" in problem for problem in problems)


@pytest.mark.parametrize("metres", [0.2, 40.0, 5_000.0])
@pytest.mark.parametrize("kind", ["rvb", "irc", "dsm"])
def test_a_file_that_the_catalog_moved_fails_its_tile(two: Made, kind: str, metres: float) -> None:
    path = item_of(two, OTHER)

    def move(content: Any) -> None:
        (asset,) = (a for a in content["assets"].values() if a["landcover:kind"] == kind)
        asset["proj:transform"][2] += metres

    restore = spoil(path, move)
    said = refusal(two)
    restore()
    assert "its header has" in said or path.name in said


def refusal(made: Made) -> str:
    """Why the tile of the other domain cannot be mapped: from the catalog, the plan, or the first read."""
    try:
        plan = make_plan(made.campaign, domains=[OTHER], force=True)
    except CatalogError as error:
        return str(error)
    (tile,) = plan.domains[0].tiles
    if tile.broken:
        return tile.broken[0]
    with pytest.raises(SourceError) as caught:
        Mosaic.of(plan.domains[0].inputs, bands=("red", "elevation")).read(tile.tile.window)
    return str(caught.value)


def test_an_item_whose_own_transform_was_moved_is_refused(two: Made) -> None:
    path = item_of(two, OTHER)
    restore = spoil(path, lambda content: content["properties"]["proj:transform"].__setitem__(2, 0.0))
    with pytest.raises(CatalogError, match=f"{path.name}.*proj:transform"):
        make_plan(two.campaign, domains=[OTHER])
    restore()
