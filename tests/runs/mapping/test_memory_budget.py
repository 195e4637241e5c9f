"""The projected memory of a worker is printed, and a run that exceeds its limits does not start."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign


def test_a_run_that_exceeds_memory_bytes_does_not_start(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    made.change(cluster={"memory_bytes": 500_000_000})
    plan = make_plan(made.campaign)
    with pytest.raises(ConfigError, match=r"memory_bytes allows 0\.50 GB. Use a smaller grid\.window"):
        run(plan)
    assert not made.products.exists()
    printed = CliRunner().invoke(app, ["plan", str(made.config)])
    assert printed.exit_code == 0
    assert f"up to {plan.resolved.memory.total / 1e9:.2f} GB" in printed.output
    assert "memory_bytes allows 0.50 GB" in " ".join(printed.output.split())


def test_a_run_that_exceeds_device_memory_bytes_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    made.change(cluster={"device_memory_bytes": 1_000_000_000})
    monkeypatch.setattr("pipeline.runs.planning.resolved_campaign.on_gpu", lambda engine: engine.name == "torch")
    plan = make_plan(made.campaign)
    with pytest.raises(ConfigError, match=r"of its GPU, but cluster\.device_memory_bytes allows 1\.00 GB"):
        run(plan)
    assert not made.products.exists()
    printed = " ".join(CliRunner().invoke(app, ["plan", str(made.config)]).output.split())
    assert f"and {plan.resolved.memory.device / 1e9:.2f} GB of its GPU" in printed
    assert "memory_bytes is not set" in printed
    assert "device_memory_bytes allows 1.00 GB" in printed


def test_compiled_and_plain_maps_have_other_fingerprints(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    (plain,) = make_plan(made.campaign).domains[0].tiles
    made.change(torch_compile=True)
    (compiled,) = make_plan(made.campaign).domains[0].tiles
    assert compiled.fingerprint != plain.fingerprint
