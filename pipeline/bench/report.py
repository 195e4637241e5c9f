"""The outcome of a bench: `<name>.json` with an object `figures`, and `<name>.png`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.bench.machine import machine_facts
from pipeline.durable import write_bytes, write_json
from pipeline.runs.planning.throughput import MeasuredRate


@dataclass(frozen=True, eq=False)
class BenchReport:
    """The outcome of one bench."""

    figures: Mapping[str, float]
    """`<name of the bench>.<figure>` → a plain number, mostly a ratio."""
    raw: Mapping[str, Any]
    """Everything that was measured, as JSON, with units in the names."""
    chart: bytes
    """PNG; empty where nothing can draw one."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the figures: which inputs were smaller, missing or synthetic."""
    rates: tuple[MeasuredRate, ...] = ()
    """Rates that `landcover plan` predicts from; kept only from full-scale measurements."""
    machine: Mapping[str, Any] = field(default_factory=machine_facts)
    """Facts about the machine at the end of the measurement."""

    def write(self, out: Path, name: str) -> Path:
        """Writes the chart if there is one, then the JSON, and returns the path of the JSON.

        Args:
            out: folder.
            name: the bench's name, which is the stem of both files.

        Raises:
            StorageError: `out` cannot be written.
        """
        content = asdict(self)
        if chart := content.pop("chart"):
            write_bytes(out / f"{name}.png", chart)
        path = out / f"{name}.json"
        write_json(path, {"bench": name, **content})
        return path
