"""Former editions: what each takes on disk, restored, dropped. Callers lock the nation (`lock.lock_folder`)."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import replacing, sync
from pipeline.errors import ProductError
from pipeline.products.national.edition_record import (
    HIGHEST,
    Edition,
    current_edition,
    edition_of,
    editions,
    next_number,
)
from pipeline.products.national.zarr_store import check_whole


@dataclass(frozen=True)
class EditionState:
    """An edition, and what it takes."""

    edition: Edition
    current: bool
    own_bytes: int
    """Of files that no other edition has: what dropping it frees."""
    shared_bytes: int
    """Of files that are hard links to another edition's."""


def history(national: Path) -> tuple[EditionState, ...]:
    """All finished editions, by number; empty before the first publish.

    Raises:
        ProductError: an edition's record is damaged, or the pointer names nothing.
    """
    current = current_edition(national)
    number = current and current.number
    return tuple(EditionState(e, e.number == number, *_sizes(e.path)) for e in editions(national))


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the files with one name, and of those with several; what a symbolic link names counts where it lies."""
    own = shared = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            stat = Path(parent, name).lstat()
            if stat.st_nlink > 1:
                shared += stat.st_size
            else:
                own += stat.st_size
    return own, shared


def restore(national: Path, number: int) -> Edition:
    """Makes a former edition current by one rename, as a commit does; no other edition changes.

    No new edition is made: a number names the same content for ever, and what was newer stays and can be restored in
    its turn. The next publish compares with what is then current.

    Raises:
        ProductError: there is no such edition, it is not whole, or the disk refuses; what was current is so still.
    """
    edition = edition_of(national, number)
    check_whole(edition)
    # Not named as a commit's pointer: a killed one of those stands for an edition that never was current.
    pointer = national / f".restored.{number:06d}.tmp"
    try:
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(Path("editions", edition.path.name))
        pointer.replace(national / "current")
        sync(national)
    except OSError as error:
        raise ProductError(f"{edition.path}: cannot be made current: {error.strerror or error}") from error
    return edition


def drop(national: Path, number: int) -> None:
    """Removes a former edition; files that others link to stay theirs, and its number is not given again.

    Zarr reads what is gone as no data, so drop only what nobody reads any more. A killed removal is finished by the
    next publish.

    Raises:
        ProductError: there is no such edition, it is the current one, or it cannot be removed.
        StorageError: that its number was given cannot be noted; the edition is still there.
    """
    edition, current = edition_of(national, number), current_edition(national)
    if current is not None and current.number == number:
        raise ProductError(f"{edition.path}: is the current edition; restore or publish another before it is dropped")
    if next_number(national) == number + 1:
        with replacing(national / "editions" / HIGHEST) as temporary:
            temporary.write_text(f"{number}\n", encoding="ascii")
    going = edition.path.with_name(f".{edition.path.name}.tmp")
    try:
        # First the name: half an edition is not to be opened.
        edition.path.rename(going)
        sync(going.parent)
        shutil.rmtree(going)
    except OSError as error:
        raise ProductError(f"{edition.path}: cannot be removed: {error.strerror or error}") from error
