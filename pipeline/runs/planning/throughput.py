"""Speeds of a machine: measured by `landcover bench` and kept in a file, or stated here with their source.

    $LANDCOVER_CACHE/rates.json     by default in the user's cache folder

An inference rate counts the pixels that a network computes, with halos. It belongs to an engine, a precision, a
network and a device. The other rates belong to a core and do not depend on the network.
"""

import datetime as dt
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import DEFAULT_RECIPE, Precision
from pipeline.durable import user_cache, write_json
from pipeline.errors import ConfigError, StorageError
from pipeline.inference.engine import Engine
from pipeline.untrusted.documents import Document, DocumentError, read_model

RateKind = Literal["infer", "read", "seal", "written"]

UNITS: dict[RateKind, str] = {
    "infer": "Mpx/s",
    "read": "Mpx/s a core",
    "seal": "Mpx/s a core",
    "written": "bytes a pixel",
}
"""`infer` is the rate of a CUDA device, or of a core where there is no device."""
CPU = "cpu"
"""The device of engines that run on cores."""


@dataclass(frozen=True)
class Rate:
    """A speed and its source."""

    value: float
    source: str
    """`measured on n12 (Xeon …) at 2026-03-01`, or `stated: …`."""


@dataclass(frozen=True)
class Rates:
    """The speeds that a forecast needs."""

    device: str
    """`cpu`, or a GPU's name."""
    infer: Rate
    """Mpx/s of windows with halos: of a GPU, or of a core where there is none."""
    read: Rate
    """Mpx/s of blocks with halos that a core reads: it decodes RVB, IRC and heights and merges them."""
    seal: Rate
    """Mpx/s of the map that a core writes as COGs, both layers."""
    written: Rate
    """Bytes per pixel of the map, both layers."""


@dataclass(frozen=True)
class MeasuredRate:
    """One measurement, as the file contains it."""

    what: RateKind
    value: Annotated[float, Field(gt=0)]
    host: str
    processor: str
    at: str
    """The day, `2026-03-01`."""
    engine: str = ""
    """This field and the next three are set for inference only."""
    precision: str = ""
    network: str = ""
    """The recipe's name."""
    device: str = ""
    """`cpu`, or the GPU's name as CUDA gives it."""

    @classmethod
    def here(cls, what: RateKind, value: float) -> "MeasuredRate":
        """A rate of a core of this machine, measured today."""
        today = dt.datetime.now(dt.UTC).date().isoformat()
        return cls(what, value, platform.node(), processor(), today)

    @classmethod
    def inference(cls, value: float, engine: Engine, *, network: str, device: str = CPU) -> "MeasuredRate":
        """A network's rate on this machine, measured today: Mpx/s of a core, or of a CUDA `device`."""
        own = asdict(cls.here("infer", value))
        return cls(**own | {"engine": engine.name, "precision": engine.precision, "network": network, "device": device})

    @property
    def rate(self) -> Rate:
        """The rate with its source."""
        where = self.processor if self.device in ("", CPU) else self.device
        return Rate(self.value, f"measured on {self.host} ({where}) at {self.at}")


class _RatesFile(Document):
    rates: tuple[MeasuredRate, ...]


def processor() -> str:
    """Name of this machine's processor, as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def rates_file() -> Path:
    """The file of measured rates."""
    return user_cache() / "rates.json"


def save_rates(measured: Sequence[MeasuredRate]) -> Path:
    """Adds measurements to the file; each replaces a former one of the same kind, host and processor.

    Two benches that end at the same moment may lose a measurement, which can be repeated.

    Args:
        measured: the measurements.

    Returns:
        The file.

    Raises:
        StorageError: the file cannot be read or written.
    """
    path = rates_file()
    kept = {_key(m): m for m in (*read_rates(), *measured)}
    write_json(path, {"rates": [asdict(m) for m in kept.values()]})
    return path


def _key(m: MeasuredRate) -> tuple[str, ...]:
    return (m.what, m.host, m.processor, m.engine, m.precision, m.network, m.device)


def read_rates() -> tuple[MeasuredRate, ...]:
    """Reads the measured rates; none where there is no file.

    Raises:
        StorageError: the file is damaged.
    """
    path = rates_file()
    try:
        return read_model(_RatesFile, path).rates
    except FileNotFoundError:
        return ()
    except DocumentError as error:
        raise StorageError(f"{path} is damaged: {error}; delete it, `landcover bench` writes it again") from error


def find_rates(
    engine: Engine, *, network: str, device: str = CPU, on: str | None = None, measured: Sequence[MeasuredRate]
) -> Rates:
    """The rates of an engine and a network: measured on such a machine, or else stated.

    Args:
        engine: runs the network.
        network: the recipe's name.
        device: `cpu`, or a GPU's name or a part of it: `a100`.
        on: the processor's name: only measurements on such a processor count. None where it is not known.
        measured: from `read_rates`. Of several that match, the latest counts.

    Raises:
        ConfigError: no rate of the device is measured or stated.
    """
    own = [m for m in measured if on in (None, m.processor)]
    wanted = (engine.name, engine.precision, network)
    forwards = [
        m
        # A GPU is as fast beside another processor.
        for m in (own if device == CPU else measured)
        if (m.engine, m.precision, m.network) == wanted and _is_device(device, m.device)
    ]
    infer = _latest("infer", forwards) or stated_inference(engine, device, network=network)
    return Rates(device, infer, *(_latest(what, own) or stated for what, stated in STATED.items()))


def _latest(what: RateKind, measured: Sequence[MeasuredRate]) -> Rate | None:
    latest = max((m for m in measured if m.what == what), key=lambda m: m.at, default=None)
    return latest.rate if latest else None


def _is_device(wanted: str, name: str) -> bool:
    return wanted == name if CPU in (wanted, name) else wanted.lower() in name.lower()


_LAB = "2 cores with AVX-512 VNNI"

STATED: dict[RateKind, Rate] = {
    "read": Rate(5.0, f"stated: OpenJPEG, RVB and IRC at 5..6 Mpx/s a core, of which the mosaic keeps 0.9 ({_LAB})"),
    "seal": Rate(15.0, f"stated: 6.5 core-seconds for 100 Mpx ({_LAB})"),
    "written": Rate(0.55, "stated: 0.4..0.7 for maps of real patches, land cover and confidence"),
}
"""The rates of a core, used where none is measured; in the order of the fields of `Rates`."""

_MFLOP_A_PIXEL = 64.7e3 / 512**2
"""Of the ResNet-34 U-Net: 64.7 GFLOP for a patch of 512² px."""
_CPU_MPX: dict[tuple[str, Precision], float] = {
    ("openvino", "fp32"): 0.62,
    ("openvino", "bf16"): 0.62,
    ("openvino", "int8"): 2.4,
    ("torch", "fp32"): 0.36,
    ("torch", "bf16"): 0.36,
}
"""Mpx/s per core. Measured on 2 cores: 1.25 in fp32 and 4.9 in int8 on OpenVINO, 0.72 on torch. bf16 counts as fp32."""
_GPU_TFLOPS: dict[str, dict[Precision, float]] = {
    "v100": {"fp32": 15.7, "fp16": 125},
    "a100": {"fp32": 19.5, "bf16": 312, "fp16": 312},
    "h100": {"fp32": 67, "bf16": 989, "fp16": 989},
    "h200": {"fp32": 67, "bf16": 989, "fp16": 989},
}
"""Peaks from NVIDIA's data sheets (SXM, without sparsity)."""
_GPU_SHARE = 0.3
"""Share of the peak that a convolutional network reaches: an assumption until `landcover bench` measures it."""


def stated_inference(engine: Engine, device: str, *, network: str) -> Rate:
    """The stated inference rate of a device, or of a core.

    Raises:
        ConfigError: the GPU is not in the table, or does not have this precision.
    """
    unlike = "" if network == DEFAULT_RECIPE else f"; for {DEFAULT_RECIPE}, not for {network}"
    if device == CPU:
        value = _CPU_MPX[engine.name, engine.precision]
        return Rate(value, f"stated: {engine.name} {engine.precision} on {_LAB}{unlike}")
    known = next((name for name in _GPU_TFLOPS if name in device.lower()), None)
    peak = _GPU_TFLOPS[known].get(engine.precision) if known else None
    if known is None or peak is None:
        raise ConfigError(
            f"no speed is known for {engine.precision} on GPU {device!r}: expected one of {', '.join(_GPU_TFLOPS)} "
            "(bf16 from a100 on); run `landcover bench` on such a machine to measure it"
        )
    value = peak * 1e6 * _GPU_SHARE / _MFLOP_A_PIXEL / 1e6
    return Rate(value, f"stated: {_GPU_SHARE:.0%} of the data sheet's {peak:g} TFLOPS of {known.upper()}{unlike}")
