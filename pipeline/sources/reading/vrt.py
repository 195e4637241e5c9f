"""Builds GDAL's virtual rasters as XML strings: they mosaic and resample files, and pickle as text.

The guarantee: a pixel is the same number whatever window, worker or domain reads it, and costs one decoding of each
block behind it. `gdalbuildvrt` and the libraries above it cannot give it: they place the raster by the extent of its
files, open all of them, resample file by file, and keep files open by name alone, so that a replaced file is not
noticed. Here all rasters share one frame, the lattice from 0 to 10 000 km, so that the arithmetic on positions does not
depend on a domain's extent; files of one grid are mosaicked before they are resampled; and a file's signature is part
of its name.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import CatalogError
from pipeline.grid import PIXELS_PER_M, RESOLUTION_M, Window
from pipeline.sources.bit_depth import RATIO
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.gdal_open import gdal_name
from pipeline.untrusted.escape import for_xml, for_xml_attribute

FRAME = Window(-50_000_000, 0, 50_000_000, 50_000_000)
"""The range of tile names: x and y of 0..10 000 km."""
_FRAME_PLACE = (FRAME.bounds[0], FRAME.bounds[3], RESOLUTION_M)
"""Its west and north edge and the side of its pixels, in metres."""

NODATA_M = -99_999.0
"""Nodata value in our own rasters, in metres, whatever the files use."""

UNREAD = -123_456.0
"""A value that no elevation file has, not even as nodata."""

_GDAL_TYPES = {
    "uint8": "Byte",
    "int16": "Int16",
    "uint16": "UInt16",
    "int32": "Int32",
    "uint32": "UInt32",
    "float32": "Float32",
    "float64": "Float64",
}
ELEVATION_TYPES = frozenset(_GDAL_TYPES) - {"uint8"}
"""numpy's names of the sample types that an elevation file may have."""


def imagery(assets: Sequence[Asset], *, bands: int) -> str:
    """A uint8 raster over the frame, 0 outside the files; empty text if there are no files.

    The sources are SimpleSource, except for more than 8 bits (see `bit_depth`): if all bands have the same files, GDAL
    then reads all bands of the file in one call, so each block of a JPEG 2000 file is decoded once. Files of
    another resolution are first mosaicked, then resampled to the lattice: averaged if they are finer, bilinearly if
    coarser.

    Args:
        assets: files of imagery.
        bands: number of bands.
    """
    if not assets:
        return ""
    own = [(a, _on_frame(a)) for a in assets if not a.resampled]
    grids = by_grid(a for a in assets if a.resampled)
    rasters = "".join(
        _band(
            "Byte",
            "".join(_resampled_imagery(grid, files, band=band) for grid, files in grids.items())
            + "".join(_imagery_source(a, band=band, left=left, top=top) for a, (left, top) in own),
            number=band,
        )
        for band in range(1, bands + 1)
    )
    return _dataset(FRAME.shape, rasters)


def elevation(assets: Sequence[Asset]) -> str:
    """Metres, float32, over the frame at 0.20 m, `NODATA_M` where unknown; empty text if there are no files.

    Files of one grid are first mosaicked at their own resolution, because resampling file by file leaves seams at their
    edges. Each mosaic is then resampled bilinearly to the lattice. Where grids overlap, the finer one is used.
    """
    if not assets:
        return ""
    grids = by_grid(assets)
    # With a single grid no pixel must be compared with nodata.
    kind = "SimpleSource" if len(grids) == 1 else "ComplexSource"
    layers = "".join(_resampled(kind, grid, files) for grid, files in grids.items())
    return _dataset(FRAME.shape, _band("Float32", layers, nodata=NODATA_M))


@dataclass(frozen=True)
class NativeGrid:
    """The pixel grid of some files: a resolution and a phase."""

    resolution_m: float
    left: float
    """West edge of the grid in metres, two to three pixels west of the frame."""
    top: float
    """North edge of the grid in metres, two to three pixels north of the frame."""

    @classmethod
    def of(cls, asset: Asset) -> "NativeGrid":
        """The grid of a file. Corners are rounded to 1 mm and resolutions to 1 µm, the precision of headers."""
        resolution = round(asset.resolution_m, 6)
        west, north = asset.transform[2], asset.transform[5]
        frame_left, _, _, frame_top = FRAME.bounds
        # Whole pixels from the file's corner, so that every file of the grid lies on whole pixels of it.
        columns = math.ceil(round((west - frame_left) / resolution, 3)) + 2
        rows = math.ceil(round((frame_top - north) / resolution, 3)) + 2
        return cls(resolution, round(west - columns * resolution, 3), round(north + rows * resolution, 3))

    @property
    def size(self) -> int:
        """Side in pixels, which covers the frame and two more pixels on each side."""
        return math.ceil(FRAME.width / PIXELS_PER_M / self.resolution_m) + 6

    def place(self, asset: Asset) -> tuple[int, int]:
        """(column, row) of the corner of a file."""
        left, top = asset.transform[2], asset.transform[5]
        return round((left - self.left) / self.resolution_m), round((self.top - top) / self.resolution_m)


def by_grid(assets: Iterable[Asset]) -> dict[NativeGrid, list[Asset]]:
    """The files of each grid, finer grids last."""
    grids: dict[NativeGrid, list[Asset]] = {}
    for asset in assets:
        grids.setdefault(NativeGrid.of(asset), []).append(asset)
    return dict(sorted(grids.items(), key=lambda item: (-item[0].resolution_m, item[0].left, item[0].top)))


def native(grid: NativeGrid, assets: Sequence[Asset]) -> str:
    """The mosaic of the files of one grid at their own resolution: metres, float32, `NODATA_M` where unknown."""
    sources = []
    # The order decides between two files at the same position. It follows their content, not their paths.
    for asset in sorted(assets, key=lambda a: (a.bounds, a.signature)):
        nodata = "" if asset.nodata is None else f"<NODATA>{_number(asset, 'nodata')!r}</NODATA>"
        kind = "ComplexSource" if nodata else "SimpleSource"
        column, row = grid.place(asset)
        sources.append(_source(kind, asset, band=1, left=column, top=row, inside=nodata))
    band = _band("Float32", "".join(sources), nodata=NODATA_M)
    return _dataset((grid.size, grid.size), band, place=(grid.left, grid.top, grid.resolution_m))


_REOPENED: dict[str, int] = {}
"""Signature → how often GDAL's pool had to forget the file. The pool belongs to the process, and so does this."""


def reopen(asset: Asset) -> None:
    """Makes later virtual rasters open a file again that GDAL's pool remembers as unreadable."""
    _REOPENED[asset.signature] = _REOPENED.get(asset.signature, 0) + 1


def probe(asset: Asset) -> str:
    """One elevation file in its own pixels, read through GDAL's pool: float32, `UNREAD` where that reads nothing."""
    return _dataset(asset.shape, _band("Float32", _source("SimpleSource", asset, band=1, left=0, top=0), nodata=UNREAD))


def _resampled(kind: str, grid: NativeGrid, assets: Sequence[Asset]) -> str:
    frame_left, _, frame_right, frame_top = FRAME.bounds
    span = (frame_right - frame_left) / grid.resolution_m
    x, y = (frame_left - grid.left) / grid.resolution_m, (grid.top - frame_top) / grid.resolution_m
    nodata = f"<NODATA>{NODATA_M}</NODATA>" if kind == "ComplexSource" else ""
    return (
        f'<{kind} resampling="bilinear">'
        f'<SourceFilename relativeToVRT="0" shared="0">{for_xml(native(grid, assets))}</SourceFilename>'
        f"<SourceBand>1</SourceBand>{_properties(grid.size, grid.size, 'Float32', (128, 128))}"
        f'<SrcRect xOff="{x:.6f}" yOff="{y:.6f}" xSize="{span:.6f}" ySize="{span:.6f}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{FRAME.width}" ySize="{FRAME.height}"/>'
        f"{nodata}</{kind}>"
    )


def _resampled_imagery(grid: NativeGrid, assets: Sequence[Asset], *, band: int) -> str:
    """One band of the files of one grid, resampled to the lattice; 0 around the rectangle that they cover."""
    placed = [(a, *grid.place(a)) for a in assets]
    left, top = min(p[1] for p in placed), min(p[2] for p in placed)
    width = max(column + a.shape[1] for a, column, _ in placed) - left
    height = max(row + a.shape[0] for a, _, row in placed) - top
    sources = "".join(_imagery_source(a, band=band, left=column - left, top=row - top) for a, column, row in placed)
    mosaic = _dataset((height, width), _band("Byte", sources))
    frame_left, _, _, frame_top = FRAME.bounds
    step = grid.resolution_m
    x, y = (grid.left + left * step - frame_left) * PIXELS_PER_M, (frame_top - grid.top + top * step) * PIXELS_PER_M
    method = "average" if step < RESOLUTION_M else "bilinear"
    return (
        f'<SimpleSource resampling="{method}">'
        f'<SourceFilename relativeToVRT="0" shared="0">{for_xml(mosaic)}</SourceFilename><SourceBand>1</SourceBand>'
        f"{_properties(height, width, 'Byte', (128, 128))}"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{x:.6f}" yOff="{y:.6f}" xSize="{width * step * PIXELS_PER_M:.6f}" '
        f'ySize="{height * step * PIXELS_PER_M:.6f}"/></SimpleSource>'
    )


def _imagery_source(asset: Asset, *, band: int, left: int, top: int) -> str:
    if not asset.deep:
        return _source("SimpleSource", asset, band=band, left=left, top=top)
    scale = f"<ScaleOffset>0</ScaleOffset><ScaleRatio>{RATIO!r}</ScaleRatio>"
    return _source("ComplexSource", asset, band=band, left=left, top=top, inside=scale)


def _source(kind: str, asset: Asset, *, band: int, left: int, top: int, inside: str = "") -> str:
    (height, width), block = sides(asset, "shape"), sides(asset, "block")
    # The properties let GDAL open a file only when a read touches it. With `shared="0"` threads share no dataset.
    return (
        f'<{kind}><SourceFilename relativeToVRT="0" shared="0">{for_xml(gdal_name(asset.path))}</SourceFilename>'
        f"{_open_options(asset)}<SourceBand>{band}</SourceBand>"
        f"{_properties(height, width, _gdal_type(asset), block)}"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{left}" yOff="{top}" xSize="{width}" ySize="{height}"/>{inside}</{kind}>'
    )


def _properties(height: int, width: int, dtype: str, block: tuple[int, int]) -> str:
    return (
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="{dtype}" '
        f'BlockXSize="{block[1]}" BlockYSize="{block[0]}"/>'
    )


def _open_options(asset: Asset) -> str:
    # GDAL keeps files open, and their decoded blocks, by name and options. Without the signature among the options, a
    # long-lived process would continue to read a file that was replaced. Drivers ignore options that start with @.
    options = {"@CONTENT": asset.signature}
    suffix = asset.path.suffix.lower()
    if suffix == ".jp2":
        # A truncated codestream must be an error, not zeros.
        options["STRICT"] = "YES"
    if suffix == ".asc":
        # GDAL guesses the type from the first values; if it guessed integers it would cut later decimals.
        options["DATATYPE"] = "Float32"
    if tries := _REOPENED.get(asset.signature):
        options["@AGAIN"] = str(tries)
    items = "".join(f"<OOI key={for_xml_attribute(key)}>{for_xml(value)}</OOI>" for key, value in options.items())
    return f"<OpenOptions>{items}</OpenOptions>"


def _number(asset: Asset, name: str) -> float:
    """A field of an asset as a number, whatever the catalog has there."""
    try:
        return float(getattr(asset, name))
    except (TypeError, ValueError) as error:
        raise _unexpected(asset, name, "a number") from error


def sides(asset: Asset, name: str) -> tuple[int, int]:
    """Height and width in a field of an asset.

    Raises:
        CatalogError: the catalog has something else there.
    """
    try:
        height, width = map(int, getattr(asset, name))
    except (TypeError, ValueError, OverflowError) as error:
        raise _unexpected(asset, name, "height and width in pixels") from error
    return height, width


def _gdal_type(asset: Asset) -> str:
    found = _GDAL_TYPES.get(asset.dtype)
    if found is None:
        raise _unexpected(asset, "dtype", f"one of {', '.join(_GDAL_TYPES)}")
    return found


def _unexpected(asset: Asset, name: str, expected: str) -> CatalogError:
    found = getattr(asset, name)
    return CatalogError(f"{asset.href}: its {name} in the catalog is {found!r:.80}, not {expected}; index it again")


def _on_frame(asset: Asset) -> tuple[int, int]:
    """(column, row) of an imagery file's corner on the frame."""
    left, top = asset.transform[2], asset.transform[5]
    return round(left * PIXELS_PER_M) - FRAME.col, -round(top * PIXELS_PER_M) - FRAME.row


def _band(dtype: str, inside: str, *, number: int = 1, nodata: float | None = None) -> str:
    mark = "" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>"
    return f'<VRTRasterBand dataType="{dtype}" band="{number}">{mark}{inside}</VRTRasterBand>'


def _dataset(shape: tuple[int, int], bands: str, *, place: tuple[float, float, float] = _FRAME_PLACE) -> str:
    left, top, step = place
    # Without a CRS: all lattices share the frame, and nothing is reprojected here.
    transform = f"<GeoTransform>{left}, {step}, 0, {top}, 0, {-step}</GeoTransform>"
    return f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">{transform}{bands}</VRTDataset>'
