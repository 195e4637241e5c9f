"""What SLURM says of jobs, where there is a SLURM that answers."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

_TIMEOUT_S = 10.0
"""A client waits for minutes where the controller is gone."""
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE")
_ENDED_TOO = ("OUT_OF_MEMORY", "REVOKED")


@dataclass(frozen=True)
class Job:
    """A job as the queue has it."""

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


def squeue(ids: Iterable[str]) -> dict[str, Job] | None:
    """The jobs of these ids that the queue still has, by id and by the way they are shown.

    Returns:
        None where there is no SLURM, or it does not answer: nothing is known.
    """
    wanted = sorted({i for i in ids if i})
    program = shutil.which("squeue")
    if program is None:
        return None
    if not wanted:
        return {}
    command = [program, "--noheader", "--states=all", f"--jobs={','.join(wanted)}", "--format=%A|%i|%T|%r"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603  (its path is looked up, its arguments are ids)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode:
        # Of a single job that it has forgotten, squeue says so as an error.
        return {} if "Invalid job id" in asked.stderr else None
    jobs = [Job(*line.split("|", 3)) for line in asked.stdout.splitlines() if line.count("|") >= 3]
    return {name: job for job in jobs for name in (job.id, job.shown)}


def job_runs(job: str) -> bool | None:
    """Whether a job is running: False where it waits or is gone, None where nobody knows."""
    jobs = squeue([job])
    if jobs is None:
        return None
    return job in jobs and jobs[job].runs
