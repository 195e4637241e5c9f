"""Kills a small campaign at random moments, again and again, and compares its products with undisturbed ones.

`python -m tests.runs.mapping.torture KILLS [SEED [REAL_EVERY]]`, or `make torture KILLS=200`. Most victims are a
driver and its workers in one process. It is forked from this process, which has imported everything, so it starts in
a moment; it plans, runs and publishes. Every `REAL_EVERY`-th victim is `landcover run` with worker processes, of
which the driver or a worker is killed.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from tests.support.campaigns import Made, cog_bytes, kill_all, make_campaign, start, strays, workers_of
from tests.support.dask_client import in_process_client
from tests.support.forking import fork
from tests.support.waiting import LONGEST_S, wait_until

REAL_EVERY = 5


def map_and_publish(made: Made) -> None:
    """Plans, runs and publishes in this process."""
    with in_process_client() as client:
        run(make_plan(made.campaign), client=client)
        publish(made.campaign, client=client)


def fork_run(made: Made) -> int:
    """Forks a process that does the same; returns its pid."""
    return fork(lambda: map_and_publish(made), made.folder / "run.log")


def kill_one(made: Made, moment: random.Random, longest_s: float) -> bool:
    """Kills a forked driver at a random moment; False where it ended before without an error."""
    pid = fork_run(made)
    before = _progress(made)
    if moment.random() < 0.5:
        time.sleep(moment.random() * longest_s)
    else:
        # The most critical moment: while the files of a tile get their names.
        step, deadline = moment.randrange(1, 6), time.monotonic() + longest_s
        while _progress(made) < before + step and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment.random() * 0.03)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"a run failed by itself:\n{_log(made)}")
    return os.WIFSIGNALED(status)


def kill_real(made: Made, moment: random.Random) -> bool:
    """Kills the driver or a worker of `landcover run`; False where it ended before without an error."""
    process = start(made, "--workers", "2")
    before, step = _progress(made), moment.randrange(0, 4)
    wait_until(lambda: process.poll() is not None or _progress(made) >= before + step, lambda: _log(made))
    time.sleep(moment.random() * 0.2)
    if process.poll() is not None:
        return False
    workers = workers_of(process.pid)
    if workers and moment.random() < 0.5:
        os.kill(moment.choice(workers), signal.SIGKILL)
        try:
            code = process.wait(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            kill_all(process)
            code = -signal.SIGKILL
        if code:
            raise AssertionError(f"a lost worker ended the run with {code}:\n{_log(made)}")
        return True
    kill_all(process)
    return True


def torture(folder: Path, kills: int, *, seed: int, real_every: int, say: Callable[[str], None]) -> None:
    """Kills a campaign again and again. Whenever it reaches its end, it is compared with an undisturbed one.

    Raises:
        AssertionError: bytes differ, a file is left over, an item or shard is damaged, or a run failed.
    """
    moment = random.Random(seed)
    whole, made = make_campaign(folder / "whole"), make_campaign(folder / "made")
    began = time.monotonic()
    _wait(fork_run(whole), whole)
    longest_s = time.monotonic() - began
    expected = cog_bytes(whole.products)
    done = ends = 0
    while done < kills:
        real = real_every > 0 and done % real_every == real_every - 1
        killed = kill_real(made, moment) if real else kill_one(made, moment, longest_s)
        done += killed
        if not killed or moment.random() < 0.1:
            _finish(made, expected)
            ends += 1
            shutil.rmtree(made.folder / ("products" if moment.random() < 0.5 else "national"), ignore_errors=True)
            _unseal_some(made, moment)
        if done % 10 == 0:
            say(f"{done} of {kills} kills, {ends} times to the end, {time.monotonic() - began:.0f} s")
    _finish(made, expected)


def _finish(made: Made, expected: dict[str, str]) -> None:
    """Runs to the end without a kill, and compares."""
    _wait(fork_run(made), made)
    if cog_bytes(made.products) != expected:
        raise AssertionError("the bytes differ from those of a run that was never killed")
    left = [*strays(made.products), *made.folder.rglob("*.tmp"), *made.folder.rglob(".lock")]
    if left:
        raise AssertionError(f"left over: {left}")
    verified = verify(made.campaign)
    if not verified.clean:
        raise AssertionError(f"not clean: {verified}")


def _wait(pid: int, made: Made) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        raise AssertionError(f"a run that nobody killed failed:\n{_log(made)}")


def _log(made: Made) -> str:
    return (made.folder / "run.log").read_text()[-4000:]


def _progress(made: Made) -> int:
    """Number of product files, finished or not. It grows while tiles are sealed and shards are written."""
    return sum(len(files) for root in ("products", "national") for _, _, files in os.walk(made.folder / root))


def _unseal_some(made: Made, moment: random.Random) -> None:
    for item in sorted(made.products.rglob("D*.json")):
        if moment.random() < 0.5:
            item.unlink()


def main() -> None:
    """The command."""
    given = [int(argument) for argument in sys.argv[1:]]
    kills, seed, real_every = (*given, *(200, random.SystemRandom().randrange(1 << 32), REAL_EVERY)[len(given) :])

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    say(f"{kills} kills, seed {seed}, every {real_every}th of `landcover run`")
    with tempfile.TemporaryDirectory(prefix="landcover-torture-") as folder:
        torture(Path(folder), kills, seed=seed, real_every=real_every, say=say)
    say("the bytes are the same as without kills, and nothing is left over")


if __name__ == "__main__":
    main()
