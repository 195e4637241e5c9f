"""Adjoining labelled patches as one raster, so that they can be mapped as a product is: windows with a halo."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.grid import Window, union
from pipeline.sources.gdal_open import environment
from pipeline.sources.labels.patches import Patch, read_image
from pipeline.sources.reading.raster import Pixels, check_inside, open_raster_file


@dataclass(frozen=True)
class PlacedPatch:
    """A patch and where it lies."""

    patch: Patch
    window: Window
    """In pixels from the origin of its CRS, as on the lattice; from its own corner where it has no georeference."""


@dataclass(frozen=True)
class PatchMosaic:
    """Patches that touch each other, as one `Source`; what lies between them is no data."""

    bands: tuple[str, ...]
    patches: tuple[PlacedPatch, ...]
    window: Window
    """Around all of them."""

    def meeting(self, window: Window) -> tuple[PlacedPatch, ...]:
        """The patches that have pixels in a window."""
        return tuple(p for p in self.patches if p.window.intersect(window).pixels)

    def around(self, window: Window) -> "PatchMosaic":
        """The same raster with only the patches in `window`, which is all that it can read."""
        return replace(self, patches=self.meeting(window))

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """See `Source`."""
        check_inside(window, self.window, "patches")
        pixels = Pixels.nothing(len(self.bands), within or window)
        own = pixels.part(window, of=within or window)
        for placed in self.meeting(window):
            part = placed.window.intersect(window)
            inside = part.slices_in(window)
            own.bands[:, *inside] = read_image(placed.patch, bands=self.bands)[:, *part.slices_in(placed.window)]
            own.valid[inside] = True
        return pixels


def mosaic_patches(patches: Sequence[Patch], *, bands: tuple[str, ...]) -> tuple[PatchMosaic, ...]:
    """Puts the patches of each zone that touch, along an edge or at a corner, into one mosaic.

    A patch that touches no other one is a mosaic of its own. So is one that overlaps a patch before it, one without
    georeference and one that is rotated.

    Args:
        patches: of any domains and zones; imagery of two zones never meets.
        bands: to read.

    Raises:
        SourceError: an image cannot be opened.
    """
    by_zone: defaultdict[Hashable, list[PlacedPatch]] = defaultdict(list)
    for patch in patches:
        key, window = _place(patch)
        by_zone[key].append(PlacedPatch(patch, window))
    groups = [group for placed in by_zone.values() for group in _touching(placed)]
    return tuple(PatchMosaic(bands, tuple(group), union([p.window for p in group])) for group in groups)


def _place(patch: Patch) -> tuple[Hashable, Window]:
    """What patches that may meet have in common, and the patch's place among them."""
    with environment(georeference=True), open_raster_file(patch.image) as file:
        to_map, shape, crs = file.transform, file.shape, str(file.crs)
    north_up = to_map.b == to_map.d == 0 and to_map.a > 0 and abs(to_map.a + to_map.e) < 1e-6
    if to_map.is_identity or not north_up:
        return patch, Window(0, 0, *shape)
    col, row = to_map.c / to_map.a, -to_map.f / to_map.a
    # Patches whose pixels do not lie on one grid cannot be one raster.
    phase = tuple(round(position - round(position), 1) for position in (row, col))
    return (patch.domain, patch.zone, crs, round(to_map.a, 6), phase), Window(round(row), round(col), *shape)


def _touching(placed: Sequence[PlacedPatch]) -> list[list[PlacedPatch]]:
    """Groups of patches that touch directly or through others, none of which overlap."""
    ordered = sorted(placed, key=lambda p: p.patch)
    edges = np.array([(w.col, w.row, w.right, w.bottom) for w in (p.window for p in ordered)])
    boxes = shapely.box(*edges.T)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    overlap = shapely.area(shapely.intersection(boxes[one], boxes[other])) > 0
    alone = set(one[overlap & (one > other)].tolist())
    linked = ~np.isin(one, list(alone)) & ~np.isin(other, list(alone))
    graph = coo_array((np.ones(linked.sum()), (one[linked], other[linked])), shape=(len(ordered),) * 2)
    _, labels = connected_components(graph, directed=False)
    groups: defaultdict[int, list[PlacedPatch]] = defaultdict(list)
    for label, patch in zip(labels.tolist(), ordered, strict=True):
        groups[label].append(patch)
    return list(groups.values())
