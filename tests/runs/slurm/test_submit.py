"""A campaign on SLURM: what is submitted ends as a local run does, and what cannot be is refused with SLURM's words."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cluster.slurm import queue
from pipeline.cluster.slurm.site import load_site
from pipeline.config import config_folder
from pipeline.errors import ClusterError, ConfigError
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.slurm import requeue
from pipeline.runs.slurm.submit import Wishes, prepare
from tests.support.campaigns import Made, cog_bytes, quick_clusters, strays
from tests.support.slurm.campaigns import FIRST, SECOND, make_two_domains, write_site
from tests.support.slurm.lab import Lab
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

CLUSTERS = sorted(path.stem for path in (config_folder() / "clusters").glob("*.yaml"))
COMMAND = (sys.executable, "-c", "from pipeline.cli import main; main()")
HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import Owner, holder, holding

folder = Path(sys.argv[1])
former = holder(folder)
with holding(folder, what="it"):
    me = holder(folder)
    (folder / f"start-{me.restarts}").write_text(f"{former.machine if former else ''}\\n{me.machine}")
    time.sleep(0 if former else 86_400)
"""


def submit(lab: Lab, made: Made, *arguments: str) -> list[int]:
    """`landcover submit`; returns the jobs' numbers."""
    done = lab.ask(*COMMAND, "submit", str(made.config), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(line.split()[1].rstrip(":")) for line in done.stdout.splitlines() if line.startswith("job ")]


def logs(made: Made) -> str:
    return "\n".join(f"== {p}\n{p.read_text()}" for p in sorted(made.folder.glob("jobs/*/*.log")))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The two domains, mapped and published on this machine; tests must not change it."""
    made = make_two_domains(tmp_path_factory.mktemp("local") / "campaign")
    with quick_clusters():
        run(make_plan(made.campaign))
        publish(made.campaign)
    return made


@pytest.fixture
def fresh(local: Made, tmp_path: Path) -> Made:
    """The same campaign, nothing mapped."""
    shutil.copytree(local.folder, tmp_path / "campaign", ignore=shutil.ignore_patterns("products", "national"))
    return Made(tmp_path / "campaign", local.delivery)


@pytest.mark.slow
def test_two_domains_are_mapped_and_then_published_as_a_local_run_does(lab: Lab, fresh: Made, local: Made) -> None:
    site = write_site(fresh.folder)
    mapping, publishing = submit(lab, fresh, "--cluster", str(site))
    assert f"afterany:{mapping}" in lab.jobs(publishing)[0].text, logs(fresh)
    for job in (mapping, publishing):
        assert {j.state for j in lab.ended(job)} == {"COMPLETED"}, logs(fresh)
    assert len(lab.jobs(mapping)) == 2
    assert cog_bytes(fresh.products) == cog_bytes(local.products)
    assert not strays(fresh.products)


def test_what_the_site_refuses_reaches_the_user_in_its_words(lab: Lab, fresh: Made) -> None:
    site = write_site(fresh.folder, account_suffix="@v100", partition=None, constraint="a100")
    refused = lab.ask(*COMMAND, "submit", str(fresh.config), "--cluster", str(site), "--account", "abc")
    assert refused.returncode == 2
    assert "account abc@v100 has no hours on constraint a100" in refused.stderr
    assert lab.tell("squeue", "--noheader") == ""


def test_slurm_and_shellcheck_take_the_scripts_of_every_shipped_cluster(
    lab: Lab, fresh: Made, tmp_path: Path, shellcheck: Callable[[Path], None]
) -> None:
    for name in CLUSTERS:
        wishes = Wishes(project="abc" if load_site(name).account_suffix else None)
        prepared = prepare(fresh.campaign, fresh.config, cluster=name, wishes=wishes)
        for script, content in prepared.scripts:
            (tmp_path / script).write_text(content)
            lab.tell("sbatch", "--test-only", str(tmp_path / script))
            shellcheck(tmp_path / script)


def test_a_domain_that_has_a_job_is_left_to_it(lab: Lab, fresh: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    comment = queue.comment(fresh.products, ["D976_2021", FIRST])
    job = lab.sbatch("--hold", "--array=0-1", f"--comment={comment}", wrap="true")
    lab.sbatch("--hold", f"--comment={queue.comment(fresh.folder, [SECOND])}", wrap="true")  # of another campaign
    for variable in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(variable, lab.environment[variable])
    taken = queue.queued(fresh.products)
    assert [(q.job, q.domain, q.state) for q in taken] == [
        (f"{job}_0", "D976_2021", "PENDING"),
        (f"{job}_1", FIRST, "PENDING"),
    ]
    prepared = prepare(fresh.campaign, fresh.config, cluster="generic", taken=taken)
    assert prepared.domains == (SECOND,)
    assert len(prepared.skipped) == 1
    assert f"job {job}_1 has it" in prepared.skipped[0]


def test_a_submission_is_refused_where_the_cluster_cannot(fresh: Made) -> None:
    for wishes, message in (
        (Wishes(), "wants --account PROJECT"),
        (Wishes(project="abc@v100"), "charges accounts in @a100"),
        (Wishes(project="abc", hours=20.5), r"QoS qos_gpu_a100-t3 allows up to 20 h, got --hours 20\.5"),
        (Wishes(project="abc", qos="qos_gpu_a100-dev", hours=3), "allows up to 2 h"),
        (Wishes(project="abc", qos="long"), "has no QoS 'long': it has qos_gpu_a100-t3, qos_gpu_a100-dev"),
        (Wishes(project="abc", gpus=9), "has 8 GPUs a node, got --gpus 9"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(fresh.campaign, fresh.config, cluster="jean-zay-a100", wishes=wishes)


def test_nothing_is_submitted_for_what_is_sealed(local: Made) -> None:
    prepared = prepare(local.campaign, local.config, cluster="generic")
    assert prepared.domains == ()
    assert prepared.skipped == (f"{FIRST}: nothing to do", f"{SECOND}: nothing to do")


def test_a_domain_gives_up_after_two_starts_in_a_row_without_a_sealed_tile(fresh: Made, local: Made) -> None:
    items = sorted((local.products / FIRST).glob(f"{FIRST}-*.json"))
    ours = fresh.products / FIRST
    requeue.begin(fresh.campaign, FIRST)
    idle = []
    for sealed in (0, 1, 1, 2, 2, 2):
        for item in items[:sealed]:
            shutil.copy(item, ours)
        idle.append(requeue.note_end(fresh.campaign, FIRST))
    assert [p.idle for p in idle] == [1, 0, 1, 0, 1, 2]
    assert [p.stuck for p in idle] == [False] * 5 + [True]
    requeue.begin(fresh.campaign, FIRST)
    assert not requeue.note_end(fresh.campaign, FIRST).stuck


def test_a_run_that_lost_its_cluster_puts_its_job_back_into_the_queue(lab: Lab, fresh: Made) -> None:
    """SIGTERM to a whole job ends workers and scheduler first, and the driver with this exit code."""
    job = lab.sbatch("--requeue", "--output=/dev/null", wrap="sleep 86400")
    lab.until(job, lambda j: j.state == "RUNNING")
    asked = ("requeue", str(fresh.config), "--domain", FIRST, "--exit-code", str(ClusterError.exit_code))
    assert f"goes on as job {job}" in lab.tell("env", f"SLURM_JOB_ID={job}", *COMMAND, *asked)
    lab.until(job, lambda j: j.restarts == 1)


def test_a_requeued_job_takes_over_at_once_from_its_earlier_start_on_another_node(lab: Lab, tmp_path: Path) -> None:
    """The first start is in a process namespace of its own, as on another machine: its death shows to nobody."""
    script, folder = tmp_path / "hold.py", tmp_path / "held"
    script.write_text(HOLD)
    hold = f"unshare --pid --fork --mount-proc {sys.executable} {script} {folder}"
    job = lab.sbatch("--requeue", "--open-mode=append", f"--output={tmp_path}/log", wrap=hold)
    first, second = folder / "start-0", folder / "start-1"

    def seen(path: Path) -> None:
        wait_until(lambda: path.exists() and path.read_text(), (tmp_path / "log").read_text)

    seen(first)
    lab.tell("scontrol", "requeue", str(job))
    seen(second)
    former, machine = second.read_text().split("\n")
    assert former == first.read_text().strip()
    assert former != machine
