"""The network, its weights and its recipe."""

from pipeline.model.inference_network import lean
from pipeline.model.network import build
from pipeline.model.weights import Model, load

__all__ = ["Model", "build", "lean", "load"]
