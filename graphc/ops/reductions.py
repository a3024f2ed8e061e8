"""Ops that combine the elements along axes: sum, mean, max, any, argmax ...

Owns their rows.  Must not know fusion.  Invariant: in the IR `axis` is a sorted tuple of axes counted from the front;
an empty range gives the combiner's identity, and float16 and bfloat16 are combined in float32.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float32, float64, int32, int64, uint64
from graphc.graph.tensor import Tensor
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Expr
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    Call,
    Decomposition,
    Inference,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Reducing,
    Sample,
    attr_or_value,
    register,
)
from graphc.ops.rules import (
    BOOLS,
    FLOATS,
    NUMBERS,
    Group,
    axis_in,
    check_dtype,
    ints,
    normal_axes,
    static_rank,
    typed,
    unknown_sizes,
)

_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], bool], ...] = (
    ((), (), False), ((7,), (0,), False), ((5, 7), (1,), False), ((5, 7), (0,), True), ((2, 3, 17), (0, 2), False),
    ((2, 3, 17), (0, 1, 2), True), ((3, 0), (1,), False), ((3, 4), (), False))


def _infer(allowed: Group) -> Callable[[Inference], Sequence[PartialType]]:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        x = ctx.inputs[0]
        check_dtype(ctx, x, allowed)
        return [PartialType(x.dtype, reduced_shape(ctx, x.shape, bool(ctx.attrs["keepdims"])))]
    return infer


def reduced_shape(ctx: Inference, shape: Shape | None, keepdims: bool) -> Shape | None:
    """Return `shape` without (or with 1 for) the axes that static input 1 names."""
    given = attr_or_value(ctx, 1, "axis")
    if shape is None:
        return None
    if given is None:
        if keepdims:
            return unknown_sizes(ctx, len(shape))
        count = static_rank(ctx, 1)
        return None if count is None else unknown_sizes(ctx, len(shape) - count)
    axes = [axis_in(ctx, a, len(shape)) for a in ints(given)]
    if len(set(axes)) != len(axes):
        raise ctx.fail(f"axis {given} names an axis twice")
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def _canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    return {**attrs, "axis": normal_axes(attrs["axis"], types[0].rank), "keepdims": bool(attrs["keepdims"])}


def _over_no_axes(d: Decomposition) -> Sequence[Any] | None:
    """The input itself where nothing is combined."""
    return None if d.attrs["axis"] else d.inputs


def _reduction(name: str, allowed: Group, reference: Callable[..., Any], lower: Reducing,
               gradient: Callable[..., Sequence[Any]] | NoGradient, doc: str, *, symbolic: bool = False,
               domain: tuple[float, float] = (-3.0, 3.0)) -> None:
    def run(call: Call) -> Any:
        x = call.arrays[0]
        axes = normal_axes(call.attrs["axis"], x.ndim)
        return reference(x, axes, bool(call.attrs["keepdims"]))

    def samples() -> list[Sample]:
        return [Sample((typed(d, *shape),), {"axis": axis, "keepdims": keep}, domain=domain, ulp=16.0,
                       differentiable=d.is_floating and 0 not in shape)
                for d in allowed for shape, axis, keep in _CASES]

    register(Op(name=name, kind=Kind.REDUCTION, inputs=("input", "reduction_indices"), static={1: "axis"},
                attrs={"axis": None, "keepdims": False}, infer=_infer(allowed), gradient=gradient, reference=run,
                lower=lower, samples=samples, doc=doc, symbolic=symbolic, canonical=_canonical,
                decompose=_over_no_axes))


# -- gradients --------------------------------------------------------------------------------------------------------


def kept(op: Any, t: Tensor) -> Tensor:
    """Return a result (or gradient) of a reduction with the reduced axes back, of size 1."""
    if op.attrs["keepdims"]:
        return t
    axis = b.static_of(op, "axis")
    if axis == ():
        return t
    rank = op.inputs[0].type.shape
    known = b.known_static(op, "axis")
    if rank is not None and known is not None:
        axis = normal_axes(known, len(rank))
    return b.op("ExpandDims", t, axis)  # type: ignore[no-any-return]


def _sum_gradient(op: Any, dy: Any) -> Sequence[Any]:
    return [b.broadcast_like(kept(op, dy), op.inputs[0])]


def _count(op: Any, dtype: Any) -> Any:
    """Number of elements combined into one: the quotient of sizes, or a number where the shapes are known."""
    x, y = b.static_shape(op.inputs[0]), b.static_shape(op.outputs[0])
    if x is not None and y is not None and 0 not in y:
        return int(np.prod(x, dtype=np.int64) // np.prod(y, dtype=np.int64))
    axes = b.known_static(op, "axis")
    shape = op.inputs[0].type.shape
    if axes is not None and shape is not None:
        sizes = [shape[a] for a in normal_axes(axes, len(shape))]
        if all(isinstance(n, int) for n in sizes):
            return int(np.prod(sizes, dtype=np.int64))
    total = b.op("Size", op.inputs[0])
    groups = b.op("Maximum", b.op("Size", op.outputs[0]), 1)
    return b.op("Cast", b.op("FloorDiv", total, groups), dtype=dtype)


def _mean_gradient(op: Any, dy: Any) -> Sequence[Any]:
    divide = "RealDiv" if dy.dtype.is_floating else "TruncateDiv"
    return [b.broadcast_like(kept(op, b.op(divide, dy, _count(op, dy.dtype))), op.inputs[0])]


def _extreme_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """Shared equally among the elements that are the extreme."""
    x, y = op.inputs[0], kept(op, op.outputs[0])
    hit = b.op("Cast", b.op("Equal", x, y), dtype=dy.dtype)
    count = b.op("Sum", hit, b.static_of(op, "axis"), keepdims=True)
    return [b.mul(b.op("RealDiv" if dy.dtype.is_floating else "TruncateDiv", hit, count), kept(op, dy))]


def _prod_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """The product of the others, from the running products on either side, so that zeros do no harm."""
    x = op.inputs[0]
    shape, axes = x.type.shape, b.known_static(op, "axis")
    if shape is None or axes is None:
        raise TypeError("the gradient of Prod needs axes, and a rank, that are known while the graph is built")
    reduced = normal_axes(axes, len(shape))
    if not reduced:
        return [dy]
    order = reduced + tuple(i for i in range(len(shape)) if i not in reduced)
    back = tuple(int(i) for i in np.argsort(order))
    moved = b.op("Transpose", x, order)
    rest = tuple(shape[i] for i in order[len(reduced):])
    if all(isinstance(n, int) for n in rest):
        target: Any = (-1, *rest)
    else:
        sizes = b.op("Shape", moved)
        tail = b.op("Slice", sizes, (len(reduced),), (-1,))
        target = b.concat(0, [b.constant([-1], int32), tail])
    if 0 in rest:
        return [b.zeros_like(x)]
    rows = moved if len(reduced) == 1 else b.op("Reshape", moved, target)
    others = b.mul(b.op("Cumprod", rows, 0, exclusive=True), b.op("Cumprod", rows, 0, exclusive=True, reverse=True))
    partial = b.op("Transpose", b.reshape_like(others, moved), back)
    return [b.mul(kept(op, dy), partial)]


# -- the ops ----------------------------------------------------------------------------------------------------------


def _divide_by_count(attrs: Mapping[str, Any], total: Expr, count: Expr) -> Expr:
    if total.dtype.is_floating:
        return prim("div", total, cast(count, total.dtype))
    wide = uint64 if total.dtype.is_unsigned else int64  # the count may be more than the dtype holds
    return cast(prim("truncdiv", cast(total, wide), cast(count, wide)), total.dtype)


def _mean_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    total = np.sum(x, axis=axes, keepdims=keepdims, dtype=None if x.dtype.kind == "f" else x.dtype)
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    if x.dtype.kind == "f":
        return np.divide(total, count)
    if not count:
        return np.zeros_like(total)
    wide = np.asarray(total, np.uint64 if x.dtype.kind == "u" else np.int64)
    quotient = wide // wide.dtype.type(count)
    return quotient + ((wide < 0) & (quotient * count != wide)).astype(wide.dtype)


def _identity(x: np.ndarray, lowest: bool) -> Any:
    if x.dtype.kind == "f":
        return -np.inf if lowest else np.inf
    return np.iinfo(x.dtype).min if lowest else np.iinfo(x.dtype).max


def _total(combine: Any) -> Callable[[np.ndarray, tuple[int, ...], bool], Any]:
    return lambda x, axes, keepdims: combine(x, axis=axes, keepdims=keepdims)


_LOGIC = NoGradient("the result is bool")
_reduction("Sum", NUMBERS, _total(np.sum), Reducing("sum"), _sum_gradient, "Sum over axes. tf.reduce_sum",
           symbolic=True)
_reduction("Mean", NUMBERS, _mean_reference, Reducing("sum", finish=_divide_by_count), _mean_gradient,
           "Mean over axes; of integers, rounded towards zero. tf.reduce_mean")
_reduction("Prod", NUMBERS, _total(np.prod), Reducing("prod"), _prod_gradient, "Product over axes. tf.reduce_prod",
           symbolic=True, domain=(0.5, 1.5))
_reduction("Max", NUMBERS, lambda x, axes, keepdims: np.max(x, axes, keepdims=keepdims, initial=_identity(x, True)),
           Reducing("max"), _extreme_gradient, "Largest element over axes; NaN where there is one. tf.reduce_max")
_reduction("Min", NUMBERS, lambda x, axes, keepdims: np.min(x, axes, keepdims=keepdims, initial=_identity(x, False)),
           Reducing("min"), _extreme_gradient, "Smallest element over axes; NaN where there is one. tf.reduce_min")
_reduction("Any", BOOLS, _total(np.any), Reducing("any"), _LOGIC, "Whether any element holds. tf.reduce_any")
_reduction("All", BOOLS, _total(np.all), Reducing("all"), _LOGIC, "Whether all elements hold. tf.reduce_all")

# -- positions of extremes --------------------------------------------------------------------------------------------


def _arg_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    check_dtype(ctx, x, NUMBERS)
    given = attr_or_value(ctx, 1, "axis")
    if x.shape is None:
        return [PartialType(ctx.attrs["output_type"], None)]
    if given is None:
        return [PartialType(ctx.attrs["output_type"], unknown_sizes(ctx, len(x.shape) - 1))]
    (axis,) = [axis_in(ctx, a, len(x.shape)) for a in ints(given)]
    if x.shape[axis] == 0:
        raise ctx.fail(f"axis {axis} is empty: it has no extreme")
    return [PartialType(ctx.attrs["output_type"], x.shape[:axis] + x.shape[axis + 1:])]


def _arg(name: str, reference: Any, combiner: str, doc: str) -> None:
    def run(call: Call) -> Any:
        (axis,) = normal_axes(call.attrs["axis"], call.arrays[0].ndim)
        return reference(call.arrays[0], axis=axis)

    register(Op(
        name=name, kind=Kind.REDUCTION, inputs=("input", "dimension"), static={1: "axis"},
        attrs={"axis": None, "keepdims": False, "output_type": int64}, infer=_arg_infer,
        gradient=NoGradient("an index does not change with the elements"), reference=run, lower=Reducing(combiner),
        canonical=_canonical, doc=doc,
        samples=lambda: [Sample((typed(d, *s),), {"axis": (a,), "output_type": t}, differentiable=False)
                         for d in NUMBERS
                         for s, a, t in (((7,), 0, int64), ((5, 7), 1, int32), ((2, 3, 17), 1, int64))]))


_arg("ArgMax", np.argmax, "argmax", "Index of the first largest element along an axis. tf.argmax")
_arg("ArgMin", np.argmin, "argmin", "Index of the first smallest element along an axis. tf.argmin")

# -- sums to a shape --------------------------------------------------------------------------------------------------


def _sum_to_shape_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    check_dtype(ctx, x, NUMBERS)
    shape = attr_or_value(ctx, 1, "shape")
    if shape is None:
        return [PartialType(x.dtype, unknown_sizes(ctx, static_rank(ctx, 1)))]
    if x.shape is not None:
        ctx.broadcast(x.shape, ints(shape))
    return [PartialType(x.dtype, ints(shape))]


def _axes_to_sum(big: Shape, small: Shape) -> tuple[int, ...]:
    lead = len(big) - len(small)
    return tuple(i for i, n in enumerate(big) if i < lead or (small[i - lead] == 1 and n != 1))


def _sum_to_shape_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    big, small = d.in_types[0].shape, d.out_types[0].shape
    axes = _axes_to_sum(big, small)
    total = d.op("Sum", x, axis=axes, keepdims=False) if axes else x
    return [total if d.type_of(total).shape == small else d.op("Reshape", total, shape=small)]


def _sum_to_shape_reference(call: Call) -> Any:
    (x,) = call.arrays
    small = tuple(int(n) for n in call.out_types[0].shape)
    return np.sum(x, axis=_axes_to_sum(x.shape, small)).reshape(small)


register(Op(
    name="SumToShape", kind=Kind.REDUCTION, inputs=("input", "shape"), static={1: "shape"}, attrs={"shape": None},
    infer=_sum_to_shape_infer, gradient=lambda op, dy: [b.broadcast_like(dy, op.inputs[0])],
    reference=_sum_to_shape_reference, lower=NotLowered("decomposed into Sum and Reshape"),
    decompose=_sum_to_shape_decompose,
    samples=lambda: [Sample((typed(d, *x),), {"shape": s}, ulp=16.0, differentiable=d.is_floating)
                     for d in (float32, float64, int32)
                     for x, s in (((5, 7), (7,)), ((5, 7), (5, 1)), ((2, 3, 4), (1, 4)), ((3, 4), (3, 4)),
                                  ((3, 4), ()))],
    doc="Sum over the axes along which a tensor of `shape` would be broadcast to the input's: what broadcasting's "
        "gradient is"))

# -- squared length ---------------------------------------------------------------------------------------------------


def _l2_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    total = d.op("Sum", d.op("Square", x), axis=tuple(range(d.in_types[0].rank)), keepdims=False)
    return [d.op("Mul", total, d.constant(0.5, d.in_types[0].dtype))]


def _l2_infer(ctx: Inference) -> Sequence[PartialType]:
    check_dtype(ctx, ctx.inputs[0], FLOATS)
    return [PartialType(ctx.inputs[0].dtype, ())]


register(Op(
    name="L2Loss", kind=Kind.REDUCTION, inputs=("t",), infer=_l2_infer,
    gradient=lambda op, dy: [b.mul(op.inputs[0], dy)], reference=lambda call: np.sum(np.square(call.arrays[0])) / 2,
    lower=NotLowered("decomposed into Square, Sum and Mul"), decompose=_l2_decompose,
    samples=lambda: [Sample((typed(d, *s),), ulp=16.0) for d in FLOATS for s in ((), (5, 7), (0,))],
    doc="Half the sum of squares of all elements. tf.nn.l2_loss"))
