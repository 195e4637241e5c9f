"""A folder has one holder, whoever dies and whoever hurries."""

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
from pipeline.lock import Owner, holder, holding
from tests.support.waiting import wait_until

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import holding
with holding(Path(sys.argv[1]), what="it", beat_s=0.05):
    print("held", flush=True)
    time.sleep(86_400)
"""


def _elsewhere(folder: Path, **changes: Any) -> Owner:
    """Leaves the lock of a process on another machine."""
    owner = replace(Owner.me(), machine="another", host="r1i2n3", **changes)
    (folder / ".lock").mkdir()
    (folder / ".lock" / f"{owner.token}.json").write_text(json.dumps(asdict(owner)))
    return owner


def _age(folder: Path, seconds: float) -> None:
    (path,) = (folder / ".lock").iterdir()
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def _raises_held(folder: Path, match: str, **how: Any) -> None:
    with pytest.raises(LockError, match=match), holding(folder, what="domain D034_2021", **how):
        pytest.fail("two hold")


def test_a_second_one_is_told_who_holds_and_since_when_and_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "product"
    with holding(folder, what="domain D034_2021") as first:
        first.check()
        pickle.loads(pickle.dumps(first)).check()
        owner = holder(folder)
        assert owner is not None
        _raises_held(
            folder, rf"D034_2021 is held by process {os.getpid()} of .* since {owner.since}; last sign of life"
        )
        first.check()
    assert holder(folder) is None
    assert list(folder.iterdir()) == []
    with pytest.raises(LockError, match="the lock of this run is gone"):
        first.check()


def test_the_lock_of_a_process_that_ended_is_taken_over_at_once_and_of_a_living_one_not(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    _raises_held(tmp_path, f"process {process.pid} of")
    process.send_signal(signal.SIGKILL)
    # Still a zombie, which holds nothing any more.
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    with holding(tmp_path, what="it"):
        owner = holder(tmp_path)
        assert owner is not None
        assert owner.pid == os.getpid()
    process.communicate()


def test_a_pid_that_is_used_again_by_another_process_holds_nothing(tmp_path: Path) -> None:
    owner = replace(Owner.me(), started=1)
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / f"{owner.token}.json").write_text(json.dumps(asdict(owner)))
    with holding(tmp_path, what="it") as held:
        held.check()


def test_a_holder_elsewhere_is_dead_without_a_sign_of_life_for_the_stated_time(tmp_path: Path) -> None:
    _elsewhere(tmp_path)
    _age(tmp_path, 40_000)
    said = r"on r1i2n3.* last sign of life 4\d{4} s ago.*without a sign for 50000 s counts as dead"
    _raises_held(tmp_path, said, stale_s=50_000)
    with holding(tmp_path, what="it", stale_s=30_000) as held:
        held.check()


def test_signs_of_life_keep_a_lock_whatever_the_local_clock_says(tmp_path: Path) -> None:
    with holding(tmp_path, what="it", beat_s=0.02):
        (path,) = (tmp_path / ".lock").iterdir()
        for _ in range(3):
            os.utime(path, (0, 0))
            wait_until(lambda: path.stat().st_mtime != 0, lambda: "no beat")


@pytest.mark.parametrize(("answer", "taken"), [(False, True), (True, False), (None, False)])
def test_slurm_tells_a_dead_holder_before_its_heartbeat_does(tmp_path: Path, answer: bool | None, taken: bool) -> None:
    _elsewhere(tmp_path, job="4711")
    asked = []

    def job_runs(job: str) -> bool | None:
        asked.append(job)
        return answer

    if taken:
        with holding(tmp_path, what="it", job_runs=job_runs) as held:
            held.check()
    else:
        _raises_held(tmp_path, "SLURM job 4711", job_runs=job_runs)
    assert asked == ["4711"]


def test_a_job_of_somebody_else_that_slurm_does_not_show_may_run_all_the_same(tmp_path: Path) -> None:
    _elsewhere(tmp_path, job="4711", user="somebody")
    _raises_held(tmp_path, "of somebody on r1i2n3, SLURM job 4711", job_runs=lambda _: False)


def test_an_earlier_start_of_the_same_job_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _elsewhere(tmp_path, job="4711", restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _raises_held(tmp_path, "SLURM job 4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with holding(tmp_path, what="it"):
        owner = holder(tmp_path)
        assert owner is not None
        assert (owner.job, owner.restarts) == ("4711", 2)


def test_who_was_taken_for_dead_notices_and_does_not_release_what_is_another_s(tmp_path: Path) -> None:
    with holding(tmp_path, what="it", beat_s=3600) as first:
        _age(tmp_path, 1000)
        with holding(tmp_path, what="it") as second:
            with pytest.raises(LockError, match="another run took it for dead"):
                first.check()
            second.check()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_half_written_or_empty_blocks_nobody_for_longer_than_the_stated_time(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with holding(tmp_path, what="it"):
        pass
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "aa.json").write_text('{"token": "a')
    _raises_held(tmp_path, "somebody who is just taking it")
    _age(tmp_path, 121)
    with holding(tmp_path, what="it"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="file/D034_2021 cannot be written"),
        holding(tmp_path / "file/D034_2021", what=""),
    ):
        pytest.fail("held")


def test_the_lock_file_of_an_old_release_is_named_with_what_to_do_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert holder(tmp_path) is None
    # No LockError: who waits for a holder's end would wait for ever.
    with (
        pytest.raises(StorageError, match=r"\.lock: expected a folder or nothing, found a file: .*Remove it"),
        holding(tmp_path, what="it"),
    ):
        pytest.fail("held")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o002)
    try:
        with holding(tmp_path, what="it"):
            (path,) = (tmp_path / ".lock").iterdir()
            assert path.stat().st_mode & 0o777 == 0o664
            assert path.parent.stat().st_mode & 0o777 == 0o775
    finally:
        os.umask(former)


def _contend(folder: Path, rounds: int, seed: int) -> None:
    """Takes the lock again and again; inside, a file that may exist only once. Dies in it now and then."""
    for i in range(rounds):
        try:
            with holding(folder, what="it", beat_s=5) as held:
                inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
                os.close(inside)
                held.check()
                with (folder / "entries").open("a") as file:
                    file.write("x\n")
                if (i + seed) % 7 == 3:
                    (folder / "inside").unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                (folder / "inside").unlink()
        except LockError:
            time.sleep(0.001)


def test_many_processes_that_hurry_and_die_are_never_two_inside(tmp_path: Path) -> None:
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
    with holding(tmp_path, what="it"):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "entries"]


class Hands(RuleBasedStateMachine):
    """The steps of taking, taking over and releasing, by three processes, interleaved in any order."""

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
        owner = replace(Owner.me(), token=f"{self.count:04d}")
        return owner, self.lock / f"{owner.token}.json"

    @rule(who=st.integers(0, 2))
    def take(self, who: int) -> None:
        owner, path = self._new()
        free = not any(p.exists() for p in self.mine.values())
        assert lock._moved(self.folder / f".lock.{owner.token}.tmp", path, owner) == free
        if free:
            self.mine[who] = path

    @rule(who=st.integers(0, 2))
    def look(self, who: int) -> None:
        """Judges whoever holds now to be dead; acts on it later, when that may no longer be true."""
        found = lock._holder_file(self.lock)
        if found:
            self.seen[who] = found

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.seen)))
        judged = self.seen.pop(who)
        owner, path = self._new()
        still = judged.exists()
        assert lock._taken_over(judged, path, owner) == still
        if still:
            self.mine[who] = path

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lock._release(self.mine.pop(data.draw(st.sampled_from(sorted(self.mine)))))

    @invariant()
    def at_most_one_holds(self) -> None:
        files = sorted(self.lock.iterdir()) if self.lock.exists() else []
        assert len(files) <= 1
        # Whoever holds reads as itself.
        for file in files:
            owner = lock._read(file)
            assert owner is not None
            assert owner.token == file.stem


def test_who_is_killed_in_the_middle_of_taking_over_shows_as_dead_at_once(tmp_path: Path) -> None:
    _elsewhere(tmp_path)
    (path,) = (tmp_path / ".lock").iterdir()
    lock._write(path, replace(Owner.me(), started=1), "r+")
    with holding(tmp_path, what="it") as held:
        held.check()


def test_in_any_order_of_steps_at_most_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LOCK_FOLDER", str(tmp_path / "hands"))
    run: Callable[[], None] = Hands.TestCase("runTest").runTest
    Hands.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
    run()
