"""JSON files that contain their own SHA-256: a change of any byte shows, and there is no second file to lose."""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from pipeline.untrusted.documents import DocumentError, parse_json, parse_model, read_bytes

_Model = TypeVar("_Model")

KEY = "landcover:sha256"
"""Key at the top of a file: the SHA-256 of the file with 64 zeros in its place."""
ZEROS = "0" * 64
_PLACE = re.compile(rb'"landcover:sha256": "([0-9a-f]{64})"')


def with_own_checksum(text: str) -> str:
    """The JSON text whose value of `KEY` is `ZEROS`, with the checksum there instead.

    Example:
        >>> text = with_own_checksum('{"a": 1, "landcover:sha256": "' + ZEROS + '"}')
        >>> check_own_checksum(text.encode(), former={"a"})
    """
    return text.replace(f'"{KEY}": "{ZEROS}"', f'"{KEY}": "{hashlib.sha256(text.encode()).hexdigest()}"')


def read_checked(kind: type[_Model], path: Path, *, former: Collection[str]) -> _Model:
    """Reads a JSON file as `documents.read_model` does, and compares it with the checksum in it.

    Raises:
        FileNotFoundError: there is none.
        DocumentError: as for `read_model` and `check_own_checksum`.
    """
    content = read_bytes(path)
    made = parse_model(kind, content)
    check_own_checksum(content, former=former)
    return made


def check_own_checksum(content: bytes, *, former: Collection[str]) -> None:
    """Compares a file with the checksum in it.

    Args:
        content: of the file.
        former: keys at the top of files of older versions, which have no checksum. Under any other key, 64 characters
            are a checksum whose name was changed. Empty where every version writes a checksum.

    Raises:
        DocumentError: it differs.
    """
    places = list(_PLACE.finditer(content))
    if not places:
        others = {key: value for key, value in parse_json(content).items() if key not in former}
        if (
            not former
            or KEY in others
            or any(isinstance(value, str) and len(value) == len(ZEROS) for value in others.values())
        ):
            raise DocumentError(f"checksum mismatch: its {KEY} was changed or removed")
        return
    start, end = places[0].span(1)
    whole = hashlib.sha256(content[:start] + ZEROS.encode() + content[end:]).hexdigest()
    if len(places) > 1 or whole.encode() != places[0][1]:
        raise DocumentError(f"checksum mismatch: its {KEY} differs from its content, so it was changed")
