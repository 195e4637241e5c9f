"""A STAC API on loopback."""

import os
import platform
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import rustac

from tests.support.waiting import wait_until

_RUSTAC = Path(sys.executable).with_name("rustac")
"""Comes with the package."""


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def duckdb_home(folder: Path) -> Path:
    """A home in which rustac's DuckDB finds the extensions that it would fetch from the internet.

    Args:
        folder: an empty one, which becomes the home.
    """
    extensions = folder / ".duckdb" / "extensions"
    for name in ("icu", "parquet", "spatial"):
        package = f"duckdb_extension_{name}"
        pytest.importorskip(package, reason=f"{package} is not installed: make install")
        for version in (Path(str(files(package))) / "extensions").iterdir():
            place = extensions / version.name / f"linux_{_MACHINES.get(platform.machine(), platform.machine())}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.duckdb_extension").symlink_to(version / f"{name}.duckdb_extension")
    try:
        rustac.DuckdbClient(extension_directory=extensions, install_extensions=False)
    except rustac.RustacError as error:
        pytest.skip(f"the installed extensions are not those of rustac's DuckDB; make install: {error}")
    return folder


@contextmanager
def stac_api(items: Path, *, home: Path | None = None) -> Iterator[str]:
    """`rustac serve` on a free port of loopback, stopped at the end; yields its URL.

    Args:
        items: a JSON of items, which are served from memory, or a stac-geoparquet, from which DuckDB answers.
        home: of the server, from `duckdb_home`; needed for a stac-geoparquet where there is no internet.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ["serve", "--addr", address, "--create-collections", str(items)]
    environment = os.environ if home is None else {**os.environ, "HOME": str(home)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([_RUSTAC, *arguments], env=environment, **quiet)
    try:
        wait_until(lambda: _answers(address, process))
        yield f"http://{address}/"
    finally:
        process.terminate()
        process.wait()


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "rustac serve ended"
    try:
        urllib.request.urlopen(f"http://{address}/", timeout=5).close()
    except OSError:
        return False
    return True
