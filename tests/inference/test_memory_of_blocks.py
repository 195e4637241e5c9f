"""Memory that mapping a block gives back to the system, in a process with the settings of a worker."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster.worker_resources import dask_config
from tests.support.campaigns import campaign_with_cluster
from tests.support.paths import ROOT

_PROGRAM = """
from pathlib import Path
import numpy as np
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_block

def water(pixels, valid):
    return np.broadcast_to(np.array([5, 255], np.uint8)[None, :, None, None], (1, 2, 64, 64))

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024

all_of_it = Window(0, 0, 64, 64)
source = ArraySource.all_valid(np.ones((5, 64, 64), np.uint8), all_of_it)
kept = [np.ones(2**20, np.uint8) for _ in range(200)]
del kept[::2]
gaps = resident()
map_block(source, all_of_it, layout=Layout(core=64, halo=0, window=64, stride=32), predictor=water)
print(gaps - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_a_block_gives_free_memory_between_used_memory_back(tmp_path: Path) -> None:
    campaign = campaign_with_cluster(tmp_path)
    environment = os.environ | dask_config(campaign)["distributed.nanny.pre-spawn-environ"]
    program = [sys.executable, "-c", _PROGRAM]
    given_back = subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(given_back.stdout) > 60
