"""The command `landcover` and its `--help`: commands in groups, names in one column, examples as they are typed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pipeline.untrusted.escape import for_terminal_lines

Function = TypeVar("Function", bound=Callable[..., None])
GROUPS = {
    "Get": ("fetch", "stage", "index", "init"),
    "Map": ("map", "plan", "run", "status", "predict"),
    "Publish": ("publish", "editions", "generalise", "vectorize", "report"),
    "Judge": ("verify", "evaluate", "sample", "calibrate"),
    "Ask": ("view", "legend", "search", "change"),
    "Train": ("patches", "train", "quantize"),
    "Cluster": ("submit", "doctor", "bench", "demo"),
}
"""Heading → its commands, in the order of `landcover --help`. `requeue`, which job scripts call, is hidden."""
_EXIT_CODES = """Exit codes:
  0  success
  1  a bug in this program; please report it with its traceback
  2  an option, a file, a campaign or this machine has to be fixed
  3  some tiles failed; all others are sealed
  4  a product is damaged or incomplete
  5  stopped on request with tiles left: run the same command again
  6  the Dask cluster was lost: run the same command again"""


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


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Escapes what an error of typer repeats of the command line."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and isinstance(getattr(error, "message", None), str):
            error.message = for_terminal_lines(error.message)  # type: ignore[attr-defined]
        raise


class CommandGroups(_PlainEpilog, TyperGroup):
    """`landcover`, whose help lists the commands in groups."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Reads the options of `landcover` itself."""
        with _one_line_errors():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Reads the options of the command and runs it."""
        with _one_line_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Writes one section per group."""
        width = max(map(len, self.commands))
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(n.ljust(width), self.commands[n].get_short_help_str(200)) for n in names])


app = typer.Typer(
    name="landcover",
    cls=CommandGroups,
    help="Map the land cover of a whole country at 20 cm: BD ORTHO deliveries → COGs → one national Zarr.\n\n"
    "A campaign is a YAML file that names imagery, model and outputs (see configs/campaign-example.yaml). "
    "A domain is one département in one vintage, such as D034_2021.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(*examples: str, hidden: bool = False) -> Callable[[Function], Function]:
    """Registers a function as a command of `app`.

    Args:
        examples: commands that `--help` shows; lines that belong together are one string.
        hidden: not in the list of commands.
    """
    lines = "\n".join(f"  {line}" for example in examples for line in example.splitlines())
    title = "Examples" if len(examples) > 1 else "Example"
    return app.command(cls=Command, epilog=f"{title}:\n{lines}", hidden=hidden)


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
