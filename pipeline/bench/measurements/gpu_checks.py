"""What `gpu` does beside timings: the tests that need a device, and a campaign from start to end."""

import re
import subprocess
import sys
import tempfile
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
from pipeline.inference import Engine, on_gpu
from pipeline.inference.engine import LANES
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.plan import make_plan

_LEAST_S = 60.0
"""Shortest time limit of the tests."""
_MARK = "pytest.mark.gpu"


@dataclass(frozen=True)
class Checked:
    """The result of a check."""

    figures: Mapping[str, float]
    """Names without `gpu.`."""
    raw: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def run_gpu_tests(scratch: Path, *, seconds: float | None) -> Checked:
    """Runs the tests marked `gpu` of this checkout; without a device pytest collects them, and they are skipped.

    Args:
        scratch: an existing folder.
        seconds: time limit, but at least a minute; none by default.

    Raises:
        EngineError: pytest did not end in time, or could not collect the tests.
    """
    root = Path(pipeline.__file__).parents[1]
    files = sorted(str(p) for p in root.glob("tests/**/test_*.py") if _MARK in p.read_text(encoding="utf-8"))
    if not files or find_spec("pytest") is None:
        return Checked({}, {}, ("the tests marked gpu did not run: this is no checkout, or pytest is not installed",))
    with tempfile.TemporaryDirectory(prefix="tests-", dir=scratch) as folder:
        options = ("-m", "gpu", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tests")
        limit = None if seconds is None else max(_LEAST_S, seconds)
        try:
            command = [sys.executable, "-m", "pytest", *options, *files]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=limit)  # noqa: S603  (our own tests)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"the tests marked gpu did not end within {limit:.0f} s") from error
    output = (done.stdout + done.stderr)[-4000:]
    # The last line: `3 passed, 2 failed, 1 error, 40 deselected in 12.30s`.
    last = done.stdout.strip().rpartition("\n")[2]
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    if not counts:
        raise EngineError(f"pytest could not run the tests marked gpu: {output[-400:]}")
    failed = counts.get("failed", 0) + counts.get("error", 0)
    passed, skipped = counts.get("passed", 0), counts.get("skipped", 0)
    return Checked({"tests_passed": passed, "tests_failed": failed, "tests_skipped": skipped}, {"output": output})


def map_imagery(imagery: Imagery, precision: Precision) -> Checked:
    """Plans and maps the bench's imagery on the torch engine, from the start of the cluster to the last sealed tile.

    The cluster is `cuda` if there is a device and dask-cuda is installed, else one local worker with as many threads.
    """
    kind: ClusterKind = "cuda" if on_gpu(Engine("torch")) and find_spec("dask_cuda") else "local"
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
        tiles, mpx, usage = imagery.measured(map_campaign, campaign.model_copy(update=changed))
    figures = {"campaign_tiles": float(tiles), "campaign_mpx_per_s": mpx / usage.wall_s}
    note = f"the campaign ran on a {kind} cluster, whose start is in its time"
    return Checked(figures, {"mpx": mpx, "cluster": kind, **usage_json(usage)}, (note,))


def map_campaign(campaign: Campaign) -> tuple[int, float, Usage]:
    """Plans and runs a campaign: tiles and Mpx that were sealed, and what it used; call it in a new process."""
    ended, usage = measure(lambda: run_plan(make_plan(campaign)))
    return len(ended), sum(e.pixels for e in ended) / 1e6, usage
