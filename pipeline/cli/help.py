"""How `--help` looks: commands in groups, one column for names and one for text, examples as they are typed."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

Function = TypeVar("Function", bound=Callable[..., None])
Group = Literal[
    "Prepare the imagery",
    "Map",
    "Check, publish and search",
    "Measure accuracy",
    "Train and apply networks",
    "Try out and measure this machine",
]
"""Headings of `landcover --help`."""


class _PlainEpilog:
    """Shows the epilog as it is; typer would indent it and wrap its lines anew."""

    epilog: str | None

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Writes the epilog."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


class Command(_PlainEpilog, TyperCommand):
    """A command whose help names arguments without Python types, which typer would add: `DATA <list[Path]>`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, then options."""
        for title, kind in (("Arguments", TyperArgument), ("Options", TyperOption)):
            records = [(p, p.get_help_record(ctx)) for p in self.get_params(ctx) if isinstance(p, kind)]
            rows = [(p.metavar if kind is TyperArgument else r[0], r[1]) for p, r in records if r]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class CommandGroups(_PlainEpilog, TyperGroup):
    """`landcover`, whose help lists the commands under the headings that they were registered with."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Writes one section per heading."""
        width = max(map(len, self.commands))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(heading, []).append((name.ljust(width), command.get_short_help_str(200)))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def command(app: typer.Typer, *examples: str, group: Group) -> Callable[[Function], Function]:
    """Registers a function as a command.

    Args:
        app: where.
        examples: commands that `--help` shows; lines that belong together are one string.
        group: heading in the list of all commands.
    """
    lines = "\n".join(f"  {line}" for example in examples for line in example.splitlines())
    title = "Examples" if len(examples) > 1 else "Example"
    return app.command(cls=Command, epilog=f"{title}:\n{lines}", rich_help_panel=group)


def option(name: str, description: str, **details: Any) -> Any:
    """An option for `Annotated`; `details` are those of `typer.Option`.

    Args:
        name: as it is typed, with the word that stands for the value: `--nodes N`.
        description: what `--help` says.
    """
    flag, _, value = name.partition(" ")
    return typer.Option(flag, metavar=value or None, help=description, **details)


def argument(name: str, description: str, **details: Any) -> Any:
    """An argument for `Annotated`, as `option`; `--help` does not show its default."""
    return typer.Argument(metavar=name, help=description, show_default=False, **details)
