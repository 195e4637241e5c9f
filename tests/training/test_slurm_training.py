"""`slurm/train.sbatch` on two nodes: warned and requeued, it ends where one process with the doubled batch does."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.cluster.slurm.script import scripts_folder
from pipeline.training.fit import fit
from tests.support.paths import ROOT
from tests.support.slurm.lab import Lab
from tests.support.training_runs import a_run, curve, write_run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slurm_slow]

EPOCHS = 12


def landcover_on_path(folder: Path) -> str:
    """A PATH on which this checkout's `landcover` stands first."""
    folder.mkdir()
    command = folder / "landcover"
    command.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from pipeline.cli import main; main()' \"$@\"\n"
    )
    command.chmod(0o755)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


def test_two_nodes_warned_and_requeued_learn_as_one_process_with_the_doubled_batch(lab: Lab, tmp_path: Path) -> None:
    # Batch normalisation that looks at its own process's batch would differ; frozen it does not.
    how = {
        "freeze_batchnorm": True,
        "epochs": EPOCHS,
        "optimizer": {"name": "sgd", "learning_rate": 0.02},
        "plateau": {"factor": 0.5, "patience": 0, "cooldown": 0, "min_lr": 0.0},
    }
    fit(a_run(tmp_path, batch=4, **how), tmp_path / "one", progress_bar=False)
    config, out, log = write_run(tmp_path, batch=2, **how), tmp_path / "two", tmp_path / "job.log"
    variables = {
        "PATH": landcover_on_path(tmp_path / "bin"),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",  # the lab's nodes are this machine, and no name server knows them
        "TRAINING": str(config),
        "OUT": str(out),
    }
    export = ",".join(["ALL", *(f"{k}={v}" for k, v in variables.items())])
    options = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=30", f"--output={log}")
    job = lab.sbatch(*options, f"--export={export}", str(scripts_folder() / "train.sbatch"))
    learned = out / "checkpoints" / "last.ckpt"
    wait_until(learned.exists, lambda: log.read_text() if log.exists() else lab.jobs(job))
    # What SLURM sends before the time limit, to the same process: its own clock looks every 30 s only.
    lab.tell("scancel", "--batch", "--signal=USR1", str(job))
    (ended,) = lab.ended(job)
    told = log.read_text()
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), told
    assert "requeued" in told
    assert len(list(out.glob("logs/start-*"))) == 2, "it began again where it was, and not from the start"
    for name in ("train_loss", "val_loss"):
        assert len(curve(out, name)) == EPOCHS
        assert curve(out, name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-4)
    assert curve(out, "learning_rate") == curve(tmp_path / "one", "learning_rate")
    assert (out / "t_weights.pth").is_file()
