"""Constant folding: what follows from constants is computed once, by the oracle, when compiling.

Law: the folded value is what evaluate.py gives (rounding).  A value above the byte limit stays computed; a constant of
one repeated value stays one scalar that is broadcast; fills, ranges and broadcasts cost nothing and stay as they are;
an op that refuses its constants (an index out of range) stays, to fail in the run at the user's line.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir import infer
from graphc.ir.dim import Dim
from graphc.ir.evaluate import apply
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.ir.types import TensorType
from graphc.ops.base import InvalidValue, Kind, lookup
from graphc.passes.bodies import everywhere

_FREE = frozenset(("BroadcastTo", "Fill", "ZerosLike", "OnesLike", "CheckNumerics", "Assert"))
_KINDS = frozenset((Kind.ELEMENTWISE, Kind.REDUCTION, Kind.MOVEMENT, Kind.CONTRACTION, Kind.INDEXING, Kind.LIBRARY))


@everywhere
def fold_constants(function: Function, limit: int = 1 << 20) -> Function:
    """Return `function` with applications on constants replaced by constants of up to `limit` bytes."""
    const = lookup("Const")
    broadcast = lookup("BroadcastTo")

    def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> tuple[Value, ...] | None:
        if not inputs or node.op.kind not in _KINDS or node.op.stateful or node.op.name in _FREE:
            return None
        arrays = [a for a in map(_constant, inputs) if a is not None]
        types = [v.tensor for v in node.outputs]
        if len(arrays) != len(inputs) or not all(_fits(t, limit) for t in types) or _symbolic(node.attrs):
            return None
        try:
            results = apply(node.op, arrays, [v.tensor for v in inputs], node.attrs, types)
        except InvalidValue:
            return None
        values = []
        for array, t in zip(results, types, strict=True):
            array = np.ascontiguousarray(array).reshape(array.shape)
            if array.size > 1 and uniform(array):
                one = array.reshape(-1)[:1].reshape(())
                scalar = builder.add(const, (), {"value": one, "dtype": t.dtype}, node.origin).output
                values.append(builder.add(broadcast, (scalar,), {"shape": t.shape}, node.origin).output)
            else:
                values.append(builder.add(const, (), {"value": array, "dtype": t.dtype}, node.origin).output)
        return tuple(values)

    return rewrite(function, Builder(infer.types), rule)


def uniform(array: np.ndarray[Any, Any]) -> bool:
    """Whether every element has the same bits."""
    flat = array.reshape(-1)
    if flat.size == 0 or flat[0].tobytes() != flat[-1].tobytes():
        return False
    bits = flat.view(f"u{flat.itemsize}") if flat.dtype.kind != "b" else flat
    return bool((bits == bits[0]).all())


def _constant(value: Value) -> np.ndarray[Any, Any] | None:
    producer = value.producer
    if producer is None or producer.op.name != "Const":
        return None
    array: np.ndarray[Any, Any] = np.asarray(producer.attrs["value"])
    return array if array.dtype.kind in "biuf" else None


def _fits(type: TensorType, limit: int) -> bool:
    size = type.bytes
    return not isinstance(size, Dim) and size <= limit


def _symbolic(attrs: Mapping[str, Any]) -> bool:
    stack = list(attrs.values())
    while stack:
        value = stack.pop()
        if isinstance(value, (Dim, Function)):
            return True
        if isinstance(value, tuple):
            stack.extend(value)
    return False
