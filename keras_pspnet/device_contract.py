"""Input and output names and dtypes of every exported file."""

SIGNATURE = "serving_default"

INPUT = "image"
"""uint8 RGB, (1, H, W, 3)."""

OUTPUTS = ("classes", "logits", "probabilities")
"""A model has one of them: class ids (1, H, W), uint8 or above 256 classes int32; or float32 scores
(1, H, W, classes)."""

LABELS_FILE = "labels.json"
"""In a SavedModel's assets.extra, attached to a .tflite file, in the metadata of an ONNX file."""
