"""What passes from one task to the next: the open regions of a block, in a file."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.durable import replacing
from pipeline.errors import MALFORMED, product_error
from pipeline.products.vectors.coverage.arcs import Arcs
from pipeline.products.vectors.coverage.blocks import Block, Counts

_NESTED = {"counts": Counts, "arcs": Arcs}


def write_block(path: Path, block: Block) -> None:
    """Writes a block.

    Raises:
        StorageError: it cannot be written.
    """
    arrays: dict[str, Any] = {}
    for field in fields(Block):
        value = getattr(block, field.name)
        inner = _NESTED.get(field.name)
        names = [f.name for f in fields(inner)] if inner else []
        arrays |= {f"{field.name}.{name}": getattr(value, name) for name in names} or {field.name: value}
    with replacing(path) as temporary, temporary.open("xb") as file:
        np.savez(file, **arrays)


def read_block(path: Path) -> Block:
    """Reads what `write_block` wrote.

    Raises:
        ProductError: it cannot be read.
    """
    with (
        product_error(f"{path}: cannot be read; remove its folder and run again", *MALFORMED),
        np.load(path, allow_pickle=False) as arrays,
    ):
        nested = {
            name: kind(**{f.name: arrays[f"{name}.{f.name}"] for f in fields(kind)}) for name, kind in _NESTED.items()
        }
        plain = {f.name: arrays[f.name] for f in fields(Block) if f.name not in _NESTED}
        return Block(**plain, **nested)
