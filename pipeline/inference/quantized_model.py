"""A quantized network on disk: OpenVINO's XML with its weights beside it, and what it was made from.

The XML records its origin (in `rt_info`), so the two files are all there is to copy.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from pipeline.errors import EngineError
from pipeline.fingerprint import digest
from pipeline.model.weights_file import UnloadedModel
from pipeline.untrusted.own_files import open_regular

if TYPE_CHECKING:
    from pipeline.model import Model

_SECTION = "landcover"
"""Our part of the XML's `rt_info`."""
_REMEDY = "run `landcover quantize` again"


@dataclass(frozen=True)
class QuantizedModel:
    """A quantized network, identified by its content."""

    path: Path
    """Absolute, of the XML; the `.bin` is beside it."""
    sha256: str
    """Hash of the XML and then the `.bin`."""
    weights_sha256: str
    """Hash of the weights that it was made from."""
    recipe_digest: str
    """Digest of the recipe that it was made with."""
    domains: tuple[str, ...] = ()
    """Names of the domains whose windows it was quantized with; empty where an older version did not record them."""
    gives_features: bool = False
    """Whether it returns the encoder's deepest features too, for the novelty score."""

    def check_fits(self, model: "Model | UnloadedModel") -> None:
        """Raises EngineError unless it was made from this model's weights and recipe."""
        if self.weights_sha256 != model.weights_hash:
            raise EngineError(
                f"{self.path}: was made from weights of SHA-256 {self.weights_sha256[:12]}…, expected "
                f"{model.weights_hash[:12]}… ({model.source or 'a network in memory'}); {_REMEDY}"
            )
        if self.recipe_digest != recipe_digest(model):
            raise EngineError(f"{self.path}: was made with another version of recipe {model.recipe.name}; {_REMEDY}")

    def check_unchanged(self) -> None:
        """Raises EngineError where the files changed since they were read, or differ on this machine."""
        now = _sha256(self.path)
        if now != self.sha256:
            raise EngineError(
                f"{self.path}: expected a quantized network of SHA-256 {self.sha256[:12]}…, got {now[:12]}…: it "
                "changed after the run was planned, or differs on this machine; put it back or start the run again"
            )


def describe(graph: Any, model: "Model", *, scheme: str) -> None:
    """Writes weights, recipe and scheme into an `openvino.Model`; they are saved in its XML."""
    for name, value in (
        ("weights_sha256", model.weights_hash),
        ("recipe", model.recipe.name),
        ("recipe_digest", recipe_digest(model)),
        ("scheme", scheme),
    ):
        graph.set_rt_info(value, [_SECTION, name])


def describe_domains(graph: Any, domains: Iterable[str]) -> None:
    """Writes the names of the domains that a graph was quantized with into an `openvino.Model`."""
    graph.set_rt_info(" ".join(sorted(set(domains))), [_SECTION, "domains"])


def read_quantized(path: Path) -> QuantizedModel:
    """The quantized network of an XML that `landcover quantize` wrote.

    Raises:
        EngineError: XML or `.bin` is missing or cannot be read, or it does not record its weights and recipe.
    """
    path = path.absolute()
    sha256 = _sha256(path)
    try:
        # The file is the user's own, as the weights are, and expat expands no external entity.
        root = ET.parse(path).getroot()  # noqa: S314
    except ET.ParseError as error:
        raise EngineError(f"{path}: is not an XML of OpenVINO ({error}); {_REMEDY}") from error
    elements = {name: root.find(f"rt_info/{_SECTION}/{name}") for name in ("weights_sha256", "recipe_digest")}
    values = {name: element.get("value", "") for name, element in elements.items() if element is not None}
    if len(values) != len(elements):
        raise EngineError(f"{path}: does not record the weights and recipe that it was made from; {_REMEDY}")
    domains = root.find(f"rt_info/{_SECTION}/domains")
    names = "" if domains is None else domains.get("value", "")
    outputs = len(root.findall("layers/layer[@type='Result']"))
    return QuantizedModel(path, sha256, **values, domains=tuple(names.split()), gives_features=outputs > 1)


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")):
        try:
            with open_regular(part) as file:
                hasher.update(file.read())
        except OSError as error:
            raise EngineError(
                f"{part}: a quantized network's file cannot be read: {error.strerror}; give the path of "
                f"the XML with its .bin beside it, or {_REMEDY}"
            ) from error
    return hasher.hexdigest()


def recipe_digest(model: "Model | UnloadedModel") -> str:
    """Digest of a model's recipe: another recipe has another one."""
    return digest(model.recipe.model_dump(mode="json"))
