"""A raster from outside is read as what it is named: no other file, server or code, and no more than its limits."""

import base64
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import rasterio

from pipeline.errors import DeliveryError, LandcoverError, SourceError
from pipeline.grid import Window
from pipeline.products.tile.cog import open_cog
from pipeline.sources.delivery.headers import read_header
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.http_client import HEADERS_VARIABLE
from pipeline.sources.http_path import WebPath
from pipeline.sources.inspection.lowest_level import read_lowest_cells
from pipeline.sources.labels.patches import Patch, read_image
from pipeline.sources.labels.reference import Reference
from pipeline.sources.reading.raster import Raster
from tests.support.deliveries import write_raster
from tests.support.file_server import TOKEN_HEADER, serving

WORD = "open-sesame"
PIXELS = np.random.default_rng(0).integers(1, 255, (1, 600, 600), dtype=np.uint8)
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}</ServerUrl></Service><DataWindow><UpperLeftX>0</UpperLeftX>'
    "<UpperLeftY>0</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>-9</LowerRightY><SizeX>300</SizeX>"
    "<SizeY>300</SizeY></DataWindow></GDAL_WMS>"
)
VRT = (
    '<VRTDataset rasterXSize="300" rasterYSize="300"><GeoTransform>0, 1, 0, 9, 0, -1</GeoTransform><SRS>EPSG:2154</SRS>'
    '<VRTRasterBand dataType="Byte" band="1"{kind}>{code}<SimpleSource><SourceFilename>{name}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)
PAM = '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{name}</MDI></Metadata></PAMDataset>'


class Listener:
    """A port of loopback that answers nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def requested(self) -> bool:
        """Whether somebody connected since the last call."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def request(self) -> str:
        """The next request, which gets no answer."""
        self._socket.settimeout(60)
        client = self._socket.accept()[0]
        with client:
            client.settimeout(60)
            return client.recv(10_000).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")
    monkeypatch.setenv("GDAL_PAM_ENABLED", "YES")
    monkeypatch.setenv(HEADERS_VARIABLE, "Authorization: Bearer secret")
    opened = Listener()
    yield opened
    opened.close()


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "in.tif", PIXELS, 500_000, 6_500_000)


def read_all(path: Path) -> None:
    """Everything that the package does with a raster of one band; errors are allowed, requests are not."""

    def cog() -> object:
        with open_cog(path) as file:
            return file.read(shape=(75, 75)), file.dataset.overviews(1)

    readers: list[Callable[[], object]] = [
        lambda: Raster.open(path, bands=("red",)).read(Window(0, 0, 100, 100)),
        lambda: read_header(path),
        lambda: read_lowest_cells(path),
        lambda: Reference.open(path).read(Raster.open(path, bands=("red",)).geobox),
        cog,
    ]
    for reader in readers:
        with suppress(LandcoverError):
            reader()


NAMES = {
    "a web file": "/vsicurl/{url}/x.tif",
    "a streamed file": "/vsicurl_streaming/{url}/x.tif",
    "a URL": "{url}/x.tif",
    "a service": WMS,
    "a virtual raster": VRT.format(kind="", code="", name="/vsicurl/{url}/x.tif"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_tag_that_names_overviews_elsewhere_sends_no_request(raster: Path, listener: Listener, name: str) -> None:
    with rasterio.open(raster, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=name.format(url=listener.url))
    read_all(raster)
    assert not listener.requested()
    with pytest.raises(SourceError, match="names another file as its overviews"):
        Raster.open(raster, bands=("red",))


@pytest.mark.parametrize("suffix", [".aux.xml", ".ovr", ".msk", ".aux"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_file_beside_a_raster_sends_no_request(raster: Path, listener: Listener, suffix: str, name: str) -> None:
    content = name.format(url=listener.url)
    if suffix == ".aux.xml":
        content = PAM.format(name=content.replace("&", "&amp;").replace("<", "&lt;"))
    raster.with_name(raster.name + suffix).write_text(content)
    read_all(raster)
    assert not listener.requested()


@pytest.mark.parametrize("allow_vrt", [False, True])
@pytest.mark.parametrize("content", [WMS, NAMES["a virtual raster"], "/vsicurl/{url}/x.tif", "{url}/x.tif"])
def test_a_disguised_raster_is_refused_without_a_request(
    tmp_path: Path, listener: Listener, content: str, allow_vrt: bool
) -> None:
    path = tmp_path / "ortho.tif"
    path.write_text(content.format(url=listener.url))
    if not (allow_vrt and "VRT" in content):  # which may read servers then, as documented
        with pytest.raises(SourceError, match=str(path)):
            Raster.open(path, bands=("red",), allow_vrt=allow_vrt)
    read_all(path)
    assert not listener.requested()


@pytest.mark.usefixtures("listener")
def test_a_virtual_raster_is_read_only_if_allowed_and_runs_no_code(tmp_path: Path, raster: Path) -> None:
    path, marker = tmp_path / "mosaic.vrt", tmp_path / "ran"
    path.write_text(VRT.format(kind="", code="", name=raster))
    with pytest.raises(SourceError, match="--allow-vrt"):
        Raster.open(path, bands=("red",))
    allowed = Raster.open(path, bands=("red",), allow_vrt=True)
    assert (allowed.read(Window(0, 0, 300, 300)).bands == PIXELS[:, :300, :300]).mean() > 0
    code = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode>def f(*a, **b):\n    open({str(marker)!r}, 'w')</PixelFunctionCode>"
    )
    path.write_text(VRT.format(kind=' subClass="VRTDerivedRasterBand"', code=code, name=raster))
    with pytest.raises(SourceError):
        Raster.open(path, bands=("red",), allow_vrt=True).read(Window(0, 0, 9, 9))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["/vsicurl/{url}/x.tif", "/vsizip/x.zip/x.tif", "/VSICURL/{url}/x.tif"])
def test_a_name_of_a_virtual_file_is_refused(listener: Listener, name: str) -> None:
    with pytest.raises(SourceError), environment():
        open_dataset(Path(name.format(url=listener.url)))
    assert not listener.requested()


def test_a_world_file_or_aux_xml_may_say_where_a_raster_lies(tmp_path: Path) -> None:
    plain = {"driver": "GTiff", "count": 1, "height": 600, "width": 600, "dtype": "uint8"}
    with rasterio.open(tmp_path / "in.tif", "w", **plain, crs="EPSG:2154") as file:
        file.write(PIXELS)
    (tmp_path / "in.tfw").write_text("0.2\n0\n0\n-0.2\n500000.1\n6499999.9\n")
    assert Raster.open(tmp_path / "in.tif", bands=("red",)).geobox.affine.c == pytest.approx(500_000)
    (tmp_path / "in.tfw").unlink()
    place = "<PAMDataset><GeoTransform>600000, 0.2, 0, 6500000, 0, -0.2</GeoTransform></PAMDataset>"
    (tmp_path / "in.tif.aux.xml").write_text(place)
    assert Raster.open(tmp_path / "in.tif", bands=("red",)).geobox.affine.c == pytest.approx(600_000)


def claimed(path: Path, side: int, **blocks: object) -> Path:
    """A file of a few kilobytes that declares side² pixels."""
    shape = {"count": 1, "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:2154", "sparse_ok": True}
    place = rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 6_500_000)
    with rasterio.open(path, "w", driver="GTiff", transform=place, bigtiff="YES", **shape, **blocks):
        pass
    return path


@pytest.mark.parametrize(
    ("side", "blocks", "limit"),
    [
        (90_000, {"tiled": True, "blockxsize": 8192, "blockysize": 8192}, "raster_pixels = 5,000,000,000"),
        (60_000, {"tiled": True, "blockxsize": 59_904, "blockysize": 59_904}, "raster_block_bytes = 1,073,741,824"),
        (60_000, {"blockysize": 30_000, "compress": "deflate"}, "raster_block_bytes = 1,073,741,824"),
    ],
)
def test_a_raster_that_declares_too_much_is_refused(
    tmp_path: Path, side: int, blocks: dict[str, object], limit: str
) -> None:
    path = claimed(tmp_path / "in.tif", side, **blocks)
    with pytest.raises(SourceError, match=f"declares .*, more than the limit {limit}; .*LANDCOVER_MAX_RASTER_"):
        Raster.open(path, bands=("red",))
    with pytest.raises(SourceError, match=limit):
        Reference.open(path)
    with pytest.raises(DeliveryError, match=limit):
        read_lowest_cells(path)


def test_a_patch_that_declares_too_much_is_refused(tmp_path: Path) -> None:
    path = claimed(tmp_path / "in.tif", 20_000, tiled=True, blockxsize=4096, blockysize=4096)
    with pytest.raises(SourceError, match="has 400,000,000 pixels, more than the limit patch_pixels = 100,000,000"):
        read_image(Patch("a", path, path, "d", "z"), bands=("red",))


def test_a_level_larger_than_its_image_is_refused(raster: Path) -> None:
    with rasterio.open(raster, "r+") as file:
        file.build_overviews([2])
    content = raster.read_bytes()
    tag = struct.pack("<HHI", 257, 3, 1) + struct.pack("<I", 300)
    assert content.count(tag) == 1
    forged = struct.pack("<HHI", 257, 4, 1) + struct.pack("<I", 4_000_000)
    raster.write_bytes(content.replace(tag, forged))
    with pytest.raises(DeliveryError, match=str(raster)):
        read_lowest_cells(raster)


def test_credentials_go_to_the_file_that_was_checked_and_nowhere_else(
    raster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HEADERS_VARIABLE, f"{TOKEN_HEADER}: {WORD}")
    with serving(raster.parent, token=WORD) as home, serving(raster.parent, token=WORD) as other:
        path, elsewhere = WebPath.at(f"{home}/in.tif"), WebPath.at(f"{other}/in.tif")
        with environment([path]):
            with open_dataset(path) as file:
                np.testing.assert_array_equal(file.read(), PIXELS)
            with pytest.raises(rasterio.errors.RasterioIOError, match="403"):
                open_dataset(elsewhere)
        with pytest.raises(SourceError, match="belong to one origin"):
            environment([path, elsewhere])
        monkeypatch.setenv(HEADERS_VARIABLE, f"{other}\n{TOKEN_HEADER}: {WORD}")
        assert path.gdal_headers() == ""


def test_no_credentials_of_gdals_own_variables_are_sent(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEADERS_VARIABLE)
    for name in ("GDAL_HTTP_USERPWD", "GDAL_HTTP_COOKIE", "GDAL_HTTP_HEADERS"):
        monkeypatch.setenv(name, "X-Secret: secret")
    path = WebPath.at(f"{listener.url}/x.tif")
    with ThreadPoolExecutor() as pool, environment([path], GDAL_HTTP_TIMEOUT=2, GDAL_HTTP_MAX_RETRY=0):
        request = pool.submit(listener.request)
        with pytest.raises(rasterio.errors.RasterioIOError):
            open_dataset(path)
    assert request.result().startswith("HEAD /x.tif")
    assert "secret" not in request.result()
    assert base64.b64encode(b"X-Secret: secret").decode() not in request.result()


def test_a_file_that_only_get_redirects_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HEADERS_VARIABLE, "X-Api-Key: word")
    with serving(tmp_path) as home, serving(tmp_path) as other:
        (tmp_path / "x.tif").write_bytes(b"II*\0")
        path = WebPath.at(f"{home}/moved/{quote(f'{other}/x.tif', safe='')}")
        with pytest.raises(SourceError, match=f"redirects to {other}; refused while {HEADERS_VARIABLE} is set"):
            environment([path])


@pytest.mark.parametrize("big", ["NO", "YES"])
def test_a_damaged_tag_of_a_tiff_is_an_error(tmp_path: Path, big: str) -> None:
    path = tmp_path / "a.tif"
    place = {"height": 9, "width": 9, "count": 1, "dtype": "uint8", "BIGTIFF": big}
    with rasterio.open(path, "w", driver="GTiff", **place) as file:
        file.write(np.ones((1, 9, 9), np.uint8))
    with environment(), open_dataset(path):
        pass
    content = path.read_bytes()
    at = content.index(struct.pack("<HH", 277, 3))  # samples per pixel, which comes to follow tags of higher numbers
    path.write_bytes(content[:at] + struct.pack("<H", 324) + content[at + 2 :])
    with environment(), pytest.raises(SourceError, match=r"a\.tif: is damaged: the tags of its header"):
        open_dataset(path)
