"""The record of a domain's run, `run.json`: the resolved campaign, and how far the run is.

The file is replaced, by rename, when the run starts, when a tile is submitted or ends, and when the run ends. It can
be read at any moment, also after a kill, and takes one inode.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.durable import remove_temporaries, write_json
from pipeline.errors import ProductError
from pipeline.products.tile.domain_manifest import RUN_FILE
from pipeline.untrusted.documents import Document, DocumentError
from pipeline.untrusted.own_checksum import read_checked

_BETWEEN_S = 5.0
"""Seconds between two records of mapped blocks, as often as `status --watch` looks."""
State = Literal["running", "stopped", "ended"]
"""A killed run leaves `running`: the domain's lock shows whether its driver is alive."""


class MappedTile(Document):
    """A tile that the run sealed."""

    tile: str
    """`0595-6890`."""
    seconds: float
    """From its submission to its end. Tiles in flight overlap."""
    pixels: int


class RunRecord(Document):
    """The content of `run.json`. Keys that early releases did not write have defaults; unknown keys are ignored."""

    campaign: dict[str, Any] = Field(default={})
    """The campaign with its resolved engine and threads."""
    weights_sha256: str = ""
    quantized_sha256: str | None = None
    recipe: dict[str, Any] = Field(default={})
    software: dict[str, str] = Field(default={})
    """Package → version."""
    predicted: dict[str, Any] = Field(default={})
    """The forecast, if there was one."""
    state: State = "ended"
    started: str = ""
    """UTC, `2026-03-01T12:00:00Z`; so are all times here."""
    updated: str = ""
    elapsed_s: float | None = None
    """Seconds from the start of the run to `updated`. None: early releases did not measure it."""
    left_pixels: int = 0
    """Pixels of the tiles that this run still has to map."""
    mapped_pixels: int = 0
    """Pixels of the mapped blocks of the tiles in flight."""
    in_flight: dict[str, str] = Field(default={})
    """Tile → when it was submitted."""
    tiles: tuple[MappedTile, ...] = ()
    """The tiles that this run sealed."""
    failed: dict[str, str] = Field(default={})
    """Tile → why its last attempt failed, in this run or a former one."""
    suspect: dict[str, str] = Field(default={})
    """The same for tiles whose last attempt cost several workers."""

    @property
    def failures(self) -> dict[str, str]:
        """Tile → cause, of failed and suspect tiles."""
        return {**self.failed, **self.suspect}

    def as_json(self) -> dict[str, Any]:
        """The content of the file in plain values."""
        return self.model_dump(mode="json", exclude=None if self.predicted else {"predicted"})


def read_run_record(folder: Path) -> RunRecord:
    """Reads a domain's run record; an empty one where the domain was never run.

    Args:
        folder: the domain's product.

    Raises:
        ProductError: the file cannot be read or is damaged.
    """
    path = folder / RUN_FILE
    try:
        return read_checked(RunRecord, path, former=RunRecord.model_fields)
    except FileNotFoundError:
        return RunRecord()
    except DocumentError as error:
        raise ProductError(f"{path} is damaged: {error}; `landcover run` writes it again") from error


def record_problem(folder: Path) -> str | None:
    """Why a domain's run record cannot be used; None where it can, and where there is none."""
    try:
        read_run_record(folder)
    except ProductError as error:
        return str(error)
    return None


class RunRecordWriter:
    """Keeps the run record of a domain up to date. The owner of the domain's lock is its only writer.

    It writes the record at once. Failures of former runs are kept until their tiles are tried again, but not those in a
    damaged record, which is replaced.

    Args:
        folder: the domain's product.
        about: the constant fields: `campaign`, `recipe`, `software`, hashes of the weights, and `predicted`.
        tiles: tile → pixels, of all tiles that this run is to map.

    Raises:
        StorageError: the record cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, tiles: Mapping[str, int]) -> None:
        former = RunRecord() if record_problem(folder) else read_run_record(folder)
        self._path, self._about, self._todo = folder / RUN_FILE, dict(about), dict(tiles)
        self._failed, self._suspect = dict(former.failed), dict(former.suspect)
        self._in_flight: dict[str, str] = {}
        self._mapped, self._written = 0, 0.0
        self._sealed: list[MappedTile] = []
        self._began, self._started = time.monotonic(), utc_now()
        remove_temporaries(folder, f".{RUN_FILE}.")
        self.write("running")

    def submitted(self, tile: str) -> None:
        """Records that a tile is in flight.

        Raises:
            StorageError: the record cannot be written.
        """
        self._in_flight[tile] = utc_now()
        self.write("running")

    def ended(self, tile: str, *, seconds: float, error: str | None, suspect: bool) -> None:
        """Records that a tile was sealed, or failed with `error`.

        Raises:
            StorageError: the record cannot be written.
        """
        for tiles in (self._in_flight, self._failed, self._suspect):
            tiles.pop(tile, None)
        pixels = self._todo.pop(tile)
        self._mapped = max(0, self._mapped - pixels)
        if error is None:
            self._sealed.append(MappedTile(tile=tile, seconds=round(seconds, 3), pixels=pixels))
        else:
            (self._suspect if suspect else self._failed)[tile] = error
        self.write("running")

    def mapped(self, pixels: int) -> None:
        """Records the pixels of the mapped blocks of the tiles in flight, every few seconds.

        Raises:
            StorageError: the record cannot be written.
        """
        if pixels != self._mapped and time.monotonic() - self._written >= _BETWEEN_S:
            self._mapped = pixels
            self.write("running")

    def write(self, state: State) -> None:
        """Writes the record as it is now.

        Raises:
            StorageError: the record cannot be written.
        """
        record = RunRecord(
            **self._about,
            state=state,
            started=self._started,
            updated=utc_now(),
            elapsed_s=round(time.monotonic() - self._began, 3),
            left_pixels=sum(self._todo.values()),
            mapped_pixels=self._mapped if state == "running" else 0,
            in_flight=dict(sorted(self._in_flight.items())),
            tiles=tuple(self._sealed),
            failed=dict(sorted(self._failed.items())),
            suspect=dict(sorted(self._suspect.items())),
        )
        write_json(self._path, record.as_json(), own_checksum=True)
        self._written = time.monotonic()


def utc_now() -> str:
    """`2026-03-01T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
