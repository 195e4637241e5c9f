"""SLURM's queue: submit a script, see what is queued, requeue."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError

_COMMAND_S = 60
"""Clients wait for ever when the controller is gone."""
_MARK = "landcover"


@dataclass(frozen=True)
class Queued:
    """A domain's job, pending or running."""

    job: str
    """`1234_0`: the element of an array; `1234` for one alone."""
    domain: str
    state: str
    """SLURM's word: PENDING, RUNNING."""
    reason: str
    """Why it waits, or the nodes that it runs on, in SLURM's words."""


def submit(script: Path, options: Sequence[str] = ()) -> str:
    """Submits a job script from its own folder; returns the job's number.

    Raises:
        ConfigError: SLURM is not here or refuses it; the message is SLURM's own.
    """
    printed = _ask("sbatch", "--parsable", f"--chdir={script.parent}", *options, str(script))
    return printed.strip().partition(";")[0]


def requeue(job: str) -> None:
    """Puts a running job back into the queue; whatever runs in it is ended.

    Raises:
        ConfigError: SLURM is not here or refuses it.
    """
    _ask("scontrol", "requeue", job)


def cancel(job: str) -> None:
    """Takes a job, or all elements of an array, out of the queue.

    Raises:
        ConfigError: as `requeue`.
    """
    _ask("scancel", job)


def comment(products: Path, domains: Sequence[str]) -> str:
    """What a job's comment says so that `queued` finds it: element i of the array maps domain i."""
    return " ".join((_MARK, str(products), *domains))


def queued(products: Path) -> tuple[Queued, ...]:
    """The user's pending and running jobs that map into a folder of domain products.

    Raises:
        ConfigError: SLURM is not here or does not answer.
    """
    printed = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%R|%k")
    found = []
    for line in printed.splitlines():
        job, element, state, reason, text = line.split("|", 4)
        mark, _, rest = text.partition(f" {products} ")
        domains = rest.split()
        index = int(element) if element.isdecimal() else 0
        if mark == _MARK and index < len(domains):
            found.append(Queued(job, domains[index], state, reason.strip("()")))
    return tuple(found)


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_S)  # noqa: S603  (SLURM's own commands)
    except FileNotFoundError as error:
        raise ConfigError(f"no {command[0]} here: SLURM's commands are on the cluster's login nodes") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{command[0]} gave no answer within {_COMMAND_S} s: is slurmctld there?") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ConfigError(f"SLURM refuses `{' '.join(command)}`: {said}")
    return done.stdout
