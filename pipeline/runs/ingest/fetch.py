"""From a département's name to a folder that `stage` reads: chooses editions, and downloads their archives."""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import write_text
from pipeline.lock import lock_folder
from pipeline.runs.ingest.stage import ProgressBars
from pipeline.sources.download.choose import Choice, Content, choose
from pipeline.sources.download.editions import RemoteEdition
from pipeline.sources.download.record import DownloadedEdition, DownloadedFile, DownloadRecord, write_record
from pipeline.sources.download.service import RemoteFile, Service
from pipeline.sources.download.transfer import (
    CONNECTIONS,
    Download,
    check_space,
    download_all,
    missing_downloads,
)
from pipeline.sources.staging.archives import find_archives


@dataclass(frozen=True)
class ListedEdition:
    """An edition and its files, as far as they are listed."""

    edition: RemoteEdition
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.length for file in self.files)


@dataclass(frozen=True)
class FetchPlan:
    """The editions to download, and their files."""

    choice: Choice
    editions: tuple[ListedEdition, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(listed.size_bytes for listed in self.editions)


@dataclass(frozen=True)
class FetchReport:
    """What was downloaded, and where."""

    folder: Path
    fetched: int
    """Number of downloaded files."""
    fetched_bytes: int
    kept: int
    """Number of files that were there, with the right length and md5."""
    notes: tuple[str, ...]
    """What could not be checked, a sentence each."""


def list_editions(service: Service, zone: str, products: Iterable[str]) -> tuple[ListedEdition, ...]:
    """All editions of products for a département, with their files.

    Args:
        service: where.
        zone: such as `D034`.
        products: such as all of `service.products()`.

    Raises:
        DownloadError: the service does not answer, or otherwise than expected.
    """
    return _with_files(service, service.editions(zone, products))


def plan_fetch(service: Service, zone: str, *, year: int | None, contents: Collection[Content]) -> FetchPlan:
    """Chooses what to download.

    Args:
        service: where.
        zone: such as `D034`.
        year: vintage of the imagery; by default the newest that has all wanted spectra.
        contents: what is wanted.

    Raises:
        DownloadError: there is no such imagery, or the service does not answer as expected.

    Example:
        >>> plan = plan_fetch(Service(), "D034", year=2021, contents=("rvb", "irc"))
        >>> fetch(plan, Service(), out=Path("deliveries"), bar=progress_bar).folder
        PosixPath('deliveries/D034_2021')
    """
    choice = choose(service.editions(zone, service.products()), zone=zone, year=year, contents=contents)
    return FetchPlan(choice, _with_files(service, choice.editions))


def _with_files(service: Service, editions: Sequence[RemoteEdition]) -> tuple[ListedEdition, ...]:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return tuple(map(ListedEdition, editions, pool.map(service.files, editions)))


def fetch(plan: FetchPlan, service: Service, *, out: Path, bar: ProgressBars) -> FetchReport:
    """Downloads the files that are missing in a folder named after the domain; `stage` reads this folder.

    After an interruption it resumes: complete files are compared with their md5 and kept, others go on where they are.

    Args:
        plan: from `plan_fetch`.
        service: the same.
        out: the folder of the domain's folder.
        bar: opens progress bars.

    Raises:
        DownloadError: some files could not be downloaded; the others are there.
        DeliveryError: archives are not complete although all listed volumes are there.
        StorageError: the folder cannot be written, or the disk is too small.
        LockError: another fetch writes to the folder.
    """
    folder = (out / plan.choice.domain).absolute()
    downloads = _downloads(plan, folder)
    with lock_folder(folder, what=f"the download folder {folder}"):
        with bar("check") as progress:
            missing = missing_downloads(downloads, progress)
        check_space(missing, folder)
        write_record(folder, _record(plan, service, folder, downloads))
        notes = [note for listed in plan.editions for note in _write_sums(listed, folder)]
        wanted = sum(d.missing_bytes for d in missing)
        with bar("download") as progress:
            download_all(missing, service, progress)
        find_archives([folder])  # their own headers say whether a volume is missing at the end
    return FetchReport(folder, len(missing), wanted, len(downloads) - len(missing), tuple(notes))


def _downloads(plan: FetchPlan, folder: Path) -> tuple[Download, ...]:
    """Archives lie in the folder itself, rasters in one of their edition."""
    return tuple(
        Download(file, folder / file.name if file.kind == "archive" else folder / listed.edition.name / file.name)
        for listed in plan.editions
        for file in listed.files
    )


def _record(plan: FetchPlan, service: Service, folder: Path, downloads: Sequence[Download]) -> DownloadRecord:
    paths = {d.file.url: d.path.relative_to(folder).as_posix() for d in downloads}
    editions = tuple(
        DownloadedEdition(
            name=edition.name,
            part=edition.part,
            url=f"{service.url}/resource/{edition.product}/{edition.name}",
            files=tuple(DownloadedFile(path=paths[f.url], length=f.length, md5=f.md5) for f in listed.files),
        )
        for listed in plan.editions
        if (edition := listed.edition).part
    )
    return DownloadRecord(domain=plan.choice.domain, service=service.url, editions=editions)


def _write_sums(listed: ListedEdition, folder: Path) -> list[str]:
    """Writes the md5 sums of an edition's archives beside them, for `stage`; returns a note where some are unknown."""
    archives = [file for file in listed.files if file.kind == "archive"]
    lines = [f"{file.md5}  {file.name}\n" for file in archives if file.md5]
    if lines:
        write_text(folder / f"{listed.edition.name}.md5", "".join(lines))
    without = sum(file.md5 is None for file in listed.files)
    return [f"{listed.edition.name}: no md5 for {without} files: only their lengths were checked"] if without else []
