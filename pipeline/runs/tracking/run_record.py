"""A run's record beside a domain's product: the campaign as it was resolved, and how far the run is.

`run.json` is written anew, by rename, when a run starts, with each tile that is submitted or ends, and when the run
ends: it can be read at any moment, also after a kill, and it takes one inode.
"""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pipeline.durable import remove_temporaries, write_json
from pipeline.errors import ProductError

RUN_FILE = "run.json"
_PACKAGES = ("landcover-pipeline", "torch", "segmentation-models-pytorch", "dask", "rasterio", "numpy", "xarray")

State = Literal["running", "stopped", "ended"]
"""`running` is also what a killed run leaves: the lock tells whether its driver lives."""


def software() -> dict[str, str]:
    """Versions of what computed a result: provenance, never part of a fingerprint."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def read_run(folder: Path) -> dict[str, Any]:
    """A domain folder's run record; empty where there is none.

    Raises:
        ProductError: it is no JSON.
    """
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ProductError(f"{path} cannot be read: {error}; remove it, the next run writes it anew") from error
    if not isinstance(content, dict):
        raise ProductError(f"{path}: expected a mapping; remove it, the next run writes it anew")
    return content


def failures(record: Mapping[str, Any]) -> dict[str, str]:
    """Tile → cause of those that failed or are suspect, of a record as `read_run` gives it."""
    return {**record.get("failed", {}), **record.get("suspect", {})}


@dataclass(frozen=True)
class Pace:
    """How fast a run goes, from its record."""

    seconds: float
    """From the start to the last event."""
    sealed_pixels: int
    left_pixels: int
    """Of tiles that this run still has to map; failed ones are not among them."""
    predicted_s: float | None
    """Seconds that a forecast gave the whole run, where one was made."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Pace | None":
        """None where nothing was ever run, or by a release that kept no such record."""
        if "elapsed_s" not in record:
            return None
        sealed = sum(int(t["pixels"]) for t in record.get("tiles", ()))
        predicted = record.get("predicted") or {}
        return cls(float(record["elapsed_s"]), sealed, int(record["left_pixels"]), predicted.get("wall_s"))

    @property
    def mpx_per_s(self) -> float:
        """Mapped megapixels a second, the cluster's start included."""
        return self.sealed_pixels / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at this pace; None before the first tile."""
        rate = self.mpx_per_s
        return self.left_pixels / 1e6 / rate if rate else None


class Journal:
    """Writes one domain's record while its run goes on; whoever holds the domain's lock is its only writer."""

    def __init__(self, folder: Path, about: Mapping[str, Any], *, tiles: Mapping[str, int]) -> None:
        """Starts the record and writes it.

        Args:
            folder: the domain's products.
            about: what stays: the campaign as resolved, versions, and `predicted` where a forecast was made.
            tiles: tile → pixels of all that this run is to map.

        Raises:
            StorageError: it cannot be written.
        """
        former = read_run(folder)
        self._path, self._about, self._todo = folder / RUN_FILE, dict(about), dict(tiles)
        self._failed: dict[str, str] = dict(former.get("failed", {}))
        self._suspect: dict[str, str] = dict(former.get("suspect", {}))
        self._in_flight: dict[str, str] = {}
        self._sealed: list[dict[str, Any]] = []
        self._began, self._started = time.monotonic(), _now()
        remove_temporaries(folder, f".{RUN_FILE}.")
        self.write("running")

    def submitted(self, tile: str) -> None:
        """A tile is in flight."""
        self._in_flight[tile] = _now()
        self.write("running")

    def ended(self, tile: str, *, seconds: float, error: str | None, suspect: bool) -> None:
        """A tile was sealed, or was not because of `error`."""
        self._in_flight.pop(tile, None)
        self._failed.pop(tile, None)
        self._suspect.pop(tile, None)
        pixels = self._todo.pop(tile)
        if error is None:
            self._sealed.append({"tile": tile, "seconds": round(seconds, 3), "pixels": pixels})
        else:
            (self._suspect if suspect else self._failed)[tile] = error
        self.write("running")

    def write(self, state: State) -> None:
        """Writes the record as it is now.

        Raises:
            StorageError: it cannot be written.
        """
        content = {
            **self._about,
            "state": state,
            "started": self._started,
            "updated": _now(),
            "elapsed_s": round(time.monotonic() - self._began, 3),
            "left_pixels": sum(self._todo.values()),
            "in_flight": dict(sorted(self._in_flight.items())),
            "tiles": self._sealed,
            "failed": dict(sorted(self._failed.items())),
            "suspect": dict(sorted(self._suspect.items())),
        }
        write_json(self._path, content)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
