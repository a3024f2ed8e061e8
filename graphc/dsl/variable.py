"""Variable: a tensor that keeps its value between runs.

Owns the class and the operations on one variable.  Knows graphs and the conversion to tensors; must not know scopes of
variables or sessions.  Invariants: a variable used as a tensor is read where it is used, under the control dependencies
in force; without any, all uses share one read operation ("w/read").
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from graphc import dtypes
from graphc.dsl.control import init_scope
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, graph_of, name_scope
from graphc.dtypes import DType
from graphc.errors import GraphError, ShapeError
from graphc.graph.graph import Graph
from graphc.graph.keys import GraphKeys
from graphc.graph.notebook import in_notebook
from graphc.graph.operation import Operation, at_user
from graphc.graph.shape import TensorShape, as_shape
from graphc.graph.tensor import OPERATORS, IndexedSlices, Tensor, default_session


class Variable:
    """A variable with the value `initial_value` once its initializer has run.

    initial_value: a tensor, an array, a number, or a function without arguments that makes one (then run where no
    control dependency holds).  trainable: whether optimizers change it by default.  collections: where it is listed
    (GLOBAL_VARIABLES).  validate_shape: with False the shape may be unknown.  expected_shape: deprecated, checked.
    constraint: a function from value to value that optimizers apply after an update.
    Raises ValueError where the initial value is missing or has no static shape.  Source: tf.Variable.
    """

    __array_priority__ = 100

    def __init__(self, initial_value: Any = None, trainable: bool | None = True,
                 collections: Sequence[str] | None = None,
                 validate_shape: bool = True, caching_device: Any = None, name: str | None = None,
                 variable_def: Any = None, dtype: Any = None, expected_shape: Any = None,
                 import_scope: str | None = None,
                 constraint: Callable[[Tensor], Tensor] | None = None, use_resource: bool | None = None,
                 synchronization: Any = None, aggregation: Any = None, shape: Any = None) -> None:
        if variable_def is not None:
            raise at_user(GraphError, "Variable: variable_def is not supported; give initial_value")
        if initial_value is None:
            raise at_user(GraphError, "Variable: initial_value is missing")
        if isinstance(collections,
                      str) or (collections is not None and not isinstance(collections, (list, tuple, set))):
            raise at_user(GraphError, f"Variable: collections must be a list of names, not {collections!r}")
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        self.constraint = constraint
        self._trainable = trainable is None or trainable
        with init_scope(graph_of([initial_value])), name_scope(name, "Variable") as scope:
            if callable(initial_value):
                with name_scope("Initializer"):
                    start = convert_to_tensor(initial_value(), wanted, "initial_value")
            else:
                start = convert_to_tensor(initial_value, wanted, "initial_value")
            sizes = as_shape(shape) if shape is not None else start.shape
            if validate_shape and not start.shape.is_fully_defined():
                raise at_user(ShapeError, f"Variable: the shape {start.shape} of the initial value is not fully known",
                              [start], "give it a static shape, or pass validate_shape=False")
            if expected_shape is not None:
                start.shape.assert_is_compatible_with(expected_shape)
            self._initial_value = start
            handle = create("VariableV2", scope, (), {"dtype": start.dtype, "shape": sizes.sizes})
            self._handle: Tensor = handle
            self.initializer: Operation = create("Assign", "Assign", [handle, without_reads(start)]).op
            self._snapshot: Tensor = create("ReadVariable", "read", [handle])
        kinds = list(collections) if collections is not None else [GraphKeys.GLOBAL_VARIABLES]
        if self._trainable and GraphKeys.TRAINABLE_VARIABLES not in kinds:
            kinds.append(GraphKeys.TRAINABLE_VARIABLES)
        self.graph.extensions.setdefault("variables", {})[handle.op] = self
        self.graph.add_to_collections(kinds, self)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def handle(self) -> Tensor:
        """The output of the variable's own operation, which assignments and reads take."""
        return self._handle

    @property
    def op(self) -> Operation:
        return self._handle.op

    @property
    def name(self) -> str:
        """The name of the variable's tensor: "w:0"."""
        return self._handle.name

    @property
    def graph(self) -> Graph:
        return self._handle.graph

    @property
    def device(self) -> str:
        return self._handle.device

    @property
    def dtype(self) -> DType:
        return self._handle.dtype

    @property
    def shape(self) -> TensorShape:
        return self._handle.shape

    def get_shape(self) -> TensorShape:
        """Return the static shape."""
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """Add to what is known of the shape.  Raises ShapeError where it contradicts what is known."""
        self._handle.set_shape(shape)
        self._snapshot.set_shape(shape)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @property
    def initial_value(self) -> Tensor:
        """The tensor that the initializer assigns."""
        return self._initial_value

    def initialized_value(self) -> Tensor:
        """Return the initial value, for other variables that start from it.  Source: tf.Variable.initialized_value."""
        return without_reads(self._initial_value)

    # -- reading ------------------------------------------------------------------------------------------------------

    def value(self) -> Tensor:
        """Return the content as a tensor, read under the control dependencies in force."""
        if not self.graph.has_control_dependencies:
            return self._snapshot
        with name_scope(f"{self.op.name}/", values=[self._handle]):
            return cast(Tensor, create("ReadVariable", "read", [self._handle]))

    def read_value(self) -> Tensor:
        """Return the content as a tensor of a new read operation."""
        with name_scope(None, "read", [self._handle]) as scope:
            return cast(Tensor, create("ReadVariable", scope, [self._handle]))

    _as_tensor = value

    def _as_graph_element(self) -> Tensor:
        return self._handle

    def eval(self, session: Any = None, feed_dict: Mapping[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """Return the content as an array."""
        return self._handle.eval(feed_dict, session)  # type: ignore[no-any-return]

    def consumers(self) -> list[Operation]:
        return self._handle.consumers()

    # -- writing ------------------------------------------------------------------------------------------------------

    def assign(self, value: Any, use_locking: bool = False, name: str | None = None, read_value: bool = True) -> Any:
        """Return the tensor of the new content, whose computation writes it.  Source: tf.Variable.assign."""
        return self._write("Assign", value, name, read_value)

    def assign_add(self, delta: Any, use_locking: bool = False, name: str | None = None,
                   read_value: bool = True) -> Any:
        """Return the tensor of the content plus `delta`, whose computation writes it."""
        return self._write("AssignAdd", delta, name, read_value)

    def assign_sub(self, delta: Any, use_locking: bool = False, name: str | None = None,
                   read_value: bool = True) -> Any:
        """Return the tensor of the content minus `delta`, whose computation writes it."""
        return self._write("AssignSub", delta, name, read_value)

    def _write(self, op_type: str, value: Any, name: str | None, read_value: bool) -> Any:
        with name_scope(name, op_type, [self._handle]) as scope:
            tensor = convert_to_tensor(value, self.dtype, "value")
            written = create(op_type, scope, [self._handle, tensor])
        return written if read_value else written.op

    def scatter_update(self, sparse_delta: IndexedSlices, use_locking: bool = False, name: str | None = None) -> Tensor:
        """Set rows; of equal indices the last one stays."""
        return self._scatter("ScatterUpdate", sparse_delta, name)

    def scatter_add(self, sparse_delta: IndexedSlices, use_locking: bool = False, name: str | None = None) -> Tensor:
        """Add to rows; equal indices add up."""
        return self._scatter("ScatterAdd", sparse_delta, name)

    def scatter_sub(self, sparse_delta: IndexedSlices, use_locking: bool = False, name: str | None = None) -> Tensor:
        """Subtract from rows; equal indices add up."""
        return self._scatter("ScatterSub", sparse_delta, name)

    def _scatter(self, op_type: str, rows: IndexedSlices, name: str | None) -> Tensor:
        if not isinstance(rows, IndexedSlices):
            raise TypeError(f"{op_type}: the rows must be tf.IndexedSlices, not {type(rows).__name__}")
        return scatter(op_type, self, rows.indices, rows.values, name)

    def load(self, value: Any, session: Any = None) -> None:
        """Set the content at once, in `session` or the default session.  Raises as feeding it would."""
        default_session(session, self.graph, f"load {self.name}", "load").load(self._handle, value)

    def __getitem__(self, key: Any) -> Tensor:
        return self.value()[key]

    def __iter__(self) -> Any:
        raise TypeError(f"variable {self.name} cannot be iterated; use tf.unstack")

    def __bool__(self) -> bool:
        raise TypeError(f"variable {self.name} has no truth value while the graph is built")

    def __repr__(self) -> str:
        return f"<tf.Variable '{self.name}' shape={self.shape} dtype={self.dtype.name}>"

    def _repr_html_(self) -> str:
        return in_notebook(self)


def without_reads(tensor: Tensor) -> Tensor:
    """Return `tensor` computed from the initial values of the variables that it reads.

    So one run may initialise variables that start from each other, in any order.
    """
    above = _ancestors(tensor)
    variables = tensor.graph.extensions.get("variables", {})
    instead: dict[Tensor, Tensor] = {}
    for op in above:
        if op.type == "ReadVariable" and op.inputs[0].op in variables:
            instead[op.outputs[0]] = without_reads(variables[op.inputs[0].op].initial_value)
        elif any(t in instead for t in op.inputs):
            again = op.graph.create_op(op.type, [instead.get(t, t) for t in op.inputs], op.attrs, op.name)
            instead |= zip(op.outputs, again.outputs, strict=True)
    return instead.get(tensor, tensor)


def _ancestors(tensor: Tensor) -> list[Operation]:
    """The operations that `tensor` is computed by, in order of creation; a read is followed no further."""
    found = {tensor.op}
    stack = [tensor.op]
    while stack:
        op = stack.pop()
        for t in () if op.type == "ReadVariable" else op.inputs:
            if t.op not in found:
                found.add(t.op)
                stack.append(t.op)
    return sorted(found, key=lambda op: op.index)


def scatter(op_type: str, ref: Any, indices: Any, updates: Any, name: str | None = None) -> Tensor:
    """Return the tensor of a variable's content after rows `indices` were changed by `updates`; writes it."""
    with name_scope(name, op_type, [ref]) as scope:
        rows = convert_to_tensor(indices, name="indices")
        values = convert_to_tensor(updates, ref.dtype, "updates")
        return cast(Tensor, create(op_type, scope, [handle_of(ref), rows, values]))


def handle_of(ref: Any) -> Tensor:
    """Return the variable's handle: of a Variable, or of the tensor that an assignment returned.

    Raises TypeError for anything else.
    """
    if isinstance(ref, Variable):
        return ref.handle
    if isinstance(ref, Tensor) and ref.op.op.kind.value == "state":
        return ref
    raise TypeError(f"{ref!r} is not a variable")


def install_operators() -> None:
    """Give Variable the operators of Tensor, applied to its content."""
    def forward(name: str) -> Callable[..., Any]:
        def operator(self: Variable, *args: Any) -> Any:
            return getattr(self.value(), name)(*args)
        operator.__name__ = name
        return operator

    for name in OPERATORS:
        if name != "__getitem__":
            setattr(Variable, name, forward(name))
