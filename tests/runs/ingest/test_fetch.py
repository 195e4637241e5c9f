"""A département is downloaded whole from a service that fails in every way, and what is not whole is absent."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import DeliveryError, DownloadError, LockError, StorageError
from pipeline.lock import lock_folder
from pipeline.runs.ingest.fetch import FetchReport, fetch, list_editions, plan_fetch
from pipeline.runs.ingest.stage import StageReport, stage
from pipeline.sources.download import service as feeds
from pipeline.sources.download import transfer
from pipeline.sources.download.choose import Content
from pipeline.sources.download.record import RECORD, downloaded_paths
from pipeline.sources.download.service import Service
from pipeline.sources.http_client import HEADERS_VARIABLE
from tests.support import geoplateforme as support
from tests.support.archives import files_of
from tests.support.disk import files_of_at_most
from tests.support.geoplateforme import IRC, PRODUCTS, RVB, SURFACE, TERRAIN, Answer, Geoplateforme, Handler
from tests.support.paths import ROOT
from tests.support.progress import Recorder
from tests.support.waiting import wait_until

PAIR: tuple[Content, ...] = ("rvb", "irc")
ALL: tuple[Content, ...] = (*PAIR, "elevation", "graph", "borders")
VOLUME = f"{RVB}.7z.005"
DOMAIN = Domain("D034_2021")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def service(shelf: Path, waits: list[float]) -> Iterator[Geoplateforme]:  # noqa: ARG001
    with support.geoplateforme(shelf) as running:
        yield running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of retries, which then take no time, as pauses do."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=lambda: 0.0)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    monkeypatch.setattr(feeds, "_PAUSE_S", 0)
    monkeypatch.setattr(transfer, "PAUSE_S", 0)
    return waits


def run(service: Geoplateforme, out: Path, contents: Collection[Content] = PAIR) -> FetchReport:
    bars: dict[str, Recorder] = {}

    @contextmanager
    def bar(name: str) -> Iterator[Recorder]:
        yield bars.setdefault(name, Recorder())

    asked = Service(service.url)
    report = fetch(plan_fetch(asked, "D034", year=2021, contents=contents), asked, out=out, bar=bar)
    assert list(bars) == ["check", "download"]
    for progress in bars.values():
        assert progress.totals == [progress.done], "every bar ends at its total"
    return report


def expected(shelf: Path, *names: str) -> dict[str, bytes]:
    """The files of editions by name, by default of the pair."""
    return {
        file.name: file.read_bytes()
        for product, editions in PRODUCTS.items()
        for edition in editions
        if edition in (names or (RVB, IRC))
        for file in sorted((shelf / product / edition).iterdir())
    }


def there(out: Path) -> dict[str, bytes]:
    """The downloaded files with names."""
    files = files_of(out / DOMAIN) if (out / DOMAIN).is_dir() else {}
    return {n: c for n, c in files.items() if ".7z" in n and not n.startswith(".")}


@pytest.mark.parametrize("as_xml", [False, True], ids=["json", "xml"])
def test_all_pages_are_followed_and_a_second_call_fetches_nothing(
    tmp_path: Path, shelf: Path, service: Geoplateforme, *, as_xml: bool
) -> None:
    service.as_xml = as_xml
    report = run(service, tmp_path, ALL)
    names = [name for editions in PRODUCTS.values() for name in editions]
    assert there(tmp_path) == expected(shelf, *names)
    assert (report.fetched, report.kept, report.notes) == (30, 0, ())
    assert service.requests[f"/resource/BDORTHO/{RVB}"] == 4, "13 volumes on pages of 4"
    assert set(service.downloads().values()) == {1}
    again = run(service, tmp_path, ALL)
    assert (again.fetched, again.kept, again.fetched_bytes) == (0, 30, 0)
    assert set(service.downloads().values()) == {1}


def test_only_what_is_missing_or_changed_is_fetched_again(tmp_path: Path, shelf: Path, service: Geoplateforme) -> None:
    run(service, tmp_path)
    folder = tmp_path / DOMAIN
    (folder / f"{IRC}.7z.003").unlink()
    (folder / VOLUME).write_bytes(bytes((folder / VOLUME).stat().st_size))
    service.requests.clear()
    report = run(service, tmp_path)
    assert (report.fetched, report.kept) == (2, 24)
    assert set(service.downloads()) == {f"{IRC}.7z.003", VOLUME}
    assert there(tmp_path) == expected(shelf)


def every_volume(shelf: Path, answer: Answer) -> dict[str, Answer]:
    return dict.fromkeys(expected(shelf), answer)


def test_connections_that_break_at_every_tenth_are_resumed(tmp_path: Path, shelf: Path, service: Geoplateforme) -> None:
    service.answers = every_volume(shelf, support.cut_at_every_tenth)
    run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)
    assert set(service.downloads().values()) == {10}


def test_a_busy_service_is_asked_again_after_the_time_that_it_names(
    tmp_path: Path, shelf: Path, service: Geoplateforme, waits: list[float]
) -> None:
    service.answers = {name: support.busy_first(2) for name in expected(shelf)}
    service.answers[VOLUME] = support.busy_first(9)
    run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)
    assert [w for w in waits if w == 7] == [7] * (2 * 25 + 9 - 2), "but for 429 that ends the retries of one request"


def test_no_more_connections_are_open_than_the_service_tolerates(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    together = threading.Barrier(transfer.CONNECTIONS)
    first: list[str] = []

    def answer(handler: Handler, content: bytes, start: int) -> None:
        with service.lock:
            first.append(handler.path)
            waiting = len(first) <= transfer.CONNECTIONS
        if waiting:
            together.wait(timeout=60)
        support.send_rest(handler, content, start)

    service.answers = every_volume(shelf, answer)
    run(service, tmp_path)
    assert service.at_once[1] == transfer.CONNECTIONS


def test_a_server_without_ranges_sends_the_whole_file_again(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    service.answers = {VOLUME: support.send_without_ranges}
    run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)
    assert service.downloads()[VOLUME] == 3


def wrong_range(handler: Handler, content: bytes, start: int) -> None:
    """The first half, and then a range that begins elsewhere than the wanted one."""
    if not start:
        support.send_until(handler, content, 0, len(content) // 2)
    else:
        handler.send(206, content[1:], Content_Range=f"bytes 1-{len(content) - 1}/{len(content)}")


LENGTH, SUM = {"lengths": {VOLUME: 1_000}}, {"sums": {VOLUME: "0" * 32}}
LONGER = {"lengths": {VOLUME: 1_000_000}}
FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "shorter in the feed": (LENGTH, r"has \d+ bytes; expected 1000 as in its feed"),
    "longer in the feed": (LONGER, r"has \d+ bytes; expected 1000000 as in its feed"),
    "wrong md5": (SUM, r"checksum mismatch: md5 [0-9a-f]{32}, expected 0{32}"),
    "endless": ({"answers": {VOLUME: support.send_for_ever}}, r"sends more than the \d+ bytes of its feed"),
    "another host": (
        {"answers": {VOLUME: support.redirect_to("http://localhost:9/x.7z")}},
        r"redirects to http://localhost:9/x.7z, which is on no host of this service; refused",
    ),
    "a file of this machine": (
        {"answers": {VOLUME: support.redirect_to("file:///etc/passwd")}},
        r"redirects to file:///etc/passwd, which is on no host of this service",
    ),
    "missing": ({"answers": {VOLUME: lambda h, *_: h.send(404)}}, "the server answers 404"),
    "always busy": ({"answers": {VOLUME: support.busy_first(1000)}}, "the server answers 429"),
    "another range": (
        {"answers": {VOLUME: wrong_range}},
        r"the server answers with range 'bytes 1-\d+/\d+'; expected bytes \d+-",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_fails_is_absent_and_all_others_are_whole(
    tmp_path: Path, shelf: Path, service: Geoplateforme, fault: str
) -> None:
    fields, said = FAULTS[fault]
    for name, value in fields.items():
        setattr(service, name, value)
    with pytest.raises(DownloadError, match=rf"^1 of 13 files could not be downloaded:\n  \S+005: {said}") as caught:
        run(service, tmp_path, ["rvb"])
    assert "run the same command again" in str(caught.value)
    right = expected(shelf, RVB)
    assert there(tmp_path) == {name: content for name, content in right.items() if name != VOLUME}
    with pytest.raises(DeliveryError, match=r"1 of 13 files are not downloaded, \S+005 is the first"):
        downloaded_paths(tmp_path / DOMAIN)
    for name in fields:
        setattr(service, name, {})
    service.requests.clear()
    assert run(service, tmp_path, ["rvb"]).fetched == 1
    assert set(service.downloads()) == {VOLUME}
    assert there(tmp_path) == right
    assert not [p for p in (tmp_path / DOMAIN).iterdir() if p.name.endswith(".part")]


def test_damaged_bytes_of_an_earlier_call_are_downloaded_again(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    def half(handler: Handler, content: bytes, start: int) -> None:
        handler.send(404) if start else support.send_until(handler, content, 0, len(content) // 2)

    service.answers = {VOLUME: half}
    with pytest.raises(DownloadError, match="404"):
        run(service, tmp_path)
    (part,) = (tmp_path / DOMAIN).glob(".*.part")
    size = part.stat().st_size
    assert size == len(expected(shelf)[VOLUME]) // 2
    part.write_bytes(bytes(size))
    service.answers = {}
    service.requests.clear()
    assert run(service, tmp_path).fetched_bytes == len(expected(shelf)[VOLUME]) - size
    assert service.downloads()[VOLUME] == 2
    assert there(tmp_path) == expected(shelf)


@pytest.mark.parametrize(
    "href",
    [
        "/download/BDORTHO/{}/../../../evil.7z",
        "/download/BDORTHO/{}/..%2F..%2Fevil.7z",
        "/download/BDORTHO/{}/a/evil.7z",
        "/download/BDORTHO/{}/.evil.7z",
        "/download/BDORTHO/{}/evil%0A.7z",
        "/download/BDORTHO/{}/",
        "/download/ELSEWHERE/{}/evil.7z",
    ],
)
def test_a_name_that_is_a_path_downloads_nothing(tmp_path: Path, service: Geoplateforme, href: str) -> None:
    link = {"href": service.url + href.format(RVB), "length": 5}
    service.extra = {RVB: [{"title": "evil", "id": "evil", "content": "", "link": [link]}]}
    with pytest.raises(DownloadError, match=r"expected links to download/BDORTHO/\S+/FILE, found"):
        run(service, tmp_path / "out")
    assert not service.downloads()
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == []


def test_files_come_from_the_named_service_whatever_host_the_feed_says(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    url, service.url = service.url, "http://elsewhere.invalid"
    plan = plan_fetch(Service(url), "D034", year=2021, contents=PAIR)
    assert {f.url.partition("/download/")[0] for e in plan.editions for f in e.files} == {url}
    service.url = url
    run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)


@pytest.mark.parametrize("kind", ["404", "error as JSON"])
def test_a_list_of_sums_may_be_listed_and_missing(
    tmp_path: Path, shelf: Path, service: Geoplateforme, kind: str
) -> None:
    service.with_md5 = False
    name = f"{RVB}.md5"
    link = {"href": f"{service.url}/download/BDORTHO/{RVB}/{name}", "length": 157}
    service.extra = {RVB: [{"title": name, "id": name, "content": "", "link": [link]}]}
    broken: Answer = lambda h, *_: h.send(404) if kind == "404" else h.send(200, b'{"error": "not found"}')  # noqa: E731
    service.answers = {name: broken}
    report = run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)
    assert report.notes == tuple(
        f"{edition}: no md5 for 13 files: only their lengths were checked" for edition in (RVB, IRC)
    )


def test_sums_of_a_list_are_used_where_the_feed_has_none(tmp_path: Path, service: Geoplateforme) -> None:
    service.with_md5 = False
    name = f"{RVB}.md5"
    link = {"href": f"{service.url}/download/BDORTHO/{RVB}/{name}", "length": 157}
    service.extra = {RVB: [{"title": name, "id": name, "content": "", "link": [link]}]}
    service.answers = {name: lambda h, *_: h.send(200, f"{'0' * 32}  ./{VOLUME}\n".encode())}
    with pytest.raises(DownloadError, match=rf"^1 of 13 .*\n.*{VOLUME}: checksum mismatch"):
        run(service, tmp_path, ["rvb"])


def test_a_page_or_volume_that_is_missing_is_noticed(tmp_path: Path, service: Geoplateforme) -> None:
    service.feeds = {f"resource/BDORTHO/{RVB}": support.as_xml([], {"pagecount": 2, "totalentries": 9})}
    with pytest.raises(DownloadError, match=r"says that it has 9 entries, and its pages have 0"):
        run(service, tmp_path)
    entries = [e for e in service.entries(["resource", "BDORTHO", RVB], "") if e["title"] != VOLUME]
    service.feeds = {f"resource/BDORTHO/{RVB}": support.as_xml(entries, {"pagecount": 1, "totalentries": 12})}
    with pytest.raises(DownloadError, match=r"lists no volume 005"):
        run(service, tmp_path)
    # The last volume is missed only by what the archive says of itself.
    entries = service.entries(["resource", "BDORTHO", RVB], "")[:-1]
    service.feeds = {f"resource/BDORTHO/{RVB}": support.as_xml(entries, {"pagecount": 1, "totalentries": 12})}
    with pytest.raises(DeliveryError, match=r"missing \S+\.7z\.013"):
        run(service, tmp_path)


def test_a_feed_without_an_end_is_left(tmp_path: Path, service: Geoplateforme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_MAX_FEED_PAGES", "3")
    service.page_size = 1
    with pytest.raises(DownloadError, match="LANDCOVER_MAX_FEED_PAGES"):
        run(service, tmp_path)
    monkeypatch.delenv("LANDCOVER_MAX_FEED_PAGES")
    service.feeds = {"capabilities": b'{"entry": [' + b" " * (9 << 20) + b"]}"}
    with pytest.raises(DownloadError, match="the answer is longer than 8388608 bytes"):
        run(service, tmp_path)


def test_another_service_is_recognized_by_its_products(tmp_path: Path, service: Geoplateforme) -> None:
    entry = {"title": "x", "id": f"{service.url}/resource/BDTOPO", "link": []}
    service.feeds = {"capabilities": support.as_xml([entry], {"totalentries": 1})}
    with pytest.raises(DownloadError, match="expected a product BDORTHO, found BDTOPO; check --service"):
        run(service, tmp_path)
    entry = {"title": "ORTHO-D034", "id": "", "link": []}
    service.feeds = {"resource/BDORTHO": support.as_xml([entry], {"totalentries": 1})}
    with pytest.raises(DownloadError, match=r"expected names such as BDORTHO_.*, found ORTHO-D034"):
        run(service, tmp_path)


def test_credentials_for_stac_catalogs_are_not_sent(
    tmp_path: Path, service: Geoplateforme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HEADERS_VARIABLE, "X-Token: word")
    run(service, tmp_path, ["rvb"])
    assert "User-Agent" in service.headers
    assert "X-Token" not in service.headers


def test_only_hosts_of_the_geoplateforme_may_be_redirected_to() -> None:
    ign = Service()
    assert ign.allows("https://data.geopf.fr/telechargement/x")
    assert ign.allows("https://storage.geopf.fr/x")
    for url in ("http://storage.geopf.fr/x", "https://geopf.fr.evil.org/x", "https://evilgeopf.fr/x", "file:///x"):
        assert not ign.allows(url)
    assert not Service("http://127.0.0.1:1").allows("https://data.geopf.fr/x")


def test_a_disk_that_is_too_small_is_refused_before_the_download(
    tmp_path: Path, service: Geoplateforme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000))
    with pytest.raises(StorageError, match=r"the download needs 0\.00[12] GB and 0\.001 GB are free; free space"):
        run(service, tmp_path)
    assert not service.downloads()


def test_a_disk_that_fills_up_leaves_whole_files_and_resumes(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    with files_of_at_most(50_000), pytest.raises(StorageError, match=r"\.7z\.\d+: cannot be written"):
        run(service, tmp_path, PAIR)
    right = expected(shelf)
    assert there(tmp_path).items() <= right.items()
    run(service, tmp_path)
    assert there(tmp_path) == right


def test_a_length_that_the_feed_lacks_is_asked_of_the_server(
    tmp_path: Path, shelf: Path, service: Geoplateforme
) -> None:
    entries = service.entries(["resource", "BDORTHO", RVB], "")
    for link in (link for entry in entries for link in entry["link"]):
        link.pop("length", None)
    service.feeds = {f"resource/BDORTHO/{RVB}": support.as_xml(entries, {})}
    run(service, tmp_path, ["rvb"])
    assert there(tmp_path) == expected(shelf, RVB)
    assert set(service.downloads().values()) == {2}, "one HEAD and one GET each"


def test_a_folder_that_another_fetch_writes_is_refused(tmp_path: Path, service: Geoplateforme) -> None:
    with lock_folder(tmp_path / DOMAIN, what="the folder"), pytest.raises(LockError):
        run(service, tmp_path)


def test_a_link_in_place_of_a_download_is_not_followed(tmp_path: Path, service: Geoplateforme) -> None:
    service.answers = {VOLUME: lambda h, *_: h.send(404)}
    plan = plan_fetch(Service(service.url), "D034", year=2021, contents=["rvb"])
    (file,) = (f for e in plan.editions for f in e.files if f.name == VOLUME)
    part = transfer.Download(file, tmp_path / DOMAIN / VOLUME).part
    part.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    part.symlink_to(victim)
    with pytest.raises(StorageError, match="expected a regular file"):
        run(service, tmp_path, ["rvb"])
    assert victim.read_text() == "precious"


def staged(folder: Path, out: Path) -> StageReport:
    @contextmanager
    def bar(_: str) -> Iterator[Recorder]:
        yield Recorder()

    return stage([folder], domain=DOMAIN, out=out, tile_m=100, treatment="leave", remove_small=False, bar=bar)


def test_stage_takes_the_folder_as_it_is(tmp_path: Path, shelf: Path, service: Geoplateforme) -> None:
    run(service, tmp_path, PAIR)
    run(service, tmp_path, ["elevation", "graph"])
    report = staged(tmp_path / DOMAIN, tmp_path / "staged")
    assert [name for name, _ in report.unpacked] == [
        f"{name}.7z" for name in (support.GRAPH, SURFACE, TERRAIN, RVB, IRC)
    ]
    assert report.folders == (tmp_path / "staged",)
    assert not [note for note in report.notes if "no md5" in note]
    assert len(report.heights.written) == 1
    delivered = files_of(shelf.parent / "source" / "unpacked")
    assert delivered.items() <= files_of(tmp_path / "staged").items()
    (tmp_path / DOMAIN / VOLUME).unlink()
    with pytest.raises(DeliveryError, match="run the same landcover fetch again"):
        staged(tmp_path / DOMAIN, tmp_path / "staged")
    (tmp_path / DOMAIN / RECORD).write_text("{}")
    with pytest.raises(DeliveryError, match=r"download.json: is not valid: domain"):
        staged(tmp_path / DOMAIN, tmp_path / "staged")


def test_rasters_of_lidar_lie_in_their_own_folder(tmp_path: Path, shelf: Path, waits: list[float]) -> None:  # noqa: ARG001
    name = "LIDARHD_1-0_MNS-0M50_TIFF_LAMB93-IGN69_D034_2021-01-01"
    shutil.copytree(shelf / "BDORTHO", tmp_path / "shelf" / "BDORTHO")
    source = shelf.parent / "source" / "unpacked" / "LIDARHD" / "DSM"
    shutil.copytree(source, tmp_path / "shelf" / "LIDARHD-MNS" / name)
    (tmp_path / "shelf" / "LIDARHD-MNS" / name / "readme.pdf").write_bytes(b"%PDF")
    with support.geoplateforme(tmp_path / "shelf") as service:
        run(service, tmp_path / "out", (*PAIR, "elevation"))
    folder = tmp_path / "out" / DOMAIN
    assert {p.name for p in (folder / name).iterdir()} == {p.name for p in source.iterdir()}
    found = downloaded_paths(folder)
    assert found is not None
    assert found[1] == [folder / name]
    assert staged(folder, tmp_path / "staged").folders == (tmp_path / "staged", folder / name)


def test_all_editions_are_listed_with_files_and_bytes(shelf: Path, service: Geoplateforme) -> None:
    asked = Service(service.url)
    listed = {e.edition.name: e for e in list_editions(asked, "D034", asked.products())}
    assert len(listed) == 16
    assert len(listed[IRC].files) == 13
    assert listed[IRC].size_bytes == sum(p.stat().st_size for p in (shelf / "BDORTHO" / IRC).iterdir())


def test_the_command_says_what_it_fetched_and_what_is_next(
    tmp_path: Path, service: Geoplateforme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--service", f"{service.url}/", "--out", "d"]
    done = CliRunner().invoke(app, ["fetch", "34", *options], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert re.fullmatch(rf"{RVB} +rvb +13 +0.00", lines[1])
    assert lines[7] == "D034: 6 editions, 0.00 GB"
    assert lines[-2] == "D034_2021: 30 files downloaded to d/D034_2021 (0.00 GB), 0 already there"
    assert lines[-1] == "next: landcover map d/D034_2021 --weights CHECKPOINT --out map-D034_2021"
    assert max(len(line) for line in lines if "warning" not in line) <= 80
    listed = CliRunner().invoke(app, ["fetch", "D034", "--list", *options[:2]], env={"COLUMNS": "80"})
    assert listed.output.count("BDORTHO_") == 8
    assert listed.output.endswith("searched: ADMIN-EXPRESS, BDORTHO, MNS-CORREL, RGEALTI\n")


@pytest.mark.parametrize(
    ("recipe", "fetched"),
    [
        ("flair-hub_lc-a_ir_swinbase-upernet", {"rvb", "irc", "graph", "borders"}),
        # The newest vintage in colour alone has no graph.
        ("flair-hub_lc-a_rgb_swinbase-upernet", {"rvb", "borders"}),
    ],
)
def test_what_the_recipe_does_not_read_is_not_fetched(
    tmp_path: Path, service: Geoplateforme, recipe: str, fetched: set[str]
) -> None:
    words = ["fetch", "34", "--service", service.url, "--out", str(tmp_path), "--recipe", recipe]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    listed = [line.split() for line in done.output.splitlines()]
    assert {words[1] for words in listed if len(words) == 4 and words[3] == "0.00"} == fetched


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["345", "--list"], "'345' is not a département"),
        (["D034"], "--out is missing"),
        (
            ["D034", "--out", "d", "--with", "rvb,height"],
            "'rvb,height': expected some of rvb,irc,elevation,graph,borders",
        ),
        (["D034", "--list", "--service", "ftp://host"], "expected http or https"),
    ],
    ids=["département", "out", "with", "service"],
)
def test_wrong_options_are_named(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["fetch", *words], env={"COLUMNS": "300"})
    assert done.exit_code != 0
    assert said in done.output + str(done.exception)


@pytest.mark.slow
def test_a_killed_command_resumes_where_it_was(tmp_path: Path, shelf: Path, service: Geoplateforme) -> None:
    starts: dict[str, list[int]] = {}
    killed = threading.Event()

    def slow(handler: Handler, content: bytes, start: int) -> None:
        starts.setdefault(Path(handler.path).name, []).append(start)
        rate = 0 if killed.is_set() else len(content) / 10
        support.send_until(handler, content, start, len(content), rate=rate)

    service.answers = every_volume(shelf, slow)
    program = "from pipeline.cli import main; main()"
    words = ["fetch", "D034", "--with", "rvb,irc", "--out", str(tmp_path), "--service", service.url]
    folder = tmp_path / DOMAIN
    with subprocess.Popen([sys.executable, "-c", program, *words], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: len([p for p in folder.glob(".*.part") if p.stat().st_size > 9_000]) == 3)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    killed.set()
    assert there(tmp_path) == {}
    sizes = {p.stat().st_size for p in folder.glob(".*.part")}
    run(service, tmp_path)
    assert there(tmp_path) == expected(shelf)
    assert {s for starts_of in starts.values() for s in starts_of} - {0} == sizes
