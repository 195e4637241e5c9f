"""Archives as IGN ships them → a folder that `index` takes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.grid import PIXELS_PER_M
from pipeline.progress import Progress
from pipeline.sources import staging
from pipeline.sources.staging import Archive, Contents, HeightsReport, Treatment
from pipeline.sources.staging.cleanup import read_removed
from pipeline.sources.staging.unpack import Unpacked, check_room, member_path

Bar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar with this description."""


@dataclass(frozen=True)
class StageReport:
    """What was staged, and where."""

    out: Path
    unpacked: tuple[tuple[str, Unpacked], ...]
    """(archive, what became of its members)."""
    heights: HeightsReport
    removed: int
    """Elevation files removed."""
    folders: tuple[Path, ...]
    """What `index` wants: the staging folder, and the folders that were given."""
    notes: tuple[str, ...]
    """What was found and handled, a sentence each."""


def stage(
    given: Sequence[Path],
    *,
    domain: Domain,
    out: Path | None,
    tile_m: int,
    treatment: Treatment,
    remove_small: bool,
    bar: Bar,
) -> StageReport:
    """Checks and unpacks archives, writes the heights of all imagery tiles, and removes what they stand for.

    Run again after an interruption it goes on where it was: what is unpacked and whole is not unpacked again, and
    what is written is not written again.

    Args:
        given: archives, any of their volumes, or folders that are unpacked already and are read where they are.
        domain: `D064_2021`; files of another are refused.
        out: the staging folder; by default named by the domain, beside the first of `given`.
        tile_m: side of an imagery tile in metres.
        treatment: of holes in the elevation.
        remove_small: removes the elevation files that lie wholly in written heights; in `out` only.
        bar: opens progress bars.

    Raises:
        DeliveryError: archives that are not whole, not safe, or of another domain; elevation that is not what it says.
        StorageError: the staging folder cannot be written, or is too small.
    """
    archives, folders = staging.find(given)
    if not archives and not folders:
        raise DeliveryError("nothing to stage: give archives (NAME.7z, NAME.7z.001), or folders")
    first = (archives[0].path if archives else folders[0]).parent
    target = (out or first / domain).absolute()
    with bar("check") as progress:
        notes = staging.check_sums(archives, progress)
    contents = [(archive, staging.read_contents(archive)) for archive in archives]
    staging.check_members(contents, domain)
    with staging.claimed(target) as work:
        with bar("unpack") as progress:
            unpacked = _unpack_all(contents, target, work, progress)
        with bar("heights") as progress:
            heights = staging.write_heights(
                _distinct([target, *folders]),
                domain=domain,
                out=target,
                tile_size=tile_m * PIXELS_PER_M,
                treatment=treatment,
                work=work,
                progress=progress,
            )
        small = staging.removable(heights, out=target, tile_size=tile_m * PIXELS_PER_M) if remove_small else {}
        removed = staging.remove(small, out=target, domain=domain)
    return StageReport(
        target,
        unpacked,
        heights,
        removed,
        _distinct([target, *folders]),
        (*notes, *_said(heights, remove_small, removed)),
    )


def _unpack_all(
    contents: Sequence[tuple[Archive, Contents]], target: Path, work: Path, progress: Progress
) -> tuple[tuple[str, Unpacked], ...]:
    progress.start(sum(m.size for _, inside in contents for m in inside.members), "bytes")
    gone = read_removed(target)
    wanted = [staging.pending(inside, target, gone=gone, progress=progress) for _, inside in contents]
    check_room(
        (
            m
            for (_, inside), lacking in zip(contents, wanted, strict=True)
            for m in inside.members
            if member_path(m) in lacking
        ),
        target,
    )
    return tuple(
        (archive.path.name, staging.unpack(archive, inside, target, wanted=lacking, work=work, progress=progress))
        for (archive, inside), lacking in zip(contents, wanted, strict=True)
    )


def _distinct(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folders))


def _said(heights: HeightsReport, remove_small: bool, removed: int) -> list[str]:  # noqa: FBT001
    said = [f"{tile}: {found.note}" for tile, found in heights.holes if found.note]
    if heights.lacking:
        some = ", ".join(heights.lacking[:3])
        said.append(f"{len(heights.lacking)} tiles have no surface and terrain files, and no height ({some} …)")
    if heights.delivered:
        said.append(f"{len(heights.delivered)} tiles have a ready height already; none was made for them")
    left = len(heights.elevation) - removed
    if remove_small and left:
        said.append(f"{left} elevation files stay: they reach beyond the written heights, or lie outside the folder")
    return said
