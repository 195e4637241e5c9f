"""What a raster states about which of its pixels are valid, and the one rule that follows from it.

A pixel is valid where each band of imagery is valid by its mask, by the file's band of transparency, by its own nodata
value, and because its block was written. Heights decide nothing. Single rasters and deliveries share this rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from pipeline.grid import Window
from pipeline.sources.bit_depth import FILL_TOLERANCE

RIM_PX = 16
"""Pixels beside nodata that lossy compression changes: a JPEG's block of 8 px, twice as large where colours are
subsampled."""
_RIM_LEVELS = 36
"""Levels by which it changes nodata there: at most 35 where real imagery of bare rock meets black (JPEG quality 75)."""
_HALF = {"uint8": 128, "uint16": 32768}
"""Masks and transparency count from here: in a lossy file they are not exactly 0 and 255."""


@dataclass(frozen=True)
class Validity:
    """A header's statements about which pixels are valid; all are empty where every pixel is."""

    masks: tuple[int, ...] = ()
    """Bands that have a mask, of their own or of the whole file."""
    alpha: int | None = None
    """The band of transparency."""
    nodata: tuple[int | None, ...] = ()
    """Nodata value of each band among the levels of its type; empty where no band has one."""
    unwritten: bool = False
    """True where a block of a TIFF was never written; it reads as nodata or as 0."""
    lossy: bool = False
    """True where compression changes nodata values too."""

    @classmethod
    def of(cls, file: Any) -> "Validity":
        """Reads the statements of an open raster's header."""
        nodata = _nodata_levels(file)
        states = zip(file.indexes, file.mask_flag_enums, file.colorinterp, strict=True)
        masks = tuple(i for i, flags, colour in states if _has_mask(flags) and colour != ColorInterp.alpha)
        alpha = next((i for i, c in zip(file.indexes, file.colorinterp, strict=True) if c == ColorInterp.alpha), None)
        unwritten = any(offset is None for *_, offset, _ in tiff_blocks(file))
        return cls(masks, alpha, nodata, unwritten, lossy=bool(nodata) and _lossy(file))

    @property
    def stated(self) -> bool:
        """False where every pixel is valid."""
        return self != Validity()

    def to_json(self) -> dict[str, Any]:
        """What is stated, as JSON-able values."""
        return {name: value for name, value in asdict(self).items() if value not in ((), None, False)}

    def valid(
        self, file: Any, window: Window, *, indexes: Sequence[int], pixels: NDArray[Any] | None = None
    ) -> NDArray[np.bool_]:
        """The rule, for a window of an open raster's own pixels.

        Args:
            file: the raster, opened without files beside it.
            window: inside of it.
            indexes: bands of imagery, counted from 1.
            pixels: (band, y, x) of these bands in the window, if they were read already.

        Returns:
            bool (y, x): True where all of these bands are valid.

        Raises:
            rasterio.errors.RasterioIOError: it cannot be read.
        """
        valid = np.ones(window.shape, np.bool_)
        if masked := [i for i in indexes if i in self.masks]:
            valid &= (file.read_masks(masked, window=window.slices) >= _HALF["uint8"]).all(axis=0)
        if self.alpha is not None:
            valid &= file.read(self.alpha, window=window.slices) >= _HALF.get(file.dtypes[self.alpha - 1], 1)
        if used := [i for i in indexes if self.nodata and self.nodata[i - 1] is not None]:
            valid &= self._by_nodata(file, window, used, indexes=indexes, pixels=pixels)
        if self.unwritten:
            for row, col in _unwritten(file, window, indexes):
                valid[row, col] = False
        return valid

    def _by_nodata(
        self, file: Any, window: Window, used: list[int], *, indexes: Sequence[int], pixels: NDArray[Any] | None
    ) -> NDArray[np.bool_]:
        values = np.array([self.nodata[i - 1] for i in used])[:, None, None]
        if not self.lossy:
            if pixels is None:
                levels = file.read(used, window=window.slices)
            else:
                levels = pixels[[list(indexes).index(i) for i in used]]
            exact: NDArray[np.bool_] = (levels != values).all(axis=0)
            return exact
        from scipy import ndimage

        around = window.grow(RIM_PX, RIM_PX).intersect(Window(0, 0, file.height, file.width))
        levels = file.read(used, window=around.slices)
        off = np.abs(levels.astype(np.int32) - values).max(axis=0)
        # Nearly nodata beside nodata is nodata, which the compression changed.
        beside = ndimage.maximum_filter((off <= FILL_TOLERANCE).view(np.uint8), size=2 * RIM_PX + 1).view(np.bool_)
        valid: NDArray[np.bool_] = (levels != values).all(axis=0) & ~(beside & (off <= _RIM_LEVELS))
        return valid[window.slices_in(around)]


def tiff_blocks(
    file: Any, window: Window | None = None, bands: Sequence[int] = ()
) -> Iterator[tuple[int, int, int, int | None, int]]:
    """Yields (band, block row, block column, offset, bytes) of a TIFF's blocks; nothing for other formats.

    Where bands share blocks, they are those of the first band. The offset is None where a block was never written.

    Args:
        file: the open raster.
        window: only blocks that it meets, in the raster's own pixels.
        bands: only those of these bands.
    """
    if file.driver != "GTiff":
        return
    place = window or Window(0, 0, file.height, file.width)
    height, width = file.block_shapes[0]
    separate = file.interleaving is not None and file.interleaving.name == "band"
    for band in bands or file.indexes if separate else (1,):
        for row in range(place.row // height, -(-place.bottom // height)):
            for col in range(place.col // width, -(-place.right // width)):
                offset = file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
                size = file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band)
                yield band, row, col, None if offset is None else int(offset), int(size or 0)


def _unwritten(file: Any, window: Window, indexes: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yields the parts of a window's array whose blocks were never written."""
    height, width = file.block_shapes[0]
    for _, row, col, offset, _ in tiff_blocks(file, window, indexes):
        if offset is None:
            yield Window(row * height, col * width, height, width).intersect(window).slices_in(window)


def _has_mask(flags: Sequence[MaskFlags]) -> bool:
    """True for a mask that is neither made of nodata values nor a band of transparency."""
    return not {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha} & set(flags)


def _nodata_levels(file: Any) -> tuple[int | None, ...]:
    """Each band's nodata value; a tag NODATA_VALUES has one for each band too."""
    listed = file.tags().get("NODATA_VALUES", "").split()
    stated = list(file.nodatavals)
    if len(listed) == file.count and not any(v is not None for v in stated):
        stated = [float(v) for v in listed]
    levels = tuple(
        int(v)
        if v is not None and np.issubdtype(dtype, np.unsignedinteger) and v in range(np.iinfo(dtype).max + 1)
        else None
        for v, dtype in zip(stated, file.dtypes, strict=True)
    )
    return levels if any(v is not None for v in levels) else ()


def _lossy(file: Any) -> bool:
    structure = file.tags(ns="IMAGE_STRUCTURE")
    reversible = structure.get("COMPRESSION_REVERSIBILITY", "")
    changed = float(structure.get("MAX_Z_ERROR", 0)) > 0 or "LOSSY" in reversible
    return changed or (not reversible and "JPEG" in structure.get("COMPRESSION", ""))
