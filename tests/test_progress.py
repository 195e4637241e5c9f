"""A progress line shows how far work is, and short work shows nothing."""

import io

import pytest
from rich.console import Console

from pipeline.progress import progress


@pytest.mark.parametrize(("after_s", "shown"), [(0.0, True), (3600.0, False)])
def test_a_line_comes_with_what_is_told_after_its_time(after_s: float, shown: bool) -> None:
    written = io.StringIO()
    with progress("tiles", console=Console(file=written, force_terminal=True, width=100), after_s=after_s) as told:
        told(3, 7)
    assert ("tiles" in written.getvalue() and "3/7" in written.getvalue()) == shown
    assert shown or written.getvalue() == ""
