"""From a mosaic to class and confidence layers: windows, halo, engines."""

from pipeline.inference.halo import Method, predict, predict_stack
from pipeline.inference.predictor import LAYERS, Engine, Predictor, predictor_for, resolve_engine

__all__ = ["LAYERS", "Engine", "Method", "Predictor", "predict", "predict_stack", "predictor_for", "resolve_engine"]
