"""The folder of vector files, while it is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.products.manifest import changed_if_sealed
from pipeline.products.vectors.vector_folder import Staging


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """With a finished task and a file."""
    staging = Staging.beside(tmp_path / "vectors")
    staging.begin("one")
    (staging.work / "blocks" / "0-0-0.npz").write_text("done")
    (staging.ready / "vectors.json").write_text("{}")
    return staging


def test_finished_tasks_are_kept_for_the_same_settings_alone(staging: Staging) -> None:
    staging.begin("one")
    assert (staging.work / "blocks" / "0-0-0.npz").exists()
    staging.begin("other")
    assert not (staging.work / "blocks" / "0-0-0.npz").exists()


@pytest.mark.parametrize("step", [lambda s: s.begin("other"), lambda s: s.commit()], ids=["begin", "commit"])
def test_what_a_killed_removal_leaves_is_not_taken_for_finished_tasks(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, step: Callable[[Staging], None]
) -> None:
    remove = shutil.rmtree

    def killed(folder: Path, **_: object) -> None:
        if folder == staging.work:
            raise KeyboardInterrupt
        remove(folder, ignore_errors=True)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        step(staging)
    monkeypatch.undo()
    staging.begin("one")
    assert not (staging.work / "blocks" / "0-0-0.npz").exists()


def test_a_commit_replaces_the_former_files_and_leaves_nothing_beside_them(staging: Staging) -> None:
    staging.final.mkdir()
    (staging.final / "vectors.json").write_text("former")
    staging.commit()
    assert (staging.final / "vectors.json").read_text() == "{}"
    assert changed_if_sealed(staging.final, read_all=True) == {}
    assert list(staging.folder.iterdir()) == []


def test_a_link_in_the_place_of_the_staging_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".vectors.tmp").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="expected a folder of this user"):
        Staging.beside(tmp_path / "vectors")
