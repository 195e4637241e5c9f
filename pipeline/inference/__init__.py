"""Maps a mosaic to layers of classes and confidence: windows, halo, engines."""

from pipeline.inference.block_mapping import Method, predict_stack
from pipeline.inference.predictor import Engine, Predictor, on_gpu, predictor_for, resolve_engine

__all__ = ["Engine", "Method", "Predictor", "on_gpu", "predict_stack", "predictor_for", "resolve_engine"]
