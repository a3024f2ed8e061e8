"""ONNX for ops that add or combine: reductions, scans, products, convolutions, pooling, normalisation.

Owns what each such op is in ONNX's operators.  Must not know other tables.  Invariants: paddings are explicit numbers
wherever sizes are known; images have their channels on axis 1 around an operator that wants that, and nowhere else.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import int64
from graphc.interop.onnx_builder import Applied, Ref, Refused, Row, known, last_axes
from graphc.ir.dim import Size, ceildiv, floordiv, maximum, product
from graphc.ir.types import Shape, TensorType
from graphc.ops.base import Call, lookup
from graphc.ops.convolution_window import axes_of, geometry, padding_pairs
from graphc.ops.pooling import windows_in
from graphc.ops.windows import Window

# -- reductions -------------------------------------------------------------------------------------------------------


def _reduced(a: Applied, operator: str, name: str) -> Ref:
    """The reduction over attr `axis`; over no axes the input itself; over no elements what op `name` gives then."""
    axes, keep = tuple(a.attrs["axis"]), bool(a.attrs["keepdims"])
    if not axes:
        return a.x
    if any(a.shape[i] == 0 for i in axes):
        wide = np.float64 if a.x.dtype.is_floating else a.x.dtype.as_numpy_dtype
        types = (TensorType(a.x.dtype, (0,)),), (TensorType(a.x.dtype, ()),)
        with np.errstate(all="ignore"):
            value = lookup(name).reference(Call([np.zeros((0,), wide)], {"axis": (0,), "keepdims": False}, *types))
        return a("Expand", a.number(value), a.to.sizes(a.out.shape))
    before = a.to.untransposed([a.x])
    if before is None:
        return a(operator, a.x, a.ints(axes), keepdims=int(keep))
    (x,), perm = before
    inner = a(operator, x, a.ints(sorted(perm[i] for i in axes)), keepdims=int(keep))
    if keep:
        return a.to.transposed(inner, perm)
    rest = [perm[i] for i in range(len(perm)) if i not in axes]
    return a.to.transposed(inner, [sorted(rest).index(i) for i in rest])


def _reduce(operator: str, name: str) -> Row:
    return lambda a: _reduced(a, operator, name)


def _mean(a: Applied) -> Ref:
    """Of integers the sum in their own type, then a division that truncates."""
    if a.x.dtype.is_floating or 0 in a.shape:
        return _reduced(a, "ReduceMean", "Mean")
    total = _reduced(a, "ReduceSum", "Sum")
    count = a.to.scalar(product(a.shape[i] for i in a.attrs["axis"]))
    wide = a.x.dtype if a.x.dtype.size == 8 else int64
    return a.to.cast(a("Div", a.to.cast(total, wide), a.to.cast(count, wide)), a.x.dtype)


def _arg(operator: str) -> Row:
    def row(a: Applied) -> Ref:
        (axis,) = a.attrs["axis"]
        return a.to.cast(a(operator, a.x, axis=axis, keepdims=0), a.attrs["output_type"])
    return row


def _cumsum(a: Applied) -> Ref:
    axis = int(a.attrs["axis"]) % len(a.shape)
    return a("CumSum", a.x, a.to.constant(np.int64(axis), int64), exclusive=int(a.attrs["exclusive"]),
             reverse=int(a.attrs["reverse"]))


# -- products ---------------------------------------------------------------------------------------------------------


def _matmul(first: str, second: str) -> Row:
    """A product of matrices, or of stacks of them; attrs `first` and `second` say whether an operand is transposed."""
    def row(a: Applied) -> Ref:
        operands = [a.to.transposed(x, last_axes(t.rank)) if a.attrs[flag] else x
                    for x, t, flag in zip(a.inputs, a.in_types, (first, second), strict=True)]
        return a("MatMul", *operands)
    return row


def _einsum(a: Applied) -> Ref | None:
    """Where a letter's sizes differ (1 is spread), the op is taken apart."""
    sizes: dict[str, Size] = {}
    for term, t in zip(a.attrs["equation"].split("->")[0].split(","), a.in_types, strict=True):
        if any(sizes.setdefault(letter, n) != n for letter, n in zip(term, t.shape, strict=True)):
            return None
    return a("Einsum", *a.inputs, equation=a.attrs["equation"])


# -- convolutions -----------------------------------------------------------------------------------------------------


def _to_front(rank: int, channel: int) -> tuple[int, ...]:
    """The order of axes with the channels behind the batch."""
    return (0, channel, *(i for i in range(1, rank) if i != channel))


def _back(rank: int, channel: int) -> tuple[int, ...]:
    """The inverse of `_to_front`."""
    return tuple(int(i) for i in np.argsort(_to_front(rank, channel)))


def _pads(pairs: Sequence[tuple[Size, Size]]) -> tuple[int, ...]:
    """Paddings in ONNX's order: all in front, then all behind."""
    return known((*(p[0] for p in pairs), *(p[1] for p in pairs)), "paddings")


def _same_pair(size: Size, reach: int, stride: int) -> tuple[Size, Size]:
    """TF's SAME: what is missing, the odd element behind."""
    missing = maximum((ceildiv(size, stride) - 1) * stride + reach - size, 0)
    if stride == 1:
        missing = reach - 1
    before = floordiv(missing, 2)
    return before, missing - before


def _padding(size: Sequence[Size], reach: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
             pairs: Sequence[tuple[int, int]] | None) -> dict[str, Any]:
    """The attrs that say the padding; pairs None: SAME, by ONNX itself where sizes are not known."""
    found = pairs if pairs is not None else [_same_pair(n, r, s) for n, r, s in zip(size, reach, strides, strict=True)]
    if all(isinstance(n, int) for pair in found for n in pair):
        return {"pads": _pads(found)}
    if any(d != 1 for d in dilations):
        raise Refused("SAME padding with strides and dilations needs sizes that are known when the model is exported")
    return {"auto_pad": "SAME_UPPER"}


def _spatial(a: Applied, rank: int) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The channel axis, the spatial axes, their strides and their dilations."""
    channel, axes = axes_of(a.attrs["data_format"], rank)
    return channel, axes, tuple(a.attrs["strides"][i] for i in axes), tuple(a.attrs["dilations"][i] for i in axes)


def _filter(a: Applied, w: Ref, shape: Shape, is_depthwise: bool) -> Ref:
    """The filter as (outputs, inputs of a group, window): of a depthwise one every output is a group's."""
    rank = len(shape) - 2
    if not is_depthwise:
        return a.to.transposed(w, (rank + 1, rank, *range(rank)))
    size = known(shape, "the sizes of a depthwise filter")
    turned = a.to.transposed(w, (rank, rank + 1, *range(rank)))
    window = size[:rank]
    return a.to.reshaped(turned, (size[rank], size[rank + 1], *window), (size[rank] * size[rank + 1], 1, *window))


def _groups(channels: Size, shape: Shape, is_depthwise: bool) -> int:
    if is_depthwise:
        return known((shape[-2],), "the channels of a depthwise filter")[0]
    if isinstance(channels, int) and isinstance(shape[-2], int):
        return channels // shape[-2]
    return 1


def _convolution(rank: int, is_depthwise: bool = False) -> Row:
    def row(a: Applied) -> Ref:
        x, w = a.inputs
        shape, window = a.shape, a.in_types[1].shape
        channel, axes, strides, dilations = _spatial(a, rank)
        taps = known(window[:rank], "the size of a filter's window")
        reach = [(k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True)]
        pads = _padding([shape[i] for i in axes], reach, strides, dilations, padding_pairs(a.attrs, rank))
        result = a("Conv", a.to.transposed(x, _to_front(rank + 2, channel)), _filter(a, w, window, is_depthwise),
                   kernel_shape=taps, strides=strides, dilations=dilations,
                   group=_groups(shape[channel], window, is_depthwise), **pads)
        return a.to.transposed(result, _back(rank + 2, channel))
    return row


def _transposed_convolution(rank: int, is_depthwise: bool = False) -> Row:
    """The gradient of a convolution for its input: what a transposed convolution is."""
    def row(a: Applied) -> Ref:
        w, dy = a.inputs
        window, shape = a.in_types[0].shape, a.out.shape
        channel, axes, strides, dilations = _spatial(a, rank)
        taps = known(window[:rank], "the size of a filter's window")
        before: list[int] = []
        after: list[int] = []
        beyond: list[int] = []
        for i, v in enumerate(geometry(a.attrs, shape, window, a.in_types[1].shape, is_depthwise).windows):
            # what the windows read behind the image is cut off; what no window reads is zeros behind
            spare = shape[axes[i]] + v.before - (v.out - 1) * strides[i] - (taps[i] - 1) * dilations[i] - 1
            first, rest = known((v.before, spare), "the padding of a transposed convolution")
            before.append(first)
            after.append(max(-rest, 0))
            beyond.append(max(rest, 0))
        result = a("ConvTranspose", a.to.transposed(dy, _to_front(rank + 2, channel)),
                   _filter(a, w, window, is_depthwise), kernel_shape=taps, strides=strides, dilations=dilations,
                   group=_groups(shape[channel], window, is_depthwise), pads=(*before, *after), output_padding=beyond)
        return a.to.transposed(result, _back(rank + 2, channel))
    return row


# -- pooling ----------------------------------------------------------------------------------------------------------


def _pool(operator: str) -> Row:
    def row(a: Applied) -> Ref:
        rank = len(a.shape)
        windows = windows_in(a.attrs, a.shape)
        channel = 1 if a.attrs["data_format"].startswith("NC") else rank - 1
        if windows[channel].is_trivial:
            order = _to_front(rank, channel)
            pooled = _pooled(a, operator, a.to.transposed(a.x, order), [windows[i] for i in order[2:]])
            return a.to.transposed(pooled, _back(rank, channel))
        if rank > 4:
            raise Refused("windows over the channels of a volume are not said in ONNX")
        # windows over channels: all axes but the first are space, of one channel
        apart = a.to.reshaped(a.x, a.shape, (a.shape[0], 1, *a.shape[1:]))
        pooled = _pooled(a, operator, apart, windows[1:])
        return a.to.reshaped(pooled, (a.out.shape[0], 1, *a.out.shape[1:]), a.out.shape)
    return row


def _pooled(a: Applied, operator: str, x: Ref, windows: Sequence[Window]) -> Ref:
    """Pooling over all axes of x behind the first two."""
    taps, strides = [w.taps for w in windows], [w.stride for w in windows]
    pairs = None if a.attrs["padding"] == "SAME" else [(0, 0)] * len(windows)
    pads = _padding([w.size for w in windows], taps, strides, [1] * len(windows), pairs)
    return a(operator, x, kernel_shape=taps, strides=strides, **pads)


# -- normalisation ----------------------------------------------------------------------------------------------------


def _batch_norm(a: Applied) -> Sequence[Ref] | None:
    """With given statistics; with the batch's own it is decomposed."""
    if a.attrs["is_training"]:
        return None
    x, scale, offset, mean, variance = a.inputs
    rank = len(a.shape)
    channel = 1 if a.attrs["data_format"].startswith("NC") else rank - 1
    y = a("BatchNormalization", a.to.transposed(x, _to_front(rank, channel)), scale, offset, mean, variance,
          epsilon=float(a.attrs["epsilon"]))
    kept = [mean, variance, mean, variance, a.number(0, a.out_types[-1].dtype)]
    return [a.to.transposed(y, _back(rank, channel)), *kept[:len(a.out_types) - 1]]


def _lrn(a: Applied) -> Ref:
    taps = 2 * int(a.attrs["depth_radius"]) + 1
    rank = len(a.shape)
    y = a("LRN", a.to.transposed(a.x, _to_front(rank, rank - 1)), size=taps, alpha=float(a.attrs["alpha"]) * taps,
          beta=float(a.attrs["beta"]), bias=float(a.attrs["bias"]))
    return a.to.transposed(y, _back(rank, rank - 1))


ROWS: Mapping[str, Row] = {
    # reductions
    "Sum": _reduce("ReduceSum", "Sum"), "Mean": _mean, "Prod": _reduce("ReduceProd", "Prod"),
    "Max": _reduce("ReduceMax", "Max"), "Min": _reduce("ReduceMin", "Min"), "Any": _reduce("ReduceMax", "Any"),
    "All": _reduce("ReduceMin", "All"), "ArgMax": _arg("ArgMax"), "ArgMin": _arg("ArgMin"), "Cumsum": _cumsum,
    # products
    "MatMul": _matmul("transpose_a", "transpose_b"), "BatchMatMulV2": _matmul("adj_x", "adj_y"),
    "Einsum": _einsum,
    # windows
    "Conv2D": _convolution(2), "Conv3D": _convolution(3), "DepthwiseConv2dNative": _convolution(2, is_depthwise=True),
    "Conv2DBackpropInput": _transposed_convolution(2), "Conv3DBackpropInputV2": _transposed_convolution(3),
    "DepthwiseConv2dNativeBackpropInput": _transposed_convolution(2, is_depthwise=True),
    "MaxPool": _pool("MaxPool"), "MaxPool3D": _pool("MaxPool"), "AvgPool": _pool("AveragePool"),
    "AvgPool3D": _pool("AveragePool"),
    # normalisation
    "Softmax": lambda a: a("Softmax", a.x, axis=-1), "LogSoftmax": lambda a: a("LogSoftmax", a.x, axis=-1),
    "FusedBatchNorm": _batch_norm, "FusedBatchNormV2": _batch_norm, "FusedBatchNormV3": _batch_norm, "LRN": _lrn,
}
