"""Maps a mosaic to layers of classes and confidence: windows, halo, engines."""

from pipeline.inference.block_mapping import MappedPixels, Method, predict_stack, predict_tile, reads_of
from pipeline.inference.predictor import Engine, Predictor, on_gpu, predictor_for, resolve_engine

__all__ = [
    "Engine",
    "MappedPixels",
    "Method",
    "Predictor",
    "on_gpu",
    "predict_stack",
    "predict_tile",
    "predictor_for",
    "reads_of",
    "resolve_engine",
]
