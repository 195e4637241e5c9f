"""The `landcover` command: its options, its subcommands by module, and its exit codes.

Modules are named after the commands they hold. The work is done elsewhere: nothing here loops over data, and commands
import what they run when they run it, so that `--help` and a wrong option are answered at once.
"""

import importlib.metadata
import logging
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.cli import (
    demo_bench_doctor,
    evaluate_sample_calibrate,
    patches_train,
    plan,
    predict_quantize,
    publish_editions_search,
    run_status,
    stage_index,
    submit_requeue,
    verify_report,
)
from pipeline.cli.help import CommandGroups
from pipeline.cli.options import say
from pipeline.errors import LandcoverError

_EXIT_CODES = """Exit codes:
  0  success
  1  a bug in this program; please report it with its traceback
  2  an option, a file, a campaign or this machine has to be fixed
  3  some tiles failed; all others are sealed
  4  a product is damaged or incomplete
  5  stopped on request with tiles left: run the same command again
  6  the Dask cluster was lost: run the same command again"""

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
for module in (
    stage_index,
    plan,
    run_status,
    submit_requeue,
    verify_report,
    publish_editions_search,
    evaluate_sample_calibrate,
    patches_train,
    predict_quantize,
    demo_bench_doctor,
):
    app.add_typer(module.app)


class _LogLines(logging.Handler):
    """Shows log records on the commands' console, where they do not disturb a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line, unwrapped."""
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname)
        say(self.format(record), style=style)


class _LogFormat(logging.Formatter):
    """`20:08:55 message`, with `warning:` or `error:` before the message of these levels."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{super().format(record)}"


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    from pipeline.sources.gdal_drivers import gdal_version

    say(f"landcover-pipeline {__version__}")
    say(f"GDAL {gdal_version()} (rasterio {importlib.metadata.version('rasterio')})")
    for name, package in (("torch", "torch"), ("OpenVINO", "openvino")):
        try:
            say(f"{name} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            say(f"{name} is not installed")
    raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show also what libraries log.")] = False,
    version: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Show the versions of this package, GDAL, torch and OpenVINO, and exit.",
        ),
    ] = False,
) -> None:
    handler = _LogLines()
    handler.setFormatter(_LogFormat())
    # Libraries set their own loggers' levels when they are imported, so it is the handler that chooses.
    handler.addFilter(lambda r: verbose or r.name.startswith("landcover") or r.levelno >= logging.ERROR)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def main() -> NoReturn:
    """Runs the command line. A `LandcoverError` is shown as a message without a traceback; it sets the exit code."""
    try:
        app(standalone_mode=True)
    except LandcoverError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)
