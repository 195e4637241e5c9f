"""Makes one small, whole file of each format in `formats`, in a folder that can be copied."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import safetensors.torch
import shapely
import torch

from pipeline.cluster.slurm.node import NodeWork
from pipeline.config import config_folder
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.lock import Owner
from pipeline.products.assessment.reference_sample import LAYER
from pipeline.products.assessment.sample_design import SampleDesign
from pipeline.products.manifest import SIZES, SUMS
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.throughput import MeasuredRate, save_rates
from pipeline.runs.publishing.publish import publish
from pipeline.runs.slurm.requeue import RestartProgress
from pipeline.runs.tracking.run_record import RunRecord
from pipeline.sources.download.record import DownloadedEdition, DownloadedFile, DownloadRecord, write_record
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.staging.cleanup import REMOVED_LIST
from pipeline.sources.staging.height_record import HeightHoles, HeightRecord
from tests.support.archives import noise_bytes, pack
from tests.support.campaigns import make_campaign
from tests.support.dask_client import in_process_client
from tests.support.dbase import write_table
from tests.support.deliveries import hills, write_raster, write_relief
from tests.support.flair_dataset import random_set
from tests.support.geoplateforme import as_xml
from tests.support.training_runs import write_run
from tests.untrusted.api_answers import write_answers


def make_inputs(folder: Path) -> None:
    """Writes the files: `a` is a published campaign, `b` a delivery in other formats, `c` has single files."""
    _published(folder)
    made = make_campaign(folder / "b", at=((0, 0),), suffix="jp2")
    shutil.rmtree(made.delivery.folder / "DTM")
    corner = made.delivery.tiles[0].name
    write_relief(made.delivery.folder, "dtm", hills, corner=corner, side_m=100, step=1.0, as_rge_alti=True)
    made.index()
    here = folder / "c"
    (here / "dates").mkdir(parents=True)
    write_table(here / "dates" / "dalles.dbf", {"NOM": 80, "DATE_VOL": 10}, [(f"x-{corner}-LA93", "2021-07-14")])
    pack(here / "archives" / "a.7z", {"in/a.txt": b"a" * 3000, "in/b.bin": noise_bytes(2000, 1), "in/empty": b""})
    random_set(here / "patches", zones=1, patches=1)
    item = next((folder / "a/catalog").rglob("D*-*.json"))
    write_answers(here / "api", json.loads(item.read_text()))
    _lists(here)
    _downloads(here)
    _vectors(here)
    _rasters(here)
    _records(here)


def _published(folder: Path) -> None:
    made = make_campaign(folder / "a", at=((0, 0),))
    with in_process_client() as client:
        run(make_plan(made.campaign), client=client)
        publish(made.campaign, client=client)
    state = torch.load(made.folder / "weights.pth", weights_only=True)
    torch.save(
        {"state_dict": dict(state), "epoch": 1, "pytorch-lightning_version": "2.5"}, made.folder / "weights.ckpt"
    )
    safetensors.torch.save_file(dict(state), made.folder / "weights.safetensors")
    products = made.products / made.delivery.domain
    write_json(products / "run.json", RunRecord(failed={"a": "b"}, in_flight={"c": "d"}).as_json())
    write_json(products / "requeue.json", asdict(RestartProgress("ab", 1)))
    (made.folder / "national/editions/highest").write_text("7")
    older = folder / "older"
    shutil.copytree(made.folder / "national", older, symlinks=True)
    for name in (SUMS, SIZES):
        (older / "current" / name).unlink()
    record = older / "current/edition.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"manifest": False}))


def _downloads(here: Path) -> None:
    """A page of a feed in both formats, and a downloaded folder with its record."""
    url, paging = "https://host/download/P/E/a.7z", {"page": 1, "pagesize": 2, "pagecount": 1, "totalentries": 2}
    file = {"title": "a.7z", "id": url, "content": "0" * 32, "link": [{"href": url, "length": 5}]}
    entries = [file, {"title": "E", "id": "https://host/resource/P/E", "link": []}]
    (here / "feed.xml").write_bytes(as_xml(entries, paging))
    (here / "feed.json").write_text(json.dumps({**paging, "entry": entries}))
    (here / "download").mkdir()
    (here / "download" / "a.7z").write_bytes(b"12345")
    files = (DownloadedFile(path="a.7z", length=5, md5="0" * 32),)
    edition = DownloadedEdition(name="E", part="rvb", url="https://host/resource/P/E", files=files)
    record = DownloadRecord(domain=Domain("D034_2021"), service="https://host", editions=(edition,))
    write_record(here / "download", record)


def _lists(here: Path) -> None:
    pairs = [(next(here.rglob(f"{kind}_000000.tif"))).relative_to(here) for kind in ("IMG", "MSK")]
    (here / "list.csv").write_text(f"{pairs[0]},{pairs[1]}\n")
    about = [{"image_id": "IMG_000000", "domain": "D004_2021", "zone": "Z1_NN"}]
    (here / "patches.json").write_text(json.dumps(about))
    write_run(here / "training")
    shutil.copy(min((config_folder() / "clusters").glob("*.yaml")), here / "site.yaml")
    quantized = "<net><rt_info><landcover>{}</landcover></rt_info></net>"
    values = "".join(f'<{n} value="{"ab" * 32}"/>' for n in ("weights_sha256", "recipe_digest"))
    (here / "int8.xml").write_text(quantized.format(values))
    (here / "int8.bin").write_bytes(b"x")


def _vectors(here: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 30)
    circle = shapely.Polygon(np.column_stack([1.55 + 0.04 * np.cos(angles), 43.55 + 0.04 * np.sin(angles)]))
    zones = gpd.GeoDataFrame({"class": [1, 2]}, geometry=[circle, circle.buffer(0.01)], crs="EPSG:4326")
    zones.to_file(here / "zones.geojson", driver="GeoJSON")
    zones.to_file(here / "zones.gpkg", driver="GPKG")
    _sample(here / "sample.gpkg")


def _sample(path: Path) -> None:
    areas = {1: 10.0, 2: 20.0}
    design = SampleDesign(1, 0, {1: 1, 2: 2}, areas, 0.2, "EPSG:2154", "ab")
    places = [(700_000.0 + i, 6_600_000.0) for i in range(3)]
    columns = {"point": [1, 2, 3], "mapped": [1, 2, 2], "reference": [1, 2, 3], "cluster": 0, "design": design.text}
    columns |= {"mapped_m2": [areas[v] for v in (1, 2, 2)], "x": [x for x, _ in places], "y": [y for _, y in places]}
    columns["seal"] = [design.seal(k, v, 0, xy) for k, (v, xy) in enumerate(zip((1, 2, 2), places, strict=True), 1)]
    sample = gpd.GeoDataFrame(columns, geometry=shapely.points(places), crs=design.crs)
    sample.to_file(path, layer=LAYER, driver="GPKG")
    rows = [f"{design.identity},{point},{point}\r\n" for point in (1, 2, 3)]
    path.with_name("answers.csv").write_text("sample,point,reference\r\n" + "".join(rows), newline="")


def _rasters(here: Path) -> None:
    rng = np.random.default_rng(0)
    write_raster(
        here / "raster.tif", rng.integers(0, 256, (3, 200, 300), np.uint8), 700_000, 6_600_000, compress="deflate"
    )
    write_raster(
        here / "reference.tif", rng.integers(1, 13, (1, 100, 100), np.uint8), 1.5, 43.6, step=0.001, crs="EPSG:4326"
    )
    height = HeightRecord(HeightHoles(0.1, 0.05, "interpolate"), {"dsm/a.tif": "10 20"})
    with rasterio.open(write_raster(here / "height.tif", np.ones((1, 50, 50), np.uint8), 0, 0), "r+") as file:
        file.update_tags(**height.to_tags())
    (here / "raster.vrt").write_text(
        '<VRTDataset rasterXSize="300" rasterYSize="200">\n<SRS>EPSG:2154</SRS>\n'
        "<GeoTransform>700000, 0.2, 0, 6600000, 0, -0.2</GeoTransform>\n"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}">\n<SimpleSource>\n<SourceFilename relativeToVRT="1">'
            f"raster.tif</SourceFilename>\n<SourceBand>{band}</SourceBand>\n</SimpleSource>\n</VRTRasterBand>\n"
            for band in (1, 2, 3)
        )
        + "</VRTDataset>\n"
    )


def _records(here: Path) -> None:
    cache = ScanCache(here / "seen.jsonl")
    for key in "abc":
        cache.get_or_make([key], lambda: {"header": [1, 2.5, None], "signature": "x"})
    removed = {"DSM/a.tif": {"size": 1, "crc32": 2, "heights": ["raster.tif"]}}
    (here / REMOVED_LIST).write_text(json.dumps(removed))
    NodeWork({"n1": "10.0.0.1"}, workers=None, processes=2, threads=1, gpus=False, memory=1 << 30).write(here)
    os.environ["LANDCOVER_CACHE"] = str(here / "cache")
    save_rates([MeasuredRate.here("read", 3.0)])
    (here / ".lock").mkdir()
    (here / ".lock" / "token.json").write_text(json.dumps(Owner.this_process().__dict__))
