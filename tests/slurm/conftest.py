"""One SLURM cluster for all tests that want one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.lab import Lab, slurm_lab, why_not


@pytest.fixture(scope="session")
def lab_of_the_session() -> Iterator[Lab]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, slurm_lab(Path(folder) / "slurm") as lab:
        yield lab


@pytest.fixture
def lab(lab_of_the_session: Lab) -> Iterator[Lab]:
    """The session's cluster, all nodes idle; what a test leaves running is cancelled."""
    yield lab_of_the_session
    lab_of_the_session.idle()
