"""A STAC API on loopback whose answers are files, so that they can be damaged."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

CORE = "https://api.stacspec.org/v1.0.0/core"
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"


def write_answers(folder: Path, item: dict[str, Any]) -> None:
    """Writes the first page of an API, and the answer to any search: one item, whose assets have absolute names."""
    folder.mkdir()
    links = [
        {"rel": rel, "href": f"@host@{place}"} for rel, place in (("self", ""), ("root", ""), ("search", "search"))
    ]
    landing = {"type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "An API", "links": links}
    (folder / "landing.json").write_text(json.dumps(landing | {"conformsTo": [CORE, SEARCH]}))
    about = {"links": [{"rel": "self", "href": "@host@items/1"}]}
    for asset in (item := json.loads(json.dumps(item)) | about)["assets"].values():
        asset["href"] = f"@host@{Path(asset['href']).name}"
    answer = {"type": "FeatureCollection", "features": [item], "links": []}
    (folder / "search.json").write_text(json.dumps(answer))


class _Answers(BaseHTTPRequestHandler):
    folder: ClassVar[Path]

    def do_GET(self) -> None:
        name = "search.json" if self.path.startswith("/search") else "landing.json"
        content = (self.folder / name).read_bytes().replace(b"@host@", f"http://{self.headers['Host']}/".encode())
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:  # type: ignore[override]
        """Says nothing."""


@contextmanager
def api_answers(folder: Path) -> Iterator[str]:
    """Serves the answers in a thread; yields the URL."""
    _Answers.folder = folder
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
