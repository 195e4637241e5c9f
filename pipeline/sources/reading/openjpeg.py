"""Decodes the first component of a JPEG 2000 tile alone, by OpenJPEG's functions in the library that GDAL uses.

GDAL decodes all three components of a tile, also where only the infrared is needed. A component can be decoded alone
where the codestream has no transform across components (COD marker, ISO/IEC 15444-1, table A.17), and its samples are
then those that GDAL gives: it is the same decoder.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from pipeline.errors import SourceError
from pipeline.sources.gdal_drivers import linked_library
from pipeline.untrusted.own_files import open_regular

_SIZ, _COD, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF90, 0xFF93
_HEAD_BYTES = 1 << 16
_TILE_HEAD_BYTES = 1 << 13
_JP2 = 2
"""OpenJPEG's number for files with boxes."""
_PARAMETERS_BYTES = 1 << 15
"""More than its structure of parameters takes."""
_BUFFER_BYTES = 1 << 12
"""It skips from tile to tile up to the one that is decoded, and fills its buffer each time."""
_CHANGED = (b"pclr", b"cmap", b"cdef")
"""Boxes of a palette and of an order of channels, by which pixels are not the components."""


class _Component(ctypes.Structure):
    """OpenJPEG's `opj_image_comp_t`."""

    _fields_ = (
        *(
            (name, ctypes.c_uint32)
            for name in ["dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd", "resno_decoded", "factor"]
        ),
        ("data", ctypes.POINTER(ctypes.c_int32)),
        ("alpha", ctypes.c_uint16),
    )


class _Image(ctypes.Structure):
    """OpenJPEG's `opj_image_t`."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ["x0", "y0", "x1", "y1", "numcomps"]),
        ("color_space", ctypes.c_int),
        ("comps", ctypes.POINTER(_Component)),
        ("icc_profile_buf", ctypes.c_void_p),
        ("icc_profile_len", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Codestream:
    """What the main header of a JPEG 2000 file says about its tiles and components."""

    shape: tuple[int, int]
    """(height, width) of the image in pixels."""
    tile: tuple[int, int]
    """(height, width) of its tiles in pixels; the first one starts at the image's corner."""
    colour_transform: bool
    """True where the first components are transformed together."""
    independent: bool
    """True where the first of several components can be decoded alone by the main header, and has 8 bits."""
    first_tile: int
    """Position of the first tile in the file."""

    @classmethod
    def of(cls, path: Path) -> "Codestream | None":
        """Reads the main header of a local file; None where it has another form than this module reads.

        Raises:
            SourceError: the file cannot be read.
        """
        try:
            with open_regular(path) as file:
                head = file.read(_HEAD_BYTES)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            return cls._parse(head)
        except (struct.error, ValueError, IndexError, KeyError):
            return None

    @classmethod
    def _parse(cls, head: bytes) -> "Codestream":
        at = start = _codestream_at(head)
        main: dict[int, bytes] = {}
        for marker, content in _segments(head, at, end=_SOT):
            main[marker] = content
            at += 4 + len(content)
        width, height, x, y, tile_width, tile_height, tile_x, tile_y, count = struct.unpack_from(">8IH", main[_SIZ], 2)
        if (x, y, tile_x, tile_y) != (0, 0, 0, 0) or not (tile_width and tile_height):
            raise ValueError("its tiles do not start at its corner")
        # Unsigned with 8 bits, and one sample a pixel.
        plain = main[_SIZ][36:] == bytes((7, 1, 1)) * count and not any(box in head[:start] for box in _CHANGED)
        transform = main[_COD][4] != 0
        return cls((height, width), (tile_height, tile_width), transform, plain and not transform and count > 1, at)


def tiles_are_alike(path: Path, codestream: Codestream) -> bool:
    """True if no tile overrides the main header's transform across components.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return not any(_has_own_coding(part) for part in _tile_headers(file, codestream.first_tile))
    except struct.error:
        return False
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _codestream_at(head: bytes) -> int:
    """Position of the first marker behind SOC."""
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", head, at)
        start = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + start + 2
        at += struct.unpack_from(">Q", head, at + 8)[0] if length == 1 else max(length, start)


def _segments(head: bytes, at: int, *, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields (marker, content) of the header at `at`, up to the marker `end`."""
    while True:
        (marker,) = struct.unpack_from(">H", head, at)
        if marker == end:
            return
        (length,) = struct.unpack_from(">H", head, at + 2)
        yield marker, head[at + 4 : at + 2 + length]
        at += 2 + length


def _tile_headers(file: BinaryIO, at: int) -> Iterator[bytes]:
    """Yields the first bytes of each part of a tile."""
    while True:
        file.seek(at)
        head = file.read(_TILE_HEAD_BYTES)
        if head[:2] != _SOT.to_bytes(2, "big"):
            return
        yield head
        (length,) = struct.unpack_from(">I", head, 6)
        if not length:  # to the end of the file
            return
        at += length


def _has_own_coding(part: bytes) -> bool:
    """True where a tile has a COD marker of its own."""
    return any(marker == _COD for marker, _ in _segments(part, 12, end=_SOD))


def can_select_components() -> bool:
    """True where GDAL's OpenJPEG is at hand and can decode single components, as since 2.3."""
    return _library() is not None


def first_component(path: Path, codestream: Codestream, *, row: int, col: int) -> NDArray[np.uint8]:
    """The first component of a tile: uint8 (y, x).

    Args:
        path: a local file, which GDAL can open.
        codestream: of the file; `independent` is true, and its tiles are alike.
        row, col: of the tile, counted in tiles.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be decoded.
    """
    (height, width), (tile_height, tile_width) = codestream.shape, codestream.tile
    shape = min(tile_height, height - row * tile_height), min(tile_width, width - col * tile_width)
    with _decoder(path) as (library, codec, stream, image):
        chosen = (ctypes.c_uint32 * 1)(0)
        index = row * -(-width // tile_width) + col
        if not (
            library.opj_read_header(stream, codec, ctypes.byref(image))
            and library.opj_set_decoded_components(codec, 1, chosen, 0)
            and library.opj_get_decoded_tile(codec, stream, image, index)
            and image.contents.numcomps == 1
        ):
            raise RasterioIOError(f"{path}: tile ({row}, {col}) of its codestream cannot be decoded")
        own = image.contents.comps[0]
        if (own.h, own.w, own.prec, own.sgnd) != (*shape, 8, 0) or not own.data:
            raise RasterioIOError(f"{path}: tile ({row}, {col}) of its codestream has not the size of its header")
        samples = np.ctypeslib.as_array(own.data, shape)
        return samples.clip(0, 255).astype(np.uint8)


@contextmanager
def _decoder(path: Path) -> Iterator[tuple[Any, Any, Any, Any]]:
    """(library, codec, stream, image without pixels); everything is freed when the block ends."""
    library = _library()
    image = ctypes.POINTER(_Image)()
    with ExitStack() as freed:
        codec = ctypes.c_void_p(library.opj_create_decompress(_JP2))
        freed.callback(library.opj_destroy_codec, codec)
        stream = ctypes.c_void_p(library.opj_stream_create_file_stream(os.fsencode(path), _BUFFER_BYTES, 1))
        if stream.value is None:
            raise RasterioIOError(f"{path}: cannot be opened")
        freed.callback(library.opj_stream_destroy, stream)
        freed.callback(lambda: library.opj_image_destroy(image))
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        library.opj_set_default_decoder_parameters(parameters)
        if not library.opj_setup_decoder(codec, parameters):
            raise RasterioIOError(f"{path}: OpenJPEG does not start")
        yield library, codec, stream, image


@cache
def _library() -> Any:
    library = linked_library()
    if not hasattr(library, "opj_set_decoded_components"):
        return None
    library.opj_create_decompress.restype = ctypes.c_void_p
    library.opj_stream_create_file_stream.restype = ctypes.c_void_p
    library.opj_stream_create_file_stream.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    return library
