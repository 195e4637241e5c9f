"""Networks and their weights: built from a recipe, loaded from a checkpoint, optimized for inference."""

from pipeline.model.inference_network import optimize_for_inference
from pipeline.model.network import build_network
from pipeline.model.weights import Model, load_campaign_model, load_model

__all__ = ["Model", "build_network", "load_campaign_model", "load_model", "optimize_for_inference"]
