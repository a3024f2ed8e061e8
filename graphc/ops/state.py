"""Variables: what reads and writes them.

Owns the state ops.  Must not know sessions or memory.  Invariant: extract turns each into values: `decompose` of a
read or write, given the variable's present content as input 0, gives (output, new content).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import bool_, float32, int32, int64
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr, const
from graphc.kernel.primitives import prim
from graphc.ops.base import (
    REQUIRED,
    Call,
    Decomposition,
    Inference,
    InvalidValue,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Sample,
    register,
)
from graphc.ops.rules import INDICES, NUMBERS, check_dtype, check_same_dtype, same_shapes, show, typed

_WRITE = NoGradient("assignments are not differentiated; use the value that is assigned")
_GONE = NotLowered("extract turns variables into values")


def _variable_infer(ctx: Inference) -> Sequence[PartialType]:
    shape = ctx.attrs["shape"]
    return [PartialType(ctx.attrs["dtype"], None if shape is None else tuple(
        ctx.unknown() if n is None else n for n in shape))]


def _no_value(call: Call) -> Any:
    raise TypeError("a variable's content belongs to a session")


register(Op(
    name="VariableV2", kind=Kind.STATE, inputs=(), attrs={"shape": REQUIRED, "dtype": REQUIRED}, infer=_variable_infer,
    gradient=NoGradient("nothing flows into it"), reference=_no_value, lower=_GONE, samples=list, stateful=True,
    doc="A variable: a tensor that a session holds between runs. tf.Variable"))


def _read_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.inputs[0].dtype, ctx.inputs[0].shape)]


register(Op(
    name="ReadVariable", kind=Kind.STATE, inputs=("ref",), infer=_read_infer, gradient=lambda op, dy: [dy],
    reference=lambda call: call.arrays[0], lower=_GONE, decompose=lambda d: [d.inputs[0], d.inputs[0]], stateful=True,
    samples=lambda: [Sample((typed(float32, 5, 7),))],
    doc="The content of a variable where its data and control inputs place the read. TF op ReadVariableOp"))
register(Op(
    name="IsVariableInitialized", kind=Kind.STATE, inputs=("ref",), stateful=True,
    infer=lambda ctx: [PartialType(bool_, ())], gradient=NoGradient("the result is bool"), reference=_no_value,
    lower=_GONE, samples=list, doc="Whether a variable has content. tf.is_variable_initialized"))


def _assign_infer(ctx: Inference) -> Sequence[PartialType]:
    ref, value = ctx.inputs
    if ref.dtype is not value.dtype:
        raise ctx.fail_dtype(f"a variable of {ref.dtype.name} cannot take {value.dtype.name}",
                             f"convert the value: tf.cast(value, tf.{ref.dtype.name})")
    if not ctx.attrs.get("validate_shape", True):
        return [PartialType(ref.dtype, value.shape)]
    message = f"a variable of shape {show(ref.shape)} cannot take a value of shape {show(value.shape)}"
    return [PartialType(ref.dtype, same_shapes(ctx, (ref.shape, value.shape), message))]


def _assigning(name: str, new: Callable[[Decomposition], Any], reference: Callable[[Call], Any], numbers: bool,
               doc: str) -> None:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        if numbers:
            check_dtype(ctx, ctx.inputs[0], NUMBERS, "the variable")
        return _assign_infer(ctx)

    def decompose(d: Decomposition) -> Sequence[Any]:
        value = new(d)
        return [value, value]

    register(Op(
        name=name, kind=Kind.STATE, inputs=("ref", "value"), attrs={"validate_shape": True}, infer=infer,
        gradient=_WRITE,
        reference=reference, lower=_GONE, decompose=decompose, stateful=True, doc=doc,
        samples=lambda: [Sample((typed(float32, 5, 7),) * 2, differentiable=False)]))


_assigning("Assign", lambda d: d.inputs[1], lambda call: call.arrays[1], False,
           "Replace a variable's content; gives the new content. tf.assign")
_assigning("AssignAdd", lambda d: d.op("Add", *d.inputs), lambda call: call.arrays[0] + call.arrays[1], True,
           "Add to a variable; gives the new content. tf.assign_add")
_assigning("AssignSub", lambda d: d.op("Sub", *d.inputs), lambda call: call.arrays[0] - call.arrays[1], True,
           "Subtract from a variable; gives the new content. tf.assign_sub")

# -- rows of variables ------------------------------------------------------------------------------------------------


def _rows_infer(ctx: Inference) -> Sequence[PartialType]:
    ref, indices, updates = ctx.inputs
    check_dtype(ctx, indices, INDICES, "the indices")
    check_same_dtype(ctx, (ref, updates))
    if ref.shape is not None and indices.shape is not None and updates.shape is not None:
        if not ref.shape:
            raise ctx.fail("a scalar variable has no rows")
        want = indices.shape + ref.shape[1:]
        message = (f"updates of shape {show(updates.shape)} are not rows {show(want)} of a variable of shape "
                   f"{show(ref.shape)}")
        same_shapes(ctx, (updates.shape, want), message)
    return [PartialType(ref.dtype, ref.shape)]


def _scatter(name: str, tensor_op: str, doc: str) -> None:
    def decompose(d: Decomposition) -> Sequence[Any]:
        ref, indices, updates = d.inputs
        value = d.op(tensor_op, ref, d.op("ExpandDims", indices, axis=(d.in_types[1].rank,)), updates)
        return [value, value]

    register(Op(
        name=name, kind=Kind.STATE, inputs=("ref", "indices", "updates"), infer=_rows_infer, gradient=_WRITE,
        reference=_no_value, lower=_GONE, decompose=decompose, stateful=True, samples=list, doc=doc))


_scatter("ScatterUpdate", "TensorScatterUpdate", "Replace rows of a variable, the last of several winning. "
                                                 "tf.scatter_update")
_scatter("ScatterAdd", "TensorScatterAdd", "Add to rows of a variable, duplicates summed. tf.scatter_add")
_scatter("ScatterSub", "TensorScatterSub", "Subtract from rows of a variable, duplicates summed. tf.scatter_sub")

# -- counters ---------------------------------------------------------------------------------------------------------


def _count_infer(ctx: Inference) -> Sequence[PartialType]:
    (ref,) = ctx.inputs
    check_dtype(ctx, ref, (int32, int64), "the variable")
    return [PartialType(ref.dtype, ref.shape)]


def _count_decompose(d: Decomposition) -> Sequence[Any]:
    (ref,) = d.inputs
    dtype = d.in_types[0].dtype
    before = d.op("CountBelow", ref, limit=d.attrs["limit"])
    return [before, d.op("Add", before, d.constant(1, dtype))]


def _below_reference(call: Call) -> Any:
    (x,) = call.arrays
    if (x >= call.attrs["limit"]).any():
        raise InvalidValue(f"reached limit of {call.attrs['limit']}")
    return x


def _below_point(p: Point) -> Expr:
    x = p.load(0, p.index)
    ok = prim("lt", x, const(p.attrs["limit"], x.dtype))
    return p.guard(x, ok, x, "assert", f"reached limit of {p.attrs['limit']}")


_BELOW = Sample((typed(int32),), {"limit": 10}, differentiable=False)

register(Op(
    name="CountBelow", kind=Kind.ELEMENTWISE, inputs=("x",), attrs={"limit": REQUIRED}, infer=_count_infer,
    gradient=NoGradient("a counter"), reference=_below_reference, lower=Pointwise(point=_below_point), stateful=True,
    samples=lambda: [_BELOW], doc="The integers given; fail where one is not below the limit"))

register(Op(
    name="CountUpTo", kind=Kind.STATE, inputs=("ref",), attrs={"limit": REQUIRED}, infer=_count_infer, gradient=_WRITE,
    reference=_below_reference, lower=_GONE, decompose=_count_decompose, stateful=True, samples=lambda: [_BELOW],
    doc="The content of an integer variable, which is then counted up; fails at `limit`. tf.count_up_to"))
