"""The tiles of a report: how they are named, linked and drawn, and small pictures of their imagery."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import DeliveryError
from pipeline.grid import PIXELS_PER_M, RESOLUTION_M, Tile, Window
from pipeline.legend import Language
from pipeline.products.gis.overviews import STATE_COLOURS, State, scaled
from pipeline.products.map_page.page_files import MAP_FOLDER, PAGE
from pipeline.products.national.edition_record import Edition
from pipeline.sources.domain_inputs import Asset, InputTile
from pipeline.sources.http_path import WebPath
from pipeline.sources.inspection.lowest_level import read_lowest_cells

log = logging.getLogger("landcover")

_NOTHING = 235
"""Grey of places without imagery."""
_READERS = 4
_TILE_ON_SCREEN = 700
"""Pixels of a screen that the side of a linked tile takes."""


@dataclass(frozen=True)
class MapLinks:
    """Addresses of places in an edition's map page."""

    page: str | None
    """Of the map page from the report's folder; None without one."""
    language: Language = "en"

    @classmethod
    def of(cls, edition: Edition | None, report: Path, language: Language) -> "MapLinks":
        """From a report's folder into the map page of an edition, if it has one."""
        page = edition.path / MAP_FOLDER / PAGE if edition else None
        if page is None or not page.is_file():
            return cls(None)
        # From real folder to real folder: `current` may be another edition tomorrow, and servers follow no links.
        return cls(quote(os.path.relpath(page.resolve(), report.resolve())), language)

    def to(self, tile: Tile) -> str | None:
        """Of a tile, in the middle of the map; None without a map page."""
        if self.page is None:
            return None
        left, bottom, right, top = tile.window.bounds
        resolution = max((right - left) / _TILE_ON_SCREEN, RESOLUTION_M / 4)
        place = f"{(left + right) / 2:.2f},{(bottom + top) / 2:.2f},{resolution:.2f}"
        return f"{self.page}#at={place}" + ("&language=fr" if self.language == "fr" else "")


@dataclass(frozen=True)
class TileName:
    """A tile as a report names it."""

    label: str
    """`0595-6890`, in a nation's report with its domain before it."""
    href: str | None
    """Of its place in the map page."""


@dataclass(frozen=True)
class DrawnTile:
    """A tile as a square, in metres from the north-west corner of the picture."""

    name: TileName
    x: float
    y: float
    side: float
    colour: str
    text: str


@dataclass(frozen=True)
class TileMap:
    """Tiles in their places."""

    width: float
    """In metres."""
    height: float
    tiles: tuple[DrawnTile, ...]

    @property
    def linked(self) -> bool:
        """Whether tiles lead into a map page."""
        return any(tile.name.href for tile in self.tiles)

    @classmethod
    def of(cls, tiles: Sequence[tuple[Tile, TileName, State, str]], *, within: Window) -> "TileMap":
        """From (tile, name, state, text). Between two tiles is a gap, so that each is seen for itself.

        Where tiles of several domains lie on each other, one that is not sealed is drawn on top.
        """
        drawn, order = [], list(STATE_COLOURS)
        for tile, name, state, text in sorted(tiles, key=lambda given: order.index(given[2])):
            side = tile.window.height / PIXELS_PER_M
            x, y = ((a - b) / PIXELS_PER_M for a, b in ((tile.window.col, within.col), (tile.window.row, within.row)))
            gap = 0.03 * side
            drawn.append(DrawnTile(name, x + gap, y + gap, side - 2 * gap, STATE_COLOURS[state], text))
        return cls(within.width / PIXELS_PER_M, within.height / PIXELS_PER_M, tuple(drawn))


def small_imagery(tiles: Sequence[InputTile], *, within: Window) -> dict[str, NDArray[np.uint8]]:
    """Tile → its imagery, uint8 rgb (y, x, 3), as large as it is in a picture of `within`.

    It is read from the lowest level of the files. Tiles whose files are on the web, or cannot be read, are left out.
    """

    def read(tile: InputTile) -> NDArray[np.uint8] | None:
        files = [asset for asset in tile.files("rvb") if not isinstance(asset.path, WebPath)]
        shape, _ = scaled(tile.tile.window, within)
        try:
            return _of_files(tile.tile, files, shape) if files and min(shape) > 0 else None
        except DeliveryError as error:
            log.warning("%s: not drawn in the report: %s", tile.tile.name, error)
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(tiles, pool.map(read, tiles), strict=True)
        return {tile.tile.name: small for tile, small in found if small is not None}


def _of_files(tile: Tile, files: Sequence[Asset], shape: tuple[int, int]) -> NDArray[np.uint8]:
    small = np.full((*shape, 3), _NOTHING, np.uint8)
    left, bottom, right, top = tile.window.bounds
    for file in files:
        cells = np.moveaxis(read_lowest_cells(file.path)[:3], 0, -1)
        a, _, x, _, e, y = file.transform[:6]
        height, width = file.shape
        cols = [round((edge - left) / (right - left) * shape[1]) for edge in (x, x + a * width)]
        rows = [round((top - edge) / (top - bottom) * shape[0]) for edge in (y, y + e * height)]
        if cols[0] >= cols[1] or rows[0] >= rows[1]:
            continue
        picture = Image.fromarray(np.ascontiguousarray(cells))
        resized = np.asarray(picture.resize((cols[1] - cols[0], rows[1] - rows[0]), Image.Resampling.BOX))
        inside = (slice(max(0, rows[0]), min(shape[0], rows[1])), slice(max(0, cols[0]), min(shape[1], cols[1])))
        from_row, from_col = inside[0].start - rows[0], inside[1].start - cols[0]
        part = resized[from_row:, from_col:][: inside[0].stop - inside[0].start, : inside[1].stop - inside[1].start]
        small[inside] = part
    return small


def imagery_picture(
    parts: Sequence[tuple[Sequence[Tile], Mapping[str, NDArray[np.uint8]]]], *, within: Window
) -> NDArray[np.uint8]:
    """Imagery of several domains in one picture: uint8 rgb (y, x, 3).

    Args:
        parts: tiles and their imagery from `small_imagery`, in drawing order.
        within: window of the picture.
    """
    shape, _ = scaled(within, within)
    picture = np.full((*shape, 3), _NOTHING, np.uint8)
    for tiles, imagery in parts:
        for tile in tiles:
            (height, width), place = scaled(tile.window, within)
            small = imagery.get(tile.name)
            if small is None or not height or not width:
                continue
            if small.shape[:2] != (height, width):
                small = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BOX))
            picture[place] = small
    return picture
