"""What a measurement leaves behind: `<name>.json` with an object `figures`, and `<name>.png`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.bench.machine import facts
from pipeline.durable import replacing, write_json
from pipeline.runs.planning.throughput import MeasuredRate


@dataclass(frozen=True, eq=False)
class Report:
    """One bench's outcome."""

    name: str
    """`engines`, and so on: the files' stem and the figures' prefix."""
    figures: Mapping[str, float]
    """`<name>.<what>` → a plain number, mostly a ratio."""
    raw: Mapping[str, Any]
    """JSON-able: all that was measured, units in the names."""
    picture: Image.Image
    notes: tuple[str, ...] = ()
    """What a reader must know to judge the figures: what was smaller, absent or made up."""
    rates: tuple[MeasuredRate, ...] = ()
    """What `landcover plan` predicts from, where it was measured at full scale."""
    machine: Mapping[str, Any] = field(default_factory=facts)
    """Facts of the machine when the measurement ended."""

    def write(self, out: Path) -> Path:
        """Writes the picture, then the JSON; returns the JSON's path.

        Raises:
            StorageError: `out` cannot be written.
        """
        with replacing(out / f"{self.name}.png") as temporary:
            self.picture.save(temporary, format="PNG")
        path = out / f"{self.name}.json"
        write_json(
            path,
            {
                "bench": self.name,
                "figures": dict(self.figures),
                "notes": list(self.notes),
                "raw": dict(self.raw),
                "rates": [asdict(rate) for rate in self.rates],
                "machine": dict(self.machine),
            },
        )
        return path
