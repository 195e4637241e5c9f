"""One holder of a folder at a time, on any shared file system: no flock, which Lustre and NFS may not have.

While somebody holds `<folder>`, `<folder>/.lock/` has exactly one file, `<token>.json`, named by a random token of the
holder and saying who that is. Each change of hands is one rename or unlink that names what it expects:

- to take: a folder with one's file in it is renamed to `.lock`, which succeeds where there is none or an empty one;
- to take over from a dead holder: *its file* is renamed to one's own token. Of two takers one finds it gone, and who
  took the lock since has another name and cannot be hit;
- to release: one's own file is unlinked.

A holder touches its file every `BEAT_S` seconds. Who wants the lock touches a file of its own beside it and compares
the two times, both made by the file system; local clocks do not count.
"""

import errno
import getpass
import json
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import LockError, StorageError

BEAT_S = 10.0
"""Seconds between two signs of life."""
STALE_S = 120.0
"""Without a sign for so long a holder counts as dead: twelve beats, and more than clocks of one cluster differ."""

_LOCK = ".lock"
_TRIES = 10
_LENGTH = 1024
_REFUSED = (errno.ENOTEMPTY, errno.EEXIST)

JobRuns = Callable[[str], bool | None]
"""Whether a batch job is running; None: nobody knows."""


@dataclass(frozen=True)
class Owner:
    """Who holds."""

    token: str
    host: str
    machine: str
    """Boot and process namespace: where it is ours, the process can be looked for. Names of hosts repeat."""
    pid: int
    started: int
    """The process's start in clock ticks since boot: a pid is used again."""
    user: str
    job: str
    """SLURM job id; empty outside of one."""
    restarts: int
    """How often that job was requeued."""
    since: str
    """When it was taken, UTC."""

    @classmethod
    def me(cls) -> "Owner":
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=_started(pid) or 0,
            user=_user(),
            job=os.environ.get("SLURM_JOB_ID", ""),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            since=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} of {self.user} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True)
class Holding:
    """The lock while it is held; picklable, so that workers can ask too."""

    path: Path
    """The holder's file."""
    what: str

    def check(self) -> None:
        """Raises LockError where the lock was taken over or removed: another may be writing."""
        if not self.path.exists():
            raise LockError(
                f"{self.what}: the lock of this run is gone ({self.path}): another run took it for dead, or it was "
                "removed by hand. Nothing more is written; `landcover status` says who holds it now"
            )


def holder(folder: Path) -> Owner | None:
    """Who holds a folder as its lock says, dead or alive; None: nobody, or one who is just taking it."""
    found = _holder_file(folder / _LOCK)
    return _read(found) if found else None


def left_behind(folder: Path) -> bool:
    """Whether there is a lock in the folder, of somebody alive or dead."""
    return (folder / _LOCK).is_dir()


def ended(owner: Owner, *, job_runs: JobRuns = lambda _: None) -> str | None:
    """Why a holder cannot be alive, as far as that shows without its heartbeat; None: it may be."""
    if owner.machine == _machine():
        return None if _started(owner.pid) == owner.started else f"process {owner.pid} has ended"
    if not owner.job:
        return None
    if owner.job == os.environ.get("SLURM_JOB_ID") and owner.restarts < int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return f"it was an earlier start of SLURM job {owner.job}"
    # Sites may hide other people's jobs: what SLURM does not show of them may run all the same.
    gone = owner.user == _user() and job_runs(owner.job) is False
    return f"SLURM job {owner.job} no longer runs" if gone else None


@contextmanager
def holding(
    folder: Path,
    *,
    what: str,
    job_runs: JobRuns = lambda _: None,
    beat_s: float = BEAT_S,
    stale_s: float = STALE_S,
) -> Iterator[Holding]:
    """Holds a folder until the block ends; a dead holder's lock is taken over.

    A holder is dead when its process has ended (on this machine), when it was an earlier start of this same SLURM
    job, when this user's job that it was no longer runs, or when it gave no sign of life for `stale_s`.

    Args:
        folder: made where it is missing.
        what: names it in messages: `domain D034_2021`.
        job_runs: asks the batch system, such as `cluster.slurm.queue.job_runs`.
        beat_s: seconds between signs of life.
        stale_s: seconds without one after which a holder is dead.

    Raises:
        LockError: somebody holds it; the message says who, and since when.
        StorageError: the folder cannot be written, or the lock of an old release stands in it.
    """
    me = Owner.me()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _take(folder, me, what=what, job_runs=job_runs, stale_s=stale_s)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}; change the campaign's output or its rights"
        ) from error
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, done, beat_s), name="landcover-lock", daemon=True)
    beating.start()
    try:
        yield Holding(path, what)
    finally:
        done.set()
        beating.join()
        _release(path)


def _take(folder: Path, me: Owner, *, what: str, job_runs: JobRuns, stale_s: float) -> Path:
    """Takes the lock, or takes it over; returns one's file in it."""
    lock, mine = folder / _LOCK, folder / f"{_LOCK}.{me.token}.tmp"
    path = lock / f"{me.token}.json"
    try:
        for _ in range(_TRIES):
            if _moved(mine, path, me):
                break
            found = _holder_file(lock)
            if found is None:
                continue
            owner, silent_s = _read(found), _silent_s(found, mine / path.name)
            gone = owner is not None and ended(owner, job_runs=job_runs) is not None
            if not gone and silent_s <= stale_s:
                raise LockError(_held(lock, what, owner, silent_s, stale_s))
            if _taken_over(found, path, me):
                break
        else:
            raise LockError(f"{what}: its lock {lock} changes hands again and again; run again")
    finally:
        shutil.rmtree(mine, ignore_errors=True)
    # What those left who were killed while they tried. Who tries just now sees that the lock is held.
    for left in folder.glob(f"{_LOCK}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    return path


def _moved(mine: Path, path: Path, me: Owner) -> bool:
    """Renames a new folder with one's file to the lock; False where somebody holds it."""
    try:
        # Made anew each time: whoever took the lock meanwhile clears such folders away.
        mine.mkdir(exist_ok=True)
        _write(mine / path.name, me, "w")
        mine.rename(path.parent)
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise StorageError(
            f"{path.parent}: expected a folder or nothing, found a file: old releases locked with one. "
            "Remove it when nobody works there with such a release, then run again"
        ) from error
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True


def _write(path: Path, me: Owner, mode: str) -> None:
    """Says who holds, in one write of always the same length: a kill leaves the former owner or this one."""
    with path.open(mode, encoding="utf-8") as file:
        file.write(json.dumps(asdict(me)).ljust(_LENGTH))


def _taken_over(theirs: Path, ours: Path, me: Owner) -> bool:
    """Renames a dead holder's file; False where another was first."""
    try:
        # First a sign of life and our name: a rename keeps both, and who is killed half-way must show as dead.
        os.utime(theirs)
        _write(theirs, me, "r+")
        theirs.rename(ours)
        # Another who tried at the same time may have written last.
        _write(ours, me, "r+")
    except FileNotFoundError:
        return False
    return True


def _release(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError as error:
        # Another took the empty folder at once, or removed it.
        if error.errno not in (*_REFUSED, errno.ENOENT):
            raise


def _beat(path: Path, done: threading.Event, beat_s: float) -> None:
    while not done.wait(beat_s):
        try:
            os.utime(path)
        except FileNotFoundError:
            return  # taken over; `Holding.check` says so
        except OSError:
            continue  # a file system's hiccup: the next beat makes up for it


def _holder_file(lock: Path) -> Path | None:
    try:
        return next(iter(sorted(lock.glob("*.json"))), None)
    except FileNotFoundError:
        return None


def _read(path: Path) -> Owner | None:
    """Who holds, or is just taking over; None where that cannot be read."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _silent_s(theirs: Path, mine: Path) -> float:
    """Seconds by which a holder's last sign is older than one made now; 0 where it just ended."""
    try:
        os.utime(mine)
        return mine.stat().st_mtime - theirs.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _held(lock: Path, what: str, owner: Owner | None, silent_s: float, stale_s: float) -> str:
    who = str(owner) if owner else "somebody who is just taking it"
    return (
        f"{what} is held by {who}; last sign of life {max(0.0, silent_s):.0f} s ago. Wait for its end, or end it; a "
        f"holder without a sign for {stale_s:.0f} s counts as dead. The lock is {lock}"
    )


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> int | None:
    """Clock ticks from boot to the process's start; None where there is no such process, or only its zombie."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22 of proc(5); the state is field 3.
    return None if state in "ZX" else int(rest[18])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
