"""The device contract: the names and dtypes that every exported file keeps."""

from __future__ import annotations

SIGNATURE = "serving_default"

INPUT = "image"

OUTPUTS = ("classes", "logits", "probabilities")

LABELS_FILE = "labels.json"
"""In a SavedModel's assets.extra, attached to a .tflite file, in the metadata of an ONNX file."""
