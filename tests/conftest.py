"""What all tests share: real data, Hypothesis profiles, few threads, little memory, no network."""

import ctypes
import gc
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

# Before any numerical library starts its threads: on a machine of many cores, a thread a core for images of a
# few hundred pixels makes tests slower, not faster.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")
# And a thread that waits for the others sleeps: test processes and their workers are more than the cores, and who spins
# takes the core from the one that is waited for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The processes of pytest-xdist start after this. They and their children keep freed memory in one heap or two, not in
# one a thread, and no blocks of closed rasters: GDAL would take a twentieth of the machine's memory in each.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")
os.environ.setdefault("GDAL_CACHEMAX", "64")
# Before huggingface_hub reads it: a test that would ask the hub fails at once instead of waiting.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import HealthCheck, settings

from tests.support.paths import SHARED_DATA

pytest_plugins = [
    "tests.support.seeds",
    "tests.support.dask_client",
    "tests.support.demo",
    "tests.support.slurm.fixtures",
]

settings.register_profile(
    "dev", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file run in one process, which makes its fixtures once; so do all files that want the SLURM lab, and
    those that start many processes, so that these never share the memory with the lab's, and files that name a group of
    their own.

    Groups with slow tests come first: at the end, no process waits long for another's.
    """
    with_lab = {
        item.path
        for item in items
        if "lab" in getattr(item, "fixturenames", ()) or item.get_closest_marker("many_processes")
    }
    named = {item: marker.args[0] for item in items if (marker := item.get_closest_marker("xdist_group"))}
    groups = {item: "lab" if item.path in with_lab else named.get(item, str(item.path)) for item in items}
    slow = Counter(groups[item] for item in items if item.get_closest_marker("slow"))
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: -slow[groups[item]])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Ends the session where pytest-xdist ignores the groups, as its 3.8 does with pytest 9.2: every process would then
    make most fixtures, and a SLURM cluster, for itself."""
    if node.config.getoption("dist") == "loadgroup" and ids and "@" not in ids[0]:
        pytest.exit("pytest-xdist ignores the groups with this version of pytest; make install", returncode=4)


def pytest_collection_finish() -> None:
    """What imports and collection made stays: the garbage collections after each file need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files beside the repository; its tests are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


_KEPT_IN_A_PROCESS = {
    "pipeline.inference.predictor": "_RESIDENT.clear",
    "pipeline.model.weights": "_load_file.cache_clear",
}
"""Module → what empties the networks that it keeps until the process ends."""


@pytest.fixture(scope="module", autouse=True)
def _memory_given_back() -> Iterator[None]:
    """The networks that a file's tests loaded, and memory that was freed, go back to the system."""
    yield
    for module, clear in _KEPT_IN_A_PROCESS.items():
        if module in sys.modules:
            attrgetter(clear)(sys.modules[module])()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine answers: connections elsewhere fail by name instead of hanging or passing by luck."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        # A datagram socket sends nothing when it connects: distributed asks the system for its own address so.
        if self.type == socket.SOCK_STREAM and host not in ("localhost", "::1") and not host.startswith("127."):
            raise OSError(f"tests have no network; refused a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
