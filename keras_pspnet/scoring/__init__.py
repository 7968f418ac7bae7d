"""Score predictions and show the scores on an HTML page."""

from keras_pspnet.scoring.metrics import ConfusionMatrix, evaluate
from keras_pspnet.scoring.report import Report

__all__ = ["ConfusionMatrix", "Report", "evaluate"]
