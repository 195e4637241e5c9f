"""The `landcover` command: its options, its subcommands by module, and its exit codes.

Modules are named after the commands they hold; `networks` has those that make or apply networks. The work is done
elsewhere: nothing here loops over data, and commands import what they run when they run it, so that `--help` and a
wrong option are answered at once.
"""

import gc
import importlib.metadata
import logging
import time
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.cli import (  # noqa: F401  (their functions become commands when they are imported)
    demo_bench_doctor,
    evaluate_sample_calibrate,
    fetch_stage_index,
    init_map,
    networks,
    plan_run,
    publish_editions_search,
    status_submit_requeue,
    verify_report,
)
from pipeline.cli.help import app
from pipeline.cli.output import say, say_traceback
from pipeline.errors import LandcoverError

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Runs the command line. A `LandcoverError` is shown as a message without a traceback; it sets the exit code."""
    try:
        app(standalone_mode=True)
    except LandcoverError as error:
        say(f"error: {error}", on=Console(stderr=True))
        raise SystemExit(error.exit_code) from None
    except Exception as error:  # noqa: BLE001  (the process ends)
        say_traceback(error, on=Console(stderr=True))
        raise SystemExit(1) from None
    finally:
        # The process ends: the garbage collector's last round over all that is imported would take up to a second.
        gc.freeze()
    raise SystemExit(0)


class _LogLines(logging.Handler):
    """Shows log records on the commands' console, where they do not disturb a progress bar.

    `20:08:55 message`, with `warning:` or `error:` before the message of these levels.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message unwrapped, then the traceback if there is one."""
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname)
        level = f"{record.levelname.lower()}: " if style else ""
        say(f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {level}{record.getMessage()}", style=style)
        if record.exc_info and record.exc_info[1]:
            say_traceback(record.exc_info[1])


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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show also a line for each tile, and what libraries log.")
    ] = False,
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
    # Libraries set their own loggers' levels when they are imported, so it is the handler that chooses.
    handler.addFilter(lambda r: verbose or r.name.startswith("landcover") or r.levelno >= logging.ERROR)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if verbose:
        logging.getLogger("landcover").setLevel(logging.DEBUG)
