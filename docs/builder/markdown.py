"""Small pieces of Markdown."""

import re
from collections.abc import Iterable, Sequence
from textwrap import dedent

_OUTSIDE_CODE = re.compile(r"(`[^`]*`)|<")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        columns: headings, one for each column.
        rows: cells of Markdown; line breaks become spaces and bars are escaped.

    Returns:
        The table's lines, without an empty line around them.
    """
    lines = [list(columns), ["---"] * len(columns), *([cell(c) for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Markdown that fits into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """A value as inline code."""
    return f"`{value}`"


def prose(text: str | None) -> str:
    """A docstring or a help text as Markdown: without the source's indentation, and with `<` as a plain character."""
    first, _, rest = (text or "").strip().partition("\n")
    plain = f"{first}\n{dedent(rest)}".strip()
    return _OUTSIDE_CODE.sub(lambda found: found[0] if found[1] else "&lt;", plain)
