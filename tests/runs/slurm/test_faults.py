"""Faults of jobs: the products have the same bytes as without a fault, and no tile is mapped twice."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Client

from pipeline.products.tile.seal import list_sealed
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quality.verify import verify
from tests.support.campaigns import TILE, Made, cog_bytes, make_campaign, strays
from tests.support.slurm import slow_seals
from tests.support.slurm.campaigns import FIRST, write_site
from tests.support.slurm.lab import Lab
from tests.support.waiting import LONGEST_S, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slurm_slow]

COMMAND = (sys.executable, "-c", "from pipeline.cli import main; main()")
TILES = 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """A column of tiles, mapped on this machine; tests must not change it."""
    made = make_campaign(tmp_path_factory.mktemp("undisturbed") / "campaign", at=[(row, 0) for row in range(TILES)])
    made.change(cluster={"tiles_in_flight": 1, "threads": 1, "gdal_cache_mb": 64, "decoded_cache_mb": 64})
    run(make_plan(made.campaign), client=dask_client)
    return made


@pytest.fixture
def fresh(undisturbed: Made, tmp_path: Path) -> Made:
    """The same campaign, nothing mapped."""
    shutil.copytree(undisturbed.folder, tmp_path / "campaign", ignore=shutil.ignore_patterns("products", "national"))
    return Made(tmp_path / "campaign", undisturbed.delivery)


def submit(lab: Lab, made: Made, *options: str, slow: str, **site: object) -> int:
    """`landcover submit` of a job whose seals are so slow (see `slow_seals`); its number."""
    preload = f"DASK_DISTRIBUTED__WORKER__PRELOAD=['{slow_seals.__file__}']"
    arguments = ("--cluster", str(write_site(made.folder, **site)), "--no-publish", *options)
    said = lab.tell("env", slow, preload, *COMMAND, "submit", str(made.config), *arguments)
    (job,) = re.findall(r"^job (\d+):", said, re.MULTILINE)
    return int(job)


def logs(made: Made) -> str:
    return "\n".join(f"== {p}\n{p.read_text()}" for p in sorted(made.folder.glob("jobs/*/*.log")))


def sealed(made: Made) -> dict[str, int]:
    """Tile → when its item was written, in nanoseconds."""
    folder = made.products / FIRST
    return {s.tile.name: s.item_path.stat().st_mtime_ns for s in list_sealed(folder, FIRST, TILE)}


def assert_whole(lab: Lab, made: Made, undisturbed: Made, *, longest_s: float = LONGEST_S) -> None:
    """Waits for the last job, and compares with the campaign that nobody disturbed."""
    wait_until(lambda: lab.tell("squeue", "--noheader").strip() == "", lambda: logs(made), longest_s=longest_s)
    assert len(sealed(made)) == TILES, logs(made)
    assert cog_bytes(made.products) == cog_bytes(undisturbed.products), logs(made)
    assert strays(made.products) == []
    assert verify(made.campaign).clean


def power_cut(lab: Lab, job: int) -> None:
    """Of the node with driver, scheduler and workers."""
    (element,) = lab.jobs(job)
    found = re.search(r"BatchHost=(\S+)", element.text)
    assert found, element.text
    lab.crash(found[1])
    try:
        asked = ("sinfo", "--noheader", f"--nodes={found[1]}", "--format=%T", "--partition=main")
        wait_until(lambda: "down" in lab.tell(*asked), lambda: lab.tell("sinfo", "-N", "-l"))
        lab.until(job, lambda j: j.restarts == 1)
    finally:
        lab.boot(found[1])


def preempted(lab: Lab, job: int) -> None:
    """A job of a partition that comes first wants all nodes."""
    lab.sbatch("--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null", wrap="sleep 1")
    lab.until(job, lambda j: j.restarts == 1)


def requeued(lab: Lab, job: int) -> None:
    """As an operator does."""
    lab.tell("scontrol", "requeue", str(job))


def terminated(lab: Lab, job: int) -> None:
    """SIGTERM to everything in the job: workers and scheduler go before the driver can let them finish."""
    lab.tell("scancel", "--full", "--signal=TERM", str(job))


@pytest.mark.parametrize("fault", [power_cut, preempted, requeued, terminated], ids=lambda fault: fault.__name__)
def test_a_disturbed_job_starts_again_and_ends_with_the_same_bytes(
    lab: Lab, fresh: Made, undisturbed: Made, fault: Callable[[Lab, int], None]
) -> None:
    job = submit(lab, fresh, slow="SEAL_S=5")
    wait_until(lambda: len(sealed(fresh)) >= slow_seals.QUICK, lambda: logs(fresh))
    before = sealed(fresh)
    fault(lab, job)
    assert_whole(lab, fresh, undisturbed)
    assert {tile: sealed(fresh)[tile] for tile in before} == before, "a tile was mapped twice"
    assert len(before) < TILES
    assert [j.restarts for j in lab.jobs(job)] == [1], logs(fresh)


@pytest.mark.timeout(6 * LONGEST_S)
@pytest.mark.parametrize("allowed", [True, False], ids=["requeue", "resubmit"])
def test_a_job_whose_time_is_up_continues_until_all_is_mapped(
    lab: Lab, fresh: Made, undisturbed: Made, allowed: bool
) -> None:
    """By SLURM's own clock: three minutes a start, warned 60 s before, or up to 15 s earlier.

    Each start seals a tile at once and another after its warning, so five want three starts. On a machine where
    imports take long, a start has longer to come to its first tile, and to put itself back.
    """
    began = time.monotonic()
    lab.tell(*COMMAND, "doctor", str(fresh.config))
    more = int((time.monotonic() - began) / 10)
    site = {"requeue": allowed, "lead_minutes": 1 + more / 2}
    slow = f"BEFORE_END_S={50 + 30 * more}"
    first = submit(lab, fresh, "--hours", str((3 + more) / 60), slow=slow, **site)
    assert_whole(lab, fresh, undisturbed, longest_s=5 * LONGEST_S)
    (job,) = lab.jobs(first)
    starts = logs(fresh).count(", attempt ")
    assert starts >= 3, logs(fresh)
    assert job.restarts == (starts - 1 if allowed else 0)
    assert len(list(fresh.folder.glob("jobs/*/*.log"))) == (1 if allowed else starts)
