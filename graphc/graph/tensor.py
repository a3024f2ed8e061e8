"""Tensor: one output of one operation, and the record of a gradient by rows.

Owns the symbolic handle that users hold.  Knows its operation, type and (for small integers) symbolic content; knows no
mathematics: the operators are slots that `install_operators` fills once, when the language is imported.
Invariant: a tensor is identified by its object; `==` is identity, so tensors are keys of dicts.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import errors
from graphc.dtypes import DType
from graphc.errors import InternalError, ShapeError
from graphc.graph.notebook import in_notebook
from graphc.graph.shape import TensorShape, as_shape
from graphc.graph.stack import DefaultStack
from graphc.ir.types import PartialType

if TYPE_CHECKING:
    from graphc.graph.graph import Graph
    from graphc.graph.operation import Operation

sessions: DefaultStack[Any] = DefaultStack()


class Tensor:
    """Output `value_index` of `op`.  Source: tf.Tensor.

    type: dtype and sizes, where an unknown size is a symbol of its own (the user sees None).  value: what is known of
    the content of a small integer or bool tensor, as an object array of ints and sizes, or None.
    """

    __slots__ = ("__weakref__", "_consumers", "op", "type", "value", "value_index")

    __array_priority__ = 100  # a NumPy array on the left leaves the operator to us

    def __init__(self, op: Operation, value_index: int, type: PartialType, value: np.ndarray | None = None) -> None:
        self.op = op
        self.value_index = value_index
        self.type = type
        self.value = value
        self._consumers: list[Operation] = []

    @property
    def name(self) -> str:
        """The operation's name and the output's number: "MatMul:0"."""
        return f"{self.op.name}:{self.value_index}"

    @property
    def graph(self) -> Graph:
        return self.op.graph

    @property
    def device(self) -> str:
        return self.op.device

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> TensorShape:
        """The static shape; sizes that are not known are None."""
        sizes = self.type.shape
        return TensorShape(None if sizes is None else [d if isinstance(d, int) else None for d in sizes])

    def get_shape(self) -> TensorShape:
        """Return the static shape."""
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """Add to what is known of the shape.  Raises ShapeError where it contradicts what is known."""
        new, old = as_shape(shape), self.shape
        if not old.is_compatible_with(new):
            raise ShapeError(errors.report(f"set_shape: {self.name} has the shape {old}, which contradicts {new}",
                                           str(self.op.source)))
        if new.sizes is None:
            return
        known = self.type.shape or tuple(self.op.graph.fresh_size() for _ in new.sizes)
        merged = tuple(k if n is None else n for k, n in zip(known, new.sizes, strict=True))
        if merged != self.type.shape:
            self.type = replace(self.type, shape=merged)
            self.op.graph.touch()

    def consumers(self) -> list[Operation]:
        """The operations that have this tensor as an input, in order of creation."""
        return list(self._consumers)

    def eval(self, feed_dict: Mapping[Any, Any] | None = None, session: Any = None) -> Any:
        """Return this tensor's value, computed by `session` or the default session."""
        return default_session(session, self.graph, f"evaluate {self.name}", "eval").run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Tensor '{self.name}' shape={self.shape} dtype={self.dtype.name}>"

    def __str__(self) -> str:
        shape = f", shape={self.shape}" if self.type.shape is not None else ""
        return f'Tensor("{self.name}"{shape}, dtype={self.dtype.name})'

    def _repr_html_(self) -> str:
        return in_notebook(self)

    def __bool__(self) -> bool:
        raise TypeError(errors.report(
            f"{self.name} is a symbolic tensor and has no truth value while the graph is built",
            hint="write `if t is not None:` to ask whether it is there, tf.cond or tf.where to choose by its value"))

    def __iter__(self) -> Iterator[Tensor]:
        sizes = self.type.shape
        if not sizes or not isinstance(sizes[0], int):
            raise TypeError(f"{self.name} of shape {self.shape} cannot be iterated: the size of its first axis is not "
                            "known while the graph is built")
        return iter([self[i] for i in range(sizes[0])])

    def __len__(self) -> int:
        raise TypeError(f"len({self.name}) is not defined: x.shape[0] is the static size, tf.shape(x)[0] a tensor")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise NotImplementedError(f"{self.name} is a symbolic tensor; Session.run gives its value as a NumPy array")

    if TYPE_CHECKING:
        # Filled by install_operators; declared here so that type checkers know them.
        def __getitem__(self, key: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...


BINARY_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
COMPARISONS = ("lt", "le", "gt", "ge")
OPERATORS: tuple[str, ...] = ("__getitem__", "__neg__", "__abs__", "__invert__",
                              *(f"__{n}__" for n in COMPARISONS),
                              *(f"__{r}{n}__" for n in BINARY_OPERATORS for r in ("", "r")))


def install_operators(table: Mapping[str, Callable[..., Any]]) -> None:
    """Fill the operator slots of Tensor; `table` has every name of OPERATORS.  Raises InternalError the second time."""
    if set(table) != set(OPERATORS) or "__add__" in vars(Tensor):
        raise InternalError("the operators of Tensor are installed once and completely")
    for name, function in table.items():
        setattr(Tensor, name, function)


def default_session(session: Any, graph: Graph, purpose: str, method: str) -> Any:
    """Return `session`, or the default session; it must be one of `graph`.  Raises ValueError."""
    session = sessions.top() if session is None else session
    if session is None:
        raise errors.GraphError(f"cannot {purpose}: no session is the default here; "
                                f"use `with sess.as_default():` or {method}(session=sess)")
    if session.graph is not graph:
        raise errors.GraphError(f"cannot {purpose}: the session runs another graph; "
                                f"make it with tf.Session(graph=...) of the graph that holds it")
    return session


class IndexedSlices:
    """Rows of a larger tensor: values[i] belongs to row indices[i]; other rows are zero.  Source: tf.IndexedSlices."""

    __slots__ = ("dense_shape", "indices", "values")

    def __init__(self, values: Tensor, indices: Tensor, dense_shape: Tensor | None = None) -> None:
        self.values = values
        self.indices = indices
        self.dense_shape = dense_shape

    @property
    def name(self) -> str:
        return self.values.name

    @property
    def op(self) -> Operation:
        return self.values.op

    @property
    def dtype(self) -> DType:
        return self.values.dtype

    @property
    def graph(self) -> Graph:
        return self.values.graph

    @property
    def device(self) -> str:
        return self.values.device

    @property
    def shape(self) -> TensorShape:
        """The static shape of the dense tensor."""
        known = None if self.dense_shape is None else self.dense_shape.value
        if known is not None:
            return TensorShape([d if isinstance(d, int) else None for d in known.tolist()])
        return TensorShape([None]).concatenate(self.values.shape[1:]) if self.values.shape.ndims else TensorShape(None)

    def get_shape(self) -> TensorShape:
        return self.shape

    def __repr__(self) -> str:
        shape = f", dense_shape={self.dense_shape}" if self.dense_shape is not None else ""
        return f"IndexedSlices(indices={self.indices}, values={self.values}{shape})"
