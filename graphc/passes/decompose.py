"""Decomposition: composite ops said in simpler ops, where that is how they become kernels.

Owns the driver of `Op.decompose`; each op owns what it decomposes into.  Knows the IR.
Law: exact with respect to the composite's definition (a decomposition computes the same formula; where the composite's
own reference computes wider, the results agree by rounding).  Idempotent: afterwards nothing decomposes any more.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.errors import InternalError
from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.ir.types import TensorType
from graphc.ops.base import Op, lookup
from graphc.passes.bodies import everywhere


class Expansion:
    """One application of `Op.decompose` (its `Decomposition`): appends nodes to `builder`.

    types: the node's output types.  origin: what every appended node came from.
    """

    def __init__(self, builder: Builder, inputs: Sequence[Value], attrs: Mapping[str, Any], types: Sequence[TensorType],
                 origin: tuple[str, ...]) -> None:
        self.inputs: Sequence[Any] = tuple(inputs)
        self.attrs: Mapping[str, Any] = attrs
        self.in_types: Sequence[TensorType] = [v.tensor for v in inputs]
        self.out_types: Sequence[TensorType] = types
        self._builder = builder
        self._origin = origin

    def op(self, name: str, *inputs: Value, **attrs: Any) -> Any:
        node = self._builder.add(lookup(name), inputs, attrs, self._origin)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def constant(self, value: Any, dtype: DType) -> Value:
        array = np.asarray(value, dtype.as_numpy_dtype)
        return self._builder.add(lookup("Const"), (), {"value": array, "dtype": dtype}, self._origin).output

    def type_of(self, value: Value) -> TensorType:
        return value.tensor


def expand(op: Op, builder: Builder, inputs: Sequence[Value], attrs: Mapping[str, Any], types: Sequence[TensorType],
           origin: tuple[str, ...]) -> tuple[Value, ...] | None:
    """Return the values that `op` decomposes into, appended to `builder`; None where it stays as it is."""
    if op.decompose is None:
        return None
    values = op.decompose(Expansion(builder, inputs, attrs, types, origin))
    return None if values is None else tuple(values)


@everywhere
def decompose(function: Function) -> Function:
    """Return `function` with every composite op replaced, until nothing decomposes."""
    while any(node.op.decompose is not None for node in function.nodes):
        changed = False

        def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> Sequence[Value] | None:
            nonlocal changed
            if node.op.decompose is None:
                return None
            values = expand(node.op, builder, inputs, node.attrs, [v.tensor for v in node.outputs], node.origin)
            if values is None:
                return None
            if len(values) != len(node.outputs):
                raise InternalError(f"{node.op.name} decomposes into {len(values)} values, not {len(node.outputs)}")
            changed = True
            return values

        function = rewrite(function, Builder(infer.types), rule)
        if not changed:
            return function
    return function
