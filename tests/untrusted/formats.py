"""The formats that `make fuzz` damages: one small file of each, and how the package reads it.

Every reader returns what the package would use of the file. Where that differs from the whole file's without an error,
it is wrong if something in the product tells: a checksum of the file (`checksum`), its place and shape that the file's
name or its partner repeat (`header`), or these and the size that the catalog repeats (`catalog`). Otherwise the content
is data without a second source, such as a pixel of a delivery, a key of a campaign or a polygon: nobody can tell, and
it counts as undetectable.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import torch
from odc.geo.geobox import GeoBox

from pipeline.cluster.slurm.node import NodeWork
from pipeline.cluster.slurm.site import load_site
from pipeline.config import load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ProductError, SourceError
from pipeline.inference.quantized_model import read_quantized
from pipeline.lock import lock_owner
from pipeline.model.weights import load_model
from pipeline.products.analysis.areas import read_zones
from pipeline.products.analysis.open_product import open_product
from pipeline.products.assessment.reference_sample import read_sample
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.edition_record import current_edition, damaged_files, next_number
from pipeline.products.national.ownership import read_boundary
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.stac.search import search
from pipeline.products.tile.domain_manifest import changed_beside
from pipeline.products.tile.seal import list_sealed
from pipeline.products.tile.verify import check
from pipeline.progress import SILENT
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.throughput import read_rates
from pipeline.runs.slurm import requeue
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.acquisition_dates import read_acquisition_dates
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.download.feed import parse_page
from pipeline.sources.download.record import downloaded_paths
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.labels.patches import find_patches, read_image, read_mask
from pipeline.sources.labels.reference import Reference
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import Raster
from pipeline.sources.staging import height_record
from pipeline.sources.staging.archives import check_md5, find_archives
from pipeline.sources.staging.cleanup import REMOVED_LIST, read_removed
from pipeline.sources.staging.sevenzip import read_contents
from pipeline.sources.staging.unpack import check_members, locked_work_folder, missing_members, unpack
from pipeline.training.run_config import load_training_config
from tests.support.archives import files_of
from tests.support.campaigns import TILE
from tests.untrusted.api_answers import api_answers

DOMAIN = Domain("D034_2021")
Evidence = Literal["checksum", "catalog", "header", "nothing"]
Read = Callable[[Path], object]
"""Reads the file below a folder of `fuzz_inputs.make_inputs`."""


@dataclass(frozen=True)
class Format:
    """One file of a kind."""

    name: str
    place: str
    """Pattern of its path from the folder; the first that matches."""
    read: Read
    evidence: Evidence = "nothing"

    def path(self, folder: Path) -> Path:
        """The file."""
        return min(folder.glob(self.place))


def digest(*arrays: Any) -> str:
    """Of arrays, with their shapes."""
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def header(path: Path, evidence: Evidence) -> object:
    """What another file repeats of a raster: its place, shape and types, and its size in the catalog."""
    size = path.stat().st_size if evidence == "catalog" else 0
    try:
        with rasterio.open(path) as file:
            place = tuple(round(number, 6) for number in file.transform)  # a change below is no other place
            return repr((size, file.driver, file.shape, file.dtypes, file.crs, place, file.nodata))
    except (rasterio.RasterioIOError, ValueError):
        return size


def _refused(problems: Iterable[str]) -> None:
    if listed := list(problems):
        raise ProductError("; ".join(listed))


def _pixels(folder: Path) -> object:
    """Of the mosaic of a domain in the input catalog."""
    inputs = read_domain(folder / "catalog", DOMAIN, tile_size=TILE)
    if changes := inputs.changes(inputs.assets):  # as a plan asks
        raise SourceError(", ".join(changes.values()))
    pixels = Mosaic.of(inputs, bands=BANDS).read(inputs.tiles[0].tile.window)
    return [t.tile.name for t in inputs.tiles], digest(pixels.bands, pixels.valid)


def _indexed(folder: Path, *sources: str) -> object:
    catalog = Path(tempfile.mkdtemp())
    index([folder / s for s in sources or ("delivery",)], domain=DOMAIN, catalog=catalog, tile_size=TILE)
    items = [json.loads(p.read_text()) for p in sorted((catalog / DOMAIN).glob("D*.json"))]
    return [(i["geometry"], i["properties"].get("proj:transform"), i["assets"]) for i in items]


def _external(path: Path) -> object:
    add_catalog(files := CatalogFiles(), str(path), Query())
    return sorted(map(str, files.delivered)), sorted(map(str, files.ignored))


def _answered(folder: Path) -> object:
    with api_answers(folder) as url:
        add_catalog(files := CatalogFiles(), url, Query())
    return sorted(path.name for path in (*files.delivered, *files.ignored))


def _staged(folder: Path) -> object:
    out = Path(tempfile.mkdtemp())
    archives, _ = find_archives([folder / "a.7z"])
    check_md5(archives)
    contents = [(archive, read_contents(archive)) for archive in archives]
    check_members(contents, DOMAIN)
    with locked_work_folder(out) as work:
        for archive, inside in contents:
            wanted = missing_members(inside, out, removed={}, progress=SILENT)
            unpack(archive, inside, out, wanted=wanted, work=work, progress=SILENT)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files_of(out).items()}


def _planned(path: Path) -> object:
    campaign = load_campaign(path)
    plan = make_plan(campaign)
    return campaign, [tile.tile.name for domain in plan.domains for tile in domain.tiles]


def _weights(name: str, recipe: str = "tiny.yaml") -> Read:
    def read(folder: Path) -> object:
        model = load_model(folder / "a" / name, load_recipe(str(folder / "a" / recipe)))
        return digest(*(t.numpy() for t in model.network.state_dict().values() if isinstance(t, torch.Tensor)))

    return read


def _checked_tile(folder: Path) -> object:
    (sealed,) = list_sealed(folder / "a/products" / DOMAIN, DOMAIN, TILE)
    _refused(check(sealed))
    return sealed


def _checked_edition(folder: Path) -> object:
    edition = current_edition(folder / "a/national")
    assert edition is not None
    _refused(f"{edition.path / name}: {problem}" for name, problem in damaged_files(edition, read_all=True).items())
    _refused(check_shards(edition))
    return edition


def _checked_domain(folder: Path) -> object:
    home = folder / "a/products" / DOMAIN
    changed = changed_beside(home, DOMAIN, read_all=True, published=True)
    _refused(f"{home / name}: {problem}" for name, problem in changed.items())
    return None


def _opened(place: str, level: int | Literal["shares"] | None = None) -> Read:
    def read(folder: Path) -> object:
        opened = open_product(folder / place, level=level).load()
        return digest(*(opened[name].to_numpy() for name in sorted(map(str, opened.variables)) if name != "opened"))

    return read


def _found(folder: Path) -> object:
    return [item.to_dict(transform_hrefs=False) for item in search(folder / "a/national", bbox=(-10, 30, 20, 60))]


def _patch(folder: Path) -> object:
    found = find_patches([folder / "c/patches"])
    (patch,) = [p for p in found if p.name == found[0].name]
    return digest(read_image(patch, bands=BANDS), read_mask(patch))


def _listed(folder: Path) -> object:
    return find_patches([folder / "c/list.csv"], metadata=folder / "c/patches.json")


def _reference(name: str) -> Read:
    def read(folder: Path) -> object:
        geobox = GeoBox.from_bbox((1.5, 43.5, 1.6, 43.6), "EPSG:4326", shape=(50, 50))
        return digest(Reference.open(folder / "c" / name, field="class").read(geobox))

    return read


def _raster(place: str, *, allow_vrt: bool = False) -> Read:
    def read(folder: Path) -> object:
        raster = Raster.open(min(folder.glob(place)), bands=BANDS[:3], allow_vrt=allow_vrt)
        pixels = raster.read(raster.window)
        return digest(pixels.bands, pixels.valid)

    return read


def _cached(folder: Path) -> object:
    cache = ScanCache(folder / "c/seen.jsonl")
    return [cache.get(key) or {"header": [1, 2.5, None], "signature": "x"} for key in "abc"]


def _feed(name: str) -> Callable[[Path], object]:
    return lambda folder: parse_page((folder / "c" / name).read_bytes(), name)


def _answers(folder: Path) -> object:
    return digest(read_sample(folder / "c/sample.gpkg", answers=folder / "c/answers.csv").reference)


def _sample(folder: Path) -> object:
    sample = read_sample(folder / "c/sample.gpkg")
    return digest(sample.xy, sample.mapped, sample.reference), sample.mapped_m2


DELIVERED, INPUT = "delivery/BDORTHO*RVB*/**/*.", f"catalog/{DOMAIN}"
PRODUCT, EDITION = f"a/products/{DOMAIN}", "a/national/editions/000001"
STORE, PYRAMID = f"{EDITION}/product.zarr", f"{EDITION}/pyramid.zarr"
OLDER = "older/editions/000001"

FORMATS = (
    Format("imagery TIFF", f"a/{DELIVERED}tif", lambda f: _pixels(f / "a"), "catalog"),
    Format("indexed TIFF", f"a/{DELIVERED}tif", lambda f: _indexed(f / "a"), "header"),
    Format("elevation TIFF", "a/delivery/DSM/*.tif", lambda f: _pixels(f / "a"), "catalog"),
    Format("imagery JPEG 2000", f"b/{DELIVERED}jp2", lambda f: _pixels(f / "b"), "catalog"),
    Format("indexed JPEG 2000", f"b/{DELIVERED}jp2", lambda f: _indexed(f / "b"), "header"),
    Format("elevation grid", "b/delivery/DTM/*.asc", lambda f: _pixels(f / "b"), "catalog"),
    Format("table of days", "c/dates/dalles.dbf", lambda f: read_acquisition_dates([f / "c/dates"], year=DOMAIN.year)),
    Format("7z archive", "c/archives/a.7z", lambda f: _staged(f / "c/archives"), "checksum"),
    Format("list of md5 sums", "c/archives/a.7z.md5", lambda f: _staged(f / "c/archives"), "checksum"),
    Format("record of a height", "c/height.tif", lambda f: height_record._entry(f / "c/height.tif")),
    Format("input item", f"a/{INPUT}/{DOMAIN}-*.json", lambda f: _pixels(f / "a"), "checksum"),
    Format("input collection", f"a/{INPUT}/collection.json", lambda f: _pixels(f / "a"), "checksum"),
    Format("external item", f"a/{INPUT}/{DOMAIN}-*.json", lambda f: _external(f / "a/catalog/catalog.json")),
    Format("external catalog", "a/catalog/catalog.json", lambda f: _external(f / "a/catalog/catalog.json")),
    Format("first page of an API", "c/api/landing.json", lambda f: _answered(f / "c/api")),
    Format("answer of an API", "c/api/search.json", lambda f: _answered(f / "c/api")),
    Format("feed as XML", "c/feed.xml", _feed("feed.xml")),
    Format("feed as JSON", "c/feed.json", _feed("feed.json")),
    Format("record of a download", "c/download/download.json", lambda f: downloaded_paths(f / "c/download")),
    Format("campaign", "a/campaign.yaml", lambda f: _planned(f / "a/campaign.yaml")),
    Format("recipe", "a/tiny.yaml", _weights("weights.pth")),
    Format("cluster file", "c/site.yaml", lambda f: load_site(str(f / "c/site.yaml"))),
    Format("training file", "c/training/train.yaml", lambda f: load_training_config(f / "c/training/train.yaml")),
    Format("checkpoint .pth", "a/weights.pth", _weights("weights.pth")),
    Format("checkpoint .ckpt", "a/weights.ckpt", _weights("weights.ckpt")),
    Format("checkpoint .safetensors", "a/weights.safetensors", _weights("weights.safetensors")),
    Format("quantized network", "c/int8.xml", lambda f: read_quantized(f / "c/int8.xml").path.name),
    Format("sealed COG", f"{PRODUCT}/*-landcover.tif", _checked_tile, "checksum"),
    Format("sealed item", f"{PRODUCT}/{DOMAIN}-*.json", _checked_tile, "checksum"),
    Format("sums of a domain", f"{PRODUCT}/{SUMS}", _checked_domain, "checksum"),
    Format("sizes of a domain", f"{PRODUCT}/{SIZES}", _checked_domain, "checksum"),
    Format("opened COG", f"{PRODUCT}/*-landcover.tif", _opened(PRODUCT), "header"),
    Format("run record", f"{PRODUCT}/run.json", lambda f: status(load_campaign(f / "a/campaign.yaml"))),
    Format(
        "requeue record",
        f"{PRODUCT}/requeue.json",
        lambda f: requeue._read(load_campaign(f / "a/campaign.yaml"), DOMAIN),
    ),
    Format("edition", f"{EDITION}/edition.json", _checked_edition, "checksum"),
    Format("sums of an edition", f"{EDITION}/{SUMS}", _checked_edition, "checksum"),
    Format("sizes of an edition", f"{EDITION}/{SIZES}", _checked_edition, "checksum"),
    Format("dropped editions", "a/national/editions/highest", lambda f: next_number(f / "a/national")),
    Format("Zarr group", f"{STORE}/zarr.json", _opened("a/national"), "checksum"),
    Format("Zarr layer", f"{STORE}/landcover/zarr.json", _opened("a/national"), "checksum"),
    Format("Zarr shard", f"{STORE}/landcover/c/*/*", _opened("a/national"), "checksum"),
    Format("Zarr pyramid", f"{PYRAMID}/zarr.json", _opened("a/national", 2), "checksum"),
    Format("Zarr pyramid shard", f"{PYRAMID}/2/landcover/c/*/*", _opened("a/national", 2), "checksum"),
    Format("Zarr shares", f"{PYRAMID}/shares/count/zarr.json", _opened("a/national", "shares"), "checksum"),
    Format("Zarr group, no manifest", f"{OLDER}/product.zarr/zarr.json", _opened("older")),
    Format("Zarr layer, no manifest", f"{OLDER}/product.zarr/landcover/zarr.json", _opened("older")),
    Format("Zarr pyramid, no manifest", f"{OLDER}/pyramid.zarr/zarr.json", _opened("older", 2)),
    Format("searched catalog", f"{EDITION}/catalog/items.parquet", _found, "checksum"),
    Format("patch image", "c/patches/**/IMG_000000.tif", _patch, "header"),
    Format("patch mask", "c/patches/**/MSK_000000.tif", _patch, "header"),
    Format("list of patches", "c/list.csv", _listed),
    Format("metadata of patches", "c/patches.json", _listed),
    Format("boundary GeoJSON", "c/zones.geojson", lambda f: read_boundary(f / "c/zones.geojson").wkt),
    Format("zones GeoJSON", "c/zones.geojson", lambda f: read_zones(f / "c/zones.geojson", None, "EPSG:2154").to_wkt()),
    Format("zones GeoPackage", "c/zones.gpkg", lambda f: read_zones(f / "c/zones.gpkg", "class", "EPSG:2154").to_wkt()),
    Format("reference GeoJSON", "c/zones.geojson", _reference("zones.geojson")),
    Format("reference GeoPackage", "c/zones.gpkg", _reference("zones.gpkg")),
    Format("reference TIFF", "c/reference.tif", _reference("reference.tif")),
    Format("sample GeoPackage", "c/sample.gpkg", _sample),
    Format("answers to a sample", "c/answers.csv", _answers),
    Format("raster to predict", "c/raster.tif", _raster("c/raster.tif")),
    Format("JPEG 2000 to predict", f"b/{DELIVERED}jp2", _raster(f"b/{DELIVERED}jp2")),
    Format("virtual raster", "c/raster.vrt", _raster("c/raster.vrt", allow_vrt=True)),
    Format("scan cache", "c/seen.jsonl", _cached, "checksum"),
    Format("measured rates", "c/cache/rates.json", lambda _: read_rates()),
    Format("removed elevation", f"c/{REMOVED_LIST}", lambda f: read_removed(f / "c")),
    Format("work of a node", "c/node.json", lambda f: NodeWork.read(f / "c")),
    Format("lock", "c/.lock/token.json", lambda f: lock_owner(f / "c")),
)
