"""No value becomes a line or a command of a job script."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.slurm.script import JobRequest, complete_script
from pipeline.cluster.slurm.site import Site, load_site
from pipeline.errors import ConfigError
from tests.support.slurm.campaigns import SITE, write_site

REQUEST = JobRequest(name="landcover-x", account="abc", qos=None, minutes=10, cores=2)


def script(*, request: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **variables: str) -> str:
    made = Site(**(SITE | (site or {})))
    return complete_script("map.sbatch", made, replace(REQUEST, **(request or {})), variables=variables)


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#SBATCH")]


@pytest.mark.parametrize("field", ["account", "comment", "log", "name", "array"])
@pytest.mark.parametrize(
    "value", ["a\n#SBATCH --uid=0", "a\rb", "a\nid > owned\n", 'a" b', "a\\b", "a\u2028b", "a\x1b[31m"]
)
def test_a_request_that_a_line_cannot_hold_is_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match="#SBATCH --"):
        script(request={field: value})


@pytest.mark.parametrize("value", ["a\nid", "a\rid", "a\x00b"])
def test_a_variable_with_a_control_character_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"CAMPAIGN: .* has a control character"):
        script(CAMPAIGN=value)


@pytest.mark.parametrize("value", ["$(touch owned)", "`touch owned`", "'; touch owned; '", '"; touch owned; "', "a b"])
def test_a_variable_arrives_as_it_is_and_runs_nothing(tmp_path: Path, value: str) -> None:
    text = script(CAMPAIGN=value, DOMAINS="D034_2021")
    exports = [line for line in text.splitlines() if line.startswith("export CAMPAIGN")]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*exports, 'printf %s "$CAMPAIGN"'])],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stdout == value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"disks": {"job": "$(id)"}},
        {"disks": {"job": "${A:-$B}"}},
        {"disks": {"job": "$A\nid"}},
        {"disks": {"job": "/scratch"}},
        {"disks": {"job": "$A/$B"}},
        {"disks": {'job"': "$A"}},
        {"modules": ["python\nid"]},
        {"modules": ["python; id"]},
        {"caches": "$WORK}/$"},
        {"caches": "$WORK\nid"},
        {"caches": "${WORK"},
        {"memory": "4G --uid=0"},
        {"memory": "0"},
        {"sbatch": {"uid=0\n": "x"}},
        {"sbatch": {"Bad Key": "x"}},
        {"partition": "main\n#SBATCH --uid=0"},
        {"name": "lab\nid"},
    ],
)
def test_a_cluster_file_with_such_values_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        load_site(str(write_site(tmp_path, **changes)))


def test_disks_and_caches_are_variables_of_the_node() -> None:
    text = script(site={"disks": {"job": "${JOBSCRATCH}", "work": "$WORK"}, "caches": "$WORK/.cache/${USER}"})
    assert ': "${JOBSCRATCH:?the job disk of lab}"' in text
    assert 'export TMPDIR="${JOBSCRATCH}"' in text
    assert 'export HF_HOME="${HF_HOME:-$WORK/.cache/${USER}/huggingface}"' in text


def test_a_cluster_file_sets_memory_and_further_options() -> None:
    given = {"reservation": "maps", "exclusive": True, "nice": 0, "mail-user": "a@b.fr", "wait": False, "wckey": "a b"}
    found = directives(script(site={"memory": "12G", "sbatch": given}))
    assert {"#SBATCH --mem=12G", "#SBATCH --reservation=maps", "#SBATCH --exclusive", "#SBATCH --nice=0"} <= {*found}
    assert '#SBATCH --wckey="a b"' in found
    assert not any("wait" in line for line in found)
    assert "#SBATCH --export=ALL" in found


@pytest.mark.parametrize("option", ["job-name", "array", "export", "output", "mem", "requeue", "no-requeue"])
def test_an_option_of_landcover_is_not_set_again(option: str) -> None:
    with pytest.raises(ConfigError, match=f"sbatch must not set {option}"):
        script(site={"sbatch": {option: "x"}})


@pytest.mark.parametrize("value", ["a\n#SBATCH --uid=0", 'a"b'])
def test_a_further_option_that_a_line_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="#SBATCH --reservation"):
        script(site={"sbatch": {"reservation": value}})
