"""Measures a `landcover` command with its imports: this module has none of ours, so that they count.

Call it in a new process. The memory that is reported is that of the command's own process.
"""

import os
import resource
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

_KIB = 1024
"""The unit of the kernel's tables."""


@dataclass(frozen=True)
class CommandCost:
    """The resources of a command, imports included."""

    wall_s: float
    core_s: float
    """Core-seconds of its process and of the workers that it started."""
    peak_bytes: int
    """Largest resident memory of its process, without workers."""


def command_cost(*words: str) -> CommandCost:
    """Runs the installed command as a shell would, and returns its cost; its output is dropped.

    Args:
        words: after `landcover`.

    Raises:
        SystemExit: the command failed.
    """
    (script,) = entry_points(group="console_scripts", name="landcover")
    shell, start, before = sys.argv, time.perf_counter(), _core_s()
    sys.argv = [script.name, *words]
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            script.load()()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = shell
    return CommandCost(time.perf_counter() - start, _core_s() - before, _peak_bytes())


def _core_s() -> float:
    """User and system time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_bytes() -> int:
    """Not `ru_maxrss`, which starts at the memory of the process that started this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * _KIB for line in lines if line.startswith("VmHWM:"))
