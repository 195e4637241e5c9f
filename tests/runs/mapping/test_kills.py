"""Twenty kills at random moments. `make torture KILLS=200` does more, and kills worker processes too."""

import subprocess
import sys

import pytest

from tests.support.waiting import LONGEST_S

KILLS = 20


@pytest.mark.slow
@pytest.mark.many_processes
def test_a_campaign_killed_twenty_times_ends_with_the_same_bytes(seed: int) -> None:
    # In a process of its own, which has no threads yet when it forks.
    command = [sys.executable, "-m", "tests.runs.mapping.torture", str(KILLS), str(seed), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} of {KILLS} kills" in done.stdout
