"""The demo's country, small: mapped and published once for all tests that read it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.config import Campaign


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of one row of the country, mapped and published; tests put back what they change."""
    # Imported here, because pytest-xdist's own process loads this plugin and runs no test.
    from pipeline.demo.network import FitSettings
    from pipeline.demo.walkthrough import prepare
    from pipeline.runs.mapping.run import run
    from pipeline.runs.planning.plan import make_plan
    from pipeline.runs.publishing.publish import publish
    from tests.support.dask_client import in_process_client

    out = tmp_path_factory.mktemp("demo")
    settings = FitSettings(steps=20, batch=2, crop=128)
    _, campaign = prepare(out, on_message=lambda _: None, rows=1, columns=3, settings=settings)
    with in_process_client() as client:
        run(make_plan(campaign), client=client)
        publish(campaign, client=client)
    return out / "campaign.yaml"


@pytest.fixture
def campaign(demo: Path) -> "Campaign":
    from pipeline.config import load_campaign

    return load_campaign(demo)
