"""Makes a large JPEG 2000 file of the encoded tiles of a small one, in seconds; it is decoded like any other.

Only the index of a tile is written into its part of the codestream (ISO/IEC 15444-1, annex A). A tile of the large
file has the small file's tile of the same size: the last column and the last row are cut off alike.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.durable import write_bytes

_SOT, _EOC = b"\xff\x90", b"\xff\xd9"
_IMAGE_HEADER, _CODESTREAM = b"ihdr", b"jp2c"
_KEPT_ALIKE = 3
"""Full tiles along a side of the small file."""


def small_side(side: int, tile: int) -> int:
    """Side of the small file, in pixels, for a large one of `side` with internal tiles of `tile`."""
    return side if side <= _KEPT_ALIKE * tile else _KEPT_ALIKE * tile + side % tile


def repeat_tiles(path: Path, *, side: int, tile: int) -> None:
    """Replaces a square JPEG 2000 file, as GDAL writes it, by one of `side` pixels.

    Args:
        path: a file of `small_side` pixels; its north-west corner stays where it is.
        side: of the large file, in pixels.
        tile: side of the internal tiles of both, in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    content = path.read_bytes()
    at = content.index(_CODESTREAM)
    boxes, stream = bytearray(content[: at + 4]), content[at + 4 :]
    first = stream.index(_SOT)
    head, parts = bytearray(stream[:first]), list(_tile_parts(stream, first))
    # After the markers SOC and SIZ, the length and the capabilities: width and height of the image.
    struct.pack_into(">II", head, 8, side, side)
    struct.pack_into(">II", boxes, boxes.index(_IMAGE_HEADER) + 4, side, side)
    # A length of 0: this box is the last one and reaches to the end of the file.
    struct.pack_into(">I", boxes, at - 4, 0)
    count, kept = -(-side // tile), -(-small_side(side, tile) // tile)
    full = side // tile

    def source(index: int) -> int:
        return index % _KEPT_ALIKE if index < full else kept - 1

    written = [bytes(boxes), bytes(head)]
    for index in range(count * count):
        row, col = divmod(index, count)
        part = parts[source(row) * kept + source(col)]
        written += [part[:4], struct.pack(">H", index), part[6:]]
    write_bytes(path, b"".join([*written, _EOC]))


def _tile_parts(stream: bytes, at: int) -> Iterator[bytes]:
    """Yields the encoded tiles, in their order; each has one part."""
    while stream[at : at + 2] == _SOT:
        (length,) = struct.unpack_from(">I", stream, at + 6)
        yield stream[at : at + length]
        at += length
