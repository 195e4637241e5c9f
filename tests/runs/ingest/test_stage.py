"""Archives are staged completely, also after a kill, and the mosaic is the same without the small elevation files."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.progress import SILENT
from pipeline.runs.ingest.stage import StageReport, stage
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.staging.height_record import Treatment, read_record
from tests.support.archives import files_of, height_of, make_archives
from tests.support.deliveries import Delivery
from tests.support.paths import ROOT
from tests.support.progress import Recorder
from tests.support.waiting import count_files

DOMAIN = Domain("D034_2021")
BANDS = ("red", "green", "blue", "nir", "elevation")


def run(given: list[Path], out: Path, *, treatment: Treatment = "leave", remove_small: bool = False) -> StageReport:
    """Stages tiles of 100 m."""
    bars: dict[str, Recorder] = {}

    @contextmanager
    def bar(name: str) -> Iterator[Recorder]:
        yield bars.setdefault(name, Recorder())

    report = stage(
        given,
        domain=DOMAIN,
        out=out,
        tile_m=100,
        treatment=treatment,
        remove_small=remove_small,
        bar=bar,
    )
    assert list(bars) == ["check", "unpack", "heights"]
    for progress in bars.values():
        assert progress.totals == [progress.done], "every bar ends at its total"
    return report


def read(folder: Path, delivery: Delivery, catalog: Path) -> Mosaic:
    index([folder], domain=DOMAIN, catalog=catalog, tile_size=delivery.tile_size)
    return Mosaic.of(read_domain(catalog, DOMAIN, tile_size=delivery.tile_size), bands=BANDS)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Delivery, list[Path]]:
    return make_archives(tmp_path_factory.mktemp("shipped"), suffix="jp2")


def test_the_staged_mosaic_equals_the_unstaged_one(tmp_path: Path, shipped: tuple[Delivery, list[Path]]) -> None:
    delivery, archives = shipped
    unstaged = read(delivery.folder, delivery, tmp_path / "a").read(delivery.window)
    first = run(archives, tmp_path / "out")
    assert {name: tile for name, tile in files_of(tmp_path / "out").items() if "HAUTEUR" not in name} == files_of(
        delivery.folder
    )
    staged = read(tmp_path / "out", delivery, tmp_path / "b")
    np.testing.assert_array_equal(staged.read(delivery.window).bands, unstaged.bands)
    np.testing.assert_array_equal(staged.read(delivery.window).valid, unstaged.valid)

    second = run(archives, tmp_path / "out", remove_small=True)
    assert (second.heights.written, second.removed, first.removed) == ((), 16, 0)
    assert not [n for n in files_of(tmp_path / "out") if n.endswith(".asc") or "LHD" in n]
    lean = read(tmp_path / "out", delivery, tmp_path / "c")
    assert {a.kind for a in lean.inputs.assets} == {"rvb", "irc", "height"}
    part = delivery.window.grow(-37)
    np.testing.assert_array_equal(lean.read(part).bands, unstaged.bands[:, 37:-37, 37:-37])

    third = run(archives, tmp_path / "out", remove_small=True)
    assert sum(u.written for _, u in third.unpacked) == 0, "removed files are not unpacked again"
    height = next((tmp_path / "out").rglob("*HAUTEUR.tif"))
    height.unlink()
    fourth = run(archives, tmp_path / "out", remove_small=True)
    assert (len(fourth.heights.written), height.is_file()) == (1, True), "unless the height is missing"


def test_interpolation_changes_only_holes(tmp_path: Path, shipped: tuple[Delivery, list[Path]]) -> None:
    delivery, archives = shipped
    report = run(archives, tmp_path / "out", treatment="interpolate")
    assert len(report.tile_notes) == 2
    assert "holes of the surface or terrain model in 2 of 2 tiles" in " ".join(report.notes)
    unstaged = read(delivery.folder, delivery, tmp_path / "a").read(delivery.window).bands[4]
    staged = read(tmp_path / "out", delivery, tmp_path / "b").read(delivery.window).bands[4]
    known = np.zeros(unstaged.shape, np.bool_)
    for tile in delivery.tiles:
        (path,) = (tmp_path / "out").rglob(f"*{tile.name}*HAUTEUR.tif")
        known[tile.window.slices_in(delivery.window)] = height_of(path)[1]
    np.testing.assert_array_equal(staged[known], unstaged[known])
    # 20 × 27 pixels in each of eight holes, and half a metre at two edges because of RGE ALTI's shift.
    assert 0.01 < (~known).mean() < 0.02
    assert not unstaged[~known].any()
    assert (staged[~known] > 0).mean() > 0.9


def test_unpacked_folders_are_read_in_place(tmp_path: Path, shipped: tuple[Delivery, list[Path]]) -> None:
    delivery, _ = shipped
    before = files_of(delivery.folder)
    report = run([delivery.folder], tmp_path / "out", remove_small=True)
    assert report.folders == (tmp_path / "out", delivery.folder)
    assert len(report.heights.written) == 2
    assert files_of(delivery.folder) == before
    assert all("HAUTEUR" in name for name in files_of(tmp_path / "out"))


def command(archives: list[Path], out: Path) -> list[str]:
    options = ["--domain", DOMAIN, "--out", str(out)]
    return ["stage", *map(str, archives), *options]


def killed_when(archives: list[Path], out: Path, pattern: str, count: int) -> bool:
    """Starts the command and kills it as soon as `count` files match the pattern; False if it ended before."""
    program = "from pipeline.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *command(archives, out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and count_files(out, pattern) < count:
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_and_resumed_stage_leaves_the_same_bytes(tmp_path: Path) -> None:
    delivery, archives = make_archives(tmp_path, at=[(0, c) for c in range(4)])
    whole = files_of(delivery.folder)
    run(archives, tmp_path / "never killed", treatment="interpolate")
    out = tmp_path / "out"
    for pattern, count in (("*.tif", 3), ("*HAUTEUR.tif", 2)):
        while not killed_when(archives, out, pattern, count):
            shutil.rmtree(out)
        left = files_of(out)
        assert {n for n, c in left.items() if n in whole and whole[n] != c} == set(), "no incomplete file"
        for name in left:
            if name.endswith("HAUTEUR.tif") and "/." not in name:
                assert read_record(out / name) is not None
    report = run(archives, out, treatment="interpolate")
    assert len(report.heights.written) < 4
    assert files_of(out) == files_of(tmp_path / "never killed")


MEMORY = """
import sys
from contextlib import nullcontext
from pathlib import Path
from pipeline.domain import Domain
from pipeline.progress import SILENT
from pipeline.runs.ingest.stage import stage
from tests.support.archives import peak_kib
given = [Path(p) for p in sys.argv[2:]]
how = dict(domain=Domain("D034_2021"), tile_m=100, treatment="leave", remove_small=True)
stage(given, out=Path(sys.argv[1]), bar=lambda name: nullcontext(SILENT), **how)
print(peak_kib())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    peaks_kib, archives_kib = [], []
    for count in (1, 14):
        folder = tmp_path / str(count)
        _, archives = make_archives(folder, at=[(0, c) for c in range(count)])
        ran = subprocess.run(
            [sys.executable, "-c", MEMORY, folder / "out", *archives],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert len(list((folder / "out").rglob("*HAUTEUR.tif"))) == count
        peaks_kib.append(int(ran.stdout))
        archives_kib.append(sum(a.stat().st_size for a in archives) // 1024)
    # py7zr itself would keep the whole archive in memory; thirteen more tiles have 20 MB.
    assert peaks_kib[1] - peaks_kib[0] < (archives_kib[1] - archives_kib[0]) / 2, (peaks_kib, archives_kib)


def test_the_command_prints_what_was_written_and_the_next_command(
    tmp_path: Path, shipped: tuple[Delivery, list[Path]]
) -> None:
    _, archives = shipped
    out = tmp_path / "with space"
    result = CliRunner().invoke(
        app, [*command(archives, out), "--holes", "leave", "--remove-small"], catch_exceptions=False
    )
    assert result.exit_code == 0
    text = re.sub(r"\s+", " ", result.stdout)
    assert re.search(r"BDORTHO_2-0_D034\.7z: 6 files unpacked in .* \(0\.\d\d GB\)", text)
    assert "D034_2021: 2 height files written" in text
    assert "16 elevation files removed" in text
    assert f"next: landcover index '{out}' --domain D034_2021 --catalog catalog" in text


@pytest.mark.parametrize(
    ("domain", "given", "message"),
    [
        (Domain("D038_2021"), "archives", "expected 38, 2021"),
        (DOMAIN, "nothing", "nothing"),
    ],
)
def test_a_wrong_domain_and_no_archive_are_refused_before_writing(
    tmp_path: Path, shipped: tuple[Delivery, list[Path]], domain: str, given: str, message: str
) -> None:
    paths = shipped[1] if given == "archives" else [tmp_path / "only.md5"]
    with pytest.raises(DeliveryError, match=message):
        stage(
            paths,
            domain=domain,
            out=tmp_path / "out",
            tile_m=100,
            treatment="leave",
            remove_small=False,
            bar=lambda _: nothing(),
        )
    assert not (tmp_path / "out").exists()


@contextmanager
def nothing() -> Iterator[object]:
    yield SILENT
