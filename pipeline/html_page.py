"""HTML pages without outside files: Jinja2 templates, one stylesheet, pictures inside the page, in two languages.

`templates/base.html` is the frame of every page, `templates/parts.html` has what several pages need (tables, pictures,
classes with their colour), `templates/charts.html` draws charts, and each page has a template of its own. Python
prepares values; templates lay them out. `templates/model_card.md`, the card of a trained network, is the only one in
Markdown.

Texts are written in English, in templates as `{% trans %}` or `_("…")`; `templates/fr.json` has their French. A text
without a translation is an error, and no page shows two languages.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.untrusted.escape import for_markdown

LANGUAGES = ("en", "fr")
_FRENCH_NUMBERS = str.maketrans({",": "\N{NARROW NO-BREAK SPACE}", ".": ","})


def render(template: str, *, language: str = "en", **values: Any) -> str:
    """Fills a template of `pipeline/templates`.

    Args:
        template: its file name, such as `evaluation.html`.
        language: of the page, `en` or `fr`; templates without translations are in English only.
        values: what it shows, in pages `title` among them. Every text is escaped, unless the template says `safe`.

    Returns:
        A whole page, which loads nothing from other files or servers.

    Raises:
        KeyError: a text of the page has no translation.
    """
    return (_MARKDOWN if template.endswith(".md") else _environment(language)).get_template(template).render(values)


def notebook_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[object]], sentences: Iterable[str] = ()
) -> str:
    """HTML for `_repr_html_`: a table with all of its rows, whose first column is left-aligned, and sentences below."""
    return render("notebook.html", title=title, head=head, rows=rows, sentences=sentences)


@dataclass(frozen=True)
class Wording:
    """Texts and numbers as a language writes them.

    Example:
        >>> Wording("fr")("no data"), Wording("en").percent(0.1234, 1)
        ('sans donnée', '12.3 %')
    """

    language: str = "en"

    def __call__(self, text: str, **values: Any) -> str:
        """A text, in which each `%(name)s` is replaced by a value.

        Raises:
            KeyError: it has no translation.
        """
        return self.plain(text) % values

    def plain(self, text: str) -> str:
        """A text as it is.

        Raises:
            KeyError: it has no translation.
        """
        return text if self.language == "en" else _french()[text]

    def plural(self, one: str, several: str, number: int) -> str:
        """The text for this number."""
        single = number == 1 if self.language == "en" else abs(number) < 2
        return self.plain(one if single else several)

    def decimal(self, number: float, digits: int = 2, sign: str = "") -> str:
        """`1,234.56`, in French `1 234,56`; with sign `+` also before positive numbers."""
        text = f"{number:{sign},.{digits}f}"
        return text if self.language == "en" else text.translate(_FRENCH_NUMBERS)

    def count(self, number: float) -> str:
        """`1,234`, in French `1 234`."""
        text = f"{number:,}"
        return text if self.language == "en" else text.translate(_FRENCH_NUMBERS)

    def percent(self, share: float | None, digits: int = 2) -> str:
        """`12.34 %` of 0.1234; a dash for None."""
        if share is None:
            return "–"
        return self.decimal(100 * share, digits) + (" %" if self.language == "en" else "\N{NO-BREAK SPACE}%")


@cache
def _french() -> Mapping[str, str]:
    text = resources.files("pipeline").joinpath("templates", "fr.json").read_text(encoding="utf-8")
    found: Mapping[str, str] = json.loads(text)
    return found


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def picture_uri(picture: bytes) -> str:
    """A PNG or JPEG as an address that contains it."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _as_markdown(value: object) -> object:
    return for_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment(language: str) -> Environment:
    made = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.policies["ext.i18n.trimmed"] = True
    wording = Wording(language)
    # Typed as any object, because the extension adds the method.
    install: Any = vars(made)["install_gettext_callables"]
    install(wording.plain, wording.plural, newstyle=True)
    made.globals["language"] = language
    made.filters |= {
        "count": wording.count,
        "decimal": wording.decimal,
        "percent": wording.percent,
        "duration": _duration,
        "picture_uri": picture_uri,
    }
    return made


_MARKDOWN = _environment("en").overlay(autoescape=False, finalize=_as_markdown)
