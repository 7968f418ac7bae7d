"""Add TFLite metadata and labels to a .tflite file."""

import io
import json
import zipfile

import flatbuffers
import numpy as np

from keras_pspnet.device_contract import INPUT, LABELS_FILE
from keras_pspnet.labels import LabelSet

NAMES_FILE = "labels.txt"


def add_metadata(model: bytes, labels: LabelSet, output: str) -> bytes:
    """Return a .tflite file with TFLite metadata and two attached label files.

    The attached files are a zip archive behind the flatbuffer, as TFLite metadata define it; any
    zip reader opens it. `labels.txt` has one class name a line; the metadata name it as the labels
    of the output's values, or of its last axis if the output holds scores. `labels.json` also has
    the colours.

    Args:
        model: the content of a .tflite file.
        output: "classes", "logits" or "probabilities".
    """
    stream = io.BytesIO(_with_buffer(model, _model_metadata(output)))
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in (
            (NAMES_FILE, "\n".join(labels.names) + "\n"),
            (LABELS_FILE, json.dumps(labels.to_config())),
        ):
            # A fixed date, the earliest of a zip: the same model gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return stream.getvalue()


def _with_buffer(model: bytes, metadata: bytes) -> bytes:
    """Add an entry to `Model.metadata` of the flatbuffer (tensorflow/lite schema.fbs)."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(bytearray(model), 0)
    for stored in tree.buffers:
        if stored.offset > 1:  # ai-edge-quantizer stores its bytes behind the flatbuffer
            data = model[stored.offset : stored.offset + stored.size]
            stored.data, stored.offset, stored.size = np.frombuffer(data, np.uint8), 0, 0
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(metadata, np.uint8)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(tree.buffers)
    tree.buffers.append(buffer)
    tree.metadata = [*(tree.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + len(metadata) + 65536)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _model_metadata(output: str) -> bytes:
    """Return a ModelMetadata flatbuffer; the numbers are the schema's field numbers.

    The schema is tflite-support's metadata_schema.fbs, version 1. Files whose output holds scores
    also get the custom_metadata that MediaPipe's ImageSegmenter reads (its metadata_schema.fbs);
    with a class map as output it would return zeros without an error.
    """
    builder = flatbuffers.Builder(1024)
    text = builder.CreateString

    def table(count, fields):
        return _table(builder, count, fields)

    def vector(*offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    axis_labels, value_labels = 2, 3  # AssociatedFileType
    kind = value_labels if output == "classes" else axis_labels
    file = table(5, {0: text(NAMES_FILE), 1: text("class names, one a line"), 2: (kind,)})
    rgb, image_properties = 1, 2  # ColorSpaceType, ContentProperties
    content = table(3, {0: (image_properties,), 1: table(2, {0: (rgb,)})})
    image = table(7, {0: text(INPUT), 1: text("RGB, 0..255, not normalized"), 3: content})
    result = table(7, {0: text(output), 6: vector(file)})
    subgraph = {2: vector(image), 3: vector(result)}
    if output != "classes":
        data = builder.CreateByteVector(_segmenter_options(output))
        subgraph[9] = vector(table(2, {0: text("SEGMENTER_METADATA"), 1: data}))
    parts = {0: text("PSPNet"), 1: text("semantic segmentation")}
    parts[3] = vector(table(10, subgraph))
    builder.Finish(table(8, parts), file_identifier=b"M001")
    return bytes(builder.Output())


def _segmenter_options(output: str) -> bytes:
    """Return ImageSegmenterOptions of MediaPipe's image_segmenter_metadata_schema.fbs."""
    builder = flatbuffers.Builder(64)
    none, softmax = 0, 2  # Activation, which MediaPipe applies
    activation = none if output == "probabilities" else softmax
    version = builder.CreateString("1.0.0")
    options = _table(builder, 2, {0: (activation,), 1: version})
    builder.Finish(options, file_identifier=b"V001")
    return bytes(builder.Output())


def _table(builder, count, fields):
    """Write a table of `count` fields and return its offset.

    Args:
        fields: field number -> the offset of another object, or (value,) for a value of one byte.
    """
    builder.StartObject(count)
    for number, value in fields.items():
        if isinstance(value, tuple):
            builder.PrependInt8Slot(number, value[0], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
    return builder.EndObject()
