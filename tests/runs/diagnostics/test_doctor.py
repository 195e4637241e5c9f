"""The doctor: working machines pass, and each problem is named with its fix."""

import errno
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import MachineError
from pipeline.runs.diagnostics.doctor import Check, diagnose
from pipeline.runs.diagnostics.filesystem import probe_folder, why_no_hard_links
from pipeline.sources.gdal_drivers import openjpeg_version
from tests.support.campaigns import Made, make_campaign


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_campaign(tmp_path / "campaign", at=[(0, 0)])


def checks(made: Made) -> dict[str, Check]:
    return {c.name: c for c in diagnose(made.campaign).checks}


def test_a_working_machine_passes_and_the_results_are_written(made: Made, tmp_path: Path) -> None:
    kept = tmp_path / "found.json"
    done = CliRunner().invoke(app, ["doctor", str(made.config), "--domain", "D034_2021", "--json", str(kept)])
    assert done.exit_code == 0, done.output
    found = json.loads(kept.read_text())
    assert {c["name"] for c in found["checks"]} >= {"packages", "GDAL", "GPUs", "TLS", "weights", "engine", "products"}
    assert {c["state"] for c in found["checks"]} <= {"ok", "warn"}
    assert found["software"]["python"].startswith("3.")
    assert found["software"].get("openjpeg", "") == openjpeg_version()
    gdal = next(c["found"] for c in found["checks"] if c["name"] == "GDAL")
    assert f"JP2OpenJPEG (OpenJPEG {openjpeg_version() or 'of unknown version'})" in gdal
    assert json.loads((made.products / "D034_2021" / "doctor.json").read_text())["host"] == found["host"]
    assert not list(made.folder.rglob("*.tmp"))


def test_missing_weights_fail_with_exit_code_2(made: Made) -> None:
    (made.folder / "weights.pth").unlink()
    done = CliRunner().invoke(app, ["doctor", str(made.config)])
    assert isinstance(done.exception, MachineError)
    assert done.exception.exit_code == 2
    assert "weights" in str(done.exception)


def test_a_folder_that_cannot_be_written_fails_alone(made: Made) -> None:
    made.change(output={"domains": "/proc/products", "extent_km": list(made.campaign.output.extent_km), "chunk": 100})
    found = checks(made)
    assert found["products"].state == "fail"
    assert "/proc/products: cannot be written" in found["products"].found
    assert found["national"].state == "ok"


def test_gpus_of_a_job_that_torch_does_not_see_fail(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_GPUS", "0,1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert checks(made)["GPUs"].state == "fail"
    made.change(engine="openvino")
    assert checks(made)["GPUs"].state == "warn"


def test_probing_a_folder_leaves_nothing_and_measures_the_disk(tmp_path: Path) -> None:
    storage = probe_folder(tmp_path / "not" / "yet")
    assert not storage.problems
    assert list(tmp_path.iterdir()) == []
    disk = os.statvfs(tmp_path)
    assert storage.free_bytes == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)
    assert abs(storage.skew_s) < 1


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_disk_without_hard_links_is_a_warning_for_the_nation(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "links" not in checks(made)
    monkeypatch.setattr(os, "link", refuse)
    found = checks(made)
    assert found["links"].state == "warn"
    assert "hard links are refused" in found["links"].found
    assert {found[name].state for name in ("products", "national")} == {"ok"}


def test_links_are_tried_with_published_files_too(tmp_path: Path) -> None:
    published = tmp_path / "shard"
    published.touch()
    assert why_no_hard_links(tmp_path / "national", published) is None
    assert why_no_hard_links(tmp_path / "national", Path("/proc/version")) == "/proc/version: Invalid cross-device link"
    assert [p.name for p in tmp_path.iterdir()] == ["shard"]
