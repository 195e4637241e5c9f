"""Former editions stay what they were; what is restored, dropped, or killed half-way harms no other."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import LockError, ProductError
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national import edition_history as history
from pipeline.products.national.edition_history import drop, restore
from pipeline.products.national.edition_record import current_edition, next_number
from pipeline.products.national.edition_writer import begin, remove_abandoned
from pipeline.products.national.publish_plan import DomainProduct, plan_edition
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.publishing.national_lock import lock_national
from tests.support.products import GRID, TILE, product, publish, sealed_at, stack_of, tile_at

A, B = Domain("D064_2021"), Domain("D065_2022")
TILES = {A: tile_at(0, 0), B: tile_at(1, 2)}


def nation_of(folder: Path) -> list[DomainProduct]:
    """Two domains of one tile, as they are sealed in a folder now."""
    return [
        dataclasses.replace(product(folder, name, {tile: None}), sealed=list_sealed(folder / name, name, TILE))
        for name, tile in TILES.items()
    ]


def seal_all(folder: Path, seed: int) -> None:
    for name, tile in TILES.items():
        sealed_at(folder / name, tile, domain=name, seed=seed)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Editions 1 (seed 1) and 2 (A of seed 2): to read only."""
    folder = tmp_path_factory.mktemp("two")
    seal_all(folder, 1)
    publish(folder / "national", nation_of(folder))
    sealed_at(folder / A, TILES[A], domain=A, seed=2)
    publish(folder / "national", nation_of(folder))
    return folder


@pytest.fixture
def folder(two: Path, tmp_path: Path) -> Path:
    """The same to change, its editions linked to each other as they were."""
    made = Path(shutil.copytree(two, tmp_path / "two", symlinks=True))
    shutil.rmtree(made / "national")
    seal_all(made, 1)
    publish(made / "national", nation_of(made))
    sealed_at(made / A, TILES[A], domain=A, seed=2)
    publish(made / "national", nation_of(made))
    return made


def classes(national: Path, name: str, edition: int | None = None) -> np.ndarray:
    row, col = {A: (0, 0), B: (1, 2)}[name]
    landcover = open_product(national, edition)["landcover"]
    return np.asarray(landcover[row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def store_of(national: Path) -> dict[str, bytes]:
    return files_of(national / "current" / "product.zarr")


def test_editions_are_listed_with_what_each_takes_and_opened_by_number(two: Path) -> None:
    national = two / "national"
    first, second = history.history(national)
    assert (first.edition.number, second.edition.number) == (1, 2)
    assert (first.current, second.current) == (False, True)
    assert first.edition.domains == second.edition.domains == (A, B)
    for seed, edition in ((1, 1), (2, 2), (2, None)):
        np.testing.assert_array_equal(classes(national, A, edition), stack_of(seed)[0])
    for state in (first, second):
        files = [p for p in state.edition.path.rglob("*") if p.is_file()]
        assert state.own_bytes + state.shared_bytes == sum(p.stat().st_size for p in files)
        shared = {p.relative_to(state.edition.path) for p in files if p.stat().st_nlink > 1}
        # All of B, and of A who owns its pixels, and the coordinates.
        assert len(shared) == 3 * 4 + 4 + 2
    with pytest.raises(ProductError, match="there is no edition 7; there is 1, 2"):
        open_product(national, 7)


def test_a_restored_edition_is_current_and_the_newer_one_stays(folder: Path) -> None:
    national = folder / "national"
    before = files_of(national / "editions")
    restore(national, 1)
    assert files_of(national / "editions") == before
    np.testing.assert_array_equal(classes(national, A), stack_of(1)[0])
    plan = publish(national, nation_of(folder))
    assert plan.number == 3
    assert store_of(national) == files_of(national / "editions" / "000002" / "product.zarr")
    restore(national, 2)
    np.testing.assert_array_equal(classes(national, A), stack_of(2)[0])


def test_a_damaged_edition_is_not_restored(folder: Path) -> None:
    national = folder / "national"
    (national / "editions" / "000001" / "product.zarr" / "landcover" / "c" / "0" / "0").unlink()
    with pytest.raises(ProductError, match="landcover/c/0/0: shard is lost"):
        restore(national, 1)
    assert (national / "current").readlink() == Path("editions/000002")


def test_a_restoration_killed_before_the_swap_costs_no_edition(folder: Path) -> None:
    national = folder / "national"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(national, 1)
    assert remove_abandoned(national)
    assert [s.edition.number for s in history.history(national)] == [1, 2]
    assert sorted(p.name for p in national.iterdir()) == ["current", "editions"]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".current.evil.tmp", "victim"),
        (".current.000003.tmp", "victim"),
        (".current.000003.tmp", "editions/../victim"),
        (".current.000002.tmp", "editions/000002"),
        (".current.000001.tmp", "editions/000001"),
        (".current.000003.tmp", "editions/000002"),
        (".current.000003.tmp", "editions/000003"),
        ("editions/.000003.tmp", "../victim"),
        ("editions/.notes.tmp", None),
    ],
)
def test_a_planted_pointer_deletes_nothing(folder: Path, name: str, target: str | None) -> None:
    national = folder / "national"
    (national / "victim").mkdir()
    (national / "victim" / "data").touch()
    # A link in the place of an edition is not one.
    (national / "editions" / "000003").symlink_to("../victim")
    before = files_of(national / "editions" / "000001"), files_of(national / "editions" / "000002")
    if target is None:
        (national / name).mkdir()
    else:
        (national / name).symlink_to(target)
    remove_abandoned(national)
    assert (files_of(national / "editions" / "000001"), files_of(national / "editions" / "000002")) == before
    assert (national / "victim" / "data").exists()
    # A pointer that looks as a commit leaves it goes; what it names does not.
    assert os.path.lexists(national / name) == (not name.startswith(".current.0"))


def test_editions_and_leftovers_of_another_user_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    national = folder / "national"
    plan = plan_edition(national, GRID, nation_of(folder))
    begin(plan)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert remove_abandoned(national) == ()
    with pytest.raises(ProductError, match="if none runs, its owner can remove it"):
        begin(plan)
    with pytest.raises(ProductError, match="expected a folder of this user, so it stays"):
        drop(national, 1)
    assert [s.edition.number for s in history.history(national)] == [1, 2]


def killed(_self: Path, _target: Path) -> None:
    raise KeyboardInterrupt


def test_dropping_an_edition_leaves_the_others_and_its_number_stays_unused(folder: Path) -> None:
    national = folder / "national"
    kept = files_of(national / "editions" / "000001")
    with pytest.raises(ProductError, match="is the current edition"):
        drop(national, 2)
    restore(national, 1)
    drop(national, 2)
    assert [s.edition.number for s in history.history(national)] == [1]
    assert files_of(national / "editions" / "000001") == kept
    assert history.history(national)[0].shared_bytes == 0
    assert next_number(national) == 3
    with pytest.raises(ProductError, match="there is no edition 2; there is 1"):
        drop(national, 2)
    publish(national, nation_of(folder))
    np.testing.assert_array_equal(classes(national, A), stack_of(2)[0])
    drop(national, 1)
    np.testing.assert_array_equal(classes(national, B), stack_of(1)[0])


def fork(task: Callable[[], None], log: Path) -> int:
    """The task in a process of its own, which has imported everything; its pid. It exits with 0 where it ends well."""
    with warnings.catch_warnings():
        # Zarr starts its thread anew in a child; other libraries have started none that matter here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        task()
        code = 0
    except BaseException:
        log.write_text(traceback.format_exc())
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


@pytest.mark.slow
def test_killed_at_20_random_moments_the_edition_is_whole_and_the_next_the_same(
    two: Path, tmp_path: Path, seed: int
) -> None:
    moment, national = random.Random(seed), tmp_path / "national"
    shutil.copytree(two / "national", national, symlinks=True)
    wanted = {}
    for pixels in (1, 2):
        seal_all(tmp_path / f"{pixels}", pixels)
        publish(tmp_path / f"whole{pixels}", nation_of(tmp_path / f"{pixels}"))
        wanted[pixels] = store_of(tmp_path / f"whole{pixels}")
    steps = len(files_of(two / "national" / "current"))
    kills = rounds = 0
    while kills < 20:
        pixels = 1 + rounds % 2
        domains, before = nation_of(tmp_path / f"{pixels}"), store_of(national)
        pid = fork(lambda: locked_publish(national, domains), tmp_path / "log")  # noqa: B023  (ends within the round)
        kill_at(pid, national, moment, steps)
        _, status = os.waitpid(pid, 0)
        assert not os.WIFEXITED(status) or not os.WEXITSTATUS(status), (tmp_path / "log").read_text()
        kills += os.WIFSIGNALED(status)
        edition = current_edition(national)
        assert edition is not None
        assert check_shards(edition) == []
        assert store_of(national) in (before, wanted[pixels])
        if moment.random() < 0.5:
            # Else the next victim finds what this one left.
            locked_publish(national, domains)
            assert store_of(national) == wanted[pixels]
            assert not [*national.glob(".*"), *national.glob("editions/.*")]
            rounds += 1
    locked_publish(national, nation_of(tmp_path / "1"))
    assert store_of(national) == wanted[1]


def locked_publish(national: Path, domains: list[DomainProduct]) -> None:
    with lock_national(national):
        publish(national, domains)


def kill_at(pid: int, national: Path, moment: random.Random, steps: int) -> None:
    """Kills when so many files of the new edition stand, and some instants later; or never, where it ended before."""
    goal, delay_s = moment.randrange(steps + 1), moment.random() * 0.02
    while files_in_progress(national) < goal and not ended(pid):
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)


def files_in_progress(national: Path) -> int:
    """Of editions under their temporary names; what goes meanwhile is not counted."""
    staging = (national / "editions").glob(".*")
    return sum(len(names) for folder in staging for _, _, names in os.walk(folder))


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_two_publishers_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    seal_all(tmp_path, 1)

    def keep_publishing(name: str) -> None:
        """Seals its domain anew and publishes both, again and again, beside another who does the same."""
        for seed in (11, 12, 13):
            sealed_at(tmp_path / name, TILES[name], domain=name, seed=seed)
            while True:
                try:
                    with lock_national(tmp_path / "national", wait=True):
                        publish(tmp_path / "national", nation_of(tmp_path))
                    break
                except ProductError as error:
                    # The other sealed its tile while this one published: told, and to be tried again.
                    if "publish again" not in str(error) and "missing; " not in str(error):
                        raise

    pids = [fork(lambda name=name: keep_publishing(name), tmp_path / f"{name}.log") for name in TILES]
    for pid, name in zip(pids, TILES, strict=True):
        _, status = os.waitpid(pid, 0)
        assert status == 0, (tmp_path / f"{name}.log").read_text()
    for name in TILES:
        np.testing.assert_array_equal(classes(tmp_path / "national", name), stack_of(13)[0])


def test_a_second_publisher_is_told_or_waits(tmp_path: Path) -> None:
    with lock_national(tmp_path), pytest.raises(LockError, match="the national product"), lock_national(tmp_path):
        pass
    pid = fork(lambda: hold_until_told(tmp_path), tmp_path / "log")
    while not (tmp_path / "holds").exists():
        assert not ended(pid), (tmp_path / "log").read_text()
        time.sleep(0.01)
    (tmp_path / "end").touch()
    with lock_national(tmp_path, wait=True):
        assert (tmp_path / "ended").exists()
    os.waitpid(pid, 0)


def hold_until_told(national: Path) -> None:
    with lock_national(national):
        (national / "holds").touch()
        while not (national / "end").exists():
            time.sleep(0.01)
        (national / "ended").touch()


def test_the_command_lists_restores_and_drops(folder: Path) -> None:
    content = {
        "name": "small",
        "catalog": "catalog",
        "model": {"weights": "none.pth", "recipe": "flair-inc_rgbie_12cl"},
        "domains": [{"name": str(A)}, {"name": str(B)}],
        "output": {"national": "national"},
    }
    config = folder / "campaign.yaml"
    config.write_text(yaml.safe_dump(content))

    def call(*options: str) -> list[tuple[int, bool]]:
        result = CliRunner().invoke(app, ["editions", str(config), "--json", *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [(e["edition"], e["current"]) for e in json.loads(result.output)]

    assert call() == [(1, False), (2, True)]
    assert call("--restore", "1") == [(1, True), (2, False)]
    with pytest.raises(ProductError, match="is the current edition"):
        call("--drop", "1")
    assert call("--drop", "2") == [(1, True)]
    shown = CliRunner().invoke(app, ["editions", str(config)]).output
    assert re.search(r"1 +\S+Z +current +2 +8 ", shown), shown
    shutil.rmtree(folder / "national")
    assert "nothing is published" in CliRunner().invoke(app, ["editions", str(config)]).output
