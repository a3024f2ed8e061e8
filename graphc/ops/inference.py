"""Inference while a graph is built: the ops' own rules, where sizes may be unknown and ranks too.

Owns `GraphInference`, the graph's side of `ops.base.Inference`, and `GraphRules`, which `Graph` asks about every new
operation; importing this module installs it.  Knows ops and graphs; must not know the IR's functions or sessions.
Invariant: what it claims of a type holds for every run; two different unknown sizes that meet stay unknown.
"""
from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from graphc import source
from graphc.errors import DTypeError, InternalError, ShapeError
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation, report_at
from graphc.graph.tensor import Tensor
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.ops.base import REQUIRED, Call, InvalidValue, Kind, Op, attr_or_value, lookup

VALUE_LIMIT = 256
"""Integer tensors of up to this many elements carry their symbolic content through the graph: shapes, axes, lengths."""

_FRESH = re.compile(r"(?<!\w)_\d+\b")


def public_function() -> str | None:
    """Return the name of the function of graphc that the user called, or None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    name = None
    while frame is not None and source.is_internal(frame):
        name = frame.f_code.co_name
        frame = frame.f_back
    return None if name is None or name.startswith("<") else name.strip("_")


class GraphInference:
    """What an op's `infer` sees while the graph is built."""

    __slots__ = ("_operation", "attrs", "inputs")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.inputs: Sequence[PartialType] = [t.type for t in operation.inputs]
        self.attrs: Mapping[str, Any] = operation.attrs

    def value(self, i: int) -> np.ndarray | None:
        tensors = self._operation.inputs
        return tensors[i].value if i < len(tensors) else None

    def equal(self, a: Size, b: Size, message: str) -> Size:
        if a == b:
            return a
        if _differ(a, b):
            raise self.fail(_filled(message, a, b))
        return b if isinstance(b, int) else a

    def broadcast(self, a: Shape, b: Shape) -> Shape:
        if a == b or not b:
            return a
        if not a:
            return b
        rank = max(len(a), len(b))
        padded = [(1,) * (rank - len(s)) + tuple(s) for s in (a, b)]
        return tuple([self._meet(p, q, a, b) for p, q in zip(*padded, strict=True)])

    def _meet(self, p: Size, q: Size, a: Shape, b: Shape) -> Size:
        if p == q or q == 1:
            return p
        if p == 1:
            return q
        known = [n for n in (p, q) if isinstance(n, int)]
        if len(known) == 2 or (_differ(p, q) and _above_one(p) and _above_one(q)):
            raise self.fail(f"shapes {_text(a)} and {_text(b)} do not broadcast: {p} != {q}",
                            "sizes broadcast where they are equal or one of them is 1")
        return known[0] if known else self.unknown()

    def divides(self, size: Size, by: Size, message: str) -> Size:
        exact = dim.divide_exactly(size, by)
        if exact is not None:
            return exact
        if isinstance(size, int) and isinstance(by, int):
            raise self.fail(_filled(message, size, by))
        return dim.floordiv(size, by)

    def at_most(self, a: Size, b: Size, message: str) -> None:
        difference = a - b
        if isinstance(difference, int) and difference > 0:
            raise self.fail(_filled(message, a, b))

    def unknown(self) -> Size:
        return self._operation.graph.fresh_size()

    def fail(self, message: str, hint: str | None = None) -> ShapeError:
        return ShapeError(self._report(message, hint))

    def fail_dtype(self, message: str, hint: str | None = None) -> DTypeError:
        return DTypeError(self._report(message, hint))

    def _report(self, message: str, hint: str | None) -> str:
        operation = self._operation
        made_by = public_function() or operation.type
        text = report_at(operation, f"{made_by}: {_FRESH.sub('?', message)}", hint)
        forward = operation.gradient_of
        return text if forward is None else f"{text}\n  in the gradient of {forward.name!r}, made at {forward.source}"


def _differ(a: Size, b: Size) -> bool:
    """Whether two sizes differ whatever their symbols are."""
    difference = a - b
    return isinstance(difference, int) and difference != 0


def _above_one(size: Size) -> bool:
    """Whether a size is known to be above 1."""
    if isinstance(size, int):
        return size > 1
    constant = sum(c for m, c in size.terms if m == ())
    return constant > 1 and all(c > 0 for _, c in size.terms)


def _filled(message: str, left: Size, right: Size) -> str:
    return message.replace("{left}", str(left)).replace("{right}", str(right))


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


class GraphRules:
    """The ops as a graph sees them."""

    def definition(self, op_type: str) -> Op:
        return lookup(op_type)

    def attrs(self, op: Op, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in given:
            if name not in op.attrs:
                raise InternalError(f"op {op.name} has no attr {name!r}")
        full = {**op.attrs, **given}
        for name, value in full.items():
            if value is REQUIRED:
                raise InternalError(f"op {op.name} is made without its attr {name!r}")
        return full

    def infer(self, operation: Operation) -> Sequence[tuple[PartialType, np.ndarray | None]]:
        op: Op = operation.op
        ctx = GraphInference(operation)
        types = list(op.infer(ctx))
        if op.kind is Kind.RANDOM:
            types.pop()  # the next counter, which exists in the IR alone
        values = symbolic_values(op, operation.inputs, operation.attrs, types, ctx)
        return list(zip(types, values, strict=True))


def symbolic_values(op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any], types: Sequence[PartialType],
                    ctx: GraphInference) -> Sequence[np.ndarray | None]:
    """Return what is known of the content of each output: small integers that follow from sizes and constants."""
    nothing: list[np.ndarray | None] = [None] * len(types)
    if op.name == "Const":
        return [_constant(np.asarray(attrs["value"]))]
    if op.name == "PlaceholderWithDefault" or not (op.symbolic or op.of_shape) or any(_too_large(t) for t in types):
        return nothing
    filled = dict(attrs)
    for i, attr in op.static.items():
        filled[attr] = attr_or_value(ctx, i, attr)
        if filled[attr] is None:
            return nothing
    dynamic = [inputs[i] for i in op.data_positions(attrs, len(inputs))]
    if any(t.type.shape is None for t in dynamic):
        return nothing
    if op.of_shape:
        arrays: list[Any] = [None] * len(dynamic)
    else:
        arrays = [_sizes(t) if op.name == "Pack" else t.value for t in dynamic]
        if any(a is None for a in arrays):
            return nothing
    call = Call(arrays, filled, [_full(t.type) for t in dynamic], [_full(t) for t in types])
    try:
        found = op.reference(call)
    except InvalidValue:
        return nothing  # the run reports it, if it ever comes to it
    results = found if isinstance(found, tuple) else (found,)
    return [np.asarray(r, dtype=object) for r in results]


def _sizes(tensor: Tensor) -> np.ndarray | None:
    """The content of a tensor that is packed with others, into a shape as a rule: an unknown size where it is an
    integer that is not known, so that [n, 2] is known to end with 2."""
    if tensor.value is None and tensor.dtype.is_integer and tensor.type.shape == ():
        return np.array(tensor.op.graph.fresh_size(), object)
    return tensor.value


def _constant(value: np.ndarray) -> np.ndarray | None:
    if value.dtype.kind not in "iub" or value.size > VALUE_LIMIT:
        return None
    return value.astype(object)


def _too_large(type: PartialType) -> bool:
    """Whether content of this type is not worth carrying: not integers, of unknown size, or many."""
    if type.dtype.is_floating or type.shape is None:
        return True
    elements = dim.product(type.shape)
    return isinstance(elements, Dim) or elements > VALUE_LIMIT


def _full(type: PartialType) -> TensorType:
    if type.shape is None:
        raise InternalError("a symbolic value needs a known rank")
    return TensorType(type.dtype, type.shape)


Graph.rules = GraphRules()
