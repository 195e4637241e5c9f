"""Zarr groups as lazy xarray Datasets whose reads name the file of a damaged chunk, however late they happen."""

from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.abc.store import Store

from pipeline.errors import MALFORMED, product_error


def open_group(store: Path | Store, name: str = "") -> xr.Dataset:
    """Opens a Zarr group lazily, without Dask.

    Args:
        store: with consolidated metadata; of another kind than folders, one whose `str` is its address.
        name: of the group in it; empty for its root.

    Raises:
        ProductError: when pixels are read: a chunk is damaged, or cannot be read.
    """
    opened: xr.Dataset = xr.open_zarr(store, group=name or None, chunks=None)
    root = zarr.open_group(store, mode="r", zarr_format=3)
    named = {}
    for layer, array in opened.data_vars.items():
        place = f"{name}/{layer}".lstrip("/")
        pixels = indexing.LazilyIndexedArray(_NamedArray(root[place], f"{store}/{place}"))
        named[layer] = xr.Variable(array.dims, pixels, array.attrs, array.encoding)
    lazy: xr.Dataset = opened.assign(named)
    return lazy


class _NamedArray(BackendArray):
    """An array of a Zarr group, as xarray's backends read them."""

    def __init__(self, array: Any, path: str) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        with product_error(f"{self._path}: cannot be read; `landcover verify` finds damaged files", *MALFORMED):
            read: NDArray[Any] = self._array.oindex[key]
        return read
