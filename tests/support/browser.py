"""A page as a browser draws it, and what it would ask others for."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.waiting import LONGEST_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_ASKING = {"src", "href", "srcset", "poster", "data", "action", "background"}


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if ("href", "data:,") not in attrs:  # the empty icon, instead of a request for one
            self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in _ASKING and not _is_relative_link(tag, value)]


def _is_relative_link(tag: str, address: str | None) -> bool:
    """Whether it leads to another page of the product, which nobody asks for before a click."""
    return tag == "a" and not urlsplit(address or "").scheme and not (address or "").startswith("//")


def outside(page: str) -> list[str]:
    """Addresses and tags by which a page would ask for more than itself."""
    parser = _Addresses()
    parser.feed(page)
    asked = [a for a in parser.found if not a.startswith(("data:", "#"))]
    asked += [tag for tag in parser.tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
    return asked + [word for word in ("@import", "url(") if word in page]


def screenshot(page: Path, picture: Path, *, work: Path, size: tuple[int, int]) -> set[str]:
    """Draws a page in headless Chromium, where no name resolves; returns the addresses that it wanted.

    Args:
        page: an HTML file.
        picture: the PNG to be.
        work: an empty folder for the browser.
        size: (width, height) of the window in pixels.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    log = work / "net.json"
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={work / 'profile'}",
        f"--log-net-log={log}",
        f"--window-size={size[0]},{size[1]}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(work)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 0, done.stderr
    asked = re.findall(r'"initiator":"([^"]*)".*?"url":"((?:https?|wss?)://[^"]+)"', log.read_text())
    # Chromium asks its makers for the time and for updates, in vain: those requests have no page behind them.
    return {address for initiator, address in asked if initiator != "not an origin"}


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Debian's Chromium, driven by Playwright; WebGL is computed by the processor. Skips without one of the two."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader", "--hide-scrollbars"]
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()
