"""The folder of vector files: written beside its final place, then renamed, with a manifest of its own.

::

    <edition>/vectors/landcover.parquet       all polygons; a folder of files where there are many
    <edition>/vectors/D034_2021.gpkg          the polygons of a domain, with the fields of CoSIA
    <edition>/vectors/landcover.pmtiles       the polygons in tiles, for maps on the web
    <edition>/vectors/vectors.json            edition, tolerance, and the polygons of each class
    <edition>/vectors/SHA256SUMS              and MANIFEST.json: see `manifest`
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.durable import link_or_copy, replacing, sync, write_json
from pipeline.errors import ConfigError, StorageError, product_error
from pipeline.fingerprint import PRODUCT_VERSION, digest, file_sha256
from pipeline.legend import BY_VALUE
from pipeline.products.manifest import files_below, write_manifest
from pipeline.products.national.edition_record import Edition
from pipeline.products.vectors.features import SCHEMA
from pipeline.products.vectors.geoparquet import write_geoparquet
from pipeline.products.vectors.tasks import PartFacts, VectorWork
from pipeline.untrusted.documents import Document, read_model
from pipeline.untrusted.own_files import is_own

VECTORS = "vectors"
DATASET, RECORD = "landcover.parquet", "vectors.json"
ONE_FILE = 1_000_000
"""Polygons that are written into a single GeoParquet file. More become a folder with a file for each part."""
_KEY, _READY = "key", "ready"


@dataclass(frozen=True)
class Staging:
    """A hidden folder beside the final one, in which a killed run's finished tasks are found again."""

    folder: Path
    final: Path

    @classmethod
    def beside(cls, final: Path) -> "Staging":
        """The staging folder of a final one.

        Raises:
            ConfigError: the final folder holds something else than vector files.
            StorageError: something else lies where the staging folder belongs.
        """
        if final.exists() and not (final / RECORD).is_file() and (not final.is_dir() or any(final.iterdir())):
            raise ConfigError(f"{final}: expected a new folder, or one that `landcover vectorize` wrote")
        folder = final.with_name(f".{final.name}.tmp")
        if os.path.lexists(folder) and not is_own(folder, kind="folder"):
            raise StorageError(f"{folder}: expected a folder of this user, or none; its owner can remove it")
        return cls(folder, final)

    @property
    def work(self) -> Path:
        """The folder of the tasks."""
        return self.folder / "work"

    @property
    def ready(self) -> Path:
        """The folder that becomes the final one."""
        return self.folder / _READY

    def begin(self, key: str) -> None:
        """Keeps what an earlier run with the same key left, and removes everything else.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self.folder / _KEY
        if not path.is_file() or path.read_text(encoding="utf-8") != key:
            # Without the key, nobody takes what a killed removal leaves for finished tasks.
            path.unlink(missing_ok=True)
            shutil.rmtree(self.work, ignore_errors=True)
            with replacing(path) as temporary:
                temporary.write_text(key, encoding="utf-8")
        shutil.rmtree(self.ready, ignore_errors=True)
        for folder in ("blocks", "features", "parts"):
            (self.work / folder).mkdir(parents=True, exist_ok=True)
        self.ready.mkdir()

    def commit(self) -> None:
        """Writes the manifest and gives the files their final place; readers see the former files, none or the new.

        Raises:
            ProductError: a file cannot be renamed.
        """
        names = sorted(files_below(self.ready))
        former = self.folder / "former"
        with product_error(f"{self.final}: cannot be written"):
            for name in names:
                sync(self.ready / name)
            write_manifest(self.ready, names)
            shutil.rmtree(former, ignore_errors=True)
            if self.final.exists():
                self.final.rename(former)
            self.ready.rename(self.final)
            sync(self.final.parent)
            (self.folder / _KEY).unlink()
            for folder in (former, self.work):
                shutil.rmtree(folder, ignore_errors=True)


def work_key(edition: Edition, **settings: Any) -> str:
    """A hash of everything on which the polygons depend."""
    return digest([PRODUCT_VERSION, file_sha256(edition.path / "edition.json"), settings])


def write_dataset(work: VectorWork, parts: Sequence[PartFacts], folder: Path) -> None:
    """Writes `landcover.parquet`, one file or a folder of them.

    Args:
        work: with the files of all parts.
        parts: in order.
        folder: of the vector files.

    Raises:
        StorageError: it cannot be written.
    """
    target = folder / DATASET
    if sum(p.polygons for p in parts) <= ONE_FILE:
        with replacing(target) as temporary:
            write_geoparquet(temporary, _tables(work, parts), schema=SCHEMA, crs=work.origin.crs)
        return
    target.mkdir()
    for p in parts:
        link_or_copy(work.part_file(p.part), target / f"part-{p.part:07d}.parquet")


def _tables(work: VectorWork, parts: Sequence[PartFacts]) -> Iterator[pa.Table]:
    for p in parts:
        with pq.ParquetFile(work.part_file(p.part)) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).cast(SCHEMA)


def write_record(
    folder: Path, parts: Sequence[PartFacts], *, edition: Edition, domain: str | None, tolerance_m: float
) -> dict[str, Any]:
    """Writes and returns `vectors.json`.

    Raises:
        StorageError: it cannot be written.
    """
    number, area = Counter[int](), Counter[int]()
    for value, (polygons, square_metres) in (row for p in parts for row in p.classes.items()):
        number[value] += polygons
        area[value] += round(square_metres * 50)
    classes = {
        BY_VALUE[value].name: {"landcover": value, "polygons": number[value], "area_m2": area[value] / 50}
        for value in sorted(number)
    }
    record = {
        "edition": edition.number,
        "domain": domain,
        "crs": edition.grid.crs,
        "tolerance_m": tolerance_m,
        "polygons": sum(number.values()),
        "area_m2": sum(area.values()) / 50,
        "classes": classes,
    }
    write_json(folder / RECORD, record)
    return record


class _Record(Document):
    """What is read of `vectors.json`."""

    tolerance_m: float


def options_of(folder: Path) -> list[str]:
    """The options of `landcover vectorize` that wrote a folder in an edition; without a tolerance that is not known."""
    domain = folder.name.partition("-")[2]
    found = ["--domain", domain] if domain else []
    with suppress(OSError, ValueError):
        found += ["--tolerance", f"{read_model(_Record, folder / RECORD).tolerance_m:g}"]
    return found
