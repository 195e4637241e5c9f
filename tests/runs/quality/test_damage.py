"""A short form of `make damage`: files of a published campaign are damaged, named by `verify`, and repaired."""

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from distributed import Client

from pipeline.cli import main
from tests.runs.quality.damage import Place, campaign_of_damage, check_repair, make_published
from tests.support.campaigns import Made


def in_this_process(arguments: Sequence[str]) -> tuple[int, str]:
    """Runs `landcover`; returns its exit code and what it printed."""
    given, said = sys.argv, io.StringIO()
    sys.argv = ["landcover", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = given
    return int(ended.value.code or 0), said.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    made = make_published(tmp_path_factory.mktemp("damage") / "made", dask_client)
    return made.change(cluster={"scheduler": dask_client.scheduler.address, "gdal_cache_mb": 64})


def test_random_damages_are_named_and_repaired_with_the_same_bytes(made: Made, seed: int) -> None:
    counts, failures = campaign_of_damage(made, 6, seed=seed, command=in_this_process, say=lambda _: None)
    assert not failures
    assert counts.total() >= 6


@pytest.mark.parametrize("content", [None, b""])
def test_a_lost_link_to_the_current_edition_is_named_and_restored(made: Made, content: bytes | None) -> None:
    link = made.folder / "national/current"
    link.unlink()
    if content is not None:
        link.write_bytes(content)
    assert not check_repair(made, [Place(link, "current", "delete")], in_this_process)
    assert link.readlink() == Path("editions/000002")
