"""What the halo is for: the same country mapped once more with none, and the seams that this leaves."""

from pathlib import Path

from pipeline.config import Campaign
from pipeline.grid import Layout
from pipeline.products.assessment.edge_changes import Seams
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quality.quality_metrics import cuts_of, domain_seams


def halo_free(campaign: Campaign, folder: Path) -> Campaign:
    """The campaign with windows that keep all of what they see, but for what alignment adds, into another folder.

    Args:
        campaign: of which core and block stay.
        folder: of its domain products.
    """
    stride = campaign.recipe().stride
    room = campaign.grid.core + 2 * stride
    spacious = Layout(campaign.grid.core, 0, -(-room // stride) * stride, stride)
    grid = campaign.grid.model_copy(update={"halo": 0, "window": spacious.smallest_window})
    output = campaign.output.model_copy(update={"domains": folder})
    return campaign.model_copy(update={"grid": grid, "output": output})


def seams_without_halo(campaign: Campaign, folder: Path) -> Seams:
    """Maps the campaign without a halo, and counts changes across the edges of all its domains.

    Args:
        campaign: as it was mapped with its halo.
        folder: where these tiles go.

    Raises:
        LandcoverError: as `run` does.
    """
    bare = halo_free(campaign, folder)
    run(make_plan(bare))
    cuts, tile = cuts_of(bare), bare.grid.tile
    found = (domain_seams(list_sealed(folder / d.name, d.name, tile), cuts=cuts) for d in bare.domains)
    return sum(found, Seams())
