"""The output of `landcover status`: a table, a table that updates itself, or JSON."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.options import console

if TYPE_CHECKING:
    from pipeline.runs.tracking.status import DomainStatus

_EVERY_S = 5.0


def show_table(states: Sequence["DomainStatus"]) -> None:
    """Prints the table, and a line for each failed tile."""
    console.print(_table(states))


def show_json(states: Sequence["DomainStatus"]) -> None:
    """Prints a JSON list of domains."""
    console.print_json(json.dumps([state.as_json() for state in states]))


def watch_table(read: Callable[[], Sequence["DomainStatus"]]) -> None:
    """Updates the table every few seconds until no run is at work on any domain."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            states = read()
            live.update(_table(states), refresh=True)
            if all(state.done for state in states):
                return
            time.sleep(_EVERY_S)


def _table(states: Sequence["DomainStatus"]) -> Group:
    counts = ("sealed", "in flight", "failed", "suspect", "damaged", "missing")
    # Logs and pipes have 80 columns: headings may wrap there, but the name of a domain must not be cut.
    columns = (Column("domain", no_wrap=True), *counts, "Mpx/s", "time", "left")
    table = Table(*columns, box=None, pad_edge=False, collapse_padding=True)
    lines = []
    for s in states:
        groups = (s.sealed, s.in_flight, s.failed, s.suspect, s.damaged, s.missing)
        table.add_row(s.domain, *(str(len(group)) for group in groups), *_speed(s))
        if s.owner:
            lines.append(f"{s.domain} is locked by {s.owner}" + ("" if s.queued else _job(s)))
        if s.queued:
            lines.append(f"{s.domain}: SLURM job {s.queued.job} is {s.queued.state}: {s.queued.reason}")
        if s.speed and s.speed.predicted_s:
            lines.append(f"{s.domain}: {_clock(s.speed.seconds)} of {_clock(s.speed.predicted_s)} predicted")
        lines += [f"{s.domain} {tile} failed: {cause}" for tile, cause in s.failed]
        lines += [f"{s.domain} {tile} is suspect: {cause}" for tile, cause in s.suspect]
    return Group(table, *(Text(line) for line in lines))


def _speed(state: "DomainStatus") -> tuple[str, str, str]:
    """Mpx/s, time taken and time left."""
    speed = state.speed
    if speed is None:
        return ("", "", "")
    left = _clock(speed.left_s) if state.owner and speed.left_s is not None else ""
    return (f"{speed.mpx_per_s:.2f}", _clock(speed.seconds), left)


def _job(state: "DomainStatus") -> str:
    if state.job is None:
        return ""
    reason = f", {state.job.reason}" if state.job.reason not in ("", "None") else ""
    return f": {state.job.state}{reason}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
