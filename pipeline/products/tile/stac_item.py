"""The STAC item of a sealed tile: its place, files, classes and provenance."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac
from pystac.errors import STACValidationError

from pipeline import legend
from pipeline.errors import MALFORMED, product_error
from pipeline.fingerprint import PRODUCT_VERSION
from pipeline.grid import RESOLUTION_M
from pipeline.halo import Layout
from pipeline.legend import LAYERS, Layer
from pipeline.products.tile.cog import FileFacts
from pipeline.stac_fields import checksum, extension_schemas, footprint, origin_fields, projection, time_span

if TYPE_CHECKING:
    from pipeline.products.tile.seal import SealedTile

_EXTENSIONS = extension_schemas(
    "projection/v2.0.0",
    "raster/v2.0.0",
    "classification/v2.0.0",
    "file/v2.1.0",
    "processing/v1.2.0",
    "scientific/v1.0.0",
    "version/v1.2.0",
)
MAPPED = "landcover:mapped"
CONFIDENCE = "landcover:confidence"
SWITCHED_OFF = "landcover:switched_off_pixels"
NOVELTY = "landcover:novelty"
_RECORDED = ("campaign", "recipe", "weights", "weights_sha256", "engine", "precision", "engine_threads")
"""Fields of `Provenance` that are item properties of the same name."""
_ORIGIN = ("licence", "attribution", "citation", "doi")
TITLES: dict[Layer, str] = {"landcover": "Land cover, FLAIR values", "confidence": "Confidence, 0..255"}


@dataclass(frozen=True)
class Provenance:
    """How a tile was mapped, as written to its item and COGs. It does not decide which tiles are mapped again."""

    campaign: str
    """Name of the campaign."""
    weights: str
    """Path or `hf://…` of the weights."""
    weights_sha256: str
    """Their SHA-256 in hexadecimal."""
    recipe: str
    """Name of the recipe."""
    engine: str
    """`torch` or `openvino`: resolved, never `auto`."""
    precision: str
    """Such as `fp32`."""
    engine_threads: int
    """Threads of the engine, resolved when the tile was submitted."""
    layout: Layout
    """How blocks were cut into windows."""
    software: tuple[tuple[str, str], ...]
    """(package, version) pairs."""
    licence: str = "etalab-2.0"
    """SPDX identifier."""
    attribution: str = "IGN"
    """Producers and products of imagery and heights: `IGN, BD ORTHO 2021, LiDAR HD`."""
    quantized_sha256: str = ""
    """SHA-256 in hexadecimal of the network in int8; empty in other precisions."""
    citation: str = ""
    """Citation of the model, and of data that ask for one."""
    doi: str = ""
    """DOI of the model's citation."""
    acquired: tuple[date, date] | None = None
    """First and last day on which the tile's imagery was taken; None where only the vintage is known."""
    depends_on: tuple[tuple[str, str], ...] = ()
    """(name, digest) of each part of the fingerprint: the parts that differ are why a tile is mapped again."""
    members: tuple[tuple[str, str, str], ...] = ()
    """(weights, SHA-256, recipe) of each network whose probabilities were averaged; empty for a single one."""
    tta: str = "none"
    """Test-time augmentation: `none`, `flips` or `d4`."""
    temperature: float = 1.0
    """Of averaged probabilities."""
    novelty: float | None = None
    """How unlike the training imagery the tile's is, see `pipeline.model.reference_features`; None without a reference,
    or without data."""
    novelty_fingerprint: str = ""
    """Of the map's fingerprint and the reference; empty without a reference."""

    def tags(self) -> dict[str, str]:
        """Tags of the COGs: campaign, licence, attribution, citation, days of acquisition, weights."""
        given = {name: getattr(self, name) for name in ("campaign", "recipe", "weights_sha256", *_ORIGIN)} | {
            "acquired": "/".join(day.isoformat() for day in self.acquired or ()),
            "TIFFTAG_COPYRIGHT": f"{self.attribution}, {self.licence}",
        }
        return {key: value for key, value in given.items() if value}


def reading_item(path: Path) -> AbstractContextManager[None]:
    """Turns what a damaged item raises inside the block into a ProductError that names it."""
    return product_error(f"{path}: damaged item; `landcover run` maps the tile again", *MALFORMED)


def build_item(
    sealed: "SealedTile",
    *,
    confidence_sum: int,
    live: Sequence[int],
    provenance: Provenance,
    inputs: Sequence[str],
) -> dict[str, Any]:
    """The item as JSON-able content: STAC 1.1 with its projection, raster, classification, file, processing,
    scientific and version fields, links to inputs and model, and ours under `landcover:`.

    Args:
        sealed: the tile with its COGs, to which hrefs are relative; the domain's year is the time span where
            `provenance` has no days.
        confidence_sum: of all pixels, each 0..255.
        live: FLAIR values that can occur.
        provenance: how the tile was mapped.
        inputs: hrefs of the input items.
    """
    window, crs = sealed.tile.window, sealed.crs
    geometry, bbox = footprint(window, crs)
    start, middle, end = time_span(provenance.acquired, year=sealed.domain.year)
    item = pystac.Item(
        id=f"{sealed.domain}-{sealed.tile.name}",
        geometry=geometry,
        bbox=bbox,
        datetime=middle,
        start_datetime=start,
        end_datetime=end,
        properties=projection(window, crs)
        | _processing(provenance)
        | _ours(sealed, provenance)
        | shares(sealed.class_pixels, live)
        | mean_confidence(sealed.class_pixels, confidence_sum),
        stac_extensions=list(_EXTENSIONS),
        collection=sealed.domain,
    )
    for layer in LAYERS:
        item.add_asset(layer, _asset(layer, sealed.file(layer), live))
    item.add_link(pystac.Link("collection", "./collection.json", media_type=pystac.MediaType.JSON))
    for href in inputs:
        item.add_link(pystac.Link("derived_from", href))
    # The MLM extension recommends this link. The model's fields are in the model's item and in the collection,
    # because an item that declares the extension must have all of them.
    model, media = f"./{model_file(provenance.weights_sha256)}", pystac.MediaType.GEOJSON
    name = {"mlm:name": provenance.recipe}
    item.add_link(pystac.Link("derived_from", model, media_type=media, extra_fields=name))
    if provenance.doi:
        item.add_link(pystac.Link("cite-as", f"https://doi.org/{provenance.doi}"))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def share_name(value: int) -> str:
    """The item property that holds the share of a class: 9 → `landcover:share_vineyard`."""
    return f"landcover:share_{legend.BY_VALUE[value].slug}"


def shares(class_pixels: Mapping[int, int], live: Sequence[int]) -> dict[str, float]:
    """Item properties for filters: each class's share of the mapped pixels, and the mapped share of the tile, 0..1.

    A tile without mapped pixels has no class shares.

    Args:
        class_pixels: FLAIR value → pixels, 0 (no data) included.
        live: FLAIR values that can occur.
    """
    total = sum(class_pixels.values())
    mapped = total - class_pixels.get(legend.NODATA, 0)
    of_classes = {share_name(v): class_pixels.get(v, 0) / mapped for v in live} if mapped else {}
    return {MAPPED: mapped / total, **of_classes}


def mean_confidence(class_pixels: Mapping[int, int], confidence_sum: int) -> dict[str, float]:
    """The item property of the mapped pixels' mean confidence, 0..1; empty for a tile without mapped pixels."""
    mapped = sum(class_pixels.values()) - class_pixels.get(legend.NODATA, 0)
    return {CONFIDENCE: confidence_sum / (255 * mapped)} if mapped else {}


def model_file(weights_sha256: str) -> str:
    """File name of a model's STAC item, in the folder of each domain that was mapped with the model."""
    return f"model-{weights_sha256[:12]}.json"


def _processing(provenance: Provenance) -> dict[str, Any]:
    origin = origin_fields(**{name: getattr(provenance, name) for name in _ORIGIN})
    return origin | {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gsd": RESOLUTION_M,
        "processing:level": "L4",
        "processing:software": dict(provenance.software),
        "processing:lineage": (
            f"{provenance.recipe} ({provenance.weights}, SHA-256 {provenance.weights_sha256}) "
            f"by {provenance.engine} {provenance.precision} over the imagery and heights under derived_from; "
            f"campaign {provenance.campaign}"
        ),
    }


def _ours(sealed: "SealedTile", provenance: Provenance) -> dict[str, Any]:
    given = {
        "landcover:domain": sealed.domain,
        "landcover:tile": sealed.tile.name,
        "landcover:fingerprint": sealed.fingerprint,
        "landcover:product_version": PRODUCT_VERSION,
        "version": str(PRODUCT_VERSION),
        "landcover:class_pixels": {str(value): count for value, count in sorted(sealed.class_pixels.items())},
        "landcover:acquired": provenance.acquired is not None,
        **{f"landcover:{name}": getattr(provenance, name) for name in _RECORDED},
        "landcover:layout": asdict(provenance.layout),
    }
    optional = {
        "landcover:quantized_sha256": provenance.quantized_sha256,
        "landcover:depends_on": dict(sealed.depends_on),
        "landcover:members": [dict(zip(("weights", "sha256", "recipe"), m, strict=True)) for m in provenance.members],
        "landcover:tta": provenance.tta if provenance.tta != "none" else "",
        "landcover:temperature": provenance.temperature if provenance.temperature != 1.0 else None,
        NOVELTY: provenance.novelty,
        "landcover:novelty_fingerprint": provenance.novelty_fingerprint,
    }
    counted = {} if sealed.switched_off is None else {SWITCHED_OFF: sealed.switched_off}
    return given | counted | {key: value for key, value in optional.items() if value not in (None, "", {}, [])}


def _asset(layer: Layer, facts: FileFacts, live: Sequence[int]) -> pystac.Asset:
    fields: dict[str, Any] = {
        "bands": [{"name": layer, "data_type": "uint8", "nodata": legend.NODATA}],
        "raster:spatial_resolution": RESOLUTION_M,
        "raster:sampling": "area",
        "file:size": facts.size,
        "file:checksum": checksum(facts.sha256),
    }
    if layer == "landcover":
        no_data = {"value": legend.NODATA, "name": "no_data", "title": "no data", "nodata": True}
        fields["classification:classes"] = [no_data, *classes_of(legend.classes(live))]
    else:
        fields["raster:scale"] = 1 / 255
    return pystac.Asset(
        f"./{facts.path.name}",
        title=TITLES[layer],
        media_type=pystac.MediaType.COG,
        roles=["data"],
        extra_fields=fields,
    )


def classes_of(classes: Sequence[legend.LandCover]) -> list[dict[str, Any]]:
    """`classification:classes` of these classes."""
    return [
        {"value": c.value, "name": c.slug, "title": c.name, "color_hint": c.colour.removeprefix("#").upper()}
        for c in classes
    ]


def invalid(content: Mapping[str, Any]) -> str | None:
    """Why this is not a STAC item by the core schema that comes with pystac; None where it is one.

    The schemas of extensions would have to be downloaded, so they are not used.
    """
    # Importing jsonschema takes seconds where its optional format checkers are installed, and workers never validate.
    from pystac.validation import validate_dict

    version = str(content.get("stac_version", ""))
    if version != pystac.get_stac_version():
        return f"expected STAC {pystac.get_stac_version()}, got {version!r}"
    try:
        validate_dict(dict(content), pystac.STACObjectType.ITEM, version, extensions=[])
    except STACValidationError as error:
        return str(error).partition("\n\n")[0].replace("\n", ": ")
    return None
