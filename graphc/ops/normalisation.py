"""Normalisation that is an op in TensorFlow: fused batch normalisation, and local response normalisation.

Owns both.  Must not know layers or fusion.  Invariants: the statistics of a batch are those of blocks (two passes over
a block that the cache holds), combined exactly as Chan, Golub and LeVeque (1983) do, so that a large mean costs no
digits and memory is read once; every gradient is written with ops, so it differentiates again.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32, float64, int32
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape
from graphc.kernel.ir import Expr, const
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
    register,
    widen,
)
from graphc.ops.rules import FLOATS, check_dtype, check_same_dtype, require_rank, show, typed
from graphc.ops.windows import Window, every_tap, tap_slices, taps_of, windows_of

BLOCK_BYTES = 1 << 18
"""Bytes of a block whose statistics are taken in two passes: those that a second-level cache holds."""
LEAST_BLOCK = 8
"""Elements for each channel from which a block is worth its own statistics."""
_UNKNOWN = 64

# -- fused batch normalisation ----------------------------------------------------------------------------------------

_STATISTICS = ("the scale", "the offset", "the mean", "the variance")


def _channel(attrs: Mapping[str, Any], rank: int) -> int:
    return 1 if attrs["data_format"].startswith("NC") else rank - 1


def _batch_norm_infer(outputs: int) -> Any:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        x = ctx.inputs[0]
        check_dtype(ctx, x, FLOATS)
        dtype = check_same_dtype(ctx, ctx.inputs[1:], FLOATS)
        wanted = float32 if x.dtype in (float16, bfloat16) else x.dtype
        if dtype is not wanted:
            raise ctx.fail_dtype(f"scale, offset, mean and variance must be {wanted.name} for an input of "
                                 f"{x.dtype.name}, not {dtype.name}")
        require_rank(ctx, x.shape, 4, "the input", 5)
        channels: Size | None = None if x.shape is None else x.shape[_channel(ctx.attrs, len(x.shape))]
        given = ctx.inputs[1:] if not ctx.attrs["is_training"] else ctx.inputs[1:3]
        for t, what in zip(given, _STATISTICS, strict=False):
            require_rank(ctx, t.shape, 1, what, 1)
            if t.shape is not None:
                channels = t.shape[0] if channels is None else ctx.equal(
                    channels, t.shape[0], f"{what} of shape {show(t.shape)} does not fit an input of {show(x.shape)}")
        vector = PartialType(dtype, (ctx.unknown() if channels is None else channels,))
        reserved = [PartialType(dtype, ())] if outputs == 6 else []
        return [PartialType(x.dtype, x.shape), *[vector] * 4, *reserved]
    return infer


def _others(attrs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    return tuple(a for a in range(rank) if a != _channel(attrs, rank))


def _batch_norm_reference(outputs: int) -> Any:
    def reference(call: Call) -> Any:
        x, scale, offset, *given = call.arrays
        channel = _channel(call.attrs, x.ndim)
        axes = _others(call.attrs, x.ndim)

        def along(v: np.ndarray) -> np.ndarray:
            return v.reshape([-1 if a == channel else 1 for a in range(x.ndim)])

        if call.attrs["is_training"]:
            count = x.size // max(1, x.shape[channel])
            mean = x.mean(axes)
            biased = np.square(x - along(mean)).mean(axes)
            statistics = [mean, biased * (count / max(count - 1, 1)), mean, biased]
        else:
            mean, biased = given
            statistics = [mean, biased, mean, biased]
        y = (x - along(mean)) * along(scale / np.sqrt(biased + call.attrs["epsilon"])) + along(offset)
        return (y, *statistics, *([np.zeros(())] if outputs == 6 else []))
    return reference


def _blocks(shape: Shape, axes: Sequence[int], channel: int, dtype: DType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes to combine that number the blocks, and those inside of a block; () and all where there is one block."""
    inside: list[int] = []
    size = (_guess(shape[channel]) if channel > axes[-1] else 1) * dtype.size
    held = 1
    for axis in reversed(axes[1:]):
        n = _guess(shape[axis])
        if inside and size * held * n > BLOCK_BYTES:
            break
        inside.insert(0, axis)
        held *= n
    if held < LEAST_BLOCK:
        return (), tuple(axes)
    return tuple(a for a in axes if a not in inside), tuple(inside)


def _guess(n: Size) -> int:
    return n if isinstance(n, int) else _UNKNOWN


def _moments(d: Decomposition, x: Any, axes: tuple[int, ...], channel: int) -> tuple[Any, Any]:
    """Mean and variance, the axes kept with size 1: all blocks have one size, so both are means over the blocks."""
    t = d.type_of(x)
    lead, inside = _blocks(t.shape, axes, channel, t.dtype)
    mean = d.op("Mean", x, axis=inside, keepdims=True)
    spread = d.op("Mean", d.op("Square", d.op("Sub", x, mean)), axis=inside, keepdims=True)
    if not lead:
        return mean, spread
    whole = d.op("Mean", mean, axis=lead, keepdims=True)
    apart = d.op("Square", d.op("Sub", mean, whole))
    return whole, d.op("Mean", d.op("Add", spread, apart), axis=lead, keepdims=True)


def _bessel(d: Decomposition, x: Any, scale: Any, axes: Sequence[int]) -> Any:
    """n / max(n - 1, 1) for the n elements of a channel, as a scalar."""
    t, dtype = d.type_of(x), d.type_of(scale).dtype
    known = dim.product(t.shape[a] for a in axes)
    if isinstance(known, int):
        return d.constant(known / max(known - 1, 1), dtype)
    one = d.constant(1, int32)
    count = d.op("FloorDiv", d.op("Size", x), d.op("Maximum", d.op("Size", scale), one))
    rest = d.op("Maximum", d.op("Sub", count, one), one)
    return d.op("RealDiv", d.op("Cast", count, dtype=dtype), d.op("Cast", rest, dtype=dtype))


def _batch_norm_decompose(outputs: int) -> Any:
    def decompose(d: Decomposition) -> Sequence[Any]:
        x, scale, offset, *given = d.inputs
        t, wide = d.in_types[0], d.in_types[1].dtype
        channel, axes = _channel(d.attrs, t.rank), _others(d.attrs, t.rank)
        kept = tuple(n if a == channel else 1 for a, n in enumerate(t.shape))
        value = x if t.dtype is wide else d.op("Cast", x, dtype=wide)

        def along(v: Any) -> Any:
            return d.op("Reshape", v, shape=kept)

        if d.attrs["is_training"]:
            mean, variance = _moments(d, value, axes, channel)
            flat, biased = (d.op("Reshape", v, shape=(t.shape[channel],)) for v in (mean, variance))
            statistics = [flat, d.op("Mul", biased, _bessel(d, value, scale, axes)), flat, biased]
        else:
            mean, variance = map(along, given)
            statistics = [*given, *given]
        factor = d.op("Mul", d.op("Rsqrt", d.op("Add", variance, d.constant(d.attrs["epsilon"], wide))), along(scale))
        y = d.op("Add", d.op("Mul", d.op("Sub", value, mean), factor), along(offset))
        y = y if t.dtype is wide else d.op("Cast", y, dtype=t.dtype)
        return [y, *statistics, *([d.constant(0, wide)] if outputs == 6 else [])]
    return decompose


def _batch_norm_gradient(op: Any, gy: Any, g_mean: Any, g_variance: Any, g_first: Any, g_second: Any,
                         *_: Any) -> Sequence[Any]:
    """By the mean and the biased variance that the op keeps as reserves; dx = a gy + b (x - mean) + c by channel."""
    x, scale = op.inputs[:2]
    wide = scale.dtype
    shape = x.type.shape
    if shape is None:
        raise TypeError("the gradient of batch normalisation needs a rank that is known while the graph is built")
    axes, channel = _others(op.attrs, len(shape)), _channel(op.attrs, len(shape))

    def along(v: Any) -> Any:
        trailing = len(shape) - 1 - channel
        return b.op("ExpandDims", v, tuple(range(1, 1 + trailing))) if trailing else v

    def plus(*parts: Any) -> Any:
        there = [p for p in parts if p is not None]
        return None if not there else there[0] if len(there) == 1 else b.op("AddN", *there)

    training = op.attrs["is_training"]
    mean, variance = (op.outputs[3], op.outputs[4]) if training else op.inputs[3:5]
    inverse = b.op("Rsqrt", b.add(variance, op.attrs["epsilon"]))
    centred = b.sub(b.op("Cast", x, dtype=wide), along(mean))
    factor = b.mul(scale, inverse)
    flow = None if gy is None else b.op("Cast", gy, dtype=wide)
    total = None if flow is None else b.op("Sum", flow, axes)
    moment = None if flow is None else b.op("Sum", b.mul(flow, centred), axes)
    d_scale = b.zeros_like(scale) if moment is None else b.mul(moment, inverse)
    d_offset = b.zeros_like(scale) if total is None else total
    slope = None if moment is None else b.op("Neg", b.mul(b.mul(factor, b.op("Square", inverse)), moment))
    if not training:
        d_mean = plus(None if total is None else b.op("Neg", b.mul(factor, total)), g_mean, g_first)
        d_variance = plus(None if slope is None else b.mul(slope, 0.5), g_variance, g_second)
        dx = b.zeros_like(x) if flow is None else b.op("Cast", b.mul(flow, along(factor)), dtype=x.dtype)
        return [dx, d_scale, d_offset, d_mean, d_variance]
    count = _graph_count(x, scale, [shape[a] for a in axes])
    if g_variance is not None:
        g_variance = b.div(b.mul(g_variance, count), b.op("Maximum", b.sub(count, 1), 1))
    spread = plus(g_variance, g_second)
    by_centred = plus(slope, None if spread is None else b.mul(spread, 2))
    constant = plus(None if total is None else b.op("Neg", b.mul(factor, total)), g_mean, g_first)
    parts = plus(None if flow is None else b.mul(flow, along(factor)),
                 None if by_centred is None else b.mul(centred, along(b.div(by_centred, count))),
                 None if constant is None else b.broadcast_like(along(b.div(constant, count)), x))
    dx = b.zeros_like(x) if parts is None else b.op("Cast", parts, dtype=x.dtype)
    unused = [None, None]
    return [dx, d_scale, d_offset, *unused]


def _graph_count(x: Any, scale: Any, sizes: Sequence[Size]) -> Any:
    """The number of elements of a channel, as a scalar."""
    total = dim.product(sizes)
    if isinstance(total, int):
        return b.constant(total, scale.dtype)
    channels = b.op("Maximum", b.op("Size", scale), 1)
    return b.op("Cast", b.op("FloorDiv", b.op("Size", x), channels), dtype=scale.dtype)


def _batch_norm_samples() -> list[Sample]:
    out = []
    for d, wide in ((float32, float32), (float64, float64), (float16, float32), (bfloat16, float32)):
        for shape, data_format, training in (
                ((2, 3, 5, 4), "NHWC", True), ((3, 4, 2, 3), "NCHW", True), ((1, 1, 1, 3), "NHWC", True),
                ((2, 9, 3, 17), "NHWC", False), ((1, 2, 3, 2), "NCHW", False)):
            c = shape[1 if data_format == "NCHW" else 3]
            low = {} if training else {4: np.linspace(0.2, 2.0, c)}
            out.append(Sample((typed(d, *shape), *[typed(wide, c)] * 4), {
                "data_format": data_format, "is_training": training, "epsilon": 0.01}, low, special=False, ulp=256.0))
    return out


for _name, _outputs in (("FusedBatchNorm", 5), ("FusedBatchNormV2", 5), ("FusedBatchNormV3", 6)):
    register(Op(
        name=_name, kind=Kind.REDUCTION, inputs=("x", "scale", "offset", "mean", "variance"), outputs=_outputs,
        attrs={"epsilon": 1e-4, "data_format": "NHWC", "is_training": True}, infer=_batch_norm_infer(_outputs),
        gradient=_batch_norm_gradient, reference=_batch_norm_reference(_outputs),
        lower=NotLowered("decomposed into sums and elementwise ops"), decompose=_batch_norm_decompose(_outputs),
        samples=_batch_norm_samples if _outputs == 6 else lambda: _batch_norm_samples()[:1],
        doc="(x - mean) / sqrt(variance + epsilon) * scale + offset by channel; in training with the batch's own mean "
            "and variance.  Outputs: y, mean, variance (in training times n / (n - 1)), then what the gradient needs: "
            "mean and variance (in training n's). tf.nn.fused_batch_norm"))

# -- local response normalisation -------------------------------------------------------------------------------------


def _across(shape: Shape, radius: int) -> tuple[Window, ...]:
    """The channels at most `radius` away, of each element."""
    unit = (1,) * (len(shape) - 1)
    return windows_of(shape, (*unit, 2 * radius + 1), (*unit, 1), "SAME")


def _neighbours_point(p: Point) -> Expr:
    dtype = p.in_types[0].dtype
    total: Expr | None = None
    for at, inside in taps_of(_across(p.in_types[0].shape, p.attrs["radius"]), p.index):
        x = widen(p.load(0, at) if inside is None else p.load(0, at, inside, const(0, dtype)))
        total = x if total is None else prim("add", total, x)
    assert total is not None
    return total


def _neighbour_sum(x: np.ndarray, radius: int) -> np.ndarray:
    windows = _across(x.shape, radius)
    total = np.zeros_like(x)
    for tap in every_tap(windows):
        out, inner = tap_slices(windows, tap)
        total[out] += x[inner]
    return total


def _same(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    check_dtype(ctx, x, FLOATS)
    return [PartialType(x.dtype, x.shape)]


register(Op(
    name="NeighbourSum", kind=Kind.REDUCTION, inputs=("input",), attrs={"radius": 5}, infer=_same,
    gradient=lambda op, dy: [b.op("NeighbourSum", dy, radius=op.attrs["radius"])],
    reference=lambda call: _neighbour_sum(call.arrays[0], call.attrs["radius"]),
    lower=Pointwise(point=_neighbours_point),
    samples=lambda: [Sample((typed(d, *s),), {"radius": r}, ulp=256.0) for d in (float32, float64, float16)
                     for s, r in (((2, 3, 7), 1), ((1, 1, 2, 17), 5), ((3, 2), 4), ((2, 0), 1))],
    doc="The sum of the elements at most `radius` away along the last axis"))


def _lrn_infer(ctx: Inference) -> Sequence[PartialType]:
    require_rank(ctx, ctx.inputs[0].shape, 4, "the input", 4)
    return _same(ctx)


def _lrn_power(norm: Any, beta: float, op: Any) -> Any:
    """norm ** -beta, without a general power for the betas in use."""
    if beta == 1:
        return op("Reciprocal", norm)
    if beta == 0.5:
        return op("Rsqrt", norm)
    if beta == 0.75:
        root = op("Sqrt", norm)
        return op("Rsqrt", op("Mul", norm, root))
    return op("Exp", op("Mul", op("Log", norm), -beta))


def _lrn_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    t = d.in_types[0]
    wide = float32 if t.dtype in (float16, bfloat16) else t.dtype
    value = x if t.dtype is wide else d.op("Cast", x, dtype=wide)

    def op(name: str, *inputs: Any) -> Any:
        return d.op(name, *(d.constant(v, wide) if isinstance(v, (int, float)) else v for v in inputs))

    total = d.op("NeighbourSum", op("Square", value), radius=d.attrs["depth_radius"])
    norm = op("Add", op("Mul", total, float(d.attrs["alpha"])), float(d.attrs["bias"]))
    y = op("Mul", value, _lrn_power(norm, float(d.attrs["beta"]), op))
    return [y if t.dtype is wide else d.op("Cast", y, dtype=t.dtype)]


def _lrn_norm(x: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(attrs["bias"] + attrs["alpha"] * _neighbour_sum(np.square(x), attrs["depth_radius"]))


def _lrn_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """dy norm^-beta - 2 alpha beta x NeighbourSum(dy x norm^(-beta - 1)): neighbours are so to each other."""
    x, attrs = op.inputs[0], op.attrs
    alpha, beta = float(attrs["alpha"]), float(attrs["beta"])
    wide = float32 if x.dtype in (float16, bfloat16) else x.dtype
    value, flow = b.op("Cast", x, dtype=wide), b.op("Cast", dy, dtype=wide)
    total = b.op("NeighbourSum", b.op("Square", value), radius=attrs["depth_radius"])
    norm = b.add(b.mul(total, alpha), float(attrs["bias"]))
    scaled = b.mul(flow, _lrn_power(norm, beta, b.op))
    shared = b.op("NeighbourSum", b.div(b.mul(scaled, value), norm), radius=attrs["depth_radius"])
    dx = b.sub(scaled, b.mul(b.mul(value, 2 * alpha * beta), shared))
    return [b.op("Cast", dx, dtype=x.dtype)]


_LRN_CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 2, 7), {"depth_radius": 2, "bias": 2.0, "alpha": 0.1, "beta": 0.75}),
    ((1, 2, 2, 17), {}), ((1, 1, 3, 4), {"depth_radius": 9, "beta": 1.0}),
    ((1, 2, 1, 5), {"depth_radius": 0, "bias": 1.5, "beta": 0.3}))

register(Op(
    name="LRN", kind=Kind.REDUCTION, inputs=("input",),
    attrs={"depth_radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5}, infer=_lrn_infer, gradient=_lrn_gradient,
    reference=lambda call: call.arrays[0] / _lrn_norm(call.arrays[0], call.attrs) ** call.attrs["beta"],
    lower=NotLowered("decomposed into NeighbourSum and elementwise ops"), decompose=_lrn_decompose,
    samples=lambda: [Sample((typed(d, *s),), a, special=False, ulp=64.0) for d in (float32, float64, float16)
                     for s, a in _LRN_CASES],
    doc="x / (bias + alpha * sum of squares of the channels at most depth_radius away) ** beta; Krizhevsky et al. "
        "(2012). tf.nn.local_response_normalization"))
