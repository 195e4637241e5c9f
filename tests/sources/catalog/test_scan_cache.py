"""A second index reads only what changed, an interrupted one resumes, and memory does not grow with the files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain import Domain
from pipeline.sources.catalog import index as catalog
from pipeline.sources.catalog.index import IndexReport, index
from pipeline.sources.inspection import inspected_files
from tests.support.deliveries import Delivery, make_delivery, noise, write_pair
from tests.support.progress import Recorder

SIZE = 250
DOMAIN = Domain("D034_2021")


def indexed(delivery: Delivery, folder: Path) -> IndexReport:
    return index([delivery.folder], domain=DOMAIN, catalog=folder, tile_size=SIZE)


def items(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / DOMAIN).glob("*.json")}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Headers and lowest levels, in the order in which they are read."""
    opened: list[str] = []
    read_header, read_lowest_level = inspected_files.read_header, catalog.read_lowest_level

    def header(path: Path) -> object:
        opened.append(f"header {path.name}")
        return read_header(path)

    def level(rvb: Path, irc: Path | None) -> object:
        opened.append(f"lowest level {rvb.name}")
        return read_lowest_level(rvb, irc)

    monkeypatch.setattr(inspected_files, "read_header", header)
    monkeypatch.setattr(catalog, "read_lowest_level", level)
    return opened


def test_unchanged_files_are_not_opened_again(tmp_path: Path, opened: list[str]) -> None:
    delivery = make_delivery(tmp_path / "in")
    first = indexed(delivery, tmp_path / "cat")
    before = items(tmp_path / "cat")
    assert len(opened) == 12 + 3
    opened.clear()
    assert indexed(delivery, tmp_path / "cat") == first
    assert opened == []
    assert items(tmp_path / "cat") == before
    write_pair(delivery.folder, delivery.tiles[0], noise(delivery.tiles[0], seed=1))
    indexed(delivery, tmp_path / "cat")
    assert len(opened) == 3, "the headers of the new pair, and one lowest level"


def test_an_interrupted_index_resumes(tmp_path: Path, opened: list[str]) -> None:
    delivery = make_delivery(tmp_path / "in")

    class Interrupt(Recorder):
        def advance(self, steps: int = 1) -> None:
            super().advance(steps)
            if self.done == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE, progress=Interrupt())
    assert len(opened) >= 7
    cache = tmp_path / "cat" / DOMAIN / "seen.jsonl"
    with cache.open("a") as file:
        file.write('{"key": "cut of')
    opened.clear()
    indexed(delivery, tmp_path / "cat")
    assert len(opened) <= 15 - 6
    indexed(delivery, tmp_path / "new")
    assert items(tmp_path / "cat") == items(tmp_path / "new")
    assert cache.read_text().count("\n") == 15, "entries that were not used are dropped"


MEASURE = """
import resource, sys
from pathlib import Path
from pipeline.domain import Domain
from pipeline.sources.catalog.index import index
index([Path(sys.argv[1])], domain=Domain("D034_2021"), catalog=Path(sys.argv[2]), tile_size=250)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(folder: Path, tiles: int) -> int:
    """Peak memory of a process that indexes a delivery of this many tiles with four files each."""
    size = 12
    delivery = make_delivery(folder / "in", at=[(0, 0)])
    first = delivery.tiles[0]
    for number in range(1, tiles):
        tile = type(first).at(first.window.row + number // size * SIZE, first.window.col + number % size * SIZE, SIZE)
        move_copy(delivery.folder, first.name, tile)
    command = [sys.executable, "-c", MEASURE, str(folder / "in"), str(folder / "cat")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def move_copy(folder: Path, name: str, tile: object) -> None:
    """Copies the files of a tile to another position."""
    import rasterio
    from affine import Affine

    left, _, _, top = tile.window.bounds  # type: ignore[attr-defined]
    new = tile.name  # type: ignore[attr-defined]
    for old, fresh in ((name, new), (name.replace("-", "_"), new.replace("-", "_"))):
        for path in list(folder.rglob(f"*{old}*")):
            copy = path.with_name(path.name.replace(old, fresh))
            shutil.copy(path, copy)
            with rasterio.open(copy, "r+") as file:
                file.transform = Affine(file.transform.a, 0, left, 0, file.transform.e, top)


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    few, many = peak_kib(tmp_path / "few", 4), peak_kib(tmp_path / "many", 60)
    # 224 files more have over 60 MB of pixels, but only some hundred bytes of each file are kept.
    assert many - few < 16 * 1024
