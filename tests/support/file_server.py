"""A file server on loopback with byte ranges, which may want a token.

`python -m tests.support.file_server FOLDER [TOKEN]`

A process of its own, because GDAL waits for its answers without letting Python's other threads run.
"""

import http.server
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

TOKEN_HEADER = "X-Token"  # noqa: S105  (a header's name)


class Files(http.server.SimpleHTTPRequestHandler):
    """Files and their ranges, where the token is right."""

    token = ""

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not self._allowed():
            return
        if span is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last or len(content)) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def do_HEAD(self) -> None:
        if self._allowed():
            super().do_HEAD()

    def _allowed(self) -> bool:
        if self.token and self.headers.get(TOKEN_HEADER) != self.token:
            self.send_error(403)
            return False
        return True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, *, token: str = "") -> Iterator[str]:
    """Serves a folder until the block ends; yields its URL."""
    command = [sys.executable, "-m", "tests.support.file_server", str(folder), token]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate()


def main(folder: str, token: str = "") -> None:
    Files.token = token
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder)) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
