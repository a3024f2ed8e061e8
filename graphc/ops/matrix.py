"""Diagonals and bands of matrices.

Owns them.  Must not know linear algebra.  Invariant: each element of the result is one element of the input, or zero.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_, float32, float64, int32
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import Call, Inference, Kind, Op, Point, Pointwise, Sample, attr_or_value, register
from graphc.ops.rules import require_rank, show, typed

_DTYPES = (float32, float64, int32, bool_)


def _plain(shapes: Sequence[tuple[int, ...]]) -> list[Sample]:
    return [Sample((typed(d, *s),), differentiable=d.is_floating) for d in _DTYPES for s in shapes]


def _zero(p: Point) -> Expr:
    return const(0, p.out_types[0].dtype)


# -- the last two axes ------------------------------------------------------------------------------------------------


def _matrix_diag_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    require_rank(ctx, x.shape, 1, "the diagonal")
    return [PartialType(x.dtype, None if x.shape is None else (*x.shape, x.shape[-1]))]


def _matrix_diag_point(p: Point) -> Expr:
    on = prim("eq", p.index[-2], p.index[-1])
    return p.load(0, p.index[:-1], on, _zero(p))


def _matrix_diag_reference(call: Call) -> Any:
    (x,) = call.arrays
    return np.where(np.eye(x.shape[-1], dtype=bool), x[..., None], np.zeros((), x.dtype))


register(Op(
    name="MatrixDiag", kind=Kind.MOVEMENT, inputs=("diagonal",), infer=_matrix_diag_infer,
    gradient=lambda op, dy: [b.op("MatrixDiagPart", dy)], reference=_matrix_diag_reference,
    lower=Pointwise(point=_matrix_diag_point), doc="Matrices with the last axis on their diagonal. tf.matrix_diag",
    samples=lambda: _plain(((5,), (2, 3), (0,)))))


def _diag_part_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    require_rank(ctx, x.shape, 2, "the input")
    if x.shape is None:
        return [PartialType(x.dtype, None)]
    rows, columns = x.shape[-2:]
    size = rows if rows == columns else min(rows, columns) if isinstance(rows, int) and isinstance(columns, int) \
        else ctx.equal(rows, columns, f"the diagonal of matrices {show(x.shape)} of unknown size needs squares")
    return [PartialType(x.dtype, (*x.shape[:-2], size))]


def _diag_part_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """The diagonal back into a matrix of the input's shape."""
    shape = b.static_shape(op.inputs[0])
    square = b.op("MatrixDiag", dy)
    if shape is None or shape[-1] == shape[-2]:
        return [square]
    size = min(shape[-2:])
    return [b.op("Pad", square, ((0, 0),) * (len(shape) - 2) + tuple((0, n - size) for n in shape[-2:]))]


register(Op(
    name="MatrixDiagPart", kind=Kind.MOVEMENT, inputs=("input",), infer=_diag_part_infer, gradient=_diag_part_gradient,
    reference=lambda call: np.diagonal(call.arrays[0], axis1=-2, axis2=-1),
    lower=Pointwise(point=lambda p: p.load(0, [*p.index, p.index[-1]])),
    samples=lambda: [Sample((typed(d, *s),), differentiable=d.is_floating)
                     for d in _DTYPES for s in ((4, 4), (2, 3, 5), (5, 3), (0, 0))],
    doc="The diagonals of matrices in the last two axes. tf.matrix_diag_part"))

_BAND = {1: "num_lower", 2: "num_upper"}


def _band_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    require_rank(ctx, x.shape, 2, "the input")
    for i, attr in _BAND.items():
        attr_or_value(ctx, i, attr)
    return [PartialType(x.dtype, x.shape)]


def _band_point(p: Point) -> Expr:
    below = prim("sub", p.index[-2], p.index[-1])
    kept: Expr = const(True, bool_)
    for limit, distance in ((p.attrs["num_lower"], below), (p.attrs["num_upper"], prim("neg", below))):
        if limit >= 0:
            kept = prim("and", kept, prim("le", distance, index(limit)))
    return prim("select", kept, p.load(0, p.index), _zero(p))


def _band_reference(call: Call) -> Any:
    (x,) = call.arrays
    lower, upper = int(call.attrs["num_lower"]), int(call.attrs["num_upper"])
    below = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    kept = ((lower < 0) | (below <= lower)) & ((upper < 0) | (-below <= upper))
    return np.where(kept, x, np.zeros((), x.dtype))


register(Op(
    name="MatrixBandPart", kind=Kind.MOVEMENT, inputs=("input", "num_lower", "num_upper"), static=_BAND,
    attrs={"num_lower": None, "num_upper": None}, infer=_band_infer, reference=_band_reference,
    gradient=lambda op, dy: [b.op("MatrixBandPart", dy, b.static_of(op, "num_lower"), b.static_of(op, "num_upper"))],
    lower=Pointwise(point=_band_point),
    samples=lambda: [Sample((typed(d, *s),), {"num_lower": m, "num_upper": n}, differentiable=d.is_floating)
                     for d in _DTYPES
                     for s, m, n in (((4, 5), -1, 0), ((4, 5), 0, -1), ((2, 5, 3), 1, 1), ((3, 3), 0, 0))],
    doc="Matrices with zeros outside a band: at most num_lower below and num_upper above the diagonal, all where "
        "negative. tf.matrix_band_part"))

# -- all axes ---------------------------------------------------------------------------------------------------------


def _diag_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    require_rank(ctx, x.shape, 1, "the diagonal")
    return [PartialType(x.dtype, None if x.shape is None else x.shape + x.shape)]


def _diag_point(p: Point) -> Expr:
    half = len(p.index) // 2
    on: Expr = const(True, bool_)
    for first, second in zip(p.index[:half], p.index[half:], strict=True):
        on = prim("and", on, prim("eq", first, second))
    return p.load(0, p.index[:half], on, _zero(p))


def _diag_reference(call: Call) -> Any:
    (x,) = call.arrays
    return np.diag(x.reshape(-1)).reshape(x.shape + x.shape)


register(Op(
    name="Diag", kind=Kind.MOVEMENT, inputs=("diagonal",), infer=_diag_infer, reference=_diag_reference,
    gradient=lambda op, dy: [b.op("DiagPart", dy)], lower=Pointwise(point=_diag_point),
    samples=lambda: _plain(((5,), (2, 3), (0,))),
    doc="A tensor of twice the rank with the input where both halves of the index agree. tf.diag"))


def _part_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    if x.shape is None:
        return [PartialType(x.dtype, None)]
    half = len(x.shape) // 2
    if len(x.shape) % 2 or not half:
        raise ctx.fail(f"the input must have an even rank of 2 or more, its shape is {show(x.shape)}")
    message = f"both halves of the shape {show(x.shape)} must agree"
    return [PartialType(x.dtype, tuple(ctx.equal(m, n, message)
                                       for m, n in zip(x.shape[:half], x.shape[half:], strict=True)))]


def _part_reference(call: Call) -> Any:
    (x,) = call.arrays
    shape = x.shape[:x.ndim // 2]
    size = int(np.prod(shape))
    return np.diagonal(x.reshape(size, size)).reshape(shape)


register(Op(
    name="DiagPart", kind=Kind.MOVEMENT, inputs=("input",), infer=_part_infer, reference=_part_reference,
    gradient=lambda op, dy: [b.op("Diag", dy)], lower=Pointwise(point=lambda p: p.load(0, [*p.index, *p.index])),
    samples=lambda: [Sample((typed(d, *s),), differentiable=d.is_floating)
                     for d in _DTYPES for s in ((4, 4), (2, 3, 2, 3), (0, 0))],
    doc="The elements where both halves of the index agree. tf.diag_part"))
