"""Ops that move elements without computing: reshape, transpose, tile, identity ...

Owns them (slicing.py, padding.py and joining.py have the rest).  Must not know fusion.  Invariant: each says the
element of its output as one element of an input, or is a View, or decomposes into such ops.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float32, int32
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Expr, index
from graphc.ops import build as b
from graphc.ops.base import (
    Decomposition,
    Inference,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Sample,
    View,
    attr_or_value,
    register,
)
from graphc.ops.rules import (
    ALL,
    axis_in,
    concrete,
    elements,
    ints,
    show,
    static_rank,
    typed,
    unknown_sizes,
)

# -- identity ---------------------------------------------------------------------------------------------------------


def _same(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.inputs[0].dtype, ctx.inputs[0].shape)]


def _all_dtypes() -> list[Sample]:
    return [Sample((typed(d, *s),), differentiable=d.is_floating) for d in ALL for s in ((), (5, 7), (0, 2))]


def _identity(name: str, gradient: Any, doc: str) -> None:
    register(Op(name=name, kind=Kind.MOVEMENT, inputs=("input",), infer=_same, gradient=gradient,
                reference=lambda call: call.arrays[0], lower=View(), samples=_all_dtypes, doc=doc, symbolic=True))


def _prevented(op: Any, dy: Any) -> Sequence[Any]:
    raise LookupError(op.attrs["message"] or "the gradient of this op is explicitly disabled")


_identity("Identity", lambda op, dy: [dy], "The input. tf.identity")
_identity("StopGradient", lambda op, dy: [None], "The input, through which no gradient flows. tf.stop_gradient")
register(Op(
    name="PreventGradient", kind=Kind.MOVEMENT, inputs=("input",), attrs={"message": ""}, infer=_same,
    gradient=_prevented, reference=lambda call: call.arrays[0], lower=View(), symbolic=True,
    samples=lambda: [Sample((typed(float32, 5, 7),), differentiable=False)],
    doc="The input; asking for a gradient through it is an error. TF op PreventGradient"))
register(Op(
    name="IdentityN", kind=Kind.MOVEMENT, inputs=("*input",), outputs=-1,
    infer=lambda ctx: [PartialType(t.dtype, t.shape) for t in ctx.inputs], gradient=lambda op, *grads: list(grads),
    reference=lambda call: tuple(call.arrays), lower=NotLowered("decomposed into its inputs"),
    decompose=lambda d: list(d.inputs), symbolic=True,
    samples=lambda: [Sample((typed(float32, 5, 7), typed(int32, 3)), differentiable=False),
                     Sample((typed(float32, 2),))],
    doc="All inputs. What tf.custom_gradient marks its results with. tf.identity_n"))

# -- shapes -----------------------------------------------------------------------------------------------------------


def _reshape_sizes(ctx: Inference | None, shape: Shape, target: tuple[Size, ...]) -> tuple[Size, ...]:
    """Return `target` with -1 worked out; with ctx, checked."""
    total, holes = elements(shape), [i for i, n in enumerate(target) if isinstance(n, int) and n == -1]
    rest = dim.product(n for i, n in enumerate(target) if i not in holes)
    message = f"a tensor of shape {show(shape)} has {total} elements and cannot take the shape {show(target)}"
    if not holes:
        if ctx is not None:
            ctx.equal(total, rest, message)
        return target
    if ctx is None:
        hole = dim.floordiv(total, rest)
    elif rest == 0:
        raise ctx.fail(f"the size of axis {holes[0]} does not follow: {show(target)} has no elements otherwise")
    else:
        hole = ctx.divides(total, rest, message)
    return tuple(hole if i in holes else n for i, n in enumerate(target))


def _reshape_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    given = attr_or_value(ctx, 1, "shape")
    if given is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, static_rank(ctx, 1)))]
    target = ints(given)
    if sum(isinstance(n, int) and n == -1 for n in target) > 1:
        raise ctx.fail(f"only one size may be -1, {show(target)} is given")
    if any(isinstance(n, int) and n < -1 for n in target):
        raise ctx.fail(f"a shape has no negative sizes, {show(target)} is given")
    if x.shape is None:
        return [PartialType(x.dtype, tuple(ctx.unknown() if isinstance(n, int) and n == -1 else n for n in target))]
    return [PartialType(x.dtype, _reshape_sizes(ctx, x.shape, target))]


def _reshape_canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    return {**attrs, "shape": _reshape_sizes(None, types[0].shape, ints(attrs["shape"]))}


register(Op(
    name="Reshape", kind=Kind.MOVEMENT, inputs=("tensor", "shape"), static={1: "shape"}, attrs={"shape": None},
    infer=_reshape_infer, gradient=lambda op, dy: [b.reshape_like(dy, op.inputs[0])], symbolic=True,
    reference=lambda call: call.arrays[0].reshape(concrete(call)), lower=View(), canonical=_reshape_canonical,
    samples=lambda: [Sample((typed(float32, *x),), {"shape": s}) for x, s in
                     (((6, 4), (3, 8)), ((6, 4), (-1,)), ((6, 4), (2, -1, 4)), ((1,), ()), ((0, 3), (3, 0)))],
    doc="The elements in row-major order under another shape; one size may be -1. tf.reshape"))


def _expand_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    given = attr_or_value(ctx, 1, "axis")
    if x.shape is None:
        return [PartialType(x.dtype, None)]
    if given is None:
        shape = ctx.inputs[1].shape
        count = 1 if shape == () else static_rank(ctx, 1)
        return [PartialType(x.dtype, None if count is None else unknown_sizes(ctx, len(x.shape) + count))]
    rank = len(x.shape) + len(ints(given))
    axes = sorted(axis_in(ctx, a, rank) for a in ints(given))
    if len(set(axes)) != len(axes):
        raise ctx.fail(f"axis {given} names an axis twice")
    out = list(x.shape)
    for a in axes:
        out.insert(a, 1)
    return [PartialType(x.dtype, tuple(out))]


def _expand_canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    axes = ints(attrs["axis"])
    return {**attrs, "axis": tuple(sorted(int(a) % (types[0].rank + len(axes)) for a in axes))}


register(Op(
    name="ExpandDims", kind=Kind.MOVEMENT, inputs=("input", "dim"), static={1: "axis"}, attrs={"axis": None},
    infer=_expand_infer, gradient=lambda op, dy: [b.reshape_like(dy, op.inputs[0])], symbolic=True,
    reference=lambda call: np.expand_dims(call.arrays[0], ints(call.attrs["axis"])), lower=View(),
    canonical=_expand_canonical,
    samples=lambda: [Sample((typed(float32, *s),), {"axis": a}) for s, a in
                     (((), 0), ((5, 7), -1), ((5, 7), 1), ((5, 7), (0, 3)), ((0, 2), 0))],
    doc="New axes of size 1 at the given positions of the result. tf.expand_dims"))


def _squeeze_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    if x.shape is None:
        return [PartialType(x.dtype, None)]
    given = ctx.attrs["axis"]
    if not given:
        for n in x.shape:
            if isinstance(n, Dim):
                ctx.unknown()  # refused where programs are compiled: the rank would follow from a fed size
                return [PartialType(x.dtype, None)]
        return [PartialType(x.dtype, tuple(n for n in x.shape if n != 1))]
    axes = [axis_in(ctx, a, len(x.shape)) for a in ints(given)]
    for a in axes:
        ctx.equal(x.shape[a], 1, f"axis {a} of shape {show(x.shape)} has not the size 1 and cannot be squeezed")
    return [PartialType(x.dtype, tuple(n for i, n in enumerate(x.shape) if i not in axes))]


register(Op(
    name="Squeeze", kind=Kind.MOVEMENT, inputs=("input",), attrs={"axis": ()}, infer=_squeeze_infer,
    gradient=lambda op, dy: [b.reshape_like(dy, op.inputs[0])], symbolic=True,
    reference=lambda call: call.arrays[0].reshape(concrete(call)), lower=View(),
    samples=lambda: [Sample((typed(float32, *s),), {"axis": a}) for s, a in
                     (((1, 5, 1), ()), ((1, 5, 1), (0,)), ((1, 5, 1), (-1,)), ((1,), ()), ((3, 4), ()))],
    doc="Without axes of size 1: those given, or all where axis is (). tf.squeeze"))

# -- transposition and broadcasting -----------------------------------------------------------------------------------


def _transpose_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    perm = attr_or_value(ctx, 1, "perm")
    if x.shape is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, len(perm) if perm is not None else static_rank(ctx, 1)))]
    if perm is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, len(x.shape)))]
    if sorted(p if isinstance(p, int) else -1 for p in perm) != list(range(len(x.shape))):
        raise ctx.fail(f"perm {perm} is not an order of the {len(x.shape)} axes of {show(x.shape)}")
    return [PartialType(x.dtype, tuple(x.shape[p] for p in perm))]


def _transpose_point(p: Point) -> Expr:
    perm = p.attrs["perm"]
    return p.load(0, [p.index[perm.index(a)] for a in range(len(perm))])


def _transpose_gradient(op: Any, dy: Any) -> Sequence[Any]:
    perm = b.static_of(op, "perm")
    known = b.known_static(op, "perm")
    if known is not None:
        return [b.op("Transpose", dy, tuple(int(i) for i in np.argsort(known)))]
    return [b.op("Transpose", dy, b.op("InvertPermutation", perm))]


def _inverse(perm: np.ndarray) -> np.ndarray:
    out = np.empty_like(perm)
    out[perm.astype(np.int64)] = np.arange(len(perm))
    return out


register(Op(
    name="Transpose", kind=Kind.MOVEMENT, inputs=("x", "perm"), static={1: "perm"}, attrs={"perm": None},
    infer=_transpose_infer, gradient=_transpose_gradient, symbolic=True,
    reference=lambda call: call.arrays[0].transpose([int(p) for p in call.attrs["perm"]]),
    lower=Pointwise(point=_transpose_point),
    samples=lambda: [Sample((typed(float32, *s),), {"perm": p}) for s, p in
                     (((), ()), ((5, 7), (1, 0)), ((5, 7), (0, 1)), ((2, 3, 17), (2, 0, 1)), ((0, 3), (1, 0)))],
    doc="The axes in another order. tf.transpose"))
register(Op(
    name="InvertPermutation", kind=Kind.SOURCE, inputs=("x",), infer=_same, symbolic=True,
    gradient=NoGradient("an order of axes does not change with the elements"),
    reference=lambda call: _inverse(call.arrays[0]),
    lower=NotLowered("an order of axes is known when compiling"),
    samples=lambda: [Sample((typed(int32, 3),), arrays={0: np.array([2, 0, 1], np.int32)}, differentiable=False)],
    doc="The inverse of an order of axes. tf.invert_permutation"))


def _broadcast_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    given = attr_or_value(ctx, 1, "shape")
    if given is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, static_rank(ctx, 1)))]
    target = ints(given)
    if x.shape is not None:
        message = f"a tensor of shape {show(x.shape)} cannot be broadcast to {show(target)}"
        if len(x.shape) > len(target):
            raise ctx.fail(message)
        for met, wanted in zip(ctx.broadcast(x.shape, target), target, strict=True):
            ctx.equal(met, wanted, message)
    return [PartialType(x.dtype, target)]


def _broadcast_point(p: Point) -> Expr:
    shape = p.in_types[0].shape
    tail = p.index[len(p.index) - len(shape):]
    return p.load(0, [index(0) if n == 1 else e for n, e in zip(shape, tail, strict=True)])


register(Op(
    name="BroadcastTo", kind=Kind.MOVEMENT, inputs=("input", "shape"), static={1: "shape"}, attrs={"shape": None},
    infer=_broadcast_infer, gradient=lambda op, dy: [b.unbroadcast(dy, op.inputs[0])], symbolic=True,
    reference=lambda call: np.broadcast_to(call.arrays[0], concrete(call)), lower=Pointwise(point=_broadcast_point),
    samples=lambda: [Sample((typed(float32, *x),), {"shape": s}) for x, s in
                     (((), (5, 7)), ((7,), (5, 7)), ((5, 1), (5, 7)), ((1, 7), (0, 7)), ((5, 7), (2, 5, 7)))],
    doc="Repeated along axes of size 1 and new leading axes. tf.broadcast_to"))


def _tile_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    given = attr_or_value(ctx, 1, "multiples")
    if x.shape is None or given is None:
        rank = static_rank(ctx, 1) if given is None else len(given)
        return [PartialType(x.dtype, unknown_sizes(ctx, len(x.shape) if x.shape is not None else rank))]
    if len(given) != len(x.shape):
        raise ctx.fail(f"{len(given)} multiples are given for the {len(x.shape)} axes of {show(x.shape)}")
    if any(isinstance(m, int) and m < 0 for m in given):
        raise ctx.fail(f"multiples are not negative, {show(given)} is given")
    return [PartialType(x.dtype, tuple(n * m for n, m in zip(x.shape, given, strict=True)))]


def _tile_decompose(d: Decomposition) -> Sequence[Any]:
    """Through [m0, n0, m1, n1 ...]: copies are a broadcast, so that the index stays affine."""
    (x,) = d.inputs
    shape, multiples = d.in_types[0].shape, d.attrs["multiples"]
    if all(m == 1 for m in multiples):
        return [x]
    ones = [n for size in shape for n in (1, size)]
    spread = [n for pair in zip(multiples, shape, strict=True) for n in pair]
    copies = d.op("BroadcastTo", d.op("Reshape", x, shape=tuple(ones)), shape=tuple(spread))
    return [d.op("Reshape", copies, shape=d.out_types[0].shape)]


def _tile_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """Sum over the copies: dy as [m0, n0, m1, n1 ...], summed over the even axes."""
    x = op.inputs[0]
    shape, multiples = b.static_shape(x), b.known_static(op, "multiples")
    if shape is not None and multiples is not None and all(isinstance(m, int) for m in multiples):
        if 0 in shape:
            return [b.zeros_like(x)]
        target: Any = tuple(n for pair in zip(multiples, shape, strict=True) for n in pair)
        axes: Any = tuple(range(0, 2 * len(shape), 2))
    else:
        given = b.static_of(op, "multiples")
        repeats = b.constant(given, int32) if isinstance(given, tuple) else b.op("Cast", given, dtype=int32)
        target = b.op("Reshape", b.op("Pack", repeats, b.op("Shape", x), axis=1), (-1,))
        axes = b.op("Range", b.constant(0, int32), b.op("Size", target), b.constant(2, int32))
    return [b.reshape_like(b.op("Sum", b.op("Reshape", dy, target), axes), x)]


register(Op(
    name="Tile", kind=Kind.MOVEMENT, inputs=("input", "multiples"), static={1: "multiples"}, attrs={"multiples": None},
    infer=_tile_infer, gradient=_tile_gradient, symbolic=True,
    reference=lambda call: np.tile(call.arrays[0], [int(m) for m in call.attrs["multiples"]]),
    lower=NotLowered("decomposed into Reshape and BroadcastTo"), decompose=_tile_decompose,
    samples=lambda: [Sample((typed(float32, *s),), {"multiples": m}, ulp=16.0) for s, m in
                     (((), ()), ((3,), (4,)), ((5, 7), (2, 3)), ((2, 3), (1, 1)), ((2, 3), (0, 2)))],
    doc="The tensor repeated along every axis. tf.tile"))
