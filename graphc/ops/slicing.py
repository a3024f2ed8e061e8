"""Ops that take or place a block of a tensor: slice, strided_slice, reverse.

Owns them.  Must not know fusion.  Invariant: two ops do the work, Slice (with steps) and SliceGrad (its transpose,
which places a block into zeros); the others decompose into them, so they fuse alike.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import bool_, float32, int32
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import (
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
    INTEGERS,
    axis_in,
    check_dtype,
    concrete,
    ints,
    show,
    static_rank,
    typed,
    unknown_sizes,
)


def _not_negative(n: Size) -> Size:
    """max(n, 0), and n itself where it is a sum of sizes."""
    if isinstance(n, Dim) and all(c > 0 for _, c in n.terms):
        return n
    return dim.maximum(n, 0)


# -- slices -----------------------------------------------------------------------------------------------------------


def _slice_sizes(shape: Shape, begin: Sequence[Size], size: Sequence[Size]) -> tuple[Size, ...]:
    return tuple(m - a if isinstance(n, int) and n == -1 else n for m, a, n in zip(shape, begin, size, strict=True))


def _slice_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    begin, size = attr_or_value(ctx, 1, "begin"), attr_or_value(ctx, 2, "size")
    rank = len(x.shape) if x.shape is not None else static_rank(ctx, 1) if begin is None else len(begin)
    if size is None or x.shape is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, rank if size is None else len(size)))]
    shape = x.shape
    if len(size) != len(shape) or (begin is not None and len(begin) != len(shape)):
        raise ctx.fail(f"begin and size must have one entry per axis of {show(shape)}")
    if begin is None:
        return [PartialType(x.dtype, tuple(ctx.unknown() if isinstance(n, int) and n == -1 else n for n in size))]
    steps = ctx.attrs["strides"] or (1,) * len(shape)
    out = _slice_sizes(shape, begin, size)
    for axis, (a, n, step, m) in enumerate(zip(begin, out, steps, shape, strict=True)):
        message = f"begin {a} and size {n} lie outside axis {axis} of {show(shape)}"
        if (isinstance(a, int) and a < 0) or (isinstance(n, int) and n < 0):
            raise ctx.fail(message)
        if step == 1:
            ctx.at_most(a + n, m, message)
    return [PartialType(x.dtype, out)]


def _slice_canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    begin = ints(attrs["begin"])
    return {"begin": begin, "size": _slice_sizes(types[0].shape, begin, ints(attrs["size"])),
            "strides": tuple(attrs["strides"] or (1,) * len(begin))}


def _steps(begin: Sequence[Size], size: Sequence[Size], strides: Any) -> tuple[slice, ...]:
    out = []
    for a, n, step in zip(begin, size, strides or (1,) * len(begin), strict=True):
        first, count = int(a), int(n)
        stop = first + count * step
        out.append(slice(first, None if stop < 0 else stop, step) if count else slice(0, 0))
    return tuple(out)


def _slice_reference(call: Call) -> Any:
    return call.arrays[0][_steps(ints(call.attrs["begin"]), concrete(call), call.attrs["strides"])]


def _along(e: Expr, begin: Size, step: int) -> Expr:
    """begin + step * e"""
    scaled = e if step == 1 else prim("mul", e, index(step))
    return scaled if isinstance(begin, int) and begin == 0 else prim("add", scaled, size_of(begin))


def _slice_point(p: Point) -> Expr:
    steps = p.attrs["strides"] or (1,) * len(p.index)
    return p.load(0, [_along(e, a, s) for e, a, s in zip(p.index, p.attrs["begin"], steps, strict=True)])


def _slice_gradient(op: Any, dy: Any) -> Sequence[Any]:
    x = op.inputs[0]
    begin = b.known_static(op, "begin")
    before, shape, out = begin, b.static_shape(x), b.static_shape(op.outputs[0])
    if op.attrs["strides"] and any(s != 1 for s in op.attrs["strides"]):
        return [b.op("SliceGrad", dy, b.shape_of(x), b.static_of(op, "begin"), strides=op.attrs["strides"])]
    if before is not None and shape is not None and out is not None and all(isinstance(a, int) for a in before):
        pads = tuple((a, m - a - n) for a, m, n in zip(before, shape, out, strict=True))
        return [dy if all(p == (0, 0) for p in pads) else b.op("Pad", dy, pads)]
    return [b.op("SliceGrad", dy, b.shape_of(x), b.static_of(op, "begin"), strides=())]


_SLICES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    ((7,), (2,), (3,), ()), ((5, 7), (0, 1), (-1, 4), ()), ((5, 7), (1, 6), (2, 4), (2, -2)),
    ((5, 7), (2, 0), (0, 7), ()),
    ((), (), (), ()), ((2, 3, 17), (1, 0, 16), (1, 3, 17), (1, 1, -1)))

register(Op(
    name="Slice", kind=Kind.MOVEMENT, inputs=("input", "begin", "size"), static={1: "begin", 2: "size"},
    attrs={"begin": None, "size": None, "strides": ()}, infer=_slice_infer, gradient=_slice_gradient, symbolic=True,
    reference=_slice_reference, lower=Pointwise(point=_slice_point), canonical=_slice_canonical,
    samples=lambda: [Sample((typed(d, *s),), {"begin": a, "size": n, "strides": k}, differentiable=d.is_floating)
                     for d in (float32, int32) for s, a, n, k in _SLICES],
    doc="The block of `size` elements from `begin` (a size of -1: the rest); strides, where given, are the steps of "
        "each axis and may be negative. tf.slice"))

_PLACE = {1: "shape", 2: "begin"}


def _place_infer(ctx: Inference) -> Sequence[PartialType]:
    dy = ctx.inputs[0]
    shape = attr_or_value(ctx, 1, "shape")
    if shape is None:
        rank = len(dy.shape) if dy.shape is not None else static_rank(ctx, 1)
        return [PartialType(dy.dtype, unknown_sizes(ctx, rank))]
    return [PartialType(dy.dtype, ints(shape))]


def _place_reference(call: Call) -> Any:
    (dy,) = call.arrays
    out = np.zeros(concrete(call), dy.dtype)
    out[_steps(ints(call.attrs["begin"]), dy.shape, call.attrs["strides"])] = dy
    return out


def _place_point(p: Point) -> Expr:
    """The element of dy whose place this is, or 0: the inverse of begin + step * k."""
    dtype, shape = p.out_types[0].dtype, p.in_types[0].shape
    where, inside = [], None
    steps = p.attrs["strides"] or (1,) * len(shape)
    for e, a, step, n, total in zip(p.index, p.attrs["begin"], steps, shape, p.out_types[0].shape, strict=True):
        offset = prim("sub", size_of(a), e) if step < 0 else e if a == 0 else prim("sub", e, size_of(a))
        k = offset if abs(step) == 1 else prim("floordiv", offset, index(abs(step)))
        where.append(k)
        checks = [] if a == 0 and step > 0 else [prim("le", index(0), offset)]
        spare = n * step + a - total  # of places for elements, behind the last one that there is
        if step < 0 or not isinstance(spare, int) or spare < 0:
            checks.append(prim("lt", k, size_of(n)))
        if abs(step) != 1:
            checks.append(prim("eq", prim("floormod", offset, index(abs(step))), index(0)))
        for ok in checks:
            inside = ok if inside is None else prim("and", inside, ok)
    return p.load(0, where) if inside is None else p.load(0, where, inside, const(0, dtype))


register(Op(
    name="SliceGrad", kind=Kind.MOVEMENT, inputs=("dy", "shape", "begin"), static=_PLACE,
    attrs={"shape": None, "begin": None, "strides": ()}, infer=_place_infer, reference=_place_reference,
    gradient=lambda op, ddy: [b.op("Slice", ddy, b.static_of(op, "begin"), b.shape_of(op.inputs[0]),
                                   strides=op.attrs["strides"])],
    lower=Pointwise(point=_place_point),
    samples=lambda: [Sample((typed(d, *y),), {"shape": s, "begin": a, "strides": k}, differentiable=d.is_floating)
                     for d in (float32, int32) for y, s, a, k in
                     (((3,), (7,), (2,), ()), ((2, 4), (5, 7), (1, 6), (2, -2)), ((), (), (), ()),
                      ((0, 7), (5, 7), (2, 0), ()))],
    doc="Zeros of `shape` with dy placed at begin + strides * k: the transpose of Slice"))

# -- strided slices ---------------------------------------------------------------------------------------------------

_STRIDED = {1: "begin", 2: "end", 3: "strides"}
_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A strided slice without masks: per axis of the input begin, size and step; then the shape of the result."""

    begin: tuple[Size, ...]
    size: tuple[Size, ...]
    strides: tuple[int, ...]
    shape: Shape


def _spread(attrs: Mapping[str, Any], count: int, rank: int) -> list[tuple[str, int]]:
    """What each entry of a sparse specification does: ("axis", entry), ("all", -1), ("new", entry), in order.

    Source: TF's BuildDenseSpec: an ellipsis stands for as many axes as the others leave; without one it comes last.
    """
    masks = {m: int(attrs[m]) for m in _MASKS}
    after_ellipsis = False
    steps: list[tuple[str, int]] = []
    taken = sum(1 for i in range(count) if not (masks["ellipsis_mask"] >> i & 1)
                and not (masks["new_axis_mask"] >> i & 1))
    for i in range(count):
        if masks["ellipsis_mask"] >> i & 1:
            steps += [("all", -1)] * max(rank - taken, 0)
            after_ellipsis = True
        elif masks["new_axis_mask"] >> i & 1:
            steps.append(("new", i))
        else:
            steps.append(("axis", i))
    if not after_ellipsis:
        steps += [("all", -1)] * max(rank - taken, 0)
    return steps


def _resolve(ctx: Inference | None, shape: Shape, attrs: Mapping[str, Any], begin: Sequence[Any], end: Sequence[Any],
             strides: Sequence[int]) -> _Resolved:
    """Resolve masks, negative positions and clamping.  With ctx, refuse what is out of range."""
    starts: list[Size] = []
    sizes: list[Size] = []
    steps: list[int] = []
    out: list[Size] = []
    spec = _spread(attrs, len(begin), len(shape))
    if ctx is not None and sum(kind != "new" for kind, _ in spec) > len(shape):
        raise ctx.fail(f"too many indices for a tensor of shape {show(shape)}")
    for kind, i in spec:
        if kind == "new":
            out.append(1)
            continue
        axis = len(starts)
        n = shape[axis]
        if kind == "all":
            starts.append(0)
            sizes.append(n)
            steps.append(1)
            out.append(n)
            continue
        step = int(strides[i])
        if ctx is not None and step == 0:
            raise ctx.fail(f"the step of axis {axis} is 0")
        if int(attrs["shrink_axis_mask"]) >> i & 1:
            starts.append(_position(ctx, begin[i], n, axis))
            sizes.append(1)
            steps.append(1)
            continue
        first, count = _extent(n, step, None if int(attrs["begin_mask"]) >> i & 1 else begin[i],
                               None if int(attrs["end_mask"]) >> i & 1 else end[i])
        starts.append(first)
        sizes.append(count)
        steps.append(step)
        out.append(count)
    return _Resolved(tuple(starts), tuple(sizes), tuple(steps), tuple(out))


def _position(ctx: Inference | None, at: Size, n: Size, axis: int) -> Size:
    """A single index, counted from the front."""
    message = f"index {at} is out of bounds for axis {axis} of size {n}"
    if isinstance(at, int) and at < 0:
        if ctx is not None:
            if isinstance(n, int) and at < -n:
                raise ctx.fail(message)
            ctx.at_most(-at, n, message)
        return n + at
    if ctx is not None:
        ctx.at_most(at + 1, n, message)
    return at


def _extent(n: Size, step: int, begin: Size | None, end: Size | None) -> tuple[Size, Size]:
    """First position and number of elements of begin:end:step on an axis of size n, as in Python."""
    def from_front(at: Size) -> Size:
        return at + n if isinstance(at, int) and at < 0 else at

    if step > 0:
        low: Size = 0 if begin is None else _not_negative(from_front(begin))
        high = n if end is None else dim.minimum(from_front(end), n)
        return low, _not_negative(dim.ceildiv(high - low, step))
    top = n - 1 if begin is None else dim.minimum(from_front(begin), n - 1)
    floor: Size = -1 if end is None else dim.maximum(from_front(end), -1)
    return top, _not_negative(dim.ceildiv(top - floor, -step))


def _strided_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    begin, end, strides = (attr_or_value(ctx, i, name) for i, name in _STRIDED.items())
    return [PartialType(x.dtype, _strided_shape(ctx, x.shape, begin, end, strides))]


def _strided_shape(ctx: Inference, shape: Shape | None, begin: Any, end: Any, strides: Any) -> Shape | None:
    if shape is None:
        return None
    if begin is not None and end is not None and strides is not None:
        return _resolve(ctx, shape, ctx.attrs, begin, end, strides).shape
    count = len(begin) if begin is not None else static_rank(ctx, 1)
    if count is None:
        return None
    out: list[Size] = []
    for kind, i in _spread(ctx.attrs, count, len(shape)):
        if kind == "new":
            out.append(1)
        elif not (kind == "axis" and int(ctx.attrs["shrink_axis_mask"]) >> i & 1):
            out.append(ctx.unknown())
    return tuple(out)


def _resolved(attrs: Mapping[str, Any], shape: Shape) -> _Resolved:
    return _resolve(None, shape, attrs, *(ints(attrs[name]) for name in _STRIDED.values()))


def _strided_decompose(d: Decomposition) -> Sequence[Any]:
    r = _resolved(d.attrs, d.in_types[0].shape)
    (x,) = d.inputs
    whole = r.size == d.in_types[0].shape and all(s == 1 for s in r.strides)
    block = x if whole else d.op("Slice", x, begin=r.begin, size=r.size, strides=r.strides)
    return [block if r.shape == r.size else d.op("Reshape", block, shape=r.shape)]


def _strided_reference(call: Call) -> Any:
    r = _resolved(call.attrs, call.in_types[0].shape)
    return call.arrays[0][_steps(r.begin, [int(n) for n in r.size], r.strides)].reshape(concrete(call))


def _masks(op: Any) -> dict[str, int]:
    return {m: op.attrs[m] for m in _MASKS}


def _strided_gradient(op: Any, dy: Any) -> Sequence[Any]:
    given = [b.static_of(op, name) for name in _STRIDED.values()]
    return [b.op("StridedSliceGrad", b.shape_of(op.inputs[0]), *given, dy, **_masks(op))]


_STRIDED_CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((7,), {"begin": (1,), "end": (5,), "strides": (2,)}),
    ((7,), {"begin": (-1,), "end": (0,), "strides": (-2,), "end_mask": 1}),
    ((5, 7), {"begin": (3, 0), "end": (4, 0), "strides": (1, 1), "shrink_axis_mask": 1, "begin_mask": 2,
              "end_mask": 2}),
    ((5, 7), {"begin": (0, 0, -2), "end": (0, 0, 99), "strides": (1, 1, 1), "new_axis_mask": 1, "ellipsis_mask": 2}),
    ((2, 3, 17), {"begin": (-1, 0), "end": (0, 0), "strides": (1, 1), "shrink_axis_mask": 1, "ellipsis_mask": 2}),
    ((4,), {"begin": (3,), "end": (1,), "strides": (1,)}),
    ((5,), {"begin": (0, 2), "end": (0, 3), "strides": (1, 1), "new_axis_mask": 1, "shrink_axis_mask": 2}))
_STRIDED_ATTRS: dict[str, Any] = {"begin": None, "end": None, "strides": None} | dict.fromkeys(_MASKS, 0)

register(Op(
    name="StridedSlice", kind=Kind.MOVEMENT, inputs=("input", "begin", "end", "strides"), static=_STRIDED,
    attrs=_STRIDED_ATTRS, infer=_strided_infer, gradient=_strided_gradient, reference=_strided_reference, symbolic=True,
    lower=NotLowered("decomposed into Slice and Reshape"), decompose=_strided_decompose,
    samples=lambda: [Sample((typed(d, *s),), dict(a), differentiable=d.is_floating)
                     for d in (float32, int32, bool_) for s, a in _STRIDED_CASES],
    doc="x[begin:end:strides, ...] with Python's meaning; bit i of a mask speaks of entry i: begin_mask and end_mask "
        "leave the bound out, ellipsis_mask is ..., new_axis_mask adds an axis, shrink_axis_mask takes one element. "
        "tf.strided_slice"))

_STRIDED_GRAD = {0: "shape", 1: "begin", 2: "end", 3: "strides"}


def _strided_grad_infer(ctx: Inference) -> Sequence[PartialType]:
    (dy,) = data_inputs(ctx, _STRIDED_GRAD)
    shape = attr_or_value(ctx, 0, "shape")
    if shape is None:
        return [PartialType(dy.dtype, unknown_sizes(ctx, static_rank(ctx, 0)))]
    return [PartialType(dy.dtype, ints(shape))]


def _strided_grad_decompose(d: Decomposition) -> Sequence[Any]:
    shape = d.out_types[0].shape
    r = _resolved(d.attrs, shape)
    (dy,) = d.inputs
    block = dy if d.in_types[0].shape == r.size else d.op("Reshape", dy, shape=r.size)
    return [d.op("SliceGrad", block, shape=shape, begin=r.begin, strides=r.strides)]


def _strided_grad_reference(call: Call) -> Any:
    (dy,) = call.arrays
    out = np.zeros(concrete(call), dy.dtype)
    r = _resolved(call.attrs, call.out_types[0].shape)
    sizes = [int(n) for n in r.size]
    out[_steps(r.begin, sizes, r.strides)] = dy.reshape(sizes)
    return out


def _strided_grad_gradient(op: Any, ddy: Any) -> Sequence[Any]:
    return [b.op("StridedSlice", ddy, *(b.static_of(op, name) for name in _STRIDED.values()), **_masks(op))]


def _strided_grad_samples() -> list[Sample]:
    out = []
    for shape, attrs in _STRIDED_CASES:
        resolved = _resolved(_STRIDED_ATTRS | attrs, shape)
        out.append(Sample((typed(float32, *resolved.shape),), {**attrs, "shape": shape}))
    return out


register(Op(
    name="StridedSliceGrad", kind=Kind.MOVEMENT, inputs=("shape", "begin", "end", "strides", "dy"),
    static=_STRIDED_GRAD,
    attrs={"shape": None} | _STRIDED_ATTRS, infer=_strided_grad_infer, gradient=_strided_grad_gradient,
    reference=_strided_grad_reference, lower=NotLowered("decomposed into Reshape and SliceGrad"),
    decompose=_strided_grad_decompose, samples=_strided_grad_samples,
    doc="Zeros of `shape` with dy in the place of the strided slice. TF op StridedSliceGrad"))

# -- reversal ---------------------------------------------------------------------------------------------------------


def _reverse_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    axes = attr_or_value(ctx, 1, "axis")
    if axes is not None and x.shape is not None:
        found = [axis_in(ctx, a, len(x.shape)) for a in ints(axes)]
        if len(set(found)) != len(found):
            raise ctx.fail(f"axis {axes} names an axis twice")
    if len(ctx.inputs) > 1:
        check_dtype(ctx, ctx.inputs[1], INTEGERS, "axis")
    return [PartialType(x.dtype, x.shape)]


def _reverse_axes(attrs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    return tuple(sorted(int(a) % rank for a in ints(attrs["axis"])))


def _reverse_point(p: Point) -> Expr:
    axes = _reverse_axes(p.attrs, len(p.index))
    return p.load(0, [prim("sub", size_of(n - 1), e) if a in axes else e
                      for a, (e, n) in enumerate(zip(p.index, p.in_types[0].shape, strict=True))])


register(Op(
    name="ReverseV2", kind=Kind.MOVEMENT, inputs=("tensor", "axis"), static={1: "axis"}, attrs={"axis": None},
    infer=_reverse_infer, gradient=lambda op, dy: [b.op("ReverseV2", dy, b.static_of(op, "axis"))], symbolic=True,
    reference=lambda call: np.flip(call.arrays[0], _reverse_axes(call.attrs, call.arrays[0].ndim)),
    lower=Pointwise(point=_reverse_point),
    canonical=lambda attrs, types: {**attrs, "axis": _reverse_axes(attrs, types[0].rank)},
    samples=lambda: [Sample((typed(d, *s),), {"axis": a}, differentiable=d.is_floating) for d in (float32, int32)
                     for s, a in (((7,), (0,)), ((5, 7), (-1,)), ((2, 3, 4), (0, 2)), ((3, 2), ()), ((0,), (0,)))],
    doc="The elements of some axes in the opposite order. tf.reverse"))
