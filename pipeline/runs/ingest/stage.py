"""From archives as IGN ships them to a folder that `index` reads."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.grid import PIXELS_PER_M
from pipeline.progress import Progress
from pipeline.runs.ingest.found_deliveries import tile_size_below
from pipeline.sources.short_lists import first_names
from pipeline.sources.staging.archives import Archive, check_md5, find_archives
from pipeline.sources.staging.cleanup import read_removed, removable_elevation, remove_elevation
from pipeline.sources.staging.domain_heights import HeightsReport, write_heights
from pipeline.sources.staging.height_record import Treatment
from pipeline.sources.staging.sevenzip import ArchiveContents, read_contents
from pipeline.sources.staging.unpack import (
    UnpackReport,
    check_members,
    check_room,
    locked_work_folder,
    member_path,
    missing_members,
    unpack,
)

ProgressBars = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar with this description."""


@dataclass(frozen=True)
class StageReport:
    """What was staged, and where."""

    out: Path
    unpacked: tuple[tuple[str, UnpackReport], ...]
    """(archive, numbers of its files)."""
    heights: HeightsReport
    removed: int
    """Number of removed elevation files."""
    folders: tuple[Path, ...]
    """The folders to index: the staging folder, and those among the arguments."""
    notes: tuple[str, ...]
    """What was found and handled, a sentence each."""
    tile_notes: tuple[str, ...]
    """The holes in the height of each tile that has any, a sentence each."""


def stage(
    sources: Sequence[Path],
    *,
    domain: Domain,
    out: Path | None,
    tile_m: int | None,
    treatment: Treatment,
    remove_small: bool,
    bar: ProgressBars,
) -> StageReport:
    """Checks and unpacks archives, writes the heights of all tiles, and removes the elevation files that they replace.

    After an interruption it resumes: complete files are neither unpacked nor written again.

    Args:
        sources: archives, any of their volumes, or folders of unpacked deliveries, which are read where they are.
        domain: such as `D064_2021`; files of another domain are refused.
        out: the staging folder; by default named after the domain, beside the first source.
        tile_m: side of a tile in metres; None: as wide as an image that is there, once archives are unpacked.
        treatment: of holes in the elevation.
        remove_small: removes elevation files that lie wholly in written heights, if they are in `out`.
        bar: opens progress bars.

    Raises:
        DeliveryError: archives that are incomplete, unsafe or of another domain; elevation that contradicts its name.
        StorageError: the staging folder cannot be written, or is too small.
    """
    archives, folders = find_archives(sources)
    if not archives and not folders:
        raise DeliveryError("nothing to stage; name archives (NAME.7z, NAME.7z.001) or folders")
    first = (archives[0].path if archives else folders[0]).parent
    target = (out or first / domain).absolute()
    with bar("check") as progress:
        notes = check_md5(archives, progress)
    contents = [(archive, read_contents(archive)) for archive in archives]
    check_members(contents, domain)
    to_index = tuple(dict.fromkeys([target, *folders]))
    with locked_work_folder(target) as work:
        with bar("unpack") as progress:
            unpacked = _unpack_all(contents, target, work, progress)
        tile_size = tile_m * PIXELS_PER_M if tile_m else tile_size_below(to_index)
        with bar("heights") as progress:
            heights = write_heights(
                to_index,
                domain=domain,
                out=target,
                tile_size=tile_size,
                treatment=treatment,
                work=work,
                progress=progress,
            )
        replaced = removable_elevation(heights, out=target, tile_size=tile_size) if remove_small else {}
        removed = remove_elevation(replaced, out=target, domain=domain)
    notes += _height_notes(heights, removed if remove_small else None)
    of_tiles = tuple(f"{tile}: {holes.note}" for tile, holes in heights.holes if holes.note)
    return StageReport(target, unpacked, heights, removed, to_index, tuple(notes), of_tiles)


def _unpack_all(
    contents: Sequence[tuple[Archive, ArchiveContents]], target: Path, work: Path, progress: Progress
) -> tuple[tuple[str, UnpackReport], ...]:
    progress.start(sum(m.size for _, inside in contents for m in inside.members), "bytes")
    removed = read_removed(target)
    jobs = [(a, inside, missing_members(inside, target, removed=removed, progress=progress)) for a, inside in contents]
    check_room((m for _, inside, missing in jobs for m in inside.members if member_path(m) in missing), target)
    return tuple(
        (archive.path.name, unpack(archive, inside, target, wanted=missing, work=work, progress=progress))
        for archive, inside, missing in jobs
    )


def _height_notes(heights: HeightsReport, removed: int | None) -> list[str]:
    """Sentences about the heights; `removed` is None if no elevation file should be removed."""
    notes = []
    if with_holes := {tile: holes.share for tile, holes in heights.holes if holes.share}:
        worst = max(with_holes, key=lambda tile: with_holes[tile])
        notes.append(
            f"holes of the surface or terrain model in {len(with_holes)} of {len(heights.holes)} tiles, up to "
            f"{with_holes[worst]:.2%} of a tile ({worst}); `landcover -v stage` lists them"
        )
    if without := heights.without_elevation:
        notes.append(f"no height is written for tiles without surface and terrain files: {first_names(without, 3)}")
    if heights.delivered:
        notes.append(f"{len(heights.delivered)} tiles already have a ready height; none was written for them")
    if removed is not None and removed < len(heights.elevation):
        kept = len(heights.elevation) - removed
        notes.append(
            f"{kept} elevation files were kept: they reach beyond the written heights or lie in another folder"
        )
    return notes
