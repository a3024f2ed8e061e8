"""Pooling by means, and what every pooling shares: windows of an op, and how a wide window is taken apart.

Owns AvgPool and its gradient in any number of dimensions; max_pooling.py has the maxima.  Must not know fusion.
Invariants: means count the elements that are there; a gradient is gathered, so no two iterations add to one element.  A
wide window is one window along the inner axis and then one along the outer; one that is the whole plane is a reduction.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, float16, float32, float64
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Decomposition,
    Inference,
    Kind,
    Op,
    Point,
    Pointwise,
    Sample,
    attr_or_value,
    data_inputs,
    register,
    widen,
)
from graphc.ops.rules import (
    FLOATS,
    Group,
    check_dtype,
    concrete,
    ints,
    require_rank,
    same_shapes,
    show,
    typed,
    unknown_sizes,
)
from graphc.ops.windows import (
    Window,
    check_windows,
    counts,
    covering,
    every_tap,
    tap_slices,
    taps_of,
    times,
    windows_of,
)

MOST_TAPS = 32
"""Taps that are written out; of a window with more, one axis is done after the other."""
MOST_WINDOWS = 16
"""The same for the windows that an element lies in."""

ATTRS: dict[str, Any] = {"ksize": REQUIRED, "strides": REQUIRED, "padding": REQUIRED, "data_format": "NHWC"}

# -- windows of an op -------------------------------------------------------------------------------------------------


def windows_in(attrs: Mapping[str, Any], shape: Shape) -> tuple[Window, ...]:
    """Return the windows of an op over a tensor of `shape`."""
    return windows_of(shape, attrs["ksize"], attrs["strides"], attrs["padding"])


def given(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attrs that every op of one pooling shares."""
    return {name: attrs[name] for name in ATTRS}


def canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    """Return attrs with their sizes as tuples of ints."""
    return {**attrs, "ksize": tuple(map(int, attrs["ksize"])), "strides": tuple(map(int, attrs["strides"]))}


def pooled_sizes(ctx: Inference, shape: Shape | None, rank: int | None) -> Shape | None:
    """Return the shape of the windows over a tensor of `shape`.  Raises ShapeError."""
    if rank is not None:
        require_rank(ctx, shape, rank, "the input", rank)
    if shape is None:
        return unknown_sizes(ctx, rank)
    if ctx.attrs["ksize"][0] != 1 or ctx.attrs["strides"][0] != 1:
        raise ctx.fail(f"the window {tuple(ctx.attrs['ksize'])} must not reach over examples: its first size is 1")
    windows = check_windows(ctx, shape, ctx.attrs["ksize"], ctx.attrs["strides"], ctx.attrs["padding"])
    return tuple(w.count for w in windows)


def wide(attrs: Mapping[str, Any], windows: Sequence[Window], backward: bool) -> tuple[dict[str, Any], ...] | None:
    """Return the attrs of the two poolings, inner axis first, that one with a wide window is; None where it is one."""
    axes = [i for i, w in enumerate(windows) if not w.is_trivial]
    taps, met = 1, 1
    for w in windows:
        taps, met = taps * w.taps, met * w.overlap
    if len(axes) < 2 or (taps <= MOST_TAPS and (met <= MOST_WINDOWS or not backward)):
        return None

    def along(kept: Sequence[int]) -> dict[str, Any]:
        return {**given(attrs), **{name: tuple(n if i in kept else 1 for i, n in enumerate(attrs[name]))
                                    for name in ("ksize", "strides")}}
    return along(axes[-1:]), along(axes[:-1])


def whole(windows: Sequence[Window]) -> tuple[int, ...] | None:
    """Return the axes that one window covers, where the others have windows of one element; else None."""
    axes = tuple(i for i, w in enumerate(windows) if not w.is_trivial)
    return axes if axes and all(windows[i].is_whole for i in axes) else None


def infer_pool(allowed: Group, rank: int) -> Callable[[Inference], Sequence[PartialType]]:
    """Return the inference of a pooling."""
    def infer(ctx: Inference) -> Sequence[PartialType]:
        (x,) = ctx.inputs
        check_dtype(ctx, x, allowed)
        return [PartialType(x.dtype, pooled_sizes(ctx, x.shape, rank))]
    return infer


def elements(p: Point, windows: Sequence[Window], other: Any) -> Iterator[tuple[list[Expr], Expr | None, Expr]]:
    """Yield the taps of the window at p.index: index, condition, element (`other` where that does not hold)."""
    dtype = p.in_types[0].dtype
    for at, inside in taps_of(windows, p.index):
        value = p.load(0, at) if inside is None else p.load(0, at, inside, const(other, dtype))
        yield at, inside, widen(value)


Case = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str]
PLANE: tuple[Case, ...] = (
    ((2, 4, 6, 3), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), ((1, 5, 5, 3), (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
    ((1, 3, 3, 17), (1, 2, 2, 1), (1, 1, 1, 1), "SAME"), ((2, 2, 5, 4), (1, 1, 2, 3), (1, 1, 3, 2), "VALID"),
    ((2, 2, 5, 5), (1, 2, 3, 3), (1, 2, 3, 3), "SAME"), ((2, 3, 4, 5), (1, 3, 4, 1), (1, 1, 1, 1), "VALID"),
    ((1, 7, 8, 2), (1, 6, 6, 1), (1, 1, 2, 1), "SAME"), ((0, 4, 4, 1), (1, 2, 2, 1), (1, 2, 2, 1), "SAME"))
SPACE: tuple[Case, ...] = (
    ((1, 4, 3, 5, 2), (1, 2, 2, 2, 1), (1, 2, 1, 2, 1), "SAME"),
    ((1, 2, 3, 3, 3), (1, 2, 3, 3, 1), (1, 1, 1, 1, 1), "VALID"),
    ((1, 3, 4, 4, 2), (1, 3, 4, 3, 1), (1, 2, 1, 1, 1), "SAME"))


def case_attrs(case: Case) -> dict[str, Any]:
    """Return the attrs of a test case."""
    return {"ksize": case[1], "strides": case[2], "padding": case[3]}


def pooled_shape(case: Case) -> tuple[int, ...]:
    """Return the shape of the windows of a test case."""
    return tuple(int(w.count) for w in windows_of(case[0], *case[1:]))


def pool_samples(allowed: Group, cases: Sequence[Case], ulp: float = 4.0) -> Callable[[], list[Sample]]:
    """Return the `samples` part of a pooling."""
    return lambda: [Sample((typed(d, *c[0]),), case_attrs(c), ulp=ulp, differentiable=d.is_floating)
                    for d in allowed for c in cases]


# -- mean -------------------------------------------------------------------------------------------------------------


def _number(windows: Sequence[Window], at: Sequence[Expr], dtype: DType) -> Expr:
    """How many elements the window `at` has, at least 1, as a float."""
    fixed = 1
    total: Expr | None = None
    for w, e in zip(windows, at, strict=True):
        if w.is_even:
            fixed *= w.taps
        else:
            own = prim("max", w.real(e), index(1))
            total = own if total is None else prim("mul", total, own)
    return const(fixed, dtype) if total is None else cast(times(total, fixed), dtype)


def _mean_point(p: Point) -> Expr:
    windows = windows_in(p.attrs, p.in_types[0].shape)
    total: Expr | None = None
    for _, _, x in elements(p, windows, 0):
        total = x if total is None else prim("add", total, x)
    assert total is not None
    return prim("div", total, _number(windows, p.index, total.dtype))


def _mean_decompose(name: str) -> Callable[[Decomposition], Sequence[Any] | None]:
    def decompose(d: Decomposition) -> Sequence[Any] | None:
        windows = windows_in(d.attrs, d.in_types[0].shape)
        (x,) = d.inputs
        axes = whole(windows)
        if axes is not None:
            return [d.op("Mean", x, axis=axes, keepdims=True)]
        parts = wide(d.attrs, windows, False)
        return None if parts is None else [d.op(name, d.op(name, x, **parts[0]), **parts[1])]
    return decompose


def _mean_reference(call: Call) -> Any:
    windows = windows_in(call.attrs, call.in_types[0].shape)
    total = np.zeros(concrete(call), call.arrays[0].dtype)
    for tap in every_tap(windows):
        out, inner = tap_slices(windows, tap)
        total[out] += call.arrays[0][inner]
    return total / counts(windows)


def _mean_grad_infer(rank: int) -> Callable[[Inference], Sequence[PartialType]]:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        (dy,) = data_inputs(ctx, {0: "shape"})
        check_dtype(ctx, dy, FLOATS)
        shape = attr_or_value(ctx, 0, "shape")
        if shape is None:
            return [PartialType(dy.dtype, unknown_sizes(ctx, rank))]
        same_shapes(ctx, (pooled_sizes(ctx, ints(shape), rank), dy.shape),
                    f"the gradient does not fit the windows over {show(ints(shape))}")
        return [PartialType(dy.dtype, ints(shape))]
    return infer


def _mean_grad_point(p: Point) -> Expr:
    windows = windows_in(p.attrs, p.out_types[0].shape)
    even = all(w.is_even for w in windows)
    total: Expr | None = None
    for at, _, inside in covering(windows, p.index):
        dy = widen(p.load(0, at) if inside is None else p.load(0, at, inside, const(0, p.in_types[0].dtype)))
        part = dy if even else prim("mul", dy, prim("div", const(1, dy.dtype), _number(windows, at, dy.dtype)))
        total = part if total is None else prim("add", total, part)
    assert total is not None
    return prim("div", total, _number(windows, p.index, total.dtype)) if even else total


def _mean_grad_decompose(name: str) -> Callable[[Decomposition], Sequence[Any] | None]:
    def decompose(d: Decomposition) -> Sequence[Any] | None:
        shape, (dy,) = d.out_types[0].shape, d.inputs
        windows = windows_in(d.attrs, shape)
        axes = whole(windows)
        if axes is not None:
            number = d.constant(np.prod([windows[a].taps for a in axes]), d.in_types[0].dtype)
            return [d.op("BroadcastTo", d.op("RealDiv", dy, number), shape=shape)]
        parts = wide(d.attrs, windows, True)
        if parts is None:
            return None
        inner = tuple(n if k == 1 and s == 1 else w.count for n, k, s, w in zip(
            shape, parts[0]["ksize"], parts[0]["strides"], windows, strict=True))
        return [d.op(name, d.op(name, dy, shape=inner, **parts[1]), shape=shape, **parts[0])]
    return decompose


def _mean_grad_reference(call: Call) -> Any:
    windows = windows_in(call.attrs, concrete(call))
    dx = np.zeros(concrete(call), call.arrays[0].dtype)
    share = call.arrays[0] / counts(windows)
    for tap in every_tap(windows):
        out, inner = tap_slices(windows, tap)
        dx[inner] += share[out]
    return dx


def _register_mean(suffix: str, rank: int, cases: Sequence[Case], public: str) -> None:
    name, gradient = f"AvgPool{suffix}", f"AvgPool{suffix}Grad"
    attrs = {**ATTRS, "data_format": "NHWC" if rank == 4 else "NDHWC"}
    register(Op(
        name=name, kind=Kind.REDUCTION, inputs=("value",), attrs=attrs, infer=infer_pool(FLOATS, rank),
        gradient=lambda op, dy: [b.op(gradient, b.shape_of(op.inputs[0]), dy, **given(op.attrs))],
        reference=_mean_reference, lower=Pointwise(point=_mean_point), decompose=_mean_decompose(name),
        canonical=canonical, samples=pool_samples(FLOATS, cases, 256.0),
        doc=f"The mean of the elements of each window; padding does not count. {public}"))
    register(Op(
        name=gradient, kind=Kind.REDUCTION, inputs=("orig_input_shape", "grad"), static={0: "shape"},
        attrs={"shape": None, **attrs}, infer=_mean_grad_infer(rank),
        gradient=lambda op, dd: [b.op(name, dd, **given(op.attrs))], reference=_mean_grad_reference,
        lower=Pointwise(point=_mean_grad_point), decompose=_mean_grad_decompose(gradient), canonical=canonical,
        samples=lambda: [Sample((typed(d, *pooled_shape(c)),), {"shape": c[0], **case_attrs(c)}, ulp=256.0)
                         for d, some in ((float32, cases), (float64, cases[:2]), (float16, cases[:2])) for c in some],
        doc=f"The gradient of {name}: each element's share of its windows. TF op {gradient}"))


_register_mean("", 4, PLANE, "tf.nn.avg_pool")
_register_mean("3D", 5, SPACE, "tf.nn.avg_pool3d")
