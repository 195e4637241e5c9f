"""What a quality report says, read from its HTML."""

import re
from html import unescape


def limit_rows(page: str) -> dict[str, list[str]]:
    """Figure → found, limit and state, of a domain's table of limits."""
    return {row[0]: row[1:] for row in table_after(page, 'id="limits"')}


def table_after(page: str, place: str) -> list[list[str]]:
    """The rows of the first table after a text, as plain text."""
    body = page[page.index(place) :].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [
        [unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in rows
    ]


def titles(page: str, mark: str) -> list[str]:
    """The texts that a browser shows over marks such as `rect class="mark"`, in one chart or in all."""
    return [unescape(text) for text in re.findall(rf"<{mark}[^>]*><title>(.*?)</title>", page)]
