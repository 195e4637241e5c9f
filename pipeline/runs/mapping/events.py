"""Events of a run. Progress bars, logs and run records are made from them."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.domain import Domain
from pipeline.html_page import notebook_table


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


class SealedTiles(tuple[TileEnded, ...]):
    """The sealed tiles of a run, in the order in which they ended. In a notebook they are a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = [(f"{e.domain} {e.tile}", f"{e.seconds:.1f}", f"{e.pixels / 1e6 / e.seconds:.2f}") for e in self]
        pixels = sum(e.pixels for e in self)
        return notebook_table(f"tiles sealed: {len(self)}, {pixels / 1e6:,.0f} Mpx", ("tile", "seconds", "Mpx/s"), rows)


OnEvent = Callable[[RunStarted | TileEnded], None]
"""A callback for the events of a run."""
