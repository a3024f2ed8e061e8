"""Graph: the append-only record of what the user wrote.

Owns operations in order of creation, unique names, scopes, control dependencies, devices, collections and the stack of
default graphs.  Knows structure only: what an op is and which types its outputs have, it asks of `Graph.rules`, which
graphc/ops/inference.py installs when the ops are imported (graphs come before ops in the order of imports).
Invariants: an operation never changes or goes; its inputs and control inputs were made before it.
"""
from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np

from graphc import source
from graphc.errors import FinalizedGraphError, GraphError, InternalError, report
from graphc.graph import device as devices
from graphc.graph.keys import GraphKeys
from graphc.graph.notebook import in_notebook
from graphc.graph.operation import Operation
from graphc.graph.stack import DefaultStack
from graphc.graph.tensor import IndexedSlices, Tensor, default_session, sessions
from graphc.ir import dim
from graphc.ir.types import PartialType

_VALID_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\-/]*")
_VALID_INNER_NAME = re.compile(r"[A-Za-z0-9_.\-/]*")


class Rules(Protocol):
    """What a graph asks of the ops."""

    def definition(self, op_type: str) -> Any:
        """The registry's entry.  Raises KeyError."""

    def attrs(self, op: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """All attrs: the entry's defaults changed by `given`.  Raises InternalError for an attr the op has not."""

    def infer(self, operation: Operation) -> Sequence[tuple[PartialType, np.ndarray | None]]:
        """Type and symbolic content (or None) of each output.  Raises ShapeError or DTypeError at the user's line."""


class _Controller:
    """One `control_dependencies` block: what new operations wait for, and which operations were made inside it.

    An operation with an input made inside the block waits already, through that input.
    """

    __slots__ = ("inputs", "made")

    def __init__(self, inputs: Sequence[Operation]) -> None:
        self.inputs = inputs
        self.made: set[Operation] = set()


class Graph:
    """A graph of operations.  Source: tf.Graph."""

    rules: ClassVar[Rules]

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._operations: list[Operation] = []
        self._by_name: dict[str, Operation] = {}
        self._names_in_use: dict[str, int] = {}
        self._collections: dict[str, list[Any]] = {}
        self._name_stack = ""
        self._controllers: list[_Controller] = []
        self._device = ""
        self._gradient_of: Operation | None = None
        self._fresh = 0
        self._changes = 0
        self._finalized = False
        self.seed: int | None = None
        self.extensions: dict[str, Any] = {}
        """What the language keeps per graph (its variable scope, cached reads), by its own keys."""

    # -- building ---------------------------------------------------------------------------------------------------

    def create_op(self, op_type: str, inputs: Iterable[Tensor] = (), attrs: Mapping[str, Any] | None = None,
                  name: str | None = None, control_inputs: Iterable[Operation] | None = None) -> Operation:
        """Append an operation and return it.

        name: made unique inside the current name scope; with a trailing "/" it is taken as it is (a scope's own name).
        control_inputs: added to those of the control_dependencies blocks in force.
        Raises GraphError (finalized, another graph's tensor), ShapeError or DTypeError at the user's line.
        """
        with self._lock:
            self.check_not_finalized()
            op = self.rules.definition(op_type)
            tensors = tuple(inputs)
            for t in tensors:
                if t.op.graph is not self:
                    raise GraphError(self._foreign(t, f"an input of {op_type}"))
            chosen = name or op_type
            full = chosen[:-1] if chosen[-1] == "/" else self.unique_name(chosen)
            waits = self._waits_for(tensors, control_inputs)
            operation = Operation(self, op, full, tensors, self.rules.attrs(op, attrs or {}), waits, self._device,
                                  source.capture(), self._gradient_of, len(self._operations))
            operation.outputs = tuple([Tensor(operation, i, type, value)
                                       for i, (type, value) in enumerate(self.rules.infer(operation))])
            self._operations.append(operation)
            self._by_name[full] = operation
            for t in tensors:
                t._consumers.append(operation)
            for controller in self._controllers:
                controller.made.add(operation)
            self._changes += 1
            return operation

    def _waits_for(self, inputs: Sequence[Tensor], extra: Iterable[Operation] | None) -> tuple[Operation, ...]:
        if extra is None and not self._controllers:
            return ()
        waits: dict[Operation, None] = dict.fromkeys(extra or ())
        for controller in self._controllers:
            if not any(t.op in controller.made for t in inputs):
                waits.update(dict.fromkeys(controller.inputs))
        return tuple(waits)

    def fresh_size(self) -> dim.Dim:
        """Return a size symbol of its own (`_1`, `_2` ...): a size that nothing is known of."""
        self._fresh += 1
        return dim.symbol(f"_{self._fresh}")

    def touch(self) -> None:
        """Note that what is known of the graph has grown (a shape was set)."""
        self._changes += 1

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._changes

    def finalize(self) -> None:
        """Refuse all further operations."""
        self._finalized = True

    @property
    def finalized(self) -> bool:
        return self._finalized

    def check_not_finalized(self) -> None:
        """Raise FinalizedGraphError (a RuntimeError) where the graph is finalized."""
        if self._finalized:
            raise FinalizedGraphError(report("the graph is finalized and cannot be modified", str(source.capture())))

    # -- names ------------------------------------------------------------------------------------------------------

    def unique_name(self, name: str, mark_as_used: bool = True) -> str:
        """Return `name` inside the current scope, with _1, _2 ... where it is taken (case is not told apart)."""
        full = f"{self._name_stack}/{name}" if self._name_stack else name
        key = full.lower()
        count = self._names_in_use.get(key, 0)
        if mark_as_used:
            self._names_in_use[key] = count + 1
        if count == 0:
            pattern = _VALID_INNER_NAME if self._name_stack else _VALID_NAME
            if not pattern.fullmatch(name):
                self._names_in_use.pop(key, None)
                raise GraphError(report(f"{name!r} is not a valid name", str(source.capture()),
                                        hint="a name is made of letters, digits and _ . - / and starts with "
                                             "a letter, a digit or a dot"))
            return full
        base = key
        while key in self._names_in_use:
            key = f"{base}_{count}"
            count += 1
        if mark_as_used:
            self._names_in_use[key] = 1
        return f"{full}_{count - 1}"

    @contextmanager
    def name_scope(self, name: str | None) -> Iterator[str]:
        """Prefix names of new operations with `name`/, made unique; "name/" is that very scope, "" or None is none."""
        before = self.enter_name_scope(name)
        try:
            yield f"{self._name_stack}/" if self._name_stack else ""
        finally:
            self.leave_name_scope(before)

    def enter_name_scope(self, name: str | None) -> str:
        """Enter a scope as `name_scope` does and return what `leave_name_scope` needs to go back."""
        before = self._name_stack
        if not name:
            self._name_stack = ""
        elif name[-1] == "/":
            self._name_stack = name[:-1]
        else:
            self._name_stack = self.unique_name(name)
        return before

    def leave_name_scope(self, before: str) -> None:
        """Go back to the scope that `enter_name_scope` left."""
        self._name_stack = before

    def get_name_scope(self) -> str:
        """Return the current name scope, without the trailing "/"."""
        return self._name_stack

    # -- scopes -----------------------------------------------------------------------------------------------------

    @contextmanager
    def control_dependencies(self, control_inputs: Iterable[Any] | None) -> Iterator[None]:
        """Let new operations wait for `control_inputs` (operations, tensors, variables); None suspends outer blocks."""
        before = self._controllers
        if control_inputs is None:
            self._controllers = []
        else:
            waits = dict.fromkeys(self._as_operation(c) for c in control_inputs)
            outer = {op for controller in before for op in controller.inputs}
            self._controllers = [*before, _Controller([op for op in waits if op not in outer])]
        try:
            yield
        finally:
            self._controllers = before

    @property
    def has_control_dependencies(self) -> bool:
        """Whether new operations wait for others here."""
        return any(controller.inputs for controller in self._controllers)

    def _as_operation(self, item: Any) -> Operation:
        if isinstance(item, IndexedSlices):
            item = item.op
        element = self.as_graph_element(item)
        return element.op if isinstance(element, Tensor) else element

    @contextmanager
    def device(self, name: str | Callable[[Any], str] | None) -> Iterator[None]:
        """Record a device for new operations; inner blocks override outer ones part by part, None forgets them all."""
        before = self._device
        if callable(name):
            raise GraphError("device functions are not supported: pass the name of a device, such as '/cpu:0'")
        self._device = devices.merge(before, name) if name else ""
        try:
            yield
        finally:
            self._device = before

    @contextmanager
    def gradient_of(self, op: Operation) -> Iterator[None]:
        """Mark new operations as computing the gradient of `op`."""
        before = self._gradient_of
        self._gradient_of = op
        try:
            yield
        finally:
            self._gradient_of = before

    @contextmanager
    def colocate_with(self, op: Any, ignore_existing: bool = False) -> Iterator[None]:
        """Record for new operations the device of `op`."""
        with self.device(self._as_operation(op).device):
            yield

    def as_default(self) -> AbstractContextManager[Graph]:
        """Make this graph the default inside a `with` block."""
        return graphs.entered(self)

    # -- look-up ----------------------------------------------------------------------------------------------------

    def get_operations(self) -> list[Operation]:
        """Return all operations in order of creation."""
        return list(self._operations)

    @property
    def operation_count(self) -> int:
        return len(self._operations)

    def get_operation_by_name(self, name: str) -> Operation:
        """Return the operation called `name`.  Raises KeyError (with near names), TypeError for a non-string."""
        if not isinstance(name, str):
            raise TypeError(f"operation names are strings, not {type(name).__name__}")
        element = self.as_graph_element(name, allow_tensor=False)
        assert isinstance(element, Operation)
        return element

    def find(self, name: str) -> Operation | None:
        """Return the operation called `name`, or None."""
        return self._by_name.get(name)

    def get_tensor_by_name(self, name: str) -> Tensor:
        """Return the tensor called `name` ("op:0").  Raises KeyError (with near names), TypeError for a non-string."""
        if not isinstance(name, str):
            raise TypeError(f"tensor names are strings, not {type(name).__name__}")
        element = self.as_graph_element(name, allow_operation=False)
        assert isinstance(element, Tensor)
        return element

    def as_graph_element(self, obj: Any, allow_tensor: bool = True, allow_operation: bool = True) -> Tensor | Operation:
        """Return the tensor or operation that `obj` is or names.

        Raises KeyError for an unknown name, GraphError (a ValueError) for a malformed name or another graph's element,
        TypeError for anything else.  Source: tf.Graph.as_graph_element.
        """
        convert = getattr(obj, "_as_graph_element", None)
        if convert is not None:
            obj = convert()
        if (isinstance(obj, Tensor) and allow_tensor) or (isinstance(obj, Operation) and allow_operation):
            if obj.graph is not self:
                raise GraphError(self._foreign(obj))
            return obj
        if isinstance(obj, str):
            return self._by_text(obj, allow_tensor, allow_operation)
        kinds = " or ".join(["a tensor"] * allow_tensor + ["an operation"] * allow_operation)
        raise TypeError(f"{obj!r} of type {type(obj).__name__} is not {kinds} of a graph, nor the name of one")

    def _by_text(self, name: str, allow_tensor: bool, allow_operation: bool) -> Tensor | Operation:
        op_name, colon, number = name.rpartition(":")
        if not colon:
            op_name = name
        if (colon and not allow_operation) or (colon and allow_tensor):
            if not number.isdigit():
                raise GraphError(f"{name!r} does not name a tensor: the form is <operation>:<output>")
            op = self._by_name.get(op_name)
            if op is None:
                raise KeyError(f"the graph has no tensor {name!r}{self._near(op_name, ':' + number)}")
            if int(number) >= len(op.outputs):
                raise KeyError(f"the graph has no tensor {name!r}: operation {op_name!r} has {len(op.outputs)} outputs")
            return op.outputs[int(number)]
        if not allow_operation:
            hint = f"; did you mean {name + ':0'!r}?" if name in self._by_name else ""
            raise GraphError(f"{name!r} does not name a tensor: the form is <operation>:<output>{hint}")
        if colon:
            raise GraphError(f"{name!r} names a tensor, but an operation is asked for")
        if name not in self._by_name:
            raise KeyError(f"the graph has no operation {name!r}{self._near(name)}")
        return self._by_name[name]

    def _near(self, name: str, suffix: str = "") -> str:
        near = near_names(name, self._by_name)
        return f"; near names: {', '.join(repr(n + suffix) for n in near)}" if near else ""

    def _foreign(self, element: Tensor | Operation, role: str | None = None) -> str:
        op = element.op if isinstance(element, Tensor) else element
        what = "tensor" if isinstance(element, Tensor) else "operation"
        used = f", {role}," if role else ""
        return report(f"{what} {element.name!r}{used} belongs to another graph", str(source.capture()),
                      [(op.name, f"made at {op.source}")],
                      "make it inside `with graph.as_default():` of the graph that uses it")

    def is_feedable(self, tensor: Any) -> bool:
        """Whether `tensor` may be fed."""
        return tensor not in self.extensions.get("unfeedable", ())

    def prevent_feeding(self, tensor: Tensor) -> None:
        """Refuse feeds of `tensor`."""
        self.extensions.setdefault("unfeedable", set()).add(tensor)

    # -- collections ------------------------------------------------------------------------------------------------

    def add_to_collection(self, name: str, value: Any) -> None:
        """Append `value` to the collection `name`."""
        self.check_not_finalized()
        self._collections.setdefault(name, []).append(value)

    def add_to_collections(self, names: Iterable[str] | str, value: Any) -> None:
        """Append `value` to every collection in `names`, once to each."""
        for name in dict.fromkeys((names,) if isinstance(names, str) else names):
            self.add_to_collection(name, value)

    def get_collection(self, name: str, scope: str | None = None) -> list[Any]:
        """Return a copy of the collection; with `scope`, the items whose name that regular expression matches."""
        items = self._collections.get(name, [])
        if scope is None:
            return list(items)
        pattern = re.compile(scope)
        return [item for item in items if hasattr(item, "name") and pattern.match(item.name)]

    def get_collection_ref(self, name: str) -> list[Any]:
        """Return the collection itself: what is appended stays."""
        return self._collections.setdefault(name, [])

    def get_all_collection_keys(self) -> list[str]:
        """Return the names of all collections."""
        return list(self._collections)

    @property
    def collections(self) -> list[str]:
        return self.get_all_collection_keys()

    def clear_collection(self, name: str) -> None:
        """Empty the collection `name`."""
        self.check_not_finalized()
        self._collections.pop(name, None)

    def __repr__(self) -> str:
        return f"<tf.Graph of {len(self._operations)} operations>"

    def _repr_html_(self) -> str:
        return in_notebook(self)


def near_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the known names that `name` may have been meant to be, nearest first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.6)


class _Graphs(DefaultStack[Graph]):
    """The default graphs, and the one that is there when no block is entered (one for all threads)."""

    bottom: ClassVar[Graph | None] = None


graphs = _Graphs()


def get_default_graph() -> Graph:
    """Return the innermost default graph of this thread.  Source: tf.get_default_graph."""
    top = graphs.top()
    if top is not None:
        return top
    if _Graphs.bottom is None:
        _Graphs.bottom = Graph()
    return _Graphs.bottom


def reset_default_graph() -> None:
    """Replace the global default graph by an empty one.  Raises AssertionError inside a `with graph.as_default()`."""
    if graphs.items:
        raise AssertionError("reset_default_graph cannot be called inside a `with graph.as_default():` block")
    _Graphs.bottom = Graph()


@contextmanager
def fresh_default_graph() -> Iterator[None]:
    """Let a block begin as a new process does: with an empty default graph, which it may replace, and no default
    session; afterwards everything is as before."""
    bottom, graph_items, session_items = _Graphs.bottom, graphs.items, sessions.items
    _Graphs.bottom, graphs.items, sessions.items = Graph(), [], []
    try:
        yield
    finally:
        _Graphs.bottom, graphs.items, sessions.items = bottom, graph_items, session_items


def get_default_session() -> Any:
    """Return the innermost default session of this thread, or None.  Source: tf.get_default_session."""
    return sessions.top()


__all__ = ["Graph", "GraphKeys", "IndexedSlices", "InternalError", "Operation", "Rules", "Tensor", "default_session",
           "fresh_default_graph", "get_default_graph", "get_default_session", "graphs", "near_names",
           "reset_default_graph", "sessions"]
