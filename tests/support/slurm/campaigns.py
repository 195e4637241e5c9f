"""Campaigns and a site for the lab."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.domain import Domain
from pipeline.sources.catalog.index import index
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.deliveries import make_delivery

FIRST, SECOND = Domain("D034_2021"), Domain("D030_2021")
SITE = {"name": "lab", "partition": "main", "cores_per_node": 2, "max_hours": 1, "hint": None, "lead_minutes": 0.5}


def make_two_domains(folder: Path, *, tiles: int = 2) -> Made:
    """Two domains side by side, each of a column of tiles."""
    made = make_campaign(folder, at=[(row, 0) for row in range(tiles)])
    east = make_delivery(folder / "east", at=[(row, 1) for row in range(tiles)], size=TILE, domain=SECOND)
    index([east.folder], domain=SECOND, catalog=folder / "catalog", tile_size=TILE)
    left, bottom, _, top = made.delivery.window.bounds
    right = east.window.bounds[2]
    output = {"extent_km": [v / 1000 for v in (left, bottom, right, top)], "chunk": 100}
    return made.change(domains=[{"name": FIRST}, {"name": SECOND}], output=output)


def write_site(folder: Path, **changes: Any) -> Path:
    """The cluster file of the lab."""
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(SITE | changes))
    return path
