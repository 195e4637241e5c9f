"""What `make fuzz` found, and its neighbours: each is an error that names the file."""

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_recipe
from pipeline.domain import Domain
from pipeline.errors import CatalogError, ConfigError, SourceError, StorageError
from pipeline.model import build_network
from pipeline.runs.planning.plan import make_plan
from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.staging.cleanup import REMOVED_LIST, read_removed
from tests.support.campaigns import RECIPE, TILE, make_campaign
from tests.support.deliveries import hills, write_relief
from tests.untrusted.api_answers import api_answers, write_answers


@pytest.mark.parametrize(
    "changes", [{"type": "Catalo9g"}, {"type": None}, {"type": "Collection"}, {"conformsTo": []}, {"conformsTo": ["x"]}]
)
def test_a_first_page_that_is_no_searchable_catalog_is_refused(tmp_path: Path, changes: Mapping[str, object]) -> None:
    write_answers(tmp_path / "api", {"assets": {}})
    page = tmp_path / "api" / "landing.json"
    page.write_text(json.dumps(json.loads(page.read_text()) | changes))
    with api_answers(tmp_path / "api") as url, pytest.raises(CatalogError, match=url):
        add_catalog(CatalogFiles(), url, Query())


@pytest.mark.parametrize("channels", [1_000_000, 10**30, 0, -8])
def test_a_network_too_large_to_build_is_refused(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"decoder_channels": [16, channels, 8, 8, 8]}))
    with pytest.raises(ConfigError, match="large"):
        build_network(load_recipe(str(path)))


@pytest.mark.parametrize("name", ["é" * 300, "a" * 5000])
def test_a_list_of_removed_files_with_impossible_names_is_refused(tmp_path: Path, name: str) -> None:
    entry = {"size": 1, "crc32": 1, "heights": [name]}
    (tmp_path / REMOVED_LIST).write_text(json.dumps({"a.asc": entry}))
    with pytest.raises(StorageError, match=REMOVED_LIST):
        read_removed(tmp_path)


@pytest.mark.parametrize("recipe", ["tiny.yamla", "tiny.y\x07aml", "../tiny.yaml"])
def test_a_recipe_that_is_not_there_names_the_campaign(tmp_path: Path, recipe: str) -> None:
    campaign = make_campaign(tmp_path, at=((0, 0),)).change(model={"recipe": recipe, "weights": "w.pth"}).campaign
    with pytest.raises(ConfigError, match=f"campaign {campaign.name} in {tmp_path}: model.recipe: "):
        campaign.recipe()


@pytest.mark.parametrize("grid", [{"halo": 64}, {"window": 225}, {"block": 5000}])
def test_windows_that_do_not_fit_name_the_campaign(tmp_path: Path, grid: Mapping[str, int]) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    campaign = made.change(grid=yaml.safe_load(made.config.read_text())["grid"] | grid).campaign
    with pytest.raises(ConfigError, match=f"campaign {campaign.name} in {tmp_path}: grid: "):
        make_plan(campaign)


def test_elevation_whose_nodata_value_changed_is_refused(tmp_path: Path) -> None:
    """Its size and time are the same, as after a failure of a disk."""
    made = make_campaign(tmp_path, at=((0, 0),))
    shutil.rmtree(made.delivery.folder / "DTM")
    corner = made.delivery.tiles[0].name
    write_relief(made.delivery.folder, "dtm", hills, corner=corner, side_m=100, step=1.0, as_rge_alti=True)
    made.index()
    path = next(made.delivery.folder.glob("DTM/*.asc"))
    time, content = path.stat().st_mtime_ns, path.read_bytes()
    for damaged in (b"NOEATA_value -99999.00", b"NODATA_value -99998.00"):
        path.write_bytes(content.replace(b"NODATA_value -99999.00", damaged, 1))
        os.utime(path, ns=(time, time))
        inputs = read_domain(made.folder / "catalog", Domain(made.delivery.domain), tile_size=TILE)
        with pytest.raises(SourceError, match=rf"{path.name}.*nodata"):
            Mosaic.of(inputs, bands=BANDS).read(inputs.tiles[0].tile.window)


@pytest.mark.parametrize("kind", ["DSM", "BDORTHO*RVB*"])
def test_a_damaged_tag_of_an_indexed_tiff_is_refused(tmp_path: Path, kind: str) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    path = next(made.delivery.folder.glob(f"{kind}/**/*.tif"))
    time, content = path.stat().st_mtime_ns, path.read_bytes()
    at = content.index(struct.pack("<HH", 34735, 3))  # the keys of its CRS
    path.write_bytes(content[:at] + struct.pack("<H", 324) + content[at + 2 :])
    os.utime(path, ns=(time, time))
    inputs = read_domain(made.folder / "catalog", Domain(made.delivery.domain), tile_size=TILE)
    if changes := inputs.changes(inputs.assets):  # as a plan asks
        assert all("tags of its header" in change for change in changes.values())
        return
    with pytest.raises(SourceError, match="tags of its header"):
        Mosaic.of(inputs, bands=BANDS).read(inputs.tiles[0].tile.window)
