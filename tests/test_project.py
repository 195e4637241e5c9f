"""The repository keeps its own promises: constraints, shipped configuration, job scripts, README and documentation."""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

import pipeline
from docs.builder.commands import command_options
from pipeline.cli import app
from pipeline.config import config_folder, load_campaign, load_recipe
from pipeline.training.run_config import load_training_config
from pipeline.untrusted import limits
from tests.support.paths import ROOT

TRAIN = ROOT / "slurm" / "train.sbatch"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "pipeline/DESIGN.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(name: str, line: str) -> dict[str, str]:
    """Name → version of a file whose every line matches a pattern."""
    lines = [text for text in (ROOT / name).read_text().splitlines() if not text.startswith("#")]
    found = [re.fullmatch(rf"([\w.\-]+)==([\w.]+){line}", text) for text in lines]
    assert [text[:60] for text, match in zip(lines, found, strict=True) if match is None] == []
    versions = {canonical(match[1]): match[2] for match in found if match}
    assert len(versions) == len(lines)
    return versions


def required(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + [text for name in extras for text in project["optional-dependencies"][name]]
    return [Requirement(text) for text in texts]


def lacking(versions: dict[str, str], wanted: list[Requirement]) -> list[str]:
    """What a file of versions does not have as required."""
    found = ((requirement, versions.get(canonical(requirement.name))) for requirement in wanted)
    return [str(requirement) for requirement, version in found if version not in requirement.specifier]


def test_constraints_are_names_and_versions_and_pin_what_is_installed_directly() -> None:
    versions = pinned("constraints.txt", "")
    assert lacking(versions, required("cpu", "cuda", "dev", "docs", "notebooks", "train", "vectors")) == []
    assert versions["dask"] == versions["distributed"] == "2026.7.1"  # the one release that dask-cuda 26.10 takes


def test_the_lock_file_has_the_versions_of_the_constraints_and_hashes() -> None:
    # No other host and no option: only what pip compares with the file that it got.
    locked = pinned("requirements.lock", r"( ; [^#:/]+?)?( --hash=sha256:[0-9a-f]{64})+")
    constraints = pinned("constraints.txt", "")
    assert {name: version for name, version in locked.items() if constraints.get(name, version) != version} == {}
    own = {name for name in locked.keys() - constraints.keys() if not name.startswith("nvidia-")}
    assert own == {"cuda-toolkit", "setuptools", "triton"}  # with nvidia-…, what torch for CUDA requires
    assert lacking(locked, required("cpu", "cuda", "train")) == []


def test_the_lock_file_has_what_its_packages_require() -> None:
    locked = pinned("requirements.lock", ".*")
    installed = {canonical(found.metadata["Name"]): found.requires or () for found in metadata.distributions()}
    for name in locked.keys() & installed.keys():
        needed = [r for r in map(Requirement, installed[name]) if r.marker is None or r.marker.evaluate({"extra": ""})]
        assert lacking(locked, needed) == [], name


def test_the_container_starts_from_an_image_that_a_build_argument_names() -> None:
    recipe = (ROOT / "slurm" / "landcover.def").read_text()
    arguments = recipe.partition("%arguments")[2].partition("\n\n")[0]
    defaults = dict(re.findall(r"^ +(\w+)=(\S+)$", arguments, re.MULTILINE))
    assert re.search(r"^From: \{\{ BASE \}\}$", recipe, re.MULTILINE)
    assert set(re.findall(r"\{\{ (\w+) \}\}", recipe)) == defaults.keys() == {"BASE"}
    files = recipe.partition("%files")[2].partition("%post")[0].split()
    assert [name for name in files if not name.startswith("/") and not (ROOT / name).exists()] == []
    assert "--require-hashes -r /opt/landcover/requirements.lock" in recipe


def test_every_module_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(pipeline/[\w/]+\.py)`", text)
    short = set(re.findall(r"`(\w+\.py)`", text))
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert short - {Path(path).name for path in named} == set()
    assert re.findall(r"^\*\*([A-K])\. ", text, re.MULTILINE) == list("ABCDEFGHIJK")
    assert f"at present {'.'.join(pipeline.__version__.split('.')[:2])}," in text


def test_every_shipped_recipe_loads_under_its_own_name() -> None:
    names = [path.stem for path in (config_folder() / "models").glob("*.yaml")]
    assert names
    for name in names:
        assert load_recipe(name).name == name


def test_the_example_campaign_loads_and_its_sizes_fit() -> None:
    campaign = load_campaign(ROOT / "configs" / "campaign-example.yaml")
    layout = campaign.grid.layout(campaign.recipe().stride)
    assert campaign.domain("D034_2021").boundary is None
    assert layout.overlap_factor == pytest.approx(1.298, abs=1e-3)
    assert campaign.catalog == ROOT / "configs" / "catalog"


def shell_lines(page: str) -> list[str]:
    """The `landcover` commands of a page, in blocks and in running text, each on one line."""
    joined = page.replace("\\\n", " ")
    found = re.findall(r"`(landcover [^`]+)`|^ *(landcover .+?)(?:  +#.*)?$", joined, re.MULTILINE)
    return ["".join(pair) for pair in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    known = {name: {"--help"}.union(*(o.split("/") for o in options)) for name, options in command_options().items()}
    for line in shell_lines(page.read_text(encoding="utf-8")):
        name, *words = line.split()[1:]
        if name.islower() and not name.startswith("-"):
            assert name in known, line
            own, step = words, list[str]()
            if "--" in words:  # words of the step that is submitted
                own, step = words[: words.index("--")], words[words.index("--") + 1 :]
                assert {w for w in step if w.startswith("--")} - known[words[words.index("--step") + 1]] == set(), line
            assert {w for w in own if w.startswith("--")} - known[name] == set(), line


def test_the_readme_is_short_and_names_the_steps_of_a_campaign() -> None:
    assert len(README.encode()) <= 7_000
    assert {"index", "plan", "run", "verify", "publish"} <= set(re.findall(r"\blandcover ([a-z]+)", README))


COMMANDS = sorted(getattr(typer.main.get_command(app), "commands", ()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0, shown.exception
    assert f"landcover {name}" in shown.output
    assert "Example" in shown.output


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_that_a_page_links_exists(page: Path) -> None:
    # Notebooks become pages of the gallery when the site is built; `make docs` checks links to those, and anchors.
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = {link for link in links if not (page.parent / link).exists()}
    assert {link for link in missing if not re.search(r"(^|gallery/)0\d-[\w-]+\.md$", link)} == set()


def test_every_module_that_the_map_of_the_code_names_exists() -> None:
    named = re.findall(r"`([a-z_/]+(?:/|\.py))`", (ROOT / "pipeline" / "DESIGN.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [path for path in named if path != "pipeline/" and not (ROOT / "pipeline" / path).exists()] == []
    tree = re.findall(
        r"`((?:pipeline|tests|configs|slurm|docs)/[\w/.]*)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    )
    assert tree
    assert [path for path in tree if not (ROOT / path).exists()] == []


def test_version_citation_and_changelog_agree() -> None:
    newest = re.search(
        r"^## (\d+\.\d+\.\d+) — (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest is not None
    assert newest.groups() == (citation["version"], citation["date-released"].isoformat())
    assert citation["version"] == pipeline.__version__


def test_every_environment_variable_of_ours_is_documented() -> None:
    documented = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "slurm").iterdir(), *(ROOT / "notebooks").glob("*.ipynb")]
    pattern = r"LANDCOVER_[A-Z_]*[A-Z](?![A-Z_])"
    used = {name for path in sources for name in re.findall(pattern, path.read_text(encoding="utf-8"))}
    assert "LANDCOVER_CACHE" in used
    used |= {limit.variable for limit in vars(limits).values() if isinstance(limit, limits.Limit)}
    assert {name for name in used if f"`{name}`" not in documented} == set()


def run_job(folder: Path, script: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A job script with a `landcover` that only says how it was called."""
    fake = folder / "landcover"
    fake.write_text('#!/bin/bash\nprintf "[%s]" "$@"\necho " offline=$HF_HUB_OFFLINE threads=$OMP_NUM_THREADS"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}
    return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)


def test_the_training_job_starts_a_process_a_gpu_on_every_node(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nshift\nexec "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    nodes = {"SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    job = run_job(tmp_path, TRAIN, TRAINING="my run.yaml", OUT="trained", **nodes)
    assert job.returncode == 0, job.stderr
    assert "[train][my run.yaml][--out][trained][--quiet][--nodes][4][--devices][2] offline=1" in job.stdout
    assert "OUT: " in run_job(tmp_path, TRAIN, TRAINING="run.yaml").stderr


def test_the_shipped_training_run_is_the_cards_recipe() -> None:
    run = load_training_config(ROOT / "configs" / "training" / "flair-inc_rgbie_12cl.yaml")
    assert load_recipe(run.recipe).live == tuple(range(1, 13))
    assert (run.optimizer.name, run.optimizer.learning_rate, run.optimizer.momentum) == ("sgd", 0.02, 0)
    rule = run.plateau
    assert (rule.factor, rule.patience, rule.cooldown, rule.min_lr) == (0.5, 10, 4, 1e-7)
    assert (run.early_stopping, run.epochs, run.batch, run.seed) == (30, 200, 10, 2022)
    assert (run.nodes * run.devices, run.data.split.share, run.start.weights) == (16, 0.8, "imagenet")
    assert run.class_weights == {15: 0, 16: 0, 17: 0, 19: 0}


@pytest.mark.parametrize("script", [*sorted((ROOT / "slurm").glob("*.sbatch")), ROOT / ".ci" / "run"])
def test_shell_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; bash -n found nothing")
    subprocess.run([shellcheck, str(script)], check=True)
