"""`view`: how long the map page of a nation takes in Chromium, and what it requests.

WebGL is computed by the processor. The clock is the page's own: from the navigation, or from the change of the view, to
the frame with all tiles.
"""

import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bench.chart import bar_chart
from pipeline.bench.development.nation_store import write_nation_store
from pipeline.bench.imagery import Imagery
from pipeline.bench.report import BenchReport
from pipeline.errors import MachineError
from pipeline.products.map_page.page_files import write_map
from pipeline.products.map_page.server import ProductServer
from pipeline.progress import OnMessage

_REPEATS = 5
_BROWSER = ("--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader")
_SETTLED = """(before) => new Promise((done) => {
  const {map} = landcover, start = performance.now();
  map.once('rendercomplete', () => done(performance.now() - (before ? start : 0)));
  if (before) {
    const [left, , , top] = landcover.edition.bbox;
    map.getView().setCenter([left + before[0], top - before[1]]);
    map.getView().setResolution(0.2);
  }
  map.render();
})"""


@dataclass
class _View:
    """What one view took."""

    seconds: float
    requests: int
    megabytes: float


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Writes the store, opens its page in new browsers, and zooms to the corner of the four fine tiles."""
    quick = imagery.scale.quick
    with tempfile.TemporaryDirectory(prefix="view-", dir=imagery.folder) as scratch:
        edition = write_nation_store(Path(scratch, "national"), quick=quick)
        on_message(f"view: the store is written in {scratch}")
        write_map(edition, domains=Path(scratch, "products"), live=range(1, 13))
        side, (rows, cols) = edition.grid.tile / 5, edition.grid.tiles_shape
        corner = (cols // 2 * side, rows // 2 * side)
        with _serving(edition.path.parent) as server:
            page = server.address("000001/map/index.html")
            views = [_look(page, corner) for _ in range(1 if quick else _REPEATS)]
    return _report(views)


@contextmanager
def _serving(folder: Path) -> Iterator[ProductServer]:
    with ProductServer({(): folder}) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _look(page: str, corner: tuple[float, float]) -> tuple[_View, _View]:
    """The first view and the zoom to 20 cm, in a new browser without a cache."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  (for developers only)
    except ImportError as error:
        raise MachineError("bench view needs Playwright: pip install playwright") from error
    if chromium is None:
        raise MachineError("bench view needs Chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=_BROWSER)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        sizes: list[int] = []
        tab.on("response", lambda response: sizes.append(int(response.headers.get("content-length", 0))))
        tab.goto(page)
        tab.wait_for_selector("body[data-ready]", state="attached")
        first = _settled(tab, None, sizes)
        zoomed = _settled(tab, corner, sizes)
        browser.close()
    return first, zoomed


def _settled(tab: Any, place: tuple[float, float] | None, sizes: list[int]) -> _View:
    ms = tab.evaluate(_SETTLED, place)
    view = _View(ms / 1000, len(sizes), sum(sizes) / 1e6)
    sizes.clear()
    return view


def _report(views: list[tuple[_View, _View]]) -> BenchReport:
    figures: dict[str, float] = {}
    for i, name in enumerate(("first", "zoom")):
        seconds = [pair[i].seconds for pair in views]
        figures[f"view.{name}_s"] = statistics.median(seconds)
        figures[f"view.{name}_s_worst"] = max(seconds)
        figures[f"view.{name}_requests"] = max(pair[i].requests for pair in views)
        figures[f"view.{name}_mb"] = max(pair[i].megabytes for pair in views)
    bars = [(name.removeprefix("view."), figures[name]) for name in figures if "_s" in name]
    raw = {"views": [{"first": vars(first), "zoom": vars(zoom)} for first, zoom in views]}
    notes = ("the map is synthetic, and all tiles of it are one; WebGL is computed by the processor",)
    return BenchReport(figures, raw, bar_chart("Map page of a nation", bars, unit="s"), notes)
