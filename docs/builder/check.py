"""Rules beyond Zensical's own: every page is in the navigation, and no page loads from another host."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docs.builder.errors import DocsError

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src", "object": "data"}
_LOADING_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "manifest",
    "prefetch",
    "preconnect",
    "dns-prefetch",
}
_STYLE_LOADS = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)")


def check_navigation(nav: list[Any], pages: Path) -> None:
    """Every page is in the navigation, once.

    Args:
        nav: the navigation of `mkdocs.yml`.
        pages: the folder of the site's Markdown.

    Raises:
        DocsError: pages that the navigation lacks, or that it names and that do not exist.
    """
    listed = sorted(_files(nav))
    there = sorted(p.relative_to(pages).as_posix() for p in pages.rglob("*.md"))
    if listed != there:
        lacking, unknown = sorted(set(there) - set(listed)), sorted(set(listed) - set(there))
        raise DocsError(f"mkdocs.yml: nav lacks {lacking}; it names pages that do not exist: {unknown}")


def check_own_resources(site: Path) -> None:
    """No page and no style sheet loads anything from another host.

    Raises:
        DocsError: names the files and the addresses.
    """
    found = [
        f"{p.relative_to(site)}: {a}" for p in sorted(site.rglob("*.html")) for a in _foreign(p.read_text("utf-8"))
    ]
    for path in sorted(site.rglob("*.css")):
        found += [f"{path.relative_to(site)}: {a}" for a in _STYLE_LOADS.findall(path.read_text("utf-8"))]
    if found:
        raise DocsError("the site loads from other hosts:\n  " + "\n  ".join(found))


def _files(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _files(part)


def _foreign(page: str) -> list[str]:
    parser = _Resources()
    parser.feed(page)
    return [a for a in parser.found if re.match(r"(https?:)?//", a)] + _STYLE_LOADS.findall(page)


class _Resources(HTMLParser):
    """Collects the addresses that a browser loads without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in _LOADS:
            self.found.append(given.get(_LOADS[tag], ""))
        if tag == "link" and _LOADING_LINKS & set(given.get("rel", "").split()):
            self.found.append(given.get("href", ""))
