"""SLURM's commands: submits jobs, and reads their states from the queue."""

import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import ClusterError, ConfigError, LandcoverError

_ANSWER_S = 60.0
"""A busy controller answers in seconds. Without a controller a client waits for minutes, or for ever."""
_STATE_S = 10.0
"""The same where the answer is not essential."""
_MARK = "landcover"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_ENDED = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "REVOKED"),
)


_CONNECTION = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_JWKS")
"""Where SLURM is, and who asks. All other variables are options of its commands, or describe a job."""
_INPUTS = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SINFO_", "SACCT_")
_OF_THE_JOB = ("SLURM_JOB_", "SLURM_TMPDIR", "SLURM_RESTART_COUNT", "SLURM_SUBMIT_", "SLURM_CLUSTER_NAME")


def slurm_environment(*, inside_job: bool = False) -> dict[str, str]:
    """This process's environment without the variables that change what SLURM's commands do.

    A job inherits those of the shell that submitted it: `SBATCH_EXPORT=NONE` takes its PATH away, and the memory of an
    outer `salloc` contradicts its own.

    Args:
        inside_job: keep what names the job around this process, for `srun`.
    """
    kept = _OF_THE_JOB if inside_job else ()
    return {k: v for k, v in os.environ.items() if k in _CONNECTION or k.startswith(kept) or not k.startswith(_INPUTS)}


def run_slurm(*command: str, error: type[LandcoverError], timeout_s: float = _ANSWER_S) -> str:
    """Runs one of SLURM's commands in `slurm_environment` and returns its output.

    Args:
        command: its name and arguments.
        error: the error to raise: `ConfigError` where the user must fix it, `ClusterError` where another run helps.
        timeout_s: seconds to wait for the end of the command.

    Raises:
        LandcoverError: the given error: SLURM is not installed, does not answer, or refuses in its own words.
    """
    try:
        done = subprocess.run(  # noqa: S603  (SLURM's own commands)
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=slurm_environment(),
            errors="replace",
        )
    except subprocess.TimeoutExpired as late:
        raise error(f"{command[0]} did not answer within {timeout_s:g} s; is slurmctld running?") from late
    except OSError as absent:
        raise error(
            f"SLURM is not installed here: there is no command {command[0]}; use a login node of the cluster ({absent})"
        ) from absent
    if done.returncode:
        refusal = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise error(f"SLURM refuses `{shlex.join(command)}`: {refusal}")
    return done.stdout


def submit(script: Path, options: Sequence[str] = ()) -> str:
    """Submits a job script from its own folder; returns the job's number.

    Raises:
        ConfigError: SLURM is not installed, or refuses the script.
    """
    where = f"--chdir={script.parent}"
    printed = run_slurm("sbatch", "--parsable", "--export=ALL", where, *options, str(script), error=ConfigError)
    job = printed.strip().partition(";")[0]
    if not job.isdecimal():
        raise ConfigError(f"sbatch printed no job number: {printed[:200]!r}; see `squeue --me` for what was submitted")
    return job


def check_script(script: Path) -> None:
    """Lets SLURM check a job script without submitting it.

    Raises:
        ConfigError: SLURM is not installed, or refuses the script in its own words.
    """
    run_slurm("sbatch", "--test-only", "--export=ALL", f"--chdir={script.parent}", str(script), error=ConfigError)


@dataclass(frozen=True)
class QueuedJob:
    """A pending or running job that maps a domain."""

    job: str
    """`1234_0` for an element of an array, `1234` for a single job."""
    domain: Domain
    state: str
    """SLURM's word: PENDING, RUNNING."""
    reason: str
    """Why it waits, or the nodes that it runs on, in SLURM's words."""

    @property
    def meaning(self) -> str:
        """Why it waits, in plain words; empty where it does not wait, or the reason is another one."""
        return WHY_PENDING.get(self.reason.partition(",")[0], "") if self.state == "PENDING" else ""


WHY_PENDING = {
    "Resources": "it waits for free nodes and is next",
    "Priority": "jobs of higher priority come first",
    "Dependency": "it waits for another job",
    "BeginTime": "it starts at a later time, as a requeued job does",
    "JobHeldUser": "you hold it; `scontrol release` frees it",
    "JobHeldAdmin": "the site holds it; ask its support",
    "JobArrayTaskLimit": "as many domains are being mapped as the cluster file's throttle allows",
    "PartitionConfig": "its partition never allows such a job; cancel it",
    "PartitionTimeLimit": "its time exceeds the partition's limit; cancel it",
    "BadConstraints": "no node can ever meet its request; cancel it",
    "ReqNodeNotAvail": "the nodes that it needs are down or reserved",
    "AssocGrpCPUMinutesLimit": "the project's hours are used up",
    "AssocGrpBillingMinutes": "the project's hours are used up",
    "QOSMaxJobsPerUserLimit": "the QoS allows no more of your jobs at once",
}
"""SLURM's word for why a job waits → what it means."""


def job_comment(products: Path, domains: Sequence[str]) -> str:
    """The comment of a job by which `queued_jobs` finds it: element i of the array maps domain i."""
    return " ".join((_MARK, str(products), *domains))


def queued_jobs(products: Path) -> tuple[QueuedJob, ...]:
    """The user's pending and running jobs that map domains into a folder of domain products.

    Raises:
        ConfigError: SLURM is not installed, or does not answer.
    """
    mine = f"--user={os.getuid()}"
    printed = run_slurm("squeue", "--noheader", "--array", mine, "--format=%i|%K|%T|%R|%k", error=ConfigError)
    found = []
    for line in printed.splitlines():
        job, element, state, reason, text = line.split("|", 4)
        mark, _, rest = text.partition(f" {products} ")
        domains = rest.split()
        index = int(element) if element.isdecimal() else 0
        if mark == _MARK and index < len(domains):
            found.append(QueuedJob(job, Domain(domains[index]), state, reason.strip("()")))
    return tuple(found)


def queued_job_ids() -> frozenset[str]:
    """Numbers of the user's pending and running jobs.

    Raises:
        ClusterError: SLURM is not installed, or does not answer.
    """
    printed = run_slurm("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A", error=ClusterError)
    return frozenset(printed.split())


@dataclass(frozen=True)
class JobState:
    """The state of a job of any user."""

    id: str
    """Unique also within an array."""
    shown: str
    """As people write it: `123_4` for element 4 of array 123."""
    state: str
    """RUNNING, PENDING, …"""
    reason: str
    """Why it waits; `None` where it does not."""

    @property
    def is_running(self) -> bool:
        """False where it waits for its (next) start, or has ended."""
        return self.state not in (*_WAITING, *_ENDED)


def job_states(ids: Iterable[str]) -> dict[str, JobState] | None:
    """The states of jobs that are still in the queue.

    Args:
        ids: numbers of jobs.

    Returns:
        Each job twice: by its id, and by the way it is shown. None where SLURM is not installed or does not answer.
    """
    wanted = ",".join(sorted({i for i in ids if i}))
    if not wanted:
        return {}
    command = ("squeue", "--noheader", "--states=all", f"--jobs={wanted}", "--format=%A|%i|%T|%r")
    try:
        printed = run_slurm(*command, error=ClusterError, timeout_s=_STATE_S)
    except ClusterError as error:
        # For a single job that it has forgotten, squeue fails with this message.
        return {} if "Invalid job id" in str(error) else None
    jobs = [JobState(*line.split("|", 3)) for line in printed.splitlines() if line.count("|") >= 3]
    return {name: job for job in jobs for name in (job.id, job.shown)}


def is_job_running(job: str) -> bool | None:
    """Whether a job is running: False where SLURM says that it waits or has ended, None where it says nothing.

    A job that SLURM does not name proves nothing: it may belong to another controller that sees the same disk.
    """
    state = (job_states([job]) or {}).get(job)
    return state.is_running if state else None
