"""Waiting for what happens, however slow the machine is: only what never happens ends a test."""

import time
from collections.abc import Callable

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
