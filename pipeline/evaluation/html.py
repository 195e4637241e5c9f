"""Parts of HTML pages that need no other file: style, tables, pictures inside the page, swatches of classes."""

import base64
import html
from collections.abc import Sequence

from pipeline import legend

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#1e1e1e}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}i{display:inline-block;width:.9em;height:.9em;margin-right:.4em;
border:1px solid #888;vertical-align:-.1em}img{max-width:100%;display:block;margin:1rem 0}small{color:#666}
td small{display:block}"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{c}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"


def image(name: str, png: bytes) -> str:
    """A picture inside the page; `name` is what is read out in its place."""
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def swatch(colour: str, name: str) -> str:
    """A coloured square before a name."""
    return f'<i style="background:{colour}"></i>{html.escape(name)}'


def class_name(value: int) -> str:
    """A class of the legend with its colour before it."""
    found = legend.BY_VALUE[value]
    return swatch(found.colour, found.name)
