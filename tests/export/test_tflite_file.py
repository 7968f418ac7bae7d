"""The metadata of .tflite files, field by field of the published schemas."""

import flatbuffers
import pytest
from flatbuffers.number_types import Int8Flags, UOffsetTFlags

from keras_pspnet.export import tflite_file


class Table:
    """A table of a flatbuffer, its fields by their number."""

    def __init__(self, data, position=None):
        self.data = data
        if position is None:
            position = flatbuffers.encode.Get(UOffsetTFlags.packer_type, data, 0)
        self.table = flatbuffers.table.Table(bytearray(data), position)

    def _at(self, number):
        offset = self.table.Offset(4 + 2 * number)
        assert offset, f"field {number} is not there"
        return offset + self.table.Pos

    def byte(self, number):
        return self.table.Get(Int8Flags, self._at(number))

    def text(self, number):
        return self.table.String(self._at(number)).decode()

    def inside(self, number):
        return Table(self.data, self.table.Indirect(self._at(number)))

    def only(self, number):
        """The one table in a vector of tables."""
        offset = self._at(number) - self.table.Pos
        assert self.table.VectorLen(offset) == 1
        return Table(self.data, self.table.Indirect(self.table.Vector(offset)))

    def bytes(self, number):
        offset = self._at(number) - self.table.Pos
        start = self.table.Vector(offset)
        return bytes(self.table.Bytes[start : start + self.table.VectorLen(offset)])


@pytest.mark.parametrize("output", ["classes", "logits", "probabilities"])
def test_the_model_metadata(output):
    data = tflite_file._model_metadata(output)
    assert data[4:8] == b"M001"
    model = Table(data)
    assert model.text(0) == "PSPNet"
    graph = model.only(3)  # ModelMetadata.subgraph_metadata
    image, result = graph.only(2), graph.only(3)
    assert (image.text(0), result.text(0)) == ("image", output)
    content = image.inside(3)
    assert content.byte(0) == 2  # ContentProperties: ImageProperties
    assert content.inside(1).byte(0) == 1  # ColorSpaceType: RGB
    labels = result.only(6)  # TensorMetadata.associated_files
    assert labels.text(0) == "labels.txt"
    assert labels.byte(2) == (3 if output == "classes" else 2)  # labels of values, of an axis
    if output == "classes":
        assert not graph.table.Offset(4 + 2 * 9)  # MediaPipe would read a class map as scores
        return
    custom = graph.only(9)
    assert custom.text(0) == "SEGMENTER_METADATA"
    segmenter = custom.bytes(1)
    assert segmenter[4:8] == b"V001"
    activation = Table(segmenter).table.Offset(4)
    softmax = activation and Table(segmenter).byte(0) == 2
    assert softmax == (output == "logits")
