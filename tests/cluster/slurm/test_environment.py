"""SLURM's commands do what they are called for, whatever the environment says; and silence proves nothing."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.cluster.slurm import queue
from pipeline.cluster.slurm.child_process import child_process
from pipeline.cluster.slurm.cluster import _check_srun
from pipeline.cluster.slurm.queue import is_job_running, run_slurm, slurm_environment
from pipeline.cluster.worker_resources import memory_per_worker, slurm_memory
from pipeline.errors import ClusterError, ConfigError, LockError, MachineError
from pipeline.lock import Owner, lock_folder

INPUTS = {
    "SBATCH_EXPORT": "NONE",
    "SBATCH_PARTITION": "other",
    "SRUN_EXPORT_ENV": "NONE",
    "SALLOC_ACCOUNT": "other",
    "SQUEUE_PARTITION": "other",
    "SQUEUE_FORMAT": "%i",
    "SCANCEL_STATE": "PENDING",
    "SCONTROL_ALL": "1",
    "SLURM_CLUSTERS": "other",
    "SLURM_MEM_PER_NODE": "700",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_CPUS_PER_TASK": "7",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_NTASKS": "3",
    "SLURM_EXCLUSIVE": "1",
    "SLURM_PARTITION": "other",
}


def fake(folder: Path, name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a command of this name first on the PATH."""
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f"#!/bin/bash\n{line}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("inside_job", [True, False])
def test_no_input_variable_reaches_a_command(monkeypatch: pytest.MonkeyPatch, *, inside_job: bool) -> None:
    for name, value in INPUTS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    found = slurm_environment(inside_job=inside_job)
    assert not INPUTS.keys() & found.keys()
    assert found["SLURM_CONF"] == "/etc/slurm.conf"
    assert found["PATH"] == os.environ["PATH"]
    assert ("SLURM_JOB_ID" in found) is inside_job


def test_every_command_runs_in_the_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in INPUTS.items():
        monkeypatch.setenv(name, value)
    fake(tmp_path / "bin", "squeue", "env", monkeypatch)
    printed = run_slurm("squeue", error=ClusterError)
    assert [name for name in INPUTS if f"{name}=" in printed] == []


def test_a_job_is_submitted_with_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", "sbatch", f'printf "%s\\n" "$@" > {tmp_path}/seen; echo "12;lab"', monkeypatch)
    assert queue.submit(tmp_path / "map.sbatch", ["--dependency=afterany:3"]) == "12"
    assert "--export=ALL" in (tmp_path / "seen").read_text().splitlines()
    fake(tmp_path / "bin", "sbatch", "echo Submitted batch job 12", monkeypatch)
    with pytest.raises(ConfigError, match="printed no job number"):
        queue.submit(tmp_path / "map.sbatch")


@pytest.mark.parametrize(
    ("answer", "running"),
    [
        ("", None),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", None),
        ("exit 1", None),
        ("echo '99|99|RUNNING|None'", None),
        ("echo '4711|4711|RUNNING|None'", True),
        ("echo '4711|4711|COMPLETED|None'", False),
        ("echo '4711|4711|PENDING|Priority'", False),
    ],
)
def test_only_what_slurm_says_of_a_job_frees_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, running: bool | None
) -> None:
    fake(tmp_path / "bin", "squeue", answer, monkeypatch)
    assert is_job_running("4711") is running
    owner = replace(Owner.this_process(), machine="another", host="r1i2n3", job="4711")
    folder = tmp_path / "product"
    (folder / ".lock").mkdir(parents=True)
    (folder / ".lock" / f"{owner.token}.json").write_text(json.dumps(asdict(owner)))
    if running is False:
        with lock_folder(folder, what="it", job_runs=is_job_running) as owned:
            owned.check()
    else:
        with pytest.raises(LockError, match="SLURM job 4711"), lock_folder(folder, what="it", job_runs=is_job_running):
            pytest.fail("two owners")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive.",
            MachineError,
        ),
        ("srun: error: Unable to create step for job 7: Memory required by task is not available", MachineError),
        ("srun: error: Invalid numeric value", MachineError),
        ("srun: error: Unable to create step for job 7: Unable to contact slurm controller", ClusterError),
        ("srun: error: Unable to create step for job 7: Invalid job id specified", ClusterError),
        ("0: a worker prints srun: fatal: x", ClusterError),
    ],
)
def test_a_refusal_by_srun_is_not_requeued(tmp_path: Path, text: str, kind: type[Exception]) -> None:
    log = tmp_path / "workers.log"
    with child_process([sys.executable, "-c", f"print({text!r}); exit(1)"], log, environment=os.environ) as srun:
        srun.process.wait()
        with pytest.raises(kind) as caught:
            _check_srun(srun)
    assert text in str(caught.value)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "700"}, 700 << 20),
        ({"SLURM_MEM_PER_NODE": "2G"}, 2 << 30),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "all"}, None),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "4"}, 400 << 20),
        ({"SLURM_MEM_PER_CPU": "100"}, None),
    ],
)
def test_the_memory_of_a_job_is_read_in_slurms_units(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: int | None
) -> None:
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_memory() == expected
    if expected:
        assert memory_per_worker(2) == expected // 2
        assert memory_per_worker(2, job=expected // 2) == expected // 4
