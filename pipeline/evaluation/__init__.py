"""Accuracy of maps and its uncertainty: scores, intervals, areas, seams and charts from arrays. Opens no data."""

from pipeline.evaluation.metrics import confusion_matrix, scores

__all__ = ["confusion_matrix", "scores"]
