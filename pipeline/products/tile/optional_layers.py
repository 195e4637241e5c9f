"""Optional layers of a sealed tile: the probabilities of the classes, and how much the forwards disagree.

Each lies in a folder of its own beside the tiles, and has its own item with its own fingerprint, written after its COG.
So a layer is made without a change of the tile, and is up to date where its fingerprint is.

    products/D034_2021/probabilities/D034_2021-0595-6890-probabilities.tif, and its item as .json
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from pydantic import Field

from pipeline import legend
from pipeline.domain import Domain
from pipeline.durable import sync, write_json
from pipeline.errors import ProductError, product_error
from pipeline.fingerprint import file_sha256
from pipeline.geobox import lattice_geobox
from pipeline.grid import RESOLUTION_M, Tile, Window
from pipeline.legend import OPTIONAL_LAYERS, OptionalLayer, planes_of
from pipeline.products.tile.cog import FileFacts, open_cog, write_cog
from pipeline.products.tile.seal import STRIP_ROWS, SealedTile, remove_unfinished, stem
from pipeline.products.tile.stac_item import Provenance, reading_item
from pipeline.stac_fields import checksum, extension_schemas, footprint, origin_fields, projection, sha256_of, time_span
from pipeline.untrusted.documents import Document
from pipeline.untrusted.own_checksum import read_checked

_EXTENSIONS = extension_schemas("projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0", "processing/v1.2.0")
_TITLES: Mapping[OptionalLayer, str] = {
    "probabilities": "Probability of each class",
    "disagreement": "Disagreement between the forwards",
}


@dataclass(frozen=True)
class SealedLayer:
    """An optional layer of a tile, as its item describes it."""

    layer: OptionalLayer
    fingerprint: str
    """Hash of all that the bytes depend on."""
    file: FileFacts
    """The COG, with size and checksum when it was written."""
    item_path: Path
    of_map: str | None = None
    """Fingerprint of the map that it was made with; None in items of early versions."""


class _Asset(Document):
    href: str = Field(pattern=r"^\./[\w.-]+$")
    size: int = Field(alias="file:size", ge=0)
    checksum: str = Field(alias="file:checksum")


class _Properties(Document):
    domain: str = Field(alias="landcover:domain")
    tile: str = Field(alias="landcover:tile")
    fingerprint: str = Field(alias="landcover:fingerprint")
    of_map: str | None = Field(default=None, alias="landcover:map_fingerprint")


class _Item(Document):
    properties: _Properties
    assets: dict[str, _Asset]


def seal_layers(
    folder: Path,
    fingerprints: Mapping[OptionalLayer, str],
    *,
    domain: Domain,
    tile: Tile,
    planes: NDArray[np.uint8],
    layers: Sequence[OptionalLayer],
    live: tuple[int, ...],
    of_map: str,
    provenance: Provenance,
    crs: str,
) -> None:
    """Writes the COG of each layer, then its item.

    Args:
        folder: of the domain's products, which the tile is in.
        fingerprints: of the layers to write.
        domain: `D034_2021`.
        tile: name and window.
        planes: uint8 (plane, y, x) of all `layers`, in their order; 0 where the tile has no data.
        layers: that the planes belong to.
        live: FLAIR values, in the order of the probabilities.
        of_map: fingerprint of the map.
        provenance: how the tile was mapped.
        crs: `EPSG:…` of the lattice.

    Raises:
        ProductError: the planes do not fit the layers, or the folder cannot be written.
    """
    if planes.shape != (planes_of(layers, live), *tile.window.shape):
        raise ProductError(f"{stem(domain, tile)}: planes of shape {planes.shape} do not fit {', '.join(layers)}")
    first = 0
    for layer in layers:
        count = planes_of([layer], live)
        own, first = planes[first : first + count], first + count
        if layer not in fingerprints:
            continue
        path = layer_path(folder, domain, tile, layer)
        with product_error(f"{path.parent}: layer {layer} of tile {tile.name} of {domain} cannot be sealed there"):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_unfinished(path.parent, domain, tile)
            path.with_suffix(".json").unlink(missing_ok=True)
            sync(path.parent)
        tags = provenance.tags() | {"domain": domain, "tile": tile.name, "fingerprint": fingerprints[layer]}
        facts = write_cog(
            path,
            own if layer == "probabilities" else own[0],
            layer=layer,
            geobox=lattice_geobox(tile.window, crs),
            live=live,
            tags=tags,
        )
        sealed = SealedLayer(layer, fingerprints[layer], facts, path.with_suffix(".json"), of_map)
        item = _item(sealed, domain, tile, live=live, provenance=provenance, crs=crs)
        write_json(sealed.item_path, item, own_checksum=True)


def layer_path(folder: Path, domain: Domain, tile: Tile, layer: OptionalLayer) -> Path:
    """The COG of a layer of a tile."""
    return folder / layer / f"{stem(domain, tile)}-{layer}.tif"


def layer_folders(folder: Path) -> list[Path]:
    """The folders of optional layers that a domain has."""
    return [folder / layer for layer in OPTIONAL_LAYERS if (folder / layer).is_dir()]


def _item(
    sealed: SealedLayer, domain: Domain, tile: Tile, *, live: Sequence[int], provenance: Provenance, crs: str
) -> dict[str, Any]:
    """The item of a layer as JSON-able content: its place and time, its file, and a link to the tile's item."""
    geometry, bbox = footprint(tile.window, crs)
    start, middle, end = time_span(provenance.acquired, year=domain.year)
    names = [c.slug for c in legend.classes(live)] if sealed.layer == "probabilities" else [sealed.layer]
    scaled = {"raster:scale": 1 / legend.SHARE_STEPS, "raster:offset": -1 / legend.SHARE_STEPS}
    asset = pystac.Asset(
        f"./{sealed.file.path.name}",
        title=_TITLES[sealed.layer],
        media_type=pystac.MediaType.COG,
        roles=["data"],
        extra_fields={
            "bands": [{"name": name, "data_type": "uint8", "nodata": legend.NODATA, **scaled} for name in names],
            "file:size": sealed.file.size,
            "file:checksum": checksum(sealed.file.sha256),
        },
    )
    origin = {name: getattr(provenance, name) for name in ("licence", "attribution")}
    item = pystac.Item(
        id=sealed.item_path.stem,
        geometry=geometry,
        bbox=bbox,
        datetime=middle,
        start_datetime=start,
        end_datetime=end,
        properties=projection(tile.window, crs)
        | origin_fields(**origin)
        | {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "gsd": RESOLUTION_M,
            "processing:software": dict(provenance.software),
            "landcover:domain": domain,
            "landcover:tile": tile.name,
            "landcover:fingerprint": sealed.fingerprint,
            "landcover:map_fingerprint": sealed.of_map,
        },
        stac_extensions=list(_EXTENSIONS),
        assets={sealed.layer: asset},
    )
    item.add_link(pystac.Link("derived_from", f"../{stem(domain, tile)}.json", media_type=pystac.MediaType.GEOJSON))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def read_layer_item(folder: Path, domain: Domain, tile: Tile, layer: OptionalLayer) -> SealedLayer | None:
    """The layer of a tile as its item describes it; None where it has none.

    Args:
        folder: of the domain's products.
        domain: `D034_2021`.
        tile: name and window.
        layer: of the tile.

    Raises:
        ProductError: the item cannot be read, lacks a field or belongs to another tile.
    """
    path = layer_path(folder, domain, tile, layer)
    with reading_item(path.with_suffix(".json")):
        try:
            item = read_checked(_Item, path.with_suffix(".json"), former=())
        except FileNotFoundError:
            return None
        asset, about = item.assets[layer], item.properties
        if (about.domain, about.tile, asset.href) != (domain, tile.name, f"./{path.name}"):
            raise ValueError(f"expected {path.name} of {domain} {tile.name}, got {asset.href} of {about.tile}")
        facts = FileFacts(path, asset.size, sha256_of(asset.checksum))
        return SealedLayer(layer, about.fingerprint, facts, path.with_suffix(".json"), about.of_map)


def layers_to_make(
    folder: Path, domain: Domain, tile: Tile, wanted: Mapping[OptionalLayer, str]
) -> dict[OptionalLayer, str]:
    """Layer → why it is to be made: `not made yet`, `outdated` or `damaged`. Layers that are up to date are left out.

    Args:
        folder: of the domain's products.
        domain: `D034_2021`.
        tile: name and window.
        wanted: layer → its fingerprint of today.
    """
    found: dict[OptionalLayer, str] = {}
    for layer, fingerprint in wanted.items():
        try:
            sealed = read_layer_item(folder, domain, tile, layer)
        except ProductError:
            found[layer] = "damaged"
            continue
        if sealed is None:
            found[layer] = "not made yet"
        elif sealed.fingerprint != fingerprint:
            found[layer] = "outdated"
        elif not sealed.file.path.is_file() or sealed.file.path.stat().st_size != sealed.file.size:
            found[layer] = "damaged"
    return found


def check_layer(sealed: SealedTile, layer: OptionalLayer) -> list[str]:
    """Problems of a layer of a sealed tile: its map, checksum and place, and nodata that is not the tile's."""
    folder = sealed.item_path.parent
    try:
        found = read_layer_item(folder, sealed.domain, sealed.tile, layer)
    except ProductError as error:
        return [str(error)]
    path = layer_path(folder, sealed.domain, sealed.tile, layer)
    if found is None or not path.is_file():
        return [f"{path}: is missing; `landcover run` makes it, and keeps the map"]
    if found.of_map not in (None, sealed.fingerprint):
        return [f"{path}: was made with an earlier map of the tile; `landcover run` makes it again, and keeps the map"]
    if file_sha256(path) != found.file.sha256:
        return [f"{path}: checksum mismatch: SHA-256 differs from {found.item_path.name}; remove it and run again"]
    unlike = 0
    with open_cog(path) as cog, open_cog(sealed.file("landcover").path) as classes:
        header = (cog.dataset.shape, tuple(cog.dataset.transform)[:6])
        if header != (classes.dataset.shape, tuple(classes.dataset.transform)[:6]):
            return [f"{path}: its header has {header}, unlike the tile's; remove it and run again"]
        for strip in Window(0, 0, *sealed.tile.window.shape).strips(STRIP_ROWS):
            data = classes.read(strip) != legend.NODATA
            unlike += sum(int(((cog.read(strip, band=b) != 0) != data).sum()) for b in cog.dataset.indexes)
    return [f"{path}: {unlike} values are nodata where the map has data, or the reverse"] if unlike else []
