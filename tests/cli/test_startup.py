"""What needs no computing is answered without the libraries that take seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign

HEAVY = ("torch", "distributed", "xarray", "matplotlib", "rasterio", "pandas")

RUN = f"""
import sys
from pipeline.cli import main
try:
    main()
finally:
    print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""

CAMPAIGN = """
name: test
catalog: catalog
model: {weights: weights.pth}
domains: [{name: D034_2021}]
"""


def answer(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, error and the heavy modules that were imported."""
    done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, done.stdout.partition("imported: ")[2].strip()


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], []], ids=["help", "help of a command", "nothing"])
def test_help_imports_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    _, _, imported = answer(tmp_path, *words)
    assert imported == "[]"


@pytest.mark.parametrize("command", ["plan", "run", "status", "verify", "report", "publish", "editions", "doctor"])
def test_a_missing_campaign_is_named_at_once(tmp_path: Path, command: str) -> None:
    assert answer(tmp_path, command, "absent.yaml") == (2, "error: no such file: absent.yaml\n", "[]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "campaign.yaml", "--forced"], "No such option: --forced"),
        (["plan", "wrong.yaml"], "did you mean recipe?"),
        (["run", "campaign.yaml", "--domain", "D030_2024"], "D030_2024"),
        (["run", "campaign.yaml", "--tile", "nowhere"], "nowhere"),
        (["index", "delivery", "--domain", "34", "--catalog", "catalog"], "'34' is not"),
        (["fetch", "345", "--list"], "'345' is not a département"),
        (["predict", "absent.tif", "--weights", "w.pth", "--out", "maps"], "'absent.tif' does not exist"),
        (["evaluate", "--out", "evaluation"], "exactly one of --weights, --campaign, --reference and --sample"),
        (["search", "national", "--min-share", "vineyard"], "expected CLASS=SHARE"),
    ],
    ids=["option", "key", "domain", "tile", "domain name", "département", "raster", "nothing to score by", "share"],
)
def test_wrong_input_is_refused_at_once(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    (tmp_path / "wrong.yaml").write_text(CAMPAIGN.replace("model: {", "model: {recipes: x, "))
    code, error, imported = answer(tmp_path, *words)
    assert (code, imported) == (2, "[]")
    assert said in error


def test_the_status_of_a_campaign_is_read_without_torch_or_dask(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    code, _, imported = answer(made.folder, "status", "campaign.yaml")
    assert code == 0
    assert imported == "['rasterio']"


def test_a_plan_with_nothing_to_do_is_made_without_torch_or_dask(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    code, _, imported = answer(made.folder, "plan", "campaign.yaml", "--failed")  # no tile has failed
    assert code == 0
    assert imported == "['rasterio']"


def test_a_run_with_nothing_to_do_is_ended_without_torch_or_dask(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    code, _, imported = answer(made.folder, "run", "campaign.yaml", "--failed")
    assert code == 0
    assert imported == "['rasterio']"


def test_weights_that_were_loaded_before_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    assert make_plan(made.campaign).todo == 1
    code, _, imported = answer(made.folder, "plan", "campaign.yaml")
    assert code == 0
    assert imported == "['rasterio']"


def test_the_version_names_the_libraries_that_maps_depend_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = [line.split()[0] for line in done.stdout.splitlines()]
    assert lines == ["landcover-pipeline", "GDAL", "torch", "OpenVINO", "imported:"]
    assert "'torch'" not in done.stdout
