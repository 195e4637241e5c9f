"""The manifest of an edition: what was changed since its commit is named, never linked, and written again."""

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import ProductError
from pipeline.products.analysis.open_product import open_product
from pipeline.products.manifest import SIZES, SUMS, read_manifest
from pipeline.products.national.edition_record import current_edition, damaged_files
from pipeline.products.national.publish_plan import EditionPlan, plan_edition
from pipeline.products.national.zarr_store import read_zarr
from tests.support.products import GRID, product, publish, tile_at

DOMAIN = "D064_2021"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An edition of two tiles."""
    published(tmp_path)
    return tmp_path


def published(folder: Path, *, seeds: tuple[int, int] = (1, 2), recheck: bool = False) -> EditionPlan:
    tiles = {tile_at(0, 0): seeds[0], tile_at(1, 2): seeds[1]}
    return publish(folder / "national", [product(folder / "domains", DOMAIN, tiles)], recheck=recheck)


def problems(folder: Path, *, read_all: bool = True) -> dict[str, str]:
    edition = current_edition(folder / "national")
    assert edition is not None
    return damaged_files(edition, read_all=read_all)


def files(folder: Path) -> list[Path]:
    edition = (folder / "national/current").resolve()
    return sorted(p for p in edition.rglob("*") if p.is_file())


def shard(folder: Path, layer: str = "landcover") -> Path:
    return next(p for p in files(folder) if f"{layer}/c/" in p.as_posix())


def flip(path: Path, at: int, *, keep_time: bool = False) -> None:
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[at] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_sha256sum_reads_the_manifest_and_it_lists_every_file(folder: Path) -> None:
    edition = (folder / "national/current").resolve()
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=edition, capture_output=True, text=True, check=True
    )
    listed = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    assert listed == {p.relative_to(edition).as_posix() for p in files(folder)} - {SUMS}
    assert all(state.size == (edition / name).stat().st_size for name, state in read_manifest(edition).files.items())


def test_each_file_that_is_flipped_cut_or_deleted_is_named(folder: Path) -> None:
    edition, rng = (folder / "national/current").resolve(), random.Random(1)
    for path in files(folder):
        whole, name = path.read_bytes(), path.relative_to(edition).as_posix()
        for damage in ("flip", "cut", "delete"):
            if damage == "flip":
                flip(path, rng.randrange(len(whole)), keep_time=True)
            elif damage == "cut":
                path.write_bytes(whole[: rng.randrange(len(whole))])
            else:
                path.unlink()
            try:
                named = str(problems(folder))
            except ProductError as error:
                named = str(error)
            assert name in named, (damage, name, named)
            path.write_bytes(whole)


def test_all_damages_are_listed_and_an_added_shard_too(folder: Path) -> None:
    flip(shard(folder), 10)
    shard(folder, "domain").unlink()
    (shard(folder).parent / "99").write_bytes(b"x")
    found = problems(folder)
    assert len(found) == 3
    assert any("not in the manifest" in problem for problem in found.values())
    (folder / "national/current/report.html").write_text("a later addition")
    assert len(problems(folder)) == 3


@pytest.mark.parametrize(("keep_time", "recheck"), [(False, False), (True, True)])
def test_a_damaged_shard_is_written_again_with_the_same_bytes(folder: Path, *, keep_time: bool, recheck: bool) -> None:
    victim = shard(folder)
    former, name = victim.read_bytes(), victim.relative_to((folder / "national/current").resolve())
    flip(victim, len(former) // 2, keep_time=keep_time)
    plan = published(folder, recheck=recheck)
    assert plan.number == 2
    assert (folder / "national/current" / name).read_bytes() == former
    assert victim.read_bytes() != former  # the damaged edition stays as it is
    assert problems(folder) == {}


def test_coordinates_and_records_that_are_damaged_are_not_linked(folder: Path) -> None:
    edition = (folder / "national/current").resolve()
    whole = {p.relative_to(edition): p.read_bytes() for p in files(folder) if "/c/" in p.as_posix()}
    flip(edition / "product.zarr/x/c/0", 30)
    assert published(folder).number == 2
    flip(folder / "national/current/edition.json", 200)
    assert published(folder).number == 3
    now = (folder / "national/current").resolve()
    assert {name: (now / name).read_bytes() for name in whole} == whole
    assert problems(folder) == {}


def test_unchanged_shards_are_sealed_without_reading_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.as_posix())
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("pipeline.products.manifest.file_sha256", counted)
    published(folder, seeds=(1, 3))
    assert read
    assert not [path for path in read if "landcover/c/" in path]
    assert problems(folder) == {}


def test_an_edition_of_an_older_version_has_no_manifest_and_stays_valid(folder: Path) -> None:
    edition = (folder / "national/current").resolve()
    for name in (SUMS, SIZES):
        (edition / name).unlink()
    record = json.loads((edition / "edition.json").read_text())
    del record["manifest"]
    (edition / "edition.json").write_text(json.dumps(record))
    assert problems(folder) == {}
    open_product(folder / "national")
    plan = published(folder, seeds=(1, 3))
    assert plan.link
    assert problems(folder) == {}


@pytest.mark.parametrize("name", [SUMS, SIZES])
@pytest.mark.parametrize("damage", ["delete", "flip", "cut", "extend", "empty"])
def test_a_damaged_part_of_a_manifest_is_named_and_hides_no_other_damage(folder: Path, name: str, damage: str) -> None:
    path, victim = (folder / "national/current").resolve() / name, shard(folder)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    cut, longer = b"".join(lines[: len(lines) // 2]), content + b"\n"
    changed = {"cut": cut, "extend": longer, "empty": b"", "flip": content.replace(b"1", b"2", 1), "delete": None}[
        damage
    ]
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    former = victim.read_bytes()
    flip(victim, 10, keep_time=True)
    named = problems(folder)
    assert name in named
    assert victim.relative_to(path.parent).as_posix() in named
    plan = published(folder, recheck=True)
    assert plan.link
    assert (folder / "national/current" / victim.relative_to(path.parent)).read_bytes() == former
    assert problems(folder) == {}


def test_without_a_usable_manifest_nothing_is_linked(folder: Path) -> None:
    for name in (SUMS, SIZES):
        (folder / "national/current" / name).write_bytes(b"x")
    assert "cannot be used" in str(problems(folder))
    plan = plan_edition(folder / "national", GRID, [product(folder / "domains", DOMAIN, {tile_at(0, 0): 1})])
    assert not plan.link


def test_a_reader_notices_a_flipped_chunk(folder: Path) -> None:
    path = shard(folder)
    whole, noticed = path.read_bytes(), 0
    for at in range(8, len(whole) // 2, 97):
        flip(path, at)
        try:
            read_zarr(folder / "national/current/product.zarr/landcover", GRID.shard_window((0, 0)).within(GRID.extent))
        except ProductError:
            noticed += 1
        path.write_bytes(whole)
    assert noticed == len(range(8, len(whole) // 2, 97))
