"""Events of a run. Progress bars, logs and run records are made from them."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.domain import Domain


@dataclass(frozen=True)
class RunStarted:
    """The cluster is ready."""

    dashboard: str | None
    """Address of Dask's dashboard, as `pipeline.cluster.client.dashboard` gives it; None without `--dashboard`."""
    tiles: int
    """Number of tiles to map."""


@dataclass(frozen=True)
class TileEnded:
    """A tile was sealed, or failed with `error`."""

    domain: Domain
    tile: str
    """`0595-6890`."""
    seconds: float
    """From its submission to its end. Tiles in flight overlap."""
    pixels: int
    error: str | None
    suspect: bool = False
    """The tile cost several workers."""


OnEvent = Callable[[RunStarted | TileEnded], None]
"""A callback for the events of a run."""
