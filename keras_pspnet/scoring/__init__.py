"""Scores of predictions, and a report page that shows them."""

from keras_pspnet.scoring.metrics import ConfusionMatrix, evaluate
from keras_pspnet.scoring.report import Report

__all__ = ["ConfusionMatrix", "Report", "evaluate"]
