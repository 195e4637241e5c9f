"""Damaged documents: a reader returns what is right, or one clean error that names the file."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config import load_campaign
from pipeline.lock import Owner, lock_folder, lock_owner
from pipeline.products.analysis.open_product import open_product
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.edition_record import current_edition
from pipeline.products.tile.seal import read_sealed
from pipeline.runs.tracking.run_record import RunRecord, read_run_record
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.labels.patches import _read_metadata
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.mutations import mutate, outcome
from tests.support.products import product, publish, tile_at

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "60"))
"""Mutations of each format."""


@dataclass(frozen=True)
class Format:
    """A file, and how it is read. A mutation may change what a document says, so a value is compared only by digest."""

    name: str
    path: Path
    read: Callable[[], object]
    checked: bool = False
    """Whether a checksum makes every change visible: then a result must be that of the whole file."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_campaign(tmp_path_factory.mktemp("mutations"), at=((0, 0), (0, 1)))


@pytest.fixture(scope="module")
def formats(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    folder = tmp_path_factory.mktemp("product")
    domain, catalog = made.delivery.domain, made.folder / "catalog"
    item = next((catalog / domain).glob(f"{domain}-*.json"))
    sealed = product(folder / "domains", "D064_2021", {tile_at(0, 0): 1, tile_at(0, 1): 2})
    publish(folder / "national", [sealed])
    edition = folder / "national/editions/000001"
    (tile, _) = sealed.sealed
    older = folder / "older"
    shutil.copytree(folder / "national", older, symlinks=True)
    for name in (SUMS, SIZES):
        (older / "current" / name).unlink()
    (older / "current/edition.json").write_text(
        (older / "current/edition.json").read_text().replace('"manifest": true', '"manifest": false')
    )
    record = made.products / domain / "run.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(RunRecord(failed={"a": "b"}, in_flight={"c": "d"}).as_json()))
    entry = {"header": [1, 2.5, None], "signature": "x"}
    cache = ScanCache(folder / "seen.jsonl")
    for key in "abc":
        cache.get_or_make([key], lambda: entry)
    (folder / "patches.json").write_text(json.dumps([{"image_id": "IMG_1", "domain": "D004_2021", "zone": "Z1_NN"}]))
    owner = folder / "lock" / ".lock" / "token.json"
    owner.parent.mkdir(parents=True)
    owner.write_text(json.dumps(Owner.this_process().__dict__))

    def opened() -> object:
        return open_product(folder / "national").identical(open_product(folder / "national"))

    def cached() -> object:
        return [ScanCache(folder / "seen.jsonl").get([key]) or entry for key in "abc"]

    def listed() -> object:
        add_catalog(files := CatalogFiles(), str(catalog / "catalog.json"), Query())
        return len(files.delivered)

    found = (
        Format("campaign", made.config, lambda: load_campaign(made.config)),
        Format("input item", item, lambda: read_domain(catalog, domain, tile_size=TILE)),
        Format("input collection", catalog / domain / "collection.json", lambda: read_domain(catalog, domain)),
        Format("external item", item, listed),
        Format("external catalog", catalog / "catalog.json", listed),
        Format("sealed item", tile.item_path, lambda: read_sealed(tile.item_path.parent, tile.domain, tile.tile)),
        Format("run record", record, lambda: (read_run_record(record.parent), status(made.campaign))),
        Format("edition", edition / "edition.json", lambda: current_edition(folder / "national")),
        Format("zarr of the group", edition / "product.zarr/zarr.json", opened, checked=True),
        Format("zarr of a layer", edition / "product.zarr/landcover/zarr.json", opened, checked=True),
        Format("zarr without a manifest", older / "current/product.zarr/zarr.json", lambda: open_product(older)),
        Format(
            "layer without a manifest", older / "current/product.zarr/domain/zarr.json", lambda: open_product(older)
        ),
        Format("scan cache", folder / "seen.jsonl", cached, checked=True),
        Format("patches", folder / "patches.json", lambda: _read_metadata(folder / "patches.json")),
        Format("lock", owner, lambda: lock_owner(folder / "lock")),
    )
    return {each.name: each for each in found}


NAMES = (
    "campaign",
    "input item",
    "input collection",
    "external item",
    "external catalog",
    "sealed item",
    "run record",
    "edition",
    "zarr of the group",
    "zarr of a layer",
    "zarr without a manifest",
    "layer without a manifest",
    "scan cache",
    "patches",
    "lock",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_document_is_read_right_or_refused(formats: dict[str, Format], name: str) -> None:
    own = formats[name]
    rng, whole = random.Random(name), own.path.read_bytes()
    expected = own.read() if own.checked else None
    seen = [(damaged, outcome(own.path, damaged, own.read, expected)) for damaged in _mutations(whole, rng)]
    odd = [(found, damaged[:200]) for damaged, found in seen if found.kind not in ("right", "clean error")]
    assert not odd, f"{len(odd)} of {len(seen)}: {odd[:3]}"


def _mutations(whole: bytes, rng: random.Random) -> list[bytes]:
    return [mutated for _ in range(ROUNDS) if (mutated := mutate(whole, rng)) != whole]


def test_a_lock_with_a_damaged_owner_is_no_traceback(tmp_path: Path) -> None:
    owner = tmp_path / ".lock" / "token.json"
    owner.parent.mkdir()
    owner.write_bytes(b"[" * 2000)
    assert lock_owner(tmp_path) is None
    with lock_folder(tmp_path, what="a folder", stale_s=-1) as lock:
        assert lock.path.exists()
