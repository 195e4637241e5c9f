"""The file of a network's weights, on a disk or on the Hugging Face hub: found, read and hashed without torch."""

import hashlib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import constants, errors, hf_hub_download

from pipeline import __version__
from pipeline.config import Campaign, Recipe
from pipeline.durable import user_cache, write_json
from pipeline.errors import StorageError, WeightsError
from pipeline.fingerprint import digest
from pipeline.untrusted.documents import Document, DocumentError, read_model
from pipeline.untrusted.own_files import open_regular

log = logging.getLogger("landcover")

HUB = "hf://"
_ON_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<commit>[^/]*))?(?:/(?P<file>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NETWORK_PACKAGES = ("torch", "segmentation-models-pytorch", "timm")
_MOST_NOTES = 64
_TransportError: type[Exception] = errors.HTTPError
"""A broken connection, under the only name that does not depend on the HTTP library of the hub's client."""


@dataclass(frozen=True)
class UnloadedModel:
    """A model by its file of weights, which is hashed and not interpreted: all that a fingerprint needs."""

    recipe: Recipe
    weights_hash: str
    """SHA-256 of the file."""
    source: str
    """Absolute path of the file, or `hf://…` with the commit."""
    members: tuple["UnloadedModel", ...] = ()
    """The networks that are averaged, where there are several: recipe and hash are then the joint ones."""


class _LoadedFile(Document):
    """Which models this user loaded without an error; two commands that end at once may lose a note."""

    doubts: dict[str, str]
    """Digest of a model, see `_key` → what is doubtful of it, or an empty text. The last ones."""


def hash_campaign_weights(campaign: Campaign) -> UnloadedModel:
    """Hashes a campaign's files of weights, each of which must have the campaign's checksum if that names one.

    Raises:
        ConfigError: a recipe is not valid, or those of several networks do not fit each other.
        WeightsError: a file is missing, cannot be downloaded or read, or has another checksum.
    """
    members = []
    for network, recipe in zip(campaign.networks, campaign.recipes(), strict=True):
        path, source = locate(network.weights)
        found = hashlib.sha256(read_content(path)).hexdigest()
        compare_checksums(network.sha256, found, source=source, path=path)
        members.append(UnloadedModel(recipe, found, source))
    if len(members) == 1:
        return members[0]
    joint = joint_hash([member.weights_hash for member in members])
    return UnloadedModel(campaign.recipe(), joint, ", ".join(m.source for m in members), tuple(members))


def known_doubt(model: UnloadedModel) -> str | None:
    """What `note_loaded` noted of the same weights, recipe and versions; None where they must be loaded to know it."""
    return _notes().get(_key(model))


def note_loaded(model: UnloadedModel, doubt: str) -> None:
    """Notes in the user's cache that a model was loaded, and what is doubtful of it; nothing where that is closed."""
    notes = [(key, text) for key, text in _notes().items() if key != _key(model)]
    with suppress(StorageError):
        write_json(_notes_file(), {"doubts": dict([*notes, (_key(model), doubt)][-_MOST_NOTES:])})


def _notes_file() -> Path:
    return user_cache() / "loaded.json"


def _notes() -> dict[str, str]:
    try:
        return read_model(_LoadedFile, _notes_file()).doubts
    except (FileNotFoundError, DocumentError):
        return {}


def _key(model: UnloadedModel) -> str:
    versions = [__version__, *(version(package) for package in _NETWORK_PACKAGES)]
    # The name of a file may contradict its recipe.
    return digest([model.weights_hash, model.source, model.recipe.model_dump(mode="json"), versions])


@lru_cache(maxsize=256)
def warn_of(doubt: str, source: str) -> None:
    """Warns of what is doubtful of a file of weights, once in a process."""
    log.warning("%s: %s", source, doubt)


def joint_hash(hashes: Sequence[str]) -> str:
    """SHA-256 of the hashes of several networks, in their order; the hash of a single one."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_content(path: Path) -> bytes:
    """The bytes of a checkpoint. They are read before they are parsed, so that a disk error is no damaged file.

    Raises:
        WeightsError: the file is missing, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: no such file; expected a .pth, .ckpt or .safetensors file, or hf://org/name@COMMIT"
        ) from error
    except IsADirectoryError as error:
        raise WeightsError(f"{path}: expected a checkpoint file, got a folder") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error


def compare_checksums(expected: str | None, found: str, *, source: str, path: Path) -> None:
    """Raises WeightsError if a checksum is expected and another was found."""
    if expected not in (None, found):
        raise WeightsError(
            f"{source}: checksum mismatch: expected weights of SHA-256 {expected}, found {found} in {path}. The file "
            "changed after its checksum was written down or the run was planned, or differs on this machine: restore "
            "it, or start again with the new checksum (model.sha256 of a campaign)"
        )


def locate(weights: str) -> tuple[Path, str]:
    """The local file of weights, downloaded if need be, and the name under which another process finds the same."""
    if weights.startswith(HUB):
        return _from_hub(weights)
    path = Path(weights).expanduser().absolute()
    return path, str(path)


def _from_hub(source: str) -> tuple[Path, str]:
    """The local file of `hf://org/name[@commit][/file]`, and this name with the commit."""
    parts = _ON_HUB.fullmatch(source)
    if parts is None:
        raise WeightsError(
            f"{source}: expected hf://org/name@COMMIT or hf://org/name@COMMIT/file, where @COMMIT may be left out"
        )
    repo, commit, file = parts["repo"], parts["commit"], parts["file"]
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise WeightsError(
            f"{source}: expected the 40 hexadecimal digits of a commit after @, found {commit!r}: branches and tags "
            "can be moved to other weights. Leave it out once, and the log names the newest commit"
        )
    name = repo.partition("/")[2]
    files = [file] if file else [f"{name}_weights.pth", f"{name}.safetensors", "model.safetensors"]
    command = f"hf download {repo} {files[0]}" + (f" --revision {commit}" if commit else "")
    for candidate in files:
        path = _download(source, repo, candidate, commit, command=command)
        if path is not None:
            return path, _pinned(source, repo, commit, file, path)
    raise WeightsError(
        f"{source}: {' and '.join(files)} not found in repository {repo} or in the cache {constants.HF_HUB_CACHE}. "
        f"If this machine has no internet, run on a login node that shares the cache: {command}"
    )


def _pinned(source: str, repo: str, commit: str | None, file: str | None, path: Path) -> str:
    """The name with the commit of the downloaded file, whose path in the hub's cache contains it."""
    found = path.parts[path.parts.index("snapshots", len(Path(constants.HF_HUB_CACHE).parts)) + 1]
    pinned = f"{HUB}{repo}@{found}" + (f"/{file}" if file else "")
    if commit is None:
        log.warning("%s names no commit, so other weights may come tomorrow; today it is %s", source, pinned)
    elif found != commit:
        raise WeightsError(f"{source}: the hub answers with commit {found}; check the commit, or HF_ENDPOINT")
    return pinned


def _download(source: str, repo: str, file: str, commit: str | None, *, command: str) -> Path | None:
    """The file's path in the hub's cache, or None if neither the repository nor the cache has it."""
    try:
        return Path(hf_hub_download(repo, file, revision=commit))
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, ValueError) as error:  # ValueError: names that the hub does not allow
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"{source}: no such repository or file, or it needs a login (hf auth login): {reason[0]}"
        ) from error
    except (OSError, _TransportError) as error:
        raise WeightsError(
            f"{source}: {file} could not be downloaded from the hub ({error}) and is not in the cache "
            f"{constants.HF_HUB_CACHE}. Run on a login node that shares the cache: {command}"
        ) from error
