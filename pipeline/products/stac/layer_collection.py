"""The STAC collection of what later commands add to an edition: the generalised map, polygons and changes, as assets.

::

    <edition>/layers/collection.json    assets with relative hrefs; the nation's collection links it as `related`
    <edition>/layers/SHA256SUMS         and MANIFEST.json: see `manifest`

It is a folder of its own, because the edition's catalog is sealed before, and is written again with each new layer.
"""

from pathlib import Path
from typing import Any

import pystac

from pipeline.durable import write_json
from pipeline.errors import product_error
from pipeline.products.edition_files import EditionFile, EditionLayer, edition_layers
from pipeline.products.manifest import changed_if_sealed, has_manifest, write_manifest
from pipeline.stac_fields import checksum, extension_schemas
from pipeline.untrusted.documents import read_json

LAYERS_FOLDER = "layers"
_COLLECTION = "collection.json"
_KEPT = ("stac_version", "license", "providers", "extent")
"""Fields that it has from the nation's collection."""


def write_layer_collection(edition: Path) -> Path:
    """Writes the collection of an edition's layers, unless it is there; returns its file.

    Args:
        edition: folder of a finished edition.

    Raises:
        ProductError: the edition's catalog cannot be read.
        StorageError: the folder cannot be written.
    """
    path = edition / "catalog" / _COLLECTION
    with product_error(f"{path}: cannot be read as a STAC collection; publish again", ValueError, KeyError, TypeError):
        nation: dict[str, Any] = read_json(path)
        content = _content(nation, edition_layers(edition))
    folder = edition / LAYERS_FOLDER
    target = folder / _COLLECTION
    if not (has_manifest(folder) and not changed_if_sealed(folder, read_all=True) and read_json(target) == content):
        write_json(target, content)
        write_manifest(folder, [_COLLECTION])
    return target


def _content(nation: dict[str, Any], layers: tuple[EditionLayer, ...]) -> dict[str, Any]:
    number = str(nation["version"])
    return {
        "type": "Collection",
        "id": f"{nation['id']}-layers",
        "title": f"Layers of land cover, edition {number}",
        "description": "Generalised map, polygons and changes that were made from an edition of the land cover",
        **{key: nation[key] for key in _KEPT if key in nation},
        "version": number,
        "stac_extensions": extension_schemas("file/v2.1.0", "version/v1.2.0"),
        "links": [{"rel": "related", "href": f"../catalog/{_COLLECTION}", "type": pystac.MediaType.JSON}],
        "assets": {file.path: _asset(file) for layer in layers for file in layer.files},
    }


def _asset(file: EditionFile) -> dict[str, Any]:
    """An asset; a folder of files has a size and no checksum."""
    given = {
        "type": file.media_type,
        "file:size": file.size,
        "file:checksum": file.sha256 and checksum(file.sha256),
        "landcover:domain": file.domain,
    }
    return {
        "href": f"../{file.path}",
        "title": file.content,
        "roles": [file.role],
        **{key: value for key, value in given.items() if value is not None},
    }
