"""What `import pipeline` offers: quick to import, typed, and with examples that run as they are printed."""

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import pipeline
from tests.support.paths import ROOT

NAMES = [
    "load_campaign",
    "load_model",
    "make_plan",
    "open_domain",
    "open_product",
    "open_raster",
    "predict",
    "publish",
    "run",
    "search",
]


@pytest.fixture
def beside_the_demo(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder in which `build/demo` is the demo, as after `make demo`."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/demo").symlink_to(demo.parent)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def test_the_public_names_are_listed_and_are_all_there() -> None:
    assert dir(pipeline) == NAMES
    assert pipeline.__all__ == NAMES
    for name in NAMES:
        assert getattr(pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        pipeline.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import sys, pipeline; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "dask", "xarray", "rasterio", "pydantic", "pystac", "matplotlib"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.usefixtures("beside_the_demo")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_function_runs(name: str) -> None:
    found = doctest.DocTestFinder(recurse=False).find(
        getattr(pipeline, name), name, globs={"Path": Path} | {n: getattr(pipeline, n) for n in NAMES}
    )
    assert [example for test in found for example in test.examples], f"pipeline.{name} has no example"
    runner = doctest.DocTestRunner()
    printed: list[str] = []
    for test in found:
        runner.run(test, out=printed.append)
    assert runner.failures == 0, "".join(printed)


@pytest.mark.slow
@pytest.mark.usefixtures("beside_the_demo")
def test_the_ten_lines_of_the_readme_run() -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    values: dict[str, object] = {}
    exec(compile(lines, "README.md", "exec"), values)  # noqa: S102  our own file
    written = pipeline.open_raster("landcover.tif", bands=["landcover"])
    assert written.values[0].tolist() == values["result"].landcover.values.tolist()  # type: ignore[attr-defined]
    assert written.values.any()


@pytest.mark.slow
def test_a_users_script_sees_the_types(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pipeline as lc\n"
        'image = lc.open_domain("catalog", "D034_2021")\n'
        'reveal_type(lc.predict(image, lc.load_model("weights.pth")))\n'
        "lc.open_raster(3)\n"
        "lc.nothing\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert 'Revealed type is "xarray.core.dataset.Dataset"' in done.stdout, done.stdout + done.stderr
    assert re.findall(r"script\.py:(\d+): error", done.stdout) == ["4", "5"]
