"""What a result depends on, as one short hash.

A tile's fingerprint covers everything that its bytes depend on: weights, recipe, window layout,
engine and precision, `PRODUCT_VERSION` and the input files behind the tile. Package versions, driver
and device are provenance, not fingerprint: an upgrade must not remap a country.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

PRODUCT_VERSION = 3
"""Raised by hand when the same inputs give other bytes: every tile is then remapped."""

_SAMPLES = 16
_SAMPLE_BYTES = 65_536


def digest(parts: Any) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bit) of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_signature(path: Path) -> str:
    """A cheap identity of a large file's content: its size and 16 evenly spaced samples of 64 KiB.

    It follows the bytes, not the date or the place, so a copied delivery remaps nothing. A compressed
    raster that is made anew changes throughout, so the samples see it; a hand that edits single bytes
    in place between samples is not seen.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    hasher = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        last = max(0, size - _SAMPLE_BYTES)
        for i in range(_SAMPLES):
            file.seek(last * i // (_SAMPLES - 1), os.SEEK_SET)
            hasher.update(file.read(_SAMPLE_BYTES))
    return hasher.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
