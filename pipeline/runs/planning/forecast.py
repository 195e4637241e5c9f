"""Predicts a run on a machine: hours, wall time, bytes, files and memory. Nothing is started or read.

With C pixels computed (with halos), R pixels read (blocks with halos) and P pixels of the map:

    on GPUs    wall = start + max(C / infer / GPUs, (R / read + P / seal) / cores)
    on cores   wall = start + (C / infer + R / read + P / seal) / cores

Reading and sealing run beside a GPU; without one they share the cores with the network. Not included are the last
tiles, which leave workers idle, and a file system that is slower than its readers.
"""

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.cluster.slurm.allocation import job_node_count
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.inference.engine import Engine, cuda_devices
from pipeline.runs.planning.plan import RunPlan
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign
from pipeline.runs.planning.throughput import CPU, UNITS, Rates, find_rates, processor, read_rates
from pipeline.runs.planning.totals import Totals, domain_totals

_START_S = 30.0
"""Before the first block, workers import and load the network, and an engine compiles its graph."""


@dataclass(frozen=True)
class Machine:
    """The nodes of a run, all alike."""

    name: str
    """`this machine`, or the name of a cluster."""
    nodes: int
    cores: int
    """Per node, for its workers."""
    gpus: int = 0
    """Per node."""
    gpu: str = ""
    """The GPU's name or a part of it: `a100`."""
    processor: str | None = None
    """Name of the processor. None where it is not known: rates measured on any processor then count."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus} × {self.gpu}" if self.gpus else ""
        return f"{self.name} ({self.cores} cores{gpus}{' each' if self.nodes > 1 else ''})"


def this_machine(resolved: ResolvedCampaign) -> Machine:
    """This machine, with the GPUs that the campaign's engine would use."""
    devices = cuda_devices() if resolved.engine.name == "torch" else ()
    cores = len(os.sched_getaffinity(0))
    return Machine("this machine", 1, cores, len(devices), devices[0] if devices else "", processor())


def described_machine(
    resolved: ResolvedCampaign,
    *,
    nodes: int = 1,
    cores: int | None = None,
    gpus: int | None = None,
    gpu: str | None = None,
) -> Machine:
    """The machine that a user describes. Missing values are those of this machine.

    Args:
        resolved: the campaign to map there.
        nodes: number of nodes.
        cores: per node.
        gpus: per node.
        gpu: the GPU's model, `a100`.

    Raises:
        ConfigError: GPUs without a model, or a model without GPUs.
    """
    own = this_machine(resolved)
    if (nodes, cores, gpus, gpu) == (1, None, None, None):
        return own
    count = gpus if gpus is not None else max(1, own.gpus) if gpu else own.gpus
    model = gpu or own.gpu
    if count and not model:
        raise ConfigError(f"the model of the {count} GPUs is missing: add --gpu, such as --gpu a100")
    if gpu and not count:
        raise ConfigError(f"--gpu {gpu} and --gpus 0 contradict each other; remove one")
    return Machine(f"{nodes} nodes" if nodes > 1 else "a node", nodes, cores or own.cores, count, model)


def forecast_domains(plan: RunPlan) -> dict[Domain, dict[str, Any]]:
    """The forecast of each domain in plain values, for its run record: on this machine, or on all nodes of this job.

    Empty where no rate of this machine's GPU is known: a run works without a forecast.
    """
    resolved, own = plan.resolved, this_machine(plan.resolved)
    nodes = job_node_count() if resolved.campaign.cluster.kind == "slurm" else 1
    try:
        rates = rates_for(resolved, own)
    except ConfigError:
        return {}
    machine = replace(own, nodes=nodes)
    return {d.name: forecast(resolved, domain_totals(resolved, d), rates, machine).as_json() for d in plan.domains}


@dataclass(frozen=True)
class Forecast:
    """The resources that a run would need."""

    machine: Machine
    rates: Rates
    pixels: int
    """Pixels to map."""
    wall_s: float
    """Seconds from the start of the cluster to the last sealed tile."""
    gpu_s: float
    """Seconds that the GPUs compute, summed over GPUs; 0 without GPUs."""
    core_s: float
    """Seconds that the cores are busy, summed over cores."""
    cores_a_gpu: float | None
    """Cores that read and seal as fast as one GPU computes. None without GPUs."""
    read_bytes: int
    write_bytes: int
    """Bytes of the COGs, at the rate's bytes per pixel."""
    files_in: int
    """Input files, and so inodes."""
    files_out: int
    """Files, and so inodes, to write."""
    worker_memory_bytes: int
    """Peak memory of a worker."""

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that a computing centre charges: all GPUs, from start to end."""
        return self.machine.nodes * self.machine.gpus * self.wall_s / 3600

    @property
    def core_hours(self) -> float:
        """Core-hours that a computing centre charges: all cores, from start to end."""
        return self.machine.nodes * self.machine.cores * self.wall_s / 3600

    @property
    def starved(self) -> bool:
        """Whether the GPUs wait for the cores."""
        return self.cores_a_gpu is not None and self.cores_a_gpu * self.machine.gpus > self.machine.cores

    def as_json(self) -> dict[str, Any]:
        """Plain values, as a run record contains them; rates with their units and sources."""
        own = {k: v for k, v in asdict(self).items() if k not in ("machine", "rates")}
        return {
            **{k: round(v, 3) if isinstance(v, float) else v for k, v in own.items()},
            "gpu_hours": round(self.gpu_hours, 4),
            "core_hours": round(self.core_hours, 4),
            "machine": asdict(self.machine),
            "rates": {name: asdict(getattr(self.rates, name)) | {"unit": unit} for name, unit in UNITS.items()},
        }

    def lines(self) -> tuple[str, ...]:
        """Sentences for the screen."""
        hours = f"{self.core_hours:.1f} core-hours" + (f", {self.gpu_hours:.1f} GPU-hours" if self.gpu_s else "")
        busy = f"cores busy {self.core_s / 3600:.1f} h" + (f", GPUs {self.gpu_s / 3600:.1f} h" if self.gpu_s else "")
        read, written = f"{self.read_bytes / 1e9:.2f} GB", f"{self.write_bytes / 1e9:.2f} GB"
        lines = [
            f"on {self.machine}: about {duration(self.wall_s)}; {hours} ({busy})",
            f"reads {read} of {self.files_in} files, writes about {written} in {self.files_out} files",
        ]
        if self.machine.gpus and not self.gpu_s:
            lines.append("the campaign's engine uses no GPU; set engine: torch, or auto")
        if self.cores_a_gpu is not None:
            has, more = self.machine.cores / self.machine.gpus, ", so it waits" if self.starved else ""
            needed = f"about {self.cores_a_gpu:.0f} cores for reading and sealing"
            lines.append(f"feeding one GPU takes {needed}; each GPU has {has:.0f}{more}")
        for name, unit in UNITS.items():
            rate = getattr(self.rates, name)
            lines.append(f"  {name} {rate.value:.3g} {unit}, {rate.source}")
        return tuple(lines)


def plan_as_json(plan: RunPlan, forecast: Forecast) -> dict[str, Any]:
    """The plan in plain values: the totals of each domain, and each tile to map."""
    resolved = plan.resolved
    return {
        "campaign": resolved.campaign.name,
        "engine": resolved.engine.content | {"threads": resolved.engine_threads},
        "layout": asdict(resolved.layout),
        "worker_memory_bytes": asdict(resolved.memory) | {"total": resolved.memory.total},
        "predicted": forecast.as_json(),
        "domains": [
            {
                "name": domain.name,
                "limits": list(domain.inputs.limits),
                "stale": list(domain.stale),
                **asdict(domain_totals(resolved, domain)),
                "to_map": [
                    {"tile": t.tile.name, "reason": t.reason, "fingerprint": t.fingerprint, "broken": list(t.broken)}
                    for t in domain.todo
                ],
            }
            for domain in plan.domains
        ],
    }


def duration(seconds: float) -> str:
    """`3 min`, `2 h 05 min`, at least a minute."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def rates_for(resolved: ResolvedCampaign, machine: Machine) -> Rates:
    """The rates of a campaign's engine and network on a machine: measured ones, or else stated ones.

    Args:
        resolved: the campaign.
        machine: where it would run.

    Raises:
        ConfigError: no rate of the machine's GPU is known.
    """
    engine = _engine_on(resolved, machine)
    return find_rates(
        engine,
        network=resolved.recipe.name,
        device=machine.gpu if machine.gpus and engine.name == "torch" else CPU,
        on=machine.processor,
        measured=read_rates(),
    )


def _engine_on(resolved: ResolvedCampaign, machine: Machine) -> Engine:
    """The engine on another machine: `auto` was resolved on this one, such as a login node, and is torch on a GPU."""
    auto = resolved.campaign.engine == "auto" and resolved.engine.precision != "int8"
    return Engine("torch", resolved.engine.precision) if machine.gpus and auto else resolved.engine


def forecast(resolved: ResolvedCampaign, totals: Totals, rates: Rates, machine: Machine) -> Forecast:
    """Predicts a run of the planned tiles on a machine. The module's docstring has the formulas.

    Args:
        resolved: the campaign.
        totals: of the tiles to map.
        rates: of this campaign on this machine.
        machine: where it would run.
    """
    computed, read, mapped = (n / 1e6 for n in (totals.computed_pixels, totals.read_pixels, totals.pixels))
    forward_s = computed / rates.infer.value
    beside_s = read / rates.read.value + mapped / rates.seal.value
    cores, gpus = machine.nodes * machine.cores, machine.nodes * machine.gpus if rates.device != CPU else 0
    work_s = max(forward_s / gpus, beside_s / cores) if gpus else (forward_s + beside_s) / cores
    return Forecast(
        machine=machine,
        rates=rates,
        pixels=totals.pixels,
        wall_s=_START_S + work_s if totals.todo else 0.0,
        gpu_s=forward_s if gpus else 0.0,
        core_s=beside_s if gpus else forward_s + beside_s,
        cores_a_gpu=beside_s / forward_s if gpus and totals.todo else None,
        read_bytes=totals.read_bytes,
        write_bytes=round(totals.pixels * rates.written.value),
        files_in=totals.input_files,
        files_out=totals.output_files,
        worker_memory_bytes=resolved.memory.total,
    )
