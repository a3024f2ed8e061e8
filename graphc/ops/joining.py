"""Ops that join tensors and take them apart: concat, stack, unstack, split.

Owns them.  Must not know fusion.  Invariant: concat chooses by position, every load bounded by its own range; the
others decompose into it or into slices.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_, float32, int32
from graphc.ir.dim import Size
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr, const
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Decomposition,
    Inference,
    Kind,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Sample,
    attr_or_value,
    data_inputs,
    register,
)
from graphc.ops.rules import (
    axis_in,
    check_same_dtype,
    ints,
    show,
    static_rank,
    typed,
    unknown_sizes,
)

# -- joining ----------------------------------------------------------------------------------------------------------

_AXIS = {0: "axis"}


def _concat_infer(ctx: Inference) -> Sequence[PartialType]:
    values = data_inputs(ctx, _AXIS)
    dtype = check_same_dtype(ctx, values)
    given = attr_or_value(ctx, 0, "axis")
    known = [t.shape for t in values if t.shape is not None]
    if not known:
        return [PartialType(dtype, None)]
    rank = len(known[0])
    for shape in known:
        if len(shape) != rank:
            raise ctx.fail(f"the inputs must have one rank, not {show(known[0])} and {show(shape)}")
    if given is None:
        return [PartialType(dtype, unknown_sizes(ctx, rank))]
    if rank == 0:
        raise ctx.fail("scalars cannot be concatenated", "use tf.stack")
    axis = axis_in(ctx, given, rank)
    out = list(known[0])
    for shape in known[1:]:
        for i in range(rank):
            if i != axis:
                out[i] = ctx.equal(out[i], shape[i], "the sizes must agree except along the axis "
                                                     f"{axis}: {show(known[0])} and {show(shape)}")
    out[axis] = ctx.unknown() if len(known) < len(values) else _total(shape[axis] for shape in known)
    return [PartialType(dtype, tuple(out))]


def _total(sizes: Any) -> Size:
    total: Size = 0
    for n in sizes:
        total = total + n
    return total


def _concat_point(p: Point) -> Expr:
    """A choice by the position along the axis; every load is bounded by its own range."""
    axis = p.attrs["axis"]
    at = p.index[axis]
    start: Size = 0
    value: Expr | None = None
    for i, t in enumerate(p.in_types):
        end = start + t.shape[axis]
        where = [prim("sub", at, size_of(start)) if a == axis else e for a, e in enumerate(p.index)]
        inside = prim("and", prim("le", size_of(start), at), prim("lt", at, size_of(end)))
        value = p.load(i, where) if len(p.in_types) == 1 else \
            p.load(i, where, inside, value) if value is not None else p.load(i, where, inside, const(0, t.dtype))
        start = end
    assert value is not None
    return value


def _concat_gradient(op: Any, dy: Any) -> Sequence[Any]:
    values = b.inputs_of(op)
    if len(values) == 1:
        return [dy]
    axis = b.known_static(op, "axis")
    rank = next((len(v.type.shape) for v in values if v.type.shape is not None), None)
    if axis is None or rank is None:
        raise TypeError("the gradient of ConcatV2 needs an axis, and a rank, that are known while the graph is built")
    axis %= rank
    sizes = [None if v.type.shape is None else v.type.shape[axis] for v in values]
    if all(isinstance(n, int) for n in sizes):
        split: Any = tuple(sizes)
    else:
        split = b.op("Pack", *(b.op("Squeeze", b.op("Slice", b.op("Shape", v), (axis,), (1,)), axis=(0,))
                               for v in values), axis=0)
    return list(b.op("SplitV", dy, split, axis))


register(Op(
    name="ConcatV2", kind=Kind.MOVEMENT, inputs=("axis", "*values"), static=_AXIS, attrs={"axis": None},
    infer=_concat_infer, gradient=_concat_gradient, symbolic=True,
    reference=lambda call: np.concatenate(call.arrays, int(call.attrs["axis"])),
    lower=Pointwise(point=_concat_point),
    canonical=lambda attrs, types: {**attrs, "axis": int(attrs["axis"]) % types[0].rank},
    samples=lambda: [Sample(tuple(typed(d, *s) for s in shapes), {"axis": a}, differentiable=d.is_floating)
                     for d in (float32, int32, bool_) for shapes, a in
                     ((((3,), (4,)), 0), (((5, 7), (5, 2), (5, 0)), 1), (((5, 7),), -1), (((2, 3, 4), (1, 3, 4)), -3))],
    doc="The inputs joined along an axis (TensorFlow's node has the axis last). tf.concat"))


def _pack_infer(ctx: Inference) -> Sequence[PartialType]:
    dtype = check_same_dtype(ctx, ctx.inputs)
    known = [t.shape for t in ctx.inputs if t.shape is not None]
    if not known:
        return [PartialType(dtype, None)]
    out = list(known[0])
    for shape in known[1:]:
        message = f"the inputs must have one shape, not {show(known[0])} and {show(shape)}"
        if len(shape) != len(out):
            raise ctx.fail(message)
        out = [ctx.equal(a, n, message) for a, n in zip(out, shape, strict=True)]
    out.insert(axis_in(ctx, ctx.attrs["axis"], len(out) + 1), len(ctx.inputs))
    return [PartialType(dtype, tuple(out))]


def _pack_decompose(d: Decomposition) -> Sequence[Any]:
    axis = d.attrs["axis"] % d.out_types[0].rank
    rows = [d.op("ExpandDims", v, axis=(axis,)) for v in d.inputs]
    return [rows[0] if len(rows) == 1 else d.op("ConcatV2", *rows, axis=axis)]


def _pack_reference(call: Call) -> Any:
    return np.stack([np.asarray(v) for v in call.arrays], call.attrs["axis"])


register(Op(
    name="Pack", kind=Kind.MOVEMENT, inputs=("*values",), attrs={"axis": 0}, infer=_pack_infer,
    gradient=lambda op, dy: list(b.op("Unpack", dy, num=len(op.inputs), axis=op.attrs["axis"])), symbolic=True,
    reference=_pack_reference, lower=NotLowered("decomposed into ExpandDims and ConcatV2"), decompose=_pack_decompose,
    samples=lambda: [Sample((typed(float32, *s),) * n, {"axis": a}) for s, n, a in
                     (((), 3, 0), ((5, 7), 2, 0), ((5, 7), 2, -1), ((5,), 1, 1), ((0,), 2, 0))],
    doc="Tensors of one shape stacked along a new axis. tf.stack"))

# -- splitting --------------------------------------------------------------------------------------------------------


def _unpack_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    count = ctx.attrs["num"]
    if x.shape is None:
        return [PartialType(x.dtype, None)] * count
    axis = axis_in(ctx, ctx.attrs["axis"], len(x.shape))
    ctx.equal(x.shape[axis], count, f"axis {axis} of {show(x.shape)} does not have the {count} parts asked for")
    return [PartialType(x.dtype, x.shape[:axis] + x.shape[axis + 1:])] * count


def _unpack_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    shape = d.in_types[0].shape
    axis = d.attrs["axis"] % len(shape)
    size = tuple(1 if a == axis else n for a, n in enumerate(shape))
    return [d.op("Squeeze", d.op("Slice", x, begin=tuple(i if a == axis else 0 for a in range(len(shape))), size=size),
                 axis=(axis,)) for i in range(d.attrs["num"])]


def _filled(op: Any, grads: Sequence[Any]) -> list[Any]:
    return [b.zeros_like(y) if g is None else g for g, y in zip(grads, op.outputs, strict=True)]


def _unpack_reference(call: Call) -> Any:
    (x,) = call.arrays
    return tuple(np.asarray(row) for row in np.moveaxis(x, call.attrs["axis"], 0))


register(Op(
    name="Unpack", kind=Kind.MOVEMENT, inputs=("value",), attrs={"num": REQUIRED, "axis": 0}, outputs=-1,
    infer=_unpack_infer, symbolic=True,
    gradient=lambda op, *grads: [b.op("Pack", *_filled(op, grads), axis=op.attrs["axis"])],
    reference=_unpack_reference, lower=NotLowered("decomposed into Slice and Squeeze"), decompose=_unpack_decompose,
    samples=lambda: [Sample((typed(float32, *s),), {"num": n, "axis": a}) for s, n, a in
                     (((3,), 3, 0), ((5, 7), 7, -1), ((1, 4), 1, 0))],
    doc="The parts of a tensor along an axis, without the axis. tf.unstack"))


def _split_slices(d: Decomposition, axis: int, sizes: Sequence[Size]) -> list[Any]:
    (x,) = d.inputs
    shape = d.in_types[0].shape
    out: list[Any] = []
    begin: Size = 0
    for n in sizes:
        out.append(d.op("Slice", x, begin=tuple(begin if a == axis else 0 for a in range(len(shape))),
                        size=tuple(n if a == axis else m for a, m in enumerate(shape))))
        begin = begin + n
    return out


def _split_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = data_inputs(ctx, _AXIS)
    given, count = attr_or_value(ctx, 0, "axis"), ctx.attrs["num_split"]
    if x.shape is None or given is None:
        return [PartialType(x.dtype, None if x.shape is None else unknown_sizes(ctx, len(x.shape)))
                for _ in range(count)]
    axis = axis_in(ctx, given, len(x.shape))
    part = ctx.divides(x.shape[axis], count, f"axis {axis} of {show(x.shape)} does not split into {count} equal parts")
    return [PartialType(x.dtype, (*x.shape[:axis], part, *x.shape[axis + 1:]))] * count


def _split_decompose(d: Decomposition) -> Sequence[Any]:
    axis = d.attrs["axis"]
    return _split_slices(d, axis, [t.shape[axis] for t in d.out_types])


register(Op(
    name="Split", kind=Kind.MOVEMENT, inputs=("axis", "value"), static=_AXIS,
    attrs={"axis": None, "num_split": REQUIRED}, outputs=-1, infer=_split_infer, symbolic=True,
    gradient=lambda op, *grads: [b.op("ConcatV2", b.static_of(op, "axis"), *_filled(op, grads))],
    reference=lambda call: tuple(np.split(call.arrays[0], call.attrs["num_split"], int(call.attrs["axis"]))),
    lower=NotLowered("decomposed into Slices"), decompose=_split_decompose,
    canonical=lambda attrs, types: {**attrs, "axis": int(attrs["axis"]) % types[0].rank},
    samples=lambda: [Sample((typed(float32, *s),), {"num_split": n, "axis": a}) for s, n, a in
                     (((6,), 3, 0), ((5, 8), 2, -1), ((4, 2), 1, 0))],
    doc="Equal parts along an axis. tf.split"))

_SPLIT_V = {1: "size_splits", 2: "axis"}


def _split_v_sizes(ctx: Inference | None, size: Size, parts: tuple[Size, ...]) -> tuple[Size, ...]:
    holes = [i for i, n in enumerate(parts) if isinstance(n, int) and n == -1]
    if len(holes) > 1:
        assert ctx is not None
        raise ctx.fail(f"only one size may be -1, {show(parts)} is given")
    rest = _total(n for i, n in enumerate(parts) if i not in holes)
    if holes:
        if ctx is not None:
            ctx.at_most(rest, size, f"the parts {show(parts)} are larger than the {size} elements of the axis")
        return tuple(size - rest if i in holes else n for i, n in enumerate(parts))
    if ctx is not None:
        ctx.equal(rest, size, f"the parts {show(parts)} do not sum to the {size} elements of the axis")
    return parts


def _split_v_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    parts, given = attr_or_value(ctx, 1, "size_splits"), attr_or_value(ctx, 2, "axis")
    if parts is None:
        count = static_rank(ctx, 1)
        if count is None:
            raise ctx.fail("the number of parts is not known")
    else:
        count = len(parts)
    if x.shape is None or given is None or parts is None:
        return [PartialType(x.dtype, None if x.shape is None else unknown_sizes(ctx, len(x.shape)))
                for _ in range(count)]
    axis = axis_in(ctx, given, len(x.shape))
    return [PartialType(x.dtype, (*x.shape[:axis], n, *x.shape[axis + 1:]))
            for n in _split_v_sizes(ctx, x.shape[axis], parts)]


def _split_v_reference(call: Call) -> Any:
    axis = int(call.attrs["axis"])
    sizes = [int(t.shape[axis]) for t in call.out_types]
    return tuple(np.split(call.arrays[0], np.cumsum(sizes)[:-1].tolist(), axis))


register(Op(
    name="SplitV", kind=Kind.MOVEMENT, inputs=("value", "size_splits", "axis"), static=_SPLIT_V,
    attrs={"size_splits": None, "axis": None}, outputs=-1, infer=_split_v_infer, symbolic=True,
    gradient=lambda op, *grads: [b.op("ConcatV2", b.static_of(op, "axis"), *_filled(op, grads))],
    reference=_split_v_reference, lower=NotLowered("decomposed into Slices"), decompose=_split_decompose,
    canonical=lambda attrs, types: {"axis": int(attrs["axis"]) % types[0].rank, "size_splits": _split_v_sizes(
        None, types[0].shape[int(attrs["axis"]) % types[0].rank], ints(attrs["size_splits"]))},
    samples=lambda: [Sample((typed(float32, *s),), {"size_splits": n, "axis": a}) for s, n, a in
                     (((6,), (1, 2, 3), 0), ((5, 8), (3, -1), -1), ((4, 2), (0, 4), 0))],
    doc="Parts of the given sizes along an axis; one may be -1. tf.split"))
