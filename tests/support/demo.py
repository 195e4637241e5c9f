"""The demo's country, small: mapped and published once for all that looks at it."""

from pathlib import Path

import pytest

from pipeline.config import Campaign, load_campaign
from pipeline.demo.network import FitSettings
from pipeline.demo.walkthrough import prepare
from pipeline.runs.mapping import run as runs_domain
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing import publish as runs_publish
from tests.support.campaigns import threads_cluster

FIT = FitSettings(steps=20, batch=2, crop=128)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of one row of the country, mapped and published; tests put back what they change."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_domain, "open_cluster", threads_cluster)
        patch.setattr(runs_publish, "open_cluster", threads_cluster)
        _, campaign = prepare(out, on_message=lambda _: None, rows=1, columns=3, settings=FIT)
        runs_domain.run(make_plan(campaign))
        runs_publish.publish(campaign)
    return out / "campaign.yaml"


@pytest.fixture
def campaign(demo: Path) -> Campaign:
    return load_campaign(demo)
