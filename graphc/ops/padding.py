"""Ops that put elements around a tensor: pad, with a constant or mirrored.

Owns them.  Must not know fusion.  Invariant: every load is bounded by a predicate or by a map into the input; the
gradient of mirroring decomposes into slices.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float32, int32
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape
from graphc.kernel.ir import Expr, const, index
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
    concrete,
    ints,
    require_rank,
    show,
    typed,
    unknown_sizes,
)

# -- padding ----------------------------------------------------------------------------------------------------------

_PADDINGS = {1: "paddings"}


def _pad_infer(ctx: Inference) -> Sequence[PartialType]:
    x, *value = data_inputs(ctx, _PADDINGS)
    if value:
        require_rank(ctx, value[0].shape, 0, "the constant", 0)
        if value[0].dtype is not x.dtype:
            raise ctx.fail_dtype(f"the constant is {value[0].dtype.name}, the input {x.dtype.name}",
                                 f"convert it: tf.cast(value, tf.{x.dtype.name})")
    pads = attr_or_value(ctx, 1, "paddings")
    if pads is None or x.shape is None:
        rank = len(x.shape) if x.shape is not None else None if pads is None else len(pads)
        return [PartialType(x.dtype, unknown_sizes(ctx, rank))]
    _check_pads(ctx, x.shape, pads)
    return [PartialType(x.dtype, tuple(n + p[0] + p[1] for n, p in zip(x.shape, pads, strict=True)))]


def _check_pads(ctx: Inference, shape: Shape, pads: Any) -> None:
    if len(pads) != len(shape) or any(len(ints(p)) != 2 for p in pads):
        raise ctx.fail(f"paddings must have one pair per axis of {show(shape)}, not {pads}")
    if any(isinstance(n, int) and n < 0 for p in pads for n in p):
        raise ctx.fail(f"paddings are not negative, {pads} is given")


def _pad_point(p: Point) -> Expr:
    fill = const(0, p.out_types[0].dtype) if len(p.in_types) == 1 else p.load(1, ())
    where, inside = [], None
    for e, (before, after), n in zip(p.index, p.attrs["paddings"], p.in_types[0].shape, strict=True):
        if before == 0 and after == 0:
            where.append(e)
            continue
        k = e if before == 0 else prim("sub", e, size_of(before))
        ok = prim("lt", k, size_of(n))
        if before != 0:
            ok = prim("and", prim("le", index(0), k), ok)
        where.append(k)
        inside = ok if inside is None else prim("and", inside, ok)
    return p.load(0, where) if inside is None else p.load(0, where, inside, fill)


def _widths(call: Call) -> list[tuple[int, int]]:
    return [(int(a), int(z)) for a, z in call.attrs["paddings"]]


def _pad_reference(call: Call) -> Any:
    value = call.arrays[1] if len(call.arrays) > 1 else 0
    out = np.full(concrete(call), value, call.arrays[0].dtype)
    out[tuple(slice(a, a + n) for (a, _), n in zip(_widths(call), call.arrays[0].shape, strict=True))] = call.arrays[0]
    return out


def _pad_gradient(op: Any, dy: Any) -> Sequence[Any]:
    x = b.inputs_of(op)[0]
    known = b.known_static(op, "paddings")
    if known is not None:
        begin: Any = tuple(before for before, _ in known)
        if not all(isinstance(n, int) for n in begin):
            known = None
    if known is None:
        begin = b.op("Reshape", b.op("Slice", b.static_of(op, "paddings"), (0, 0), (-1, 1)), (-1,))
    inner = b.op("Slice", dy, begin, b.shape_of(x))
    if len(b.inputs_of(op)) == 1:
        return [inner]
    rank = range(len(dy.type.shape or ()))
    outside = b.sub(b.op("Sum", dy, tuple(rank)), b.op("Sum", inner, tuple(rank)))
    return [inner, outside]


_PADS: tuple[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], ...] = (
    ((), ()), ((4,), ((1, 2),)), ((5, 7), ((0, 0), (3, 0))), ((2, 3, 4), ((1, 1), (0, 2), (2, 0))),
    ((0, 2), ((1, 0), (0, 1))))

register(Op(
    name="Pad", kind=Kind.MOVEMENT, inputs=("input", "paddings"), static=_PADDINGS, attrs={"paddings": None},
    infer=_pad_infer, gradient=_pad_gradient, reference=_pad_reference, lower=Pointwise(point=_pad_point),
    samples=lambda: [Sample((typed(d, *s),), {"paddings": p}, differentiable=d.is_floating)
                     for d in (float32, int32) for s, p in _PADS],
    doc="Zeros before and after the elements of every axis. tf.pad"))
register(Op(
    name="PadV2", kind=Kind.MOVEMENT, inputs=("input", "paddings", "constant_values"), static=_PADDINGS,
    attrs={"paddings": None}, infer=_pad_infer, gradient=_pad_gradient, reference=_pad_reference,
    lower=Pointwise(point=_pad_point),
    samples=lambda: [Sample((typed(d, *s), typed(d)), {"paddings": p}, ulp=16.0, differentiable=d.is_floating)
                     for d in (float32, int32) for s, p in _PADS],
    doc="A constant before and after the elements of every axis. tf.pad"))


def _mirror_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    pads = attr_or_value(ctx, 1, "paddings")
    if pads is None or x.shape is None:
        return _pad_infer(ctx)
    _check_pads(ctx, x.shape, pads)
    edge = 1 if ctx.attrs["mode"] == "REFLECT" else 0
    for axis, (n, pair) in enumerate(zip(x.shape, pads, strict=True)):
        for width in pair:
            ctx.at_most(width + edge, n, f"padding {width} of axis {axis} is wider than its {n} elements can mirror")
    return [PartialType(x.dtype, tuple(n + p[0] + p[1] for n, p in zip(x.shape, pads, strict=True)))]


def _mirror_point(p: Point) -> Expr:
    skip = 1 if p.attrs["mode"] == "REFLECT" else 0
    where = []
    for e, (before, _), n in zip(p.index, p.attrs["paddings"], p.in_types[0].shape, strict=True):
        k = prim("sub", e, size_of(before))
        left = prim("select", prim("lt", k, index(0)), prim("sub", index(skip - 1), k), k)
        right = prim("sub", size_of(2 * n - skip - 1), left)
        where.append(prim("select", prim("lt", left, size_of(n)), left, right))
    return p.load(0, where)


def _mirrored(n: int, before: int, after: int, mode: str) -> np.ndarray:
    return np.pad(np.arange(n), (before, after), "reflect" if mode == "REFLECT" else "symmetric")


def _mirror_reference(call: Call) -> Any:
    (x,) = call.arrays
    for axis, (before, after) in enumerate(_widths(call)):
        if before or after:
            x = np.take(x, _mirrored(x.shape[axis], before, after, call.attrs["mode"]), axis)
    return x


_MIRROR_CASES = tuple((d, s, p, m) for d in (float32, int32) for m in ("REFLECT", "SYMMETRIC")
                      for s, p in (((4,), ((1, 2),)), ((5, 7), ((0, 0), (3, 0))), ((2, 3), ((1, 1), (2, 2)))))

register(Op(
    name="MirrorPad", kind=Kind.MOVEMENT, inputs=("input", "paddings"), static=_PADDINGS,
    attrs={"paddings": None, "mode": REQUIRED}, infer=_mirror_infer, reference=_mirror_reference,
    gradient=lambda op, dy: [b.op("MirrorPadGrad", dy, b.static_of(op, "paddings"), mode=op.attrs["mode"])],
    lower=Pointwise(point=_mirror_point),
    samples=lambda: [Sample((typed(d, *s),), {"paddings": p, "mode": m}, differentiable=d.is_floating)
                     for d, s, p, m in _MIRROR_CASES],
    doc='The elements mirrored at the ends of every axis; mode "REFLECT" leaves the edge out, "SYMMETRIC" repeats it. '
        "tf.pad"))


def _mirror_grad_infer(ctx: Inference) -> Sequence[PartialType]:
    dy = ctx.inputs[0]
    pads = attr_or_value(ctx, 1, "paddings")
    if pads is None or dy.shape is None:
        return _pad_infer(ctx)
    return [PartialType(dy.dtype, tuple(n - p[0] - p[1] for n, p in zip(dy.shape, pads, strict=True)))]


def _mirror_grad_decompose(d: Decomposition) -> Sequence[Any]:
    """Axis by axis: the middle, plus what was mirrored before it and after it, turned round and put in place."""
    (total,) = d.inputs
    edge = 1 if d.attrs["mode"] == "REFLECT" else 0
    for axis, (before, after) in enumerate(d.attrs["paddings"]):
        if before == 0 and after == 0:
            continue
        shape = d.type_of(total).shape
        n = shape[axis] - before - after
        inner = _on_axis(shape, axis, n)
        flip = tuple(-1 if a == axis else 1 for a in range(len(shape)))
        parts = [d.op("Slice", total, begin=_on_axis((0,) * len(shape), axis, before), size=inner)]
        for width, last, place in ((before, before - 1, edge), (after, shape[axis] - 1, n - edge - after)):
            if width != 0:
                turned = d.op("Slice", total, begin=_on_axis((0,) * len(shape), axis, last),
                              size=_on_axis(shape, axis, width), strides=flip)
                parts.append(d.op("SliceGrad", turned, shape=inner, begin=_on_axis((0,) * len(shape), axis, place)))
        total = d.op("AddN", *parts)
    return [total]


def _on_axis(sizes: Sequence[Size], axis: int, value: Size) -> tuple[Size, ...]:
    return tuple(value if a == axis else n for a, n in enumerate(sizes))


def _mirror_grad_reference(call: Call) -> Any:
    (dy,) = call.arrays
    for axis, (before, after) in enumerate(_widths(call)):
        n = dy.shape[axis] - before - after
        moved = np.moveaxis(dy, axis, 0)
        out = np.zeros((n, *moved.shape[1:]), dy.dtype)
        np.add.at(out, _mirrored(n, before, after, call.attrs["mode"]), moved)
        dy = np.moveaxis(out, 0, axis)
    return dy


register(Op(
    name="MirrorPadGrad", kind=Kind.MOVEMENT, inputs=("input", "paddings"), static=_PADDINGS,
    attrs={"paddings": None, "mode": REQUIRED}, infer=_mirror_grad_infer, reference=_mirror_grad_reference,
    gradient=lambda op, dy: [b.op("MirrorPad", dy, b.static_of(op, "paddings"), mode=op.attrs["mode"])],
    lower=NotLowered("decomposed into Slices and sums"), decompose=_mirror_grad_decompose,
    samples=lambda: [Sample((typed(d, *(n + a + z for n, (a, z) in zip(s, p, strict=True))),),
                            {"paddings": p, "mode": m}, ulp=16.0, differentiable=d.is_floating)
                     for d, s, p, m in _MIRROR_CASES],
    doc="The gradient of MirrorPad: mirrored elements are added to those they mirror. TF op MirrorPadGrad"))
