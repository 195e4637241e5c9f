"""Delivered files with their headers and signatures, read by threads or taken from the scan cache."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DeliveryError
from pipeline.fingerprint import file_signature
from pipeline.progress import Progress
from pipeline.sources.delivery.headers import Header, read_header
from pipeline.sources.delivery.names import DeliveredFile, Kind
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.inspection.scan_cache import ScanCache, file_key
from pipeline.sources.validity import Validity

INSPECTION_THREADS = min(8, os.cpu_count() or 1)
"""Threads that read headers and lowest levels."""

_ELEVATIONS_M = (-500.0, 5000.0)
"""Possible elevations. A nodata tag among them, other than 0, would cut holes into real terrain."""


@dataclass(frozen=True)
class InspectedFile:
    """A delivered file and its header."""

    delivered: DeliveredFile
    header: Header
    signature: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.delivered.path

    @property
    def kind(self) -> Kind:
        """Kind of the file."""
        return self.delivered.kind

    @property
    def nodata_is_used(self) -> bool:
        """False where pixels can have the value of the nodata tag: 0..255 in 8 bits, an elevation in a model."""
        value = self.header.nodata
        if value is None or self.kind not in ("dsm", "dtm"):
            return False
        return value == 0 or not _ELEVATIONS_M[0] <= value <= _ELEVATIONS_M[1]

    @property
    def asset(self) -> Asset:
        """The file as the catalog keeps it, without a nodata tag that is not used."""
        header, nodata = self.header, str(self.header.nodata) if self.nodata_is_used else None
        grid = (header.transform, header.shape, header.dtype, header.block)
        validity = header.validity if self.kind in ("rvb", "irc") and header.validity.stated else None
        return Asset(self.kind, self.path, self.signature, self.size, self.mtime_ns, *grid, nodata, validity)


def inspect_files(
    files: Sequence[DeliveredFile], *, cache: ScanCache, progress: Progress
) -> tuple[list[InspectedFile], list[str]]:
    """Reads the headers and signatures of all files; a file that the cache has by path, size and date is not opened.

    Returns:
        The readable files in their order, and one sentence for each of the others.
    """
    with ThreadPoolExecutor(INSPECTION_THREADS) as pool:
        results = list(progress.track(pool.map(lambda f: _inspect(f, cache), files)))
    return [r for r in results if isinstance(r, InspectedFile)], [r for r in results if isinstance(r, str)]


def _inspect(file: DeliveredFile, cache: ScanCache) -> InspectedFile | str:
    try:
        str(file.path).encode()
    except UnicodeEncodeError:
        return f"{printable(file.path)}: its name is not UTF-8; rename it, or the folder above it"
    try:
        stat = file.path.stat()
        entry = cache.get_or_make(file_key(file.path, stat), lambda: _read(file.path))
        return InspectedFile(file, _to_header(entry["header"]), entry["signature"], stat.st_size, stat.st_mtime_ns)
    except DeliveryError as error:
        return str(error)
    except OSError as error:
        return f"{file.path}: cannot be read: {error.strerror}"


def _read(path: Path) -> dict[str, Any]:
    # An infinite or undefined tag survives JSON as Python writes it.
    return {"header": asdict(read_header(path)), "signature": file_signature(path)}


def _to_header(entry: dict[str, Any]) -> Header:
    """A header from its JSON, which has lists for tuples."""
    fields = _with_tuples(entry) | {"validity": Validity(**_with_tuples(entry["validity"]))}
    return Header(**fields)


def _with_tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}


def printable(path: Path) -> str:
    """A path as text that can be printed, whatever bytes its name has."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
