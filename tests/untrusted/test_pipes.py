"""A named pipe or a device under the name of any input is an error, and is not waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import LandcoverError
from pipeline.fingerprint import file_sha256
from pipeline.inference.quantized_model import read_quantized
from pipeline.model.weights import load_model
from pipeline.products.analysis.areas import read_zones
from pipeline.products.tile.cog import open_cog
from pipeline.sources.delivery.headers import read_header
from pipeline.sources.inspection.lowest_level import read_lowest_cells
from pipeline.sources.labels.patches import find_patches
from pipeline.sources.reading.raster import Raster
from pipeline.untrusted.documents import DocumentError, read_json, read_yaml_document


def cog(path: Path) -> None:
    with open_cog(path):
        pass


READERS: dict[str, Callable[[Path], object]] = {
    "in.tif": lambda path: Raster.open(path, bands=("red",)),
    "header.tif": read_header,
    "header.jp2": read_header,
    "cells.tif": read_lowest_cells,
    "cog.tif": cog,
    "zones.gpkg": lambda path: read_zones(path, None, "EPSG:2154"),
    "list.csv": lambda path: find_patches([path]),
    "weights.pth": lambda path: load_model(str(path)),
    "weights.safetensors": lambda path: load_model(str(path)),
    "network.xml": read_quantized,
    "item.json": read_json,
    "campaign.yaml": read_yaml_document,
    "any": file_sha256,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_an_input_that_is_no_file_is_an_error(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(
        (LandcoverError, DocumentError, OSError), match=r"regular file|cannot be read|not a JPEG 2000|first bytes"
    ):
        READERS[name](path)
