"""A folder's lock has at most one owner, also when processes die or compete."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline import lock
from pipeline.errors import LockError, StorageError
from pipeline.lock import Owner, lock_folder, lock_owner
from tests.support.waiting import wait_until

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import lock_folder
with lock_folder(Path(sys.argv[1]), what="it", heartbeat_s=0.05):
    print("locked", flush=True)
    time.sleep(86_400)
"""


def _lock_elsewhere(folder: Path, **changes: Any) -> Owner:
    """Leaves the lock of a process on another machine."""
    owner = replace(Owner.this_process(), machine="another", host="r1i2n3", **changes)
    (folder / ".lock").mkdir()
    (folder / ".lock" / f"{owner.token}.json").write_text(json.dumps(asdict(owner)))
    return owner


def _age(folder: Path, seconds: float) -> None:
    (path,) = (folder / ".lock").iterdir()
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def _assert_locked(folder: Path, match: str, **how: Any) -> None:
    with pytest.raises(LockError, match=match), lock_folder(folder, what="domain D034_2021", **how):
        pytest.fail("two owners")


def test_a_second_process_learns_the_owner_and_a_release_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "product"
    with lock_folder(folder, what="domain D034_2021") as first:
        first.check()
        pickle.loads(pickle.dumps(first)).check()
        owner = lock_owner(folder)
        assert owner is not None
        _assert_locked(
            folder, rf"D034_2021 is locked by process {os.getpid()} of .* since {owner.since}; last heartbeat"
        )
        first.check()
    assert lock_owner(folder) is None
    assert list(folder.iterdir()) == []
    with pytest.raises(LockError, match="this run lost its lock"):
        first.check()


def test_a_dead_process_loses_its_lock_at_once_and_a_living_one_keeps_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    _assert_locked(tmp_path, f"process {process.pid} of")
    process.send_signal(signal.SIGKILL)
    # Still a zombie, which owns nothing.
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    with lock_folder(tmp_path, what="it"):
        owner = lock_owner(tmp_path)
        assert owner is not None
        assert owner.pid == os.getpid()
    process.communicate()


def test_a_pid_that_is_used_again_does_not_own_the_former_lock(tmp_path: Path) -> None:
    owner = replace(Owner.this_process(), started=1)
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / f"{owner.token}.json").write_text(json.dumps(asdict(owner)))
    with lock_folder(tmp_path, what="it") as owned:
        owned.check()


def test_a_lock_of_another_machine_is_stale_after_the_stated_time(tmp_path: Path) -> None:
    _lock_elsewhere(tmp_path)
    _age(tmp_path, 40_000)
    expected = r"on r1i2n3.* last heartbeat 4\d{4} s ago.*without a heartbeat for 50000 s the lock .* is stale"
    _assert_locked(tmp_path, expected, stale_s=50_000)
    with lock_folder(tmp_path, what="it", stale_s=30_000) as owned:
        owned.check()


def test_heartbeats_keep_a_lock_whatever_the_local_clock_says(tmp_path: Path) -> None:
    with lock_folder(tmp_path, what="it", heartbeat_s=0.02):
        (path,) = (tmp_path / ".lock").iterdir()
        for _ in range(3):
            os.utime(path, (0, 0))
            wait_until(lambda: path.stat().st_mtime != 0, lambda: "no heartbeat")


@pytest.mark.parametrize(("answer", "taken"), [(False, True), (True, False), (None, False)])
def test_a_job_that_ended_loses_its_lock_before_its_heartbeat_is_old(
    tmp_path: Path, answer: bool | None, taken: bool
) -> None:
    _lock_elsewhere(tmp_path, job="4711")
    asked = []

    def job_runs(job: str) -> bool | None:
        asked.append(job)
        return answer

    if taken:
        with lock_folder(tmp_path, what="it", job_runs=job_runs) as owned:
            owned.check()
    else:
        _assert_locked(tmp_path, "SLURM job 4711", job_runs=job_runs)
    assert asked == ["4711"]


def test_a_hidden_job_of_another_user_keeps_its_lock(tmp_path: Path) -> None:
    _lock_elsewhere(tmp_path, job="4711", user="somebody")
    _assert_locked(tmp_path, "of somebody on r1i2n3, SLURM job 4711", job_runs=lambda _: False)


def test_an_earlier_start_of_the_same_job_loses_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _lock_elsewhere(tmp_path, job="4711", restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _assert_locked(tmp_path, "SLURM job 4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with lock_folder(tmp_path, what="it"):
        owner = lock_owner(tmp_path)
        assert owner is not None
        assert (owner.job, owner.restarts) == ("4711", 2)


def test_a_former_owner_notices_and_does_not_release_the_new_lock(tmp_path: Path) -> None:
    with lock_folder(tmp_path, what="it", heartbeat_s=3600) as first:
        _age(tmp_path, 1000)
        with lock_folder(tmp_path, what="it") as second:
            with pytest.raises(LockError, match="another run took it over as stale"):
                first.check()
            second.check()
    assert not (tmp_path / ".lock").exists()


def test_a_half_written_lock_is_stale_after_the_stated_time(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with lock_folder(tmp_path, what="it"):
        pass
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "aa.json").write_text('{"token": "a')
    _assert_locked(tmp_path, "a process that is just taking the lock")
    _age(tmp_path, 121)
    with lock_folder(tmp_path, what="it"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="file/D034_2021 cannot be written"),
        lock_folder(tmp_path / "file/D034_2021", what=""),
    ):
        pytest.fail("locked")


def test_the_lock_file_of_an_old_release_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert lock_owner(tmp_path) is None
    # Not a LockError: a publish that waits for the owner would wait for ever.
    with (
        pytest.raises(StorageError, match=r"\.lock: expected a folder or nothing, found a file, .*Delete it"),
        lock_folder(tmp_path, what="it"),
    ):
        pytest.fail("locked")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o002)
    try:
        with lock_folder(tmp_path, what="it"):
            (path,) = (tmp_path / ".lock").iterdir()
            assert path.stat().st_mode & 0o777 == 0o664
            assert path.parent.stat().st_mode & 0o777 == 0o775
    finally:
        os.umask(former)


def _contend(folder: Path, rounds: int, seed: int) -> None:
    """Takes the lock repeatedly and makes a file that may exist only once. Dies as the owner now and then."""
    for i in range(rounds):
        try:
            with lock_folder(folder, what="it", heartbeat_s=5) as owned:
                inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
                os.close(inside)
                owned.check()
                with (folder / "entries").open("a") as file:
                    file.write("x\n")
                if (i + seed) % 7 == 3:
                    (folder / "inside").unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                (folder / "inside").unlink()
        except LockError:
            time.sleep(0.001)


def test_processes_that_compete_and_die_never_both_own_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for generation in range(3):
        crowd = [context.Process(target=_contend, args=(tmp_path, 40, generation + i)) for i in range(4)]
        for process in crowd:
            process.start()
        for process in crowd:
            process.join()
        # A second file `inside` would have ended its process with FileExistsError.
        assert {p.exitcode for p in crowd} <= {0, -signal.SIGKILL}
    assert (tmp_path / "entries").read_text().count("x") > 3
    with lock_folder(tmp_path, what="it"):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "entries"]


class LockSteps(RuleBasedStateMachine):
    """Steps of taking, taking over and releasing by three processes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["TEST_LOCK_FOLDER"])
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.lock = self.folder / ".lock"
        self.mine: dict[int, Path] = {}
        self.seen: dict[int, Path] = {}
        self.count = 0

    def _new(self) -> tuple[Owner, Path]:
        self.count += 1
        owner = replace(Owner.this_process(), token=f"{self.count:04d}")
        return owner, self.lock / f"{owner.token}.json"

    @rule(who=st.integers(0, 2))
    def take(self, who: int) -> None:
        owner, path = self._new()
        free = not any(p.exists() for p in self.mine.values())
        assert lock._create(self.folder / f".lock.{owner.token}.tmp", path, owner) == free
        if free:
            self.mine[who] = path

    @rule(who=st.integers(0, 2))
    def look(self, who: int) -> None:
        """Remembers the present owner as dead. The take-over comes later, when this may no longer be true."""
        found = lock._owner_file(self.lock)
        if found:
            self.seen[who] = found

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.seen)))
        dead = self.seen.pop(who)
        owner, path = self._new()
        still = dead.exists()
        assert lock._take_over(dead, path, owner) == still
        if still:
            self.mine[who] = path

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lock._release(self.mine.pop(data.draw(st.sampled_from(sorted(self.mine)))))

    @invariant()
    def at_most_one_owner(self) -> None:
        files = sorted(self.lock.iterdir()) if self.lock.exists() else []
        assert len(files) <= 1
        # Each file describes the owner that its name says.
        for file in files:
            owner = lock._read_owner(file)
            assert owner is not None
            assert owner.token == file.stem


def test_a_process_killed_while_it_takes_over_shows_as_dead_at_once(tmp_path: Path) -> None:
    _lock_elsewhere(tmp_path)
    (path,) = (tmp_path / ".lock").iterdir()
    lock._write(path, replace(Owner.this_process(), started=1), "r+")
    with lock_folder(tmp_path, what="it") as owned:
        owned.check()


def test_at_most_one_process_owns_the_lock_in_any_order_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_LOCK_FOLDER", str(tmp_path / "steps"))
    run: Callable[[], None] = LockSteps.TestCase("runTest").runTest
    LockSteps.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
    run()


def test_a_lock_with_a_damaged_owner_is_no_traceback(tmp_path: Path) -> None:
    owner = tmp_path / ".lock" / "0f.json"
    owner.parent.mkdir()
    owner.write_bytes(b"[" * 2000)
    assert lock_owner(tmp_path) is None
    with lock_folder(tmp_path, what="a folder", stale_s=-1) as taken:
        assert taken.path.exists()
