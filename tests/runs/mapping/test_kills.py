"""Twenty kills at random moments. `make torture KILLS=200` does more, and kills worker processes too."""

import random
import subprocess
import sys

import pytest

KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_campaign_killed_twenty_times_ends_with_the_same_bytes() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    # In a process of its own, which has no threads yet when it forks.
    command = [sys.executable, "-m", "tests.runs.mapping.torture", str(KILLS), str(seed), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} of {KILLS} kills" in done.stdout
