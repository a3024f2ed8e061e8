"""Symbolic reverse mode: gradients as operations of the same graph, so that they differentiate again.

Owns `gradients`, the accumulation of dense gradients and gradients by rows, and the overriding of an operation's
gradient. Knows graphs and the ops' own gradients; must not know the IR or sessions.  Invariants: every operation that
lies between xs and ys is visited once, in reverse order of creation, which is an order in which its outputs' gradients
are complete; nothing recurses; an operation made here is marked with the operation whose gradient it computes.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from graphc import source
from graphc.dtypes import int32
from graphc.errors import GradientError, GraphcError, GraphError, InternalError, report
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation, describe_operands
from graphc.graph.tensor import IndexedSlices, Tensor
from graphc.ir.types import PartialType, Shape
from graphc.ops import build as b
from graphc.ops.base import NoGradient, Op

Gradient: TypeAlias = Tensor | IndexedSlices
GradientFunction: TypeAlias = Callable[..., Sequence["Gradient | None"]]

_OVERRIDES = "gradient_functions"
_KEEPS_ROWS = frozenset({"Identity", "ReadVariable"})  # pass a gradient by rows on as it is; others take it dense


def override_gradient(operation: Operation, function: GradientFunction) -> None:
    """Let function(operation, *grads) give the gradients of this one operation, one per input that is not static.

    What custom gradients stand on.  Source: tf.custom_gradient, tf.Graph.gradient_override_map.
    """
    operation.graph.extensions.setdefault(_OVERRIDES, {})[operation] = function


def gradients(ys: Any, xs: Any, grad_ys: Any = None, name: str = "gradients", colocate_gradients_with_ops: bool = False,
              gate_gradients: bool = False, aggregation_method: Any = None, stop_gradients: Any = None,
              unconnected_gradients: str = "none") -> list[Gradient | None]:
    """Return the gradient of the sum of all `ys` with respect to each of `xs`, in the shapes of `xs`.

    ys, xs: a tensor (or variable) or a list of them.  grad_ys: what flows into each y (ones where None).
    stop_gradients: tensors that count as constants.  The gradient is None where no y depends on x through floats
    (zeros with unconnected_gradients="zero"); an IndexedSlices where only rows of x were gathered.
    colocate_gradients_with_ops, gate_gradients and aggregation_method are accepted and change nothing: a whole step is
    compiled together.  Raises GradientError at an operation that cannot be differentiated.  Source: tf.gradients.
    """
    if unconnected_gradients not in ("none", "zero"):
        raise ValueError(f"unconnected_gradients is {unconnected_gradients!r}; it must be 'none' or 'zero'")
    targets = _tensors(ys, "ys")
    if not targets:
        raise GraphError(report("gradients: ys is empty", str(source.capture())))
    graph = targets[0].graph
    chosen = _tensors(xs, "xs", graph)
    stopped = frozenset(_tensors(() if stop_gradients is None else stop_gradients, "stop_gradients", graph))
    seeds = [None] * len(targets) if grad_ys is None else _listed(grad_ys)
    if len(seeds) != len(targets):
        raise GraphError(report(f"gradients: {len(targets)} ys and {len(seeds)} grad_ys are given",
                                str(source.capture())))
    with graph.as_default(), graph.name_scope(name):
        reverse = _Reverse(graph, chosen, stopped)
        for i, (y, seed) in enumerate(zip(targets, seeds, strict=True)):
            reverse.flow(y, _seed(y, seed, i))
        reverse.run(_between(targets, chosen, stopped))
        found = [reverse.total(x) for x in chosen]
        if unconnected_gradients == "zero":
            return [b.zeros_like(x) if g is None else g for x, g in zip(chosen, found, strict=True)]
        return found


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _tensors(value: Any, what: str, graph: Graph | None = None) -> list[Tensor]:
    """Return the tensors that `value` holds: of one graph."""
    found: list[Tensor] = []
    for item in _listed(value):
        convert = getattr(item, "_as_graph_element", None)
        tensor = item if convert is None else convert()
        if isinstance(tensor, IndexedSlices):
            tensor = densify(tensor)
        if not isinstance(tensor, Tensor):
            raise TypeError(report(f"gradients: {what} holds {item!r}, which is not a tensor", str(source.capture())))
        home = graph or (found[0].graph if found else tensor.graph)
        found.append(cast(Tensor, home.as_graph_element(tensor, allow_operation=False)))
    return found


def _seed(y: Tensor, given: Any, number: int) -> Gradient:
    if given is None:
        one = b.constant(1, y.dtype)
        return one if y.type.shape == () else cast(Tensor, b.op("Fill", b.shape_of(y), one))
    if isinstance(given, IndexedSlices):
        return given
    convert = getattr(given, "_as_graph_element", None)
    seed = given if convert is None else convert()
    if not isinstance(seed, Tensor):
        seed = b.constant(seed, y.dtype)
    if seed.dtype is not y.dtype:
        raise TypeError(report(f"gradients: grad_ys[{number}] is {seed.dtype.name}, ys[{number}] is {y.dtype.name}",
                               str(source.capture()), describe_operands([y, seed])))
    if not y.shape.is_compatible_with(seed.shape):
        raise GraphError(report(f"gradients: grad_ys[{number}] has the shape {seed.shape}, ys[{number}] {y.shape}",
                                str(source.capture()), describe_operands([y, seed])))
    return seed


def _between(ys: Sequence[Tensor], xs: Sequence[Tensor], stopped: frozenset[Tensor]) -> list[Operation]:
    """Return the operations on a path of floats from an x to a y, in reverse order of creation."""
    stack = [y.op for y in ys if y not in stopped]
    above = set(stack)
    while stack:
        for t in stack.pop().inputs:
            if t not in stopped and t.op not in above:
                above.add(t.op)
                stack.append(t.op)
    wanted = frozenset(xs)
    reached: set[Operation] = set()
    order = []
    for op in sorted(above, key=lambda op: op.index):
        if any(t.dtype.is_floating and (t in wanted or (t not in stopped and t.op in reached)) for t in op.inputs):
            reached.add(op)
            order.append(op)
    return order[::-1]


class _Reverse:
    """One backward pass: what has flowed into each tensor so far."""

    def __init__(self, graph: Graph, xs: Sequence[Tensor], stopped: frozenset[Tensor]) -> None:
        self._graph = graph
        self._stopped = stopped
        self._flows: dict[Tensor, list[Gradient]] = {}
        self._wanted = frozenset(xs)
        self._overrides: Mapping[Operation, GradientFunction] = graph.extensions.get(_OVERRIDES, {})

    def flow(self, t: Tensor, gradient: Gradient) -> None:
        """Add to what flows into `t`."""
        self._flows.setdefault(t, []).append(gradient)

    def total(self, t: Tensor) -> Gradient | None:
        """What flows into `t` in all."""
        parts = self._flows.get(t)
        if not parts:
            return None
        if len(parts) > 1:
            parts[:] = [accumulate(parts)]
        return parts[0]

    def run(self, order: Sequence[Operation]) -> None:
        """Take the gradients of `order`, operation by operation."""
        for op in order:
            grads = [None if t in self._stopped else self.total(t) for t in op.outputs]
            if all(g is None for g in grads):
                continue
            with self._graph.gradient_of(op), self._graph.name_scope(f"{op.name}_grad"):
                found = self._gradients_of(op, grads)
            for t, g in zip(b.inputs_of(op), found, strict=True):
                if g is not None and t.dtype.is_floating:
                    self.flow(t, _shaped(g, t, op))
            for t in op.outputs:
                if t not in self._wanted:
                    self._flows.pop(t, None)

    def _gradients_of(self, op: Operation, grads: Sequence[Gradient | None]) -> Sequence[Gradient | None]:
        definition: Op = op.op
        count = len(b.inputs_of(op))
        function = self._overrides.get(op)
        if function is None:
            if isinstance(definition.gradient, NoGradient):
                return [None] * count
            function = definition.gradient
        if definition.name not in _KEEPS_ROWS:
            grads = [densify(g) if isinstance(g, IndexedSlices) else g for g in grads]
        try:
            found = function(op, *grads)
        except GraphcError:
            raise
        except (LookupError, TypeError) as error:
            text = report(f"{op.type}: no gradient through {op.name!r}: {_words(error)}", str(op.source),
                          describe_operands(op.inputs), f"asked for at {source.capture()}")
            raise GradientError(text) from error
        if len(found) != count:
            raise InternalError(f"the gradient of {op.type} ({op.name}) gives {len(found)} results for {count} inputs")
        return found


def _words(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__


def _shaped(g: Gradient, like: Tensor, op: Operation) -> Gradient:
    """Note that `g` has the shape of `like`: sizes that either knows, both know."""
    if isinstance(g, IndexedSlices) or like.type.shape is None or g.type.shape == like.type.shape:
        return g
    have = g.type.shape
    if have is not None and (len(have) != len(like.type.shape) or any(
            isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(have, like.type.shape, strict=True))):
        raise InternalError(f"the gradient of {op.type} ({op.name}) has the shape {have} for an input of "
                            f"{like.type.shape}")
    known: Shape = like.type.shape if have is None else tuple(
        m if isinstance(m, int) else n for m, n in zip(have, like.type.shape, strict=True))
    g.type = PartialType(g.type.dtype, known)
    return g


def accumulate(parts: Sequence[Gradient]) -> Gradient:
    """Return the sum of gradients of one tensor: rows are joined, and made dense where a dense one is among them."""
    if not any(isinstance(g, IndexedSlices) for g in parts):
        return cast(Tensor, b.op("AddN", *parts))
    rows = [g for g in parts if isinstance(g, IndexedSlices)]
    if len(rows) < len(parts):
        return cast(Tensor, b.op("AddN", *(densify(g) if isinstance(g, IndexedSlices) else g for g in parts)))
    dtypes = {g.indices.dtype for g in rows}
    indices = [g.indices if len(dtypes) == 1 else b.op("Cast", g.indices, dtype=int32) for g in rows]
    shape = next((g.dense_shape for g in rows if g.dense_shape is not None), None)
    return IndexedSlices(b.concat(0, [g.values for g in rows]), b.concat(0, indices), shape)


def densify(g: IndexedSlices) -> Tensor:
    """Return a gradient by rows as a tensor, duplicate rows summed.  Source: tf.convert_to_tensor of IndexedSlices."""
    if g.dense_shape is None:
        raise GraphError(report(f"the gradient by rows {g.name} has no dense_shape and cannot become a tensor",
                                str(source.capture())))
    known = g.dense_shape.value
    if known is not None and isinstance(known[0], int):
        rows: Any = known[0]
    else:
        rows = b.op("Squeeze", b.op("Slice", g.dense_shape, (0,), (1,)), axis=(0,))
    return cast(Tensor, b.op("UnsortedSegmentSum", g.values, g.indices, rows))
