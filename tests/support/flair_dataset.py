"""The dataset's real folder layout, made of the five real patches or of random ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

LOCAL = 'LOCAL_CS["RGF93 v1 / Lambert-93",UNIT["metre",1]]'


def real_layout(shared: Path, root: Path) -> tuple[Path, Path]:
    """The five real patches as FLAIR's archives unpack: images below one root, masks below another."""
    images, masks = root / "flair_1_aerial_test", root / "flair_1_labels_test"
    for entry in json.loads((shared / "flair_patches" / "metadata.json").read_text()):
        place = Path(entry["domain"], entry["zone"])
        number = entry["image_id"].removeprefix("IMG_")
        for folder, kind in ((images / place / "img", "IMG"), (masks / place / "msk", "MSK")):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / "flair_patches" / f"{kind}_{number}.tif", folder)
    return images, masks


def write_pair(
    folder: Path, number: int, *, pixels: np.ndarray, mask: np.ndarray, crs: str = "EPSG:2154", mask_crs: str = LOCAL
) -> None:
    """An image and its mask, side by side in `img` and `msk`."""
    place = Affine(0.2, 0, 700_000 + 1000 * number, 0, -0.2, 6_600_000)
    for kind, array, its in (("img", pixels, crs), ("msk", mask[None], mask_crs)):
        path = folder / kind / f"{kind.upper()}_{number:06d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        bands, height, width = array.shape
        how: dict[str, Any] = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": "uint8"}
        with rasterio.open(
            path, "w", crs=CRS.from_wkt(its) if its.startswith("LOCAL") else its, transform=place, **how
        ) as f:
            f.write(array)


def random_set(root: Path, *, zones: int = 4, patches: int = 2, side: int = 64, seed: int = 0) -> Path:
    """Patches whose class follows from their colour, so that a network can learn it: four classes in stripes."""
    rng = np.random.default_rng(seed)
    number = 0
    for zone in range(zones):
        for _ in range(patches):
            mask = np.repeat(np.repeat(rng.integers(1, 5, (side // 16, side // 16)), 16, 0), 16, 1).astype(np.uint8)
            colour = rng.integers(0, 30, (5, side, side)) + 45 * np.stack([mask, 5 - mask, mask % 2, mask // 2, mask])
            place = root / "aerial" / f"D0{10 + zone % 2}_2021" / f"Z{zone + 1}_NN"
            write_pair(place, number, pixels=colour.astype(np.uint8), mask=mask)
            number += 1
    return root
