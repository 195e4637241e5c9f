"""Synthetic domains: files with a delivery's names, and their catalog as `index` writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bench.imagery import Imagery
from pipeline.config import Campaign, DomainSection, GridSection
from pipeline.domain import Domain
from pipeline.fingerprint import digest
from pipeline.grid import Tile, Window
from pipeline.sources.catalog.writer import TileDescription, write_domain
from pipeline.sources.delivery import names as delivery
from pipeline.sources.delivery.attribution import DomainDescription, Origin
from pipeline.sources.delivery.names import Kind
from pipeline.sources.domain_inputs import Asset, InputTile

YEAR = 2021
DELIVERED_TILE = 25_000
"""Side of a BD ORTHO tile in pixels: 5 km."""
FRANCE = Window.from_bounds((90_000.0, 6_040_000.0, 1_250_000.0, 7_120_000.0))
"""Metropolitan France with Corsica, the default extent of a campaign."""

WriteFile = Callable[[Path, Kind, Tile], None]
"""Writes the file of a kind for a tile."""


@dataclass(frozen=True)
class Footprint:
    """A domain and its tiles."""

    domain: Domain
    tiles: tuple[Tile, ...]

    @classmethod
    def rectangle(
        cls, code: int, *, rows: int, cols: int, tile: int, corner: tuple[int, int] = (FRANCE.row, FRANCE.col)
    ) -> "Footprint":
        """A domain of `rows` × `cols` tiles of `tile` px, from a north-west corner (row, col) on the lattice."""
        row, col = corner
        windows = Window(row, col, rows * tile, cols * tile).split(tile)
        return cls(Domain(f"D{code:03}_{YEAR}"), tuple(Tile.at(w.row, w.col, tile) for w in windows))


def write_domains(folder: Path, footprints: Sequence[Footprint], *, write: WriteFile) -> Path:
    """Writes an RVB, an IRC and a height file for each tile below `folder`, and their catalog.

    Args:
        write: makes one file. Its content is not indexed, so its name serves as its signature.

    Returns:
        the catalog's folder.

    Raises:
        StorageError: the catalog cannot be written.
    """
    catalog = folder / "catalog"
    for footprint in footprints:
        below = folder / "deliveries" / footprint.domain
        tiles = [InputTile(tile, _write_files(below, footprint.domain, tile, write)) for tile in footprint.tiles]
        about = DomainDescription(footprint.domain, Origin(f"IGN, BD ORTHO {YEAR}", "etalab-2.0"))
        write_domain(catalog, about, [TileDescription(tile, ()) for tile in tiles])
    return catalog


def synthetic_campaign(imagery: Imagery, catalog: Path, footprints: Sequence[Footprint], grid: GridSection) -> Campaign:
    """The bench's campaign over synthetic domains on another grid, with its products beside the catalog."""
    campaign = imagery.campaign
    left, bottom, right, top = (edge / 1000 for edge in FRANCE.bounds)
    output = {"domains": catalog.parent / "products", "extent_km": (left, bottom, right, top), "chunk": grid.tile // 5}
    return campaign.model_copy(
        update={
            "catalog": catalog,
            "domains": tuple(DomainSection(name=f.domain) for f in footprints),
            "grid": grid,
            "output": campaign.output.model_copy(update=output),
        }
    )


def _write_files(folder: Path, domain: Domain, tile: Tile, write: WriteFile) -> tuple[Asset, ...]:
    departement, year = domain.departement, domain.year
    names: dict[Kind, Path] = {
        "height": Path(delivery.height_name(tile.name, departement=departement, year=year)),
        "irc": _imagery_path(tile, departement, year, infrared=True),
        "rvb": _imagery_path(tile, departement, year, infrared=False),
    }
    assets = []
    for kind, name in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, kind, tile)
        assets.append(_asset(path, kind, tile))
    return tuple(assets)


def _imagery_path(tile: Tile, departement: str, year: int, *, infrared: bool) -> Path:
    name = delivery.imagery_name(tile.name, departement=departement, year=year, infrared=infrared, suffix="tif")
    return delivery.imagery_folder(departement=departement, year=year, infrared=infrared) / name


def _asset(path: Path, kind: Kind, tile: Tile) -> Asset:
    stat = path.stat()
    return Asset(
        kind=kind,
        path=path,
        signature=digest(path.name),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        transform=tile.window.transform,
        shape=tile.window.shape,
        dtype="uint8",
        block=(1024, 1024),
        nodata=None,
    )
