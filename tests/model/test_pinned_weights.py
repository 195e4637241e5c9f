"""Weights from the Hugging Face hub stay those of one commit, and a checksum is compared before a file is loaded."""

import hashlib
import http.server
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import WeightsError
from pipeline.fingerprint import file_sha256
from pipeline.model import build_network, load_campaign_model, load_model
from pipeline.model.weights import _load_file, read_weights
from tests.model.test_weights import LIGHT, Payload, State, as_safetensors, output, refused, saved
from tests.support.campaigns import SIX, make_campaign
from tests.support.deliveries import write_raster

FIRST, SECOND, THIRD = ("0123456789abcdef" * 3)[:40], "b" * 40, "c" * 40


@pytest.fixture(scope="module")
def states() -> list[State]:
    """Two sets of random weights of the light network."""
    torch.manual_seed(7)
    return [State(build_network(LIGHT).state_dict()) for _ in range(2)]


@pytest.fixture
def state(states: list[State]) -> State:
    return states[0]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache on a machine without network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(hub: Path, repo: str, file: str, content: Path) -> Path:
    """Puts a file into a hub cache, in the hub's own layout: a named revision and its snapshot."""
    root = hub / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(FIRST)
    target = root / "snapshots" / FIRST / file
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(content, target))


def test_the_cache_of_the_hub_is_enough(hub: Path, tmp_path: Path, state: State) -> None:
    path = saved(tmp_path / "w.pth", state)
    expected = output(load_model(path, LIGHT))
    cached(hub, "org/light", "light_weights.pth", path)
    cached(hub, "org/light", "deep/other.pth", path)
    cached(hub, "org/safe", "model.safetensors", as_safetensors(tmp_path / "s", state))
    for repo, file in (("light", ""), ("light", "/deep/other.pth"), ("safe", ""), ("safe", "/model.safetensors")):
        pinned = f"hf://org/{repo}@{FIRST}{file}"
        model = load_model(pinned.replace(f"@{FIRST}", ""), LIGHT)
        assert model.source == load_model(pinned, LIGHT).source == pinned
        np.testing.assert_array_equal(output(model), expected)
        assert pickle.loads(pickle.dumps(model)).weights_hash == model.weights_hash


def test_without_network_and_cache_the_error_gives_a_command(hub: Path) -> None:
    refused("hf://org/name", "login node", "hf download org/name name_weights.pth", "model.safetensors", str(hub))
    refused("hf://org/name/a.ckpt", "hf download org/name a.ckpt")
    refused(f"hf://org/name@{FIRST}", f"hf download org/name name_weights.pth --revision {FIRST}")


@pytest.mark.parametrize("source", ["hf://org", "hf://", "hf://org/", "hf:///name", "hf://@/x", "hf://org/name/"])
def test_an_incomplete_hub_address_is_refused(source: str) -> None:
    with pytest.raises(WeightsError, match=r"expected hf://org/name"):
        load_model(source, LIGHT)


@pytest.mark.parametrize("revision", ["main", "v1.0", "", "0123abc", FIRST[1:], f"{FIRST}0", FIRST.upper(), ".."])
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    refused(f"hf://org/light@{revision}", "40 hexadecimal digits", repr(revision))


@pytest.mark.parametrize("source", ["hf://org/light/../w.pth", "hf://../light", "hf://org/a b"])
def test_a_name_that_the_hub_does_not_allow_is_refused(source: str) -> None:
    refused(source, "no such repository or file")


@dataclass
class FakedHub:
    """Repositories of one file, `light_weights.pth`, at several commits."""

    commits: dict[str, bytes]
    newest: str
    answered: str = ""
    """The commit that every answer claims, instead of the right one."""
    requests: list[str] = field(default_factory=list)
    """Revisions that were requested."""

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repo, _, rest = self.path.partition("/resolve/")
                revision, _, file = rest.partition("/")
                hub.requests.append(revision)
                commit = hub.newest if revision == "main" else revision
                content = hub.commits.get(commit, b"")
                found = repo == "/org/light" and file == "light_weights.pth" and content
                self.send_response(200 if found else 404)
                self.send_header("X-Repo-Commit", hub.answered or commit)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", str(len(content)))
                if not found:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET  # noqa: N815  (the name that the server calls)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def online(hub: Path, tmp_path: Path, states: list[State], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakedHub]:
    """A hub with two commits, on loopback, and a machine that reaches it."""
    files = [saved(tmp_path / f"{i}.pth", state).read_bytes() for i, state in enumerate(states)]
    assert not hub.exists()
    faked = FakedHub(dict(zip((FIRST, SECOND), files, strict=True)), newest=FIRST)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), faked.handler()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        yield faked
        server.shutdown()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_commit_gives_the_same_weights_whatever_is_newest(online: FakedHub) -> None:
    online.newest = SECOND
    assert load_model(f"hf://org/light@{FIRST}", LIGHT).weights_hash == sha256(online.commits[FIRST])
    assert load_model(f"hf://org/light@{SECOND}", LIGHT).weights_hash == sha256(online.commits[SECOND])
    assert set(online.requests) == {FIRST, SECOND}
    online.requests.clear()
    assert load_model(f"hf://org/light@{FIRST}/light_weights.pth", LIGHT)
    assert online.requests == []


def test_without_a_commit_the_log_names_it_and_workers_load_it(
    online: FakedHub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "landcover"):
        model = load_model("hf://org/light", LIGHT)
    assert model.source == f"hf://org/light@{FIRST}"
    assert f"today it is {model.source}" in caplog.text
    sent = pickle.dumps(model)
    online.newest = SECOND
    _load_file.cache_clear()
    assert pickle.loads(sent).weights_hash == sha256(online.commits[FIRST])
    assert load_model("hf://org/light", LIGHT).weights_hash == sha256(online.commits[SECOND])


def test_another_commit_than_the_named_one_is_refused(online: FakedHub) -> None:
    online.answered = THIRD
    refused(f"hf://org/light@{FIRST}", f"answers with commit {THIRD}")


@pytest.mark.usefixtures("online")
def test_a_commit_that_the_hub_lacks_is_refused() -> None:
    refused(f"hf://org/light@{THIRD}", "not found in repository org/light")


def test_a_changed_file_of_the_hub_is_named_with_both_checksums(online: FakedHub, hub: Path) -> None:
    expected = sha256(online.commits[FIRST])
    online.commits[FIRST] = online.commits[SECOND]
    with pytest.raises(WeightsError) as caught:
        load_model(f"hf://org/light@{FIRST}", LIGHT, sha256=expected)
    for part in ("checksum mismatch", expected, sha256(online.commits[SECOND]), str(hub), "model.sha256"):
        assert part in str(caught.value)


def test_a_checksum_is_compared_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": Payload(tmp_path / "ran")}, path)
    for load in (lambda given: load_model(path, LIGHT, sha256=given), lambda given: read_weights(path, sha256=given)):
        with pytest.raises(WeightsError, match=f"checksum mismatch: expected .* {'0' * 64}, found {file_sha256(path)}"):
            load("0" * 64)
        with pytest.raises(WeightsError, match="pickled object"):
            load(file_sha256(path))


def test_a_checksum_is_compared_with_a_loaded_model_too(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path / "w.pth", state)
    model = load_model(path, LIGHT)
    assert load_model(path, LIGHT, sha256=file_sha256(path)) is model
    with pytest.raises(WeightsError, match="checksum mismatch"):
        load_model(path, LIGHT, sha256="0" * 64)


def test_a_campaign_whose_weights_changed_ends_with_exit_code_2(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "campaign", at=SIX[:1])
    right, wrong = file_sha256(made.folder / "weights.pth"), "0" * 64
    section = {"weights": "weights.pth", "recipe": "tiny.yaml"}
    assert load_campaign_model(made.change(model={**section, "sha256": right}).campaign).weights_hash == right
    made.change(model={**section, "sha256": wrong})
    raster = write_raster(tmp_path / "image.tif", np.ones((5, 64, 64), np.uint8), 770_000, 6_278_000)
    predict = ("predict", raster, "--out", tmp_path, "--weights", made.folder / "weights.pth")
    for command in (
        ("plan", made.config),
        ("run", made.config),
        (*predict, "--accept", "radiometry", "--weights-sha256", wrong),
    ):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert isinstance(done.exception, WeightsError), done.output
        assert done.exception.exit_code == 2
        assert f"expected weights of SHA-256 {wrong}, found {right}" in str(done.exception)


@pytest.mark.slow
def test_a_worker_process_finds_the_cache_by_the_environment(tmp_path: Path, state: State) -> None:
    cached(tmp_path / "hub", "org/light", "light_weights.pth", saved(tmp_path / "w.pth", state))
    (tmp_path / "light.yaml").write_text(LIGHT.model_dump_json())
    code = (
        "import sys; from pipeline.model import load_model as f; print(f('hf://org/light', sys.argv[1]).weights_hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "light.yaml")],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == file_sha256(tmp_path / "w.pth")
