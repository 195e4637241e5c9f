"""Damaged files of every format are read right, or refused by one error that names the file: a short `make fuzz`."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.mutations import mutate
from tests.untrusted.formats import FORMATS

SEED = 1
"""A constant one, so that no unrelated change fails here; `make fuzz` draws others."""


@pytest.mark.slow
def test_one_damaged_file_of_every_format_is_read_right_or_refused() -> None:
    # In a process of its own, because one that has started threads cannot be forked safely.
    command = [sys.executable, "-m", "tests.untrusted.fuzz", "--seed", str(SEED), "--inputs", str(len(FORMATS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": [1, {"b": 0.5}], "c": "2021-01-01"}'),
        ("a.yaml", b"a: [1, 2]\nb: {c: text}\n"),
        ("a.csv", b"a.tif,b.tif\nc.tif,d.tif\n"),
        ("a.bin", bytes(range(256)) * 40),
    ],
)
def test_mutations_are_many_and_repeatable(name: str, content: bytes) -> None:
    drawn = [mutate(content, random.Random(seed), name) for seed in range(200)]
    assert drawn == [mutate(content, random.Random(seed), name) for seed in range(200)]
    (_, most), *_ = Counter(drawn).most_common(1)
    assert most < 40
    assert len(set(drawn)) > 60
