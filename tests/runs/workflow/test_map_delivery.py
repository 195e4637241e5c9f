"""`landcover map`: from archives to the report, by what commands of single steps do, and after kills too."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import load_campaign
from pipeline.errors import ConfigError, DeliveryError
from pipeline.runs.planning.plan import make_plan
from tests.runs.workflow.map_kills import call, make_archives, product_bytes
from tests.support.waiting import LONGEST_S

KILLS = 2


@pytest.mark.slow
@pytest.mark.many_processes
def test_a_map_killed_at_random_moments_ends_with_the_same_bytes(seed: int) -> None:
    # In a process of its own, which has no threads yet when it forks.
    command = [sys.executable, "-m", "tests.runs.workflow.map_kills", str(KILLS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} kills; the bytes were the same" in done.stdout


@pytest.mark.slow
def test_one_command_maps_archives_and_another_call_does_nothing(
    tmp_path: Path, scheduler_option: tuple[str, str]
) -> None:
    request = make_archives(tmp_path)
    words = ["map", str(request.folder), "--weights", request.weights, "--out", str(request.out)]
    asked = CliRunner().invoke(app, [*words, *scheduler_option], input="n\n")
    assert asked.exit_code == 0, asked.output
    assert "map 2 tiles" in asked.output
    assert not (request.out / "products").exists()

    done = CliRunner().invoke(app, [*words, *scheduler_option, "--yes"])
    assert done.exit_code == 0, done.output
    assert "run: 2 tiles mapped" in done.output
    for line in done.output.partition("open:\n")[2].splitlines()[:3]:
        assert Path(line.split()[0]).exists(), line
    assert make_plan(load_campaign(request.out / "campaign.yaml")).todo == 0
    before = product_bytes(request)

    again = call(request)
    assert again is not None
    assert (again.tiles, again.edition.written, again.edition.edition) == (0, 0, 1)
    assert product_bytes(request) == before


def test_other_weights_and_a_folder_inside_the_delivery_are_refused(tmp_path: Path) -> None:
    request = make_archives(tmp_path)
    with pytest.raises(ConfigError, match="inside"):
        call(replace(request, out=request.folder / "map"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeliveryError, match="no imagery and no archives"):
        call(replace(request, folder=tmp_path / "empty"))
