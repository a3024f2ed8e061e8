"""TensorBoard: a graph as an event file, as TensorBoard's graph page reads it.

Owns the form of TensorFlow's GraphDef and of the file.  Knows graphs; the messages and the writer are those of the
tensorboard package (extra [tensorboard]).  Invariants: every operation stands in the file with its type, inputs, device
and output shapes; names stay as they are, so that name scopes are boxes there; equal graphs give equal GraphDefs.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import GraphcError
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor

PRODUCER = 134  # TF 1.15's version of GraphDef

_TYPES: Mapping[DType, str] = {
    dtypes.bool_: "DT_BOOL", dtypes.int8: "DT_INT8", dtypes.int16: "DT_INT16", dtypes.int32: "DT_INT32",
    dtypes.int64: "DT_INT64", dtypes.uint8: "DT_UINT8", dtypes.uint16: "DT_UINT16", dtypes.uint32: "DT_UINT32",
    dtypes.uint64: "DT_UINT64", dtypes.float16: "DT_HALF", dtypes.bfloat16: "DT_BFLOAT16", dtypes.float32: "DT_FLOAT",
    dtypes.float64: "DT_DOUBLE"}
CONSTANT_ELEMENTS = 64  # of a constant whose value is written


class MissingPackage(GraphcError, ImportError):
    """A package of an extra is not installed; the message names the extra."""


def graph_def(graph: Graph) -> Any:
    """Return `graph` as a GraphDef message.  Raises MissingPackage."""
    messages, types, _ = _package()
    found = messages.GraphDef()
    found.versions.producer = PRODUCER
    for op in graph.get_operations():
        _add(found.node.add(), op, types)
    return found


def write_graph(graph: Graph, folder: str | Path) -> Path:
    """Write an event file with `graph` into `folder`, which `tensorboard --logdir FOLDER` shows; return its path.

    Raises MissingPackage, OSError.
    """
    message = graph_def(graph)
    _, _, writer = _package()
    from tensorboard.compat.proto import event_pb2

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    before = set(target.iterdir())
    events = writer.EventFileWriter(str(target))
    events.add_event(event_pb2.Event(wall_time=0.0, graph_def=message.SerializeToString(deterministic=True)))
    events.close()
    (written,) = set(target.iterdir()) - before
    return written


def _package() -> tuple[Any, Any, Any]:
    """The modules of messages, types and the writer."""
    try:
        from tensorboard.compat.proto import graph_pb2, types_pb2
        from tensorboard.summary.writer import event_file_writer
    except ImportError as error:
        raise MissingPackage(f"TensorBoard's event files need the package tensorboard ({error}): "
                             "pip install 'graphc[tensorboard]'") from None
    return graph_pb2, types_pb2, event_file_writer


def _add(node: Any, op: Operation, types: Any) -> None:
    node.name, node.op, node.device = op.name, op.type, op.device
    node.input.extend(_input(t) for t in op.inputs)
    node.input.extend(f"^{c.name}" for c in op.control_inputs)
    typed = [t for t in op.outputs if t.dtype in _TYPES]
    if typed:
        key = "dtype" if op.type in ("Placeholder", "PlaceholderWithDefault", "Const", "VariableV2") else "T"
        node.attr[key].type = getattr(types, _TYPES[typed[0].dtype])
    for tensor in op.outputs:
        _set_shape(node.attr["_output_shapes"].list.shape.add(), tensor)
    for name in sorted(op.attrs):
        if name not in node.attr:
            _set_attr(node.attr, name, op.attrs[name], types)
    node.attr["source"].s = str(op.source.short).encode()


def _input(tensor: Tensor) -> str:
    return tensor.op.name if tensor.value_index == 0 else tensor.name


def _set_shape(message: Any, tensor: Tensor) -> None:
    if tensor.shape.ndims is None:
        message.unknown_rank = True
        return
    for size in tensor.shape.as_list():
        message.dim.add().size = -1 if size is None else size


def _set_attr(attrs: Any, name: str, value: Any, types: Any) -> None:
    """Set an attr of plain data; long constants are told by their shape alone."""
    match value:
        case bool():
            attrs[name].b = value
        case int():
            attrs[name].i = value
        case float():
            attrs[name].f = value
        case str():
            attrs[name].s = value.encode()
        case DType() if value in _TYPES:
            attrs[name].type = getattr(types, _TYPES[value])
        case np.ndarray():
            small = value.size <= CONSTANT_ELEMENTS
            attrs[name].s = (np.array2string(value) if small else f"array of shape {value.shape}").encode()
        case tuple() | list():
            _set_list(attrs[name].list, name, value)
        case None:
            return
        case _:
            attrs[name].s = str(value).encode()


def _set_list(message: Any, name: str, values: Sequence[Any]) -> None:
    kinds = {type(v) for v in values}
    if kinds <= {int}:
        message.i.extend(values)
    elif kinds <= {int, float}:
        message.f.extend(values)
    else:
        message.s.extend(str(v).encode() for v in values)
