"""The levels and class shares of an edition: one task a tile, and only where level 0 changed."""

from functools import partial

from pipeline.products.national.pyramid.store import begin_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.runs.publishing.draft_edition import Draft


def write_levels(draft: Draft) -> None:
    """Writes `pyramid.zarr` beside the store; tiles that are as they were are hard links to the former edition's.

    Raises:
        ProductError: level 0 cannot be read, or a file cannot be written.
    """
    plan = draft.plan
    tiles = plan.grid.tiles_of(plan.digests)
    left = begin_pyramid(plan.target, former=draft.former, tiles=tiles, changed=draft.changed)
    for _ in draft.each(partial(write_tile, plan.target), left):
        pass
