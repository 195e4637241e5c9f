"""The campaign's imagery for the map page, read from the delivered files while the page is looked at.

Two threads read, so that memory does not grow with the page's requests; some hundred pictures are kept.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.products.map_page.server import Reply
from pipeline.products.national.edition_record import Edition
from pipeline.runs.viewing.lattice_tiles import LatticeTile
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import Asset, DomainInputs
from pipeline.sources.http_path import WebPath
from pipeline.sources.reading.picture import read_picture

ALL = "all"
"""Instead of a domain's name: the domains that own the ground in the edition."""
_MOST_FILES = 64
_KEPT = 400


class GroundPictures:
    """Pictures of an edition's ground."""

    def __init__(self, campaign: Campaign, edition: Edition) -> None:
        self._campaign, self._edition = campaign, edition
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="imagery")
        self._inputs = cache(self._read_inputs)
        self._picture = lru_cache(_KEPT)(self._make_picture)

    def is_here(self) -> bool:
        """Whether the first file of any domain is on this machine."""
        return any(self._has_file(section.name) for section in self._campaign.domains)

    def answer(self, path: str) -> Reply | None:
        """A picture of `domain/level/column/row`.

        Raises:
            LandcoverError: the catalog or a file cannot be read.
        """
        name, _, address = path.partition("/")
        tile = LatticeTile.parse(address, self._edition.grid.extent)
        names = {ALL, *(section.name for section in self._campaign.domains)}
        return self._picture(name, tile) if tile and name in names else None

    def _make_picture(self, name: str, tile: LatticeTile) -> Reply:
        files = [asset for domain in self._behind(name, tile) for asset in self._files(domain, tile)]
        if not 0 < len(files) <= _MOST_FILES:
            return _encoded(np.zeros((1, 1, 4), np.uint8))
        picture = self._readers.submit(read_picture, files, tile.window, factor=tile.factor).result()
        if picture.covered.all():
            return _encoded(picture.colours)
        alpha = np.where(picture.covered, np.uint8(255), np.uint8(0))
        return _encoded(np.dstack([picture.colours, alpha]))

    def _behind(self, name: str, tile: LatticeTile) -> Iterable[Domain]:
        """The domain of this name; of all, those that own pixels in the tiles there, newest first."""
        if name != ALL:
            return [Domain(name)]
        grid = self._edition.grid
        inside = [t for t in tile.product_tiles(grid.tile) if grid.extent.contains(t.window)]
        shards = [shard for t in inside for shard in grid.shards_of(grid.tile_index(t))]
        owners = {owner for s in shards if s in self._edition.tallies for owner in self._edition.tallies[s].owned}
        known = [section.name for section in self._campaign.domains if section.name in owners]
        return sorted(known, key=lambda domain: (-domain.year, domain))

    def _files(self, domain: Domain, tile: LatticeTile) -> list[Asset]:
        return [a for a in self._inputs(domain).behind(tile.window) if a.kind == "rvb" and _is_local(a)]

    def _read_inputs(self, domain: Domain) -> DomainInputs:
        return read_domain(self._campaign.catalog, domain, tile_size=self._campaign.grid.tile)

    def _has_file(self, domain: Domain) -> bool:
        try:
            first = next((a for a in self._inputs(domain).assets if a.kind == "rvb"), None)
        except CatalogError:
            return False
        return first is not None and _is_local(first) and first.path.is_file()


def _is_local(asset: Asset) -> bool:
    """A view sends no requests, so imagery on a web server is not shown."""
    return not isinstance(asset.path, WebPath)


def _encoded(pixels: NDArray[np.uint8]) -> Reply:
    kind = "png" if pixels.shape[-1] == 4 else "jpeg"
    with BytesIO() as out:
        Image.fromarray(pixels).save(out, kind, **({"quality": 88} if kind == "jpeg" else {"compress_level": 3}))
        return Reply(out.getvalue(), f"image/{kind}")
