"""Runs in this folder have their workers in this process; a test whose idea is processes opens a cluster of its own."""

from collections.abc import Iterator

import pytest

from tests.support.campaigns import quick_clusters


@pytest.fixture(scope="module", autouse=True)
def _quick_clusters() -> Iterator[None]:
    with quick_clusters():
        yield
