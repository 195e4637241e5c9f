"""Functions that wait for files run in threads, with values in the order of the items."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.untrusted.in_threads import map_in_threads


@given(st.lists(st.integers(), max_size=2000))
def test_values_are_in_the_order_of_the_items(items: list[int]) -> None:
    assert map_in_threads(lambda item: -item, items) == [-item for item in items]


def test_few_items_wait_together() -> None:
    together = threading.Barrier(16, timeout=60)
    assert len(map_in_threads(lambda _: together.wait(), range(16))) == 16


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 // item, [1, 0])
