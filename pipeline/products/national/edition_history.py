"""Former editions: lists them with their size, restores or drops one. The caller owns the nation's lock."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import sync, write_text
from pipeline.errors import ProductError, product_error
from pipeline.products.national.edition_record import (
    HIGHEST,
    Edition,
    current_edition,
    edition_of,
    editions,
    next_number,
)
from pipeline.products.national.edition_writer import EDITION
from pipeline.products.national.zarr_store import check_whole
from pipeline.untrusted.own_files import is_own


@dataclass(frozen=True)
class EditionState:
    """An edition and its size on disk."""

    edition: Edition
    current: bool
    own_bytes: int
    """Bytes of files that no other edition has: dropping the edition frees them."""
    shared_bytes: int
    """Bytes of files that are hard links to files of other editions."""


def history(national: Path) -> tuple[EditionState, ...]:
    """All finished editions, by number; empty before the first publish.

    Raises:
        ProductError: an edition's record is damaged, or `current` points to nothing.
    """
    current = current_edition(national)
    number = current and current.number
    return tuple(EditionState(e, e.number == number, *_sizes(e.path)) for e in editions(national))


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the files with one hard link, and of those with several; symbolic links are not followed."""
    files = [Path(parent, name).lstat() for parent, _, names in os.walk(folder) for name in names]
    own = sum(stat.st_size for stat in files if stat.st_nlink == 1)
    return own, sum(stat.st_size for stat in files) - own


def restore(national: Path, number: int) -> Edition:
    """Makes a former edition current by one rename, as a commit does.

    Editions do not change: a number always means the same content, and newer editions can be restored later. The next
    publish compares with the restored edition.

    Raises:
        ProductError: the edition does not exist or lost a file, or `current` cannot be written and stays as it is.
    """
    edition = edition_of(national, number)
    check_whole(edition)
    # Another name than a commit's pointer has: `remove_abandoned` removes the edition that a commit's pointer names.
    pointer = national / f".restored.{number:06d}.tmp"
    with product_error(f"{edition.path}: cannot be made current"):
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(Path("editions", edition.path.name))
        pointer.replace(national / "current")
        sync(national)
    return edition


def drop(national: Path, number: int) -> None:
    """Removes a former edition. Files that other editions link to stay, and the number is not used again.

    Zarr reads lost files as no data, so drop only an edition that nobody is reading. The next publish completes a
    removal that was killed.

    Raises:
        ProductError: there is no such edition, it is the current one or another user's, or it cannot be removed.
        StorageError: the highest number cannot be written; the edition is still there.
    """
    edition, current = edition_of(national, number), current_edition(national)
    if current is not None and current.number == number:
        raise ProductError(f"{edition.path}: is the current edition; restore or publish another one first")
    if not is_own(edition.path, pattern=EDITION, kind="folder"):
        raise ProductError(f"{edition.path}: expected a folder of this user, so it stays; its owner can drop it")
    if next_number(national) == number + 1:
        write_text(national / "editions" / HIGHEST, f"{number}\n")
    going = edition.path.with_name(f".{edition.path.name}.tmp")
    with product_error(f"{edition.path}: cannot be removed"):
        # The name goes first, so that nobody opens half an edition.
        edition.path.rename(going)
        sync(going.parent)
        shutil.rmtree(going)
