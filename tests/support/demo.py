"""The demo's country, small: mapped and published once for all that looks at it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.config import Campaign


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of one row of the country, mapped and published; tests put back what they change."""
    # Imported here, because pytest-xdist's own process loads this plugin and runs no test.
    from pipeline.demo.network import Effort
    from pipeline.demo.walkthrough import prepare
    from pipeline.runs.mapping.run import run
    from pipeline.runs.planning.plan import make_plan
    from pipeline.runs.publishing.publish import publish
    from tests.support.campaigns import quick_clusters

    out = tmp_path_factory.mktemp("demo")
    effort = Effort(steps=20, batch=2, crop=128)
    with quick_clusters():
        _, campaign = prepare(out, say=lambda _: None, rows=1, columns=3, effort=effort)
        run(make_plan(campaign))
        publish(campaign)
    return out / "campaign.yaml"


@pytest.fixture
def campaign(demo: Path) -> "Campaign":
    from pipeline.config import load_campaign

    return load_campaign(demo)
