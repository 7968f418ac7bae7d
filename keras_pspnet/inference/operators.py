"""Say which operators a SavedModel may hold: it is a program, which could write any file."""

from pathlib import Path

from keras_pspnet.errors import UserError
from keras_pspnet.files import read_bytes

ARITHMETIC = (
    "Abs Add AddN AddV2 All Any ArgMax AvgPool BatchMatMulV2 BatchToSpaceND BiasAdd Bitcast "
    "BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Conv2D Conv2DBackpropInput Cos Cumsum "
    "DepthToSpace DepthwiseConv2dNative Einsum Elu EnsureShape Equal Erf Exp ExpandDims "
    "Fill Floor FloorDiv FloorMod FusedBatchNormV3 GatherNd GatherV2 Greater GreaterEqual "
    "Identity IdentityN InvertPermutation IsFinite LRN LeakyRelu Less LessEqual LinSpace "
    "Log LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean Min "
    "Minimum MirrorPad Mul Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall "
    "Placeholder Pow Prod Range Rank ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape "
    "ResizeBilinear ResizeNearestNeighbor ReverseV2 Rint Round Rsqrt ScatterNd Select "
    "SelectV2 Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign "
    "SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze "
    "StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Tile TopKV2 Transpose "
    "Unpack VarHandleOp VarIsInitializedOp Where Xdivy ZerosLike"
)
"""What networks compute with: none of these reads or writes a file, calls Python, or loops."""

SAVING = "AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename "
SAVING += "StaticRegexFullMatch StringJoin"
"""Operators that only a SavedModel's own functions for saving and restoring may hold."""

ALLOWED, ALLOWED_TO_SAVE = set(ARITHMETIC.split()), set(SAVING.split())


def check_operators(path) -> None:
    """Check that a SavedModel holds nothing but the operators of a network.

    Raises:
        UserError: another operator, which it names; a file that is not a SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString(read_bytes(Path(path) / "saved_model.pb"))
    except DecodeError as error:
        raise UserError(f"{path}: saved_model.pb is damaged; export the model again") from error
    for graph in content.meta_graphs:
        functions = {one.signature.name: one.node_def for one in graph.graph_def.library.function}
        saving = {
            name
            for name, nodes in functions.items()
            if any(node.op in ALLOWED_TO_SAVE for node in nodes)
        }
        called = set(graph.object_graph_def.concrete_functions)
        for nodes in functions.values():
            called |= {used for node in nodes for used in _functions_of(node)}
        for name, nodes in [*functions.items(), ("", graph.graph_def.node)]:
            allowed = ALLOWED
            if name in saving - called:
                allowed = ALLOWED | ALLOWED_TO_SAVE
            for node in nodes:
                if node.op not in allowed and node.op not in functions:
                    raise UserError(
                        f"{path}: its operator {node.op} is in no SavedModel of export_model; a "
                        "SavedModel is a program: run only what you trust, with TensorFlow itself"
                    )


def _functions_of(node):
    """Yield the names of the functions that a node of a graph refers to."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
