"""An index that is begun again goes on from what was seen, and its memory does not grow with the files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain import Domain
from pipeline.sources import IndexReport, index
from pipeline.sources.catalog import index as catalog
from pipeline.sources.inspection import lowest_level as look
from pipeline.sources.inspection import validation as checks
from tests.support.deliveries import Delivery, make_delivery, noise, write_pair
from tests.support.progress import Recorder

SIZE = 250
DOMAIN = Domain("D034_2021")


def indexed(delivery: Delivery, folder: Path) -> IndexReport:
    return index([delivery.folder], domain=DOMAIN, catalog=folder, tile_size=SIZE)


def items(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / DOMAIN).glob("*.json")}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened: headers and looks, as they happen."""
    opened: list[str] = []
    read_header, see = checks.read_header, look.look

    def header(path: Path) -> object:
        opened.append(f"header {path.name}")
        return read_header(path)

    def seen(rvb: Path, irc: Path | None) -> object:
        opened.append(f"look {rvb.name}")
        return see(rvb, irc)

    monkeypatch.setattr(checks, "read_header", header)
    monkeypatch.setattr(catalog, "look", seen)
    return opened


def test_what_did_not_change_is_not_opened_again(tmp_path: Path, counted: list[str]) -> None:
    delivery = make_delivery(tmp_path / "in")
    first = indexed(delivery, tmp_path / "cat")
    before = items(tmp_path / "cat")
    assert len(counted) == 12 + 3
    counted.clear()
    assert indexed(delivery, tmp_path / "cat") == first
    assert counted == []
    assert items(tmp_path / "cat") == before
    write_pair(delivery.folder, delivery.tiles[0], noise(delivery.tiles[0], seed=1))
    indexed(delivery, tmp_path / "cat")
    assert len(counted) == 3, "the new pair's headers, and one look"


def test_an_index_that_was_stopped_goes_on(tmp_path: Path, counted: list[str]) -> None:
    delivery = make_delivery(tmp_path / "in")

    class Interrupt(Recorder):
        def advance(self, steps: int = 1) -> None:
            super().advance(steps)
            if self.done == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE, progress=Interrupt())
    seen = len(counted)
    assert seen >= 7
    journal = tmp_path / "cat" / DOMAIN / "seen.jsonl"
    with journal.open("a") as file:
        file.write('{"key": "cut of')
    counted.clear()
    indexed(delivery, tmp_path / "cat")
    assert len(counted) <= 15 - 6
    indexed(delivery, tmp_path / "new")
    assert items(tmp_path / "cat") == items(tmp_path / "new")
    assert journal.read_text().count("\n") == 15, "what is of no more use went"


MEASURE = """
import resource, sys
from pathlib import Path
from pipeline.domain import Domain
from pipeline.sources import index
index([Path(sys.argv[1])], domain=Domain("D034_2021"), catalog=Path(sys.argv[2]), tile_size=250)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(folder: Path, tiles: int) -> int:
    """Peak memory of a process that indexes a delivery of so many tiles, four files each."""
    size = 12
    delivery = make_delivery(folder / "in", at=[(0, 0)])
    first = delivery.tiles[0]
    for number in range(1, tiles):
        tile = type(first).at(first.window.row + number // size * SIZE, first.window.col + number % size * SIZE, SIZE)
        move_copy(delivery.folder, first.name, tile)
    command = [sys.executable, "-c", MEASURE, str(folder / "in"), str(folder / "cat")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def move_copy(folder: Path, name: str, tile: object) -> None:
    """The files of a tile once more at another place."""
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
    # 224 files more, over 60 MB of pixels: what is kept of a file are some hundred bytes.
    assert many - few < 16 * 1024
