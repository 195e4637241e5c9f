"""Only real files and folders of this user with exactly the right name count as the package's own."""

import os
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.untrusted.own_files import is_own, is_sealed_off, open_plain, own_entries, private_folder, remove_own

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


def test_a_file_that_others_can_write_or_name_is_not_sealed_off(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o644)
    assert is_sealed_off(file)
    file.chmod(0o664)
    assert not is_sealed_off(file)
    file.chmod(0o644)
    (tmp_path / "second").hardlink_to(file)
    assert not is_sealed_off(file)
    (tmp_path / "link").symlink_to(file)
    assert not is_sealed_off(tmp_path / "link")


def test_a_private_folder_is_closed_to_others_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for path in (tmp_path / "open", tmp_path / "new/one"):
        assert private_folder(path, remedy="choose another").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("open")
    for name in ("file", "link", "file/below"):
        with pytest.raises(StorageError, match=r"no folder that this user can open: .*; choose another"):
            private_folder(tmp_path / name, remedy="choose another")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StorageError, match=f"found one of user {me}; choose another"):
        private_folder(tmp_path / "open", remedy="choose another")


def test_a_plain_file_is_opened_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("a")
    handle = open_plain(folder / "file", os.O_RDONLY)
    assert os.read(handle, 9) == b"a"
    os.close(handle)
    with pytest.raises(FileNotFoundError):
        open_plain(folder / "absent", os.O_RDONLY)
    (folder / "link").symlink_to("file")
    os.mkfifo(folder / "pipe")
    (tmp_path / "data").touch()
    (folder / "second").hardlink_to(tmp_path / "data")
    for name in ("link", "pipe", "second"):
        with pytest.raises(StorageError, match="expected a regular file"):
            open_plain(folder / name, os.O_WRONLY)
    (tmp_path / "way").symlink_to(folder)
    with pytest.raises(NotADirectoryError):
        open_plain(tmp_path / "way" / "file", os.O_RDONLY)
