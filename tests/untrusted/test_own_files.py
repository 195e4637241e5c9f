"""Only real files and folders of this user with exactly the right name count as the package's own."""

import os
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.untrusted.own_files import is_own, own_entries, remove_own

EDITION = r"[0-9]{6}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two editions, and what looks like one."""
    folder = tmp_path / "editions"
    for name in ("000001", "000002", "0000012", "2024-01-15", "000003\n"):
        (folder / name).mkdir(parents=True)
        (folder / name / "kept").touch()
    (folder / "000004").symlink_to(tmp_path)
    (folder / "000005").touch()
    os.mkfifo(folder / "000006")
    return folder


def test_only_real_folders_with_the_whole_name_are_own(folder: Path) -> None:
    assert [p.name for p in own_entries(folder, pattern=EDITION, kind="folder")] == ["000001", "000002"]
    assert [p.name for p in own_entries(folder, pattern=EDITION, kind="file")] == ["000005"]
    assert [p.name for p in own_entries(folder, pattern=EDITION, kind="link")] == ["000004"]
    assert list(own_entries(folder / "absent", pattern=EDITION, kind="file")) == []


def test_what_belongs_to_another_user_is_not_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert not is_own(folder / "000001", pattern=EDITION, kind="folder")


@pytest.mark.parametrize("name", ["0000012", "2024-01-15", "000003\n", "000004", "000005", "000006"])
def test_what_is_not_own_is_not_removed(folder: Path, name: str) -> None:
    with pytest.raises(StorageError, match="so it stays"):
        remove_own(folder / name, pattern=EDITION, kind="folder")
    assert (folder / name).lstat()
    assert folder.parent.is_dir()


def test_links_inside_a_removed_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").touch()
    (folder / "000001/link").symlink_to(tmp_path / "data")
    remove_own(folder / "000001", pattern=EDITION, kind="folder")
    assert not (folder / "000001").exists()
    assert (tmp_path / "data/precious").exists()
