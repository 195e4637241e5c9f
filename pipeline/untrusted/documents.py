"""Reads JSON, YAML and XML that anybody may have written: within limits, and with one error for all defects.

What a document means is checked by the pydantic model or the code behind it.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError, fromstring

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.untrusted.own_files import open_regular

_Model = TypeVar("_Model")

MOST_BYTES = 64 << 20
"""Bytes of a document: a collection of a nation's tiles has some 5 MB."""
MOST_YAML_BYTES = 1 << 20
"""Bytes of a YAML file, which a person writes."""
MOST_DEPTH = 64
"""Levels of objects and lists inside each other; GeoJSON has six."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""NUL and halves of surrogate pairs: escapes can write them, and no file name has them."""


class DocumentError(ValueError):
    """A document cannot be read, is too large or too deep, or is not as expected. The caller names file and remedy."""


class Document(BaseModel):
    """Base of what a JSON file must contain: no type is converted, and unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is none.
        DocumentError: it is no regular file, is too large, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            # Not `most` at once: memory for all of it would be reserved, which takes longer than most files.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, most) + 1)
            if len(content) > size:  # it grew meanwhile, or its size is not known
                content += file.read(most + 1 - len(content))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except (OSError, ValueError) as error:
        raise DocumentError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > most:
        raise DocumentError(f"has more than {most:,} bytes, the limit for such a file")
    return content


def read_json(path: Path, *, most: int = MOST_BYTES) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: there is none.
        DocumentError: it cannot be read, is too large, is not JSON in UTF-8, or is too deep.

    Example:
        >>> read_json(Path("build/demo/summary.json"))["tiles"]
        18
    """
    return parse_json(read_bytes(path, most=most))


def parse_json(content: bytes | str) -> Any:
    """Parses JSON: finite numbers only, and at most `MOST_DEPTH` levels.

    Raises:
        DocumentError: it is not such JSON.

    Example:
        >>> parse_json('{"a": [1, 2]}')
        {'a': [1, 2]}
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise DocumentError(f"is not valid: more than {MOST_DEPTH} levels inside each other") from error
    except ValueError as error:
        raise DocumentError(f"is not JSON: {error}") from error
    # The usual document has too few brackets to be deep.
    brackets = (b"[", b"{") if isinstance(content, bytes) else ("[", "{")
    if sum(map(content.count, brackets)) >= MOST_DEPTH:  # type: ignore[arg-type]
        _check_depth(value)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def read_model(kind: type[_Model], path: Path) -> _Model:
    """Reads a JSON file into a `Document` or a dataclass, strictly: no type is converted.

    Raises:
        FileNotFoundError: there is none.
        DocumentError: as for `read_json`, or a value is missing or not as expected. The message names its key.
    """
    return parse_model(kind, read_bytes(path))


def parse_model(kind: type[_Model], content: bytes | str) -> _Model:
    """Parses JSON into a `Document` or a dataclass, strictly.

    Raises:
        DocumentError: as for `parse_json`, or a value is missing or not as expected.

    Example:
        >>> parse_model(tuple[int, ...], "[1, 2]")
        (1, 2)
    """
    parse_json(content)  # the limits
    try:
        made: _Model = _adapter(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DocumentError(f"is not valid: {where + ': ' if where else ''}{first['msg']}") from error
    return made


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [
        item
        for parent in level
        if isinstance(parent, dict | list)
        for item in (parent.values() if isinstance(parent, dict) else parent)
        if isinstance(item, dict | list)
    ]:
        depth += 1
        if depth >= MOST_DEPTH:
            raise DocumentError(f"is not valid: more than {MOST_DEPTH} levels inside each other")


def parse_xml(content: bytes) -> Element:
    """Parses XML in UTF-8 without a document type, and so without entities, which grow or name files.

    Raises:
        DocumentError: it is not such XML.

    Example:
        >>> parse_xml(b"<a><b/></a>").tag
        'a'
    """
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise DocumentError("has a document type, which may declare entities; expected XML without one")
        return fromstring(text)  # noqa: S314  entities can be declared in a document type only
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8: byte {error.start} is {content[error.start]:#04x}") from error
    except (ParseError, ValueError) as error:
        raise error if isinstance(error, DocumentError) else DocumentError(f"is not XML: {error}") from error


def read_yaml_document(path: Path) -> Any:
    """Reads one YAML document without aliases, with unique keys.

    Raises:
        FileNotFoundError: there is none.
        DocumentError: it cannot be read, is too large, is not YAML in UTF-8, has aliases, or is too deep. The message
            names line and column.
    """
    content = read_bytes(path, most=MOST_YAML_BYTES)
    try:
        return yaml.load(content.decode("utf-8"), Loader=_PlainLoader)  # noqa: S506  a SafeLoader with less
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8: byte {error.start} is {content[error.start]:#04x}") from error
    except RecursionError as error:
        raise DocumentError(f"is not valid: more than {MOST_DEPTH} levels inside each other") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentError(f"is not valid YAML: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise DocumentError(f"is not valid YAML: {error}") from error


def place_in_yaml(path: Path, keys: Sequence[str | int]) -> str:
    """`line 3, column 5`: where the value under these keys begins, or the last of them that the file has."""
    node = yaml.compose(read_bytes(path, most=MOST_YAML_BYTES).decode("utf-8"), Loader=_PlainLoader)
    if node is None:
        return "line 1, column 1"
    mark = node.start_mark
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            below = next((pair for pair in node.value if pair[0].value == str(key)), None)
            if below is not None:
                mark, node = below[0].start_mark, below[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            mark = node.start_mark
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, whose copies grow without limit, with unique keys, and of limited depth."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases are not allowed; repeat the value", problem_mark=event.start_mark
            )
        self._depth += 1
        try:
            if self._depth > MOST_DEPTH:
                raise DocumentError(f"is not valid: more than {MOST_DEPTH} levels inside each other")
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_scalar(self, node: Any) -> Any:
        value: Any = super().construct_scalar(node)
        if isinstance(value, str) and _NO_TEXT.search(value):
            raise yaml.MarkedYAMLError(
                problem="a text has a character that no file name has", problem_mark=node.start_mark
            )
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  PyYAML's signature
        mapping = super().construct_mapping(node, deep=deep)
        if isinstance(node, yaml.MappingNode) and len(mapping) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key occurs twice", problem_mark=node.start_mark)
        return mapping
