"""Documents from outside: within limits, and with one error for everything that is wrong with them."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.untrusted.documents import (
    MOST_DEPTH,
    Document,
    DocumentError,
    parse_json,
    parse_model,
    place_in_yaml,
    read_bytes,
    read_json,
    read_yaml_document,
)


class Sample(Document):
    size: int
    names: tuple[str, ...]


def text(size: int) -> st.SearchStrategy[str]:
    """Any text but NUL, which no file name has: YAML with it is refused."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=size)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | text(9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text(5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_wrote_is_read_again(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


def test_a_file_that_does_not_say_its_size_is_read_to_its_end() -> None:
    path = Path("/proc/self/limits")
    assert path.stat().st_size == 0
    assert read_bytes(path) == path.read_bytes() != b""
    with pytest.raises(DocumentError, match="has more than 9 bytes"):
        read_bytes(path, most=9)


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_document_error(content: bytes) -> None:
    with suppress(DocumentError):
        json.dumps(parse_json(content), allow_nan=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "too large"),
        (b"[" * 100_000, "levels"),
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), "levels"),
        (b"1" * 5_000, "is not JSON"),
    ],
)
def test_defective_json_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "item.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=said):
        read_json(path)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{f}'] * 9)}]\n" for f, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1, column 6"),
        ("a: 1\n\tb: 2", "line 2, column 1"),
        ("a: &x 1\nb: *x\n", "line 2, column 4: aliases"),
        (BOMB, "line 2, column 8: aliases"),
        ("a: 1\na: 2\n", "line 1, column 1: a key occurs twice"),
        ("!!python/object/apply:os.system [id]", "line 1, column 1"),
        ("- " * 200 + "x", "levels"),
        ("[" * 20_000, "levels|line"),
        ("a: 2021-99-99", "is not valid YAML"),
        ("a: 1\n--- \nb: 1\n", "line 2"),
    ],
)
def test_defective_yaml_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said):
        read_yaml_document(path)


@given(VALUES)
def test_what_yaml_wrote_without_aliases_is_read_again(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True

    path = tmp_path_factory.getbasetemp() / "value.yaml"
    path.write_text(yaml.dump(value, Dumper=Plain, allow_unicode=True), encoding="utf-8")
    assert read_yaml_document(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_only_regular_files_within_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(DocumentError, match="more than 10 bytes"):
        read_bytes(tmp_path / "large", most=10)
    assert read_bytes(tmp_path / "large", most=11) == bytes(11)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DocumentError, match=r"not a regular file|Is a directory"):
            read_bytes(path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"size": "1", "names": []}', "size: "),
        ('{"size": true, "names": []}', "size: "),
        ('{"names": []}', "size: Field required"),
        ('{"size": 1, "names": ["a", 2]}', r"names\.1: "),
        ("[]", "object"),
    ],
)
def test_a_model_converts_nothing_and_names_the_key(content: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        parse_model(Sample, content)
    assert parse_model(Sample, '{"size": 1, "names": ["a"], "more": 2}') == Sample(size=1, names=("a",))


def test_the_place_of_a_yaml_key_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("grid:\n  tile: 1\ndomains:\n- name: a\n- name: b\n")
    assert place_in_yaml(path, ("grid", "tile")) == "line 2, column 3"
    assert place_in_yaml(path, ("domains", 1, "name")) == "line 5, column 3"
    assert place_in_yaml(path, ("grid", "missing")) == "line 1, column 1"
