"""What the halo is for: the same country mapped once more with none, and the seams that this leaves."""

from pathlib import Path

from pipeline.config import Campaign, load_recipe
from pipeline.grid import Layout
from pipeline.products.item import list_sealed
from pipeline.products.seams import Seams
from pipeline.runs.domain import run
from pipeline.runs.plan import make_plan
from pipeline.runs.quality import cuts_of, domain_seams


def halo_free(campaign: Campaign, folder: Path) -> Campaign:
    """The campaign with windows that keep all of what they see, but for what alignment adds, into another folder.

    Args:
        campaign: of which core and block stay.
        folder: of its domain products.
    """
    stride = load_recipe(campaign.model.recipe, base=campaign.base).stride
    room = campaign.grid.core + 2 * stride
    spacious = Layout(campaign.grid.core, 0, -(-room // stride) * stride, stride)
    grid = campaign.grid.model_copy(update={"halo": 0, "window": spacious.smallest_window})
    output = campaign.output.model_copy(update={"domains": folder})
    return campaign.model_copy(update={"grid": grid, "output": output})


def seams_without_halo(campaign: Campaign, folder: Path) -> Seams:
    """Maps the campaign's first domain without a halo, and counts changes across its edges.

    Args:
        campaign: as it was mapped with its halo.
        folder: where these tiles go.

    Raises:
        LandcoverError: as `run` does.
    """
    bare, name = halo_free(campaign, folder), campaign.domains[0].name
    run(make_plan(bare, domains=[name]))
    return domain_seams(list_sealed(folder / name, name, bare.grid.tile), cuts=cuts_of(bare))
