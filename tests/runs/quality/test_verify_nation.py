"""What verify says about files that are added to an edition later: each kind has its own command that repairs it."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.grid import Window
from pipeline.products.manifest import write_manifest
from pipeline.products.map_page import page_files
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.grid import NationalGrid
from pipeline.runs.quality.verify_nation import check_nation
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

GRID = NationalGrid(Window(NORTH, WEST, 500, 500), tile=500, shard=500, chunk=250)


@pytest.mark.parametrize(("damaged", "publish", "report"), [("map", True, False), ("report", False, True)])
def test_a_damaged_map_page_is_published_again_and_a_damaged_report_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, publish: bool, report: bool
) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "index.html").write_text("page")
    monkeypatch.setattr(page_files, "BUILT", tmp_path / "built")
    folder = write_nation(tmp_path / "national", GRID, np.ones((500, 500), np.uint8))
    edition = current_edition(tmp_path / "national")
    assert edition is not None
    page_files.write_map(edition, domains=tmp_path, live=(1,))
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("report")
    write_manifest(folder / "report", ["index.html"])
    assert check_nation(tmp_path / "national", GRID.crs).problems == ()
    (folder / damaged / "index.html").write_text("changed")
    found = check_nation(tmp_path / "national", GRID.crs)
    assert (found.publish, found.report) == (publish, report)
    assert found.problems is not None
    assert len(found.problems) == 1
    assert f"{damaged}/index.html: has 7 bytes" in found.problems[0]
