"""Searches of STAC APIs: pystac-client knows the protocol, and our HTTP client sends the requests.

Import it where it is used: pystac-client compiles grammars for seconds, which no worker and no plan needs.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from pystac import STACError, STACTypeError
from pystac.utils import str_to_datetime
from pystac_client import Client, ItemSearch
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import DoesNotConformTo

from pipeline.errors import CatalogError
from pipeline.sources.catalog.external_stac import ExternalItem, Query
from pipeline.sources.http_client import fetch
from pipeline.untrusted.documents import parse_json, parse_model
from pipeline.untrusted.limits import StacBudget


def search(source: str, query: Query, budget: StacBudget) -> Iterator[tuple[str, ExternalItem]]:
    """Yields (URL, item) of the items that an API's search returns, page by page.

    Args:
        source: URL of the API.
        query: which of its items.
        budget: counts what is read.

    Raises:
        CatalogError: an item comes on two pages, as in a search that never ends; an answer is not STAC; or a limit is
            exceeded.
        OSError: the server cannot be reached or refuses a request.
        ValueError, KeyError: an answer is not STAC.
    """
    returned: set[tuple[str | None, str]] = set()
    try:
        client = Client.open(source, stac_io=_ClientIO(budget))
        found = client.search(collections=list(query.collections) or None, bbox=query.bbox, datetime=query.datetime)
        for page in found.pages_as_dicts():
            for feature in page["features"]:
                item = parse_model(ExternalItem, json.dumps(feature))
                name = (item.collection, item.id)
                if name in returned:
                    raise CatalogError(f"{source}: loops: item {name[1]} of collection {name[0]} comes on two pages")
                returned.add(name)
                budget.count_item()
                yield _url_of(feature, source), item
    except (STACError, STACTypeError, APIError, ClientTypeError, DoesNotConformTo) as error:
        raise CatalogError(f"{source}: cannot be read as a STAC API: {error}") from error


def _url_of(feature: dict[str, Any], source: str) -> str:
    """Where an item lies, to which its hrefs are relative: its own link, or the API."""
    links = feature.get("links", ())
    return next((str(link["href"]) for link in links if link["rel"] == "self"), source)


def parse_interval(period: str | None) -> tuple[datetime | None, datetime | None]:
    """First and last moment of a day, a year such as `2021`, or `start/end`; None where it is open."""
    if not period:
        return None, None
    # pystac-client writes `2021` and the like out as an interval; nothing is requested from this address.
    text = ItemSearch("http://localhost", datetime=period).get_parameters()["datetime"]
    moments = [None if m in ("", "..") else str_to_datetime(m) for m in str(text).split("/")]
    return moments[0], moments[-1]


class _ClientIO(StacApiIO):
    """Lets pystac-client send its requests with our HTTP client."""

    def __init__(self, budget: StacBudget) -> None:
        super().__init__()
        self._budget = budget

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        method, body = (method or "GET").upper(), None
        sent = {"Accept-Encoding": "gzip", **(headers or {})}
        if method == "POST":
            body = json.dumps(parameters).encode()
            sent["Content-Type"] = "application/json"
        elif parameters:
            href += ("&" if "?" in href else "?") + urlencode(parameters, doseq=True)
        answer = fetch(href, method=method, headers=sent, body=body, source=self._budget.source).body
        self._budget.count_page(len(answer))
        parse_json(answer)  # the limits, before pystac-client reads it
        return answer.decode()
