"""Damages documents at random, and sorts what a reader makes of them, for tests and for `make fuzz`."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import LandcoverError

WRONG = (None, True, -1, 0, 10**30, 1.5, 1e300, "", "x", "../../etc/passwd", "\0", "é" * 300, [], {}, [[]], {"a": 1})
"""Values of other types and sizes than a document has."""
TEXTS = ("NaN", "Infinity", "1e999", "1" * 5000, "[" * 3000, '{"a":' * 3000, '"\\ud800"')
"""JSON that only lenient parsers accept, or that is too deep."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy: flipped or inserted bytes, a part of it, or JSON with a key or a value changed."""
    kind = rng.choice(("flip", "cut", "insert", "tree", "tree", "tree", "text"))
    if kind in ("tree", "text"):
        try:
            tree = json.loads(content)
        except ValueError:
            kind = "flip"
        else:
            return _mutate_tree(tree, rng, text=kind == "text")
    at = rng.randrange(len(content))
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + bytes(rng.randbytes(rng.randint(1, 8))) + content[at:]
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _mutate_tree(tree: Any, rng: random.Random, *, text: bool) -> bytes:
    parent, key = rng.choice(list(_places(tree)) or [([tree], 0)])
    if text:
        parent[key] = "@here@"
        return json.dumps(tree).replace('"@here@"', rng.choice(TEXTS), 1).encode()
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = rng.choice(WRONG)
    return json.dumps(tree).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield value, key
        yield from _places(below)


@dataclass(frozen=True)
class Outcome:
    """What came of a damaged file."""

    kind: str
    """`right`, `clean error`, `traceback` or `silently wrong`."""
    detail: str


def outcome(path: Path, damaged: bytes, read: Callable[[], object], expected: object) -> Outcome:
    """Reads something of which one file is damaged; the file is whole again afterwards.

    Args:
        path: the file.
        damaged: its content meanwhile.
        read: reads it.
        expected: what `read` returns of the whole file. Another value is silently wrong; None accepts any.
    """
    with _damaged(path, damaged):
        try:
            found = read()
        except LandcoverError as error:
            named = path.name in str(error)
            return Outcome("clean error" if named else "unnamed", str(error)[:300])
        except Exception as error:  # noqa: BLE001  which is what is looked for
            return Outcome("traceback", f"{type(error).__name__}: {error}"[:300])
    return Outcome("right" if expected is None or found == expected else "silently wrong", repr(found)[:300])


@contextmanager
def _damaged(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        yield
    finally:
        path.write_bytes(whole)
