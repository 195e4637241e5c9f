"""SLURM's queue: submit a script, requeue, and what the queue says of jobs."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import ClusterError, ConfigError, LandcoverError

_ANSWER_S = 60.0
"""A busy controller answers in seconds; without one a client waits for minutes, or for ever."""
_LOOK_S = 10.0
"""The same where the answer would only be good to have."""
_MARK = "landcover"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE")
_ENDED_TOO = ("OUT_OF_MEMORY", "REVOKED")


def ask(*command: str, error: type[LandcoverError], timeout_s: float = _ANSWER_S) -> str:
    """What one of SLURM's commands prints.

    Args:
        command: its name and arguments.
        error: what is raised: `ConfigError` where the user mends it, `ClusterError` where the run is run again.
        timeout_s: seconds in which it has to answer.

    Raises:
        LandcoverError: the given one: SLURM is not here, does not answer, or refuses in its own words.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)  # noqa: S603  (SLURM's own commands)
    except subprocess.TimeoutExpired as late:
        raise error(f"{command[0]} gave no answer within {timeout_s:g} s: is slurmctld there?") from late
    except OSError as absent:
        raise error(f"no {command[0]} here: SLURM's commands are on the cluster's login nodes ({absent})") from absent
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise error(f"SLURM refuses `{' '.join(command)}`: {said}")
    return done.stdout


def submit(script: Path, options: Sequence[str] = ()) -> str:
    """Submits a job script from its own folder; returns the job's number.

    Raises:
        ConfigError: SLURM is not here or refuses it; the message is SLURM's own.
    """
    printed = ask("sbatch", "--parsable", f"--chdir={script.parent}", *options, str(script), error=ConfigError)
    return printed.strip().partition(";")[0]


def requeue(job: str) -> None:
    """Puts a running job back into the queue; whatever runs in it is ended.

    Raises:
        ConfigError: SLURM is not here or refuses it.
    """
    ask("scontrol", "requeue", job, error=ConfigError)


def cancel(job: str) -> None:
    """Takes a job, or all elements of an array, out of the queue.

    Raises:
        ConfigError: as `requeue`.
    """
    ask("scancel", job, error=ConfigError)


@dataclass(frozen=True)
class Queued:
    """A domain's job, pending or running."""

    job: str
    """`1234_0`: the element of an array; `1234` for one alone."""
    domain: Domain
    state: str
    """SLURM's word: PENDING, RUNNING."""
    reason: str
    """Why it waits, or the nodes that it runs on, in SLURM's words."""


def comment(products: Path, domains: Sequence[str]) -> str:
    """What a job's comment says so that `queued` finds it: element i of the array maps domain i."""
    return " ".join((_MARK, str(products), *domains))


def queued(products: Path) -> tuple[Queued, ...]:
    """The user's pending and running jobs that map into a folder of domain products.

    Raises:
        ConfigError: SLURM is not here or does not answer.
    """
    mine = f"--user={os.getuid()}"
    printed = ask("squeue", "--noheader", "--array", mine, "--format=%i|%K|%T|%R|%k", error=ConfigError)
    found = []
    for line in printed.splitlines():
        job, element, state, reason, text = line.split("|", 4)
        mark, _, rest = text.partition(f" {products} ")
        domains = rest.split()
        index = int(element) if element.isdecimal() else 0
        if mark == _MARK and index < len(domains):
            found.append(Queued(job, Domain(domains[index]), state, reason.strip("()")))
    return tuple(found)


def in_queue() -> frozenset[str]:
    """Numbers of the user's jobs, waiting or running.

    Raises:
        ClusterError: SLURM is not here or does not answer.
    """
    printed = ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A", error=ClusterError)
    return frozenset(printed.split())


@dataclass(frozen=True)
class Job:
    """A job of anybody's, as the queue has it."""

    id: str
    """Unique also within an array."""
    shown: str
    """As people write it: `123_4` for element 4 of array 123."""
    state: str
    """RUNNING, PENDING, …"""
    reason: str
    """Why it waits; `None` where it does not."""

    @property
    def runs(self) -> bool:
        """False where it waits for its (next) start, or has ended."""
        return self.state not in (*_WAITING, *_ENDED, *_ENDED_TOO)


def look_up(ids: Iterable[str]) -> dict[str, Job] | None:
    """The jobs of these ids that the queue still has, by id and by the way they are shown.

    Returns:
        None where there is no SLURM, or it does not answer: nothing is known.
    """
    wanted = ",".join(sorted({i for i in ids if i}))
    if not wanted:
        return {}
    command = ("squeue", "--noheader", "--states=all", f"--jobs={wanted}", "--format=%A|%i|%T|%r")
    try:
        printed = ask(*command, error=ClusterError, timeout_s=_LOOK_S)
    except ClusterError as error:
        # Of a single job that it has forgotten, squeue says so as an error.
        return {} if "Invalid job id" in str(error) else None
    jobs = [Job(*line.split("|", 3)) for line in printed.splitlines() if line.count("|") >= 3]
    return {name: job for job in jobs for name in (job.id, job.shown)}


def job_runs(job: str) -> bool | None:
    """Whether a job is running: False where it waits or is gone, None where nobody knows."""
    jobs = look_up([job])
    if jobs is None:
        return None
    return job in jobs and jobs[job].runs
