from .inference_network import optimize_for_inference
from .network import build_network
from .weights import Ensemble, Model, load_campaign_model, load_model

__all__ = ["Ensemble", "Model", "build_network", "load_campaign_model", "load_model", "optimize_for_inference"]
