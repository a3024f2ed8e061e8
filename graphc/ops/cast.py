"""Cast and Bitcast: another dtype for the same elements.

Owns the two.  Must not know other ops.  Invariant: conversions mean what the primitive `cast` says: float to integer
truncates and saturates, NaN gives 0, integers wrap.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr
from graphc.kernel.primitives import bitcast, cast, cast_values
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Inference,
    Kind,
    NoGradient,
    Op,
    Point,
    Pointwise,
    Sample,
    register,
)
from graphc.ops.rules import ALL, typed


def _cast_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.attrs["dtype"], ctx.inputs[0].shape)]


def _cast_reference(call: Call) -> np.ndarray:
    (x,) = call.arrays
    source, target = call.in_types[0].dtype, call.attrs["dtype"]
    if x.dtype == object:
        if not target.is_integer:
            raise TypeError(f"sizes cannot be computed in {target.name}")
        return x
    return np.asarray(cast_values(x, source, target))


def _cast_scalar(attrs: Any, x: Expr) -> Expr:
    target = attrs["dtype"]
    return x if target in (dtypes.float16, dtypes.bfloat16) else cast(x, target)  # the lowering narrows


def _cast_gradient(op: Any, dy: Any) -> Sequence[Any]:
    (x,) = op.inputs
    both_float = x.dtype.is_floating and dy.dtype.is_floating
    return [b.op("Cast", dy, dtype=x.dtype) if both_float else None]


register(Op(
    name="Cast", kind=Kind.ELEMENTWISE, inputs=("x",), attrs={"dtype": REQUIRED}, infer=_cast_infer,
    gradient=_cast_gradient, reference=_cast_reference, lower=Pointwise(scalar=_cast_scalar), symbolic=True,
    doc="The elements as another dtype. tf.cast",
    samples=lambda: [Sample((typed(s, 5, 7),), {"dtype": t}, domain=(-90.0, 90.0),
                            differentiable=s.is_floating and t in (dtypes.float64, dtypes.float32))
                     for s in ALL for t in ALL]))


def _bitcast_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    target = ctx.attrs["type"]
    if x.dtype.size != target.size or x.dtype.is_bool or target.is_bool:
        raise ctx.fail_dtype(f"{x.dtype.name} and {target.name} do not have the same width",
                             "bitcast keeps the width of the elements")
    return [PartialType(target, x.shape)]


def _stored(values: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    return dtypes.float32_to_bfloat16(values) if dtype is dtypes.bfloat16 else values.astype(dtype.storage)


def _bitcast_reference(call: Call) -> np.ndarray:
    target = call.attrs["type"]
    bits = np.asarray(_stored(call.arrays[0], call.in_types[0].dtype))
    out = bits.reshape(-1).view(target.storage).reshape(bits.shape)
    return dtypes.bfloat16_to_float32(out) if target is dtypes.bfloat16 else out


def _bitcast_point(p: Point) -> Expr:
    return bitcast(p.load(0, p.index), p.attrs["type"])


register(Op(
    name="Bitcast", kind=Kind.ELEMENTWISE, inputs=("input",), attrs={"type": REQUIRED}, infer=_bitcast_infer,
    gradient=NoGradient("the result reinterprets bits"), reference=_bitcast_reference,
    lower=Pointwise(point=_bitcast_point), doc="The same bits as another dtype of the same width. tf.bitcast",
    samples=lambda: [Sample((typed(s, 5, 7),), {"type": t}, special=False, differentiable=False) for s in ALL
                     for t in ALL
                     if s.size == t.size and not s.is_bool and not t.is_bool]))
