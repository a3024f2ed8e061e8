"""Ops that values come from: placeholders, constants, ranges, fills, and the sizes of tensors.

Owns them.  Must not know how a feed or a constant is stored.  Invariant: a size that a tensor's type holds is never
computed from the tensor: Shape, Size and Rank read types alone.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import bool_, float32, float64, int32, int64
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import PartialType, Shape
from graphc.kernel.ir import Const as Literal
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Inference,
    Kind,
    NoGradient,
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
    ALL,
    FLOATS,
    INDICES,
    NUMBERS,
    axis_in,
    check_same_dtype,
    concrete,
    ints,
    require_rank,
    show,
    size_array,
    static_rank,
    typed,
    unknown_sizes,
)

_SOURCE = NoGradient("nothing flows into it")

# -- feeds and constants ----------------------------------------------------------------------------------------------


def _declared(ctx: Inference, shape: Any) -> Shape | None:
    return None if shape is None else tuple(ctx.unknown() if n is None else n for n in shape)


def _no_value(call: Call) -> Any:
    raise TypeError("a placeholder has no value of its own")


register(Op(
    name="Placeholder", kind=Kind.SOURCE, inputs=(), attrs={"dtype": REQUIRED, "shape": None},
    infer=lambda ctx: [PartialType(ctx.attrs["dtype"], _declared(ctx, ctx.attrs["shape"]))], gradient=_SOURCE,
    reference=_no_value, lower=NotLowered("a feed of the function"), samples=list,
    doc="A tensor that each run feeds. shape: a tuple with None for sizes not known, or None. tf.placeholder"))


def _default_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    shape = ctx.attrs["shape"]
    if shape is not None and x.shape is not None:
        fits = len(shape) == len(x.shape) and all(
            n is None or not isinstance(m, int) or not isinstance(n, int) or n == m
            for n, m in zip(shape, x.shape, strict=True))
        if not fits:
            raise ctx.fail(f"the default of shape {show(x.shape)} does not have the declared shape {show(shape)}")
    return [PartialType(x.dtype, _declared(ctx, shape))]


register(Op(
    name="PlaceholderWithDefault", kind=Kind.SOURCE, inputs=("input",), attrs={"shape": None}, infer=_default_infer,
    gradient=lambda op, dy: [dy], reference=lambda call: call.arrays[0], symbolic=True,
    canonical=lambda attrs, types: {**attrs, "shape": types[0].shape}, decompose=lambda d: [d.inputs[0]],
    lower=NotLowered("a feed, or its input where it is not fed"),
    samples=lambda: [Sample((typed(d, 5, 7),), {"shape": (5, 7)}, differentiable=d.is_floating) for d in ALL],
    doc="A tensor that a run may feed. shape: as of Placeholder. tf.placeholder_with_default"))

register(Op(
    name="Const", kind=Kind.SOURCE, inputs=(), attrs={"value": REQUIRED, "dtype": REQUIRED},
    infer=lambda ctx: [PartialType(ctx.attrs["dtype"], tuple(np.shape(ctx.attrs["value"])))], gradient=_SOURCE,
    reference=lambda call: np.asarray(call.attrs["value"]), symbolic=True,
    lower=NotLowered("a constant of the program; scalars become literals"),
    samples=lambda: [Sample((), {"value": np.ones((2, 3), d.as_numpy_dtype), "dtype": d}) for d in ALL],
    doc="A fixed array. value: NumPy array (float32 for bfloat16). tf.constant"))


def _sizes_point(p: Point) -> Expr:
    flat = ints(p.attrs["sizes"]) if p.index else (p.attrs["sizes"],)
    return _choose(p, flat)


def _choose(p: Point, sizes: Sequence[Size]) -> Expr:
    """The element of a vector (or scalar) of sizes at p.index."""
    if not sizes:
        return const(0, p.out_types[0].dtype)
    value = size_of(sizes[-1])
    for i in range(len(sizes) - 2, -1, -1):
        value = prim("select", prim("eq", p.index[0], index(i)), size_of(sizes[i]), value)
    return cast(value, p.out_types[0].dtype)


def _sizes_infer(ctx: Inference) -> Sequence[PartialType]:
    sizes = ctx.attrs["sizes"]
    return [PartialType(ctx.attrs["dtype"], (len(sizes),) if isinstance(sizes, tuple) else ())]


def _sizes_reference(call: Call) -> np.ndarray:
    sizes = call.attrs["sizes"]
    return size_array(sizes) if isinstance(sizes, tuple) else size_array((sizes,)).reshape(())


register(Op(
    name="Sizes", kind=Kind.SOURCE, inputs=(), attrs={"sizes": REQUIRED, "dtype": int32}, infer=_sizes_infer,
    gradient=_SOURCE, reference=_sizes_reference, symbolic=True, lower=Pointwise(point=_sizes_point),
    samples=lambda: [Sample((), {"sizes": s, "dtype": d}) for d in INDICES for s in ((3, 4, 5), (7,), 6, ())],
    doc="Sizes as a tensor: a tuple (a vector) or one size (a scalar) of the IR, known when the run starts"))

# -- sizes of tensors -------------------------------------------------------------------------------------------------


def _shape_infer(ctx: Inference) -> Sequence[PartialType]:
    shape = ctx.inputs[0].shape
    return [PartialType(ctx.attrs["out_type"], (ctx.unknown() if shape is None else len(shape),))]


_SIZES_FLOW = NoGradient("sizes do not depend on the elements")
_SHAPE_SAMPLES: tuple[tuple[int, ...], ...] = ((), (4,), (0, 3), (2, 3, 5))


def _shape_samples() -> list[Sample]:
    return [Sample((typed(d, *s),), {"out_type": t}, differentiable=False)
            for d in (float32, bool_) for t in INDICES for s in _SHAPE_SAMPLES]


register(Op(
    name="Shape", kind=Kind.SOURCE, inputs=("input",), attrs={"out_type": int32}, infer=_shape_infer,
    gradient=_SIZES_FLOW, reference=lambda call: size_array(call.in_types[0].shape), symbolic=True, of_shape=True,
    lower=Pointwise(point=lambda p: _choose(p, p.in_types[0].shape)), samples=_shape_samples,
    doc="The sizes of a tensor as a vector. tf.shape"))
register(Op(
    name="Size", kind=Kind.SOURCE, inputs=("input",), attrs={"out_type": int32},
    infer=lambda ctx: [PartialType(ctx.attrs["out_type"], ())], gradient=_SIZES_FLOW,
    reference=lambda call: size_array((dim.product(call.in_types[0].shape),)).reshape(()), symbolic=True, of_shape=True,
    lower=Pointwise(point=lambda p: _choose(p, (p.in_types[0].elements,))), samples=_shape_samples,
    doc="The number of elements of a tensor. tf.size"))
register(Op(
    name="Rank", kind=Kind.SOURCE, inputs=("input",), infer=lambda ctx: [PartialType(int32, ())], gradient=_SIZES_FLOW,
    reference=lambda call: np.asarray(len(call.in_types[0].shape)), symbolic=True, of_shape=True,
    lower=Pointwise(point=lambda p: Literal(p.in_types[0].rank, int32)),
    samples=lambda: [Sample((typed(float32, *s),), differentiable=False) for s in _SHAPE_SAMPLES],
    doc="The number of axes of a tensor. tf.rank"))

# -- fills ------------------------------------------------------------------------------------------------------------


def static_shape(ctx: Inference, i: int, attr: str = "shape") -> Shape | None:
    """Return the shape that a static input gives: sizes not known are unknown."""
    sizes = attr_or_value(ctx, i, attr)
    if sizes is None:
        return unknown_sizes(ctx, static_rank(ctx, i))
    for n in ints(sizes):
        if isinstance(n, int) and n < 0:
            raise ctx.fail(f"a shape has no negative sizes, {show(ints(sizes))} is given")
    return ints(sizes)


def _fill_infer(ctx: Inference) -> Sequence[PartialType]:
    (value,) = data_inputs(ctx, {0: "shape"})
    require_rank(ctx, value.shape, 0, "the value", 0)
    return [PartialType(value.dtype, static_shape(ctx, 0))]


register(Op(
    name="Fill", kind=Kind.SOURCE, inputs=("dims", "value"), attrs={"shape": None}, static={0: "shape"},
    infer=_fill_infer, gradient=lambda op, dy: [b.op("SumToShape", dy, ())],
    reference=lambda call: np.broadcast_to(call.arrays[0], concrete(call)), symbolic=True,
    lower=Pointwise(point=lambda p: p.load(0, ())), doc="A tensor of one value. tf.fill",
    samples=lambda: [Sample((typed(d),), {"shape": s}, differentiable=d.is_floating)
                     for d in ALL for s in ((), (5, 7), (0, 2))]))


def _like(name: str, value: int, doc: str) -> None:
    register(Op(
        name=name, kind=Kind.ELEMENTWISE, inputs=("x",),
        infer=lambda ctx: [PartialType(ctx.inputs[0].dtype, ctx.inputs[0].shape)],
        gradient=NoGradient("the result is constant"), symbolic=True,
        reference=lambda call: np.full(call.arrays[0].shape, value),
        lower=Pointwise(point=lambda p: const(value, p.out_types[0].dtype)), doc=doc,
        samples=lambda: [Sample((typed(d, *s),), differentiable=False) for d in ALL for s in ((), (5, 7), (0, 2))]))


_like("ZerosLike", 0, "Zeros of the input's shape and dtype. tf.zeros_like")
_like("OnesLike", 1, "Ones of the input's shape and dtype. tf.ones_like")

# -- ranges -----------------------------------------------------------------------------------------------------------

_RANGE = {0: "start", 1: "limit", 2: "delta"}


def range_length(start: Any, limit: Any, delta: Any) -> Size:
    """Return the number of elements of a range: ceil((limit - start) / delta), not below 0."""
    if isinstance(start, float) or isinstance(limit, float) or isinstance(delta, float):
        return max(0, int(np.ceil((limit - start) / delta)))
    span = (limit - start) if delta > 0 else (start - limit)
    count = dim.ceildiv(span, abs(delta))
    if isinstance(count, Dim) and all(c > 0 for _, c in count.terms):
        return count
    return dim.maximum(count, 0)


def _range_infer(ctx: Inference) -> Sequence[PartialType]:
    start, limit, delta = (attr_or_value(ctx, i, name) for i, name in _RANGE.items())
    given = data_inputs(ctx, {}) if ctx.attrs["start"] is None else ()
    dtype = check_same_dtype(ctx, given, NUMBERS) if given else ctx.attrs["dtype"]
    for t in given:
        require_rank(ctx, t.shape, 0, "start, limit and delta", 0)
    if start is None or limit is None or delta is None or isinstance(delta, Dim):
        return [PartialType(dtype, (ctx.unknown(),))]
    if delta == 0:
        raise ctx.fail("the step of a range is not 0")
    return [PartialType(dtype, (range_length(start, limit, delta),))]


def _range_reference(call: Call) -> np.ndarray:
    start, delta = call.attrs["start"], call.attrs["delta"]
    (n,) = concrete(call)
    if isinstance(start, Dim):
        return size_array([start + i * delta for i in range(n)])
    return np.asarray(start + np.arange(n) * delta)


def _range_point(p: Point) -> Expr:
    start, delta, dtype = p.attrs["start"], p.attrs["delta"], p.out_types[0].dtype
    if not dtype.is_floating:
        return cast(prim("add", size_of(start), prim("mul", p.index[0], index(delta))), dtype)
    wide = float64 if dtype is float64 else float32
    return prim("add", const(start, wide), prim("mul", cast(p.index[0], wide), const(delta, wide)))


def _range_samples() -> list[Sample]:
    whole = [Sample((), {"start": a, "limit": z, "delta": s, "dtype": d})
             for d in (int32, int64, float32, float64) for a, z, s in ((0, 5, 1), (3, 18, 3), (5, 0, -2), (4, 4, 1))]
    return [*whole, Sample((), {"start": 0.0, "limit": 1.0, "delta": 0.25, "dtype": float32})]


register(Op(
    name="Range", kind=Kind.SOURCE, inputs=("start", "limit", "delta"), static=_RANGE, symbolic=True,
    attrs={"start": None, "limit": None, "delta": None, "dtype": int32}, infer=_range_infer, gradient=_SOURCE,
    reference=_range_reference, lower=Pointwise(point=_range_point), samples=_range_samples,
    doc="start, start + delta ... before limit. tf.range"))


def _linspace_infer(ctx: Inference) -> Sequence[PartialType]:
    start, stop = ctx.inputs[:2]
    dtype = check_same_dtype(ctx, (start, stop), FLOATS)
    for t in (start, stop):
        require_rank(ctx, t.shape, 0, "start and stop", 0)
    count = attr_or_value(ctx, 2, "num")
    if isinstance(count, int) and count < 1:
        raise ctx.fail(f"linspace takes at least 1 element, {count} are asked for")
    return [PartialType(dtype, (ctx.unknown() if count is None else count,))]


def _linspace_point(p: Point) -> Expr:
    dtype = p.out_types[0].dtype
    wide = float64 if dtype is float64 else float32
    start, stop = (cast(p.load(i, ()), wide) for i in (0, 1))
    last = prim("sub", size_of(p.out_types[0].shape[0]), index(1))
    step = prim("div", prim("sub", stop, start), prim("max", cast(last, wide), const(1, wide)))
    at = prim("add", start, prim("mul", step, cast(p.index[0], wide)))
    end = prim("and", prim("eq", p.index[0], last), prim("lt", index(0), last))
    return prim("select", end, stop, at)


register(Op(
    name="LinSpace", kind=Kind.SOURCE, inputs=("start", "stop", "num"), static={2: "num"}, attrs={"num": None},
    infer=_linspace_infer, gradient=NoGradient("as in TensorFlow 1, the ends are not differentiated"),
    reference=lambda call: np.linspace(call.arrays[0], call.arrays[1], int(call.out_types[0].shape[0])),
    lower=Pointwise(point=_linspace_point), doc="num evenly spaced numbers from start to stop. tf.linspace",
    samples=lambda: [Sample((typed(d), typed(d)), {"num": n}, special=False, differentiable=False, ulp=8.0)
                     for d in (float32, float64) for n in (1, 2, 17)]))


def _iota_infer(ctx: Inference) -> Sequence[PartialType]:
    shape = static_shape(ctx, 0)
    if shape is not None:
        axis_in(ctx, ctx.attrs["axis"], len(shape))
    return [PartialType(ctx.attrs["dtype"], shape)]


def _iota_reference(call: Call) -> np.ndarray:
    shape, axis = concrete(call), call.attrs["axis"]
    along = [1] * len(shape)
    along[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(along), shape)


register(Op(
    name="Iota", kind=Kind.SOURCE, inputs=("shape",), static={0: "shape"},
    attrs={"shape": None, "axis": 0, "dtype": int32}, infer=_iota_infer, gradient=_SOURCE, reference=_iota_reference,
    lower=Pointwise(point=lambda p: cast(p.index[p.attrs["axis"] % len(p.index)], _computing(p.out_types[0].dtype))),
    samples=lambda: [Sample((), {"shape": s, "axis": a, "dtype": d})
                     for d in (int32, int64, float32) for s, a in (((5, 7), 0), ((5, 7), 1), ((3,), -1), ((0, 2), 0))],
    doc="Each element's own position along an axis"))


def _computing(dtype: dtypes.DType) -> dtypes.DType:
    return float32 if dtype in (dtypes.float16, dtypes.bfloat16) else dtype
