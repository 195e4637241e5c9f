"""Checks whether this machine can run a campaign. Each check says what it found and how to fix it."""

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from pipeline.cluster.slurm.queue import run_slurm
from pipeline.config import Campaign
from pipeline.errors import LandcoverError, MachineError
from pipeline.inference import resolve_engine
from pipeline.inference.engine import cuda_devices
from pipeline.model import load_model
from pipeline.runs.diagnostics.filesystem import command_output, probe_folder, quota, why_no_hard_links
from pipeline.runs.planning.automatic_choices import choices_file, is_automatic, refuse_unable, with_choices
from pipeline.runs.planning.provenance import software
from pipeline.sources.gdal_drivers import LISTED, NEEDED, gdal_drivers, gdal_version, openjpeg_version

DOCTOR_FILE = "doctor.json"
State = Literal["ok", "warn", "fail"]
_TIMEOUT_S = 30
_FEW_BYTES = 20e9
_FEW_INODES = 2_000
_SKEW_S = 5.0
_GPU_FACTS = "name,memory.total,driver_version,compute_mode,mig.mode.current"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """How to fix it; empty where nothing is wrong."""


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one machine."""

    host: str
    at: str
    """When, UTC."""
    job: str | None
    """Number of the SLURM job around this process."""
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that must be fixed before a run."""
        return tuple(c for c in self.checks if c.state == "fail")

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the versions of the software and the loaded modules."""
        modules = os.environ.get("LOADEDMODULES", "")
        return {**asdict(self), "software": software(), "modules": modules.split(":") if modules else []}


def diagnose(campaign: Campaign | None = None) -> Diagnosis:
    """Checks packages, GDAL, GPUs, TLS and SLURM; with a campaign also its weights, engine and disks.

    Weights on a hub are downloaded into its cache where there is a network and HF_HUB_OFFLINE is not set.

    Args:
        campaign: the campaign to run here.

    Example:
        >>> [check.name for check in diagnose().failed]  # doctest: +SKIP
        []
    """
    checks = [_python(), _packages(), _gdal(), _gpus(campaign), _tls(), _slurm()]
    if campaign is not None:
        checks += [*_network(campaign), *_disks(campaign)]
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Diagnosis(platform.node(), at, os.environ.get("SLURM_JOB_ID"), tuple(checks))


def _python() -> Check:
    modules = os.environ.get("LOADEDMODULES", "")
    return Check("python", "ok", f"{platform.python_version()}, modules {modules.replace(':', ' ') or 'none'}")


def _packages() -> Check:
    """The packages that this package requires, in the required versions."""
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
            wrong.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if wrong:
        return Check("packages", "fail", "; ".join(wrong), "pip install -c constraints.txt landcover-pipeline")
    return Check("packages", "ok", f"all {len(needed)} in the required versions")


def _gdal() -> Check:
    has = gdal_drivers()
    decoder = f" (OpenJPEG {openjpeg_version() or 'of unknown version'})"
    listed = [d + decoder * (d == "JP2OpenJPEG") for d in LISTED if d in has]
    found = f"{gdal_version()} with {', '.join(listed)}"
    if missing := [d for d in NEEDED if d not in has]:
        remedy = "install rasterio's own wheel, which contains GDAL: pip install --only-binary rasterio rasterio"
        return Check("GDAL", "fail", f"{found}; missing drivers: {', '.join(missing)}", remedy)
    return Check("GDAL", "ok", found)


def _gpus(campaign: Campaign | None) -> Check:
    """The GPUs of the driver, of torch, and of the job around this process."""
    devices, listed = cuda_devices(), _nvidia_smi()
    found = "; ".join(listed) or ", ".join(devices) or "none"
    given = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_STEP_GPUS")
    on_torch = campaign is None or (campaign.engine != "openvino" and campaign.precision != "int8")
    if (given or listed) and not devices and on_torch:
        remedy = "install a torch built for the driver's CUDA version, or load the site's PyTorch module"
        return Check("GPUs", "fail", f"{found}; torch finds no CUDA device", remedy)
    if given and not on_torch:
        return Check("GPUs", "warn", f"{found}; the campaign's engine does not use them", "use a cluster without GPUs")
    if any("exclusive" in line.lower() for line in listed):
        remedy = "no change is needed for one worker per GPU; a second process on the same GPU would fail"
        return Check("GPUs", "warn", f"{found}; compute mode is exclusive", remedy)
    return Check("GPUs", "ok", found)


def _nvidia_smi() -> tuple[str, ...]:
    """A line per GPU: name, memory, driver, compute mode, MIG; or why nvidia-smi fails. Empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    printed = command_output(["nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"])
    return tuple(line.strip() for line in printed.splitlines() if line.strip())


def _tls() -> Check:
    if find_spec("cryptography") is None:
        return Check("TLS", "fail", "package cryptography is missing", "pip install cryptography: workers use TLS")
    return Check("TLS", "ok", "keys can be created")


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check("SLURM", "ok", "SLURM is not installed here; `landcover submit` needs a login node of a cluster")
    try:
        version = run_slurm("sbatch", "--version", error=MachineError, timeout_s=_TIMEOUT_S).strip()
    except MachineError as error:
        return Check("SLURM", "warn", str(error), "check SLURM_CONF, or ask the support of the cluster")
    job = os.environ.get("SLURM_JOB_ID")
    return Check("SLURM", "ok", version + (f", job {job}" if job else ""))


def _network(campaign: Campaign) -> Iterator[Check]:
    """The weights, and the engine that would run them."""
    try:
        networks = zip(campaign.networks, campaign.recipes(), strict=True)
        loaded = [(network, load_model(network.weights, recipe, sha256=network.sha256)) for network, recipe in networks]
    except LandcoverError as error:
        yield Check("weights", "fail", str(error), "without internet, run `landcover doctor` on a login node first")
        return
    for network, model in loaded:
        pinned = network.sha256 or model.source == network.weights
        yield Check(
            "weights",
            "ok" if pinned else "warn",
            f"{network.weights}, SHA-256 {model.weights_hash}",
            "" if pinned else f"other weights may come tomorrow: write model.weights: {model.source}",
        )
    if is_automatic(campaign) and not choices_file(campaign).exists():
        yield Check("engine", "ok", "`auto`: the first `landcover plan` or `run` chooses")
        return
    try:
        settled = with_choices(campaign)
        engine = resolve_engine(
            settled.engine, precision=settled.stated_precision, quantized=settled.model.quantized, model=loaded[0][1]
        )
        if settled is not campaign:
            refuse_unable(engine, host=platform.node(), needed_bytes=0, memory_bytes=None)
    except LandcoverError as error:
        yield Check("engine", "fail", str(error), "change engine or precision in the campaign")
        return
    yield Check("engine", "ok", f"{engine.name} {engine.precision}")


def _disks(campaign: Campaign) -> Iterator[Check]:
    for name, folder in (("products", campaign.output.domains), ("national", campaign.output.national)):
        try:
            yield _disk(name, folder)
            if name == "national":
                yield from _hard_links(folder)
        except OSError as error:
            remedy = f"change output.{'domains' if name == 'products' else name} or the folder's permissions"
            yield Check(name, "fail", f"{folder}: cannot be written: {error.strerror or error}", remedy)


def _disk(name: str, folder: Path) -> Check:
    storage = probe_folder(folder)
    inodes = "an unknown number of inodes" if storage.free_inodes is None else f"{storage.free_inodes} inodes"
    found = f"{folder}: {storage.free_bytes / 1e9:.0f} GB and {inodes} free, clock {storage.skew_s:+.1f} s"
    if limits := quota(folder):
        found += f"; quota: {' '.join(limits.split())}"
    if storage.problems:
        return Check(name, "fail", f"{found}; {'; '.join(storage.problems)}", "use a folder on another file system")
    few_inodes = storage.free_inodes is not None and storage.free_inodes < _FEW_INODES
    if storage.free_bytes < _FEW_BYTES or few_inodes:
        return Check(name, "warn", found, "free space there; `landcover plan` shows what a run writes")
    if abs(storage.skew_s) > _SKEW_S:
        return Check(name, "warn", found, "the clocks differ, so ages of files are wrong; report it to the site")
    return Check(name, "ok", found)


def _hard_links(national: Path) -> Iterator[Check]:
    """A warning where a publish must copy unchanged shards."""
    shards = (national / "current" / "product.zarr" / "landcover" / "c").glob("*/*")
    if refused := why_no_hard_links(national, next((p for p in shards if p.is_file()), None)):
        remedy = "use a folder with hard links and files of one user, or drop old editions: `landcover editions --drop`"
        yield Check("links", "warn", f"hard links are refused: {refused}; a publish copies unchanged shards", remedy)
