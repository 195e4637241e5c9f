"""`download.json` in a downloaded folder: which files belong to it, so that `stage` reads all of them and no others."""

from pathlib import Path, PurePath

from pydantic import Field

from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import DeliveryError
from pipeline.sources.download.editions import Part
from pipeline.untrusted.documents import Document, DocumentError, read_model

RECORD = "download.json"


class DownloadedFile(Document):
    """A file of the folder."""

    path: str = Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Relative to the folder: archives lie in it, rasters in a folder of their edition."""
    length: int = Field(ge=0)
    md5: str | None = None


class DownloadedEdition(Document):
    """An edition, and what it is used for."""

    name: str
    part: Part
    url: str
    files: tuple[DownloadedFile, ...]


class DownloadRecord(Document):
    """All editions of a folder. It is written before the first file, so files may be missing."""

    domain: Domain
    service: str
    editions: tuple[DownloadedEdition, ...]


def read_record(folder: Path) -> DownloadRecord | None:
    """The record of a folder; None where it has none, because it was not downloaded by this package.

    Raises:
        DeliveryError: the record is damaged.
    """
    try:
        return read_model(DownloadRecord, folder / RECORD)
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise DeliveryError(f"{folder / RECORD}: {error}; remove it and run landcover fetch again") from error


def write_record(folder: Path, record: DownloadRecord) -> None:
    """Writes the record, with the editions of a former one whose parts the new one has not.

    Raises:
        StorageError: the folder cannot be written.
        DeliveryError: the former record is damaged.
    """
    former = read_record(folder)
    parts = {edition.part for edition in record.editions}
    kept = tuple(e for e in former.editions if e.part not in parts) if former else ()
    merged = record.model_copy(update={"editions": (*record.editions, *kept)})
    write_json(folder / RECORD, merged.model_dump(mode="json"))


def downloaded_paths(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """Archives and folders of rasters in a downloaded folder; None for any other folder.

    Raises:
        DeliveryError: a file is missing or of another length, or the record is damaged.
    """
    record = read_record(folder)
    if record is None:
        return None
    files = [file for edition in record.editions for file in edition.files]
    missing = [file.path for file in files if not _is_whole(folder / file.path, file.length)]
    if missing:
        raise DeliveryError(
            f"{folder}: {len(missing)} of {len(files)} files are not downloaded, {missing[0]} is the first; "
            "run the same landcover fetch again"
        )
    paths = [PurePath(file.path) for file in files]
    archives = [folder / path for path in paths if len(path.parts) == 1]
    return archives, sorted({folder / path.parts[0] for path in paths if len(path.parts) > 1})


def _is_whole(path: Path, length: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == length
    except OSError:
        return False
