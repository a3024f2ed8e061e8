"""Common subexpressions: equal applications of equal ops become one.

Law: exact; operands of commutative ops are equal in either order.  Random ops and host calls are never merged (the
counter that a random op takes is its own anyway); what two merged nodes came from is kept on the one that stays.
Near-linear: one look-up per node.
"""
from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from graphc.ir.function import Function, Node, Value
from graphc.ops.base import Kind
from graphc.passes.bodies import everywhere
from graphc.passes.patterns import COMMUTATIVE

_ORIGINS = 8  # names kept on a merged node
_COMPARED = 1 << 16  # bytes of a constant that are compared; larger ones are equal where they are the same array


@everywhere
def merge_equal(function: Function) -> Function:
    """Return `function` with equal nodes merged into the first of them."""
    stands: dict[Value, Value] = {}
    first: dict[Hashable, Node] = {}
    number: dict[Value, int] = {}  # an order of the operands of commutative ops
    origins: dict[Node, dict[str, None]] = {}
    for node in function.nodes:
        if node.op.kind in (Kind.RANDOM, Kind.HOST) or node.op.stateful:
            continue
        inputs = tuple([stands.get(v, v) for v in node.inputs])
        if node.op.name in COMMUTATIVE and number.setdefault(inputs[0], len(number)) > number.setdefault(
                inputs[1], len(number)):
            inputs = inputs[::-1]
        kept = first.setdefault((node.op.name, inputs, attrs_key(node.attrs)), node)
        if kept is not node:
            stands.update(zip(node.outputs, kept.outputs, strict=True))
            merged = origins.setdefault(kept, dict.fromkeys(kept.origin))
            if len(merged) < _ORIGINS:
                merged.update(dict.fromkeys(node.origin))
    return _merged(function, stands, origins) if stands else function


def _merged(function: Function, stands: Mapping[Value, Value], origins: Mapping[Node, Mapping[str, None]]) -> Function:
    """`function` without the nodes that others stand for."""
    mapping: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in function.nodes:
        if node.outputs and node.outputs[0] in stands:
            mapping.update((v, mapping.get(stands[v], stands[v])) for v in node.outputs)
            continue
        inputs = tuple([mapping.get(v, v) for v in node.inputs])
        origin = tuple(origins[node]) if node in origins else node.origin
        if inputs != node.inputs or origin != node.origin:
            again = Node(node.op, inputs, node.attrs, [v.type for v in node.outputs], origin)
            mapping.update(zip(node.outputs, again.outputs, strict=True))
            node = again
        nodes.append(node)
    return function.replace(nodes=tuple(nodes), fetches=tuple(mapping.get(v, v) for v in function.fetches),
                            updates=tuple(mapping.get(v, v) for v in function.updates))


def attrs_key(attrs: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for equal attrs alone: 1, 1.0 and True differ, so do 0.0 and -0.0."""
    return tuple([(name, _key(value)) for name, value in attrs.items()])


def _key(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple([_key(v) for v in value])
    if isinstance(value, np.ndarray):
        content = value.tobytes() if value.nbytes <= _COMPARED else id(value)
        return (value.dtype.str, value.shape, content)
    if isinstance(value, float):
        return ("float", repr(value))
    if isinstance(value, Function):
        return ("function", id(value))
    return (value.__class__, value)
