"""The xarray accessor `ds.cover`: select, clip, plot, areas and change of a product."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, cast

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis.areas import Classes, adjusted, class_columns, in_crs, measured, read_zones
from pipeline.products.analysis.cell_and_edge_counts import Counted, count_zones
from pipeline.products.analysis.change import Change, FalseChange, change
from pipeline.products.analysis.dataset_geobox import geobox_of, window_touched
from pipeline.products.analysis.notebook_page import show_page
from pipeline.products.assessment.reference_sample import InterpretedSample, read_sample
from pipeline.progress import SHORT_S, progress_bar

_CHUNK = 5_000
"""Pixels a side of a Dask chunk, 25 MB a layer."""
_MOST_DRAWN = 1_200
"""Pixels a side of a plot, at most; a larger map is thinned."""

Geometries: TypeAlias = BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries


@cache
def register_cover() -> None:
    """Gives every xarray Dataset the accessor `.cover`; `open_product` does it. Further calls do nothing."""
    xr.register_dataset_accessor("cover")(Cover)  # type: ignore[no-untyped-call]  # xarray leaves this one untyped


class Cover:
    """Methods of a land-cover Dataset that `open_product` returned, or of a part of one."""

    def __init__(self, product: xr.Dataset) -> None:
        self._product = product
        # xarray keeps an accessor with its Dataset, and every derived Dataset gets a new one. So a share cube that is
        # kept here is never used for changed or cut pixels.
        self._shares: Path | None = None
        self._counted: xr.Variable | None = None
        self._edition: Path | None = None

    def counted_in(self, shares: Path | None) -> None:
        """Keeps the share cube of exactly this Dataset's pixels; called by `open_product`."""
        self._shares, self._counted = shares, self._product.variables.get("landcover")

    def opened_from(self, edition: Path) -> None:
        """Keeps the folder of the edition that this Dataset is; called by `open_product`."""
        self._edition = edition

    @property
    def _landcover(self) -> xr.DataArray:
        if "landcover" not in self._product:
            raise ProductError(
                f"expected a Dataset with `landcover`; it has {', '.join(map(str, self._product)) or 'no variables'}"
            )
        return self._product["landcover"]

    def select(self, classes: Sequence[str | int]) -> xr.Dataset:
        """The product with only some classes, all others as no data; lazily.

        Args:
            classes: names of groups and classes, slugs or FLAIR values.

        Raises:
            ConfigError: an unknown class or group.
            ProductError: the product is too large for Dask; clip it first.
        """
        wanted = [value for name in classes for value in legend.members(name)]
        if not self._landcover.chunks:
            raise ProductError(
                f"{self._landcover.shape} pixels are too many for a Dask graph; clip them, or open a coarser level"
            )
        return self._masked(self._product, self._landcover.isin(wanted))

    def clip(self, geometry: Geometries) -> xr.Dataset:
        """The product cut to a geometry: pixels whose centres lie outside become no data; on Dask.

        Args:
            geometry: GeoDataFrame or GeoSeries in any CRS, or a shapely geometry in the product's CRS.

        Raises:
            ProductError: the geometry lies outside the product, or has no CRS.
        """
        geobox = geobox_of(self._product)
        placed = geometry if isinstance(geometry, BaseGeometry) else in_crs(geometry, str(geobox.crs)).union_all()
        outline = cast("BaseGeometry", placed)
        window = window_touched(geobox, outline.bounds) if not outline.is_empty else Window(0, 0, 0, 0)
        if not window.pixels:
            raise ProductError(f"the geometry, {outline.bounds}, lies outside the product: {geobox.boundingbox.bbox}")
        rows, cols = window.slices
        part = self._product.isel(y=rows, x=cols).chunk({"y": _CHUNK, "x": _CHUNK})
        template = part["landcover"].astype(bool)
        inside = xr.map_blocks(
            _inside, template, kwargs={"outline": outline, "pixel": geobox.resolution.x}, template=template
        )
        return self._masked(part, inside)

    def plot(self, ax: Axes | None = None, *, title: str = "", legend_columns: int = 1) -> Axes:
        """Plots the classes in their colours, with a legend of those that occur.

        Larger maps are thinned to 1 200 pixels a side, so open a coarser level or clip before plotting a nation.

        Args:
            ax: axes to plot on; by default those of a new figure.
            title: above the map.
            legend_columns: columns of the legend beside the map; 0 for no legend.
        """
        step = max(1, -(-max(self._landcover.shape) // _MOST_DRAWN))
        drawn = self._landcover[::step, ::step].to_numpy()
        axes = plt.subplots(layout="compressed")[1] if ax is None else ax
        left, bottom, right, top = geobox_of(self._product).boundingbox
        axes.imshow(
            np.ma.masked_equal(drawn, legend.NODATA),
            cmap=ListedColormap([c.colour for c in legend.FLAIR]),
            norm=BoundaryNorm(np.arange(len(legend.FLAIR) + 1) + 0.5, len(legend.FLAIR)),
            interpolation="nearest",
            extent=(left, right, bottom, top),
        )
        axes.set(title=title, xticks=[], yticks=[])
        present = [c for c in legend.FLAIR if (drawn == c.value).any()]
        if legend_columns and present:
            handles = [Patch(facecolor=c.colour, edgecolor="#444444", linewidth=0.4, label=c.name) for c in present]
            axes.legend(
                handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=legend_columns, frameon=False
            )
        return axes

    def explore(self, geometry: Geometries | None = None, *, height: int = 600) -> Any:
        """Shows the edition's map page in a notebook's cell, without the internet.

        A server on loopback answers the page until the kernel ends. Where the kernel runs on another machine than the
        browser, forward the port in the address: `ssh -L PORT:127.0.0.1:PORT HOST`.

        Args:
            geometry: what the page looks at and outlines: GeoDataFrame or GeoSeries in any CRS, or a shapely geometry
                in the product's CRS. By default everything.
            height: of the frame in pixels.

        Returns:
            An `IPython.display.IFrame`, which a cell shows when it is its last line.

        Raises:
            ProductError: the Dataset is not an edition on this disk as `open_product` returned it, or has no page.
            MachineError: IPython is not installed.
        """
        if self._edition is None:
            raise ProductError(
                "only a national product on this disk has a map page, as `open_product` returned it: to look at a "
                "part, call `.cover.explore(geometry)` on the whole"
            )
        placed = geometry
        if isinstance(geometry, gpd.GeoDataFrame | gpd.GeoSeries):
            placed = in_crs(geometry, str(geobox_of(self._product).crs)).union_all()
        return show_page(self._edition, placed, height=height)

    def area_by_class(
        self,
        geometries: gpd.GeoDataFrame | Path | str,
        *,
        by: str | None = None,
        classes: Classes = None,
        sample: Path | str | None = None,
        unsealed: bool = False,
        answers: Path | str | None = None,
        composite: bool = False,
    ) -> gpd.GeoDataFrame:
        """Hectares of each class in each zone. A progress bar appears after two seconds.

        Args:
            geometries: polygons with a CRS, or a file of them that GDAL reads. Their vertices are transformed; lines
                between them are straight on the map.
            by: an attribute; polygons with the same value are one zone, whose overlaps count once.
            classes: names of groups and classes, slugs or FLAIR values; by default all classes that occur.
            sample: an interpreted sample of `landcover sample`: adds the estimated true areas with 95 % intervals, for
                zones with enough points.
            unsealed: accept a sample without a sealed design, of an earlier version or another program.
            answers: the CSV file that the sample's page saved.
            composite: estimate zones with too few points by a model that borrows strength from the whole sample, see
                "Small zones" in the documentation; `estimated_by` says for which zones.

        Returns:
            One row a zone, indexed by `by`, in the product's CRS: the zones' attributes (of its first polygon),
            `area_ha`, `mapped_ha`, `no_data_ha`, `outside_ha`, and for each class or group `<slug>_ha` on the map's
            plane and `<slug>_ellipsoid_ha` on the ellipsoid. With a sample also `<slug>_adjusted_ha`, `…_low_ha`,
            `…_high_ha`, which are NaN in zones with too few points, with the reason in `not_adjusted`.

        Raises:
            ProductError: the geometries have no CRS, are not polygons or lack the attribute `by`, or the product
                cannot be read.
            ConfigError: an unknown class or group.
            EvaluationError: `composite`, and the sample has clusters or too few points to fit the model.
        """
        untouched = self._counted is not None and self._product.variables.get("landcover") is self._counted
        counted = Counted.of(self._product.assign(landcover=self._landcover), self._shares if untouched else None)
        zones = read_zones(geometries, by, str(counted.geobox.crs))
        with progress_bar("area by class", after_s=SHORT_S) as progress:
            found = count_zones(counted, zones.geometry.to_numpy(), progress=progress)
        columns = class_columns(classes, found)
        table = measured(zones, found, columns)
        if sample is None:
            return table
        points = read_sample(Path(sample), unsealed=unsealed, answers=Path(answers) if answers else None)
        self._check_sampled(points, zones, Path(sample))
        added = adjusted(zones, found, points, columns, composite=composite)
        # By position: zones may have equal labels.
        return table.assign(**{name: added[name].to_numpy() for name in added})

    def _check_sampled(self, points: InterpretedSample, zones: gpd.GeoDataFrame, path: Path) -> None:
        """Raises ProductError if a point in the zones has another class on this map than on the one it was drawn from.

        Only pixels of the sampled map's own size can be compared, and not those without data: `select` and `clip` leave
        them.
        """
        geobox = geobox_of(self._product)
        if points.design is not None and not math.isclose(points.design.pixel_m, geobox.resolution.x):
            return
        col, row = (np.floor(a).astype(np.int64) for a in geobox.wld2pix(*points.xy.T))
        near = shapely.contains_xy(shapely.box(*zones.total_bounds), points.xy)
        at = np.flatnonzero(near & (col >= 0) & (row >= 0) & (col < geobox.width) & (row < geobox.height))
        rows, cols = (xr.DataArray(a[at], dims="point") for a in (row, col))
        here = self._landcover.isel(y=rows, x=cols).to_numpy()
        if wrong := np.flatnonzero((here != legend.NODATA) & (here != points.mapped[at])).tolist():
            expected, found = (legend.BY_VALUE[int(v[wrong[0]])].name for v in (points.mapped[at], here))
            x, y = points.xy[at[wrong[0]]]
            raise ProductError(
                f"{path}: drawn from another map: {len(wrong)} of {len(at)} points have another class on this one; at "
                f"{x:.2f}, {y:.2f} expected {expected}, found {found}. Draw a sample of this map"
            )

    def change(
        self,
        other: xr.Dataset,
        *,
        min_confidence: float = 0.0,
        min_area_m2: float = 0.0,
        errors: FalseChange | None = None,
    ) -> Change:
        """Changes from this product to another, later one; see `pipeline.products.analysis.change.change`."""
        return change(self._product, other, min_confidence=min_confidence, min_area_m2=min_area_m2, errors=errors)

    @staticmethod
    def _masked(product: xr.Dataset, keep: xr.DataArray) -> xr.Dataset:
        """The (y, x) layers with 0 where `keep` is False; coverage, which no longer fits, is dropped."""
        layers = {name: a.where(keep, a.dtype.type(0)) for name, a in product.items() if a.dims == ("y", "x")}
        return xr.Dataset(layers, attrs=product.attrs)


def _inside(block: xr.DataArray, *, outline: BaseGeometry, pixel: float) -> xr.DataArray:
    """bool (y, x): True where a pixel's centre lies in the outline; one Dask chunk."""
    left, top = float(block["x"][0]) - pixel / 2, float(block["y"][0]) + pixel / 2
    mask: NDArray[np.bool_] = geometry_mask(
        [outline], block.shape, Affine(pixel, 0.0, left, 0.0, -pixel, top), invert=True
    )
    return block.copy(data=mask)
