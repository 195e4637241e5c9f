"""How good a map is, and how sure that is: arrays in, figures out. Nothing here opens data."""

from pipeline.evaluation.metrics import confusion_matrix, scores

__all__ = ["confusion_matrix", "scores"]
