"""Fingerprints: one short hash of everything that a result depends on.

A tile's fingerprint covers weights, recipe, window layout, engine and precision, `PRODUCT_VERSION` and the input files
of the tile. Versions of packages, the driver and the device are not part of it but provenance: an upgrade must not map
a country again.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pipeline.untrusted.own_files import open_regular

PRODUCT_VERSION = 3
"""Raise it when the same inputs give other bytes; all tiles are then mapped again."""

_SAMPLES = 16
_SAMPLE_BYTES = 65_536


def digest(parts: Any) -> str:
    """BLAKE2b hash of a JSON value, whatever the order of its keys: 32 hexadecimal digits (128 bits)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_signature(path: Path) -> str:
    """Signature of a large file's content: a hash of its size and of 16 evenly spaced samples of 64 KiB.

    It does not depend on dates or paths, so a copied delivery is not mapped again. A compressed raster that is written
    again changes throughout, so its samples change. Single bytes edited in place between the samples go unnoticed.

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
    """SHA-256 of a whole file: 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
