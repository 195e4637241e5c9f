"""The commands' console, and how they print results."""

import logging
import math
import shlex
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.durable import write_json
from pipeline.progress import progress_bar as bar_on
from pipeline.untrusted.escape import for_terminal, for_terminal_lines

console = Console()
log = logging.getLogger("landcover")
progress_bar = partial(bar_on, console=console)
"""A progress bar on the commands' console."""


def say(message: object = "", *, style: str | None = None, on: Console = console) -> None:
    """Prints a message without wrapping, so that paths stay whole. Names from outside cannot move the cursor."""
    on.print(Text(for_terminal_lines(message)), style=style, highlight=False, soft_wrap=True)


def say_traceback(error: BaseException, *, on: Console = console) -> None:
    """Prints a traceback, in which texts from outside are escaped too."""
    for line in traceback.format_exception(error):
        say("\n  ".join(line.splitlines()), on=on)


def cell(content: object, style: str = "") -> Text:
    """A cell of a table: one line, and no markup."""
    return Text(for_terminal(content), style)


def print_json(content: Any) -> None:
    """Prints JSON in ASCII, so that no text of it is a control character."""
    console.print_json(data=content, ensure_ascii=True)


def count(number: int, noun: str) -> str:
    """`1 tile`, `2 tiles`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(path: Path | str) -> str:
    """The path, relative to the current folder if it lies inside."""
    full, here = Path(path), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)


def say_next(*words: object) -> None:
    """Prints the command to run next."""
    say(f"next: landcover {shlex.join(str(word) for word in words)}")


def save_json(file: Path | None, content: Any, what: str) -> None:
    """Writes the file that `--json` or `--out` names, if it was given, and says what was written."""
    if file:
        write_json(file, content)
        say(f"{what} written to {shown(file)}")


def percent(share: float, digits: int = 3) -> str:
    """A share in percent without its sign; a dash for NaN, a figure that does not exist."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}"


def number_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of names and numbers. It fits into 80 columns: headings wrap, names do not."""
    columns = [Column(heading, justify="right") for heading in headings[1:]]
    table = Table(Column(headings[0], no_wrap=True), *columns, box=None, pad_edge=False, collapse_padding=True)
    for row in rows:
        table.add_row(*map(cell, row))
    return table
