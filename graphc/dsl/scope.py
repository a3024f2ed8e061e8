"""Name scopes, and how every function of the language makes an operation inside its own.

Owns `name_scope` and `create`.  Knows graphs and the registry; must not know single ops.
Invariant: an operation is made in the graph of its inputs, whichever graph is the default (as TensorFlow 1 does).
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.graph.graph import Graph, get_default_graph, graphs
from graphc.graph.operation import Operation
from graphc.graph.shape import Dimension, TensorShape
from graphc.graph.tensor import IndexedSlices, Tensor
from graphc.ops.base import lookup


def graph_of(values: Iterable[Any]) -> Graph:
    """Return the graph of the first graph element among `values` (lists are searched too), else the default graph."""
    for v in values:
        if isinstance(v, (Tensor, Operation, IndexedSlices)):
            return v.graph
        if isinstance(v, (list, tuple)):
            for item in v:
                if isinstance(item, (Tensor, Operation, IndexedSlices)) or hasattr(item, "_as_graph_element"):
                    return item.graph  # type: ignore[no-any-return]
        elif hasattr(v, "_as_graph_element"):
            return v.graph  # type: ignore[no-any-return]
    return get_default_graph()


class name_scope:
    """`with name_scope(name, default_name, values) as scope`: prefix the names of new operations.

    default_name: used where name is None.  values: the graph of these is the default inside.  scope: the prefix with
    its trailing "/", which as an operation's name means the scope's own.  Source: tf.name_scope.
    """

    __slots__ = ("_before", "_default_name", "_graph", "_name", "_values")

    def __init__(self, name: str | None, default_name: str | None = None, values: Iterable[Any] | None = None) -> None:
        self._name = name
        self._default_name = default_name
        self._values = values

    @property
    def name(self) -> str | None:
        return self._default_name if self._name is None else self._name

    def __enter__(self) -> str:
        if self._name is not None and not isinstance(self._name, str):
            raise TypeError(f"a name is a string, not {self._name!r}")
        self._graph = graph = get_default_graph() if self._values is None else graph_of(self._values)
        graphs.push(graph)
        try:
            self._before = graph.enter_name_scope(self.name)
        except ValueError:
            graphs.items.pop()
            raise
        inside = graph.get_name_scope()
        return f"{inside}/" if inside else ""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._graph.leave_name_scope(self._before)
        graphs.items.pop()


def plain(value: Any) -> Any:
    """Return sizes and axes as plain data (ints, bools, nested tuples of them); tensors, and lists with tensors in
    them, come back as they are."""
    match value:
        case bool() | int() | None:
            return value
        case np.ndarray():
            return plain(value.tolist())
        case np.generic():
            return value.item()
        case Dimension():
            return int(value)
        case TensorShape():
            return tuple([int(d) for d in value])
        case list() | tuple() | range():
            items = tuple([plain(v) for v in value])
            return items if all(isinstance(v, (int, tuple)) and not has_tensor(v) for v in items) else value
        case _:
            return value


def has_tensor(value: Any) -> bool:
    """Whether `value` is a tensor or variable, or a (nested) list with one in it."""
    if isinstance(value, (list, tuple)):
        return any(has_tensor(v) for v in value)
    return isinstance(value, (Tensor, IndexedSlices)) or hasattr(value, "_as_tensor")


def _constant(value: Any, dtype: DType) -> Tensor:
    content = np.asarray(value, dtype.as_numpy_dtype)
    return get_default_graph().create_op("Const", (), {"value": content, "dtype": dtype}).output


def create(op_type: str, scope: str | None, inputs: Iterable[Any], attrs: Mapping[str, Any] | None = None) -> Any:
    """Make an operation named `scope` in the default graph and return its output, or the tuple of its outputs.

    inputs: tensors, in the op's order; plain values at the places of static inputs become attrs, or constants beside
    static inputs that are tensors.
    """
    entry = lookup(op_type)
    given = list(inputs)
    full = dict(attrs or {})
    if entry.static:
        like = next((given[i] for i in entry.static if i < len(given) and isinstance(given[i], Tensor)), None)
        if like is None:
            full |= {attr: given[i] for i, attr in entry.static.items() if i < len(given)}
            given = [v for i, v in enumerate(given) if i not in entry.static]
        else:
            given = [v if isinstance(v, Tensor) else _constant(v, like.dtype) for v in given]
    made = get_default_graph().create_op(op_type, given, full, scope or None)
    return made.outputs[0] if entry.outputs >= 0 and len(made.outputs) == 1 else made.outputs
