"""Kills `map` at random moments, calls it again, and compares its bytes with those of an undisturbed call.

`python -m tests.runs.workflow.map_kills KILLS [SEED]`, or `make torture-map KILLS=10`. The victims are forked from this
process, which has imported everything; each goes from archives to the report.
"""

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import yaml

from pipeline.progress import SILENT
from pipeline.runs.workflow.map_delivery import FinishedMap, MapRequest, map_delivery
from tests.support.archives import pack
from tests.support.campaigns import RECIPE, cog_bytes, write_weights
from tests.support.dask_client import in_process_client
from tests.support.deliveries import make_delivery
from tests.support.forking import fork

ARCHIVE = "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01.7z"


def make_archives(folder: Path) -> MapRequest:
    """The archives of two tiles, and weights beside their recipe; nothing is mapped."""
    made = make_delivery(folder / "made", at=[(0, 0), (0, 1)])
    members = {p.relative_to(made.folder).as_posix(): p for p in sorted(made.folder.rglob("*")) if p.is_file()}
    pack(folder / "D034_2021" / ARCHIVE, members, volume=400_000)
    (folder / "model").mkdir()
    (folder / "model" / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    weights = write_weights(folder / "model" / "weights.pth", folder / "model" / "tiny.yaml")
    return MapRequest(folder / "D034_2021", str(weights), folder / "map")


def call(request: MapRequest) -> FinishedMap | None:
    """From what is there to the report, on a cluster in this process."""
    with in_process_client() as client:
        return map_delivery(
            request,
            confirm=lambda _path, _plan: True,
            bar=lambda _: nullcontext(SILENT),
            on_message=lambda _: None,
            client=client,
        )


def fork_call(request: MapRequest) -> int:
    """Forks a process that does the same; returns its pid."""
    return fork(lambda: call(request), request.folder.with_name("map.log"))


def product_bytes(request: MapRequest) -> dict[str, str]:
    """Name → hash of all COGs and of all chunks of the national store."""
    store = request.out / "national" / "current" / "product.zarr"
    chunks = sorted(p for p in store.rglob("c/**/*") if p.is_file())
    hashes = {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in chunks}
    return cog_bytes(request.out / "products") | hashes


def torture(folder: Path, kills: int, *, seed: int) -> int:
    """Kills a map at random moments. Whenever it reaches its end, it is compared, and begins again from nothing.

    Returns:
        How often it reached its end.

    Raises:
        AssertionError: bytes differ, or a call failed by itself.
    """
    moment = random.Random(seed)
    whole, victim = make_archives(folder / "whole"), make_archives(folder / "victim")
    began = time.monotonic()
    _wait(fork_call(whole), whole)
    longest_s = time.monotonic() - began
    expected = product_bytes(whole)
    assert len(expected) > 4
    killed = ends = 0
    while killed < kills:
        pid = fork_call(victim)
        time.sleep(moment.random() * longest_s)
        os.kill(pid, signal.SIGKILL)
        if os.WIFSIGNALED(_status(pid, victim)):
            killed += 1
            continue
        ends += 1
        _compare(victim, expected, seed)
        shutil.rmtree(victim.out)
    _wait(fork_call(victim), victim)
    _compare(victim, expected, seed)
    return ends + 1


def _compare(request: MapRequest, expected: dict[str, str], seed: int) -> None:
    assert product_bytes(request) == expected, (request.out, seed)
    assert (request.out / "products" / "D034_2021" / "report" / "report.html").is_file()


def _wait(pid: int, request: MapRequest) -> None:
    assert _status(pid, request) == 0, request.folder.with_name("map.log").read_text()


def _status(pid: int, request: MapRequest) -> int:
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"a call failed by itself:\n{request.folder.with_name('map.log').read_text()}")
    return status


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    drawn = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    with tempfile.TemporaryDirectory() as place:
        count = torture(Path(place), wanted, seed=drawn)
    sys.stdout.write(f"seed {drawn}: {wanted} kills; the bytes were the same at each of {count} ends\n")
