"""One seed for all tests that draw at random: in the report's header, beside a failure, and set by TEST_SEED."""

import os
import random

import pytest

VARIABLE = "TEST_SEED"


def pytest_configure() -> None:
    """Draws the seed in the first process; the processes of pytest-xdist inherit it."""
    os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(1 << 32)))


def pytest_report_header() -> str:
    return f"random tests draw from {VARIABLE}={os.environ[VARIABLE]}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this session; where the test fails, the report shows it."""
    given = os.environ[VARIABLE]
    request.node.add_report_section("setup", "seed", f"{VARIABLE}={given} repeats what was drawn")
    return int(given)
