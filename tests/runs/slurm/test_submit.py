"""Submitting to SLURM: jobs give the products of a local run, and refusals have SLURM's words."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from distributed import Client
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cluster.slurm import queue
from pipeline.cluster.slurm.site import load_site
from pipeline.config import config_folder
from pipeline.errors import ClusterError, ConfigError
from pipeline.products.manifest import changed_if_sealed
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.slurm import requeue
from pipeline.runs.slurm.step import JobStep, prepare_step
from pipeline.runs.slurm.submit import JobOptions, prepare
from tests.support.campaigns import Made, cog_bytes, strays
from tests.support.slurm.campaigns import FIRST, SECOND, make_two_domains, write_site
from tests.support.slurm.lab import Lab
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

CLUSTERS = sorted(path.stem for path in (config_folder() / "clusters").glob("*.yaml"))
COMMAND = (sys.executable, "-c", "from pipeline.cli import main; main()")
LOCK = """
import sys, time
from pathlib import Path
from pipeline.lock import Owner, lock_folder, lock_owner

folder = Path(sys.argv[1])
former = lock_owner(folder)
with lock_folder(folder, what="it"):
    me = lock_owner(folder)
    (folder / f"start-{me.restarts}").write_text(f"{former.machine if former else ''}\\n{me.machine}")
    time.sleep(0 if former else 86_400)
"""


# Each changes what a command of SLURM does, and breaks a job or hides it.
MISLEADING = {
    "SBATCH_EXPORT": "NONE",
    "SBATCH_PARTITION": "none",
    "SBATCH_MEM_PER_NODE": "1",
    "SRUN_EXPORT_ENV": "NONE",
    "SQUEUE_PARTITION": "none",
    "SQUEUE_USERS": "nobody",
    "SLURM_CLUSTERS": "none",
    "SCANCEL_STATE": "RUNNING",
    # As inside `salloc --mem`, whose job is another one.
    "SLURM_MEM_PER_NODE": "700",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_NTASKS": "9",
    "SLURM_CPUS_PER_TASK": "9",
    "SLURM_EXACT": "1",
    "SRUN_CPUS_PER_TASK": "9",
    "SALLOC_PARTITION": "none",
}


def submit(lab: Lab, made: Made, *arguments: str) -> list[int]:
    """`landcover submit` in a misleading environment; returns the jobs' numbers."""
    variables = [f"{name}={value}" for name, value in MISLEADING.items()]
    done = lab.ask("env", *variables, *COMMAND, "submit", str(made.config), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(line.split()[1].rstrip(":")) for line in done.stdout.splitlines() if line.startswith("job ")]


def logs(made: Made) -> str:
    return "\n".join(f"== {p}\n{p.read_text()}" for p in sorted(made.folder.glob("jobs/*/*.log")))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """The two domains, mapped and published on this machine; tests must not change it."""
    made = make_two_domains(tmp_path_factory.mktemp("local") / "campaign")
    run(make_plan(made.campaign), client=dask_client)
    publish(made.campaign, client=dask_client)
    return made


@pytest.fixture
def fresh(local: Made, tmp_path: Path) -> Made:
    """The same campaign, nothing mapped."""
    shutil.copytree(local.folder, tmp_path / "campaign", ignore=shutil.ignore_patterns("products", "national"))
    return Made(tmp_path / "campaign", local.delivery)


@pytest.mark.slow
def test_jobs_map_and_publish_as_a_local_run_in_any_environment(lab: Lab, fresh: Made, local: Made) -> None:
    # One after the other: together they would take over two gigabytes beside the other tests.
    site = write_site(fresh.folder, partition="one")
    mapping, publishing = submit(lab, fresh, "--cluster", str(site))
    assert f"afterany:{mapping}" in lab.jobs(publishing)[0].text, logs(fresh)
    for job in (mapping, publishing):
        assert {j.state for j in lab.ended(job)} == {"COMPLETED"}, logs(fresh)
    assert len(lab.jobs(mapping)) == 2
    assert cog_bytes(fresh.products) == cog_bytes(local.products)
    assert not strays(fresh.products)


def test_a_refusal_of_the_site_reaches_the_user_in_its_words(lab: Lab, fresh: Made) -> None:
    site = write_site(fresh.folder, account_suffix="@v100", partition=None, constraint="a100")
    refused = lab.ask(*COMMAND, "submit", str(fresh.config), "--cluster", str(site), "--account", "abc")
    assert refused.returncode == 2
    assert "SLURM refuses `sbatch --test-only" in refused.stderr
    assert "account abc@v100 has no hours on constraint a100" in refused.stderr
    assert lab.tell("squeue", "--noheader") == ""


def test_slurm_and_shellcheck_accept_the_scripts_of_every_cluster(
    lab: Lab, fresh: Made, tmp_path: Path, shellcheck: Callable[[Path], None]
) -> None:
    for name in CLUSTERS:
        options = JobOptions(project="abc" if load_site(name).account_suffix else None)
        prepared = prepare(fresh.campaign, fresh.config, cluster=name, options=options)
        for script, content in prepared.scripts:
            (tmp_path / script).write_text(content)
            lab.tell("sbatch", "--test-only", str(tmp_path / script))
            shellcheck(tmp_path / script)


def test_a_job_that_can_never_start_is_refused_with_the_sites_figures(lab: Lab, fresh: Made) -> None:
    site = write_site(fresh.folder, cores_per_node=999)
    refused = lab.ask(*COMMAND, "submit", str(fresh.config), "--cluster", str(site))
    assert refused.returncode == 2
    assert "a job asks for 1 × 999 cores, and partition main has" in refused.stderr
    assert lab.tell("squeue", "--noheader") == ""


@pytest.mark.parametrize("step", ["publish", "generalise", "vectorize", "verify", "report", "change", "evaluate"])
def test_slurm_and_shellcheck_accept_the_script_of_every_step(
    lab: Lab, fresh: Made, tmp_path: Path, shellcheck: Callable[[Path], None], step: JobStep
) -> None:
    prepared = prepare_step(fresh.campaign, fresh.config, step, cluster=str(write_site(fresh.folder)))
    ((name, content),) = prepared.scripts
    (tmp_path / name).write_text(content)
    lab.tell("sbatch", "--test-only", str(tmp_path / name))
    shellcheck(tmp_path / name)


@pytest.mark.slow
def test_a_report_is_written_by_a_job_of_its_own(lab: Lab, fresh: Made, local: Made) -> None:
    shutil.copytree(local.products, fresh.products)
    (job,) = submit(lab, fresh, "--cluster", str(write_site(fresh.folder)), "--step", "report")
    assert {j.state for j in lab.ended(job)} == {"COMPLETED"}, logs(fresh)
    assert (fresh.products / FIRST / "report" / "report.html").is_file()


@pytest.mark.slurm_slow
def test_polygons_are_written_by_a_job_of_its_own(lab: Lab, fresh: Made, local: Made) -> None:
    shutil.copytree(local.folder / "national", fresh.folder / "national", symlinks=True)
    (job,) = submit(lab, fresh, "--cluster", str(write_site(fresh.folder)), "--step", "vectorize")
    assert {j.state for j in lab.ended(job)} == {"COMPLETED"}, logs(fresh)
    vectors = fresh.campaign.output.national / "current" / "vectors"
    assert changed_if_sealed(vectors, read_all=True) == {}
    record, parquet = json.loads((vectors / "vectors.json").read_text()), vectors / "landcover.parquet"
    assert pq.ParquetFile(parquet).metadata.num_rows == record["polygons"] > 0


def test_an_evaluation_runs_as_a_job_with_the_words_after_the_dashes(
    fresh: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["a map.tif", "--reference", "it's.gpkg", "--out", "$HOME"]
    monkeypatch.chdir(tmp_path)
    Path("a map.tif").touch()
    Path("it's.gpkg").touch()
    site = str(write_site(fresh.folder))
    start = ["submit", str(fresh.config), "--cluster", site, "--dry-run", "--step", "evaluate"]
    shown = CliRunner().invoke(app, [*start, "--hours", "0.5", "--", *words])
    assert shown.exit_code == 0, shown.output
    assert "#SBATCH --time=30" in shown.output
    # What the job would run, with a `landcover` that lists its words.
    script = shown.output.partition("set -uo pipefail")[2].partition("dry run:")[0]
    exports = [line for line in shown.output.splitlines() if re.match("export (STEP|ARGUMENTS|FOLDER)=", line)]
    listing = 'landcover() { printf \'%s\\n\' "$PWD" "$@"; }\n'
    run = "\n".join([*exports, listing, script.replace("exec landcover", "landcover")])
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == [str(tmp_path), "evaluate", *words]
    assert CliRunner().invoke(app, [*start, "--", "--refrence", "x"]).exit_code == 2
    with pytest.raises(ConfigError, match="evaluate needs what follows"):
        CliRunner().invoke(app, start, catch_exceptions=False)


def test_status_says_why_a_job_waits(lab: Lab, fresh: Made) -> None:
    lab.sbatch("--hold", f"--comment={queue.job_comment(fresh.products, [FIRST])}", wrap="true")
    shown = lab.tell(*COMMAND, "status", str(fresh.config))
    assert "is PENDING: JobHeldUser (you hold it; `scontrol release` frees it)" in shown


def test_a_machine_without_slurm_says_so(fresh: Made, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [*COMMAND, "submit", str(fresh.config), "--cluster", "generic"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert refused.returncode == 2
    assert "SLURM is not installed here" in refused.stderr


def test_a_domain_that_has_a_job_is_skipped(lab: Lab, fresh: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    comment = queue.job_comment(fresh.products, ["D976_2021", FIRST])
    job = lab.sbatch("--hold", "--array=0-1", f"--comment={comment}", wrap="true")
    lab.sbatch("--hold", f"--comment={queue.job_comment(fresh.folder, [SECOND])}", wrap="true")  # of another campaign
    for variable in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(variable, lab.environment[variable])
    queued = queue.queued_jobs(fresh.products)
    assert [(q.job, q.domain, q.state) for q in queued] == [
        (f"{job}_0", "D976_2021", "PENDING"),
        (f"{job}_1", FIRST, "PENDING"),
    ]
    prepared = prepare(fresh.campaign, fresh.config, cluster="generic", queued=queued)
    assert prepared.domains == (SECOND,)
    assert len(prepared.skipped) == 1
    assert f"job {job}_1 maps it" in prepared.skipped[0]


def test_options_that_the_cluster_does_not_allow_are_refused(fresh: Made) -> None:
    for options, message in (
        (JobOptions(), "requires --account PROJECT"),
        (JobOptions(project="abc@v100"), "charges accounts that end in @a100"),
        (JobOptions(project="abc", hours=20.5), r"QoS qos_gpu_a100-t3 allows up to 20 h, found --hours 20\.5"),
        (JobOptions(project="abc", qos="qos_gpu_a100-dev", hours=3), "allows up to 2 h"),
        (JobOptions(project="abc", qos="long"), "has no QoS 'long'; it has qos_gpu_a100-t3, qos_gpu_a100-dev"),
        (JobOptions(project="abc", gpus=9), "has 8 GPUs per node, found --gpus 9"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(fresh.campaign, fresh.config, cluster="jean-zay-a100", options=options)


def test_sealed_domains_are_skipped(local: Made) -> None:
    prepared = prepare(local.campaign, local.config, cluster="generic")
    assert prepared.domains == ()
    assert prepared.skipped == tuple(f"{name} is skipped: all of its tiles are sealed" for name in (FIRST, SECOND))


def test_a_job_stops_after_two_starts_in_a_row_without_a_sealed_tile(fresh: Made, local: Made) -> None:
    items = sorted((local.products / FIRST).glob(f"{FIRST}-*.json"))
    ours = fresh.products / FIRST
    requeue.reset_progress(fresh.campaign, FIRST)
    idle = []
    for sealed in (0, 1, 1, 2, 2, 2):
        for item in items[:sealed]:
            shutil.copy(item, ours)
        idle.append(requeue.record_start(fresh.campaign, FIRST))
    assert [p.idle for p in idle] == [1, 0, 1, 0, 1, 2]
    assert [p.stuck for p in idle] == [False] * 5 + [True]
    requeue.reset_progress(fresh.campaign, FIRST)
    assert not requeue.record_start(fresh.campaign, FIRST).stuck


def test_a_run_that_lost_its_cluster_requeues_its_job(lab: Lab, fresh: Made) -> None:
    """SIGTERM to a whole job ends workers and scheduler first; the driver then ends with this exit code."""
    job = lab.sbatch("--requeue", "--output=/dev/null", wrap="sleep 86400")
    lab.until(job, lambda j: j.state == "RUNNING")
    command = ("requeue", str(fresh.config), "--domain", FIRST, "--exit-code", str(ClusterError.exit_code))
    assert f"job {job} continues" in lab.tell("env", f"SLURM_JOB_ID={job}", *COMMAND, *command)
    lab.until(job, lambda j: j.restarts == 1)


def test_a_requeued_job_takes_over_the_lock_of_its_earlier_start(lab: Lab, tmp_path: Path) -> None:
    """The first start has a process namespace of its own, as on another machine, where its death does not show."""
    script, folder = tmp_path / "lock.py", tmp_path / "locked"
    script.write_text(LOCK)
    line = f"unshare --pid --fork --mount-proc {sys.executable} {script} {folder}"
    job = lab.sbatch("--requeue", "--open-mode=append", f"--output={tmp_path}/log", wrap=line)
    first, second = folder / "start-0", folder / "start-1"

    def seen(path: Path) -> None:
        wait_until(lambda: path.exists() and path.read_text(), (tmp_path / "log").read_text)

    seen(first)
    lab.tell("scontrol", "requeue", str(job))
    seen(second)
    former, machine = second.read_text().split("\n")
    assert former == first.read_text().strip()
    assert former != machine
