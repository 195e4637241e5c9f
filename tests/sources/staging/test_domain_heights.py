"""Height files are compared with the mosaic that reads the same elevation, and with analytic surfaces."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.errors import DeliveryError, SourceError, StorageError
from pipeline.grid import RESOLUTION_M, Tile, Window
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading.elevation import read_heights
from pipeline.sources.staging.cleanup import REMOVED_LIST, removable_elevation, remove_elevation
from pipeline.sources.staging.domain_heights import HeightsReport, write_heights
from pipeline.sources.staging.height_cog import write_height
from pipeline.sources.staging.height_record import Treatment, read_record
from pipeline.sources.staging.unpack import locked_work_folder
from tests.support.archives import files_of, height_of
from tests.support.deliveries import Surface, flat, hills, roofs, tile_at, write_pair, write_raster, write_relief
from tests.support.disk import files_of_at_most

SIZE = 500
DOMAIN = Domain("D034_2021")
TILE = tile_at(0, 0, SIZE)
LEFT, _, _, TOP = TILE.window.bounds
INNER = (slice(5, -5), slice(5, -5))
"""Without the metre at the files' edges, where a neighbour for the interpolation is missing."""


def stage(folder: Path, treatment: Treatment = "leave", **how: Any) -> HeightsReport:
    with locked_work_folder(folder) as work:
        return write_heights([folder], domain=DOMAIN, out=folder, tile_size=SIZE, treatment=treatment, work=work, **how)


def height(folder: Path, tile: Tile = TILE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    (path,) = folder.rglob(f"34-2021-{tile.name}-LA93-0M20-HAUTEUR.tif")
    return height_of(path)


def assets_of(report: HeightsReport) -> list[Asset]:
    return [e.asset for e in report.elevation]


def imagery(folder: Path, *tiles: Tile) -> Path:
    for tile in tiles or (TILE,):
        write_pair(folder, tile, np.full((6, SIZE, SIZE), 9, np.uint8))
    return folder


def analytic(surface: Surface, terrain: Surface, window: Window = TILE.window) -> NDArray[np.float64]:
    """The difference at the centres of 0.20 m pixels, in units of 0.2 m, not rounded."""
    left, _, _, top = window.bounds
    x = left + (np.arange(window.width)[None, :] + 0.5) * RESOLUTION_M
    y = top - (np.arange(window.height)[:, None] + 0.5) * RESOLUTION_M
    return np.clip((surface(x, y) - terrain(x, y)) / 0.2, 0, 255)


def slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A plane so steep that half a pixel of 1 m is 1.3 units of height eastwards and 0.8 southwards."""
    return 100 + 0.5313 * (x - LEFT) - 0.3071 * (y - TOP)


def test_a_window_of_a_staged_tile_equals_that_of_the_unstaged_elevation(tmp_path: Path) -> None:
    folder = imagery(tmp_path, TILE, tile_at(0, 1, SIZE))
    for row in (0, 1):
        for col in range(4):
            corner = tile_at(row, col, 250).name
            hole = (slice(20, 33), slice(70, 100)) if col == 1 else None
            write_relief(folder, "dsm", roofs, corner=corner, side_m=50, hole=hole)
            write_relief(folder, "dtm", hills, corner=corner, side_m=50, step=1.0, as_rge_alti=True)
    report = stage(folder)
    assets = assets_of(report)
    for tile in (TILE, tile_at(0, 1, SIZE)):
        units, known = height(folder, tile)
        for window in (Window(7, 13, 251, 100), Window(240, 333, 260, 167), Window(0, 0, SIZE, SIZE)):
            place = Window(tile.window.row + window.row, tile.window.col + window.col, *window.shape)
            expected = np.zeros(window.shape, np.uint8)
            where = read_heights(assets, expected, place, step_m=0.2)
            inside = (slice(window.row, window.bottom), slice(window.col, window.right))
            np.testing.assert_array_equal(units[inside], expected)
            np.testing.assert_array_equal(known[inside], where)


def test_the_half_pixel_shift_of_rge_alti_is_right_for_a_plane(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", flat(160), corner=TILE.name, side_m=100)
    write_relief(folder, "dtm", slope, corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    stage(folder)
    units, known = height(folder)
    expected = analytic(flat(160), slope)
    assert np.abs(units - expected)[INNER].max() <= 0.5 + 1e-3
    assert known.all()
    shifted = analytic(flat(160), lambda x, y: slope(x + 0.5, y - 0.5))
    assert np.abs(shifted - expected)[INNER].max() > 1.9, "the test would see the shift"


@pytest.mark.parametrize("treatment", ["leave", "interpolate"])
def test_the_size_of_parts_changes_no_pixel_and_no_hole(tmp_path: Path, treatment: Treatment) -> None:
    folder = imagery(tmp_path)
    # The hole lies across the edges of parts of 250 px.
    write_relief(folder, "dsm", roofs, corner=TILE.name, side_m=100, hole=(slice(60, 130), slice(90, 130)))
    write_relief(folder, "dtm", hills, corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    assets = assets_of(stage(folder))
    found = []
    for part in (250, 500):
        path = tmp_path / f"{part}.tif"
        holes = write_height(path, TILE, assets, treatment=treatment, work=tmp_path, part=part)
        found.append((*height_of(path), holes))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


@pytest.mark.parametrize("kind", ["dsm", "dtm"])
def test_a_small_hole_is_closed_and_still_marked(tmp_path: Path, kind: str) -> None:
    hole = (slice(40, 80), slice(60, 100))
    folder = imagery(tmp_path)
    for each, surface in (("dsm", flat(110)), ("dtm", flat(100))):
        write_relief(folder, each, surface, corner=TILE.name, side_m=100, hole=hole if each == kind else None)  # type: ignore[arg-type]
    report = stage(folder, "interpolate")
    units, known = height(folder)
    assert (units == 50).all()
    assert not known[105:195, 155:245].any()
    known[95:205, 145:255] = True
    assert known.all()
    ((_, holes),) = report.holes
    assert 0.03 < holes.share < 0.05
    assert holes.filled == holes.share


def test_a_hole_is_filled_from_its_rim(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", slope, corner=TILE.name, side_m=100, hole=(slice(20, 30), slice(20, 30)))
    write_relief(folder, "dtm", flat(90), corner=TILE.name, side_m=100)
    stage(folder, "interpolate")
    found, truth = height(folder)[0][40:85, 40:85], analytic(slope, flat(90))[40:85, 40:85]
    # Across the 5 m of the hole the slope rises by 15 units, which inverse distances flatten a little.
    assert 0.6 < np.abs(found - truth).max() < 5


def test_the_middle_of_a_wide_hole_remains_0_and_is_counted(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", flat(110), corner=TILE.name, side_m=100, hole=(slice(20, 180), slice(20, 180)))
    write_relief(folder, "dtm", flat(100), corner=TILE.name, side_m=100)
    ((_, holes),) = stage(folder, "interpolate").holes
    units, known = height(folder)
    assert not units[225:275, 225:275].any()
    assert (units[60:100, 60:440] == 50).all()
    assert holes.share == pytest.approx((~known).mean(), abs=1e-9)
    assert holes.filled == pytest.approx(((units == 50) & ~known).mean(), abs=1e-9)
    assert holes.note is not None
    assert "the rest left at 0" in holes.note


def test_a_coarser_model_fills_the_hole_of_a_finer_one(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", flat(120), corner=TILE.name, side_m=100)
    write_relief(folder, "dtm", flat(100), corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    write_relief(folder, "dtm", flat(110), corner=TILE.name, side_m=50, hole=(slice(20, 60), slice(20, 60)))
    ((_, holes),) = stage(folder, "interpolate").holes
    units, _ = height(folder)
    assert holes.share == 0
    assert (units[60:140, 60:140] == 100).all(), "the coarse terrain, not the rim of the fine one"


def test_holes_that_are_left_are_0_and_recorded_in_the_file(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", flat(110), corner=TILE.name, side_m=50)
    write_relief(folder, "dtm", flat(100), corner=TILE.name, side_m=100)
    stage(folder, "leave")
    units, known = height(folder)
    assert (units[:250, :250] == 50).all()
    assert not units[253:].any()
    (path,) = folder.rglob("*HAUTEUR.tif")
    record = read_record(path)
    assert record is not None
    holes = record.holes
    assert holes.share == (~known).mean()
    assert holes.note is not None
    assert holes.note.startswith(f"height: {holes.share:.2%} of the tile are holes")
    assert holes.note.endswith("left at 0, the ground's height")


def test_a_height_is_a_cog_with_an_internal_mask(tmp_path: Path) -> None:
    from rio_cogeo import cog_validate

    folder = imagery(tmp_path)
    write_relief(folder, "dsm", roofs, corner=TILE.name, side_m=100)
    write_relief(folder, "dtm", hills, corner=TILE.name, side_m=100)
    stage(folder)
    (path,) = folder.rglob("*HAUTEUR.tif")
    assert cog_validate(path)[0]
    with rasterio.open(path) as file:
        assert (file.dtypes, file.shape, file.crs.to_epsg(), file.nodata) == (("uint8",), (SIZE, SIZE), 2154, None)
        assert tuple(file.transform)[:6] == pytest.approx(TILE.window.transform)
        assert rasterio.enums.MaskFlags.per_dataset in file.mask_flag_enums[0]
    assert not list(path.parent.glob("*.msk")), "the mask is in the file"
    assert not list(folder.rglob("*.tmp"))


def test_a_height_of_another_program_has_no_record(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", np.zeros((1, 50, 50), np.uint8), LEFT, TOP)
    assert read_record(path) is None


def relief(folder: Path, level: float = 110) -> None:
    write_relief(folder / "SMALL", "dsm", flat(level), corner=TILE.name, side_m=100)
    write_relief(folder / "SMALL", "dtm", flat(100), corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)


def test_a_second_stage_writes_only_heights_whose_inputs_changed(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    relief(folder)
    assert stage(folder).written == (TILE.name,)
    before = files_of(folder)
    assert stage(folder).written == ()
    assert files_of(folder) == before
    relief(folder, 120)
    assert stage(folder).written == (TILE.name,)
    assert (height(folder)[0] == 100).all()
    assert stage(folder, "interpolate").written == (TILE.name,), "another treatment"


def test_elevation_files_are_removed_when_a_height_replaces_them(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    relief(folder)
    beyond = write_relief(folder / "SMALL", "dtm", flat(90), corner=tile_at(0, 1, SIZE).name, side_m=100)
    report = stage(folder)
    files = removable_elevation(report, out=folder, tile_size=SIZE)
    assert beyond not in files
    assert remove_elevation(files, out=folder, domain=DOMAIN) == 2
    assert list((folder / "SMALL").rglob("*.*")) == [beyond]
    before = files_of(folder)
    again = stage(folder)
    assert (again.written, again.holes) == ((), report.holes)
    assert files_of(folder) == before
    assert (folder / REMOVED_LIST).is_file()
    with pytest.raises(DeliveryError, match="more of its source files are missing"):
        stage(folder, "interpolate")


def test_files_outside_the_staging_folder_are_never_removed(tmp_path: Path) -> None:
    out = imagery(tmp_path / "out")
    relief(tmp_path / "mine")
    with locked_work_folder(out) as work:
        report = write_heights(
            [out, tmp_path / "mine"], domain=DOMAIN, out=out, tile_size=SIZE, treatment="leave", work=work
        )
    assert report.written == (TILE.name,)
    assert removable_elevation(report, out=out, tile_size=SIZE) == {}


def test_files_that_a_link_leads_to_are_never_removed(tmp_path: Path) -> None:
    out = imagery(tmp_path / "out")
    relief(tmp_path / "mine")
    (out / "SMALL").symlink_to(tmp_path / "mine" / "SMALL")
    report = stage(out)
    assert report.elevation
    assert removable_elevation(report, out=out, tile_size=SIZE) == {}


def test_tiles_without_elevation_or_with_a_delivered_height_are_skipped(tmp_path: Path) -> None:
    delivered = tile_at(1, 0, SIZE)
    folder = imagery(tmp_path, TILE, tile_at(0, 5, SIZE), delivered)
    relief(folder)
    left, _, _, top = delivered.window.bounds
    other = folder / "OTHER" / f"34-2021-{delivered.name}-LA93-0M20-HAUTEUR.tif"
    write_raster(other, np.full((1, SIZE, SIZE), 7, np.uint8), left, top)
    report = stage(folder)
    assert report.written == (TILE.name,)
    assert report.without_elevation == (tile_at(0, 5, SIZE).name,)
    assert report.delivered == (delivered.name,)


def test_unreadable_elevation_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    relief(folder)
    (path,) = (folder / "SMALL").rglob("*.tif")
    assets = assets_of(stage(folder))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DeliveryError, match="truncated"):
        stage(folder)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=TILE.name):
        write_height(tmp_path / "x.tif", TILE, assets, treatment="leave", work=tmp_path)
    assert not (tmp_path / "x.tif").exists()


def test_a_full_disk_leaves_no_height(tmp_path: Path) -> None:
    folder = imagery(tmp_path)
    write_relief(folder, "dsm", noisy, corner=TILE.name, side_m=100)
    write_relief(folder, "dtm", flat(100), corner=TILE.name, side_m=100)
    with files_of_at_most(60_000), pytest.raises(StorageError, match="is the disk full"):
        stage(folder)
    assert not list(folder.rglob("*HAUTEUR*.tif*"))
    assert stage(folder).written == (TILE.name,)


def noisy(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights of 0..51 m that compress badly."""
    return 100 + 51 * np.random.default_rng(1).random(np.broadcast_shapes(x.shape, y.shape))
