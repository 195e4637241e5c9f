"""Waiting for what happens, however slow the machine is: only what never happens ends a test."""

import os
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

LONGEST_S = 1800.0
"""Seconds after which a test stops waiting. No test takes nearly as long, even beside sixteen busy processes."""


def wait_until(
    done: Callable[[], object], otherwise: Callable[[], object] = lambda: "", *, longest_s: float = LONGEST_S
) -> None:
    """Looks again and again until `done()` is true.

    Args:
        done: asked some ten times a second.
        otherwise: gives what a failure shows, such as a log.
        longest_s: seconds after which the test fails.
    """
    end = time.monotonic() + longest_s
    while not done():
        assert time.monotonic() < end, f"still not so after {longest_s:.0f} s\n{otherwise()}"
        time.sleep(0.05)


def count_files(folder: Path, pattern: str) -> int:
    """Number of files below a folder whose names match, while another process makes and removes files and folders.

    `Path.rglob` fails when a folder vanishes meanwhile.
    """
    return sum(fnmatch(name, pattern) for _, _, names in os.walk(folder) for name in names)
