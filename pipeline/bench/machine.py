"""Facts about the machine, and the resources that a piece of work uses: time, core-seconds, peak memory."""

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil

from pipeline.cluster.worker_resources import dask_config
from pipeline.config import Campaign
from pipeline.errors import EngineError
from pipeline.runs.planning.provenance import software
from pipeline.runs.planning.throughput import processor

T = TypeVar("T")
P = ParamSpec("P")

_VECTOR_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ENGINE_PACKAGES = ("openvino", "nncf")
"""Optional packages; their versions are reported if they are installed."""
_KIB = 1024
"""The unit of the kernel's tables."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, load and versions, so that a figure can be understood later."""
    flags, memory = _field(Path("/proc/cpuinfo"), "flags").split(), psutil.virtual_memory()
    return {
        "processor": processor(),
        "flags": [flag for flag in _VECTOR_FLAGS if flag in flags],
        "cores": cores(),
        "memory_bytes": memory.total,
        "available_bytes": memory.available,
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "software": software() | {name: version(name) for name in _ENGINE_PACKAGES if find_spec(name)},
    }


def _field(path: Path, name: str) -> str:
    """The value after `name:` in one of the kernel's tables; empty if there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


@dataclass(frozen=True)
class Usage:
    """Resources that a piece of work used."""

    wall_s: float
    own_core_s: float
    """User and system time of the process itself."""
    children_core_s: float
    """The same for its children that ended meanwhile, such as a cluster's workers."""
    own_peak_bytes: int
    """Largest resident memory of the process since it started."""
    children_peak_bytes: int
    """Largest resident memory of a child that has ended. Linux starts the count at its parent's memory at the fork."""

    @property
    def core_s(self) -> float:
        """Core-seconds of all processes."""
        return self.own_core_s + self.children_core_s


def measure(work: Callable[[], T]) -> tuple[T, Usage]:
    """Does some work and measures what it uses; children count if they end meanwhile."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    value = work()
    wall = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, children = (a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))
    return value, Usage(wall, own, children, _own_peak(), after[1].ru_maxrss * _KIB)


def _own_peak() -> int:
    """Largest resident memory of this process so far, in bytes.

    Not `ru_maxrss`, which starts at the memory of the process that started this one; but kernels of some virtual
    machines have nothing else.
    """
    found = _field(Path("/proc/self/status"), "VmHWM").split()
    return (int(found[0]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * _KIB


def in_new_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function in a new process, with cold caches and memory of its own; raises what the function raises."""
    return in_new_process_within(None, work, *args, **kwargs)


def in_new_process_within(seconds: float | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same with a time limit, after which the process is killed.

    Raises:
        EngineError: it did not end within `seconds`.
    """
    earlier = active_children()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(work, *args, **kwargs)
        try:
            return future.result(timeout=seconds)
        except TimeoutError as error:
            if future.done():  # the function itself raised it
                raise
            for child in active_children():
                if child not in earlier:
                    child.kill()
            raise EngineError(f"it did not end within {seconds:g} s") from error


@contextmanager
def worker_environment(campaign: Campaign) -> Iterator[None]:
    """Gives new processes the environment of a campaign's workers until the block ends."""
    before = dict(os.environ)
    os.environ.update(dask_config(campaign)["distributed.nanny.pre-spawn-environ"])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def set_gdal_cache(mb: int) -> None:
    """Sets GDAL's block cache for this process, in MiB, as for a worker; call it before the first raster is read."""
    # GDAL reads the variable once, when it needs its first block.
    os.environ["GDAL_CACHEMAX"] = str(mb)


def usage_json(usage: Usage) -> Mapping[str, float]:
    """The resources for a report's JSON, rounded."""
    return {name: round(value, 3) for name, value in asdict(usage).items()}
