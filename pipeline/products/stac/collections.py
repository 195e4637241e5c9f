"""The catalog of the product: a STAC collection for each domain and the nation, all items in one stac-geoparquet.

::

    <domains>/<D>/collection.json          of a domain, beside its items
    <domains>/<D>/model-<hash>.json        of the model that mapped it: see `model_item`
    <edition>/catalog/collection.json      of the nation
    <edition>/catalog/<D>/collection.json  of each domain, as published
    <edition>/catalog/items.parquet        all items: see `search`

A domain's folder is complete and has relative hrefs. The hrefs of an edition are absolute, because an edition is read
under two paths (`current` and `editions/<number>`) of different depth. Only `landcover publish` writes these files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pystac
import rustac
from pystac.utils import str_to_datetime

from pipeline import legend
from pipeline.config import Recipe
from pipeline.domain import Domain
from pipeline.durable import replacing, write_json
from pipeline.errors import product_error
from pipeline.fingerprint import PRODUCT_VERSION
from pipeline.legend import LAYERS
from pipeline.products.stac.hrefs import absolute_href, relative_href
from pipeline.products.stac.model_item import TASK, model_item
from pipeline.products.tile.seal import SealedTile
from pipeline.products.tile.stac_item import MAPPED, TITLES, classes_of, model_file, reading_item, shares
from pipeline.stac_fields import extension_schemas, providers
from pipeline.untrusted.documents import read_json
from pipeline.untrusted.own_checksum import KEY

ITEMS = "items.parquet"
ITEM = "landcover:item"
"""Property of a published item: the path of its JSON from the folder of `ITEMS`."""
_EXTENSIONS = extension_schemas(
    "projection/v2.0.0", "classification/v2.0.0", "scientific/v1.0.0", "version/v1.2.0", "mlm/v1.4.0"
)
_DESCRIPTION = "Land cover at 0.20 m as COGs: the FLAIR class of each pixel, and the network's confidence in it"


def read_item(sealed: SealedTile) -> dict[str, Any]:
    """The JSON of a tile's item; shares and collection are added to items of older versions.

    Raises:
        ProductError: it cannot be read.
    """
    with reading_item(sealed.item_path):
        content: dict[str, Any] = read_json(sealed.item_path)
        content.pop(KEY, None)  # of the file, not of the tile
        if MAPPED not in content["properties"]:
            classes = content["assets"]["landcover"]["classification:classes"]
            live = [int(c["value"]) for c in classes if c["value"] != legend.NODATA]
            content["properties"] |= shares(sealed.class_pixels, live)
    return content | {"collection": sealed.domain}


def with_absolute_hrefs(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """An item or collection of `folder` whose hrefs are absolute."""
    return {
        **content,
        "links": [link | {"href": absolute_href(link["href"], folder)} for link in content["links"]],
        "assets": {
            key: asset | {"href": absolute_href(asset["href"], folder)} for key, asset in content["assets"].items()
        },
    }


def write_domain(folder: Path, sealed: Sequence[SealedTile], *, recipe: Recipe) -> pystac.Collection:
    """Writes a domain's `collection.json`, and an item for each model that mapped its tiles.

    Args:
        folder: of the domain's products.
        sealed: its tiles; at least one.
        recipe: the campaign's; models of other recipes get no item.

    Returns:
        The collection, with links relative to `folder`.

    Raises:
        ProductError: an item cannot be read.
        StorageError: the folder cannot be written.
    """
    items = [read_item(s) for s in sealed]
    models = {
        i["properties"]["landcover:weights_sha256"]: i
        for i in items
        if i["properties"]["landcover:recipe"] == recipe.name
    }
    for weights, item in sorted(models.items()):
        write_json(folder / model_file(weights), model_item(recipe, sealed=item))
    collection = _collection(sealed[0].domain, items)
    links = [("derived_from", model_file(weights)) for weights in sorted(models)]
    for rel, name in (*links, *(("item", tile.item_path.name) for tile in sealed)):
        collection.add_link(pystac.Link(rel, f"./{name}", media_type=pystac.MediaType.GEOJSON))
    _add_gis_files(collection, f"./{collection.id}-", quick_look="./quicklook.png")
    _write(folder / "collection.json", collection)
    return collection


def _add_gis_files(collection: pystac.Collection, prefix: str, *, quick_look: str) -> None:
    """Adds what `write_gis` writes as assets; `prefix` is that of the hrefs of indexes and style."""
    for href, media, role in (
        (quick_look, pystac.MediaType.PNG, "overview"),
        (f"{prefix}landcover.gti.gpkg", pystac.MediaType.GEOPACKAGE, "data"),
        (f"{prefix}confidence.gti.gpkg", pystac.MediaType.GEOPACKAGE, "data"),
        (f"{prefix}landcover.qml", pystac.MediaType.XML, "style"),
        (f"{prefix}landcover-colour-blind.qml", pystac.MediaType.XML, "style"),
    ):
        collection.add_asset(Path(href).name, pystac.Asset(href, media_type=media, roles=[role]))


def write_edition(
    folder: Path, domains: Mapping[Domain, tuple[pystac.Collection, Sequence[SealedTile]]], *, number: int
) -> None:
    """Writes the catalog of an edition.

    Args:
        folder: `<edition>/catalog`.
        domains: name → the collection that `write_domain` returned, and the domain's tiles.
        number: of the edition.

    Raises:
        ProductError: an item cannot be read.
        StorageError: the folder cannot be written.
    """
    items = []
    for name, (collection, sealed) in sorted(domains.items()):
        home = sealed[0].item_path.parent
        content = with_absolute_hrefs(collection.to_dict(include_self_link=False, transform_hrefs=False), home)
        content["links"] = [link for link in content["links"] if link["rel"] not in ("root", "parent")]
        content["links"].append({"rel": "parent", "href": "../collection.json", "type": pystac.MediaType.JSON})
        write_json(folder / name / "collection.json", content)
        items += [_published(s, folder) for s in sealed]
    nation = _collection("landcover", items, edition=number)
    for name in sorted(domains):
        nation.add_link(pystac.Link("child", f"./{name}/collection.json", media_type=pystac.MediaType.JSON, title=name))
    mirror = pystac.Asset(f"./{ITEMS}", media_type="application/vnd.apache.parquet", roles=["collection-mirror"])
    nation.add_asset(ITEMS, mirror)
    nation.add_asset("product.zarr", pystac.Asset("../product.zarr", media_type=pystac.MediaType.ZARR, roles=["data"]))
    _add_gis_files(nation, "../", quick_look="../quicklook.png")
    added = pystac.Link("related", "../layers/collection.json", media_type=pystac.MediaType.JSON)
    nation.add_link(added)  # what later commands make of the edition: see `layer_collection`
    write_items(folder / ITEMS, items)
    _write(folder / "collection.json", nation)


def _published(sealed: SealedTile, folder: Path) -> dict[str, Any]:
    item = with_absolute_hrefs(read_item(sealed), sealed.item_path.parent)
    # By this path from the catalog's folder `search` finds the tile after the whole product was moved.
    item["properties"] |= {ITEM: relative_href(sealed.item_path, folder)}
    return item


def write_items(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    """Writes items as stac-geoparquet, in order of their ids.

    Raises:
        ProductError: the items do not fit one table.
        StorageError: it cannot be written.
    """
    # Parquet has no columns without fields, so empty properties are left out.
    table = [
        {**item, "properties": {key: value for key, value in item["properties"].items() if value != {}}}
        for item in sorted(items, key=lambda i: str(i["id"]))
    ]
    with (
        product_error(f"{path}: the items cannot be written as stac-geoparquet", rustac.RustacError),
        replacing(path) as temporary,
    ):
        rustac.write_sync(str(temporary), table, format="parquet")


def _collection(name: str, items: Sequence[Mapping[str, Any]], *, edition: int | None = None) -> pystac.Collection:
    """A collection of these items, without links and assets."""
    properties = [i["properties"] for i in items]
    bounds = list(zip(*(i["bbox"] for i in items), strict=True))
    start = min(str_to_datetime(p["start_datetime"]) for p in properties)
    end = max(str_to_datetime(p["end_datetime"]) for p in properties)
    licences = sorted({str(p["license"]) for p in properties})
    first = {key: properties[0][key] for key in ("sci:citation", "sci:doi") if key in properties[0]}
    collection = pystac.Collection(
        id=name,
        title=f"Land cover of {name}" if edition is None else f"Land cover, edition {edition}",
        description=_DESCRIPTION,
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(bounds[0]), min(bounds[1]), max(bounds[2]), max(bounds[3])]]),
            pystac.TemporalExtent([[start, end]]),
        ),
        license=licences[0] if len(licences) == 1 else "other",
        providers=[
            pystac.Provider.from_dict(p) for p in providers("; ".join(_once(properties, "landcover:attribution")))
        ],
        stac_extensions=list(_EXTENSIONS),
        extra_fields={"version": str(PRODUCT_VERSION if edition is None else edition), **first},
        summaries=pystac.Summaries(
            {
                "gsd": _once(properties, "gsd"),
                "proj:code": _once(properties, "proj:code"),
                "mlm:name": _once(properties, "landcover:recipe"),
                "mlm:tasks": [TASK],
                "landcover:weights_sha256": _once(properties, "landcover:weights_sha256"),
            }
        ),
    )
    live = sorted({int(c["value"]) for i in items for c in i["assets"]["landcover"]["classification:classes"]})
    assets: dict[str, dict[str, Any]] = {
        layer: {"type": pystac.MediaType.COG, "roles": ["data"], "title": TITLES[layer]} for layer in LAYERS
    }
    assets["landcover"]["classification:classes"] = classes_of(legend.classes(v for v in live if v != legend.NODATA))
    collection.item_assets = {layer: pystac.ItemAssetDefinition(fields) for layer, fields in assets.items()}
    return collection


def _once(properties: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return sorted({p[key] for p in properties if key in p})


def _write(path: Path, collection: pystac.Collection) -> None:
    write_json(path, collection.to_dict(include_self_link=False, transform_hrefs=False))
