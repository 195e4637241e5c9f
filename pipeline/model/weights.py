"""Loads a network with its weights from a file or the Hugging Face hub, checks and hashes it, and keeps it."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import DEFAULT_RECIPE, Campaign, Recipe, Tta, joint_recipe, load_recipe
from pipeline.config.model_section import MOST_MEMBERS, check_temperature
from pipeline.model.weights_file import compare_checksums, joint_hash, locate, read_content, warn_of

if TYPE_CHECKING:
    # Imported when a network is loaded: a worker whose engine has its own graph of it needs no torch.
    import torch
    from torch import nn

    from pipeline.model.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights, its recipe and their source.

    A model from a file is pickled as its path and checksum: a worker loads the network once, when it first needs it. A
    model made in memory is pickled with its parameters.
    """

    loaded: "nn.Module | None"
    """The network; None in a process that received the model by its path and has not loaded it."""
    recipe: Recipe
    weights_hash: str
    """SHA-256 of the file of weights, or of the state dict if there is no file."""
    source: str = ""
    """The absolute path that it was loaded from, or `hf://…` with the commit; empty if it was made in memory."""
    doubt: str = ""
    """What its file says against the recipe, by class weights or attention windows; empty where it says nothing."""

    @cached_property
    def network(self) -> "nn.Module":
        """float32, in evaluation mode: normalised (n, band, y, x) → (n, logit, y, x).

        Raises:
            WeightsError: its file cannot be loaded here, or has changed.
        """
        return self.loaded or load_model(self.source, self.recipe, sha256=self.weights_hash).network

    @classmethod
    def in_memory(cls, network: "nn.Module", recipe: Recipe) -> "Model":
        """Makes a model of a network in memory; puts the network into evaluation mode, without gradients."""
        hasher = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            array = tensor.detach().cpu().contiguous().numpy()
            hasher.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return cls(network.eval().requires_grad_(requires_grad=False), recipe, hasher.hexdigest())

    def __reduce__(self) -> tuple[Callable[..., "Model"], tuple[Any, ...]]:
        return Model, (None if self.source else self.loaded, self.recipe, self.weights_hash, self.source)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        """Dask's token: the same weights with the same recipe are the same model in every process."""
        return ("landcover-model", self.weights_hash, self.recipe.model_dump_json())


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks, or one, whose probabilities are averaged over turned and mirrored windows.

    `pipeline.predict` and `Method` take it as they take a `Model`.

    Raises:
        ConfigError: the recipes of the members do not fit each other.

    Examples:
        >>> Ensemble((load_model("a.pth"), load_model("b.pth")), tta="d4")  # doctest: +SKIP
    """

    members: tuple[Model, ...]
    tta: Tta = "none"
    """Test-time augmentation: the positions in which each member sees a window."""
    temperature: float = 1.0
    """Of the averaged probabilities, beside that of each member's recipe; it changes confidences, never classes."""

    def __post_init__(self) -> None:
        joint_recipe([member.recipe for member in self.members])
        check_temperature(self.temperature, networks=len(self.members), tta=self.tta)

    @cached_property
    def recipe(self) -> Recipe:
        """What the members need together: its bands are those that a window has."""
        return joint_recipe([member.recipe for member in self.members])

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the members' hashes, in their order; of a single member its own."""
        return joint_hash([member.weights_hash for member in self.members])

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """Dask's token, made of everything that a map depends on."""
        return (
            "landcover-ensemble",
            self.tta,
            self.temperature,
            *(member.__dask_tokenize__() for member in self.members),
        )


def load_model(weights: str | Path, recipe: Recipe | str = DEFAULT_RECIPE, *, sha256: str | None = None) -> Model:
    """Loads the model of a checkpoint: FLAIR-INC `.pth`, Lightning `.ckpt` or `.safetensors`.

    A process keeps the last models that it loaded, so a second call with the same file and recipe returns the same
    object. Half precision becomes float32.

    Args:
        weights: a path, or `hf://org/name[@commit][/file]`. Without a file, `<name>_weights.pth` and then
            `model.safetensors` are tried. Without a commit it is the newest, and the log names it. Without a network,
            the hub's cache is used.
        recipe: a recipe, a name under `configs/models/`, or the path of a recipe's YAML.
        sha256: the checksum that the file must have. It is compared before anything in the file is interpreted.

    Raises:
        WeightsError: the file is missing, cannot be downloaded, has another checksum, is damaged or unsafe, or does not
            fit the recipe.
        ConfigError: there is no such recipe.

    Examples:
        >>> model = load_model("build/demo/model/demo_weights.pth", "build/demo/model/demo.yaml")
        >>> model.recipe.bands
        ('red', 'green', 'blue', 'nir', 'elevation')
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    path, source = locate(str(weights))
    with _LOCK:
        file = _File(path, recipe, source, _file_identity(path), sha256)
        model = _load_file(file)
        compare_checksums(sha256, model.weights_hash, source=source, path=path)
        return model


def load_campaign_networks(campaign: Campaign) -> Model | Ensemble:
    """Loads the model of a campaign, or the ensemble of its networks and positions.

    Raises:
        ConfigError, WeightsError: as `load_model`.
    """
    networks = zip(campaign.networks, campaign.recipes(), strict=True)
    members = [load_model(n.weights, r, sha256=n.sha256) for n, r in networks]
    return averaged(members, campaign.model.tta, campaign.model.temperature)


def averaged(members: Sequence[Model], tta: Tta = "none", temperature: float = 1.0) -> Model | Ensemble:
    """The ensemble of these networks and positions; a single network in one position is the model itself.

    Raises:
        ConfigError: the recipes of the members do not fit each other.
    """
    return Ensemble(tuple(members), tta, temperature) if len(members) > 1 or tta != "none" else members[0]


def load_campaign_model(campaign: Campaign) -> Model:
    """Loads the model of a campaign, whose file must have the campaign's checksum if that names one.

    Raises:
        ConfigError: the campaign averages several networks.
        ConfigError, WeightsError: as `load_model`.
    """
    return load_model(campaign.weights, campaign.recipe(), sha256=campaign.model.sha256)


_LOCK = threading.Lock()
"""Keeps two threads from loading the same model."""


def _file_identity(path: Path) -> tuple[int, ...]:
    """Numbers that change when a file is replaced or rewritten; empty if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()  # the reader will raise an error that says more
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class _File:
    """A file of weights, and the recipe by which it becomes a model: the key under which that is kept."""

    path: Path
    recipe: Recipe
    source: str
    identity: tuple[int, ...]
    expected: str | None = field(default=None, compare=False)
    """SHA-256. It is no part of the key, so that the process keeps one model for each file."""


def read_weights(weights: str | Path, *, sha256: str | None = None) -> "dict[str, torch.Tensor]":
    """Reads the tensors of a checkpoint by name, whatever their network.

    Args:
        weights: as for `load_model`.
        sha256: the checksum that the file must have.

    Raises:
        WeightsError: the file is missing, cannot be downloaded, has another checksum, is damaged or unsafe.
    """
    path, source = locate(str(weights))
    return _read(path, source, sha256)[0].tensors


def _read(path: Path, source: str, expected: str | None) -> "tuple[Checkpoint, str]":
    """The content of a checkpoint, and the SHA-256 of the very bytes that they come from."""
    from pipeline.model.checkpoint import parse_tensors

    content = read_content(path)
    found = hashlib.sha256(content).hexdigest()
    compare_checksums(expected, found, source=source, path=path)
    return parse_tensors(content, path), found


@lru_cache(maxsize=MOST_MEMBERS)
def _load_file(file: _File) -> Model:
    """Loads a model; the process keeps the last ones, each as long as its file has this identity.

    They are as many as an ensemble may have.
    """
    from pipeline.model.checkpoint import load_tensors

    content, found = _read(file.path, file.source, file.expected)
    network = content.network_of(file.recipe)
    doubt = load_tensors(content, network, file.recipe, source=file.source)
    if doubt:
        warn_of(doubt, file.source)
    return Model(network.eval().requires_grad_(requires_grad=False), file.recipe, found, file.source, doubt)
