"""Editions on a file system without hard links have the same bytes, and say once that they were copied."""

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain import Domain
from pipeline.durable import link_or_copy
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.edition_writer import begin, commit
from pipeline.products.national.publish_plan import plan_edition
from pipeline.products.national.pyramid.store import begin_pyramid, check_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.national.shard_writer import write_shard
from pipeline.products.national.zarr_store import check_shards
from tests.support.products import GRID, product, tile_at

A, B = Domain("D064_2021"), Domain("D065_2022")
REFUSALS = ("EPERM", "ENOTSUP", "EXDEV", "EMLINK")


def refuse_links(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr(os, "link", link)


def publish_all(folder: Path) -> Path:
    """Two editions: one tile of B is sealed for the second, and one of A again with the same pixels."""
    national = folder / "national"
    tiles = {A: {tile_at(0, 0): 1}, B: {tile_at(1, 2): 2}}
    for added in ({}, {tile_at(1, 1): 3}):
        tiles[B] |= added
        plan = plan_edition(national, GRID, [product(folder, name, of) for name, of in tiles.items()])
        begin(plan)
        facts = [write_shard(plan.target, shard) for shard in plan.write]
        changed = plan.grid.tiles_of(f.index for f in facts if f.changed)
        covered = plan.grid.tiles_of(plan.digests)
        for tile in begin_pyramid(plan.target, former=plan.former, tiles=covered, changed=changed):
            write_tile(plan.target, tile)
        commit(plan, facts)
    return national


def bytes_of(national: Path) -> dict[str, bytes]:
    """All files of all editions without their records and manifests, which have dates."""
    dated = ("edition.json", SUMS, SIZES)
    files = (p for p in (national / "editions").rglob("*") if p.is_file() and p.name not in dated)
    return {p.relative_to(national).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    national = publish_all(tmp_path_factory.mktemp("linked"))
    assert any(p.stat().st_nlink > 1 for p in national.rglob("*") if p.is_file())
    return bytes_of(national)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_edition_of_copies_has_the_bytes_of_one_of_links(
    tmp_path: Path,
    linked: dict[str, bytes],
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse_links(monkeypatch, refusal)
    with caplog.at_level(logging.WARNING, "landcover"):
        national = publish_all(tmp_path)
    assert bytes_of(national) == linked
    edition = current_edition(national)
    assert edition is not None
    assert (check_shards(edition), check_pyramid(edition)) == ([], [])
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "the file system refuses hard links, so 24 files of unchanged shards are copied"
    ]


def test_a_copy_shares_blocks_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"old")
    refuse_links(monkeypatch, "EPERM")
    shared = []

    def ioctl(new: Any, request: int, old: int) -> int:
        shared.append(request)
        return os.write(new.fileno(), os.pread(old, 9, 0)) and 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert not link_or_copy(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"old"
    assert shared == [0x40049409]


def test_a_link_or_copy_replaces_nothing_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "planted").symlink_to("elsewhere")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            link_or_copy(tmp_path / "old", tmp_path / "planted")
        refuse_links(monkeypatch, "EPERM")
    refuse_links(monkeypatch, "EIO")
    with pytest.raises(OSError, match="EIO"):
        link_or_copy(tmp_path / "old", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "planted"]
