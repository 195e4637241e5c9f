"""Limits on what input from outside may cost: each has a name, a default, and an environment variable that changes it.

A file of a kilobyte can declare a raster of terabytes, and a catalog can go on for ever. What is counted is compared
before memory is allocated or the next request is sent.
"""

import os
from dataclasses import dataclass, field
from time import monotonic

from pipeline.errors import CatalogError, ConfigError, LandcoverError


@dataclass(frozen=True)
class Limit:
    """The most of something that one input may have."""

    name: str
    """The environment variable is `LANDCOVER_MAX_` and the name in capitals: `LANDCOVER_MAX_RASTER_PIXELS`."""
    unit: str
    default: int

    @property
    def variable(self) -> str:
        """The environment variable that changes the limit."""
        return f"LANDCOVER_MAX_{self.name.upper()}"

    @property
    def value(self) -> int:
        """The limit in force.

        Raises:
            ConfigError: the variable is not a positive whole number.
        """
        text = os.environ.get(self.variable, "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            raise ConfigError(f"{self.variable}: {text!r} is not a number of {self.unit}; expected 1 or more")
        return int(text)

    def check(self, found: float, where: object, error: type[LandcoverError], *, what: str = "has") -> None:
        """Raises `error` where more was found than the limit.

        Args:
            found: the number found.
            where: the file or URL.
            error: class of the error.
            what: verb of the message: `has`, `declares`.
        """
        if found > (most := self.value):
            raise error(
                f"{where}: {what} {found:,.0f} {self.unit}, more than the limit {self.name} = {most:,}; if you trust "
                f"it, set {self.variable} to a larger number"
            )


RASTER_PIXELS = Limit("raster_pixels", "pixels", 5_000_000_000)
"""Rows times columns of one raster: eight tiles of 25 000² px."""
RASTER_BLOCK_BYTES = Limit("raster_block_bytes", "bytes in one block", 1 << 30)
"""Of one internal block with all of its bands, which GDAL holds in memory whole."""
PATCH_PIXELS = Limit("patch_pixels", "pixels", 100_000_000)
"""Rows times columns of an image or mask that is read whole, to train or to evaluate."""
STAC_BYTES = Limit("stac_bytes", "bytes", 2 << 30)
STAC_PAGES = Limit("stac_pages", "documents", 200_000)
"""Catalogs, collections, items and pages of a search."""
STAC_ITEMS = Limit("stac_items", "items", 100_000)
STAC_SECONDS = Limit("stac_seconds", "seconds of reading", 3_600)
FEED_PAGES = Limit("feed_pages", "pages", 1_000)
"""Of one feed of a download service, with up to 50 entries each."""
POLYGON_VERTICES = Limit("polygon_vertices", "vertices in one polygon", 150_000)
INVALID_VERTICES = Limit("invalid_polygon_vertices", "vertices in one polygon that crosses itself", 10_000)
"""Repairing a polygon takes time with the square of its vertices."""
ARCHIVE_RATIO = Limit("archive_ratio", "bytes unpacked for one packed", 250)
ARCHIVE_DICTIONARY_BYTES = Limit("archive_dictionary_bytes", "bytes in a dictionary", 1 << 29)
"""Memory of a decoder; 7-Zip's largest preset uses half of it."""


@dataclass
class StacBudget:
    """What one walk of a STAC catalog has used of its limits."""

    source: str
    started: float = field(default_factory=lambda: monotonic())  # noqa: PLW0108  (found when it is called, for tests)
    read_bytes: int = 0
    pages: int = 0
    items: int = 0

    def count_page(self, size: int) -> None:
        """Counts a document of `size` bytes.

        Raises:
            CatalogError: a limit is exceeded.
        """
        self.pages, self.read_bytes = self.pages + 1, self.read_bytes + size
        self._check(STAC_PAGES, self.pages)
        self._check(STAC_BYTES, self.read_bytes)
        self._check(STAC_SECONDS, monotonic() - self.started)

    def count_item(self) -> None:
        """Counts an item.

        Raises:
            CatalogError: a limit is exceeded.
        """
        self.items += 1
        self._check(STAC_ITEMS, self.items)

    def _check(self, limit: Limit, found: float) -> None:
        limit.check(found, self.source, CatalogError, what="has, as far as it was read,")
