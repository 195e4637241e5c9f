"""The job scripts without SLURM: the commands that they run, and how they forward warnings."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cluster.slurm.script import scripts_folder
from tests.support.waiting import LONGEST_S

# Says how it was called; a `run` waits for its warning and ends with 5, as the driver does.
FAKE = """#!/bin/bash
printf '[%s]' "$@"; echo " offline=$HF_HUB_OFFLINE threads=$OMP_NUM_THREADS"
if [ "$1" = run ] && [ "$WAITS" ]; then trap 'sleep 0.3; exit 5' USR1; echo waiting; while :; do sleep 0.05; done; fi
"""


def start(folder: Path, name: str, **variables: str) -> subprocess.Popen[str]:
    fake = folder / "landcover"
    fake.write_text(FAKE)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "WAITS": "", **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", scripts_folder() / name], env=environment, stdout=pipe, stderr=pipe, text=True)


def test_an_element_of_an_array_maps_its_domain_offline(tmp_path: Path) -> None:
    domains = "D034_2021 D030_2021"
    job = start(tmp_path, "map.sbatch", CAMPAIGN="my campaign.yaml", DOMAINS=domains, SLURM_ARRAY_TASK_ID="1")
    said, problems = job.communicate(timeout=LONGEST_S)
    assert job.returncode == 0, problems
    assert "[doctor][my campaign.yaml][--domain][D030_2021]" in said
    assert "[run][my campaign.yaml][--domain][D030_2021] offline=1 threads=1" in said
    assert "[requeue][my campaign.yaml][--domain][D030_2021][--exit-code][0]" in said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_reaches_the_driver_and_its_exit_code_is_used(tmp_path: Path, number: int) -> None:
    job = start(tmp_path, "map.sbatch", CAMPAIGN="c.yaml", DOMAINS="D034_2021", WAITS="1")
    assert job.stdout is not None
    while job.stdout.readline() != "waiting\n":
        assert job.poll() is None
    for _ in range(2):
        job.send_signal(number)
        time.sleep(0.05)
    said, _ = job.communicate(timeout=LONGEST_S)
    assert "[requeue][c.yaml][--domain][D034_2021][--exit-code][5]" in said


def test_publishing_ends_with_a_list_and_the_command_for_missing_tiles(tmp_path: Path) -> None:
    job = start(tmp_path, "publish.sbatch", CAMPAIGN="c.yaml", AGAIN="landcover submit c.yaml --only-missing")
    said, _ = job.communicate(timeout=LONGEST_S)
    assert job.returncode == 0
    assert said.index("[publish][c.yaml]") < said.index("[status][c.yaml]") < said.index("--only-missing")


@pytest.mark.parametrize(
    ("script", "missing"), [("map.sbatch", "CAMPAIGN"), ("map.sbatch", "DOMAINS"), ("publish.sbatch", "CAMPAIGN")]
)
def test_a_job_names_a_missing_variable(tmp_path: Path, script: str, missing: str) -> None:
    given = {"CAMPAIGN": "campaign.yaml", "DOMAINS": "D034_2021"}
    del given[missing]
    job = start(tmp_path, script, **given)
    said, problems = job.communicate(timeout=LONGEST_S)
    assert job.returncode != 0
    assert f"{missing}: " in problems
    assert "[" not in said


def test_shellcheck_accepts_every_script(shellcheck: Callable[[Path], None]) -> None:
    scripts = sorted(scripts_folder().glob("*.sbatch"))
    assert [s.name for s in scripts] == ["map.sbatch", "publish.sbatch", "step.sbatch", "train.sbatch"]
    for script in scripts:
        shellcheck(script)


@pytest.mark.parametrize("script", ["map.sbatch", "publish.sbatch"])
def test_a_script_is_short_and_has_a_place_for_the_site(script: str) -> None:
    lines = (scripts_folder() / script).read_text().splitlines()
    assert len(lines) <= 40
    assert lines.count("#SITE") == 1
