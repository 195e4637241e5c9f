"""Another user of the machine reaches nothing of a run: no socket answers, and no key can be read."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import make_campaign
from tests.support.waiting import wait_until

NOBODY = 65_534
ANSWER_S = 2
HTTP = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
HANDSHAKE = (37).to_bytes(8, "little") + b"\x85\xa2op\xaascheduler_\xa5reply\xc3" + bytes(16)
"""The beginning of a message of Dask's own protocol, without TLS."""

RUN = """
import sys, time
from pathlib import Path
from pipeline import load_campaign, make_plan, run

def wait(event):
    Path(sys.argv[2]).touch()
    time.sleep(3600)

if __name__ == "__main__":
    run(make_plan(load_campaign(Path(sys.argv[1]))), workers=1, on_event=wait)
"""


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def sockets(pids: list[int]) -> tuple[list[int], list[str]]:
    """Ports and names of Unix sockets on which these processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()))
            except FileNotFoundError:
                continue  # it was closed meanwhile
    tcp = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    ports = [int(f[1].rpartition(":")[2], 16) for f in tcp if f[3] == "0A" and f"socket:[{f[9]}]" in inodes]
    return ports, [f[7] for f in unix if len(f) > 7 and f"socket:[{f[6]}]" in inodes]


def as_nobody(attack: Callable[[], Any]) -> Any:
    """What a function returns in a process of another user, who may not be able to import anything."""
    "".encode("idna")  # an import
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(attack()).encode())
        except BaseException as error:  # noqa: BLE001  (only this process ends)
            os.write(writing, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = file.read()
    os.waitpid(child, 0)
    return json.loads(found)


def answer(port: int, sent: bytes, tls: bool, *, context: ssl.SSLContext) -> str:
    """What a port of this machine answers to somebody without the key; empty for nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as plain:
            plain.settimeout(ANSWER_S)
            with context.wrap_socket(plain) if tls else plain as sent_to:
                sent_to.sendall(sent)
                return sent_to.recv(1000).decode("latin-1")
    except OSError:
        return ""


def connected(names: list[str]) -> list[str]:
    """The Unix sockets that accept this user; `@` begins abstract names."""
    found = []
    for name in names:
        with socket.socket(socket.AF_UNIX) as tried:
            try:
                tried.connect(name.replace("@", "\0", 1))
            except OSError:
                continue
        found.append(name)
    return found


def readable(paths: list[str]) -> list[str]:
    """Those that this user can open."""
    found = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        found.append(path)
    return found


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that every user can enter, as /tmp is, and that no other run uses."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def mapping(tmp_path: Path, scratch: Path) -> Iterator[list[int]]:
    """The processes of a run that has started, and goes on until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can try as another user")
    made = make_campaign(tmp_path / "made", at=((0, 0),))
    environment = os.environ | {"TMPDIR": str(scratch)}
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-c", RUN, str(made.config), str(tmp_path / "started")]
        run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        wait_until((tmp_path / "started").exists, (tmp_path / "log").read_text, longest_s=300)
        yield list(family(run.pid))
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.slow
@pytest.mark.many_processes
def test_another_user_reaches_nothing_of_a_run(mapping: list[int], scratch: Path) -> None:
    ports, unix = sockets(mapping)
    assert len(ports) >= 3, "a scheduler, a nanny and a worker"
    keys = sorted(str(path) for path in scratch.glob("landcover-dask-*/**/*"))
    assert any(key.endswith("key.pem") for key in keys)
    secret = [line for key in keys if key.endswith("key.pem") for line in Path(key).read_text().splitlines()[1:-1]]
    for pid in mapping:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [line for line in secret if line in command]
    private = [f"/proc/{pid}/{name}" for pid in mapping for name in ("environ", "mem", "fd", "cwd/.")]
    tried = {
        "http": (HTTP, False),
        "dask": (HANDSHAKE, False),
        "https": (HTTP, True),
        "dask with TLS": (HANDSHAKE, True),
    }

    def attack() -> Any:
        answers = {
            f"{name} {port}": answer(port, *how, context=context) for port in ports for name, how in tried.items()
        }
        return {k: a for k, a in answers.items() if a}, readable([*keys, *private]), connected(unix)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert as_nobody(attack) == [{}, [], []]
    assert readable(keys) == keys, "their owner reads them"
