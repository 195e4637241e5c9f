"""From deliveries on disk to windows of pixels.

`index` writes the input catalogue, `open_domain` reads it, `Mosaic` and `Raster` are what the network
reads from.
"""

from pipeline.sources.catalog import IndexReport, index, open_domain
from pipeline.sources.inputs import BANDS, Asset, DomainInputs, Fill, InputTile
from pipeline.sources.mosaic import Mosaic
from pipeline.sources.raster import Pixels, Raster, Source

__all__ = [
    "BANDS",
    "Asset",
    "DomainInputs",
    "Fill",
    "IndexReport",
    "InputTile",
    "Mosaic",
    "Pixels",
    "Raster",
    "Source",
    "index",
    "open_domain",
]
