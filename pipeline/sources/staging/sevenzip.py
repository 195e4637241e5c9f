"""Lists the members of a 7z archive and unpacks their bytes in the memory of one decoder.

py7zr reads the headers. The streams are decoded here, because py7zr 1.1 passes more input to its decoder at every
member, needed or not, and so ends with the whole packed stream in memory.
"""

import bz2
import lzma
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import py7zr
from py7zr.exceptions import ArchiveError, PasswordRequired

from pipeline.errors import DeliveryError
from pipeline.sources.staging.archives import Archive
from pipeline.untrusted.limits import ARCHIVE_DICTIONARY_BYTES, ARCHIVE_RATIO

_START = 32
"""Bytes before the first packed stream."""
_PIECE_BYTES = 2**20
"""Most bytes that are unpacked at once."""
_INPUT_BYTES = 2**18
_FREE_BYTES = 2**28
"""Unpacked bytes that need no packed ones: a sheet of nodata compresses to almost nothing."""

# Exceptions of py7zr on damaged headers: it follows counts and offsets from the file without checks.
_BROKEN_HEADER = (
    ArchiveError,
    lzma.LZMAError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
)
_AES = b"\x06\xf1\x07\x01"
_COPY, _BZIP2 = b"\x00", b"\x04\x02\x02"
_LZMA_FILTERS = {b"\x21": lzma.FILTER_LZMA2, b"\x03\x01\x01": lzma.FILTER_LZMA1}


class _Copy:
    """Decoder of members that are stored and not compressed."""

    needs_input = True
    eof = False

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:  # noqa: ARG002  input pieces are small enough
        return data


_Decoder = lzma.LZMADecompressor | bz2.BZ2Decompressor | _Copy


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive."""

    name: str
    """As in the archive, with `/`; not checked to be safe."""
    size: int
    """Bytes unpacked."""
    crc: int | None
    """CRC-32; None if the archive has none."""
    kind: str
    """`file`, `folder`, `link` or `device`."""


@dataclass(frozen=True)
class PackedStream:
    """A packed stream and its members, in their order."""

    start: int
    """Position of its first byte in the archive."""
    packed: int
    """Packed bytes."""
    method: bytes
    properties: bytes
    members: tuple[Member, ...]


@dataclass(frozen=True)
class ArchiveContents:
    """The members of an archive."""

    streams: tuple[PackedStream, ...]
    empty: tuple[Member, ...]
    """Folders, and empty files."""

    @property
    def members(self) -> tuple[Member, ...]:
        """All members."""
        return (*self.empty, *(m for s in self.streams for m in s.members))


def read_contents(archive: Archive) -> ArchiveContents:
    """Reads the archive's header.

    Raises:
        DeliveryError: it is damaged, protected by a password, or packed with an unsupported method.
    """
    try:
        with archive.open() as file, py7zr.SevenZipFile(file) as opened:
            return _contents(archive, opened)
    except PasswordRequired as error:
        raise _protected(archive) from error
    except OSError as error:
        raise DeliveryError(f"{archive.path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeliveryError(
            f"{archive.path}: a member's name is not Unicode ({error.reason}); unpack it with 7-Zip and use its folder "
            "instead"
        ) from error
    except _BROKEN_HEADER as error:
        raise _damaged(archive, f"its header cannot be read: {type(error).__name__} {error}") from error


def _contents(archive: Archive, opened: Any) -> ArchiveContents:
    main = opened.header.main_streams
    folders = [] if main is None else main.unpackinfo.folders
    inside: dict[int, list[Member]] = {id(f): [] for f in folders}
    empty = []
    for f in opened.files:
        member = Member(f.filename, int(f.uncompressed), f.crc32, _kind(f))
        if f.emptystream:
            empty.append(member)
        else:
            inside[id(f.folder)].append(member)
    streams = []
    for number, folder in enumerate(folders):
        method, properties = _coder(archive, folder)
        start = _START + main.packinfo.packpos + main.packinfo.packpositions[number]
        packed = main.packinfo.packsizes[number]
        if start + packed > archive.size:
            raise _damaged(archive, f"a stream ends at byte {start + packed}, the archive at {archive.size}")
        if method in _LZMA_FILTERS:
            size = _lzma_options(archive, method, properties).get("dict_size", 0)
            ARCHIVE_DICTIONARY_BYTES.check(size, archive.path, DeliveryError, what="declares")
        streams.append(PackedStream(start, packed, method, properties, tuple(inside[id(folder)])))
    unpacked = sum(m.size for s in streams for m in s.members)
    if unpacked > _FREE_BYTES:
        ARCHIVE_RATIO.check(unpacked / archive.size, archive.path, DeliveryError, what="declares")
    return ArchiveContents(tuple(streams), tuple(empty))


def _kind(entry: Any) -> str:
    if entry.is_symlink or entry.is_junction:
        return "link"
    if entry.is_directory:
        return "folder"
    return "file" if entry.is_file else "device"


def _coder(archive: Archive, folder: Any) -> tuple[bytes, bytes]:
    """(method, properties) of a stream with a single coder."""
    methods = [c["method"] for c in folder.coders]
    if _AES in methods:
        raise _protected(archive)
    if len(methods) != 1 or methods[0] not in (_COPY, _BZIP2, *_LZMA_FILTERS):
        named = " + ".join(m.hex() for m in methods)
        raise DeliveryError(
            f"{archive.path}: is packed with method {named}; expected only LZMA, LZMA2, BZip2 or Copy: unpack it with "
            "7-Zip and use its folder instead"
        )
    return methods[0], folder.coders[0].get("properties") or b""


def _lzma_options(archive: Archive, method: bytes, properties: bytes) -> dict[str, Any]:
    """A filter with its properties, as py7zr reads them: Python has no public function for this."""
    try:
        options: dict[str, Any] = lzma._decode_filter_properties(  # type: ignore[attr-defined]  # noqa: SLF001
            _LZMA_FILTERS[method], properties
        )
    except (lzma.LZMAError, ValueError) as error:
        raise _damaged(archive, f"a stream has invalid properties: {error}") from error
    return options


def _decoder(archive: Archive, method: bytes, properties: bytes) -> _Decoder:
    if method == _COPY:
        return _Copy()
    if method == _BZIP2:
        return bz2.BZ2Decompressor()
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_lzma_options(archive, method, properties)])
    except (lzma.LZMAError, ValueError) as error:
        raise _damaged(archive, f"a stream has invalid properties: {error}") from error


class StreamReader:
    """Unpacks the members of a stream one after another, in the memory of the decoder whatever their number.

    Args:
        archive: the archive.
        stream: one of its streams; reading starts at its first member.
        file: the open archive, which nobody else may read meanwhile.
    """

    def __init__(self, archive: Archive, stream: PackedStream, file: BinaryIO) -> None:
        self._archive, self._file, self._left = archive, file, stream.packed
        self._decoder = _decoder(archive, stream.method, stream.properties)
        self._file.seek(stream.start)
        self._piece = memoryview(b"")

    def read(self, size: int) -> Iterator[memoryview]:
        """Yields the next `size` bytes in pieces of at most 1 MiB.

        Raises:
            DeliveryError: the stream is damaged or ends earlier, or a volume cannot be read.
        """
        while size > 0:
            if not self._piece:
                self._piece = memoryview(self._next())
            part, self._piece = self._piece[:size], self._piece[size:]
            size -= len(part)
            if part:
                yield part

    def _next(self) -> bytes:
        data = b""
        if self._decoder.needs_input and not self._decoder.eof:
            data = self._packed()
        if self._decoder.eof or (not data and self._decoder.needs_input):
            raise _damaged(self._archive, "a stream ends before its last member", self._file.tell())
        try:
            return self._decoder.decompress(data, _PIECE_BYTES)
        except (lzma.LZMAError, OSError) as error:
            raise _damaged(self._archive, f"a stream cannot be unpacked ({error})", self._file.tell()) from error

    def _packed(self) -> bytes:
        try:
            data = self._file.read(min(_INPUT_BYTES, self._left))
        except OSError as error:
            raise DeliveryError(f"{self._archive.path}: cannot be read: {error.strerror}") from error
        self._left -= len(data)
        return data

    def damaged(self, member: Member) -> DeliveryError:
        """The error for a member with a wrong CRC."""
        return _damaged(self._archive, f"checksum mismatch in {member.name}", self._file.tell())


def _damaged(archive: Archive, what: str, position: int | None = None) -> DeliveryError:
    where = archive.path if position is None else archive.volume_at(position - 1)
    return DeliveryError(f"{where}: is damaged: {what}; download it again")


def _protected(archive: Archive) -> DeliveryError:
    return DeliveryError(f"{archive.path}: is protected by a password; unpack it with 7-Zip and use its folder instead")
