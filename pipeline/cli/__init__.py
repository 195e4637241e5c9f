"""Commands and exit codes. What they do lives elsewhere: nothing here loops over data.

Exit codes: 0 done; 1 a defect of ours, with its traceback; 2 something to mend in what was given; 3 some
tiles failed, the others are sealed; 4 a product is not what its items say, or not complete; 5 stopped as it was
asked to, with more to do: run again; 6 the cluster could not be had or was lost: run again.
"""

import logging
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from pipeline import __version__
from pipeline.cli import accuracy, campaigns, editions, tools, training
from pipeline.cli import ingest as deliveries
from pipeline.cli import search as catalogue
from pipeline.cli import slurm as clusters
from pipeline.cli.options import console
from pipeline.errors import LandcoverError

_EXIT_CODES = """Exit codes: 0 done · 2 something to mend in what was given · 3 some tiles failed, the others are
sealed · 4 a product is damaged or not complete · 5 stopped when asked, more to do: run again · 6 the cluster was lost:
run again · 1 a defect of the program."""

app = typer.Typer(
    name="landcover",
    help="Map a whole country's land cover at 20 cm: BD ORTHO deliveries → COGs → one national Zarr.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (deliveries, campaigns, editions, catalogue, clusters, accuracy, training, tools):
    app.add_typer(part.app)


def _version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,  # noqa: ARG001
) -> None:
    handler = RichHandler(console=console, show_path=False, show_level=False, markup=False, highlighter=None)
    # Libraries set their own loggers' levels when they are imported, so it is the handler that chooses.
    handler.addFilter(lambda r: verbose or r.name.startswith("landcover") or r.levelno >= logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def main() -> NoReturn:
    """The `landcover` command: our own errors are a message and an exit code, without a traceback."""
    try:
        app(standalone_mode=True)
    except LandcoverError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)
