"""The SLURM lab of the tests: it allocates GPUs, restarts jobs and has the rules of Jean Zay."""

from pathlib import Path

import pytest

from tests.support.slurm.lab import Lab

pytestmark = pytest.mark.slurm


def test_jobs_on_one_node_get_different_gpus(lab: Lab, tmp_path: Path) -> None:
    # Each waits until both have begun.
    both = f"[ $(ls {tmp_path}/begun-* | wc -l) = 2 ]"
    line = f"echo $CUDA_VISIBLE_DEVICES; touch {tmp_path}/begun-$SLURM_JOB_ID; until {both}; do sleep 0.1; done"
    jobs = [lab.sbatch("--nodelist=n1", "--gres=gpu:2", f"--output={tmp_path}/%j", wrap=line) for _ in range(2)]
    for job in jobs:
        assert [j.state for j in lab.ended(job)] == ["COMPLETED"]
    given = [set((tmp_path / str(job)).read_text().strip().split(",")) for job in jobs]
    assert [len(g) for g in given] == [2, 2]
    assert not given[0] & given[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--partition=gpu_p5"], "account '' is none"),
        (["--account=abc@gold"], "account 'abc@gold' is none"),
        (["--account=abc@a100", "--constraint=h100"], "abc@a100 has no hours on constraint h100"),
        (["--account=abc@v100", "--partition=gpu_p6"], "abc@v100 has no hours on partition gpu_p6"),
        (["--account=abc@v100", "--qos=qos_gpu-t3", "--time=20:01:00"], "allows 1200 minutes, not 1201"),
        (["--account=abc@v100", "--qos=long"], "QoS long is none"),
    ],
)
def test_the_lab_refuses_what_jean_zay_refuses(lab: Lab, options: list[str], message: str) -> None:
    refused = lab.ask("sbatch", "--wrap=true", *options)
    assert refused.returncode != 0
    assert message in refused.stderr


def test_a_preempted_job_starts_again(lab: Lab) -> None:
    everything = ("--nodes=3", "--exclusive", "--output=/dev/null")
    job = lab.sbatch(*everything, wrap="sleep 86400")
    lab.until(job, lambda j: j.state == "RUNNING")
    (urgent,) = lab.ended(lab.sbatch("--partition=urgent", *everything, wrap="true"))
    assert urgent.state == "COMPLETED"
    lab.until(job, lambda j: j.state == "RUNNING" and j.restarts == 1)


@pytest.mark.slurm_slow
def test_a_job_starts_again_when_its_node_is_lost(lab: Lab) -> None:
    job = lab.sbatch("--nodelist=n2", "--output=/dev/null", wrap="sleep 86400")
    lab.until(job, lambda j: j.state == "RUNNING")
    assert len(lab.pids("n2")) > 1
    lab.crash("n2")
    lab.until(job, lambda j: j.state == "PENDING" and j.restarts == 1)
    lab.boot("n2")
    lab.until(job, lambda j: j.state == "RUNNING")
