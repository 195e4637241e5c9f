"""The run record: its file, records of former releases, and damaged ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ProductError
from pipeline.runs.tracking import run_record
from pipeline.runs.tracking.run_record import MappedTile, RunRecord, RunRecordWriter, read_run_record
from pipeline.runs.tracking.status import MappingSpeed, mapping_speed

ABOUT: dict[str, Any] = {
    "campaign": {"name": "tiny", "engine": "torch"},
    "weights_sha256": "ab",
    "quantized_sha256": None,
    "recipe": {"name": "tiny"},
    "software": {"python": "3.11"},
}
FIRST_RELEASE = {
    "campaign": {"name": "tiny"},
    "weights_sha256": "ab",
    "recipe": {"name": "tiny"},
    "software": {"python": "3.11"},
    "tiles": [{"tile": "0001-0001", "seconds": 2, "pixels": 250000}],
    "failed": {"0002-0001": "no such file"},
}


def write(folder: Path, content: object) -> Path:
    path = folder / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_domain_that_was_never_run_has_an_empty_record(tmp_path: Path) -> None:
    assert read_run_record(tmp_path) == read_run_record(tmp_path / "none") == RunRecord()
    assert RunRecord().failures == {}
    assert mapping_speed(RunRecord()) is None


def test_the_file_has_its_keys_in_order_and_reads_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, {"failed": {"b": "old", "c": "old"}, "suspect": {"a": "old"}})
    (tmp_path / ".run.json.1a.tmp").touch()
    tiles = {"a": 100, "b": 100, "d": 300}
    writer = RunRecordWriter(tmp_path, ABOUT | {"predicted": {"wall_s": 60.0}}, tiles=tiles)
    writer.submitted("a")
    writer.ended("a", seconds=1.23456, error=None, suspect=False)
    writer.submitted("b")
    writer.ended("b", seconds=1.0, error="3 workers were lost", suspect=True)
    writer.submitted("d")
    constant = ["campaign", "weights_sha256", "quantized_sha256", "recipe", "software", "predicted"]
    times = ["state", "started", "updated", "elapsed_s", "left_pixels", "mapped_pixels"]
    assert list(json.loads((tmp_path / "run.json").read_text())) == [
        *constant,
        *times,
        *("in_flight", "tiles", "failed", "suspect", "landcover:sha256"),
    ]
    record = read_run_record(tmp_path)
    assert (record.campaign, record.quantized_sha256, record.state) == (ABOUT["campaign"], None, "running")
    assert record.tiles == (MappedTile(tile="a", seconds=1.235, pixels=100),)
    assert list(record.in_flight) == ["d"]
    assert (record.failed, record.suspect) == ({"c": "old"}, {"b": "3 workers were lost"})
    assert record.failures == {"b": "3 workers were lost", "c": "old"}
    speed = mapping_speed(record)
    assert speed is not None
    assert (speed.sealed_pixels, speed.left_pixels, speed.predicted_s) == (100, 300, 60.0)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_record_without_a_forecast_has_no_such_key(tmp_path: Path) -> None:
    RunRecordWriter(tmp_path, ABOUT, tiles={})
    assert "predicted" not in json.loads((tmp_path / "run.json").read_text())


def test_the_time_left_follows_from_the_speed() -> None:
    speed = MappingSpeed(seconds=10.0, sealed_pixels=20_000_000, left_pixels=5_000_000, predicted_s=None)
    assert (speed.mpx_per_s, speed.left_s) == (2.0, 2.5)
    assert MappingSpeed(10.0, 0, 5, None).left_s is None


def test_records_of_the_first_release_and_with_unknown_keys_are_read(tmp_path: Path) -> None:
    write(tmp_path, FIRST_RELEASE | {"of_a_later_release": [1]})
    record = read_run_record(tmp_path)
    assert record.failures == {"0002-0001": "no such file"}
    assert record.tiles == (MappedTile(tile="0001-0001", seconds=2.0, pixels=250_000),)
    assert (record.in_flight, record.suspect, mapping_speed(record)) == ({}, {}, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"failed": {', "is not JSON"),
        ("[]", "Input should be an object"),
        ({"failed": {"a": 1}}, r"failed\.a: Input should be a valid string"),
        ({"tiles": [{"tile": "a", "seconds": 1.0}]}, r"tiles\.0\.pixels: Field required"),
        ({"state": "paused"}, "state: Input should be 'running', 'stopped' or 'ended'"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_file_and_key(tmp_path: Path, content: object, problem: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ProductError, match=problem) as caught:
        read_run_record(tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith("`landcover run` writes it again")


def test_blocks_of_tiles_in_flight_move_speed_and_time_left_between_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "_BETWEEN_S", 0.0)
    writer = RunRecordWriter(tmp_path, ABOUT, tiles={"a": 400, "b": 400})
    writer.submitted("a")
    assert mapping_speed(read_run_record(tmp_path)) == MappingSpeed(pytest.approx(0, abs=60), 0, 800, None, 0)
    writer.mapped(300)
    speed = mapping_speed(read_run_record(tmp_path))
    assert speed is not None
    assert (speed.sealed_pixels, speed.mapped_pixels, speed.left_pixels) == (0, 300, 800)
    known = MappingSpeed(10.0, 100_000_000, 800_000_000, None, 300_000_000)
    assert (known.mpx_per_s, known.left_s) == (40.0, 12.5)
    writer.ended("a", seconds=1.0, error=None, suspect=False)
    writer.write("ended")
    speed = mapping_speed(read_run_record(tmp_path))
    assert speed is not None
    assert (speed.sealed_pixels, speed.mapped_pixels, speed.left_pixels) == (400, 0, 400)
