"""Running sums and products along an axis.

Owns Cumsum and Cumprod.  Must not know how a scan is vectorised.  Invariant: the other axes are independent.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float32, float64, int32, int64
from graphc.ir.types import PartialType, TensorType
from graphc.kernel.ir import Axis, Expr, For, Load, Scan, Stmt, Store, Var
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast
from graphc.ops import build as b
from graphc.ops.base import Call, Inference, Kind, Op, Routine, RoutineBody, Sample, attr_or_value, register, widen
from graphc.ops.rules import NUMBERS, axis_in, check_dtype, ints, typed


def _infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    check_dtype(ctx, x, NUMBERS)
    axis = attr_or_value(ctx, 1, "axis")
    if axis is not None and x.shape is not None:
        axis_in(ctx, ints(axis)[0], len(x.shape))
    return [PartialType(x.dtype, x.shape)]


def _running(combiner: str) -> Any:
    def body(r: Routine) -> tuple[Stmt, ...]:
        shape, along, dtype = r.in_types[0].shape, int(r.attrs["axis"]) % r.in_types[0].rank, r.in_types[0].dtype
        axes = [r.fresh("i") for _ in shape]
        where = tuple(map(Axis, axes))
        state = r.fresh("run")
        value: Expr = widen(Load(r.input(0), where, dtype))
        kept = Var(f"{state}_before" if r.attrs["exclusive"] else state, value.dtype)
        nest: tuple[Stmt, ...] = (Scan(state, combiner, axes[along], size_of(shape[along]), (), value,
                                       (Store(r.output(0), where, cast(kept, dtype)),), bool(r.attrs["reverse"])),)
        for a in reversed(range(len(shape))):
            if a != along:
                nest = (For(axes[a], size_of(shape[a]), nest, parallel=True),)
        return nest
    return body


def _reference(run: Any, first: int) -> Any:
    def reference(call: Call) -> Any:
        (x,) = call.arrays
        axis = int(call.attrs["axis"]) % x.ndim
        x = np.flip(x, axis) if call.attrs["reverse"] else x
        out = run(x, axis=axis, dtype=x.dtype)
        if call.attrs["exclusive"] and x.shape[axis]:
            head = np.full([1 if a == axis else n for a, n in enumerate(x.shape)], first, x.dtype)
            out = np.concatenate([head, np.delete(out, -1, axis)], axis)
        return np.flip(out, axis) if call.attrs["reverse"] else out
    return reference


def _sum_gradient(op: Any, dy: Any) -> Sequence[Any]:
    return [b.op("Cumsum", dy, b.static_of(op, "axis"), exclusive=op.attrs["exclusive"],
                 reverse=not op.attrs["reverse"])]


def _prod_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """Source: TF's _CumprodGrad."""
    x = b.inputs_of(op)[0]
    product = b.op("Cumprod", x, b.static_of(op, "axis"), exclusive=op.attrs["exclusive"], reverse=op.attrs["reverse"])
    total = b.op("Cumsum", b.mul(product, dy), b.static_of(op, "axis"), exclusive=op.attrs["exclusive"],
                 reverse=not op.attrs["reverse"])
    return [b.op("RealDiv" if dy.dtype.is_floating else "TruncateDiv", total, x)]


def _samples(domain: tuple[float, float]) -> Any:
    def samples() -> list[Sample]:
        return [Sample((typed(d, *s),), {"axis": a, "exclusive": e, "reverse": r}, domain=domain, ulp=32.0,
                       differentiable=d.is_floating)
                for d in (float32, float64, int32, int64)
                for s, a in (((7,), 0), ((5, 7), 1), ((2, 3, 4), -3), ((0, 3), 0))
                for e in (False, True) for r in (False, True)]
    return samples


def _canonical(attrs: Mapping[str, Any], types: Sequence[TensorType]) -> Mapping[str, Any]:
    return {**attrs, "axis": int(ints(attrs["axis"])[0]) % types[0].rank}


for _name, _combiner, _run, _first, _gradient, _domain, _doc in (
        ("Cumsum", "sum", np.cumsum, 0, _sum_gradient, (-3.0, 3.0), "Running sum along an axis. tf.cumsum"),
        ("Cumprod", "prod", np.cumprod, 1, _prod_gradient, (0.5, 1.5), "Running product along an axis. tf.cumprod")):
    register(Op(
        name=_name, kind=Kind.LIBRARY, inputs=("x", "axis"), static={1: "axis"},
        attrs={"axis": None, "exclusive": False, "reverse": False}, infer=_infer, gradient=_gradient,
        reference=_reference(_run, _first), lower=RoutineBody(_running(_combiner)), samples=_samples(_domain),
        canonical=_canonical, doc=f"{_doc}; exclusive leaves the element itself out, reverse runs from the end."))
