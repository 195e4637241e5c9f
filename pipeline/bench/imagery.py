"""What the benches read: real patches mirrored over whole tiles, delivered as JP2 and elevation, and indexed.

<out>/data/<key>/delivery/…   RVB, IRC, surface and terrain models
<out>/data/<key>/catalog/…    the input catalogue
<out>/data/<key>/campaign.yaml
<out>/data/<key>/demo/…       the demo's country and network, where a bench wants them
<out>/data/<key>/imagery.json written last: where it stands, all is whole and is used again
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray

from pipeline.bench.machine import isolated
from pipeline.config import DEFAULT_RECIPE, Campaign, load_campaign
from pipeline.demo.country import VINTAGES
from pipeline.demo.delivery_writer import half_metres, write_half_metre_model, write_imagery
from pipeline.demo.network import DEFAULT_EFFORT, Effort
from pipeline.demo.walkthrough import prepare
from pipeline.durable import write_json
from pipeline.fingerprint import digest, file_signature
from pipeline.grid import Layout, Tile, Window, union
from pipeline.model import Model, load
from pipeline.sources.catalog.index import index, open_domain
from pipeline.sources.delivery import names as delivery
from pipeline.sources.reading.mosaic import Mosaic

Say = Callable[[str], None]
T = TypeVar("T")
P = ParamSpec("P")
Patches = NDArray[np.uint8]
"""uint8 (patch, band, y, x): red, green, blue, near infrared, height in units of 0.2 m."""

WEIGHTS = Path("weights", "mini_resnet34-unet_weights.pth")
_PATCHES = "flair_patches/IMG_*.tif"
_DOMAIN = VINTAGES[0].domain
_CORNER = (-6_880_000 * 5, 600_000 * 5)
"""(row, col) of the north-west tile: any place in France does, at a whole number of kilometres."""
_HEIGHT_STEP_M = 0.2
_FORMAT = 2
"""Raised when other files would be made of the same inputs."""


@dataclass(frozen=True)
class Scale:
    """How large the measurements are; the same code at both scales."""

    tile: int
    """Pixels a side."""
    across: int
    """Tiles a side of the imagery."""
    block: int
    layout: Layout
    patch: int
    """Pixels a side of a small window, the network's patch."""
    gemm: int
    """Rows and columns of the multiplied matrices."""
    repeats: int
    """Times that a short measurement is taken."""
    baseline: int
    """Pixels a side of the part that the baseline maps."""
    whole: int
    """Pixels a side of the image that the network sees at once."""
    halos: tuple[int, ...]
    country: tuple[int, int]
    """Tiles of the demo's country, (rows, columns)."""
    effort: Effort
    """Of the fit of the demo's network."""
    apart: bool
    """Each measurement in a process of its own: cold caches, its own memory."""
    departement: tuple[int, int] = (15, 20)
    """Rows and columns of tiles that are rehearsed."""
    departement_tile: int = 1_000
    """Pixels a side of these tiles; 25 000 is what IGN delivers."""


FULL = Scale(
    tile=5_000,
    across=2,
    block=5_000,
    layout=Layout(),
    patch=512,
    gemm=4_096,
    repeats=3,
    baseline=2_560,
    whole=5_024,
    halos=(0, 32, 64, 96, 128, 160, 208, 256),
    country=(3, 5),
    effort=DEFAULT_EFFORT,
    apart=True,
)
"""100 Mpx, the default windows, the country of `landcover demo`: minutes each on two cores."""
QUICK = Scale(
    tile=500,
    across=2,
    block=500,
    layout=Layout(core=250, halo=32, window=352),
    patch=128,
    gemm=256,
    repeats=1,
    baseline=512,
    whole=512,
    halos=(0, 32),
    country=(1, 3),
    effort=Effort(steps=2, batch=1, crop=128),
    apart=False,
    departement=(2, 4),
    departement_tile=500,
)
"""1 Mpx: proves that every bench runs; its figures mean nothing."""


@dataclass(frozen=True)
class Imagery:
    """The benches' input on disk."""

    folder: Path
    scale: Scale
    told: tuple[str, ...]
    """What it was made of, in sentences."""
    data: Path
    """The folder of real files, there or not."""

    @property
    def campaign(self) -> Campaign:
        """A campaign over all of it; benches vary engine, block, cache and outputs."""
        return load_campaign(self.folder / "campaign.yaml")

    @property
    def model(self) -> Model:
        """Its network."""
        campaign = self.campaign
        return load(campaign.weights, campaign.recipe())

    @property
    def mosaic(self) -> Mosaic:
        """All of it, to be read by windows."""
        inputs = open_domain(self.campaign.catalog, _DOMAIN, tile_size=self.scale.tile)
        return Mosaic.of(inputs, bands=self.model.recipe.bands)

    def demo(self, say: Say) -> Campaign:
        """The campaign of the demo's country, with its own network: made where it is missing, which takes minutes."""
        return _demo(self.folder, self.scale, say)

    def measured(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a measurement: in a process of its own where the scale wants it."""
        return isolated(work, *args, **kwargs) if self.scale.apart else work(*args, **kwargs)

    @property
    def patches(self) -> Patches:
        """The patches that it was made of."""
        patches: Patches = np.load(self.folder / "patches.npy")
        return patches


def make_imagery(out: Path, *, data: Path, scale: Scale, say: Say) -> Imagery:
    """The benches' input below `out`; used again where it stands already.

    Args:
        out: the benches' folder.
        data: the folder of real files, with `flair_patches` and `weights`; where they are absent the demo's country
            and network take their place.
        scale: how large.
        say: told what it is made of.

    Raises:
        StorageError: `out` cannot be written.
    """
    files = sorted(data.glob(_PATCHES))
    weights = data / WEIGHTS
    real = bool(files) and weights.is_file()
    sources = [file_signature(path) for path in (*files, weights)] if real else []
    lasting = (scale.tile, scale.across, scale.block, scale.patch, asdict(scale.layout), scale.country)
    key = digest([_FORMAT, lasting, str(weights.absolute()) if real else "demo", sources])[:12]
    folder = out.absolute() / "data" / key
    marker = folder / "imagery.json"
    if not marker.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        say(f"imagery: {(scale.tile * scale.across) ** 2 / 1e6:.0f} Mpx are being made in {folder}")
        if real:
            patches, model = _real(files), {"weights": str(weights.absolute()), "recipe": DEFAULT_RECIPE}
            told = f"the {len(files)} real patches of {data}, mirrored; weights {weights}"
        else:
            patches, model = _made_up(_demo(folder, scale, say))
            told = f"no real patches and weights below {data}: the demo's country, mirrored, and its own network"
        np.save(folder / "patches.npy", patches[:, :, : scale.patch, : scale.patch])
        _deliver(folder, patches, scale)
        _write_campaign(folder, scale, model)
        write_json(marker, {"told": [told]})
    imagery = Imagery(folder, scale, tuple(json.loads(marker.read_text(encoding="utf-8"))["told"]), data)
    for sentence in imagery.told:
        say(f"imagery: {sentence}")
    return imagery


def _demo(folder: Path, scale: Scale, say: Say) -> Campaign:
    """The demo's campaign below a folder; used again where it stands."""
    root = folder / "demo"
    path = root / "campaign.yaml"
    # The campaign is what is written last.
    if path.is_file():
        return load_campaign(path)
    shutil.rmtree(root, ignore_errors=True)
    rows, columns = scale.country
    size = min(scale.tile, 1000)
    say("imagery: the demo's country and its network are being made")
    return prepare(root, say=say, rows=rows, columns=columns, tile_size=size, effort=scale.effort)[1]


def _real(files: Sequence[Path]) -> Patches:
    patches = []
    for path in files:
        with rasterio.open(path) as file:
            patches.append(file.read())
    return np.stack(patches)


def _made_up(campaign: Campaign) -> tuple[Patches, dict[str, str]]:
    """The tiles of the demo's country as patches, and the network that is fitted to it."""
    base, size = campaign.base, campaign.grid.tile
    patches = []
    for section in campaign.domains:
        inputs = open_domain(campaign.catalog, section.name, tile_size=size)
        mosaic = Mosaic.of(inputs, bands=campaign.recipe().bands)
        patches += [mosaic.read(tile.tile.window).bands for tile in inputs.tiles]
    return np.stack(patches), {"weights": campaign.weights, "recipe": str(base / campaign.model.recipe)}


def mirrored(patches: Patches, window: Window) -> NDArray[np.uint8]:
    """A window of the plane that the patches cover when they are laid in a square and mirrored at its edges.

    In the square each row holds all patches, begun one further than the row above, so that any window of a few
    patches' size sees all of them.

    Args:
        patches: all of one size.
        window: anywhere.

    Returns:
        uint8 (band, y, x).
    """
    count, _, size, _ = patches.shape
    side = count * size

    def folded(start: int, stop: int) -> NDArray[np.int64]:
        at: NDArray[np.int64] = np.arange(start, stop) % (2 * side)
        np.minimum(at, 2 * side - 1 - at, out=at)
        return at

    rows = folded(window.row, window.bottom)[:, None]
    cols = folded(window.col, window.right)[None, :]
    which = (rows // size + cols // size) % count
    return np.stack([patches[which, band, rows % size, cols % size] for band in range(patches.shape[1])])


def _deliver(folder: Path, patches: Patches, scale: Scale) -> None:
    """Writes the tiles and indexes them."""
    corner = tuple(edge // scale.tile * scale.tile for edge in _CORNER)
    for row in range(scale.across):
        for col in range(scale.across):
            tile = Tile.at(corner[0] + row * scale.tile, corner[1] + col * scale.tile, scale.tile)
            origin = Window(row * scale.tile, col * scale.tile, scale.tile, scale.tile)
            _write_tile(folder / "delivery", tile, mirrored(patches, origin))
    index([folder / "delivery"], domain=_DOMAIN, catalog=folder / "catalog", tile_size=scale.tile)


def _write_tile(folder: Path, tile: Tile, image: NDArray[np.uint8]) -> None:
    """JP2 of RVB and IRC, and models of 0.50 m whose difference is the height: elevation has to be resampled."""
    write_imagery(folder, tile, VINTAGES[0], image[:4])
    height = half_metres(image[4].astype(np.float32) * np.float32(_HEIGHT_STEP_M))
    left, _, _, top = tile.window.bounds
    along = (np.arange(height.shape[0]) + 0.5) / 2
    terrain = 100 + 3 * np.sin((left + along[None, :]) / 40) + 2 * np.cos((top - along[:, None]) / 25)
    for below, kind, metres in (("MNS", "dsm", terrain + height), ("MNT", "dtm", terrain)):
        name = delivery.lidar_name(tile.name, kind="dsm" if kind == "dsm" else "dtm")
        write_half_metre_model(folder / below / name, tile, metres.astype(np.float32))


def _write_campaign(folder: Path, scale: Scale, model: dict[str, str]) -> None:
    inputs = open_domain(folder / "catalog", _DOMAIN, tile_size=scale.tile)
    layout = scale.layout
    content: dict[str, Any] = {
        "name": "bench",
        "catalog": "catalog",
        "model": model,
        "domains": [{"name": _DOMAIN}],
        "engine": "openvino",
        "grid": {
            "tile": scale.tile,
            "block": scale.block,
            "core": layout.core,
            "halo": layout.halo,
            "window": layout.window,
        },
        "output": {
            "domains": "products",
            "national": "national",
            "extent_km": [edge / 1000 for edge in union([t.tile.window for t in inputs.tiles]).bounds],
            "chunk": scale.tile // 5,
        },
        "cluster": {"workers": 1, "threads": 2, "tiles_in_flight": 2},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
