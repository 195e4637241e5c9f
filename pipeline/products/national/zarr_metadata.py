"""Georeferences the groups of a national store: coordinates, CRS, and the attributes by which readers find them.

Each group has them twice: by the CF conventions (`x`, `y`, a grid mapping), which xarray, rioxarray, odc-geo and GDAL
read, and by the Zarr conventions `spatial`, `proj` and `multiscales`, on which GeoZarr is built.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.codecs import BloscCodec

from pipeline.durable import link_or_copy
from pipeline.geobox import lattice_geobox
from pipeline.grid import PIXELS_PER_M, Window

COORDINATES = re.compile(r"/[xy]/c/")
"""Found in the paths of the chunks of coordinates."""
_COORDINATE_CHUNK = 100_000
_CONVENTIONS = {
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
}
"""Name → (UUID, description) of https://github.com/zarr-conventions, each at its version `_TAG`."""
_TAG = "v0.1"
PLACE_OF_ALL = ("proj:code", "proj:wkt2", "proj:projjson", "spatial:dimensions", "spatial:bbox")
"""Attributes of a `Frame` that all levels of a tree share."""


@dataclass(frozen=True)
class Frame:
    """A raster of square cells over a window of the lattice."""

    extent: Window
    crs: str
    """`EPSG:…`."""
    factor: int = 1
    """Lattice pixels a side of a cell; divides the extent."""

    @property
    def geobox(self) -> GeoBox:
        """Shape, affine and CRS of the cells."""
        return lattice_geobox(self.extent, self.crs, self.factor)

    @property
    def centres(self) -> dict[str, NDArray[np.float64]]:
        """`y` and `x` of the cells' centres in metres, float64."""
        e, half = self.extent, self.factor / 2
        return {
            "y": -(np.arange(e.row, e.bottom, self.factor) + half) / PIXELS_PER_M,
            "x": (np.arange(e.col, e.right, self.factor) + half) / PIXELS_PER_M,
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """A group's attributes by the conventions `proj` and `spatial`.

        The CRS is there in three ways, because clients without a database of codes cannot resolve `proj:code`.
        """
        crs = pyproj.CRS.from_user_input(self.crs)
        return {
            "zarr_conventions": conventions(("proj", "spatial")),
            "proj:code": self.crs,
            "proj:wkt2": crs.to_wkt(),
            "proj:projjson": crs.to_json_dict(),
            "spatial:dimensions": ["y", "x"],
            "spatial:bbox": list(self.extent.bounds),
            "spatial:transform": list(self.geobox.affine)[:6],
            "spatial:shape": list(self.geobox.shape),
            "spatial:registration": "pixel",
        }


def conventions(names: Sequence[str]) -> list[dict[str, str]]:
    """The entries of `zarr_conventions`, which name the conventions that a group follows."""
    return [
        {
            "uuid": uuid,
            "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/{_TAG}/schema.json",
            "spec_url": f"https://github.com/zarr-conventions/{name}/blob/{_TAG}/README.md",
            "name": name,
            "description": description,
        }
        for name, (uuid, description) in _CONVENTIONS.items()
        if name in names
    ]


def create_frame(group: Any, path: Path, frame: Frame, *, linked_from: Path | None) -> None:
    """Writes `y`, `x` and `spatial_ref` of a Zarr group.

    The bits of an even ramp, shuffled, compress to a fortieth of the size that ZSTD alone reaches.

    Args:
        group: the open Zarr group.
        path: its folder.
        frame: where its cells lie.
        linked_from: folder of a group with the same frame, to whose coordinates this one links; None to write them.
    """
    for name, values in frame.centres.items():
        group.create_array(
            name,
            data=values,
            write_data=linked_from is None,
            chunks=(min(len(values), _COORDINATE_CHUNK),),
            fill_value=float("nan"),
            compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=8)],
            dimension_names=(name,),
            attributes={"standard_name": f"projection_{name}_coordinate", "units": "metre", "axis": name.upper()},
        )
        if linked_from is not None:
            (path / name / "c").mkdir()
            for chunk in (linked_from / name / "c").iterdir():
                link_or_copy(chunk, path / name / "c" / chunk.name)
    crs = pyproj.CRS.from_user_input(frame.crs)
    attributes = dict(crs.to_cf()) | {
        "spatial_ref": crs.to_wkt(),
        "GeoTransform": " ".join(repr(v) for v in frame.geobox.affine.to_gdal()),
    }
    group.create_array(
        "spatial_ref",
        data=np.array(crs.to_epsg(), np.int64),
        fill_value=0,
        dimension_names=(),
        attributes=attributes,
        config={"write_empty_chunks": True},
    )


def lost_coordinates(path: Path, frame: Frame) -> list[str]:
    """Problems: coordinates of a group whose files are lost. Empty if there are none."""
    return [
        f"{path / name}: {there} of {chunks} chunks are there"
        for name, length in zip("yx", frame.geobox.shape, strict=True)
        if (there := count_chunks(path / name)) != (chunks := -(-length // _COORDINATE_CHUNK))
    ]


def count_chunks(array: Path) -> int:
    """Files of an array's chunks."""
    return sum(p.is_file() for p in (array / "c").rglob("*"))
