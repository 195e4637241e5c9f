"""What somebody else put into a folder is neither deleted nor written through, wherever this package cleans up."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.slurm import cluster
from pipeline.cluster.slurm.allocation import Allocation
from pipeline.demo import walkthrough
from pipeline.domain import Domain
from pipeline.durable import remove_temporaries, replacing, write_text
from pipeline.errors import ConfigError, LockError, StorageError
from pipeline.lock import lock_folder, lock_owner
from pipeline.products.tile.seal import remove_unfinished
from pipeline.sources.catalog.writer import _remove_stale_items
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.staging.unpack import WORK, locked_work_folder

DOMAIN = Domain("D034_2021")
HERE = Allocation("500", 1, {"n1": "10.0.0.1"})


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of data that nothing may change."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "data").write_text("precious")
    return folder


def is_intact(victim: Path) -> bool:
    return {p.name: p.read_text() for p in victim.iterdir()} == {"data": "precious"}


def job_folder(parent: Path, name: str, **marker: Any) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    _, job, restarts, _ = name.split("-")
    about = {"controller": "lab n1", "job": job, "restarts": int(restarts)} | marker
    (folder / "landcover-job.json").write_text(json.dumps(about))
    return folder


def start_job(parent: Path, monkeypatch: pytest.MonkeyPatch, *alive: str) -> None:
    monkeypatch.setattr(cluster, "queued_job_ids", lambda: frozenset(alive))
    monkeypatch.setattr(cluster, "_controller", lambda: "lab n1")
    with cluster._job_folder(parent, HERE) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


@pytest.mark.parametrize("name", ["2024-01-15", "flair-inc-weights", "123-0-abcdefgh", "landcover-123-0-abcdefgh"])
def test_a_job_leaves_folders_without_its_marker(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "data").touch()
    job_folder(tmp_path, "landcover-124-0-abcdefgh")
    start_job(tmp_path, monkeypatch, "500")
    assert (tmp_path / name / "data").exists()
    assert not (tmp_path / "landcover-124-0-abcdefgh").exists()


def test_only_folders_of_own_dead_jobs_of_this_controller_go(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "clusters"
    dead = [job_folder(parent, n) for n in ("landcover-400-0-abcdefgh", "landcover-500-0-abcdefgh")]
    kept = [
        job_folder(parent, "landcover-401-0-abcdefgh"),  # in the queue
        job_folder(parent, "landcover-402-0-abcdefgh", controller="lab n2"),
        job_folder(parent, "landcover-403-0-abcdefgh", job="404"),
        job_folder(parent, "landcover-404-0-abcdefgh", restarts="x"),
        job_folder(parent, "landcover-500-1-abcdefgh"),  # this start
    ]
    link = parent / "landcover-405-0-abcdefgh"
    link.symlink_to(victim)
    start_job(parent, monkeypatch)
    assert all(p.exists() for p in dead), "a queue without this job is not the whole queue"
    start_job(parent, monkeypatch, "500", "401")
    assert not any(p.exists() for p in dead)
    assert all(p.exists() for p in (*kept, link))
    assert is_intact(victim)


def test_folders_of_other_users_jobs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = job_folder(tmp_path, "landcover-400-0-abcdefgh")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    start_job(tmp_path, monkeypatch, "500")
    assert folder.exists()


@pytest.mark.parametrize("kind", ["link", "broken link", "second name", "pipe", "folder", "name"])
def test_a_lock_is_not_taken_through_a_planted_owner_file(tmp_path: Path, victim: Path, kind: str) -> None:
    planted = tmp_path / "it" / ".lock" / ("notes.json" if kind == "name" else "00112233.json")
    planted.parent.mkdir(parents=True)
    data = victim / "data"
    makers = {
        "link": lambda: planted.symlink_to(data),
        "broken link": lambda: planted.symlink_to(victim / "new"),
        "second name": lambda: planted.hardlink_to(data),
        "pipe": lambda: os.mkfifo(planted),
        "folder": planted.mkdir,
        "name": planted.touch,
    }
    makers[kind]()
    before = data.stat().st_mtime_ns
    assert lock_owner(tmp_path / "it") is None
    with (
        pytest.raises(StorageError, match=r"expected a lock's file.* Delete it"),
        lock_folder(tmp_path / "it", what="it", stale_s=-1),
    ):
        pytest.fail("taken")
    assert is_intact(victim)
    assert data.stat().st_mtime_ns == before
    assert sorted(p.name for p in (tmp_path / "it").iterdir()) == [".lock"]


def test_a_lock_that_is_a_link_is_refused_and_leftovers_of_other_names_stay(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / ".lock").symlink_to(victim)
    with pytest.raises(StorageError, match="or a link"), lock_folder(tmp_path / "it", what="it"):
        pytest.fail("taken")
    (tmp_path / "it" / ".lock").unlink()
    (tmp_path / "it" / ".lock.0a1b.tmp").symlink_to(victim)
    for name in (".lock.notes.tmp", ".lock.0a1b.tmp2", ".lock.0a1c.tmp"):
        (tmp_path / "it" / name).mkdir()
    with lock_folder(tmp_path / "it", what="it"):
        left = sorted(p.name for p in (tmp_path / "it").iterdir())
    assert left == [".lock", ".lock.0a1b.tmp", ".lock.0a1b.tmp2", ".lock.notes.tmp"]
    assert is_intact(victim)


@pytest.mark.parametrize("content", ["[]", '{"pid": 1}', "[" * 5000, '{"token": 1}', "\x00", "9" * 5000])
def test_a_lock_of_any_content_is_locked_until_it_is_stale(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "0011.json").write_text(content)
    with pytest.raises(LockError, match="is just taking the lock"), lock_folder(tmp_path, what="it"):
        pytest.fail("taken")
    with lock_folder(tmp_path, what="it", stale_s=-1) as lock:
        lock.check()


def test_a_temporary_file_that_became_a_link_replaces_nothing(tmp_path: Path, victim: Path) -> None:
    write_text(tmp_path / "[a]*.json", "former")
    with pytest.raises(StorageError, match="is no regular file"), replacing(tmp_path / "[a]*.json") as temporary:
        temporary.symlink_to(victim / "data")
    assert (tmp_path / "[a]*.json").read_text() == "former"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["[a]*.json", "victim"]
    assert is_intact(victim)


def test_a_cleanup_of_temporary_files_removes_own_regular_files_only(tmp_path: Path, victim: Path) -> None:
    name = f".{DOMAIN}-0595-6890-landcover.tif.{{}}.tmp"
    (tmp_path / name.format("01")).touch()
    (tmp_path / name.format("02")).symlink_to(victim / "data")
    (tmp_path / name.format("03")).mkdir()
    (tmp_path / f".{DOMAIN}-notes.tmp").touch()
    assert [p.name for p in remove_unfinished(tmp_path, DOMAIN)] == [name.format("01")]
    (tmp_path / ".run.json.01.tmp").touch()
    (tmp_path / ".run-json.01.tmp").touch()
    (tmp_path / ".run.json.02.tmp").symlink_to(victim / "data")
    assert [p.name for p in remove_temporaries(tmp_path, ".run.json.")] == [".run.json.01.tmp"]
    assert is_intact(victim)


def test_a_catalog_loses_only_items_of_tiles(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / DOMAIN
    folder.mkdir()
    for name in ("0595-6890", "0600-6890", "notes", "0595-6890-old"):
        (folder / f"{DOMAIN}-{name}.json").touch()
    (folder / f"{DOMAIN}-0605-6890.json").symlink_to(victim / "data")
    _remove_stale_items(folder, keep={f"{DOMAIN}-0595-6890.json"})
    kept = ["0595-6890-old", "0595-6890", "0605-6890", "notes"]
    assert sorted(p.name for p in folder.iterdir()) == [f"{DOMAIN}-{name}.json" for name in kept]


def test_staging_clears_only_its_own_temporary_files(tmp_path: Path, victim: Path) -> None:
    work = tmp_path / "out" / WORK
    work.mkdir(parents=True)
    own = ["member", "height-0a1b", "height-0a1b.aux.xml", "patch-0a1b", ".journal.jsonl.0a1b.tmp"]
    others = ["notes.txt", "journal.jsonl", "members", "height-xyz"]
    for name in own + others:
        (work / name).touch()
    (work / "height").symlink_to(victim / "data")
    with locked_work_folder(tmp_path / "out") as found:
        assert sorted(p.name for p in found.iterdir()) == [".lock", "height", *sorted(others)]
    assert is_intact(victim)


def test_a_staging_folder_whose_work_folder_is_a_link_is_refused(tmp_path: Path, victim: Path) -> None:
    (victim / "member").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / WORK).symlink_to(victim)
    with pytest.raises(StorageError, match="found a link"), locked_work_folder(tmp_path / "out"):
        pytest.fail("used")
    assert (victim / "member").exists()


def test_a_scan_cache_is_not_appended_to_through_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "seen.jsonl").symlink_to(victim / "data")
    with pytest.raises(StorageError, match="expected a regular file"):
        ScanCache(tmp_path / "seen.jsonl").get_or_make("key", dict)
    assert is_intact(victim)
    (tmp_path / "link").symlink_to(victim)
    ScanCache(tmp_path / "link" / "seen.jsonl").get_or_make("key", dict)
    assert (victim / "seen.jsonl").is_file(), "users may link their folders"


@pytest.mark.parametrize("kind", ["without marker", "link", "marker is a link"])
def test_a_demo_replaces_only_a_demo(tmp_path: Path, victim: Path, kind: str) -> None:
    out = tmp_path / "out"
    (victim / "country").mkdir()
    if kind == "link":
        (victim / ".landcover-demo").touch()
        out.symlink_to(victim)
    else:
        victim.rename(out)
        if kind == "marker is a link":
            (out / ".landcover-demo").symlink_to("data")
    with pytest.raises(ConfigError, match=r"is not from a demo of this user.*choose"):
        walkthrough._empty(out)
    assert (out / "data").read_text() == "precious"


def test_a_demo_replaces_a_former_demo(tmp_path: Path) -> None:
    walkthrough._empty(tmp_path / "out")
    (tmp_path / "out" / "country").mkdir()
    walkthrough._empty(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".landcover-demo"]
