from .inference_network import optimize_for_inference
from .network import build_network
from .weights import Ensemble, Model, averaged, load_campaign_model, load_campaign_networks, load_model

__all__ = [
    "Ensemble",
    "Model",
    "averaged",
    "build_network",
    "load_campaign_model",
    "load_campaign_networks",
    "load_model",
    "optimize_for_inference",
]
