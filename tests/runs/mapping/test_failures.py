"""Failures of a run: what is sealed, reported and left behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rasterio
import yaml
from distributed import Client
from distributed.scheduler import KilledWorker
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cluster.client import open_cluster
from pipeline.domain import Domain
from pipeline.durable import check_room, out_of_space, replacing
from pipeline.errors import ClusterError, LockError, OutOfSpaceError, RunFailed, StorageError, TransientReadError
from pipeline.lock import Owner, lock_folder
from pipeline.runs.mapping import run as run_module
from pipeline.runs.mapping.events import RunStarted, TileEnded
from pipeline.runs.mapping.failures import MAX_WORKER_LOSSES, failure_cause, limit_worker_losses
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import TileFilter, make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.tracking.run_record import read_run_record
from pipeline.runs.tracking.status import status
from pipeline.sources.reading import retry as patience
from pipeline.sources.reading.retry import is_transient, with_retries
from tests.support.campaigns import Made, cog_bytes, make_campaign, strays, write_weights
from tests.support.dask_client import THREADS, in_process_client

DOMAIN = Domain("D034_2021")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """A campaign that was run to the end; tests must not change it."""
    made = make_campaign(tmp_path_factory.mktemp("mapped"))
    run(make_plan(made.campaign), client=dask_client)
    return made


@pytest.fixture
def copy(mapped: Made, tmp_path: Path) -> Made:
    """A copy of the campaign, sealed, that a test may change."""
    return mapped.copy(tmp_path / "copy")


def unseal(made: Made, *places: int) -> list[str]:
    """Removes the items of some tiles; returns the tiles' names."""
    names = [made.delivery.tiles[i].name for i in places]
    for name in names:
        (made.products / DOMAIN / f"{DOMAIN}-{name}.json").unlink()
    return names


def todo(made: Made, only: TileFilter) -> list[str]:
    return [t.tile.name for d in make_plan(made.campaign, only=only).domains for t in d.todo]


def test_a_second_run_of_a_locked_domain_is_refused_with_the_owner(
    copy: Made, mapped: Made, dask_client: Client
) -> None:
    unseal(copy, 0, 1, 2)
    plan = make_plan(copy.campaign)
    second: list[object] = []

    def meanwhile(event: RunStarted | TileEnded) -> None:
        if isinstance(event, RunStarted):
            (state,) = status(copy.campaign)
            assert state.owner is not None
            assert state.owner.pid == os.getpid()
            result = CliRunner().invoke(app, ["run", str(copy.config)])
            second.append(result.exception)

    run(plan, on_event=meanwhile, client=dask_client)
    (error,) = second
    assert isinstance(error, LockError)
    assert error.exit_code == 2
    assert f"domain {DOMAIN} is locked by process {os.getpid()} of" in str(error)
    assert "since 20" in str(error)
    assert status(copy.campaign)[0].owner is None
    # A plan made before another run ended finds nothing left to do.
    events: list[object] = []
    assert run(plan, on_event=events.append, client=dask_client) == ()
    assert not events
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)
    assert not strays(copy.products)


def test_a_run_that_lost_its_lock_seals_no_more_tiles(copy: Made, dask_client: Client) -> None:
    names = unseal(copy, 0, 1, 2, 3, 4, 5)
    taken: list[str] = []

    def take(event: RunStarted | TileEnded) -> None:
        if isinstance(event, TileEnded) and not event.error and not taken:
            (path,) = (copy.products / DOMAIN / ".lock").iterdir()
            path.rename(path.with_name("another.json"))
            taken.extend(s for s in names if (copy.products / DOMAIN / f"{DOMAIN}-{s}.json").exists())

    with pytest.raises(LockError, match=r"another run took it over as stale.*still to map"):
        run(make_plan(copy.campaign), on_event=take, client=dask_client)
    (state,) = status(copy.campaign)
    # Seals that had checked the lock before, one in each of the worker's threads, may end.
    assert len(state.sealed) <= len(taken) + THREADS
    assert set(taken) <= set(state.sealed)
    assert (copy.products / DOMAIN / ".lock" / "another.json").exists()


def test_failed_and_only_missing_select_their_tiles(copy: Made, dask_client: Client) -> None:
    tiles = [t.name for t in copy.delivery.tiles]
    unseal(copy, 0, 3)
    (copy.products / DOMAIN / f"{DOMAIN}-{tiles[5]}-landcover.tif").unlink()
    path = copy.imagery(tiles[0])
    path.rename(path.with_suffix(".away"))
    with pytest.raises(RunFailed, match=r"was purged \(scratch disks"):
        run(make_plan(copy.campaign, tiles=[tiles[0]]), client=dask_client)
    assert todo(copy, TileFilter()) == sorted([tiles[0], tiles[3], tiles[5]])
    assert todo(copy, TileFilter(failed=True)) == [tiles[0]]
    assert todo(copy, TileFilter(missing=True)) == sorted([tiles[0], tiles[3]])
    assert todo(copy, TileFilter(failed=True, missing=True)) == [tiles[0]]
    planned = CliRunner().invoke(app, ["plan", str(copy.config), "--failed"]).output.replace("\n", "")
    assert f"{tiles[0]} failed in the last run: " in planned
    assert tiles[3] not in planned
    assert tiles[5] not in planned
    assert (
        "is not in the catalog"
        not in CliRunner().invoke(app, ["plan", str(copy.config), "--failed", "--tile", tiles[3]]).output
    )
    path.with_suffix(".away").rename(path)
    assert [e.tile for e in run(make_plan(copy.campaign, only=TileFilter(failed=True)), client=dask_client)] == [
        tiles[0]
    ]
    assert todo(copy, TileFilter(failed=True)) == []
    assert [e.tile for e in run(make_plan(copy.campaign, only=TileFilter(missing=True)), client=dask_client)] == [
        tiles[3]
    ]
    assert todo(copy, TileFilter()) == [tiles[5]]
    result = CliRunner().invoke(app, ["run", str(copy.config), "--failed"])
    assert result.exit_code == 0
    assert "every such tile is sealed" in result.output


def test_a_changed_recipe_remaps_every_tile(copy: Made) -> None:
    text = (copy.folder / "tiny.yaml").read_text()
    (copy.folder / "tiny.yaml").write_text(text.replace("- 12\n", "", 1))
    assert len(todo(copy, TileFilter())) == 6
    assert todo(copy, TileFilter(missing=True)) == []
    assert "6 tiles to map (recipe changed)" in CliRunner().invoke(app, ["plan", str(copy.config)]).output
    (copy.folder / "tiny.yaml").write_text(text)
    assert todo(copy, TileFilter()) == []


def test_a_plan_names_the_parts_of_the_fingerprint_that_changed(copy: Made) -> None:
    def reasons() -> tuple[str | None, str | None]:
        (domain,) = make_plan(copy.campaign).domains
        said = {t.tile.name: t.reason for t in domain.tiles}
        return said[copy.delivery.tiles[0].name], said[copy.delivery.tiles[5].name]

    with rasterio.open(copy.imagery(copy.delivery.tiles[0].name), "r+") as file:
        file.write(file.read() ^ 1)
    copy.index()
    assert reasons() == ("inputs changed", None)
    write_weights(copy.folder / "weights.pth", copy.folder / "tiny.yaml", seed=1)
    assert reasons() == ("inputs and weights changed", "weights changed")


def test_changed_inputs_of_sealed_tiles_are_reported_and_purged_ones_not(copy: Made) -> None:
    first, second = (copy.imagery(copy.delivery.tiles[i].name) for i in (0, 5))
    first.write_bytes(first.read_bytes() + b"\0")
    second.unlink()
    assert todo(copy, TileFilter()) == []
    planned, ran = (CliRunner().invoke(app, [name, str(copy.config)]).output for name in ("plan", "run"))
    assert "nothing to do" in ran
    for said in (planned.replace("\n", ""), ran.replace("\n", "")):
        assert "1 input file of sealed tiles changed since they were indexed; run `landcover index`" in said
        assert str(first) in said
        assert str(second) not in said


def test_the_run_record_is_up_to_date_during_a_run_and_after_it_breaks_off(copy: Made) -> None:
    names = unseal(copy, 0, 1, 2, 3)
    seen: list[dict[str, object]] = []

    class BreakError(Exception):
        pass

    def look(event: RunStarted | TileEnded) -> None:
        (state,) = status(copy.campaign)
        seen.append({"event": event, "state": state, "record": read_run_record(copy.products / DOMAIN)})
        if len(seen) == 3:
            raise BreakError

    with in_process_client() as client, pytest.raises(BreakError):
        run(make_plan(copy.campaign), on_event=look, predicted={DOMAIN: {"wall_s": 3600.0}}, client=client)
    first, second = seen[0]["state"], seen[1]["state"]
    assert (first.in_flight, len(first.missing)) == ((), 4)  # type: ignore[attr-defined]
    assert len(second.in_flight) >= 1  # type: ignore[attr-defined]
    assert len(second.unsealed) + len(second.sealed) == 6  # type: ignore[attr-defined]
    assert second.speed.sealed_pixels == 250_000  # type: ignore[attr-defined]
    assert second.speed.left_pixels == 750_000  # type: ignore[attr-defined]
    assert second.speed.left_s == pytest.approx(3 * second.speed.seconds)  # type: ignore[attr-defined]
    assert second.speed.predicted_s == 3600.0  # type: ignore[attr-defined]
    assert seen[1]["record"].state == "running"  # type: ignore[attr-defined]
    record = read_run_record(copy.products / DOMAIN)
    assert record.state == "stopped"
    assert {t.tile for t in record.tiles} <= set(names)
    (after,) = status(copy.campaign)
    assert (after.in_flight, after.owner) == ((), None)
    shown = CliRunner().invoke(app, ["status", str(copy.config), "--watch"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    assert "elapsed, 1:00:00 predicted" in shown.output
    (content,) = json.loads(CliRunner().invoke(app, ["status", str(copy.config), "--json"]).output)
    assert content["sealed"] == list(after.sealed)
    assert content["pace"]["mpx_per_s"] > 0


def test_status_shows_an_owner_on_another_machine_but_no_dead_one(copy: Made) -> None:
    lock = copy.products / DOMAIN / ".lock"
    lock.mkdir()
    owner = vars(Owner.this_process()) | {"host": "r1i2n3", "machine": "another", "job": ""}
    (lock / f"{owner['token']}.json").write_text(json.dumps(owner))
    shown = CliRunner().invoke(app, ["status", str(copy.config)]).output
    assert f"is being mapped by process {os.getpid()} of" in shown.replace("\n", " ")
    assert "r1i2n3" in shown
    (lock / f"{owner['token']}.json").write_text(
        json.dumps(vars(Owner.this_process()) | {"token": owner["token"], "started": 1})
    )
    assert status(copy.campaign)[0].owner is None


def test_a_second_publish_is_refused_with_the_owner(copy: Made, dask_client: Client) -> None:
    copy.campaign.output.national.mkdir()
    with (
        lock_folder(copy.campaign.output.national, what="the national product"),
        pytest.raises(LockError, match=r"the national product .* is locked by process"),
    ):
        publish(copy.campaign, client=dask_client)
    assert publish(copy.campaign, client=dask_client).edition == 1
    assert not (copy.campaign.output.national / ".lock").exists()


def test_a_full_disk_stops_the_run_and_the_next_one_resumes_to_the_same_bytes(
    copy: Made, mapped: Made, small_disk: Path, dask_client: Client
) -> None:
    shutil.rmtree(copy.products)
    ballast = small_disk / "ballast"
    given = yaml.safe_load(copy.config.read_text())["output"]
    copy.change(output=given | {"domains": str(small_disk / "products")})
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        # Room for a tile or two: its two COGs take some 350 kB.
        file.write(bytes(free - 900_000))
    with pytest.raises(OutOfSpaceError, match=r"No space left on device.*free space.*still to map") as caught:
        run(make_plan(copy.campaign), client=dask_client)
    assert caught.value.exit_code == 2
    (state,) = status(copy.campaign)
    assert 1 <= len(state.sealed) < 6
    assert not strays(small_disk / "products")
    ballast.unlink()
    run(make_plan(copy.campaign), client=dask_client)
    assert cog_bytes(small_disk / "products") == cog_bytes(mapped.products)
    assert not strays(small_disk / "products")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_used_up_quota_is_an_out_of_space_error(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutOfSpaceError, match="Disk quota exceeded"):
        write(errno.EDQUOT)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="Permission") as caught:
        write(errno.EACCES)
    assert not isinstance(caught.value, OutOfSpaceError)
    check_room(tmp_path / "file", 3_000_000)
    assert list(tmp_path.iterdir()) == []
    assert "quota" in str(out_of_space(tmp_path, OSError(errno.EDQUOT, "Disk quota exceeded")))


def test_transient_read_errors_are_retried_and_corrupt_files_not(tmp_path: Path) -> None:
    calls = []

    def read(failures: int) -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise TransientReadError("a transient error")
        return "pixels"

    assert with_retries(lambda: read(2), waits_s=(0.0, 0.0, 0.0)) == "pixels"
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(TransientReadError):
        with_retries(lambda: read(9), waits_s=(0.0, 0.0))
    assert len(calls) == 3
    whole = tmp_path / "whole"
    whole.write_bytes(b"x" * 100)
    gdal = ValueError("TIFFReadEncodedTile() failed")
    assert not is_transient(gdal, whole)
    assert not is_transient(gdal, tmp_path / "gone")
    assert is_transient(ValueError("x.tif: Stale file handle"), whole)
    assert is_transient(ValueError("HTTP error code : 503"), whole)
    assert is_transient(OSError(errno.EIO, "Input/output error"), whole)
    # Where GDAL gives no reason, the file is read: this one fails with EIO at its first byte.
    assert is_transient(gdal, Path("/proc/self/mem"))


def test_a_truncated_input_fails_without_retries_and_repaired_is_mapped(
    copy: Made, mapped: Made, monkeypatch: pytest.MonkeyPatch, dask_client: Client
) -> None:
    # Not `time.sleep` itself, which the standard library uses too.
    never = SimpleNamespace(sleep=lambda _: pytest.fail("a corrupt file was retried"))
    monkeypatch.setattr(patience, "time", never)
    shutil.rmtree(copy.products)
    path = copy.imagery(copy.delivery.tiles[0].name)
    whole, plan = path.read_bytes(), make_plan(copy.campaign)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFailed, match=path.name):
        run(plan, client=dask_client)
    (state,) = status(copy.campaign)
    assert 0 < len(state.failed) < 6
    path.write_bytes(whole)
    assert {e.tile for e in run(make_plan(copy.campaign, only=TileFilter(failed=True)), client=dask_client)} == {
        t for t, _ in state.failed
    }
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)


def test_permissions_of_products_follow_the_umask(copy: Made, dask_client: Client) -> None:
    unseal(copy, 0)
    former = os.umask(0o007)
    try:
        run(make_plan(copy.campaign), client=dask_client)
    finally:
        os.umask(former)
    name = f"{DOMAIN}-{copy.delivery.tiles[0].name}"
    for file in (f"{name}.json", f"{name}-landcover.tif", f"{name}-confidence.tif", "run.json"):
        assert (copy.products / DOMAIN / file).stat().st_mode & 0o777 == 0o660, file


@pytest.mark.slow
def test_a_task_that_costs_three_workers_is_suspect_and_others_continue(copy: Made, tmp_path: Path) -> None:
    def die(marks: str) -> None:
        with open(marks, "a") as file:  # noqa: PTH123  (it travels by value, without imports)
            file.write("x")
        import os

        os._exit(1)

    marks = tmp_path / "marks"
    with open_cluster(copy.campaign, workers=1) as client:
        limit_worker_losses(client)
        lost = client.submit(die, str(marks))
        cause = failure_cause(lost)
        other = client.submit(sum, (1, 2))
        assert failure_cause(other) is None
    assert cause is not None
    assert (cause.kind, cause.stops_the_run) == ("suspect", False)
    assert "3 workers were lost" in cause.text
    assert marks.read_text() == "x" * MAX_WORKER_LOSSES


def test_the_next_run_maps_suspect_tiles_last(copy: Made, monkeypatch: pytest.MonkeyPatch, dask_client: Client) -> None:
    first, second = sorted(unseal(copy, 0, 4))
    own = run_module.seal

    def seal(folder: Path, **tile: Any) -> object:
        if tile["tile"].name == first:
            raise KilledWorker("a task", SimpleNamespace(address="tcp://there"), 3)
        return own(folder, **tile)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "seal", seal)
        with pytest.raises(RunFailed, match=rf"{first}: 3 workers were lost"):
            run(make_plan(copy.campaign), client=dask_client)
    (state,) = status(copy.campaign)
    assert [name for name, _ in state.suspect] == [first]
    assert (state.failed, second in state.sealed) == ((), True)
    assert todo(copy, TileFilter(failed=True)) == [first]
    unseal(copy, copy.delivery.tiles.index(next(t for t in copy.delivery.tiles if t.name == second)))
    copy.change(cluster={"tiles_in_flight": 1, "gdal_cache_mb": 64, "decoded_cache_mb": 64})
    assert [e.tile for e in run(make_plan(copy.campaign), client=dask_client)] == [second, first]
    assert status(copy.campaign)[0].suspect == ()


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_and_the_next_one_resumes(
    copy: Made, mapped: Made, tmp_path: Path, dask_client: Client
) -> None:
    shutil.rmtree(copy.products)
    at = tmp_path / "scheduler.json"
    options = ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(at)]
    dask = [sys.executable, "-m", "dask", "scheduler", *options]
    worker = [sys.executable, "-m", "dask", "worker", "--no-dashboard", "--nthreads", "2"]
    with (tmp_path / "cluster.log").open("wb") as log:
        started = [subprocess.Popen(dask, stdout=log, stderr=log)]
        while not at.exists():
            assert started[0].poll() is None, (tmp_path / "cluster.log").read_text()
            time.sleep(0.05)
        started.append(
            subprocess.Popen(
                [*worker, "--no-nanny", "--host", "127.0.0.1", "--scheduler-file", str(at), "--death-timeout", "300"],
                stdout=log,
                stderr=log,
            )
        )

        def kill(event: RunStarted | TileEnded) -> None:
            if isinstance(event, TileEnded):
                started[0].kill()

        try:
            with pytest.raises(ClusterError, match="run again") as caught:
                run(make_plan(copy.campaign.on_cluster(scheduler=str(at))), on_event=kill)
        finally:
            for process in started:
                process.kill()
                process.wait()
    assert caught.value.exit_code == 6
    (state,) = status(copy.campaign)
    assert 1 <= len(state.sealed) < 6
    assert state.owner is None
    run(make_plan(copy.campaign), client=dask_client)
    assert cog_bytes(copy.products) == cog_bytes(mapped.products)
    assert not strays(copy.products)


def test_a_run_with_nothing_to_do_deletes_leftovers_of_killed_runs(copy: Made, dask_client: Client) -> None:
    folder = copy.products / DOMAIN
    left = [
        folder / f".{DOMAIN}-{copy.delivery.tiles[0].name}-landcover.tif.0a1b2c3d.tmp",
        folder / ".run.json.0a1b2c3d.tmp",
    ]
    of_a_publish = folder / f".{DOMAIN}-landcover.qml.0a1b2c3d.tmp"
    for path in (*left, of_a_publish):
        path.touch()
    (folder / ".lock").mkdir()
    assert run(make_plan(copy.campaign), client=dask_client) == ()
    assert not [path for path in (*left, folder / ".lock") if path.exists()]
    assert of_a_publish.exists()
