"""The reference of the `landcover` command, from the functions that typer calls."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import typer
from typer.models import ArgumentInfo, CommandInfo, OptionInfo, ParameterInfo
from typer.utils import get_params_from_function

from docs.builder.errors import DocsError
from docs.builder.markdown import code, prose, table
from pipeline.cli import app

_EXAMPLE = "Example: "


@dataclass(frozen=True)
class _Parameter:
    """An argument or an option of a command."""

    name: str
    kind: Any
    """Its type, without what typer adds."""
    info: ParameterInfo

    @property
    def is_argument(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def required(self) -> bool:
        return self.info.default is ...

    @property
    def metavar(self) -> str:
        """Name of the value in the usage: `CONFIG`, `INTEGER`; empty for a flag."""
        if self.info.metavar:
            return str(self.info.metavar)
        kind = next((a for a in get_args(self.kind) if a is not type(None)), self.kind) if self._optional else self.kind
        if kind is bool:
            return ""
        return {str: "TEXT", int: "INTEGER", float: "FLOAT"}.get(kind, "PATH" if not self.choices else "")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, where they are listed."""
        kinds = (self.kind, *get_args(self.kind))
        return next((get_args(k) for k in kinds if get_origin(k) is Literal), ())

    @property
    def _optional(self) -> bool:
        return type(None) in get_args(self.kind) or get_origin(self.kind) is list


def commands() -> str:
    """A heading for each command, in alphabetical order: what it does, its usage, arguments, options and an example.

    Raises:
        DocsError: a command, an argument or an option has no help, or a command has no example.
    """
    found = dict(_registered(app))
    return "\n\n".join(_command(name, found[name]) for name in sorted(found))


def command_options() -> dict[str, frozenset[str]]:
    """The options of each command, by the command's name."""
    return {
        name: frozenset(flag for p in _parameters(command.callback) if not p.is_argument for flag in _names(p))
        for name, command in _registered(app)
        if command.callback is not None
    }


def _registered(group: typer.Typer) -> Iterator[tuple[str, CommandInfo]]:
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            yield command.name or command.callback.__name__.replace("_", "-"), command
    for part in group.registered_groups:
        if part.typer_instance is not None:
            yield from _registered(part.typer_instance)


def _command(name: str, command: CommandInfo) -> str:
    if command.callback is None or not command.callback.__doc__:
        raise DocsError(f"landcover {name} has no docstring")
    example = (command.epilog or "").strip()
    if not example.startswith(_EXAMPLE):
        raise DocsError(f"landcover {name} has no example in its epilog")
    parameters = list(_parameters(command.callback))
    if unexplained := [p.name for p in parameters if not p.info.help]:
        raise DocsError(f"landcover {name}: no help for {', '.join(unexplained)}")
    arguments = [p for p in parameters if p.is_argument]
    options = [p for p in parameters if not p.is_argument]
    parts = [f"## {name}", prose(command.callback.__doc__), _shell(_usage(name, arguments, options))]
    if arguments:
        parts.append(table(("argument", "meaning"), [(code(p.metavar), prose(p.info.help)) for p in arguments]))
    if options:
        rows = [(_flags(p), _default(p), prose(p.info.help)) for p in options]
        parts.append(table(("option", "default", "meaning"), rows))
    return "\n\n".join([*parts, "Example:", _shell(example.removeprefix(_EXAMPLE))])


def _parameters(callback: Callable[..., Any]) -> Iterator[_Parameter]:
    for name, parameter in get_params_from_function(callback).items():
        if isinstance(parameter.default, ParameterInfo):
            yield _Parameter(name, parameter.annotation, parameter.default)


def _usage(name: str, arguments: list[_Parameter], options: list[_Parameter]) -> str:
    required = [f"{_names(p)[0]} {p.metavar}" for p in options if p.required]
    return " ".join(["landcover", name, *(p.metavar for p in arguments), *required, "[OPTIONS]"])


def _shell(line: str) -> str:
    return f"```sh\n{line}\n```"


def _names(option: _Parameter) -> tuple[str, ...]:
    declared = option.info.param_decls if isinstance(option.info, OptionInfo) else None
    return tuple(declared or (f"--{option.name.replace('_', '-')}",))


def _flags(option: _Parameter) -> str:
    names = " or ".join(code(n) for n in _names(option))
    if option.choices:
        return f"{names} {', '.join(code(c) for c in option.choices)}"
    return f"{names} {code(option.metavar)}" if option.metavar else names


def _default(option: _Parameter) -> str:
    if option.required:
        return "**required**"
    default = option.info.default
    if isinstance(default, bool):
        return "on" if default else ""
    return "" if default in (None, "", ()) else code(default)
