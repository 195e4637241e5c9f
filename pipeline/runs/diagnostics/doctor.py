"""Whether this machine can do a campaign: one line a check, with what to do where it cannot."""

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from pipeline.config import Campaign
from pipeline.errors import LandcoverError
from pipeline.inference import resolve_engine
from pipeline.inference.torch_engine import cuda_devices
from pipeline.model import load
from pipeline.runs.diagnostics.filesystem import quota, try_out
from pipeline.runs.tracking.run_record import software
from pipeline.sources.gdal_drivers import LISTED, NEEDED, gdal_drivers, gdal_version

DOCTOR_FILE = "doctor.json"
State = Literal["ok", "warn", "fail"]
_TIMEOUT_S = 30
_FEW_BYTES = 20e9
_FEW_INODES = 2_000
_SKEW_S = 5.0
_GPU_FACTS = "name,memory.total,driver_version,compute_mode,mig.mode.current"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True)
class Findings:
    """All checks of one machine: a run's provenance."""

    host: str
    at: str
    job: str | None
    """SLURM's number, in a job."""
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What has to be mended before a run."""
        return tuple(c for c in self.checks if c.state == "fail")

    def as_json(self) -> dict[str, Any]:
        """Plain values, with versions of the software and the modules that are loaded."""
        modules = os.environ.get("LOADEDMODULES", "")
        return {**asdict(self), "software": software(), "modules": modules.split(":") if modules else []}


def examine(campaign: Campaign | None = None) -> Findings:
    """Looks at packages, GDAL, GPUs, SLURM and TLS, and for a campaign at its engine, weights and disks.

    Weights on a hub are fetched into its cache where there is a network and no HF_HUB_OFFLINE.
    """
    checks = [_python(), _packages(), _gdal(), _gpus(campaign), _tls(), _slurm()]
    if campaign is not None:
        checks += [_weights(campaign), _engine(campaign), *_disks(campaign)]
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Findings(platform.node(), at, os.environ.get("SLURM_JOB_ID"), tuple(checks))


def _python() -> Check:
    modules = os.environ.get("LOADEDMODULES", "")
    return Check("python", "ok", f"{platform.python_version()}, modules {modules.replace(':', ' ') or 'none'}")


def _packages() -> Check:
    """All that the package depends on, by the versions that it asks for."""
    wrong = []
    wanted = [Requirement(r) for r in importlib.metadata.requires("landcover-pipeline") or ()]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, wanted {requirement.specifier}")
    if wrong:
        return Check("packages", "fail", "; ".join(wrong), "pip install -c constraints.txt landcover-pipeline")
    return Check("packages", "ok", f"{len(needed)} as required")


def _gdal() -> Check:
    has = gdal_drivers()
    found = f"{gdal_version()} with {', '.join(d for d in LISTED if d in has)}"
    if missing := [d for d in NEEDED if d not in has]:
        remedy = (
            "install rasterio's wheel (pip install --only-binary rasterio rasterio), not one built on the site's GDAL"
        )
        return Check("GDAL", "fail", f"{found}; lacks {', '.join(missing)}", remedy)
    return Check("GDAL", "ok", found)


def _gpus(campaign: Campaign | None) -> Check:
    """What the driver says, what torch sees, and whether this job was given GPUs that it cannot use."""
    devices, told = cuda_devices(), _nvidia_smi()
    found = "; ".join(told) or ", ".join(devices) or "none"
    given = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_STEP_GPUS")
    on_torch = campaign is None or (campaign.engine != "openvino" and campaign.precision != "int8")
    if (given or told) and not devices and on_torch:
        remedy = "install a torch built for the driver's CUDA, or load the site's PyTorch module"
        return Check("GPUs", "fail", f"{found}; torch sees no CUDA device", remedy)
    if given and not on_torch:
        return Check("GPUs", "warn", f"{found}; the campaign's engine leaves them idle", "choose a CPU cluster")
    if any("exclusive" in line.lower() for line in told):
        remedy = "nothing with a worker a GPU; a second process on one fails"
        return Check("GPUs", "warn", f"{found}; compute mode is exclusive", remedy)
    return Check("GPUs", "ok", found)


def _nvidia_smi() -> tuple[str, ...]:
    """A line a GPU: name, memory, driver, compute mode, MIG, or why it fails; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603  (the driver's own tool)
    except (OSError, subprocess.SubprocessError) as error:
        return (f"nvidia-smi fails: {error}",)
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _tls() -> Check:
    if find_spec("cryptography") is None:
        return Check("TLS", "fail", "no package cryptography", "pip install cryptography; workers of a job speak TLS")
    return Check("TLS", "ok", "keys can be made")


def _slurm() -> Check:
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        return Check("SLURM", "ok", "not here; `landcover submit` wants a login node")
    try:
        done = subprocess.run([sbatch, "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603  (SLURM's own command)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("SLURM", "warn", f"sbatch does not answer: {error}", "ask the site; is SLURM_CONF right?")
    job = os.environ.get("SLURM_JOB_ID")
    return Check("SLURM", "ok", done.stdout.strip() + (f", job {job}" if job else ""))


def _weights(campaign: Campaign) -> Check:
    try:
        model = load(campaign.weights, campaign.recipe())
    except LandcoverError as error:
        return Check("weights", "fail", str(error), "on a login node: run `landcover doctor` there first")
    return Check("weights", "ok", f"{campaign.weights}, SHA-256 {model.weights_hash[:12]}…")


def _engine(campaign: Campaign) -> Check:
    try:
        model = load(campaign.weights, campaign.recipe())
        engine = resolve_engine(
            campaign.engine, precision=campaign.precision, quantized=campaign.model.quantized, model=model
        )
    except LandcoverError as error:
        return Check("engine", "fail", str(error), "change engine or precision in the campaign")
    return Check("engine", "ok", f"{engine.name} {engine.precision}")


def _disks(campaign: Campaign) -> Iterator[Check]:
    for name, folder in (("products", campaign.output.domains), ("national", campaign.output.national)):
        try:
            yield _disk(name, folder)
        except OSError as error:
            remedy = f"change output.{'domains' if name == 'products' else name} or the folder's rights"
            yield Check(name, "fail", f"{folder}: cannot be written: {error.strerror or error}", remedy)


def _disk(name: str, folder: Path) -> Check:
    told = try_out(folder)
    inodes = "inodes not counted" if told.free_inodes is None else f"{told.free_inodes} inodes"
    found = f"{folder}: {told.free_bytes / 1e9:.0f} GB and {inodes} free, clock {told.skew_s:+.1f} s"
    if limits := quota(folder):
        found += f"; quota: {' '.join(limits.split())}"
    if told.problems:
        return Check(name, "fail", f"{found}; {'; '.join(told.problems)}", "choose another file system")
    if told.free_bytes < _FEW_BYTES or (told.free_inodes is not None and told.free_inodes < _FEW_INODES):
        return Check(name, "warn", found, "make room: `landcover plan` tells the bytes and files that a run writes")
    if abs(told.skew_s) > _SKEW_S:
        return Check(name, "warn", found, "clocks differ: tell the site; ages of files are wrong by as much")
    return Check(name, "ok", found)
