"""A STAC API on loopback."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RUSTAC = Path(sys.executable).with_name("rustac")
"""Comes with the package."""


@contextmanager
def stac_api(items: Path) -> Iterator[str]:
    """`rustac serve` on a free port of loopback, stopped at the end; yields its URL.

    Args:
        items: a JSON of items, whose collections are made.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ["serve", "--addr", address, "--create-collections", str(items)]
    process = subprocess.Popen([_RUSTAC, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "rustac serve ended"
            try:
                urllib.request.urlopen(f"http://{address}/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError("rustac serve does not answer")
        yield f"http://{address}/"
    finally:
        process.terminate()
        process.wait()
