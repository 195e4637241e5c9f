"""A cluster of this machine is its owner's alone: keys for all connections, and no port that asks for none."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Security

from pipeline.cluster.client import dashboard, open_cluster
from pipeline.cluster.parallel_map import parallel_map
from tests.support.campaigns import campaign_with_cluster


def _refused(address: str, security: Security | None) -> bool:
    try:
        Client(address, security=security, timeout=3, set_as_default=False).close()
    except OSError:
        return True
    return False


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _listening() -> dict[int, str]:
    """Port → address of each TCP socket on which this process or one below it listens."""
    inodes = set()
    for pid in _family(os.getpid()):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()))
            except FileNotFoundError:
                continue  # it was closed while we looked
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found[int(port, 16)] = address
    return found


def _answers_plainly(port: int) -> bool:
    """Whether a plain HTTP request gets any answer."""
    command = [sys.executable, "-c", f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}').status)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "HTTPError" in done.stderr or done.returncode == 0


def where_and_what(dask_worker: Any) -> tuple[int, str]:
    return stat.S_IMODE(Path(dask_worker.security.tls_worker_key).stat().st_mode), dask_worker.address


def samples_stacks(dask_worker: Any) -> bool:
    return "profile" in dask_worker.periodic_callbacks


def test_scheduler_and_workers_refuse_everybody_without_the_key(tmp_path: Path) -> None:
    before = _listening()
    with open_cluster(campaign_with_cluster(tmp_path, kind="local", workers=1)) as client:
        address = client.scheduler_info()["address"]
        workers = client.run(where_and_what)
        assert address.startswith("tls://127.0.0.1:")
        assert all(mode == 0o600 and own.startswith("tls://127.0.0.1:") for mode, own in workers.values())
        for where in (address, *workers):
            plain = where.replace("tls://", "tcp://")
            assert _refused(plain, None), where
            assert _refused(where, Security.temporary()), where
        assert dashboard(client) is None
        assert not any(client.run(samples_stacks).values()), "nothing would show the samples"
        ports = _listening().keys() - before.keys()
        assert len(ports) >= 3, "a scheduler, a nanny and a worker"
        assert set(_listening().values()) - set(before.values()) <= {"0100007F"}
        assert [port for port in ports if _answers_plainly(port)] == []
        key = Path(client.security.tls_client_key)
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
        # A worker that is started again has the key too.
        (first,) = client.run(os.getpid).values()
        os.kill(first, 9)
        assert client.submit(sum, (1, 2), pure=False).result() == 3
    assert not key.parent.exists()
    assert not _listening().keys() - before.keys()


def test_a_dashboard_is_served_where_it_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "landcover")
    campaign = campaign_with_cluster(tmp_path).on_cluster(dashboard=True)
    with open_cluster(campaign) as client:
        address = dashboard(client)
        assert address is not None
        assert address.startswith("http://127.0.0.1:")
        assert f"Dask dashboard: {address}" in caplog.messages
        assert all(client.run(samples_stacks).values()), "the dashboard shows them"
        assert _answers_plainly(int(address.split(":")[2].split("/")[0]))
        assert _refused(client.scheduler_info()["address"], Security.temporary())


def test_processes_of_commands_without_a_campaign_are_private_too() -> None:
    before = _listening().keys()
    seen = []
    for number in parallel_map(range(3), abs, workers=2):
        seen.append(number)
        assert [port for port in _listening().keys() - before if _answers_plainly(port)] == []
    assert sorted(seen) == [0, 1, 2]
