"""One SLURM cluster for all tests that want one, and shellcheck."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.slurm.lab import Lab, slurm_lab, why_not


@pytest.fixture(scope="session")
def lab_of_the_session(request: pytest.FixtureRequest) -> Iterator[Lab]:
    reason = why_not()
    if reason:
        _skip(reason)
    # Only tests of `slurm_slow` crash nodes; for all others a node that does not answer is one on a busy machine.
    crashes = any(item.get_closest_marker("slurm_slow") for item in request.session.items)
    with (
        tempfile.TemporaryDirectory(prefix="lab-") as folder,
        slurm_lab(Path(folder) / "slurm", lost_s=10 if crashes else 3600) as lab,
    ):
        yield lab


@pytest.fixture(scope="session")
def shellcheck() -> Callable[[Path], None]:
    """Fails where a script is not as shellcheck wants it."""
    program = shutil.which("shellcheck")
    if program is None:
        _skip("no shellcheck here: apt-get install shellcheck")

    def check(script: Path) -> None:
        done = subprocess.run([str(program), script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    return check


def _skip(reason: str) -> NoReturn:
    """Continuous integration brings along what these tests want: there a skipped one is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def lab(lab_of_the_session: Lab) -> Iterator[Lab]:
    """The session's cluster, all nodes idle; what a test leaves running is cancelled."""
    yield lab_of_the_session
    lab_of_the_session.idle()
