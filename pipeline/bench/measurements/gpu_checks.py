"""What `gpu` does beside timings: the tests that need a device, and a campaign from start to end."""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pipeline
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, measure, usage_json
from pipeline.config import Campaign, ClusterKind, Precision
from pipeline.errors import EngineError
from pipeline.inference.engine import LANES
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.plan import make_plan

_MARK = "pytest.mark.gpu"
_MOST_OUTPUT = 20_000
"""Characters of pytest's output that the report keeps, from its end."""


@dataclass(frozen=True)
class Checked:
    """The result of a check."""

    figures: Mapping[str, float]
    """Names without `gpu.`."""
    raw: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def run_gpu_tests(scratch: Path, *, seconds: float | None) -> Checked:
    """Runs the tests marked `gpu` of this checkout; without a device pytest collects them, and they are skipped.

    Of pytest's plugins only those that the configuration needs are loaded, and warnings are no errors: that machine has
    packages and versions that these tests never saw.

    Args:
        scratch: an existing folder.
        seconds: time limit, after which the tests that have ended count; none by default.

    Raises:
        EngineError: pytest could not collect the tests.
    """
    root = Path(pipeline.__file__).parents[1]
    files = sorted(str(p) for p in root.glob("tests/**/test_*.py") if _MARK in p.read_text(encoding="utf-8"))
    if not files or find_spec("pytest") is None:
        return Checked({}, {}, ("the tests marked gpu did not run: this is no checkout, or pytest is not installed",))
    notes = []
    with tempfile.TemporaryDirectory(prefix="tests-", dir=scratch) as folder:
        plugins = ("-p", "pytest_timeout", "-p", "xdist.plugin", "-p", "no:cacheprovider")
        options = ("-m", "gpu", "-v", "-W", "default", f"--basetemp={folder}/tests")
        command = [sys.executable, "-m", "pytest", *plugins, *options, *files]
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
        with Path(folder, "output").open("w+", encoding="utf-8") as file:
            try:
                subprocess.run(  # noqa: S603  (our own tests)
                    command, cwd=root, env=environment, stdout=file, stderr=file, check=False, timeout=seconds
                )
            except subprocess.TimeoutExpired:
                notes.append(f"the tests marked gpu did not end within {seconds:.0f} s; those that ended count")
            file.seek(0)
            output = file.read()
    # A line for each test: `tests/cluster/test_gpus.py::test_name PASSED [ 10%]`.
    counts = Counter(re.findall(r"^\S+::.* (PASSED|FAILED|SKIPPED|ERROR)\b", output, re.MULTILINE))
    if not counts and not notes:
        raise EngineError(f"pytest could not run the tests marked gpu: {output[-400:]}")
    failed = counts["FAILED"] + counts["ERROR"]
    figures = {"tests_passed": counts["PASSED"], "tests_failed": failed, "tests_skipped": counts["SKIPPED"]}
    return Checked(figures, {"output": output[-_MOST_OUTPUT:]}, tuple(notes))


def map_imagery(imagery: Imagery, precision: Precision, *, kind: ClusterKind, seconds: float | None) -> Checked:
    """Plans and maps the bench's imagery on the torch engine, from the start of the cluster to the last sealed tile.

    Args:
        imagery: what is mapped.
        precision: of the engine.
        kind: `cuda`, or `local` with one worker.
        seconds: time limit; none by default.
    """
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=imagery.folder) as scratch:
        campaign = imagery.campaign.on_cluster(kind)
        changed = {
            "engine": "torch",
            "precision": precision,
            # A tile has several blocks, so that the next one is decoded during a forward.
            "grid": campaign.grid.model_copy(update={"block": campaign.grid.core}),
            "cluster": campaign.cluster.model_copy(update={"threads": LANES}),
            "output": campaign.output.model_copy(update={"domains": Path(scratch, "products")}),
        }
        changed_campaign = campaign.model_copy(update=changed)
        tiles, mpx, usage = imagery.measured_within(seconds, map_campaign, changed_campaign)
    figures = {"tiles": float(tiles), "mpx_per_s": mpx / usage.wall_s}
    note = f"the campaign ran on a {kind} cluster, whose start is in its time"
    return Checked(figures, {"mpx": mpx, "cluster": kind, **usage_json(usage)}, (note,))


def map_campaign(campaign: Campaign) -> tuple[int, float, Usage]:
    """Plans and runs a campaign: tiles and Mpx that were sealed, and what it used; call it in a new process."""
    ended, usage = measure(lambda: run_plan(make_plan(campaign)))
    return len(ended), sum(e.pixels for e in ended) / 1e6, usage
