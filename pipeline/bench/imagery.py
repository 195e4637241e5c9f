"""The benches' input: real patches mirrored over whole tiles, delivered as JPEG 2000 and elevation, and indexed.

<out>/data/<key>/delivery/…   RVB, IRC, surface and terrain models
<out>/data/<key>/catalog/…    the input catalog
<out>/data/<key>/campaign.yaml
<out>/data/<key>/wide/…       a tile as wide as IGN's, if a bench needs it
<out>/data/<key>/demo/…       the demo's country and network, if a bench needs them
<out>/data/<key>/imagery.json written last: a folder that has it is complete and is used again
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray

from pipeline.bench.machine import P, T, in_new_process_within
from pipeline.bench.scale import BenchScale
from pipeline.config import DEFAULT_RECIPE, Campaign, Recipe, load_campaign, load_recipe
from pipeline.demo.country import VINTAGES
from pipeline.demo.delivery_writer import to_half_metres, write_half_metre_model, write_imagery
from pipeline.demo.network import DECODER_CHANNELS, ENCODER
from pipeline.demo.noise import fractal
from pipeline.durable import write_json
from pipeline.fingerprint import digest, file_signature
from pipeline.grid import PIXELS_PER_M, Tile, Window, union
from pipeline.model import Model, load_campaign_model
from pipeline.model.saving import save_recipe, save_untrained_weights
from pipeline.progress import OnMessage
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery import names as delivery
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.untrusted.own_files import remove_own

PatchStack = NDArray[np.uint8]
"""uint8 (patch, band, y, x): red, green, blue, near infrared, height in units of 0.2 m."""

WEIGHTS = Path("weights", "mini_resnet34-unet_weights.pth")
_PATCHES = "flair_patches/IMG_*.tif"
_DOMAIN = VINTAGES[0].domain
_CORNER = (-6_880_000 * 5, 600_000 * 5)
"""(row, col) of the north-west tile. Any place in France would do that lies on a whole number of kilometres."""
_HEIGHT_STEP_M = 0.2
_NOISE_PATCH = 512
_FORMAT = 4
"""Raise it when the same inputs give other files."""


@dataclass(frozen=True)
class Imagery:
    """The benches' input on disk."""

    folder: Path
    scale: BenchScale
    notes: tuple[str, ...]
    """Says what the imagery was made from, in sentences."""
    data: Path
    """The folder of real files; it may be missing."""

    @property
    def reports(self) -> Path:
        """The folder of the benches' reports."""
        return self.folder.parents[1]

    @property
    def campaign(self) -> Campaign:
        """A campaign over the whole imagery; benches change its engine, block, cache and outputs."""
        return load_campaign(self.folder / "campaign.yaml")

    @property
    def model(self) -> Model:
        """The campaign's network."""
        campaign = self.campaign
        return load_campaign_model(campaign)

    @property
    def mosaic(self) -> Mosaic:
        """The whole imagery as a lazy mosaic."""
        inputs = read_domain(self.campaign.catalog, _DOMAIN, tile_size=self.scale.tile)
        return Mosaic.of(inputs, bands=self.campaign.recipe().bands)

    @property
    def patches(self) -> PatchStack:
        """The patches that the imagery was made from."""
        patches: PatchStack = np.load(self.folder / "patches.npy")
        return patches

    def demo(self, on_message: OnMessage) -> Campaign:
        """The campaign over the demo's country with its own network.

        Made first if it is missing or incomplete, which takes minutes.
        """
        root = self.folder / "demo"
        path = root / "campaign.yaml"
        # The campaign is written last, so it shows that the rest is complete.
        if path.is_file():
            return load_campaign(path)
        if os.path.lexists(root):
            remove_own(root, pattern="demo", kind="folder")
        from pipeline.demo.walkthrough import prepare

        rows, columns = self.scale.country
        size = min(self.scale.tile, 1000)
        on_message("imagery: making the demo's country and its network")
        return prepare(
            root, on_message=on_message, rows=rows, columns=columns, tile_size=size, settings=self.scale.fit
        )[1]

    def measured(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a measuring function: in a new process, or in this one at the quick scale."""
        return self.measured_within(None, work, *args, **kwargs)

    def measured_within(self, seconds: float | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same with a time limit for the new process."""
        return work(*args, **kwargs) if self.scale.quick else in_new_process_within(seconds, work, *args, **kwargs)


def make_imagery(out: Path, *, data: Path, scale: BenchScale, on_message: OnMessage) -> Imagery:
    """Makes the benches' input below `out`, or opens it if it is complete already.

    Args:
        out: folder of the benches.
        data: folder of real files, with `flair_patches` and `weights`. The scale says what takes their place if they
            are missing.
        scale: size of the imagery.
        on_message: gets a line that says what the imagery is made from.

    Raises:
        StorageError: `out` cannot be written.
    """
    files = sorted(data.glob(_PATCHES))
    weights = data / WEIGHTS
    real = bool(files) and weights.is_file()
    sources = [file_signature(path) for path in (*files, weights)] if real else []
    sizes = (scale.tile, scale.tiles_a_side, scale.block, scale.wide, scale.patch, asdict(scale.layout), scale.country)
    key = digest([_FORMAT, sizes, str(weights.absolute()) if real else scale.stand_in, sources])[:12]
    folder = out.absolute() / "data" / key
    marker = folder / "imagery.json"
    if not marker.is_file():
        if os.path.lexists(folder):
            remove_own(folder, pattern="[0-9a-f]{12}", kind="folder")
        folder.mkdir(parents=True)
        on_message(f"imagery: making {(scale.tile * scale.tiles_a_side) ** 2 / 1e6:.3g} Mpx in {folder}")
        if real:
            patches, model = _read_patches(files), {"weights": str(weights.absolute()), "recipe": DEFAULT_RECIPE}
            note = f"made from the {len(files)} real patches of {data}, mirrored; weights {weights}"
        elif scale.stand_in == "demo":
            patches, model = _demo_patches(Imagery(folder, scale, (), data).demo(on_message))
            note = f"{data} has no real patches and weights: made from the demo's country, mirrored, with its network"
        else:
            light = scale.stand_in != "noise"
            patches, model = _noise_patches(), _untrained_network(folder, light=light)
            note = (
                f"{data} has no real patches and weights: made from noise, with "
                f"{'a light network' if light else f'the network of {DEFAULT_RECIPE}'} before any training; speeds are "
                "those of a trained one, agreement is not"
            )
        np.save(folder / "patches.npy", patches[:, :, : scale.patch, : scale.patch])
        with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):  # the bytes of a file do not depend on them
            _deliver(folder, patches, scale)
        _write_campaign(folder, scale, model)
        write_json(marker, {"notes": [note]})
    imagery = Imagery(folder, scale, tuple(json.loads(marker.read_text(encoding="utf-8"))["notes"]), data)
    for note in imagery.notes:
        on_message(f"imagery: {note}")
    return imagery


def _read_patches(files: Sequence[Path]) -> PatchStack:
    patches = []
    for path in files:
        with rasterio.open(path) as file:
            patches.append(file.read())
    return np.stack(patches)


def _demo_patches(campaign: Campaign) -> tuple[PatchStack, dict[str, str]]:
    """The tiles of the demo's country as patches, and the campaign's model section for its network."""
    base, size = campaign.base, campaign.grid.tile
    patches = []
    for section in campaign.domains:
        inputs = read_domain(campaign.catalog, section.name, tile_size=size)
        mosaic = Mosaic.of(inputs, bands=campaign.recipe().bands)
        patches += [mosaic.read(tile.tile.window).bands for tile in inputs.tiles]
    return np.stack(patches), {"weights": campaign.weights, "recipe": str(base / campaign.model.recipe)}


def _noise_patches() -> PatchStack:
    """Two patches of smooth and of white noise, which JPEG 2000 compresses about as it does imagery."""
    rng, at = np.random.default_rng(0), np.arange(_NOISE_PATCH) / PIXELS_PER_M
    fields = [fractal(at, at, cell=20.0, octaves=6, seed=seed) for seed in range(10)]
    levels = 110 + 45 * np.stack(fields) + rng.normal(0, 6, (10, _NOISE_PATCH, _NOISE_PATCH))
    return levels.clip(1, 254).astype(np.uint8).reshape(2, 5, _NOISE_PATCH, _NOISE_PATCH)


def _untrained_network(folder: Path, *, light: bool) -> dict[str, str]:
    """Writes random weights of the default recipe, or of a light network, and returns the campaign's model section."""
    path, name = folder / "untrained_weights.pth", DEFAULT_RECIPE
    if light:
        name = str(folder / "light.yaml")
        save_recipe(Path(name), light_recipe())
    save_untrained_weights(path, load_recipe(name))
    return {"weights": str(path), "recipe": name}


def light_recipe() -> Recipe:
    """The default recipe with the demo's small network, for the quick scale."""
    light = {"encoder": ENCODER, "decoder_channels": DECODER_CHANNELS}
    return load_recipe(DEFAULT_RECIPE).model_copy(update=light)


def mirrored(patches: PatchStack, window: Window) -> NDArray[np.uint8]:
    """Reads a window of an endless plane made from the patches: laid in a square, which is mirrored at its edges.

    Each row of the square holds all patches and starts one patch further than the row above, so that a window a few
    patches wide sees all of them.

    Args:
        patches: all of one size.
        window: anywhere on the plane.

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


def _deliver(folder: Path, patches: PatchStack, scale: BenchScale) -> None:
    """Writes the tiles and indexes them."""
    top, left = (edge // scale.tile * scale.tile for edge in _CORNER)
    plane = Window(0, 0, scale.tile * scale.tiles_a_side, scale.tile * scale.tiles_a_side)
    for part in plane.split(scale.tile):
        tile = Tile.at(top + part.row, left + part.col, scale.tile)
        _write_tile(folder / "delivery", tile, mirrored(patches, part))
    index([folder / "delivery"], domain=_DOMAIN, catalog=folder / "catalog", tile_size=scale.tile)


def _write_tile(folder: Path, tile: Tile, image: NDArray[np.uint8]) -> None:
    """Writes RVB and IRC as JPEG 2000, and the height's models.

    With models of 0.50 m, reading has to resample elevation as it does for real deliveries.
    """
    write_imagery(folder, tile, VINTAGES[0], image[:4])
    write_height_models(folder, tile, image[4])


def write_height_models(folder: Path, tile: Tile, heights: NDArray[np.uint8]) -> None:
    """Writes a surface and a terrain model of 0.50 m whose difference is the height, below the folder of a delivery.

    Args:
        folder: of the delivery.
        tile: of 1 km, or smaller.
        heights: uint8 (y, x) of the tile, in units of 0.2 m.

    Raises:
        StorageError: the folder cannot be written.
    """
    height = to_half_metres(heights.astype(np.float32) * np.float32(_HEIGHT_STEP_M))
    left, _, _, top = tile.window.bounds
    along = (np.arange(height.shape[0]) + 0.5) / 2
    terrain = 100 + 3 * np.sin((left + along[None, :]) / 40) + 2 * np.cos((top - along[:, None]) / 25)
    surface, terrain = (terrain + height).astype(np.float32), terrain.astype(np.float32)
    write_half_metre_model(folder / "MNS" / delivery.lidar_name(tile.name, kind="dsm"), tile, surface)
    write_half_metre_model(folder / "MNT" / delivery.lidar_name(tile.name, kind="dtm"), tile, terrain)


def _write_campaign(folder: Path, scale: BenchScale, model: dict[str, str]) -> None:
    inputs = read_domain(folder / "catalog", _DOMAIN, tile_size=scale.tile)
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
        # The small windows of a quick bench show seams, and nobody looks at its maps.
        "accept_limits": ["halo"],
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
