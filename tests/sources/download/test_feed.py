"""Both formats of a feed's page give the same, and what is no such page is refused."""

import json
from typing import Any

import pytest

from pipeline.errors import DownloadError
from pipeline.sources.download.feed import FeedEntry, FeedLink, FeedPage, parse_page
from tests.support.geoplateforme import as_xml

ENTRIES: list[dict[str, Any]] = [
    {"title": "a.7z.001 & b", "id": "https://host/download/P/E/a.7z.001", "content": "0" * 32,
     "link": [{"href": "https://host/?x=1&y=2"}, {"href": "https://host/download/P/E/a.7z.001", "length": 5}]},
    {"title": "a folder", "link": []},
]  # fmt: skip
PAGING = {"page": 1, "pagesize": 2, "pagecount": 3, "totalentries": 6}


def test_xml_and_json_give_the_same_page() -> None:
    expected = FeedPage(
        (
            FeedEntry(
                "a.7z.001 & b",
                "https://host/download/P/E/a.7z.001",
                "0" * 32,
                (FeedLink("https://host/?x=1&y=2", None), FeedLink("https://host/download/P/E/a.7z.001", 5)),
            ),
            FeedEntry("a folder", "", "", ()),
        ),
        3,
        6,
    )
    assert parse_page(as_xml(ENTRIES, PAGING), "url") == expected
    assert parse_page(json.dumps({**PAGING, "entry": ENTRIES}).encode(), "url") == expected
    as_text = {**PAGING, "totalentries": "6", "entry": ENTRIES}
    assert parse_page(json.dumps(as_text).encode(), "url") == expected


def test_a_page_may_lack_its_numbers() -> None:
    assert parse_page(as_xml([], {}), "url") == FeedPage((), None, None)
    assert parse_page(b'{"entry": []}', "url") == FeedPage((), None, None)


BOMB = '<!DOCTYPE feed [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><feed xmlns="http://www.w3.org/2005/Atom">&b;</feed>'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BOMB.encode(), "has a document type"),
        (BOMB.encode("utf-16"), "is not UTF-8"),
        (b'<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><f>&x;</f>', "has a document type"),
        (b"<html>Service unavailable</html>", "begins with the element 'html'"),
        (b"<feed>", "is not XML"),
        (b"", "is not XML"),
        (b'{"code": 404, "message": "not found"}', "entry: Field required"),
        (b'{"entry": [' + b"[" * 5000 + b"]" * 5000 + b"]}", "is not valid"),
        (json.dumps({"entry": [{"link": [{"length": "-5"}]}]}).encode(), "'-5' where a number is expected"),
        (as_xml(ENTRIES, {"totalentries": 10**20}), "where a number is expected"),
    ],
    ids=["bomb", "utf-16", "file", "page", "truncated", "empty", "error", "deep", "negative", "huge"],
)
def test_what_is_no_feed_is_refused_with_its_address(body: bytes, said: str) -> None:
    with pytest.raises(DownloadError, match=said) as caught:
        parse_page(body, "https://host/resource/P")
    assert str(caught.value).startswith("https://host/resource/P: ")
    assert len(str(caught.value)) < 400
