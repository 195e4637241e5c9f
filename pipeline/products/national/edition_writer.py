"""Writes an edition: `begin`, then one task for each shard (`products.national.shard_writer`), then `commit`.

It is written under a temporary name: unchanged shards are hard links (or copies), changed ones new files. The rename of
one symbolic link makes it current, so readers see the former edition or the new one.
"""

import logging
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pipeline.durable import link_or_copy, remove_temporaries, sync, write_json
from pipeline.errors import ProductError, product_error
from pipeline.products.manifest import files_below, write_manifest
from pipeline.products.national.edition_record import (
    HIGHEST,
    STORE_LAYERS,
    Tally,
    next_number,
    parent_edition,
)
from pipeline.products.national.grid import GridIndex, present_files
from pipeline.products.national.publish_plan import EditionPlan
from pipeline.products.national.shard_writer import ShardFacts
from pipeline.products.national.zarr_metadata import COORDINATES
from pipeline.products.national.zarr_store import create_store
from pipeline.untrusted.own_files import is_own, own_entries

_TEMPORARY = (".partial", ".tmp")
"""Suffixes of the unfinished files of Zarr and `durable`."""

EDITION = r"[0-9]{6}"
"""Name of a finished edition."""

_log = logging.getLogger("landcover")


def remove_abandoned(national: Path) -> tuple[Path, ...]:
    """Removes what a killed publish of this user left, and returns the paths. The current edition does not change.

    Call it while no other publish is running: `runs.publishing.publish` locks the nation.

    Raises:
        ProductError: a file cannot be removed.
    """
    editions = national / "editions"
    with product_error(f"{national}: what a killed publish left cannot be removed"):
        pointers = tuple(own_entries(national, pattern=rf"\.(current|restored)\.{EDITION}\.tmp", kind="link"))
        finished = [path for path in (_never_current(national, pointer) for pointer in pointers) if path]
        folders = [*own_entries(editions, pattern=rf"\.{EDITION}\.tmp", kind="folder"), *finished]
        for path in folders:
            shutil.rmtree(path)
        for pointer in pointers:
            pointer.unlink()
        return (*folders, *pointers, *remove_temporaries(editions, f".{HIGHEST}."))


def _never_current(national: Path, pointer: Path) -> Path | None:
    """The finished edition that a commit's pointer names, if the commit was killed before it became current.

    Anybody in the group can make such a pointer, so it must look as a commit leaves it: it names the newest edition,
    which is not current.
    """
    _, kind, name, _ = pointer.name.split(".")
    path = national / "editions" / name
    if kind != "current" or pointer.readlink() != Path("editions", name) or int(name) + 1 != next_number(national):
        return None
    if not is_own(path, pattern=EDITION, kind="folder") or (national / "current").resolve() == path.resolve():
        return None
    return path


def begin(plan: EditionPlan) -> None:
    """Creates the edition under its temporary name, with its metadata and links to unchanged shards.

    Raises:
        ProductError: it cannot be written, or another publish is running or was killed. Nothing is left behind.
    """
    try:
        plan.staging.parent.mkdir(parents=True, exist_ok=True)
        plan.staging.mkdir()
    except FileExistsError as error:
        own = is_own(plan.staging, kind="folder")
        remedy = "`landcover publish` removes it" if own else "its owner can remove it: it is no folder of this user"
        raise ProductError(
            f"{plan.staging}: another publish is running or was killed; if none runs, {remedy}"
        ) from error
    except OSError as error:
        raise ProductError(f"{plan.national}: cannot be written: {error.strerror or error}") from error
    try:
        _fill(plan)
    except OSError as error:
        shutil.rmtree(plan.staging, ignore_errors=True)
        raise ProductError(f"{plan.staging}: cannot be written: {error.strerror or error}") from error


def _fill(plan: EditionPlan) -> None:
    former = plan.target.former
    create_store(
        plan.target.store,
        plan.grid,
        domains=plan.domains,
        coverage=plan.coverage,
        coordinates_from=former if not any(COORDINATES.search(name) for name in plan.damaged) else None,
    )
    copied = 0
    for layer in STORE_LAYERS:
        shards = plan.target.store / layer / "c"
        for row in sorted({index[0] for index in plan.digests}):
            (shards / str(row)).mkdir(parents=True)
        for row, col in plan.link:
            if former is not None:
                place = Path(layer, "c", str(row), str(col))
                copied += not link_or_copy(former / place, plan.target.store / place)
    if copied:
        _log.warning(
            "%s: the file system refuses hard links, so %d files of unchanged shards are copied", plan.national, copied
        )


def commit(plan: EditionPlan, facts: Iterable[ShardFacts]) -> Path:
    """Makes the edition current; returns its folder.

    Args:
        plan: the plan that `begin` took.
        facts: what `write_shard` returned for each shard in `plan.write`.

    Raises:
        ProductError: a shard was not written, another edition became current since the plan was made, or the edition
            cannot be written. The former edition is still current.
    """
    _check_complete(plan)
    written = tuple(facts)
    tallies = {f.index: f.tally for f in written}
    if plan.parent is not None:
        tallies |= {index: plan.parent.tallies[index] for index in plan.link}
    if uncounted := sorted(plan.digests.keys() - tallies.keys()):
        raise ProductError(f"{plan.target.store}: {len(uncounted)} shards were not written: {uncounted[:5]}")
    final = plan.staging.with_name(f"{plan.number:06d}")
    pointer = plan.national / f".current.{plan.number:06d}.tmp"
    with product_error(f"{final}: cannot be made current"):
        write_json(plan.staging / "edition.json", _record(plan, tallies), indent=None)
        sync_tree(plan.staging)
        known = {name: digest for fact in written for name, digest in fact.sha256.items()}
        write_manifest(plan.staging, files_below(plan.staging), known=known, former=plan.former)
        # The pointer comes before the folder's final name, so that `remove_abandoned` finds what a kill in between
        # leaves.
        pointer.symlink_to(Path("editions", final.name))
        plan.staging.rename(final)
        sync(final.parent)
        pointer.replace(plan.national / "current")
        sync(plan.national)
    return final


def _check_complete(plan: EditionPlan) -> None:
    now = parent_edition(plan.national)
    if (now and now.number) != (plan.parent and plan.parent.number):
        raise ProductError(
            f"{plan.national}: edition {now and now.number} became current since the plan; publish again"
        )
    for layer in STORE_LAYERS:
        missing = sorted(plan.digests.keys() - present_files(plan.target.store / layer / "c"))
        if missing:
            raise ProductError(f"{plan.target.store}: {len(missing)} shards of {layer} were not written: {missing[:5]}")


def _record(plan: EditionPlan, tallies: Mapping[GridIndex, Tally]) -> dict[str, object]:
    beyond = Tally(nobody=plan.unclaimed * plan.grid.tile**2)
    return {
        "number": plan.number,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parent": plan.parent and plan.parent.number,
        "grid": plan.grid.to_json(),
        "domains": [dict(d) for d in plan.domains],
        "metadata": plan.metadata,
        "tally": asdict(Tally.total([*tallies.values(), beyond])),
        "undelivered_km2": dict(plan.undelivered_km2),
        "shards": {f"{row}/{col}": plan.digests[row, col] for row, col in sorted(plan.digests)},
        "manifest": True,
        "tallies": {f"{row}/{col}": asdict(tallies[row, col]) for row, col in sorted(plan.digests)},
    }


def sync_tree(folder: Path) -> None:
    """Syncs every folder, and every file that is no link to an older one; removes what killed workers left."""
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            if path.suffix in _TEMPORARY:
                path.unlink()
            elif stat.S_ISREG((state := path.lstat()).st_mode) and state.st_nlink == 1:
                sync(path)
        sync(Path(parent))
