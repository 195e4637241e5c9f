"""What a run would take on a machine: hours, wall time, bytes, files and memory. Nothing is started or read.

With A pixels computed (halos counted), R read (the blocks' halos counted) and P mapped:

    on GPUs    wall = start + max(A / infer / GPUs, (R / read + P / seal) / cores)
    on cores   wall = start + (A / infer + R / read + P / seal) / cores

because reading and sealing run beside a GPU, and share the cores with the network where there is none. The last
tiles, which leave workers idle, and a file system that is slower than its readers are not in it.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.cluster.slurm.allocation import job_nodes
from pipeline.errors import ConfigError
from pipeline.inference import Engine
from pipeline.inference.torch_engine import cuda_devices
from pipeline.runs.planning.plan import RunPlan, Settings, Totals, totals
from pipeline.runs.planning.throughput import CPU, UNITS, Measured, Rates, find_rates, processor, read_rates

_START_S = 30.0
"""Workers import and load the network, and an engine compiles its graph, before the first block."""


@dataclass(frozen=True)
class Machine:
    """Where a run would go: equal nodes."""

    name: str
    """`this machine`, or the cluster's name."""
    nodes: int
    cores: int
    """Of a node, for its workers."""
    gpus: int = 0
    """Of a node."""
    gpu: str = ""
    """The GPU's name or a part of it: `a100`."""
    processor: str | None = None
    """None where it is not known: rates measured on any processor then count."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus} × {self.gpu}" if self.gpus else ""
        return f"{self.name} ({self.cores} cores{gpus}{' each' if self.nodes > 1 else ''})"


def this_machine(settings: Settings) -> Machine:
    """The machine that plans, with the GPUs that the campaign's engine would use."""
    devices = cuda_devices() if settings.engine.name == "torch" else ()
    cores = len(os.sched_getaffinity(0))
    return Machine("this machine", 1, cores, len(devices), devices[0] if devices else "", processor())


def named_machine(
    settings: Settings, *, nodes: int = 1, cores: int | None = None, gpus: int | None = None, gpu: str | None = None
) -> Machine:
    """The machine that a user describes; what is not given is this machine's.

    Raises:
        ConfigError: GPUs of no model, or a model without GPUs.
    """
    own = this_machine(settings)
    if (nodes, cores, gpus, gpu) == (1, None, None, None):
        return own
    count = gpus if gpus is not None else max(1, own.gpus) if gpu else own.gpus
    model = gpu or own.gpu
    if count and not model:
        raise ConfigError(f"{count} GPUs of which model? Give --gpu, such as --gpu a100")
    if gpu and not count:
        raise ConfigError(f"--gpu {gpu} and --gpus 0 contradict each other: leave one out")
    return Machine(f"{nodes} nodes" if nodes > 1 else "a node", nodes, cores or own.cores, count, model)


def predictions(plan: RunPlan) -> dict[str, dict[str, Any]]:
    """Domain → its forecast as a run's record keeps it: on this machine, or on all nodes of this job.

    Empty where a GPU maps of which no rate is known: a run does not want a prediction.
    """
    settings, own = plan.settings, this_machine(plan.settings)
    nodes = job_nodes() if settings.campaign.cluster.kind == "slurm" else 1
    try:
        rates = rates_for(settings, own, measured=read_rates())
    except ConfigError:
        return {}
    machine = replace(own, nodes=nodes)
    return {d.name: forecast(settings, totals(settings, d), rates, machine).as_json() for d in plan.domains}


@dataclass(frozen=True)
class Forecast:
    """What a run would take."""

    machine: Machine
    rates: Rates
    pixels: int
    """To map."""
    wall_s: float
    """Seconds from the start of the cluster to the last sealed tile."""
    gpu_s: float
    """Seconds that GPUs compute, all together; 0 without."""
    core_s: float
    """Seconds that cores are busy, all together."""
    cores_a_gpu: float | None
    """Cores that read and seal as fast as one GPU computes; None without GPUs."""
    read_bytes: int
    write_bytes: int
    """Of COGs, at the rate's bytes a pixel."""
    files_in: int
    """Input files, and so inodes, behind the tiles to map."""
    files_out: int
    """Files, and so inodes, that will be written."""
    worker_memory_bytes: int
    """A worker's peak."""

    @property
    def gpu_hours(self) -> float:
        """Allocated, which is what a centre charges: all GPUs, from start to end."""
        return self.machine.nodes * self.machine.gpus * self.wall_s / 3600

    @property
    def core_hours(self) -> float:
        """Allocated."""
        return self.machine.nodes * self.machine.cores * self.wall_s / 3600

    @property
    def starved(self) -> bool:
        """True where the GPUs wait for cores."""
        return self.cores_a_gpu is not None and self.cores_a_gpu * self.machine.gpus > self.machine.cores

    def as_json(self) -> dict[str, Any]:
        """Plain values for a run's record; rates with their units and sources."""
        own = {k: v for k, v in asdict(self).items() if k not in ("machine", "rates")}
        return {
            **{k: round(v, 3) if isinstance(v, float) else v for k, v in own.items()},
            "gpu_hours": round(self.gpu_hours, 4),
            "core_hours": round(self.core_hours, 4),
            "machine": asdict(self.machine),
            "rates": {name: asdict(getattr(self.rates, name)) | {"unit": unit} for name, unit in UNITS.items()},
        }

    def lines(self) -> tuple[str, ...]:
        """Sentences for a screen."""
        hours = f"{self.core_hours:.1f} core-hours" + (f", {self.gpu_hours:.1f} GPU-hours" if self.gpu_s else "")
        busy = f"cores busy {self.core_s / 3600:.1f} h" + (f", GPUs {self.gpu_s / 3600:.1f} h" if self.gpu_s else "")
        read, written = f"{self.read_bytes / 1e9:.2f} GB", f"{self.write_bytes / 1e9:.2f} GB"
        said = [
            f"on {self.machine}: about {duration(self.wall_s)}; {hours} ({busy})",
            f"reads {read} of {self.files_in} files, writes about {written} in {self.files_out} files",
        ]
        if self.machine.gpus and not self.gpu_s:
            said.append("the campaign's engine uses no GPU: engine torch or auto would")
        if self.cores_a_gpu is not None:
            has = self.machine.cores / self.machine.gpus
            more = "it waits for them" if self.starved else "enough"
            said.append(f"a GPU wants {self.cores_a_gpu:.0f} cores that read and seal, and has {has:.0f}: {more}")
        for name, unit in UNITS.items():
            rate = getattr(self.rates, name)
            said.append(f"  {name} {rate.value:.3g} {unit}, {rate.source}")
        return tuple(said)


def duration(seconds: float) -> str:
    """`3 min`, `2 h 05 min`, at least a minute."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def rates_for(settings: Settings, machine: Machine, *, measured: Sequence[Measured]) -> Rates:
    """The rates of a campaign's engine and network on a machine.

    Args:
        measured: from `rates.read_rates`.

    Raises:
        ConfigError: a GPU of which nothing is known.
    """
    engine = _engine_on(settings, machine)
    return find_rates(
        engine,
        network=settings.recipe.name,
        device=machine.gpu if machine.gpus and engine.name == "torch" else CPU,
        on=machine.processor,
        measured=measured,
    )


def _engine_on(settings: Settings, machine: Machine) -> Engine:
    """`auto` was resolved on the machine that plans, such as a login node; on a GPU it is torch."""
    auto = settings.campaign.engine == "auto" and settings.engine.precision != "int8"
    return Engine("torch", settings.engine.precision) if machine.gpus and auto else settings.engine


def forecast(settings: Settings, totals: Totals, rates: Rates, machine: Machine) -> Forecast:
    """What a run of the planned tiles would take on a machine; see the module for the formulas."""
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
        worker_memory_bytes=settings.memory.total,
    )
