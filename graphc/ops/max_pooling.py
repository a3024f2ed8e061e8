"""Pooling by maxima: the largest element of every window, where it stands, and what flows back.

Owns MaxPool, its gradients and MaxPoolWithArgmax in any number of dimensions.  Must not know fusion.  Invariants: a NaN
is never the largest of a window that has a number (as in TensorFlow's kernels), the first of equal elements is; a
gradient goes by way of the tap that won (MaxPoolPosition, a byte for each window, which the forward kernel computes
beside the maximum) and is gathered, so no two iterations add to one element.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32, float64, int32, int64, uint8
from graphc.ir import dim
from graphc.ir.types import PartialType, Shape
from graphc.kernel.ir import Expr, const
from graphc.kernel.ir import size as size_of
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
    Point,
    Pointwise,
    Sample,
    attr_or_value,
    data_inputs,
    register,
    widen,
)
from graphc.ops.pooling import (
    ATTRS,
    PLANE,
    SPACE,
    Case,
    canonical,
    case_attrs,
    elements,
    given,
    infer_pool,
    pool_samples,
    pooled_shape,
    pooled_sizes,
    whole,
    wide,
    windows_in,
)
from graphc.ops.rules import (
    FLOATS,
    NUMBERS,
    Group,
    check_dtype,
    check_same_dtype,
    concrete,
    ints,
    same_shapes,
    typed,
    unknown_sizes,
)
from graphc.ops.windows import (
    Window,
    covering,
    every_tap,
    tap_slices,
    taps_of,
    times,
)

# -- the largest tap --------------------------------------------------------------------------------------------------


def _max_point(p: Point) -> Expr:
    lowest = _lowest(p.in_types[0].dtype)
    best: Expr | None = None
    for _, _, x in elements(p, windows_in(p.attrs, p.in_types[0].shape), lowest):
        best = const(lowest, x.dtype) if best is None else best
        best = prim("select", prim("lt", best, x), x, best)
    assert best is not None
    return best


def _largest(p: Point, windows: Sequence[Window], carried: Callable[[int, Sequence[Expr]], Expr]) -> Expr:
    """What `carried(tap, index)` says of the first largest tap of the window at p.index; at the first element of a
    window without numbers."""
    lowest = _lowest(p.in_types[0].dtype)
    best = chosen = found = None
    for number, (at, inside, x) in enumerate(elements(p, windows, lowest)):
        mine = carried(number, at)
        if best is None or chosen is None:
            start = const(lowest, x.dtype)  # which a NaN does not exceed
            best, chosen, found = prim("select", prim("lt", start, x), x, start), mine, inside
            continue
        wins = larger = prim("lt", best, x)
        if found is not None:  # whether a tap before this one is an element
            none = prim("not", found)
            wins = prim("or", wins, none if inside is None else prim("and", inside, none))
            found = None if inside is None else prim("or", found, inside)
        best, chosen = prim("select", larger, x, best), prim("select", wins, mine, chosen)
    assert chosen is not None
    return chosen


def _position_point(p: Point) -> Expr:
    return _largest(p, windows_in(p.attrs, p.in_types[0].shape), lambda tap, _: const(tap, int32))


def _argmax_point(p: Point) -> Expr:
    """Row-major number of the element within its example, or among all."""
    shape = p.in_types[0].shape

    def flat(_: int, at: Sequence[Expr]) -> Expr:
        start = 0 if p.attrs["include_batch_in_index"] else 1
        total = at[start]
        for e, n in zip(at[start + 1:], shape[start + 1:], strict=True):
            scaled = times(total, n) if isinstance(n, int) else prim("mul", total, size_of(n))
            total = prim("add", scaled, e)
        return total
    return _largest(p, windows_in(p.attrs, shape), flat)


def _first_largest(x: np.ndarray, windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray]:
    """The largest element of each window, and its tap: the first element of a window without numbers."""
    shape = [int(w.count) for w in windows]
    best = np.full(shape, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    tap = np.full(shape, -1, np.int64)
    for number, taps in enumerate(every_tap(windows)):
        out, inner = tap_slices(windows, taps)
        wins = (x[inner] > best[out]) | (tap[out] < 0)
        number_wins = wins & ~np.isnan(x[inner]) if x.dtype.kind == "f" else wins
        best[out] = np.where(number_wins, x[inner], best[out])
        tap[out] = np.where(wins, number, tap[out])
    return best, np.maximum(tap, 0)


def _spread(position: np.ndarray, dy: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    dx = np.zeros([int(w.size) for w in windows], dy.dtype)
    for number, taps in enumerate(every_tap(windows)):
        out, inner = tap_slices(windows, taps)
        dx[inner] += np.where(position[out] == number, dy[out], 0)
    return dx


def _pick(position: np.ndarray, x: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    y = np.zeros([int(w.count) for w in windows], x.dtype)
    for number, taps in enumerate(every_tap(windows)):
        out, inner = tap_slices(windows, taps)
        y[out] = np.where(position[out] == number, x[inner], y[out])
    return y


def _numbers_only(d: Decomposition, x: Any) -> Any:
    """x with the lowest number instead of NaN."""
    dtype = d.type_of(x).dtype
    return d.op("SelectV2", d.op("IsNan", x), d.constant(-np.inf, dtype), x) if dtype.is_floating else x


def _lowest(dtype: DType) -> Any:
    return -np.inf if dtype.is_floating else dtype.min


# -- maximum ----------------------------------------------------------------------------------------------------------


def _max_decompose(name: str) -> Callable[[Decomposition], Sequence[Any] | None]:
    def decompose(d: Decomposition) -> Sequence[Any] | None:
        windows = windows_in(d.attrs, d.in_types[0].shape)
        (x,) = d.inputs
        axes = whole(windows)
        if axes is not None:
            return [d.op("Max", _numbers_only(d, x), axis=axes, keepdims=True)]
        parts = wide(d.attrs, windows, False)
        if parts is None:
            return None
        return [d.op(name, d.op(name, x, **parts[0]), **parts[1])]
    return decompose


def _max_reference(call: Call) -> Any:
    return _first_largest(call.arrays[0], windows_in(call.attrs, call.in_types[0].shape))[0]


def _max_gradient(name: str) -> Callable[..., Sequence[Any]]:
    return lambda op, dy, *_: [b.op(name, op.inputs[0], op.outputs[0], dy, **given(op.attrs))]


def _infer_backward(allowed: Group, rank: int, forward: bool) -> Callable[[Inference], Sequence[PartialType]]:
    """Of (input, output, gradient): the gradient flows back to the input's shape; or forward, to the output's."""
    def infer(ctx: Inference) -> Sequence[PartialType]:
        x, y, g = ctx.inputs
        dtype = check_same_dtype(ctx, ctx.inputs, allowed)
        pooled = pooled_sizes(ctx, x.shape, rank)
        message = "the gradient does not have the shape of the tensor that it belongs to"
        if forward:
            same_shapes(ctx, (x.shape, g.shape), message)
            return [PartialType(dtype, pooled if x.shape is not None else y.shape)]
        same_shapes(ctx, (pooled if x.shape is not None else y.shape, g.shape), message)
        return [PartialType(dtype, x.shape)]
    return infer


def _backward_decompose(max_pool: str, own: str, forward: bool) -> Callable[[Decomposition], Sequence[Any] | None]:
    """By way of the tap that won: MaxPoolSpread of the gradient, or MaxPoolPick from it."""
    def decompose(d: Decomposition) -> Sequence[Any] | None:
        x, y, g = d.inputs
        shape = d.in_types[0].shape
        windows = windows_in(d.attrs, shape)
        parts = wide(d.attrs, windows, True) if whole(windows) is None else None
        if parts is not None:
            inner = d.op(max_pool, x, **parts[0])
            if forward:
                return [d.op(own, inner, y, d.op(own, x, inner, g, **parts[0]), **parts[1])]
            return [d.op(own, x, inner, d.op(own, inner, y, g, **parts[1]), **parts[0])]
        position = d.op("MaxPoolPosition", x, **given(d.attrs))
        if forward:
            return [d.op("MaxPoolPick", position, g, **given(d.attrs))]
        return [d.op("MaxPoolSpread", position, g, shape=shape, **given(d.attrs))]
    return decompose


def _backward_reference(flow: Callable[..., np.ndarray]) -> Callable[[Call], Any]:
    def reference(call: Call) -> Any:
        windows = windows_in(call.attrs, call.in_types[0].shape)
        return flow(_first_largest(call.arrays[0], windows)[1], call.arrays[2], windows)
    return reference


def _backward_gradient(other: str) -> Callable[..., Sequence[Any]]:
    return lambda op, d: [b.zeros_like(op.inputs[0]), b.zeros_like(op.inputs[1]),
                          b.op(other, op.inputs[0], op.inputs[1], d, **given(op.attrs))]


def _backward_samples(cases: Sequence[Case], forward: bool) -> Callable[[], list[Sample]]:
    def samples() -> list[Sample]:
        out = []
        for d, some in ((float32, cases), (float64, cases[:2]), (float16, cases[:1]), (bfloat16, cases[:1])):
            for case in some:
                x, y = typed(d, *case[0]), typed(d, *pooled_shape(case))
                out.append(Sample((x, y, x if forward else y), case_attrs(case), ulp=16.0))
        return out
    return samples


def _register_max(suffix: str, rank: int, cases: Sequence[Case], public: str) -> None:
    name, gradient, second = f"MaxPool{suffix}", f"MaxPool{suffix}Grad", f"MaxPool{suffix}GradGrad"
    attrs = {**ATTRS, "data_format": "NHWC" if rank == 4 else "NDHWC"}
    few = (float32, float64, float16, bfloat16, uint8, int32)
    register(Op(
        name=name, kind=Kind.REDUCTION, inputs=("input",), attrs=attrs, infer=infer_pool(NUMBERS, rank),
        gradient=_max_gradient(gradient), reference=_max_reference, lower=Pointwise(point=_max_point),
        decompose=_max_decompose(name), canonical=canonical, samples=pool_samples(few, cases),
        doc=f"The largest element of each window; a NaN only where there is no number. {public}"))
    for own, other, forward, flow, doc in (
            (gradient, second, False, _spread, "The gradient of {}: to the first largest element of each window."),
            (second, gradient, True, _pick, "The gradient of the gradient of {}: what stands at each window's first "
                                            "largest element.")):
        register(Op(
            name=own, kind=Kind.REDUCTION, inputs=("orig_input", "orig_output", "grad"), attrs=attrs,
            infer=_infer_backward(FLOATS, rank, forward), gradient=_backward_gradient(other),
            reference=_backward_reference(flow), lower=NotLowered("decomposed by way of MaxPoolPosition"),
            decompose=_backward_decompose(name, own, forward), canonical=canonical,
            samples=_backward_samples(cases, forward), doc=f"{doc.format(name)} TF op {own}"))


_register_max("", 4, PLANE, "tf.nn.max_pool")
_register_max("3D", 5, SPACE, "tf.nn.max_pool3d")

# -- the tap that won -------------------------------------------------------------------------------------------------


def _position_dtype(attrs: Mapping[str, Any]) -> DType:
    return uint8 if np.prod(attrs["ksize"], dtype=np.int64) <= 256 else int32


def _position_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    check_dtype(ctx, x, NUMBERS)
    return [PartialType(_position_dtype(ctx.attrs), pooled_sizes(ctx, x.shape, None))]


def _position_decompose(d: Decomposition) -> Sequence[Any] | None:
    """Of a window over a whole plane: the argmax along the plane as one axis."""
    (x,) = d.inputs
    t, out = d.in_types[0], d.out_types[0]
    axes = whole(windows_in(d.attrs, t.shape))
    if axes is None or axes != tuple(range(axes[0], axes[-1] + 1)):
        return None
    flat = d.op("Reshape", _numbers_only(d, x), shape=(
        *t.shape[:axes[0]], dim.product(t.shape[a] for a in axes), *t.shape[axes[-1] + 1:]))
    found = d.op("Cast", d.op("ArgMax", flat, axis=(axes[0],), output_type=int32), dtype=out.dtype)
    return [d.op("Reshape", found, shape=out.shape)]


register(Op(
    name="MaxPoolPosition", kind=Kind.REDUCTION, inputs=("input",), attrs=ATTRS, infer=_position_infer,
    gradient=NoGradient("a position does not change with the elements"),
    reference=lambda call: _first_largest(call.arrays[0], windows_in(call.attrs, call.in_types[0].shape))[1],
    lower=Pointwise(point=_position_point), decompose=_position_decompose, canonical=canonical,
    samples=lambda: [Sample((typed(d, *c[0]),), case_attrs(c), differentiable=False)
                     for d in (float32, float16, int32) for c in (*PLANE[:6], *SPACE[:1])],
    doc="The number of the first largest tap of each window, in row-major order; of a window without numbers, of the "
        "first element that is not padding"))


def _flow_infer(ctx: Inference, shape: Shape | None, want: Shape | None) -> None:
    """Check the positions: numbers of taps, one for each window."""
    position = ctx.inputs[0]
    check_dtype(ctx, position, (uint8, int32), "the positions")
    if shape is not None:
        pooled = pooled_sizes(ctx, shape, None)
        same_shapes(ctx, (pooled, position.shape, want), "the positions do not fit the windows")


def _spread_infer(ctx: Inference) -> Sequence[PartialType]:
    _, dy = data_inputs(ctx, {2: "shape"})
    shape = attr_or_value(ctx, 2, "shape")
    check_dtype(ctx, dy, FLOATS)
    if shape is None:
        return [PartialType(dy.dtype, unknown_sizes(ctx, None if dy.shape is None else len(dy.shape)))]
    _flow_infer(ctx, ints(shape), dy.shape)
    return [PartialType(dy.dtype, ints(shape))]


def _spread_point(p: Point) -> Expr:
    total: Expr | None = None
    for at, tap, inside in covering(windows_in(p.attrs, p.out_types[0].shape), p.index):
        position = p.load(0, at) if inside is None else p.load(0, at, inside, const(0, p.in_types[0].dtype))
        dy = widen(p.load(1, at) if inside is None else p.load(1, at, inside, const(0, p.in_types[1].dtype)))
        hit = prim("eq", cast(position, int32), cast(tap, int32))
        part = prim("select", hit, dy, const(0, dy.dtype))
        total = part if total is None else prim("add", total, part)
    assert total is not None
    return total


def _pick_infer(ctx: Inference) -> Sequence[PartialType]:
    position, x = ctx.inputs
    check_dtype(ctx, x, FLOATS)
    _flow_infer(ctx, x.shape, None)
    return [PartialType(x.dtype, position.shape)]


def _pick_point(p: Point) -> Expr:
    windows = windows_in(p.attrs, p.in_types[1].shape)
    position = cast(p.load(0, p.index), int32)
    total: Expr | None = None
    for tap, (at, inside) in enumerate(taps_of(windows, p.index)):
        x = widen(p.load(1, at) if inside is None else p.load(1, at, inside, const(0, p.in_types[1].dtype)))
        total = x if total is None else prim("select", prim("eq", position, const(tap, int32)), x, total)
    assert total is not None
    return total


def _positions(case: Case) -> np.ndarray:
    """Taps for a test, of windows without padding."""
    shape = pooled_shape(case)
    return (np.arange(np.prod(shape)) * 7 % np.prod(case[1])).reshape(shape).astype(np.uint8)


_FLOW_CASES = (PLANE[0], PLANE[3], ((1, 4, 3, 9), (1, 3, 2, 1), (1, 1, 1, 1), "VALID"))

register(Op(
    name="MaxPoolSpread", kind=Kind.INDEXING, inputs=("position", "grad", "shape"), static={2: "shape"},
    attrs={"shape": None, **ATTRS}, infer=_spread_infer, canonical=canonical,
    gradient=lambda op, dd: [None, b.op("MaxPoolPick", op.inputs[0], dd, **given(op.attrs))],
    reference=lambda call: _spread(call.arrays[0], call.arrays[1], windows_in(call.attrs, concrete(call))),
    lower=Pointwise(point=_spread_point),
    samples=lambda: [Sample((typed(uint8, *pooled_shape(c)), typed(d, *pooled_shape(c))),
                            {"shape": c[0], **case_attrs(c)}, {0: _positions(c)}, ulp=16.0)
                     for d in (float32, float16) for c in _FLOW_CASES],
    doc="Each element receives the gradient of the windows whose tap (MaxPoolPosition) it is: zeros of `shape` "
        "elsewhere"))
register(Op(
    name="MaxPoolPick", kind=Kind.INDEXING, inputs=("position", "input"), attrs=ATTRS, infer=_pick_infer,
    canonical=canonical,
    gradient=lambda op, dy: [None, b.op("MaxPoolSpread", op.inputs[0], dy, b.shape_of(op.inputs[1]),
                                        **given(op.attrs))],
    reference=lambda call: _pick(call.arrays[0], call.arrays[1], windows_in(call.attrs, call.in_types[1].shape)),
    lower=Pointwise(point=_pick_point),
    samples=lambda: [Sample((typed(uint8, *pooled_shape(c)), typed(d, *c[0])), case_attrs(c), {0: _positions(c)})
                     for d in (float32, float16) for c in _FLOW_CASES],
    doc="The element of each window at the tap that `position` names"))


def _index_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    check_dtype(ctx, x, NUMBERS)
    return [PartialType(ctx.attrs["Targmax"], pooled_sizes(ctx, x.shape, 4))]


def _index_reference(call: Call) -> Any:
    shape = call.in_types[0].shape
    windows = windows_in(call.attrs, shape)
    _, tap = _first_largest(call.arrays[0], windows)
    flat = np.arange(np.prod([int(n) for n in shape])).reshape([int(n) for n in shape])
    if not call.attrs["include_batch_in_index"]:
        flat = flat - flat.reshape(flat.shape[0], -1).min(1, initial=flat.size).reshape(-1, 1, 1, 1)
    return _pick(tap, flat, windows)


_ARGMAX: dict[str, Any] = {**ATTRS, "Targmax": int64, "include_batch_in_index": False}
_ARGMAX_CASES = ((PLANE[0], True), (PLANE[1], False), (PLANE[2], True))

register(Op(
    name="MaxPoolIndex", kind=Kind.REDUCTION, inputs=("input",), attrs=_ARGMAX, infer=_index_infer,
    gradient=NoGradient("an index does not change with the elements"), reference=_index_reference,
    lower=Pointwise(point=_argmax_point), canonical=canonical,
    samples=lambda: [Sample((typed(float32, *c[0]),), {**case_attrs(c), "include_batch_in_index": batch, "Targmax": t},
                            differentiable=False) for t in (int64, int32) for c, batch in _ARGMAX_CASES],
    doc="The row-major number of the first largest element of each window, within its example or among all"))
register(Op(
    name="MaxPoolWithArgmax", kind=Kind.REDUCTION, inputs=("input",), attrs=_ARGMAX, outputs=2,
    infer=lambda ctx: [PartialType(ctx.inputs[0].dtype, pooled_sizes(ctx, ctx.inputs[0].shape, 4)), *_index_infer(ctx)],
    gradient=_max_gradient("MaxPoolGrad"), reference=lambda call: (_max_reference(call), _index_reference(call)),
    lower=NotLowered("decomposed into MaxPool and MaxPoolIndex"), canonical=canonical,
    decompose=lambda d: [d.op("MaxPool", *d.inputs, **given(d.attrs)), d.op("MaxPoolIndex", *d.inputs, **d.attrs)],
    samples=lambda: [Sample((typed(float32, *c[0]),), {**case_attrs(c), "include_batch_in_index": batch})
                     for c, batch in _ARGMAX_CASES],
    doc="The largest element of each window, and its row-major number within its example (or among all). "
        "tf.nn.max_pool_with_argmax"))

