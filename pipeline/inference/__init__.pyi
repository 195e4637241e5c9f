from .block_mapping import MappedPixels, Method, predict_stack, predict_tile, reads_of
from .engine import Engine, on_gpu, resolve_engine
from .predictor import Predictor, predictor_for

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
