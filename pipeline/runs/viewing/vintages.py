"""The sealed maps of each domain for the map page, also where another vintage owns the ground in the edition."""

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.grid import Tile, Window
from pipeline.legend import LAYERS
from pipeline.products.map_page.server import Reply
from pipeline.products.tile.cog import open_cog
from pipeline.runs.viewing.lattice_tiles import SIDE, LatticeTile

_MOST_TILES = 64


class DomainMaps:
    """Land cover and confidence of one domain at a time, from its COGs and their overviews."""

    def __init__(self, campaign: Campaign, extent: Window) -> None:
        self._campaign, self._extent = campaign, extent

    def names(self) -> list[str]:
        """The domains with any file of a map."""
        domains = [section.name for section in self._campaign.domains]
        return sorted(
            d for d in domains if next(self._campaign.product_folder(d).glob(f"{d}-*-landcover.tif"), None) is not None
        )

    def answer(self, path: str) -> Reply | None:
        """Bytes of (layer, y, x) of `domain/level/column/row`, 0 where nothing is sealed.

        Raises:
            ProductError: a COG cannot be read.
        """
        name, _, address = path.partition("/")
        tile = LatticeTile.parse(address, self._extent)
        if tile is None or name not in {section.name for section in self._campaign.domains}:
            return None
        stack: NDArray[np.uint8] = np.zeros((len(LAYERS), SIDE, SIDE), np.uint8)
        sealed = tile.product_tiles(self._campaign.grid.tile)
        if len(sealed) <= _MOST_TILES:
            for part in sealed:
                self._draw(stack, Domain(name), part, tile)
        return Reply(stack.tobytes(), "application/octet-stream")

    def _draw(self, stack: NDArray[np.uint8], domain: Domain, tile: Tile, page: LatticeTile) -> None:
        folder = self._campaign.product_folder(domain)
        if not (folder / f"{domain}-{tile.name}.json").is_file():
            return
        inside = tile.window.intersect(page.window)
        rows, cols = page.slices(inside)
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        for values, layer in zip(stack, LAYERS, strict=True):
            with open_cog(folder / f"{domain}-{tile.name}-{layer}.tif") as cog:
                values[rows, cols] = cog.read(inside.within(tile.window), shape=shape)
