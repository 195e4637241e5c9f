"""A lock on a folder that at most one process owns at a time, on any shared file system.

Guarantee: two processes never both own the lock of a folder. A lock whose owner has died is taken over, and the former
owner notices it (`FolderLock.check`). Only renames, unlinks and file times are used: Lustre and NFS may lack `flock`.

While `<folder>` is locked, `<folder>/.lock/` contains exactly one file, `<token>.json`. The token is random, and the
file describes the owner. Each change is one rename or unlink that names the file it expects:

- Take: a folder that contains the new owner's file is renamed to `.lock`. This succeeds only where `.lock` is missing
  or empty.
- Take over a stale lock: *the dead owner's file* is renamed to the new token. Of two processes that try, the second
  does not find the file. A process that took the lock meanwhile has another token, so its file is not touched.
- Release: the owner's file is unlinked.

The owner touches its file every `HEARTBEAT_S` seconds. A process that wants the lock touches a file of its own beside
it and compares the two times. Both come from the file system, so the clocks of the machines do not matter.

Others may write to a shared folder. No symbolic or further hard link is followed or written through, so only files of
locks are ever changed.
"""

import errno
import getpass
import json
import os
import re
import secrets
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import LockError, StorageError
from pipeline.untrusted.documents import DocumentError, parse_model
from pipeline.untrusted.own_files import open_plain, own_entries

HEARTBEAT_S = 10.0
"""Seconds between two heartbeats."""
STALE_S = 120.0
"""Seconds without a heartbeat after which a lock is stale: more than the clocks of one cluster differ."""

_LOCK = ".lock"
_OWNER_FILE = r"[0-9a-f]+\.json"
_TRIES = 10
_LENGTH = 1024
_REFUSED = (errno.ENOTEMPTY, errno.EEXIST)

JobRuns = Callable[[str], bool | None]
"""Whether the SLURM job of this id is running; None where this cannot be found out."""


@dataclass(frozen=True)
class Owner:
    """The process that owns a lock."""

    token: str
    """Random; names the owner's file."""
    host: str
    machine: str
    """Boot id and process namespace. Where it is this machine's, the process can be looked up. Host names repeat."""
    pid: Annotated[int, Field(ge=0, le=1 << 32)]
    started: int
    """Start of the process in clock ticks since boot, because a pid is used again."""
    user: str
    job: Annotated[str, Field(pattern=r"^\w*$")]
    """SLURM job id; empty outside a job."""
    restarts: int
    """How often the job was requeued."""
    since: str
    """When the lock was taken, UTC."""

    @classmethod
    def this_process(cls) -> "Owner":
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_machine_id(),
            pid=pid,
            started=_process_start(pid) or 0,
            user=_user(),
            job=os.environ.get("SLURM_JOB_ID", ""),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            since=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} of {self.user} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True)
class FolderLock:
    """A lock that this run owns. It can be pickled, so that workers can check it too."""

    path: Path
    """The owner's file."""
    what: str
    """What is locked, for messages: `domain D034_2021`."""

    def check(self) -> None:
        """Makes sure that the lock is still owned.

        Raises:
            LockError: it was taken over or removed, so another process may be writing.
        """
        if not self.path.exists():
            raise LockError(
                f"{self.what}: this run lost its lock {self.path}: another run took it over as stale, or somebody "
                "deleted it. This run writes nothing more; `landcover status` shows the present owner"
            )


def lock_owner(folder: Path) -> Owner | None:
    """The owner that a folder's lock names, alive or dead; None where there is no lock, or it is just being taken."""
    found = _owner_file(folder / _LOCK)
    return _read_owner(found) if found else None


def has_lock(folder: Path) -> bool:
    """Whether the folder contains a lock, stale or not."""
    return (folder / _LOCK).is_dir()


def why_stale(owner: Owner, *, job_runs: JobRuns = lambda _: None) -> str | None:
    """Why an owner must be dead, without looking at its heartbeat; None where it may be alive."""
    if owner.machine == _machine_id():
        return None if _process_start(owner.pid) == owner.started else f"process {owner.pid} has ended"
    if not owner.job:
        return None
    if owner.job == os.environ.get("SLURM_JOB_ID") and owner.restarts < int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return f"it was an earlier start of SLURM job {owner.job}"
    # Sites may hide the jobs of other users: a job of theirs that SLURM does not show may be running.
    gone = owner.user == _user() and job_runs(owner.job) is False
    return f"SLURM job {owner.job} no longer runs" if gone else None


@contextmanager
def lock_folder(
    folder: Path,
    *,
    what: str,
    job_runs: JobRuns = lambda _: None,
    heartbeat_s: float = HEARTBEAT_S,
    stale_s: float = STALE_S,
) -> Iterator[FolderLock]:
    """Locks a folder until the block ends. A stale lock is taken over.

    A lock is stale when its owner's process has ended (on this machine), when the owner was an earlier start of the
    same SLURM job, when the owner was a job of this user that no longer runs, or without a heartbeat for `stale_s`.

    Args:
        folder: made where it is missing.
        what: what is locked, for messages: `domain D034_2021`.
        job_runs: queries the batch system, such as `cluster.slurm.queue.is_job_running`.
        heartbeat_s: seconds between two heartbeats.
        stale_s: seconds without a heartbeat after which a lock is stale.

    Raises:
        LockError: another process owns the lock. The message names the owner.
        StorageError: the folder cannot be written, or contains the lock file of an old release.
    """
    me = Owner.this_process()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _take(folder, me, what=what, job_runs=job_runs, stale_s=stale_s)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}; change the campaign's output or the folder's "
            "permissions"
        ) from error
    done = threading.Event()
    heartbeat = threading.Thread(target=_beat, args=(path, done, heartbeat_s), name="landcover-lock", daemon=True)
    heartbeat.start()
    try:
        yield FolderLock(path, what)
    finally:
        done.set()
        heartbeat.join()
        _release(path)


def _take(folder: Path, me: Owner, *, what: str, job_runs: JobRuns, stale_s: float) -> Path:
    """Takes the lock, or takes it over; returns this process's file in it."""
    lock, mine = folder / _LOCK, folder / f"{_LOCK}.{me.token}.tmp"
    path = lock / f"{me.token}.json"
    try:
        for _ in range(_TRIES):
            if _create(mine, path, me):
                break
            found = _owner_file(lock)
            if found is None:
                continue
            _check_plain(found)
            owner, silent_s = _read_owner(found), _heartbeat_age_s(found, mine / path.name)
            dead = owner is not None and why_stale(owner, job_runs=job_runs) is not None
            if not dead and silent_s <= stale_s:
                raise LockError(_locked_message(lock, what, owner, silent_s, stale_s))
            if _take_over(found, path, me):
                break
        else:
            raise LockError(f"{what}: the owner of its lock {lock} changed {_TRIES} times meanwhile; run again")
    finally:
        shutil.rmtree(mine, ignore_errors=True)
    # Left by processes that were killed while they tried. One that tries just now finds the lock owned.
    for left in own_entries(folder, pattern=rf"{re.escape(_LOCK)}\.[0-9a-f]+\.tmp", kind="folder"):
        shutil.rmtree(left, ignore_errors=True)
    return path


def _create(mine: Path, path: Path, me: Owner) -> bool:
    """Renames a new folder with this process's file to the lock; False where the lock is owned."""
    try:
        # Made again in each try: a process that took the lock meanwhile removes such folders.
        mine.mkdir(exist_ok=True)
        _write(mine / path.name, me, "w")
        mine.rename(path.parent)
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise StorageError(
            f"{path.parent}: expected a folder or nothing, found a file, which old releases used as their lock, or a "
            "link. Delete it when no such release works there any more, then run again"
        ) from error
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True


def _write(path: Path, me: Owner, mode: str) -> None:
    """Writes the owner in a single write of constant length: a kill leaves the former owner or this one."""
    handle = open_plain(path, os.O_WRONLY | (os.O_CREAT if mode == "w" else 0))
    try:
        os.write(handle, json.dumps(asdict(me)).ljust(_LENGTH).encode())
    finally:
        os.close(handle)


def _check_plain(path: Path) -> None:
    """Raises StorageError where the only file of a lock cannot have been written by its owner."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    if not re.fullmatch(_OWNER_FILE, path.name) or not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        raise StorageError(
            f"{path}: expected a lock's file, a regular one named <token>.json, found something else. Delete it when "
            "no run works there, then run again"
        )


def _take_over(theirs: Path, ours: Path, me: Owner) -> bool:
    """Renames a dead owner's file; False where another process was first."""
    try:
        # First our heartbeat and owner, because the rename keeps both: killed half-way, this process must show as dead.
        os.utime(theirs, follow_symlinks=False)
        _write(theirs, me, "r+")
        theirs.rename(ours)
        # Another process that tried at the same time may have written last.
        _write(ours, me, "r+")
    except FileNotFoundError:
        return False
    return True


def _release(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError as error:
        # Another process took or removed the empty folder at once.
        if error.errno not in (*_REFUSED, errno.ENOENT):
            raise


def _beat(path: Path, done: threading.Event, heartbeat_s: float) -> None:
    while not done.wait(heartbeat_s):
        try:
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            return  # taken over; `FolderLock.check` reports it
        except OSError:
            continue  # a momentary failure of the file system; the next heartbeat follows


def _owner_file(lock: Path) -> Path | None:
    try:
        return next(iter(sorted(lock.glob("*.json"))), None)
    except FileNotFoundError:
        return None


def _read_owner(path: Path) -> Owner | None:
    """The owner in a file; None where it cannot be read, because it is just being written or was released."""
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            return parse_model(Owner, file.read(4 * _LENGTH))
    except (OSError, StorageError, DocumentError):
        return None


def _heartbeat_age_s(theirs: Path, mine: Path) -> float:
    """Seconds since the owner's last heartbeat by the file system's clock; 0 where the lock was just released."""
    try:
        os.utime(mine)
        return mine.stat().st_mtime - theirs.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _locked_message(lock: Path, what: str, owner: Owner | None, silent_s: float, stale_s: float) -> str:
    who = str(owner) if owner else "a process that is just taking the lock"
    return (
        f"{what} is locked by {who}; last heartbeat {max(0.0, silent_s):.0f} s ago. Wait until it ends, or stop it: "
        f"without a heartbeat for {stale_s:.0f} s the lock {lock} is stale, and the next run takes it over"
    )


def _machine_id() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _process_start(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None where there is no such process, or only its zombie."""
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
