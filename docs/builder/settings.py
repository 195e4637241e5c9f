"""Tables of the keys that a YAML file takes, from the pydantic model that reads it."""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.builder.errors import DocsError
from docs.builder.markdown import code, prose, table

_SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
_PLAIN = {
    bool: "`true` or `false`",
    str: "text",
    int: "whole number",
    float: "number",
    Path: "path",
    BaseModel: "section",
}
"""Type → its name in a table; the first that a type is derived from."""


def settings(model: type[BaseModel]) -> str:
    """The reference of one YAML file: a heading and a table for the file and for each section in it.

    Args:
        model: the model of the whole file.

    Returns:
        Markdown that starts with the file's own keys; a section's heading is its dotted key.

    Raises:
        DocsError: a key has no description (a string under the field).
    """
    missing: list[str] = []
    parts = [_section(key, part, missing) for key, part in _sections("", model)]
    if missing:
        raise DocsError(f"keys without a description; write a string under the field: {', '.join(missing)}")
    return "\n\n".join(parts)


def _sections(key: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield key, model
    for name, field in _fields(model):
        for part in _models(field.annotation):
            yield from _sections(f"{key}.{name}".strip("."), part)


def _section(key: str, model: type[BaseModel], missing: list[str]) -> str:
    described = _descriptions(model)
    rows = []
    for name, field in _fields(model):
        if name not in described:
            missing.append(f"{model.__name__}.{name}")
        rows.append((code(name), _linked(key, name, field), _default(field), described.get(name, "")))
    title = f"## {code(key)} {{ #{key} }}" if key else "## Top level { #top-level }"
    return "\n\n".join([title, prose(model.__doc__), table(("key", "type", "default", "meaning"), rows)])


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields that a YAML gives; those that are excluded are set by the program."""
    return ((name, field) for name, field in model.model_fields.items() if not field.exclude)


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The string under each field, by the field's name; of a section in the file, what its class says."""
    found = {name: _summary(part) for name, field in _fields(model) for part in _models(field.annotation)}
    for base in reversed([c for c in model.__mro__ if issubclass(c, BaseModel) and c is not BaseModel]):
        for statement, below in pairwise(_statements(base)):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = prose(inspect.cleandoc(text))
                case _:
                    pass
    return found


def _statements(kind: type) -> list[ast.stmt]:
    """The statements in a class's body."""
    (definition,) = ast.parse(dedent(inspect.getsource(kind))).body
    return definition.body if isinstance(definition, ast.ClassDef) else []


def _summary(model: type[BaseModel]) -> str:
    return prose(model.__doc__).partition("\n\n")[0]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _linked(key: str, name: str, field: FieldInfo) -> str:
    target = f"{key}.{name}".strip(".")
    return re.sub(r"sections?", lambda found: f"[{found[0]}](#{target})", _type(field), count=1)


def _type(field: FieldInfo) -> str:
    limits = [f"{_SIGNS[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in field.metadata if type(m) in _SIGNS]
    least = [f"at least {m.min_length}" for m in field.metadata if isinstance(m, MinLen)]
    return ", ".join([_name(field.annotation), *limits, *least])


def _name(annotation: Any) -> str:
    """What a key takes, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name(arguments[0])
    if origin is Literal:
        return ", ".join(code(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(a) for a in arguments if a is not type(None))
    if origin is not None:
        return _container(origin, arguments)
    return next(name for kind, name in _PLAIN.items() if issubclass(annotation, kind))


def _container(origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin is dict:
        return f"map of {_plural(arguments[0])} to {_plural(arguments[1])}"
    count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    return f"list of {count}{_plural(arguments[0])}"


def _plural(annotation: Any) -> str:
    name = _name(annotation)
    return f"{name}s" if name in ("number", "whole number", "path", "section") else name


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.default
    if default is PydanticUndefined or isinstance(default, BaseModel) or default == {}:
        return ""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return code(str(default).lower())
    if isinstance(default, tuple):
        return code(f"[{', '.join(str(d) for d in default)}]")
    return code(default) if default != "" else "empty"
