"""Damages files at random: bytes of any file, and the structure of those whose parser would stop at the first byte."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

WRONG = (
    *(None, True, -1, 0, 1, 10**6, 10**9, 10**30, 1.5, -0.0, 1e300, "", "x", "../../etc/passwd", "/dev/zero", "\0"),
    *("\x1b[2J", "a\nb", "é" * 300, "2021-02-30", "1e9999", "EPSG:999999", [], {}, [[]], {"a": 1}, [0] * 1000),
)
"""Values of other types and sizes than a document has."""
TEXTS = ("NaN", "Infinity", "1e999", "1" * 5000, "[" * 3000, '{"a":' * 3000, '"\\ud800"', '"\\u0000"', "{}" * 2)
"""JSON that only lenient parsers accept, or that is too deep."""
NUMBERS = (0, 1, 2, 7, 255, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 63)
DOUBLES = (0.0, -1.0, 0.2, 1e6, -1e6, 1e300, float("nan"), float("inf"))
_EDGE = 4096
"""Bytes at both ends of a file, where headers lie and which are damaged more often than the rest."""


def mutate(content: bytes, rng: random.Random, name: str = "") -> bytes:
    """A damaged copy.

    Args:
        content: of the whole file.
        rng: chooses.
        name: of the file, whose suffix tells formats apart that no first bytes do.
    """
    structured = _structured(content, Path(name).suffix)
    if structured is not None and rng.random() < 0.7:
        return structured(content, rng)
    return _mutate_bytes(content, rng)


def _structured(content: bytes, suffix: str) -> Callable[[bytes, random.Random], bytes] | None:
    starts = ((b"II*\0", _mutate_tiff), (b"PK\3\4", _mutate_zip), (b"7z\xbc\xaf", _mutate_7z))
    for first, how in starts:
        if content.startswith(first):
            return how
    if suffix in (".yaml", ".safetensors"):
        return _mutate_yaml if suffix == ".yaml" else _mutate_safetensors
    if suffix in (".csv", ".md5", ".vrt", ".asc"):
        return _mutate_lines
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return None
    return _mutate_json


def _mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """A bit or some bytes changed, bytes inserted or removed, or the end cut off."""
    at = _position(content, rng)
    kind = rng.choice(("bit", "bit", "bytes", "number", "cut", "insert", "remove", "swap"))
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + rng.randbytes(rng.randint(1, 8)) + content[at:]
    if kind == "remove":
        return content[:at] + content[at + rng.randint(1, 8) :]
    if kind == "swap":
        other = _position(content, rng)
        return content[:at] + content[other : other + 16] + content[at + 16 :]
    if kind == "bit":
        new = bytes([content[at] ^ (1 << rng.randrange(8))]) if content else b""
    elif kind == "number":
        new = struct.pack(rng.choice("<>") + "Q", rng.choice(NUMBERS))[: rng.choice((2, 4, 8))]
    else:
        new = rng.randbytes(rng.randint(1, 4))
    return content[:at] + new + content[at + len(new) :]


def _position(content: bytes, rng: random.Random) -> int:
    size = len(content)
    start, stop = rng.choice(((0, size), (0, min(size, _EDGE)), (max(0, size - _EDGE), size)))
    return rng.randrange(start, max(stop, start + 1))


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    tree = json.loads(content)
    if rng.random() < 0.15:
        parent, key = _place(tree, rng)
        parent[key] = "@here@"
        return json.dumps(tree).replace('"@here@"', rng.choice(TEXTS), 1).encode()
    text = json.dumps(mutate_tree(tree, rng)).encode()
    return text.replace(b'"', b"\xff", 1) if rng.random() < 0.02 else text


def _mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    tree = mutate_tree(yaml.safe_load(content), rng)
    return yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False, allow_unicode=True).encode(errors="replace")


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Changes, moves, renames or removes one value of lists and objects inside each other; returns the tree."""
    root = [tree]
    parent, key = _place(root, rng)
    old, kind = parent[key], rng.random()
    if kind < 0.2 and parent is not root:
        del parent[key]
    elif kind < 0.3 and isinstance(parent, dict):
        parent[rng.choice([*parent, "x", str(key).upper()])] = parent.pop(key)
    elif kind < 0.4 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), old)
    elif kind < 0.65 and isinstance(old, int | float | str) and not isinstance(old, bool):
        parent[key] = _near(old, rng)
    else:
        parent[key] = rng.choice(WRONG)
    return root[0]


def _near(old: float | str, rng: random.Random) -> float | str:
    """A value of the same type that may be plausible: moved by a pixel or 1000 km, scaled, or with a letter changed."""
    if isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        return old[:at] + rng.choice("09aZ-/. éµ\x07") + old[at + rng.randrange(2) :]
    return rng.choice((old + 0.2, old - 0.2, old + 1, old - 1, old + 1e6, old * 2, -old, old * 1e6))


def _place(tree: Any, rng: random.Random) -> tuple[Any, Any]:
    return rng.choice(list(_places(tree)) or [([tree], 0)])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield value, key
        yield from _places(below)


def _mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """Text with a line removed, repeated, moved or with another field."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.choice(("remove", "repeat", "swap", "field", "long"))
    if kind == "remove":
        del lines[at]
    elif kind == "repeat":
        lines.insert(at, lines[at])
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "long":
        lines[at] = rng.choice((b'"', b"x" * 200_000, b"\0", b"\xff\xfe", lines[at] + b",,", b"'" + lines[at]))
    else:
        words = lines[at].split(b" ")
        words[rng.randrange(len(words))] = str(rng.choice(WRONG)).encode()
        lines[at] = b" ".join(words)
    return b"\n".join(lines)


def _mutate_tiff(content: bytes, rng: random.Random) -> bytes:
    """A little-endian TIFF with one field of a directory, or one of its values, changed."""
    changed, entries, at = bytearray(content), [], struct.unpack_from("<I", content, 4)[0]
    while 0 < at < len(content) - 2 and len(entries) < 500:
        count = struct.unpack_from("<H", content, at)[0]
        entries += [at + 2 + 12 * i for i in range(count)]
        end = at + 2 + 12 * count
        at = struct.unpack_from("<I", content, end)[0] if end + 4 <= len(content) else 0
    place = rng.choice(entries)
    tag, kind, count, value = struct.unpack_from("<HHII", content, place)
    what = rng.choice(("value", "value", "value", "inside", "inside", "count", "type", "tag", "header"))
    if what == "header":
        struct.pack_into("<I", changed, 4, rng.choice((place, 4, 0, len(content), (1 << 32) - 1)))
    elif what == "inside" and kind == 12 and value + 8 * count <= len(content):
        inside = value + 8 * rng.randrange(count)
        old = struct.unpack_from("<d", content, inside)[0]
        struct.pack_into("<d", changed, inside, rng.choice((*DOUBLES, old + 0.2, old + 40, old + 1e6, old * 2)))
    elif what == "inside" and count > 4 and value < len(content):
        inside = min(value + rng.randrange(4 * min(count, 4096)), len(content) - 1)
        changed[inside] = rng.randrange(256)
    elif what in ("value", "inside"):
        near = (value + 1, value * 2, value // 2, max(value - 1, 0))
        struct.pack_into("<I", changed, place + 8, rng.choice((*NUMBERS[:-1], *near)) & 0xFFFFFFFF)
    else:
        others = {"count": (*NUMBERS[:-1], count + 1), "type": range(20), "tag": (256, 273, 324, 347, 330, tag + 1)}
        form, shift = ("<I", 4) if what == "count" else ("<H", 2 if what == "type" else 0)
        number = rng.choice(list(others[what]))
        struct.pack_into(form, changed, place + shift, number & (0xFFFFFFFF if what == "count" else 0xFFFF))
    return bytes(changed)


def _mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip with right checksums, of which one member is damaged, lost or renamed: so parsers behind it are reached."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    small = [name for name, inside in members.items() if name.endswith((".pkl", "version", "byteorder"))]
    name = rng.choice(small if small and rng.random() < 0.7 else list(members))
    kind = rng.random()
    if kind < 0.1:
        del members[name]
    elif kind < 0.2:
        members[f"{name}x"] = members.pop(name)
    else:
        members[name] = _mutate_bytes(members[name], rng)
    with zipfile.ZipFile(made := io.BytesIO(), "w") as new:
        for name, inside in members.items():
            new.writestr(name, inside)
    return made.getvalue()


def _mutate_7z(content: bytes, rng: random.Random) -> bytes:
    """A 7z archive whose header is damaged and has a right checksum."""
    offset, size = struct.unpack_from("<QQ", content, 12)
    start = 32 + offset
    header = content[start : start + size]
    if rng.random() < 0.3:
        offset, size = rng.choice(((offset + 1, size), (offset, size - 1), (0, size), (offset, 1 << 40), (1 << 60, 5)))
    else:
        header = _mutate_bytes(header, rng)[: len(header)]
        size = len(header)
    place = struct.pack("<QQI", offset, size, zlib.crc32(header))
    return content[:8] + struct.pack("<I", zlib.crc32(place)) + place + content[32:start] + header


def _mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Safetensors with another header of the right length."""
    size = struct.unpack_from("<Q", content)[0]
    header = _mutate_json(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]
