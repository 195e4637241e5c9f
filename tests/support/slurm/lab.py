"""A real SLURM on this machine for the tests: one slurmctld and a few slurmd, without systemd or cgroups.

Each slurmd is a *subreaper*: what a job leaves behind stays in the tree below it, so killing that tree is a power cut
of the node. Nodes carry every feature of Jean Zay and fake GPUs (copies of /dev/null), which SLURM hands out as real
ones. Client calls hang when slurmctld is gone, so each has a time limit.
"""

import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.support.waiting import LONGEST_S, wait_until

_DAEMONS = "/usr/sbin"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_CONFIGURATION = Path(__file__).with_name("slurm.conf")
_RULES = Path(__file__).with_name("jean_zay.lua")
_FEATURES = "v100-16g,v100-32g,a100,h100"


def why_not() -> str | None:
    """Why no lab can be started here; None where one can."""
    missing = [p for p in _PROGRAMS if shutil.which(p, path=_path()) is None]
    if missing:
        return f"no SLURM here ({', '.join(missing)} missing): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "the SLURM lab wants root: it makes device files and starts jobs"
    return None


@dataclass(frozen=True)
class Job:
    """A job as `scontrol show job` prints it."""

    number: int
    state: str
    restarts: int
    """How often it was requeued."""
    text: str
    """All that scontrol said."""


@dataclass(frozen=True)
class Lab:
    """A cluster named `lab` of nodes n1, n2, …; its partitions are `main` (default), `urgent`, which preempts and
    requeues jobs of the others, and Jean Zay's, which keep that site's rules."""

    folder: Path
    nodes: tuple[str, ...]
    ports: tuple[int, ...]
    """Of slurmctld, then of each node's slurmd."""
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak with this cluster."""
        return os.environ | {"SLURM_CONF": str(self.folder / "etc/slurm.conf"), "PATH": _path()}

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a client's command; its exit code is the caller's business."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )

    def tell(self, *command: str) -> str:
        """Runs a client's command that must succeed; returns what it printed."""
        done = self.ask(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def sbatch(self, *options: str, wrap: str = "") -> int:
        """Submits; `wrap` is a shell line. Returns the job's number."""
        wrapped = ["--wrap", wrap] if wrap else []
        return int(self.tell("sbatch", "--parsable", *wrapped, *options).strip().split(";")[0])

    def jobs(self, number: int) -> tuple[Job, ...]:
        """A job, or all elements of an array, pending, running or ended in the last minutes."""
        printed = self.ask("scontrol", "--oneliner", "show", "job", str(number)).stdout.splitlines()
        return tuple(
            Job(int(_value(line, "JobId")), _value(line, "JobState"), int(_value(line, "Restarts")), line)
            for line in printed
            if line.startswith("JobId=")
        )

    def until(self, number: int, done: Callable[[Job], bool]) -> tuple[Job, ...]:
        """Waits until all elements of a job are as `done` wants them."""
        jobs: tuple[Job, ...] = ()

        def there() -> bool:
            nonlocal jobs
            jobs = self.jobs(number)
            return bool(jobs) and all(map(done, jobs))

        wait_until(there, lambda: f"job {number}: {[j.text for j in jobs]}")
        return jobs

    def ended(self, number: int) -> tuple[Job, ...]:
        """Waits until a job, or all elements of an array, has ended; requeued ones have not."""
        going = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "PREEMPTED")
        return self.until(number, lambda job: job.state not in going)

    def crash(self, node: str) -> None:
        """The node's power goes: its slurmd and all that runs below it, at once; without a message to anybody."""
        daemon = self._daemons.pop(node)
        os.kill(daemon.pid, signal.SIGSTOP)
        below = _below(daemon.pid)
        for pid in below:
            _kill(pid, signal.SIGSTOP)  # so that none of them starts another meanwhile
        for pid in (*_below(daemon.pid), daemon.pid):
            _kill(pid, signal.SIGKILL)
        daemon.wait()

    def boot(self, node: str) -> None:
        """The node's power comes back."""
        self._start(node, "slurmd", "-D", "-N", node)

    def pids(self, node: str) -> tuple[int, ...]:
        """All processes on a node, its slurmd's among them."""
        daemon = self._daemons[node]
        return (daemon.pid, *_below(daemon.pid))

    def idle(self) -> None:
        """Cancels all jobs and waits until all nodes are idle: what a test leaves for the next one."""
        self.tell("scancel", "--user=root")
        wait_until(self._all_idle, lambda: self.tell("sinfo", "-N", "-l") + self.tell("squeue"))

    def _all_idle(self) -> bool:
        states = self.ask("sinfo", "-h", "-p", "main", "-N", "-o", "%T").stdout.split()
        return states == ["idle"] * len(self.nodes)

    def _up(self) -> None:
        self._start(
            "munged",
            *("munged", "--foreground", "--force", "--num-threads=1"),
            *(f"--key-file={self.folder}/etc/munge.key", f"--socket={self.folder}/run/munge"),
            *(f"--pid-file={self.folder}/run/munged.pid", f"--seed-file={self.folder}/run/munge.seed"),
            f"--log-file={self.folder}/log/munged.log",
        )
        self._start("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.boot(node)
        logs = self.folder / "log"
        wait_until(self._all_idle, lambda: "\n".join(p.read_text()[-2000:] for p in sorted(logs.glob("*.out"))))

    def _down(self) -> None:
        if (controller := self._daemons.pop("slurmctld", None)) is not None:
            controller.kill()
            controller.wait()
        for node in self.nodes:
            if node in self._daemons:
                self.crash(node)
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"log/{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder / "log",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_become_subreaper_of_ours,  # noqa: PLW1509  (one call into libc, which is loaded)
            )


@contextmanager
def slurm_lab(folder: Path, *, lost_s: int, nodes: int = 3, cpus: int = 64, gpus: int = 8) -> Iterator[Lab]:
    """Starts a cluster in a new folder, and ends all of it afterwards.

    Args:
        folder: configuration, state and logs; made. Its path must be short: munge's socket lies in it.
        lost_s: seconds without an answer after which SLURM takes a node for crashed.
        nodes: how many.
        cpus: that each node says it has; nothing binds jobs to any.
        gpus: that each node says it has.
    """
    for part in ("etc", "run", "log", "state", "gpu", "spool"):
        (folder / part).mkdir(parents=True)
    names = tuple(f"n{i + 1}" for i in range(nodes))
    lab = Lab(folder, names, _free_ports(nodes + 1))
    for g in range(gpus):  # slurmd wants character devices whose names end in their index
        device = folder / f"gpu/nvidia{g}"
        os.mknod(device, stat.S_IFCHR | 0o666, os.stat(os.devnull).st_rdev)  # noqa: PTH116
        device.chmod(0o666)
    key = folder / "etc/munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    shutil.copy(_RULES, folder / "etc/job_submit.lua")
    (folder / "etc/gres.conf").write_text(f"Name=gpu File={folder}/gpu/nvidia[0-{gpus - 1}]\n")
    (folder / "etc/slurm.conf").write_text(_configuration(lab, lost_s=lost_s, cpus=cpus, gpus=gpus))
    try:
        lab._up()
        yield lab
    finally:
        lab._down()


def _configuration(lab: Lab, *, lost_s: int, cpus: int, gpus: int) -> str:
    """The lab's slurm.conf."""
    host = socket.gethostname().partition(".")[0]
    shape = f"CPUs={cpus} CoresPerSocket={cpus} RealMemory={cpus * 2000} Gres=gpu:{gpus}"
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.1.{i} Port={port} {shape} Feature={_FEATURES}"
        for i, (node, port) in enumerate(zip(lab.nodes, lab.ports[1:], strict=True), start=1)
    )
    given = {"host": host, "port": lab.ports[0], "folder": lab.folder, "nodes": nodes, "lost_s": lost_s}
    return _CONFIGURATION.read_text().format(**given)


def _value(line: str, key: str) -> str:
    """A field of `scontrol --oneliner show`."""
    found = re.search(rf"(?:^| ){key}=(\S*)", line)
    assert found, f"no {key} in {line}"
    return found[1]


def _free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on, and that the system gives to nobody meanwhile: not of its own range."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    own = [port for port in range(10_000, 65_536) if not first <= port <= last]
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(own)
        with socket.socket() as tried:
            if port not in found and tried.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return tuple(found)


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_DAEMONS}"


def _become_subreaper_of_ours() -> None:
    """Orphans below this process become its children, not init's, and it ends when we do; kept across exec."""
    _LIBC.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _below(pid: int) -> tuple[int, ...]:
    """All processes below one, from /proc."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(file.parent.name))
    found: list[int] = []
    waiting: Sequence[int] = [pid]
    while waiting:
        waiting = [child for parent in waiting for child in children.get(parent, ())]
        found += waiting
    return tuple(found)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself
