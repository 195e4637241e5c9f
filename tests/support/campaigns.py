"""A campaign that runs in seconds: a small delivery, a random network and a YAML file."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.config import Campaign, ClusterSection, DomainSection, ModelSection, load_campaign, load_recipe
from pipeline.model.network import build_network
from pipeline.products.manifest import SUMS
from pipeline.sources.catalog.index import index
from tests.support.deliveries import Delivery, make_delivery
from tests.support.waiting import count_files

TILE = 500
RECIPE = {
    "name": "tiny",
    "encoder": "tu-regnetx_002",
    "decoder_channels": [16, 16, 8, 8, 8],
    "mean": [120.0] * 5,
    "std": [50.0] * 5,
    "live": list(range(1, 13)),
}
SIX = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))


def write_weights(path: Path, recipe: Path, *, seed: int = 0) -> Path:
    """A random network in the layout of FLAIR-INC files."""
    torch.manual_seed(seed)
    state = build_network(load_recipe(str(recipe))).state_dict()
    torch.save(OrderedDict((f"model.seg_model.{k}", v) for k, v in state.items()), path)
    return path


@dataclass(frozen=True, eq=False)
class Made:
    """A campaign on disk."""

    folder: Path
    delivery: Delivery

    @property
    def config(self) -> Path:
        return self.folder / "campaign.yaml"

    @property
    def campaign(self) -> Campaign:
        return load_campaign(self.config)

    @property
    def products(self) -> Path:
        return self.folder / "products"

    def change(self, **sections: Any) -> "Made":
        """Replaces sections of the YAML file."""
        content = yaml.safe_load(self.config.read_text()) | sections
        self.config.write_text(yaml.safe_dump(content))
        return self

    def copy(self, folder: Path) -> "Made":
        """A copy in a new folder, with the same products."""
        shutil.copytree(self.folder, folder, symlinks=True)
        made = Made(folder, replace(self.delivery, folder=folder / "delivery"))
        made.index()
        return made

    def index(self) -> None:
        index([self.delivery.folder], domain=self.delivery.domain, catalog=self.folder / "catalog", tile_size=TILE)

    def imagery(self, tile: str) -> Path:
        """The RVB file of a tile."""
        (path,) = (p for p in self.delivery.folder.rglob(f"*{tile}-LA93-0M20-E080.*"))
        return path


def make_campaign(folder: Path, *, at: Iterable[tuple[int, int]] = SIX, suffix: str = "tif") -> Made:
    """Tiles of 100 m, indexed, with random weights; blocks of 250 px in windows of 224 px."""
    folder.mkdir(parents=True, exist_ok=True)
    delivery = make_delivery(folder / "delivery", at=at, size=TILE, suffix=suffix)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    write_weights(folder / "weights.pth", folder / "tiny.yaml")
    left, bottom, right, top = delivery.window.bounds
    campaign = {
        "name": "tiny",
        "catalog": "catalog",
        "model": {"weights": "weights.pth", "recipe": "tiny.yaml"},
        "domains": [{"name": delivery.domain}],
        "engine": "torch",
        "grid": {"tile": TILE, "block": 250, "core": 125, "halo": 32, "window": 224},
        "output": {"extent_km": [left / 1000, bottom / 1000, right / 1000, top / 1000], "chunk": 100},
        "cluster": {"gdal_cache_mb": 64, "decoded_cache_mb": 64},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(campaign))
    made = Made(folder, delivery)
    made.index()
    return made


def campaign_with_cluster(folder: Path, **section: Any) -> Campaign:
    """A campaign without files, to open the cluster that its section describes."""
    return Campaign(
        name="tiny",
        catalog=folder / "catalog",
        model=ModelSection(weights="none"),
        domains=(DomainSection(name="D034_2021"),),
        cluster=ClusterSection(**section),
    )


def cog_bytes(folder: Path) -> dict[str, str]:
    """Name → hash of all COGs below a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.tif"))}


def strays(folder: Path) -> list[Path]:
    """Files with a temporary name, or of a kind that neither a run nor a publish writes."""
    known = (".tif", ".json", ".gpkg", ".qml", ".png")
    return [
        p
        for p in folder.rglob("*")
        if p.is_file() and (p.name.startswith(".") or (p.suffix not in known and p.name != SUMS))
    ]


def start(made: Made, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts `landcover run` in a process group of its own."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(made.config), *arguments]
    with (made.folder / "run.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def wait_for_cogs(made: Made, process: subprocess.Popen[bytes], count: int) -> None:
    """Waits until there are this many COGs, finished or under temporary names."""
    while count_files(made.products, "*.tif") < count:
        assert process.poll() is None, (made.folder / "run.log").read_text()
        time.sleep(0.02)


def workers_of(driver: int) -> list[int]:
    """The processes below a driver that are Dask workers."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(int(rest[1]), []).append(pid)
    found, waiting = [], [driver]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kills driver and workers at once, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
