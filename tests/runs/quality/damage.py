"""Damages a small published campaign at random places, and lets the commands repair it that `verify` names.

`python -m tests.runs.quality.damage PLACES [SEED]`, or `make damage PLACES=200`. One or more files of the current
edition, of the domains' tiles and of the reports are flipped, cut, extended, emptied, deleted, or edited as JSON. Each
time `landcover verify` must name them all and exit with 4; the commands that it prints, run as they are printed, must
restore the same bytes of COGs and shards; and `verify` must then exit with 0.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from pipeline.cli import main as command_line
from pipeline.domain import Domain
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.catalog.index import index
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.dask_client import in_process_client
from tests.support.deliveries import make_delivery

OTHER = Domain("D035_2022")
DAMAGES = ("flip", "cut", "extend", "empty", "delete", "edit")
MOST_AT_ONCE = 8


@dataclass(frozen=True)
class Place:
    """A damaged file."""

    path: Path
    kind: str
    damage: str


def make_published(folder: Path, client: Client) -> Made:
    """Two domains of two tiles each, in two editions, of which the second links shards of the first; reports."""
    made = make_campaign(folder, at=((0, 0), (1, 0)))
    other = make_delivery(folder / "other", at=((0, 1), (1, 1)), size=TILE, domain=OTHER)
    index([other.folder], domain=OTHER, catalog=folder / "catalog", tile_size=TILE)
    left, bottom, right, top = made.delivery.window.bounds
    extent = [edge / 1000 for edge in (left, bottom, right + right - left, top)]
    domains = [{"name": str(made.delivery.domain)}, {"name": str(OTHER)}]
    made.change(domains=domains, output={"extent_km": extent, "chunk": 100, "shard": 500})
    for plan in (make_plan(made.campaign, domains=[made.delivery.domain]), make_plan(made.campaign)):
        run(plan, client=client)
        publish(made.campaign, client=client)
    write_reports(made.campaign)
    return made.change(cluster={"scheduler": client.scheduler.address, "gdal_cache_mb": 64, "decoded_cache_mb": 64})


def kind_of(path: Path) -> str:
    """The kind of a file, for the table."""
    name, parents = path.name, {parent.name for parent in path.parents}
    if name in ("SHA256SUMS", "MANIFEST.json", "edition.json", "run.json", "zarr.json", "current", "0"):
        return "link to level 0" if name == "0" and path.is_symlink() else _index_or(path, name)
    if "c" in parents:
        return _index_or(path, name)
    if path.suffix == ".json":
        return "item" if re.search(r"-\d+-\d+\.json$", name) else name.partition("-")[0]
    return {".tif": "COG", ".gpkg": "GeoPackage", ".parquet": "Parquet", ".qml": "style", ".png": "picture"}.get(
        path.suffix, name
    )


def _index_or(path: Path, name: str) -> str:
    if not name.isdigit():
        return name
    store = "pyramid" if "pyramid.zarr" in {p.name for p in path.parents} else "store"
    layer = path.parts[path.parts.index("c") - 1] if "c" in path.parts else name
    return f"{store}: {'shard' if layer in ('landcover', 'confidence', 'domain') else layer}"


def published_files(made: Made) -> list[Path]:
    """Every file and link of the current edition and of the domains' folders, and `current` itself."""
    national = made.folder / "national"
    roots = ((national / "current").resolve(), made.products)
    found = [Path(parent, name) for root in roots for parent, _, names in os.walk(root) for name in names]
    return sorted([*found, (national / "current").resolve().parents[1] / "current", *_links(roots[0])])


def _links(root: Path) -> list[Path]:
    """Links to folders, which `os.walk` lists as folders."""
    return [
        Path(parent, name) for parent, names, _ in os.walk(root) for name in names if Path(parent, name).is_symlink()
    ]


def damage_one(path: Path, rng: random.Random) -> str | None:
    """Damages a file at a random place; returns how, or None where nothing changed."""
    if path.is_symlink():
        return _damage_link(path, rng)
    content = path.read_bytes()
    kind = rng.choice(DAMAGES if path.suffix == ".json" else DAMAGES[:-1])
    at = rng.randrange(len(content))
    changed = {
        "flip": lambda: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
        "cut": lambda: content[:at],
        "extend": lambda: content + rng.choice((b"\n", b" ", b"\0", rng.randbytes(rng.randint(1, 64)))),
        "empty": lambda: b"",
        "edit": lambda: _edited(content, rng),
        "delete": lambda: None,
    }[kind]()
    if changed == content:
        return None
    state = path.stat()
    if changed is None:
        path.unlink()
        return kind
    if rng.random() < 0.5:  # a new file, which leaves those of other editions as they are
        path.unlink()
    path.write_bytes(changed)
    if rng.random() < 0.5:  # as a disk does that loses a bit
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return kind


def _damage_link(path: Path, rng: random.Random) -> str:
    kind = rng.choice(("delete", "empty", "edit"))
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "edit":
        path.symlink_to("editions/000099")
    return kind


EDITED = (
    (r"landcover:share_.*", lambda old: round(1 - old, 3)),
    (r"landcover:confidence", lambda _: 0.123),
    (r"(start_|end_)?datetime|created|started|updated", lambda _: "2001-02-03T04:05:06Z"),
    (r"proj:transform|spatial:transform", lambda old: [old[0] * 2, *old[1:]]),
    (r"landcover:attribution|licen[cs]e|attribution|description", lambda _: "Somebody"),
    (r"title|name|flag_meanings", lambda _: "castle"),
    (r"size|file:size|seconds|number|mtime_ns|value", lambda old: old + 1),
    (r"sha256|landcover:sha256", lambda old: old[::-1]),
)


def _edited(content: bytes, rng: random.Random) -> bytes:
    """JSON in which one value says something else, in the layout of the file."""
    tree = json.loads(content)
    found = [(parent, key, to) for parent, key in _keys(tree) for name, to in EDITED if re.fullmatch(name, key)]
    if found:
        parent, key, to = rng.choice(found)
        parent[key] = to(parent[key]) if parent[key] is not None else "2001-02-03T04:05:06Z"
    else:
        parent, key = rng.choice(list(_keys(tree)))
        del parent[key]
    indent = 2 if content.startswith(b"{\n  ") else 0 if content.startswith(b"{\n") else None
    return (json.dumps(tree, indent=indent, ensure_ascii=False) + "\n").encode()


def _keys(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(value, dict):
        yield from ((value, key) for key in value)
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(below)


def damage_some(made: Made, rng: random.Random) -> list[Place]:
    """Damages up to `MOST_AT_ONCE` files."""
    places: list[Place] = []
    wanted = rng.choice((1, rng.randint(2, MOST_AT_ONCE)))
    by_kind: dict[str, list[Path]] = {}
    for path in published_files(made):
        by_kind.setdefault(kind_of(path), []).append(path)
    while len(places) < wanted:
        kind = rng.choice(sorted(by_kind))
        path = rng.choice(by_kind[kind])
        if all(path != place.path for place in places) and (damage := damage_one(path, rng)):
            places.append(Place(path, kind, damage))
    return places


def sealed_bytes(made: Made) -> dict[str, str]:
    """Name → hash of all COGs, and of all chunks and shards of the current edition."""
    edition = (made.folder / "national/current").resolve()
    chunks = [path for path in edition.rglob("*") if path.is_file() and "c" in path.parts]
    files = {path.relative_to(edition).as_posix(): path for path in chunks}
    files |= {path.relative_to(made.products).as_posix(): path for path in made.products.rglob("*.tif")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def items(made: Made) -> dict[str, Any]:
    """Name → content of all items, without times, versions and their own checksum."""
    found = {}
    for path in sorted(made.products.rglob("D*-*-*.json")):
        content = json.loads(path.read_bytes())
        for key in ("created", "processing:software"):
            content["properties"].pop(key)
        content.pop("landcover:sha256")
        found[path.name] = content
    return found


def check_repair(made: Made, places: Sequence[Place]) -> list[str]:
    """Verifies, repairs as printed, verifies again; returns what went wrong."""
    code, said = in_this_process(["verify", str(made.config)])
    wrong = [f"verify exited with {code}"] if code != 4 else []
    wrong += ["traceback"] if "Traceback" in said else []
    wrong += [f"{place.path} is not named" for place in places if not is_named(place.path, said)]
    repairs = [line.strip() for line in said.splitlines() if line.startswith("  landcover ")]
    for line in repairs:
        code, answer = in_this_process(shlex.split(line)[1:])
        if code:
            wrong.append(f"{line!r} exited with {code}: {answer}")
    code, again = in_this_process(["verify", str(made.config)])
    if code:
        wrong.append(f"after {repairs}, verify exited with {code}: {again}")
    return [*wrong, said] if wrong else []


def is_named(path: Path, said: str) -> bool:
    """Whether a message names a file; `SHA256SUMS and MANIFEST.json` of one folder may be named together."""
    together = f"{path.parent}/SHA256SUMS and MANIFEST.json" in said
    return re.search(rf"{re.escape(str(path))}(?![\w.])", said) is not None or (
        together and path.name in ("SHA256SUMS", "MANIFEST.json")
    )


def campaign_of_damage(
    made: Made, places: int, *, seed: int, say: Callable[[str], None]
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Damages and repairs a published campaign until so many places were damaged.

    Returns:
        counts by kind of file and kind of damage, and what went wrong.
    """
    expected, described = sealed_bytes(made), items(made)
    whole = made.folder / "whole"
    for name in ("products", "national"):
        subprocess.run(["cp", "-a", "--parents", name, _made(whole)], cwd=made.folder, check=True)
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    turn = 0
    while counts.total() < places:
        damaged = damage_some(made, random.Random(f"{seed}-{turn}"))
        counts.update((place.kind, place.damage) for place in damaged)
        wrong = check_repair(made, damaged)
        if not wrong and sealed_bytes(made) != expected:
            differ = [
                n for n in expected.keys() | sealed_bytes(made).keys() if sealed_bytes(made).get(n) != expected.get(n)
            ]
            wrong = [f"other bytes: {sorted(differ)}"]
        if not wrong and items(made) != described:
            wrong = ["the items differ"]
        if wrong:
            failures.append("\n".join([f"turn {turn}: {[(str(p.path), p.damage) for p in damaged]}", *wrong]))
            say(failures[-1])
        turn += 1
        if turn % 5 == 0:
            say(f"{counts.total()} of {places} places, {turn} times, {len(failures)} failures")
        for name in ("products", "national"):
            shutil.rmtree(made.folder / name)
            subprocess.run(["cp", "-a", str(whole / name), str(made.folder / name)], check=True)
    return counts, failures


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def table(counts: Counter[tuple[str, str]]) -> str:
    """Counts by kind of file and kind of damage."""
    rows = [("", *DAMAGES)]
    rows += [
        (kind, *(str(counts[kind, damage] or "") for damage in DAMAGES)) for kind in sorted({k for k, _ in counts})
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join("  ".join([row[0].ljust(width), *(cell.rjust(6) for cell in row[1:])]) for row in rows)


def in_this_process(arguments: Sequence[str]) -> tuple[int, str]:
    """Runs `landcover` with these arguments; returns its exit code and what it printed."""
    given, said = sys.argv, io.StringIO()
    sys.argv = ["landcover", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            command_line()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue()
    except Exception:  # noqa: BLE001  which is what is looked for
        return 1, said.getvalue() + traceback.format_exc()
    finally:
        sys.argv = given


def main() -> None:
    """The command."""
    given = [int(argument) for argument in sys.argv[1:]]
    places, seed = (*given, *(200, random.SystemRandom().randrange(1 << 32))[len(given) :])

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    say(f"{places} places, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="landcover-damage-") as folder, in_process_client() as client:
        made = make_published(Path(folder, "made"), client)
        counts, failures = campaign_of_damage(made, places, seed=seed, say=say)
    say(table(counts))
    say(f"{len(failures)} failures" if failures else "each was named, and repaired with the same bytes")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
