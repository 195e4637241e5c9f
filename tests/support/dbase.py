"""dBASE tables as they lie beside shapefiles."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_table(path: Path, fields: Mapping[str, int], rows: Sequence[tuple[str, ...]], *, kind: str = "C") -> None:
    """Writes a dBASE III table.

    Args:
        path: the `.dbf` file.
        fields: name → width in bytes.
        rows: values as text.
        kind: type of all fields: C for text, D for dates, N for numbers.
    """
    length = 1 + sum(fields.values())
    head = struct.pack("<BBBBIHH20x", 3, 121, 6, 1, len(rows), 33 + 32 * len(fields), length)
    described = b"".join(
        n.encode().ljust(11, b"\0") + struct.pack("<c4xB15x", kind.encode(), w) for n, w in fields.items()
    )
    records = b"".join(
        b" " + b"".join(v.encode("latin-1").ljust(w) for v, w in zip(row, fields.values(), strict=True)) for row in rows
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + described + b"\r" + records + b"\x1a")
