"""The progress of a run counts blocks while their tile is still mapped, and ends at the pixels of all tiles."""

from pathlib import Path

from distributed import Client, Event, Future, wait

from pipeline.progress import Progress, Unit
from pipeline.runs.mapping.block_progress import BlockProgress
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import TILE, make_campaign


class Counted(Progress):
    """Remembers what it gets."""

    def __init__(self) -> None:
        self.total, self.done, self.unit = 0, 0, "steps"

    def start(self, total: int, unit: Unit = "steps") -> None:
        self.total, self.unit = total, unit

    def advance(self, steps: int = 1) -> None:
        self.done += steps


def wait_for(event: str, *_: int) -> None:
    Event(event).wait()


def test_blocks_of_a_tile_in_flight_count_and_never_more_than_there_are(dask_client: Client) -> None:
    seen = Counted()
    blocks = BlockProgress(dask_client, seen, tiles=2, tile=20, block=10)
    assert (seen.total, seen.unit) == (800, "pixels")
    mapped: list[Future[int]] = [dask_client.submit(int, key=f"predict-{i:032x}") for i in range(3)]
    wait(mapped)
    tile = dask_client.submit(wait_for, "sealed", *mapped)
    blocks.update()
    assert seen.done == 300
    blocks.update()
    assert seen.done == 300
    Event("sealed").set()
    wait(tile)
    blocks.tile_ended()
    assert seen.done == 400
    more = [dask_client.submit(int, key=f"predict-{i:032x}") for i in range(3, 9)]
    wait(more)
    blocks.update()
    assert seen.done == seen.total


def test_a_run_reports_the_pixels_of_all_its_tiles(tmp_path: Path, dask_client: Client) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    seen = Counted()
    run(make_plan(made.campaign), client=dask_client, progress=seen)
    assert (seen.done, seen.total, seen.unit) == (TILE**2, TILE**2, "pixels")
