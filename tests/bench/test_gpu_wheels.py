"""The wheels for a machine with a GPU: few enough, complete, and as pip needs them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.bench.development.gpu_wheels import THERE, pinned, requirements_of, store_members, wheels_for
from tests.support.paths import ROOT

LEFT_OUT = (
    *("bokeh", "dask_cuda", "geopandas", "lightning", "matplotlib", "nncf", "openvino", "pandas", "pyarrow", "py7zr"),
    *("pyogrio", "rioxarray", "rustac", "scipy", "xarray", "zarr"),
)
IMPORTS = f"""
import sys
sys.modules.update(dict.fromkeys({LEFT_OUT!r}))
import pipeline.cli.demo_bench_doctor, pipeline.bench.suite, pipeline.bench.measurements.gpu
import tests.conftest, tests.cluster.test_gpus, tests.inference.test_torch_engine
"""


@pytest.mark.slow
def test_the_bench_of_a_gpu_and_its_tests_import_nothing_that_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheels_are_all_that_is_needed_and_not_there() -> None:
    there = requirements_of(THERE, python="3.12")
    names = wheels_for("3.12")
    assert {"torch", "numpy", "jinja2"} <= there
    assert {"rasterio", "click", "timm", "tornado", "pluggy"} <= names, "what they need is among them"
    assert names & there == {"typing-extensions"}, "which may be too old there"
    assert names & {name.replace("_", "-") for name in LEFT_OUT} == {"dask-cuda"}, "which few machines can import"
    assert names <= pinned(ROOT / "constraints.txt").keys()


def test_markers_are_those_of_the_other_python() -> None:
    assert "importlib-metadata" in requirements_of(["dask"], python="3.11")
    assert "importlib-metadata" not in requirements_of(["dask"], python="3.12")


def test_members_of_a_wheel_are_stored_without_change(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/__init__.py", "x = 1\n" * 1000)
    (tmp_path / "stored").mkdir()
    with zipfile.ZipFile(store_members(wheel, tmp_path / "stored")) as stored:
        (member,) = stored.infolist()
        assert member.compress_type == zipfile.ZIP_STORED
        assert stored.read("a/__init__.py") == b"x = 1\n" * 1000
