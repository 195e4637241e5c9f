"""The repository keeps its own promises: constraints, shipped configuration, job script, README."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import config_folder, load_campaign, load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_names_and_versions_and_pin_what_is_installed_directly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [p for p in pins if not re.fullmatch(r"[\w.\-]+==[\w.]+", p)] == []
    versions = {canonical(name): version for name, version in (p.split("==") for p in pins)}
    assert len(versions) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [r for name in ("cpu", "dev", "notebooks") for r in extras[name]]
    assert {canonical(re.split(r"[\[<>=~]", r)[0]) for r in wanted} - versions.keys() == set()
    assert versions["dask"] == versions["distributed"] == "2026.7.1"  # the one release that dask-cuda 26.10 takes


def test_every_shipped_recipe_loads_under_its_own_name() -> None:
    names = [path.stem for path in (config_folder() / "models").glob("*.yaml")]
    assert names
    for name in names:
        assert load_recipe(name).name == name


def test_the_example_campaign_loads_and_its_sizes_fit() -> None:
    campaign = load_campaign(ROOT / "configs" / "campaign-example.yaml")
    layout = campaign.grid.layout(load_recipe(campaign.model.recipe).stride)
    assert campaign.domain("D034_2021").boundary is None
    assert layout.overlap_factor == pytest.approx(1.298, abs=1e-3)
    assert campaign.catalog == ROOT / "configs" / "catalog"


def test_every_command_that_the_readme_names_is_there() -> None:
    command = typer.main.get_command(app)
    named = set(re.findall(r"\blandcover ([a-z]+)", README))
    assert {"index", "plan", "run", "verify", "publish"} <= named <= set(getattr(command, "commands", ()))


COMMANDS = sorted(getattr(typer.main.get_command(app), "commands", ()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0, shown.exception
    assert f"landcover {name}" in shown.output
    assert "Example" in shown.output


def test_every_file_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("script", [*sorted((ROOT / "slurm").glob("*.sbatch")), ROOT / ".ci" / "run"])
def test_shell_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; bash -n found nothing")
    subprocess.run([shellcheck, str(script)], check=True)
