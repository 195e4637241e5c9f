"""HTML pages without outside files: Jinja2 templates, one stylesheet, pictures inside the page.

`templates/base.html` is the frame of every page, `templates/parts.html` has what several pages need (tables, pictures,
classes with their colour), and each page has a template of its own. Python prepares values; templates lay them out.
`templates/model_card.md`, the card of a trained network, is the only one in Markdown.
"""

import base64
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.untrusted.escape import for_markdown


def render(template: str, **values: Any) -> str:
    """Fills a template of `pipeline/templates`.

    Args:
        template: its file name, such as `evaluation.html`.
        values: what it shows, in pages `title` among them. Every text is escaped, unless the template says `safe`.

    Returns:
        A whole page, which loads nothing from other files or servers.
    """
    return (_MARKDOWN if template.endswith(".md") else _HTML).get_template(template).render(values)


def notebook_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[object]], sentences: Iterable[str] = ()
) -> str:
    """HTML for `_repr_html_`: a table with all of its rows, whose first column is left-aligned, and sentences below."""
    return render("notebook.html", title=title, head=head, rows=rows, sentences=sentences)


def _count(number: float) -> str:
    return f"{number:,}"


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _as_markdown(value: object) -> object:
    return for_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_HTML = Environment(
    loader=PackageLoader("pipeline"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_MARKDOWN = _HTML.overlay(autoescape=False, finalize=_as_markdown)
_HTML.filters |= {"count": _count, "percent": _percent, "duration": _duration, "png_uri": _png_uri}
