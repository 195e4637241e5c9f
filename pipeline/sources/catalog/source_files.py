"""Finds the files of an index in its sources: folders of deliveries, and external STAC catalogs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog, is_catalog
from pipeline.sources.delivery.acquisition_dates import AcquisitionDates, read_acquisition_dates
from pipeline.sources.delivery.attribution import Origin, origin_of
from pipeline.sources.delivery.names import DeliveredFile, find_files
from pipeline.sources.inspection.inspected_files import printable
from pipeline.sources.staging.height_record import HeightRecord, made_from


@dataclass(frozen=True)
class SourceFiles:
    """The files in the sources of an index, for the bands that are wanted."""

    delivered: tuple[DeliveredFile, ...]
    """Files of all sources, sorted by kind and path."""
    ignored: tuple[Path, ...]
    """Rasters with an unknown name."""
    local: tuple[DeliveredFile, ...]
    """Those of `delivered` that lie in folders."""
    catalog_origins: tuple[Origin, ...]
    """Origins that catalogs state for their items."""
    acquired: AcquisitionDates

    def origin(self, staged: Iterable[HeightRecord], *, year: int) -> Origin:
        """The origin of all files, and of the elevation files from which `stage` made heights."""
        files = (*self.local, *(f for record in staged for f in made_from(record)))
        return Origin.joined([*([origin_of(files, year=year)] if self.local else []), *self.catalog_origins])


def find_source_files(sources: Sequence[str | Path], query: Query, *, year: int, bands: tuple[str, ...]) -> SourceFiles:
    """Lists the files that folders and catalogs name; opens none of them.

    Args:
        sources: folders, paths or URLs of static STAC catalogs, URLs of STAC APIs.
        query: which items of catalogs.
        year: the vintage.
        bands: what will be read of the files.

    Raises:
        DeliveryError: a folder that does not exist or cannot be listed.
        CatalogError: a source that is not a catalog, or names files that may not be opened.
    """
    folders = [Path(s) for s in sources if not is_catalog(str(s))]
    kinds = {"rvb"} | ({"irc"} if "nir" in bands else set())
    kinds |= {"height", "dsm", "dtm"} if "elevation" in bands else set()
    found, unknown = find_files(folders)
    local = tuple(f for f in found if f.kind in kinds)
    acquired = read_acquisition_dates(folders, year=year)
    files = CatalogFiles()
    for source in (str(s) for s in sources if is_catalog(str(s))):
        add_catalog(files, source, query)
    delivered = {p: f for p, f in files.delivered.items() if f.kind in kinds} | {f.path: f for f in local}
    return SourceFiles(
        tuple(sorted(delivered.values(), key=lambda f: (f.kind, str(f.path)))),
        tuple(Path(printable(p)) for p in sorted({*unknown, *files.ignored})),
        local,
        tuple(files.origins),
        replace(acquired, tiles={**acquired.tiles, **files.days}),
    )
