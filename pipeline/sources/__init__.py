"""From deliveries on disk to windows of pixels.

`index` writes the input catalog and `open_domain` reads it. The network reads windows from a `Mosaic` or a `Raster`.
"""

from pipeline.sources.catalog.index import IndexReport, index, open_domain
from pipeline.sources.domain_inputs import BANDS, Asset, DomainInputs, Fill, InputTile
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import GeoSource, Pixels, Raster, Source

__all__ = [
    "BANDS",
    "Asset",
    "DomainInputs",
    "Fill",
    "GeoSource",
    "IndexReport",
    "InputTile",
    "Mosaic",
    "Pixels",
    "Raster",
    "Source",
    "index",
    "open_domain",
]
