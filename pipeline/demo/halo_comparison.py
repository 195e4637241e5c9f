"""Maps a campaign again without a halo, to show the seams that the halo prevents."""

from pathlib import Path

from pipeline.config import Campaign
from pipeline.grid import Layout
from pipeline.products.assessment.edge_changes import Seams
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quality.quality_metrics import cuts_of, domain_seams


def seams_without_halo(campaign: Campaign, folder: Path) -> Seams:
    """Maps a campaign without a halo, and counts class changes across the edges in all its domains.

    Core and block are kept. The windows have no halo, only what alignment adds.

    Args:
        campaign: as it was mapped with its halo.
        folder: for the tiles without a halo.

    Raises:
        LandcoverError: as `run` does.
    """
    layout = Layout.for_core(campaign.grid.core, halo=0, stride=campaign.recipe().stride)
    grid = campaign.grid.model_copy(update={"halo": 0, "window": layout.window})
    output = campaign.output.model_copy(update={"domains": folder})
    bare = campaign.model_copy(update={"grid": grid, "output": output})
    run(make_plan(bare))
    cuts, tile = cuts_of(bare), bare.grid.tile
    found = (domain_seams(list_sealed(folder / d.name, d.name, tile), cuts=cuts) for d in bare.domains)
    return sum(found, Seams())
