"""Schedulers and workers as processes of their own, to be found by their file and killed by their number."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

FAKED_NVML = Path(__file__).with_name("faked_nvml")


def faked_gpus(count: int) -> dict[str, str]:
    """The environment of a process that sees so many GPUs."""
    paths = os.pathsep.join([str(FAKED_NVML), str(ROOT)])
    hidden = {"CUDA_VISIBLE_DEVICES"}
    # dask-cuda warns of a context on the wrong device; there is no device.
    more = {"PYTHONPATH": paths, "FAKED_GPUS": str(count), "DASK_CUDA_TEST_SINGLE_GPU": "1"}
    return {k: v for k, v in os.environ.items() if k not in hidden} | more


@contextmanager
def process(*arguments: str, log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Python with these arguments, killed at the end."""
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out, env=environment)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A scheduler of this machine; yields its file and its process."""
    file = folder / "scheduler.json"
    command = ("-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(file))
    with process(*command, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=folder / "log") as started:
        while not file.exists():
            assert started.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield file, started


@contextmanager
def worker(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of two threads without a nanny: once killed it stays away."""
    options = ("--no-nanny", "--nthreads", "2", "--no-dashboard", "--host", "127.0.0.1")
    command = ("-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), *options)
    with process(*command, log=file.with_name("log")) as started:
        yield started
