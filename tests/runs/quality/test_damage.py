"""A short form of `make damage`: files of a published campaign are damaged, named by `verify`, and repaired."""

from pathlib import Path

import pytest
from distributed import Client

from tests.runs.quality.damage import Place, campaign_of_damage, check_repair, make_published
from tests.support.campaigns import Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    return make_published(tmp_path_factory.mktemp("damage") / "made", dask_client)


def test_random_damages_are_named_and_repaired_with_the_same_bytes(made: Made, seed: int) -> None:
    counts, failures = campaign_of_damage(made, 6, seed=seed, say=lambda _: None)
    assert not failures
    assert counts.total() >= 6


@pytest.mark.parametrize("content", [None, b""])
def test_a_lost_link_to_the_current_edition_is_named_and_restored(made: Made, content: bytes | None) -> None:
    link = made.folder / "national/current"
    link.unlink()
    if content is not None:
        link.write_bytes(content)
    assert not check_repair(made, [Place(link, "current", "delete")])
    assert link.readlink() == Path("editions/000002")


def test_a_lost_link_is_named_where_the_record_is_lost_too(made: Made) -> None:
    edition = (made.folder / "national/current").resolve()
    places = [Place(edition / name, "edition", "delete") for name in ("pyramid.zarr/0", "edition.json")]
    for place in places:
        place.path.unlink()
    assert not check_repair(made, places)
