"""Order and grouping: which operations wait for which, and operations that do nothing else.

Owns control dependencies, group, tuple, no_op, identity and stop_gradient.  Must not know variables.
Invariant: none of these changes a value.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, graph_of, name_scope
from graphc.errors import GraphError
from graphc.graph.graph import Graph, get_default_graph
from graphc.graph.operation import Operation, at_user
from graphc.graph.tensor import IndexedSlices, Tensor

__all__ = ["colocate_with", "control_dependencies", "device", "group", "identity", "identity_n", "init_scope",
           "name_scope", "no_op", "stop_gradient", "tuple_"]


def control_dependencies(control_inputs: Iterable[Any] | None) -> AbstractContextManager[None]:
    """Let operations made inside wait for `control_inputs`; None suspends outer blocks.

    Source: tf.control_dependencies.
    """
    items = None if control_inputs is None else list(control_inputs)
    return get_default_graph().control_dependencies(items)


@contextmanager
def init_scope(graph: Graph | None = None) -> Iterator[None]:
    """Make operations that wait for nothing, in `graph`: what creates variables is the same wherever it stands.

    Source: tf.init_scope.
    """
    graph = graph or get_default_graph()
    with graph.as_default(), graph.control_dependencies(None):
        yield


def device(name: Any) -> AbstractContextManager[None]:
    """Record a device for operations made inside.  Source: tf.device."""
    return get_default_graph().device(name)


def colocate_with(op: Any, ignore_existing: bool = False) -> AbstractContextManager[None]:
    """Record the device of `op` for operations made inside.  Source: tf.colocate_with."""
    return get_default_graph().colocate_with(op, ignore_existing)


def no_op(name: str | None = None) -> Operation:
    """Return an operation that does nothing.  Source: tf.no_op."""
    return get_default_graph().create_op("NoOp", (), None, name)


def group(*inputs: Any, name: str | None = None) -> Operation:
    """Return an operation that is done when all `inputs` (operations, tensors, variables, lists of them) are.

    Raises TypeError for None.  Source: tf.group.
    """
    items = list(_flatten(inputs))
    for item in items:
        if item is None or not (isinstance(item, (Operation, IndexedSlices)) or _is_element(item)):
            raise TypeError(f"group: {item!r} is neither an operation nor a tensor")
    graph = graph_of(items)
    with graph.as_default(), graph.control_dependencies(items):
        return graph.create_op("NoOp", (), None, name or "group_deps")


def _flatten(values: Any) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from _flatten(v)
        else:
            yield v


def _is_element(item: Any) -> bool:
    return isinstance(item, Tensor) or hasattr(item, "_as_graph_element")


def identity(input: Any, name: str | None = None) -> Tensor:
    """Return a tensor of the same value, made under the control dependencies in force.  Source: tf.identity."""
    with name_scope(name, "Identity", [input]) as scope:
        return cast(Tensor, create("Identity", scope, [convert_to_tensor(input, name="input")]))


def identity_n(input: Sequence[Any], name: str | None = None) -> list[Tensor]:
    """Return `identity` of each.  Source: tf.identity_n."""
    with name_scope(name, "IdentityN", input):
        return [identity(x) for x in input]


def stop_gradient(input: Any, name: str | None = None) -> Tensor:
    """Return `input`; no gradient flows through it.  Source: tf.stop_gradient."""
    with name_scope(name, "StopGradient", [input]) as scope:
        return cast(Tensor, create("StopGradient", scope, [convert_to_tensor(input, name="input")]))


def tuple_(tensors: Sequence[Any], name: str | None = None, control_inputs: Sequence[Any] | None = None) -> list[Any]:
    """Return the tensors, each available only when all are computed; None stays None.  Source: tf.tuple."""
    with name_scope(name, "tuple", tensors):
        gates = [t if isinstance(t, Operation) else t.op for t in tensors if t is not None]
        if not gates:
            raise at_user(GraphError, "tuple: there is no tensor to wait for")
        with control_dependencies([group(*gates, *(control_inputs or ()))]):
            return [None if t is None else t if isinstance(t, Operation) else _gated(t) for t in tensors]


def _gated(tensor: Any) -> Any:
    if isinstance(tensor, IndexedSlices):
        return IndexedSlices(identity(tensor.values), tensor.indices, tensor.dense_shape)
    return identity(tensor)
