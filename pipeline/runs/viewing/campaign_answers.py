"""What the map page asks `landcover view` for beside the edition's files: what only the campaign's machine knows.

The page finds the addresses in `page.json`, to which `served` is added on the way. A folder on a web server has none.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pipeline.config import Campaign
from pipeline.products.map_page.page_files import CONTENT
from pipeline.products.map_page.server import Answer, Reply
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.grid import GridIndex
from pipeline.runs.viewing.imagery import GroundPictures
from pipeline.runs.viewing.vintages import DomainMaps
from pipeline.untrusted.documents import read_json

_FOLDER = "campaign"
"""First part of the paths that are answered here."""


def campaign_answers(campaign: Campaign, edition: Edition, page: str) -> dict[str, Answer]:
    """Path → what answers it.

    Args:
        campaign: whose national product is shown.
        edition: with a map page.
        page: path of the page on the server.
    """
    folder = PurePosixPath(page).parent
    up = "../" * len(folder.parts) + f"{_FOLDER}/"
    imagery = GroundPictures(campaign, edition)
    maps = DomainMaps(campaign, edition.grid.extent)
    served = {
        "states": f"{up}states.json",
        "imagery": f"{up}imagery/" if imagery.is_here() else None,
        "maps": f"{up}maps/",
        "vintages": maps.names(),
    }

    def content(_: str) -> Reply:
        return _json(read_json(edition.path / "map" / CONTENT) | {"served": served})

    return {
        f"{folder}/{CONTENT}": content,
        f"{_FOLDER}/imagery/": imagery.answer,
        f"{_FOLDER}/maps/": maps.answer,
        f"{_FOLDER}/states.json": _once(lambda: tiles_to_map(campaign, edition)),
    }


def tiles_to_map(campaign: Campaign, edition: Edition) -> list[GridIndex]:
    """(row, column) in the edition's grid of each tile that a run would map today.

    Raises:
        ConfigError: the campaign cannot be planned.
        CatalogError: no domain is indexed.
    """
    from pipeline.runs.planning.automatic_choices import with_choices
    from pipeline.runs.planning.plan import make_plan

    # A look at the map chooses nothing for later runs.
    plan = make_plan(with_choices(campaign))
    tiles = {planned.tile for domain in plan.domains for planned in domain.todo}
    return sorted(edition.grid.tile_index(tile) for tile in tiles if edition.grid.extent.contains(tile.window))


def _json(content: Any) -> Reply:
    return Reply(json.dumps(content, ensure_ascii=False).encode())


def _once(compute: Callable[[], Any]) -> Answer:
    """An answer that is computed for the first request and kept."""

    @cache
    def reply() -> Reply:
        return _json(compute())

    return lambda _: reply()
