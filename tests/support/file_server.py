"""A file server on loopback with byte ranges, which may require a token, redirect or fail.

`python -m tests.support.file_server FOLDER [TOKEN]`

It runs in a process of its own, because GDAL waits for answers without letting Python's other threads run. Beside the
folder's files it serves:

    /headers               the request's headers and body as JSON
    /redirect/URL          a redirect to the quoted URL, with the status in the query `?303`
    /moved/URL             likewise for GET; HEAD answers as if the file were here
    /busy/COUNT/PATH       the file after COUNT answers of 503 with `Retry-After: 7`
    /breaking/COUNT/PATH   the file after COUNT answers that end before their length
"""

import http.server
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from tests.support.paths import ROOT

TOKEN_HEADER = "X-Token"  # noqa: S105  (a header's name)


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves files and their ranges to requests with the right token."""

    token = ""
    requests: ClassVar[Counter[str]] = Counter()
    """How often each path was requested."""

    def do_GET(self) -> None:
        if self.path.startswith("http://"):  # as a proxy is requested
            self.path = urlsplit(self.path).path
        self.requests[self.path] += 1
        kind, _, rest = self.path.removeprefix("/").partition("/")
        if kind in ("redirect", "moved"):
            self._redirect(rest)
        elif not self._allowed():
            return
        elif kind == "headers":
            self._send_headers()
        elif kind in ("busy", "breaking"):
            count, _, path = rest.partition("/")
            failing = self.requests[self.path] <= int(count)
            self.path = f"/{path}"
            self._fail(kind) if failing else self._send_file()
        else:
            self._send_file()

    def do_HEAD(self) -> None:
        if self.path.startswith("/redirect/"):
            self._redirect(self.path.removeprefix("/redirect/"))
        elif self.path.startswith("/moved/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        elif self._allowed():
            super().do_HEAD()

    def do_POST(self) -> None:
        self.do_GET()

    def _redirect(self, quoted: str) -> None:
        parts = urlsplit(quoted)
        self.send_response(int(parts.query or 302))
        self.send_header("Location", unquote(parts.path))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_headers(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        content = json.dumps({"method": self.command, "headers": dict(self.headers), "body": body}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, kind: str) -> None:
        self.send_response(503 if kind == "busy" else 200)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Length", "0" if kind == "busy" else "1000")
        self.end_headers()
        if kind == "breaking":
            self.wfile.write(b"only a part")
            self.close_connection = True

    def _send_file(self) -> None:
        span = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if span is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, _, last = span.removeprefix("bytes=").partition("-")
        if not first:
            first, last = str(max(0, len(content) - int(last))), ""
        part = content[int(first) : int(last or len(content)) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

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
