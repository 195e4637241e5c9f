"""How fast a machine maps: measured by `landcover bench` and kept in a small file, or stated here with its source.

    $LANDCOVER_CACHE/rates.json     by default in the user's cache folder

An inference rate counts the pixels that a network computes, halos among them, and belongs to an engine, a
precision, a network and a device; the others belong to a core, whatever the network.
"""

import datetime as dt
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import DEFAULT_RECIPE, Precision
from pipeline.durable import user_cache, write_json
from pipeline.errors import ConfigError, StorageError
from pipeline.inference import Engine

What = Literal["infer", "read", "seal", "written"]

UNITS: dict[What, str] = {
    "infer": "Mpx/s",
    "read": "Mpx/s a core",
    "seal": "Mpx/s a core",
    "written": "bytes a pixel",
}
"""`infer` is a CUDA device's, or a core's where there is none."""
_OF_A_CORE: tuple[What, ...] = ("read", "seal", "written")
CPU = "cpu"
"""The device of engines that run on cores."""


@dataclass(frozen=True)
class Rate:
    """One speed, and where it comes from."""

    value: float
    source: str
    """`measured on n12 (Xeon …) at 2026-03-01`, or `stated: …`."""


@dataclass(frozen=True)
class Rates:
    """What a forecast is made of."""

    device: str
    """What computes: `cpu`, or a GPU's name."""
    infer: Rate
    """Mpx/s of windows, halos counted: of a GPU, or of a core where there is none."""
    read: Rate
    """Mpx/s of blocks with their halos that a core decodes and puts together: RVB, IRC and heights."""
    seal: Rate
    """Mpx/s of map that a core writes as COGs, both layers."""
    written: Rate
    """Bytes of a pixel of map, both layers."""


@dataclass(frozen=True)
class Measured:
    """One measurement, as the file keeps it."""

    what: What
    value: float
    host: str
    processor: str
    at: str
    """Day, `2026-03-01`."""
    engine: str = ""
    """This and the next three of inference only."""
    precision: str = ""
    network: str = ""
    """The recipe's name."""
    device: str = ""
    """`cpu`, or the GPU's name as CUDA gives it."""

    @classmethod
    def here(cls, what: What, value: float) -> "Measured":
        """Of a core of this machine, today."""
        today = dt.datetime.now(dt.UTC).date().isoformat()
        return cls(what, value, platform.node(), processor(), today)

    @classmethod
    def inference(cls, value: float, engine: Engine, *, network: str, device: str = CPU) -> "Measured":
        """Of the network on this machine, today: Mpx/s of a core, or of a CUDA `device`."""
        own = asdict(cls.here("infer", value))
        return cls(**own | {"engine": engine.name, "precision": engine.precision, "network": network, "device": device})

    @property
    def rate(self) -> Rate:
        """With its source."""
        where = self.processor if self.device in ("", CPU) else self.device
        return Rate(self.value, f"measured on {self.host} ({where}) at {self.at}")


def processor() -> str:
    """This machine's processor, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def rates_file() -> Path:
    """Where measured rates are kept."""
    return user_cache() / "rates.json"


def record(measured: Sequence[Measured], *, path: Path | None = None) -> Path:
    """Keeps measurements; each replaces the former one of the same thing on the same host and processor.

    Two benches that end at once may lose one's: it is measured again.

    Raises:
        StorageError: the file cannot be read or written.
    """
    path = path or rates_file()
    kept = {_key(m): m for m in (*read_rates(path), *measured)}
    write_json(path, {"rates": [asdict(m) for m in kept.values()]})
    return path


def _key(m: Measured) -> tuple[str, ...]:
    return (m.what, m.host, m.processor, m.engine, m.precision, m.network, m.device)


def read_rates(path: Path | None = None) -> tuple[Measured, ...]:
    """What was measured; nothing where there is no file.

    Raises:
        StorageError: it is there and no file of rates.
    """
    path = path or rates_file()
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())["rates"]
        return tuple(Measured(**entry) for entry in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: no file of rates: {error}; remove it, `landcover bench` writes it anew") from error


def find_rates(
    engine: Engine, *, network: str, device: str = CPU, on: str | None = None, measured: Sequence[Measured]
) -> Rates:
    """The rates for an engine and network: what was measured on such a machine, else what is stated.

    Args:
        engine: what runs the network.
        network: the recipe's name.
        device: `cpu`, or a GPU's name or a part of it: `a100`.
        on: the processor's name, where only its own measurements count; None where it is not known.
        measured: from `read_rates`; of several that fit the latest counts.

    Raises:
        ConfigError: a device of which nothing was measured and nothing is stated.
    """
    own = [m for m in measured if on in (None, m.processor)]

    def latest(what: What) -> Rate | None:
        fit = [m for m in own if m.what == what]
        return max(fit, key=lambda m: m.at).rate if fit else None

    asked = (engine.name, engine.precision, network)
    # A GPU is the same GPU behind another processor.
    pool = own if device == CPU else measured
    forwards = [
        m
        for m in pool
        if m.what == "infer" and (m.engine, m.precision, m.network) == asked and _is_device(device, m.device)
    ]
    infer = max(forwards, key=lambda m: m.at).rate if forwards else stated_inference(engine, device, network=network)
    read, seal, written = (latest(what) or STATED[what] for what in _OF_A_CORE)
    return Rates(device, infer, read, seal, written)


def _is_device(asked: str, name: str) -> bool:
    return asked == name if CPU in (asked, name) else asked.lower() in name.lower()


_LAB = "2 cores with AVX-512 VNNI"

STATED: dict[What, Rate] = {
    "read": Rate(5.0, f"stated: OpenJPEG, RVB and IRC at 5..6 Mpx/s a core, of which the mosaic keeps 0.9 ({_LAB})"),
    "seal": Rate(15.0, f"stated: 6.5 core-seconds for 100 Mpx ({_LAB})"),
    "written": Rate(0.55, "stated: 0.4..0.7 for maps of real patches, land cover and confidence"),
}
"""Used where nothing was measured."""

_MFLOP_A_PIXEL = 64.7e3 / 512**2
"""Of the ResNet-34 U-Net: 64.7 GFLOP for a patch of 512²."""
_CPU_MPX: dict[tuple[str, Precision], float] = {
    ("openvino", "fp32"): 0.62,
    ("openvino", "bf16"): 0.62,
    ("openvino", "int8"): 2.4,
    ("torch", "fp32"): 0.36,
    ("torch", "bf16"): 0.36,
}
"""Mpx/s a core, from 2 cores: 1.25 in fp32 and 4.9 in int8 on OpenVINO, 0.72 on torch; bf16 is taken as fp32."""
_GPU_TFLOPS: dict[str, dict[Precision, float]] = {
    "v100": {"fp32": 15.7, "fp16": 125},
    "a100": {"fp32": 19.5, "bf16": 312, "fp16": 312},
    "h100": {"fp32": 67, "bf16": 989, "fp16": 989},
    "h200": {"fp32": 67, "bf16": 989, "fp16": 989},
}
"""Peaks of NVIDIA's data sheets (SXM, without sparsity)."""
_GPU_SHARE = 0.3
"""Of the peak that a convolutional network is taken to reach: an assumption until `landcover bench` measured it."""


def stated_inference(engine: Engine, device: str, *, network: str) -> Rate:
    """Mpx/s of a device, or of a core, where nothing was measured.

    Raises:
        ConfigError: a GPU that is not in the table, or has no such precision.
    """
    unlike = "" if network == DEFAULT_RECIPE else f"; for {DEFAULT_RECIPE}, not for {network}"
    if device == CPU:
        value = _CPU_MPX[engine.name, engine.precision]
        return Rate(value, f"stated: {engine.name} {engine.precision} on {_LAB}{unlike}")
    known = next((name for name in _GPU_TFLOPS if name in device.lower()), None)
    peak = _GPU_TFLOPS[known].get(engine.precision) if known else None
    if known is None or peak is None:
        raise ConfigError(
            f"nothing is known of {engine.precision} on GPU {device!r}: expected one of {', '.join(_GPU_TFLOPS)} (bf16 "
            "from a100 on), or a measurement of it: run `landcover bench` there"
        )
    value = peak * 1e6 * _GPU_SHARE / _MFLOP_A_PIXEL / 1e6
    return Rate(value, f"stated: {_GPU_SHARE:.0%} of the data sheet's {peak:g} TFLOPS of {known.upper()}{unlike}")
