"""A cluster's temporary folder goes when its process ends, however it ends."""

import subprocess
import sys
from pathlib import Path

from pipeline.cluster.scratch_folder import scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.cluster.scratch_folder import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "spilled").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_removed_when_its_block_ends(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "spilled").exists()
    (tmp_path / "landcover-dask-unknown").mkdir()
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        found = {path.name for path in tmp_path.iterdir()}
    assert found == {first.name, second.name, "landcover-dask-unknown"}, "those in use and unknown ones stay"
