"""The server of a product: single files and ranges for who has the token, and nothing beside the product."""

import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import ProductError
from pipeline.products.map_page.server import ProductServer, Reply

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def product(tmp_path: Path) -> Path:
    editions = tmp_path / "national" / "editions" / "000001"
    editions.mkdir(parents=True)
    (editions / "chunk").write_bytes(CONTENT)
    (editions / "empty.json").touch()
    (editions / ".hidden").write_text("no")
    (tmp_path / "secret").write_text("no")
    (editions / "link").symlink_to(tmp_path / "secret")
    (editions / "folder").symlink_to(tmp_path)
    os.mkfifo(editions / "pipe")
    return tmp_path


@pytest.fixture
def server(product: Path) -> Iterator[ProductServer]:
    (product / "by-link").symlink_to(product / "national" / "editions")
    with serving(ProductServer({("national", "editions"): product / "by-link"})) as opened:
        yield opened


@contextmanager
def serving(server: ProductServer) -> Iterator[ProductServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(
    server: ProductServer, path: str, *, method: str = "GET", token: str | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers; underscores in names of headers become hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"/{server.token if token is None else token}/{path}", headers=sent)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.headers)


CHUNK = "national/editions/000001/chunk"


def test_a_file_of_the_product_is_served_whole_and_head_gives_its_size(server: ProductServer) -> None:
    status, body, headers = ask(server, CHUNK)
    assert (status, body) == (200, CONTENT)
    assert headers["Accept-Ranges"] == "bytes"
    status, body, headers = ask(server, CHUNK, method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "1024")
    assert ask(server, "national/editions/000001/empty.json")[:2] == (200, b"")
    assert ask(server, f"{CHUNK}?query")[0] == 200


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("1000-", 1000, 1024),
        ("-24", 1000, 1024),
        ("1000-9999", 1000, 1024),
        ("-9999", 0, 1024),
    ],
)
def test_a_range_is_served(server: ProductServer, wanted: str, start: int, stop: int) -> None:
    status, body, headers = ask(server, CHUNK, Range=f"bytes={wanted}")
    assert (status, body) == (206, CONTENT[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=-0", "bytes=2000-3000"])
def test_a_range_without_bytes_is_refused(server: ProductServer, wanted: str) -> None:
    status, body, headers = ask(server, CHUNK, Range=wanted)
    assert (status, body, headers["Content-Range"]) == (416, b"", "bytes */1024")


@pytest.mark.parametrize("wanted", ["bytes=", "bytes=-", "bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b"])
def test_what_is_no_single_range_gets_the_whole_file(server: ProductServer, wanted: str) -> None:
    assert ask(server, CHUNK, Range=wanted)[:2] == (200, CONTENT)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "national/editions",
        "national/editions/000001",
        "national/editions/000001/",
        "national/editions/000001/absent",
        "national/editions/000001/.hidden",
        "national/editions/000001/link",
        "national/editions/000001/folder/secret",
        "national/editions/000001/pipe",
        "national/editions/../../secret",
        "national/editions/%2e%2e/%2e%2e/secret",
        "national/editions/..%2f..%2fsecret",
        "national/editions//000001/chunk",
        "national/editions/000001/chunk%00",
        "national/editions/%ff",
        "secret",
    ],
)
def test_folders_links_and_what_lies_outside_are_not_there(server: ProductServer, path: str) -> None:
    assert ask(server, path)[:2] == (404, b"")


def test_without_the_token_nothing_is_served(server: ProductServer) -> None:
    for token in ("", "x", server.token[:-1], "%C3%A9"):
        assert ask(server, CHUNK, token=token)[0] == 403


def test_another_name_of_the_host_is_refused(server: ProductServer) -> None:
    assert ask(server, CHUNK, Host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, CHUNK, Host=f"elsewhere.example:{server.server_port}")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get_and_head_are_answered(server: ProductServer, method: str) -> None:
    assert ask(server, CHUNK, method=method)[0] == 501


def test_it_listens_on_loopback_only_with_a_new_token_each_time(product: Path) -> None:
    with ProductServer({(): product}) as one, ProductServer({(): product}) as two:
        assert one.server_address[0] == "127.0.0.1"
        assert one.token != two.token
        assert len(one.token) >= 32


def test_computed_replies_come_before_files(product: Path) -> None:
    def fail(_: str) -> Reply:
        raise ProductError("the tile cannot be read")

    answers = {
        "national/editions/000001/chunk": lambda rest: Reply(f"[{rest!r}]".encode()),
        "made/": lambda rest: Reply(rest.encode(), "text/plain") if rest != "absent" else None,
        "broken": fail,
    }
    with serving(
        ProductServer({("national", "editions"): product / "national" / "editions"}, answers=answers)
    ) as server:
        assert ask(server, CHUNK)[:2] == (200, b"['']")
        status, body, headers = ask(server, "made/1/2")
        assert (status, body, headers["Content-Type"]) == (200, b"1/2", "text/plain")
        assert ask(server, "made/1/2", method="HEAD")[:2] == (200, b"")
        assert ask(server, "made/absent")[0] == ask(server, "made")[0] == 404
        assert ask(server, "broken")[:2] == (500, b"the tile cannot be read")
        assert ask(server, "made/1/2", token=server.token[1:])[0] == 403
