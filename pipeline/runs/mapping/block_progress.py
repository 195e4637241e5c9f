"""Progress of a run by block: a tile of 625 Mpx takes a quarter of an hour, and one of its blocks half a minute."""

from distributed import Client

from pipeline.cluster.connection import task_states
from pipeline.progress import Progress

_MAPPED = "predict"
"""Dask's name for the tasks of `predict_stack`: what precedes the token in their keys."""


class BlockProgress:
    """Reports the pixels of mapped blocks.

    Args:
        client: of the cluster.
        progress: gets pixels.
        tiles: number of tiles to map.
        tile, block: their sides in pixels.
    """

    def __init__(self, client: Client, progress: Progress, *, tiles: int, tile: int, block: int) -> None:
        self._client, self._progress = client, progress
        self._block_pixels, self._tile_blocks, self._tiles = block**2, (tile // block) ** 2, tiles
        self._ended = self._shown = 0
        progress.start(tiles * tile**2, "pixels")

    def tile_ended(self) -> None:
        """A tile was sealed or has failed: none of its blocks is left."""
        self._ended += 1
        self._show(self._ended * self._tile_blocks)

    def update(self) -> int:
        """Asks the scheduler for the blocks of the tiles in flight, while no tile has ended that Dask still knows.

        Returns:
            Their pixels.

        Raises:
            ClusterError: the scheduler is gone or does not answer.
        """
        states = task_states(self._client, _MAPPED)
        # Of other tasks that are called so, on a scheduler that others use too, only as many count as there may be.
        most = self._tiles * self._tile_blocks
        ended = self._ended * self._tile_blocks
        blocks = min(ended + states.get("memory", 0) + states.get("released", 0), most)
        self._show(blocks)
        return (blocks - ended) * self._block_pixels

    def _show(self, blocks: int) -> None:
        # Blocks whose worker was lost are mapped again.
        if blocks > self._shown:
            self._progress.advance((blocks - self._shown) * self._block_pixels)
            self._shown = blocks
