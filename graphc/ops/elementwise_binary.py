"""Ops of two inputs (and AddN, Select, ClipByValue), element by element, the inputs broadcast.

Owns their rows.  Must not know fusion or other op files.  Invariant: an integer division by zero is guarded; there is
no silent promotion, all inputs have one dtype.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.ir import dim
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr, const
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import (
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
    operand,
    register,
)
from graphc.ops.elementwise import binary
from graphc.ops.rules import (
    ALL,
    BOOLS,
    FLOATS,
    INTEGERS,
    NUMBERS,
    broadcast_shapes,
    check_dtype,
    check_same_dtype,
    same_shapes,
    show,
    typed,
)


def _p(name: str) -> Callable[[Expr, Expr], Expr]:
    return lambda x, y: prim(name, x, y)


def _mask(condition: Any, x: Any) -> Any:
    """x where the condition holds, else 0."""
    return b.select(condition, x, 0)


# -- arithmetic -------------------------------------------------------------------------------------------------------

binary("Add", NUMBERS, np.add, _p("add"), lambda x, y, z, dz: (dz, dz), "x + y. tf.add", symbolic=True)
binary("Sub", NUMBERS, np.subtract, _p("sub"), lambda x, y, z, dz: (dz, b.op("Neg", dz)), "x - y. tf.subtract",
       symbolic=True)
binary("Mul", NUMBERS, np.multiply, _p("mul"), lambda x, y, z, dz: (b.mul(dz, y), b.mul(dz, x)), "x * y. tf.multiply",
       symbolic=True)
binary("RealDiv", FLOATS, np.divide, _p("div"),
       lambda x, y, z, dz: (b.div(dz, y), b.op("Neg", b.div(b.mul(dz, z), y))), "x / y of floats. tf.divide",
       domain=(0.5, 3.0))


def _div_no_nan(x: Expr, y: Expr) -> Expr:
    zero = const(0, y.dtype)
    return prim("select", prim("eq", y, zero), zero, prim("div", x, y))


binary("DivNoNan", FLOATS, lambda x, y: np.where(y == 0, 0.0, np.divide(x, y)), _div_no_nan,
       lambda x, y, z, dz: (b.op("DivNoNan", dz, y), b.op("Neg", b.op("DivNoNan", b.mul(dz, z), y))),
       "x / y, and 0 where y is 0. tf.div_no_nan", domain=(0.5, 3.0))


# -- integer division and remainders ----------------------------------------------------------------------------------


def _checked(divide: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[[np.ndarray, np.ndarray], Any]:
    def reference(x: np.ndarray, y: np.ndarray) -> Any:
        if y.dtype.kind in "iu" and (y == 0).any() and np.broadcast(x, y).size:
            raise InvalidValue("integer division by zero")
        return divide(x, y)
    return reference


def _dividing(integer: str, floating: Callable[[Expr, Expr], Expr]) -> Callable[[Point], Expr]:
    def point(p: Point) -> Expr:
        x, y = operand(p, 0), operand(p, 1)
        if y.dtype.is_floating:
            return floating(x, y)
        zero = const(0, y.dtype)
        return p.guard(prim(integer, x, y), prim("ne", y, zero), zero, "division", "integer division by zero")
    return point


def _trunc_div(x: np.ndarray, y: np.ndarray) -> Any:
    if x.dtype.kind == "f":
        return np.trunc(np.divide(x, y))
    quotient = np.floor_divide(x, y)
    return quotient + ((np.remainder(x, y) != 0) & ((x < 0) != (y < 0))).astype(quotient.dtype)


def _float_mod(x: Expr, y: Expr) -> Expr:
    rest = prim("truncmod", x, y)
    zero = const(0, x.dtype)
    wrong = prim("and", prim("ne", rest, zero), prim("ne", prim("lt", rest, zero), prim("lt", y, zero)))
    return prim("select", wrong, prim("add", rest, y), rest)


def _floor_div_reference(x: np.ndarray, y: np.ndarray) -> Any:
    return np.floor(np.divide(x, y)) if x.dtype.kind == "f" else np.floor_divide(x, y)


def _mod_gradient(x: Any, y: Any, z: Any, dz: Any) -> tuple[Any, Any]:
    return dz, b.op("Neg", b.mul(dz, b.op("FloorDiv", x, y)))


def _trunc_mod_gradient(x: Any, y: Any, z: Any, dz: Any) -> tuple[Any, Any]:
    return dz, b.op("Neg", b.mul(dz, b.op("TruncateDiv", x, y)))


_NO_SLOPE = NoGradient("a step function: its derivative is zero wherever it has one")
_float_floor = _dividing("floordiv", lambda x, y: prim("floor", prim("div", x, y)))
_float_trunc = _dividing("truncdiv", lambda x, y: prim("trunc", prim("div", x, y)))
_POSITIVE = {"domain": (1.0, 7.0), "guarded": True, "special": False, "differentiable": False}

binary("FloorDiv", NUMBERS, _checked(_floor_div_reference), _float_floor, _NO_SLOPE,
       "x / y rounded down. tf.floordiv", symbolic=True, **_POSITIVE)  # type: ignore[arg-type]
binary("TruncateDiv", NUMBERS, _checked(_trunc_div), _float_trunc, _NO_SLOPE,
       "x / y rounded towards zero. tf.truncatediv", **_POSITIVE)  # type: ignore[arg-type]
binary("Div", NUMBERS, _checked(lambda x, y: np.divide(x, y) if x.dtype.kind == "f" else _trunc_div(x, y)),
       _dividing("truncdiv", _p("div")),
       lambda x, y, z, dz: (b.op("Div", dz, y), b.op("Neg", b.op("Div", b.mul(dz, z), y))),
       "x / y of floats; of integers, rounded towards zero. TF op Div", domain=(1.0, 7.0), guarded=True, special=False)
binary("FloorMod", NUMBERS, _checked(np.mod), _dividing("floormod", _float_mod), _mod_gradient,
       "Remainder of floordiv, with the sign of y. tf.floormod", symbolic=True, **_POSITIVE)  # type: ignore[arg-type]
binary("TruncateMod", NUMBERS, _checked(np.fmod), _dividing("truncmod", _p("truncmod")), _trunc_mod_gradient,
       "Remainder of truncatediv, with the sign of x. tf.truncatemod", **_POSITIVE)  # type: ignore[arg-type]

# -- powers -----------------------------------------------------------------------------------------------------------


def _int_pow(p: Point, x: Expr, y: Expr) -> Expr:
    """Square and multiply over every bit of the exponent; the product wraps."""
    zero, one = const(0, x.dtype), const(1, x.dtype)
    result: Expr = one
    for bit in range(x.dtype.bits - (x.dtype.kind == "int")):
        odd = prim("ne", prim("and", prim("shr", y, const(bit, y.dtype)), one), zero)
        result = prim("select", odd, prim("mul", result, x), result)
        x = prim("mul", x, x)
    if y.dtype.kind == "uint":
        return result
    return p.guard(result, prim("le", zero, y), zero, "assert", "integers to negative integer powers are not allowed")


def _pow(p: Point) -> Expr:
    x, y = operand(p, 0), operand(p, 1)
    return prim("pow", x, y) if x.dtype.is_floating else _int_pow(p, x, y)


def _pow_reference(x: np.ndarray, y: np.ndarray) -> Any:
    if y.dtype.kind == "i" and (y < 0).any() and np.broadcast(x, y).size:
        raise InvalidValue("integers to negative integer powers are not allowed")
    return np.power(x, y)


def _pow_gradient(x: Any, y: Any, z: Any, dz: Any) -> tuple[Any, Any]:
    if not x.dtype.is_floating:
        return b.mul(b.mul(dz, y), b.op("Pow", x, b.op("Maximum", b.sub(y, 1), b.zeros_like(y)))), None
    logarithm = b.select(b.op("Greater", x, 0), b.op("Log", b.select(b.op("Greater", x, 0), x, 1)), 0)
    return b.mul(b.mul(dz, y), b.op("Pow", x, b.sub(y, 1))), b.mul(b.mul(dz, z), logarithm)


binary("Pow", NUMBERS, _pow_reference, _pow, _pow_gradient,
       "x to the power y; integers wrap. tf.pow", domain=(0.5, 3.0), guarded=True, ulp=8.0)

# -- extremes and differences -----------------------------------------------------------------------------------------


def _extreme_gradient(comparison: str) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    def gradient(x: Any, y: Any, z: Any, dz: Any) -> tuple[Any, Any]:
        first = b.op(comparison, x, y)
        return _mask(first, dz), b.select(first, 0, dz)
    return gradient


def _symbolic_extreme(numeric: Any, sizes: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    on_sizes = np.frompyfunc(sizes, 2, 1)
    return lambda x, y: on_sizes(x, y) if object in (x.dtype, y.dtype) else numeric(x, y)


def _squared_difference(x: Expr, y: Expr) -> Expr:
    difference = prim("sub", x, y)
    return prim("mul", difference, difference)


def _squared_difference_gradient(x: Any, y: Any, z: Any, dz: Any) -> tuple[Any, Any]:
    slope = b.mul(dz, b.mul(b.sub(x, y), 2))
    return slope, b.op("Neg", slope)


def _atan2_gradient(y: Any, x: Any, z: Any, dz: Any) -> tuple[Any, Any]:
    scaled = b.div(dz, b.add(b.op("Square", x), b.op("Square", y)))
    return b.mul(scaled, x), b.op("Neg", b.mul(scaled, y))


binary("Maximum", NUMBERS, _symbolic_extreme(np.maximum, dim.maximum), _p("max"), _extreme_gradient("GreaterEqual"),
       "The larger of x and y; NaN where either is. tf.maximum", symbolic=True)
binary("Minimum", NUMBERS, _symbolic_extreme(np.minimum, dim.minimum), _p("min"), _extreme_gradient("LessEqual"),
       "The smaller of x and y; NaN where either is. tf.minimum", symbolic=True)
binary("SquaredDifference", NUMBERS, lambda x, y: np.square(x - y), _squared_difference, _squared_difference_gradient,
       "(x - y) squared. tf.squared_difference")
binary("Atan2", FLOATS, np.arctan2, _p("atan2"), _atan2_gradient,
       "Angle of the point (y, x): atan2(y, x). tf.atan2", domain=(0.3, 3.0))


def _zero_times(function: str) -> Callable[[Expr, Expr], Expr]:
    def scalar(x: Expr, y: Expr) -> Expr:
        zero = const(0, x.dtype)
        by = prim("log", y) if function == "log" else y
        return prim("select", prim("eq", x, zero), zero, prim("mul" if function == "log" else "div", x, by))
    return scalar


binary("Xlogy", FLOATS, lambda x, y: np.where(x == 0, 0.0, x * np.log(y)), _zero_times("log"),
       lambda x, y, z, dz: (b.mul(dz, _mask(b.op("NotEqual", x, 0), b.op("Log", y))), b.mul(dz, b.op("Xdivy", x, y))),
       "x * log(y), and 0 where x is 0. tf.math.xlogy", domain=(0.3, 3.0))
binary("Xdivy", FLOATS, lambda x, y: np.where(x == 0, 0.0, np.divide(x, y)), _zero_times("div"),
       lambda x, y, z, dz: (b.mul(dz, _mask(b.op("NotEqual", x, 0), b.op("Reciprocal", y))),
                            b.op("Neg", b.mul(dz, b.op("Xdivy", z, y)))),
       "x / y, and 0 where x is 0. tf.math.xdivy", domain=(0.3, 3.0))

# -- comparison and logic ---------------------------------------------------------------------------------------------

_TEST = NoGradient("the result is bool")


def _comparison(name: str, reference: Any, lower: Callable[[Expr, Expr], Expr], doc: str, any_dtype: bool) -> None:
    binary(name, ALL if any_dtype else NUMBERS, reference, lower, _TEST, doc, result=bool_)


_comparison("Equal", np.equal, _p("eq"), "x == y. tf.equal", True)
_comparison("NotEqual", np.not_equal, _p("ne"), "x != y. tf.not_equal", True)
_comparison("Less", np.less, _p("lt"), "x < y. tf.less", False)
_comparison("LessEqual", np.less_equal, _p("le"), "x <= y. tf.less_equal", False)
_comparison("Greater", np.greater, lambda x, y: prim("lt", y, x), "x > y. tf.greater", False)
_comparison("GreaterEqual", np.greater_equal, lambda x, y: prim("le", y, x), "x >= y. tf.greater_equal", False)

binary("LogicalAnd", BOOLS, np.logical_and, _p("and"), _TEST, "x and y. tf.logical_and")
binary("LogicalOr", BOOLS, np.logical_or, _p("or"), _TEST, "x or y. tf.logical_or")
binary("LogicalXor", BOOLS, np.logical_xor, _p("xor"), _TEST, "Whether exactly one holds. tf.logical_xor")

# -- bits -------------------------------------------------------------------------------------------------------------

_BITS = NoGradient("works on bits")


def _shift_reference(shift: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    def reference(x: np.ndarray, y: np.ndarray) -> Any:
        width = x.dtype.itemsize * 8
        return shift(x, np.mod(y, np.asarray(width, y.dtype)))
    return reference


binary("BitwiseAnd", INTEGERS, np.bitwise_and, _p("and"), _BITS, "Bits set in both. tf.bitwise.bitwise_and")
binary("BitwiseOr", INTEGERS, np.bitwise_or, _p("or"), _BITS, "Bits set in either. tf.bitwise.bitwise_or")
binary("BitwiseXor", INTEGERS, np.bitwise_xor, _p("xor"), _BITS, "Bits set in one alone. tf.bitwise.bitwise_xor")
binary("LeftShift", INTEGERS, _shift_reference(np.left_shift), _p("shl"), _BITS,
       "x shifted left by y modulo its width. tf.bitwise.left_shift")
binary("RightShift", INTEGERS, _shift_reference(np.right_shift), _p("shr"), _BITS,
       "x shifted right by y modulo its width, keeping the sign. tf.bitwise.right_shift")

# -- sums of many -----------------------------------------------------------------------------------------------------


def _add_n_infer(ctx: Inference) -> Sequence[PartialType]:
    dtype = check_same_dtype(ctx, ctx.inputs, NUMBERS)
    return [PartialType(dtype, same_shapes(ctx, [t.shape for t in ctx.inputs], "the inputs must have one shape"))]


def _add_n_scalar(attrs: Any, *values: Expr) -> Expr:
    total = values[0]
    for v in values[1:]:
        total = prim("add", total, v)
    return total


register(Op(
    name="AddN", kind=Kind.ELEMENTWISE, inputs=("*inputs",), infer=_add_n_infer,
    gradient=lambda op, dy: [dy] * len(op.inputs), reference=lambda call: sum(call.arrays[1:], call.arrays[0]),
    lower=Pointwise(scalar=_add_n_scalar), doc="Sum of tensors of one shape, from left to right. tf.add_n",
    samples=lambda: [Sample((typed(d, 5, 7),) * n, differentiable=d.is_floating, ulp=8.0)
                     for d in NUMBERS for n in (1, 2, 3)]))

# -- choice -----------------------------------------------------------------------------------------------------------


def _select_infer(ctx: Inference) -> Sequence[PartialType]:
    condition, x, y = ctx.inputs
    check_dtype(ctx, condition, BOOLS, "the condition")
    dtype = check_same_dtype(ctx, (x, y))
    return [PartialType(dtype, broadcast_shapes(ctx, (condition.shape, x.shape, y.shape)))]


def _select_gradient(op: Any, dz: Any) -> Sequence[Any]:
    condition, x, y = op.inputs
    return [None, b.unbroadcast(_mask(condition, dz), x), b.unbroadcast(b.select(condition, 0, dz), y)]


def _select_samples(shapes: Sequence[tuple[tuple[int, ...], ...]]) -> list[Sample]:
    return [Sample((typed(bool_, *c), typed(d, *x), typed(d, *y)), differentiable=d.is_floating)
            for d in ALL for c, x, y in shapes]


register(Op(
    name="SelectV2", kind=Kind.ELEMENTWISE, inputs=("condition", "t", "e"), infer=_select_infer,
    gradient=_select_gradient, reference=lambda call: np.where(*call.arrays),
    lower=Pointwise(scalar=lambda attrs, c, x, y: prim("select", c, x, y)),
    samples=lambda: _select_samples((((5, 7),) * 3, ((5, 1), (5, 7), ()), ((), (3,), (2, 1)), ((0, 3),) * 3)),
    doc="t where the condition holds, else e; all broadcast. tf.where_v2"))


def _where_infer(ctx: Inference) -> Sequence[PartialType]:
    condition, x, y = ctx.inputs
    check_dtype(ctx, condition, BOOLS, "the condition")
    dtype = check_same_dtype(ctx, (x, y))
    shape = same_shapes(ctx, (x.shape, y.shape), "t and e must have one shape")
    if condition.shape is None or shape is None or not condition.shape:
        return [PartialType(dtype, shape)]
    message = f"a condition of shape {show(condition.shape)} does not choose among elements or rows of {show(shape)}"
    if len(condition.shape) == len(shape):
        return [PartialType(dtype, same_shapes(ctx, (shape, condition.shape), message))]
    if len(condition.shape) != 1 or not shape:
        raise ctx.fail(message, "the condition must be a scalar, a vector over the rows, or have the shape of t and e")
    ctx.equal(condition.shape[0], shape[0], message)
    return [PartialType(dtype, shape)]


def _rows_condition(condition: np.ndarray, rank: int) -> np.ndarray:
    return condition.reshape(condition.shape + (1,) * (rank - condition.ndim)) if condition.ndim else condition


def _where_decompose(d: Decomposition) -> Sequence[Any]:
    condition, x, y = d.inputs
    have, want = d.in_types[0].rank, d.in_types[1].rank
    if have and have != want:
        condition = d.op("ExpandDims", condition, axis=tuple(range(1, want)))
    return [d.op("SelectV2", condition, x, y)]


def _where_gradient(op: Any, dz: Any) -> Sequence[Any]:
    condition = op.inputs[0]
    zeros = b.zeros_like(dz)
    return [None, b.op("Select", condition, dz, zeros), b.op("Select", condition, zeros, dz)]


register(Op(
    name="Select", kind=Kind.ELEMENTWISE, inputs=("condition", "t", "e"), infer=_where_infer, gradient=_where_gradient,
    reference=lambda call: np.where(_rows_condition(call.arrays[0], call.arrays[1].ndim), *call.arrays[1:]),
    lower=NotLowered("decomposed into SelectV2"), decompose=_where_decompose,
    samples=lambda: _select_samples((((5, 7),) * 3, ((5,), (5, 7), (5, 7)), ((), (3,), (3,)))),
    doc="t where the condition holds, else e; the condition is a scalar, a vector over rows, or of their shape. "
        "tf.where"))


def _clip_scalar(attrs: Any, x: Expr, low: Expr, high: Expr) -> Expr:
    return prim("min", prim("max", x, low), high)


def _clip_gradient(op: Any, dz: Any) -> Sequence[Any]:
    x, low, high = op.inputs
    below, above = b.op("Less", x, low), b.op("Greater", x, high)
    inside = b.select(b.op("LogicalOr", below, above), 0, dz)
    return [b.unbroadcast(inside, x), b.unbroadcast(_mask(below, dz), low), b.unbroadcast(_mask(above, dz), high)]


register(Op(
    name="ClipByValue", kind=Kind.ELEMENTWISE, inputs=("t", "clip_value_min", "clip_value_max"),
    infer=lambda ctx: [PartialType(check_same_dtype(ctx, ctx.inputs, NUMBERS),
                                   broadcast_shapes(ctx, (t.shape for t in ctx.inputs)))],
    gradient=_clip_gradient, reference=lambda call: np.minimum(np.maximum(call.arrays[0], call.arrays[1]),
                                                               call.arrays[2]),
    lower=Pointwise(scalar=_clip_scalar), doc="x limited to a range. tf.clip_by_value",
    samples=lambda: [Sample((typed(d, 5, 7), typed(d), typed(d)), arrays={1: np.asarray(0, d.as_numpy_dtype),
                                                                        2: np.asarray(2, d.as_numpy_dtype)},
                            differentiable=d.is_floating) for d in NUMBERS]))
