"""Credentials stay with their origin, redirects and bodies are limited, and passing failures are retried."""

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.sources import http_client, http_connection
from pipeline.sources.http_client import HEADERS_VARIABLE, MAX_REDIRECTS, RequestError, fetch
from pipeline.sources.http_path import WebPath
from tests.support.file_server import TOKEN_HEADER, serving

WORD = "open-sesame"
CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served")
    (path / "file.bin").write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[str]:
    """The same host on another port, and so another origin."""
    with serving(folder) as url:
        yield url


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HEADERS_VARIABLE, f"{TOKEN_HEADER}: {WORD}\n")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of retries, which then take no time."""
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=waits.append, time=time.time))
    return waits


def redirect(server: str, to: str, *, times: int = 1, status: int = 302) -> str:
    for _ in range(times):
        to = f"{server}/redirect/{quote(to, safe='')}?{status}"
    return to


def received(url: str, **options: Any) -> dict[str, Any]:
    """What `/headers` of a server receives."""
    answer: dict[str, Any] = json.loads(fetch(url, **options).body)
    return answer


@pytest.mark.usefixtures("secret")
def test_credentials_are_sent_to_their_origin_but_not_behind_a_redirect(server: str, other: str) -> None:
    assert received(f"{server}/headers")["headers"][TOKEN_HEADER] == WORD
    assert received(redirect(server, f"{server}/headers"))["headers"][TOKEN_HEADER] == WORD
    there_and_back = redirect(server, redirect(other, f"{server}/headers"))
    assert received(there_and_back)["headers"][TOKEN_HEADER] == WORD
    assert TOKEN_HEADER not in received(redirect(server, f"{other}/headers"))["headers"]
    assert TOKEN_HEADER not in received(f"{other}/headers", source=f"{server}/catalog.json")["headers"]
    assert received(redirect(server, f"{other}/headers"), headers={"Accept": "a/b"})["headers"]["Accept"] == "a/b"


@pytest.mark.usefixtures("secret")
def test_an_error_behind_a_redirect_says_that_no_credentials_were_sent(server: str, folder: Path) -> None:
    with serving(folder, token=WORD) as closed, pytest.raises(RequestError) as caught:
        fetch(redirect(server, f"{closed}/file.bin"))
    assert f"the server answers 403 Forbidden after a redirect to {closed}/file.bin" in str(caught.value)
    assert f"{HEADERS_VARIABLE} is only sent to {server}" in str(caught.value)


@pytest.mark.usefixtures("secret")
def test_a_web_file_on_another_origin_is_refused_with_credentials(server: str, other: str) -> None:
    """GDAL reads the pixels, and would send the credentials on."""
    path = WebPath.at(redirect(server, f"{other}/file.bin"))
    with pytest.raises(RequestError, match=f"redirects to {other}; refused while {HEADERS_VARIABLE} is set"):
        path.stat()
    assert WebPath.at(redirect(server, f"{server}/file.bin")).stat().st_size == len(CONTENT)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_web_file_may_be_redirected_without_credentials(server: str, other: str, status: int) -> None:
    path = WebPath.at(redirect(server, f"{other}/file.bin", status=status))
    assert path.stat().st_size == len(CONTENT)
    assert path.open("rb").read() == CONTENT


def test_redirects_are_limited(server: str) -> None:
    target = f"{server}/file.bin"
    answer = fetch(redirect(server, target, times=MAX_REDIRECTS))
    assert (answer.url, answer.body) == (target, CONTENT)
    with pytest.raises(RequestError, match=f"redirects more than {MAX_REDIRECTS} times"):
        fetch(redirect(server, target, times=MAX_REDIRECTS + 1))


@pytest.mark.parametrize(("status", "method", "body"), [(303, "GET", ""), (307, "POST", "{}")])
def test_a_redirected_post_keeps_its_body_except_after_303(server: str, status: int, method: str, body: str) -> None:
    got = received(redirect(server, f"{server}/headers", status=status), method="POST", body=b"{}")
    assert (got["method"], got["body"]) == (method, body)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/file.bin", "/etc/hostname"])
def test_other_schemes_are_refused_also_behind_a_redirect(server: str, url: str) -> None:
    with pytest.raises(RequestError, match="expected http or https"):
        fetch(url)
    if ":" in url:
        with pytest.raises(RequestError, match="expected http or https"):
            fetch(redirect(server, url))


def test_a_busy_server_is_retried_after_the_time_that_it_names(server: str, waits: list[float]) -> None:
    assert fetch(f"{server}/busy/3/file.bin").body == CONTENT
    assert waits == [7, 7, 7]
    with pytest.raises(RequestError, match=r"busy/9/file.bin: the server answers 503 .*; try again later"):
        fetch(f"{server}/busy/9/file.bin")


@pytest.mark.usefixtures("waits")
def test_a_connection_that_breaks_in_the_body_is_retried(server: str) -> None:
    assert fetch(f"{server}/breaking/2/file.bin").body == CONTENT
    with pytest.raises(RequestError, match=r"no answer: .*check the URL and the network"):
        fetch(f"{server}/breaking/9/file.bin")


@pytest.mark.usefixtures("waits")
def test_a_server_that_does_not_answer_is_an_error_with_the_url() -> None:
    with pytest.raises(RequestError, match=r"^http://127.0.0.1:9/x: no answer: .*refused"):
        fetch("http://127.0.0.1:9/x")


def test_a_missing_file_is_a_file_not_found_error(server: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: the server answers 404 .*; check the URL"):
        fetch(f"{server}/nowhere")
    with pytest.raises(FileNotFoundError):
        WebPath.at(f"{server}/nowhere").stat()


def test_a_body_over_the_limit_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY_BYTES", len(CONTENT))
    assert fetch(f"{server}/file.bin").body == CONTENT
    monkeypatch.setattr(http_client, "MAX_BODY_BYTES", len(CONTENT) - 1)
    with pytest.raises(RequestError, match=f"longer than {len(CONTENT) - 1} bytes"):
        fetch(f"{server}/file.bin")


def test_a_web_file_is_read_by_ranges(server: str) -> None:
    with WebPath.at(f"{server}/file.bin").open("rb") as file:
        assert file.read(10) == CONTENT[:10]
        file.seek(-5, io.SEEK_END)
        assert file.read() == CONTENT[-5:]
        assert file.read(1) == b""
    with pytest.raises(RequestError, match="does not serve ranges of bytes"):
        fetch(f"{server}/headers", byte_range=(0, 9))


def test_the_proxy_of_the_environment_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server)
    headers = received("http://example.invalid/headers")["headers"]
    assert (headers["Host"], "proxy-authorization" in headers) == ("example.invalid", False)
    monkeypatch.setenv("http_proxy", server.replace("http://", "user:word@"))
    assert received("http://example.invalid/headers")["headers"]["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "proxy-authorization" not in received(f"{server}/headers")["headers"]


def test_a_server_that_sends_for_ever_is_not_waited_for(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "ANSWER_SECONDS", -1)
    with pytest.raises(RequestError, match="the answer takes more than -1 s"):
        fetch(f"{server}/file.bin")


def answering(*pieces: bytes, again: float | None = None) -> Iterator[str]:
    """A server that sends these bytes to each request; the last ones again and again, with a pause in seconds."""

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(10_000)
            for piece in pieces:
                client.sendall(piece)
            while again is not None:
                client.sendall(pieces[-1])
                time.sleep(again)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file.tif"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    ("pieces", "again"),
    [((b"HTTP/1.1 200 OK\r\n", b"X"), 0.1), ((b"HTTP/1.1 100 Continue\r\n\r\n",), 0.001)],
    ids=["byte by byte", "heads without an end"],
)
def test_a_server_that_sends_its_head_for_ever_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...], again: float
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.3)
    for url in answering(*pieces, again=again):
        with pytest.raises(RequestError, match="timed out"):
            fetch(url)


@pytest.mark.parametrize("location", ["http://[::1", "http://127.0.0.1:99999999/", "//[x]/"])
def test_a_redirect_to_no_url_is_an_error(location: str) -> None:
    for url in answering(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()):
        with pytest.raises(RequestError, match="check the URL"):
            fetch(url)


@pytest.mark.parametrize("head", ["Content-Length: 9\r\nLast-Modified: yesterday", "Last-Modified: 1e999"])
def test_a_date_or_size_of_a_web_file_that_cannot_be_read_is_an_error(head: str) -> None:
    for url in answering(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode()):
        with pytest.raises(RequestError, match="cannot be read"):
            WebPath.at(url).stat()
