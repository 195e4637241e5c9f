"""The map page of an edition in a notebook's cell, from a server on loopback that ends with the kernel."""

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import shapely

from pipeline.errors import MachineError, ProductError
from pipeline.products.map_page.page_files import CONTENT, MAP_FOLDER, PAGE
from pipeline.products.map_page.server import ProductServer, Reply
from pipeline.untrusted.documents import read_json

_PIXELS = (700, 450)
"""Width and height on the screen into which a geometry should fit."""


def show_page(edition: Path, outline: shapely.Geometry | None, *, height: int) -> Any:
    """Serves the page of an edition, and returns an `IPython.display.IFrame` of it.

    Args:
        edition: its folder.
        outline: polygons in the edition's CRS that are drawn and looked at; None to look at everything.
        height: of the frame in pixels.

    Raises:
        ProductError: the edition has no page, or the outline is empty.
        MachineError: IPython is not installed.
    """
    try:
        from IPython.display import IFrame
    except ImportError as error:
        raise MachineError(
            "explore needs a notebook: pip install 'landcover-pipeline[notebooks]'; `landcover view` shows the page in "
            "a browser"
        ) from error
    if not (edition / MAP_FOLDER / PAGE).is_file():
        raise ProductError(f"{edition}: has no map page; `landcover view CONFIG` writes it")
    page = f"{edition.name}/{MAP_FOLDER}"
    # Only the editions are served, so the page links no COGs.
    content = read_json(edition / MAP_FOLDER / CONTENT) | {"products": None, "outline": _rings(outline)}
    reply = Reply(json.dumps(content, ensure_ascii=False).encode())
    server = ProductServer({(): edition.parent}, answers={f"{page}/{CONTENT}": lambda _: reply})
    threading.Thread(target=server.serve_forever, daemon=True, name="map page").start()
    state = "" if outline is None else f"#{urlencode({'at': _place(outline)}, safe=',')}"
    return IFrame(f"{server.address(f'{page}/{PAGE}')}{state}", "100%", height)


def _rings(outline: shapely.Geometry | None) -> list[list[float]]:
    if outline is None:
        return []
    if outline.is_empty:
        raise ProductError("the geometry is empty")
    polygons = [part for part in shapely.get_parts(outline) if shapely.get_dimensions(part) == 2]
    rings = shapely.get_rings(polygons)
    return [shapely.get_coordinates(ring).ravel().round(2).tolist() for ring in rings]


def _place(outline: shapely.Geometry) -> str:
    """Centre and resolution at which the page shows all of a geometry."""
    left, bottom, right, top = outline.bounds
    resolution = max((right - left) / _PIXELS[0], (top - bottom) / _PIXELS[1], 0.05)
    return f"{(left + right) / 2:.2f},{(bottom + top) / 2:.2f},{resolution:.4g}"
