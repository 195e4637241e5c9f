"""Debian's nginx on a folder: a web server that knows nothing of the product."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import LONGEST_S

_CONFIGURATION = """
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{}}
http {{
  types {{
    text/html html; text/css css; text/javascript js; application/json json; image/png png;
  }}
  access_log {work}/access.log;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  disable_symlinks on;
  server {{
    listen 127.0.0.1:{port};
    root {folder};
  }}
}}
"""


@contextmanager
def serving_with_nginx(folder: Path, work: Path) -> Iterator[str]:
    """Serves a folder until the block ends; yields its URL. Skips where nginx is not installed.

    Args:
        folder: that has no symbolic links; nginx would refuse them.
        work: an empty folder for nginx, with `access.log`.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = work / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(work=work, folder=folder, port=port))
    with subprocess.Popen([found, "-c", str(configuration), "-e", str(work / "error.log")]) as process:
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        assert process.poll() is None, "nginx ended"
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("nginx does not answer")
