"""The entry point of the command line: an error becomes a message and the process's exit code."""

from typing import NoReturn

from rich.console import Console

from pipeline.cli.help import app
from pipeline.cli.output import say, say_traceback
from pipeline.errors import LandcoverError


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
    raise SystemExit(0)
