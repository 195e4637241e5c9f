"""A plan in numbers: tiles, windows, pixels, bytes and files."""

from dataclasses import dataclass, fields
from functools import reduce
from operator import add

from pipeline.legend import planes_of
from pipeline.runs.planning.plan import DomainPlan, RunPlan
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign


@dataclass(frozen=True)
class Totals:
    """Counts over the tiles to map; `tiles` alone counts all tiles."""

    tiles: int
    todo: int
    """Tiles to map."""
    blocks: int
    windows: int
    pixels: int
    """Pixels of the map."""
    computed_pixels: int
    """Pixels that networks compute: the windows with their halos, once for each forward."""
    read_pixels: int
    """Pixels of the blocks with their halos."""
    read_bytes: int
    """Bytes of the input files."""
    write_bytes: int
    """Bytes of all layers, uncompressed: more than will be written."""
    input_files: int
    """Input files, and so inodes."""
    output_files: int
    """Files, and so inodes, to write: two COGs and an item per tile, and a COG and an item per optional layer."""

    def __add__(self, other: "Totals") -> "Totals":
        """The sum over two domains. They share no file."""
        return Totals(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def domain_totals(resolved: ResolvedCampaign, domain: DomainPlan) -> Totals:
    """Counts what a run would do in one domain. It reads no file."""
    grid, layout = resolved.campaign.grid, resolved.layout
    count = len(domain.todo)
    # Each size divides the next, so all tiles have as many blocks, and all blocks as many windows.
    blocks = count * (grid.tile // grid.block) ** 2
    windows = blocks * (grid.block // layout.core) ** 2
    maps = sum(not t.keeps_map for t in domain.todo)
    planes = sum(planes_of(tuple(t.layers), resolved.recipe.live) for t in domain.todo)
    return Totals(
        tiles=len(domain.tiles),
        todo=count,
        blocks=blocks,
        windows=windows,
        pixels=count * grid.tile**2,
        computed_pixels=windows * layout.window**2 * resolved.forwards,
        read_pixels=blocks * (grid.block + layout.reach) ** 2,
        read_bytes=sum(file.size for file in domain.files),
        write_bytes=(2 * maps + planes) * grid.tile**2,
        input_files=len(domain.files),
        output_files=3 * maps + 2 * sum(len(t.layers) for t in domain.todo),
    )


def plan_totals(plan: RunPlan) -> Totals:
    """Counts what a run would do in all domains."""
    return reduce(add, (domain_totals(plan.resolved, domain) for domain in plan.domains))
