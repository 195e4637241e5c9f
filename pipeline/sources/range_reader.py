"""Files whose bytes a function reads by ranges, as Python's file objects."""

import io
from collections.abc import Callable


class RangeReader(io.RawIOBase):
    """A seekable file that is only read.

    Args:
        size: bytes of the file.
        read_range: (first byte, number of bytes) → these bytes, or the first of them.
    """

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        self._size, self._read_range, self._position = size, read_range, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to another byte, also beyond the end, and returns its position."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"position {position} is before the file's start")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads into a buffer; returns the number of bytes, 0 at the end."""
        count = min(len(buffer), self._size - self._position)
        content = self._read_range(self._position, count) if count > 0 else b""
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
