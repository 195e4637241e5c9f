"""Reads the pixels that become polygons: land cover, confidence and domain of an edition, by windows of the lattice."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.grid import Window
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import read_zarr


class WindowLayers(NamedTuple):
    """Layers of a window, as (y, x); all are 0 where there is no land cover."""

    classes: NDArray[np.integer]
    confidence: NDArray[np.uint8]
    domain: NDArray[np.uint16]


class PixelReader(Protocol):
    """A raster that becomes polygons."""

    def read(self, window: Window) -> WindowLayers:
        """The layers of a window of the lattice; 0 outside of the raster."""


@dataclass(frozen=True)
class EditionPixels:
    """An edition, or what it shows of one domain."""

    store: Path
    grid: NationalGrid
    only: int | None = None
    """Code of the one domain whose pixels are read."""

    @classmethod
    def of(cls, edition: Edition, domain: Domain | None) -> "EditionPixels":
        """The pixels of an edition.

        Raises:
            ConfigError: the edition does not show the domain.
        """
        if domain is None:
            return cls(edition.store, edition.grid)
        if domain not in edition.domains:
            raise ConfigError(
                f"edition {edition.number} has no domain {domain}; it has {', '.join(edition.domains) or 'none'}"
            )
        return cls(edition.store, edition.grid, domain.code)

    def read(self, window: Window) -> WindowLayers:
        """The layers of a window of the lattice; 0 outside of the edition.

        Raises:
            ProductError: a shard cannot be read.
        """
        own = window.within(self.grid.extent)
        classes = read_zarr(self.store / "landcover", own)
        domain = read_zarr(self.store / "domain", own)
        confidence = read_zarr(self.store / "confidence", own)
        if self.only is not None:
            classes[domain != self.only] = 0
        return WindowLayers(classes, confidence, domain)


def windows_with_pixels(edition: Edition, domain: Domain | None) -> list[Window]:
    """Windows of the lattice that contain all pixels of an edition, or of a domain, and one pixel south and east.

    The cells to the south and east own the borders there.
    """
    shards = [
        index
        for index in sorted(edition.digests)
        # Editions of older versions have no tallies.
        if domain is None
        or (tally := edition.tallies.get(index)) is None
        or domain in tally.owned
        or domain in tally.filled
    ]
    windows = map(edition.grid.shard_window, shards)
    return [Window(w.row, w.col, w.height + 1, w.width + 1) for w in windows]
