"""ONNX for ops that work element by element: a table of rows, one per op.

Owns what each such op is in ONNX's operators.  Must not know other tables.  Invariant: a row agrees with the op's
reference to a few units in the last place on finite values in range; what ONNX leaves open (casts of numbers out of
range) is as the runtime has it.
"""
from __future__ import annotations

import math
from collections.abc import Mapping

from graphc import dtypes
from graphc.dtypes import DType, bool_
from graphc.interop.onnx_builder import Applied, Ref, Refused, Row
from graphc.ops.nn import SELU_SCALE, SELU_SCALE_ALPHA

MOST_FACTORS = 64  # of a power of integers that is written as products


def _as(operator: str) -> Row:
    """The operator on the inputs as they are."""
    return lambda a: a(operator, *a.inputs)


def _test(operator: str) -> Row:
    """An operator whose result is bool."""
    return lambda a: a(operator, *a.inputs, dtype=bool_)


def _not(operator: str) -> Row:
    return lambda a: a("Not", a(operator, *a.inputs, dtype=bool_))


def _differ(a: Applied, x: Ref, y: Ref) -> Ref:
    return a("Not", a("Equal", x, y, dtype=bool_))


# -- division ---------------------------------------------------------------------------------------------------------


def _floor_div(a: Applied) -> Ref:
    x, y = a.inputs
    quotient = a("Div", x, y)
    if x.dtype.is_floating:
        return a("Floor", quotient)
    if x.dtype.is_unsigned:
        return quotient
    zero = a.number(0)
    below = a("Xor", a("Less", x, zero, dtype=bool_), a("Less", y, zero, dtype=bool_), dtype=bool_)
    rest = _differ(a, a("Mod", x, y), zero)
    return a("Sub", quotient, a.to.cast(a("And", rest, below, dtype=bool_), x.dtype))


def _truncate_div(a: Applied) -> Ref:
    quotient = a("Div", *a.inputs)
    return a("Mul", a("Sign", quotient), a("Floor", a("Abs", quotient))) if a.x.dtype.is_floating else quotient


def _floor_mod(a: Applied) -> Ref:
    x, y = a.inputs
    if not x.dtype.is_floating:
        return a("Mod", x, y)
    rest, zero = a("Mod", x, y, fmod=1), a.number(0)
    signs = a("Xor", a("Less", rest, zero, dtype=bool_), a("Less", y, zero, dtype=bool_), dtype=bool_)
    wrong = a("And", _differ(a, rest, zero), signs, dtype=bool_)
    return a("Where", wrong, a("Add", rest, y), rest)


def _truncate_mod(a: Applied) -> Ref:
    x, y = a.inputs
    return a("Mod", x, y, fmod=1) if x.dtype.is_floating else a("Sub", x, a("Mul", a("Div", x, y), y))


def _pow(a: Applied) -> Ref:
    x, y = a.inputs
    if x.dtype.is_floating:
        return a("Pow", x, y)
    power = a.to.arrays.get(y.number)
    if power is None or power.size != 1 or not 0 <= int(power.reshape(-1)[0]) <= MOST_FACTORS:
        raise Refused("ONNX's power of integers does not wrap; only constant powers up to "
                      f"{MOST_FACTORS} are written as products")
    result: Ref | None = None
    square, rest = x, int(power.reshape(-1)[0])
    while rest:
        if rest & 1:
            result = square if result is None else a("Mul", result, square)
        rest >>= 1
        square = a("Mul", square, square) if rest else square
    if result is None:
        result = a("Expand", a.number(1), a.to.sizes(a.out.shape))
    return result


# -- functions that ONNX has not --------------------------------------------------------------------------------------


def _expm1(a: Applied) -> Ref:
    """tanh(x / 2) * (exp(x) + 1), which keeps its digits near 0."""
    return a("Mul", a("Tanh", a("Mul", a.x, a.number(0.5))), a("Add", a("Exp", a.x), a.number(1)))


def _log1p(a: Applied) -> Ref:
    """log(u) * x / (u - 1) with u = 1 + x, whose rounding cancels.  Source: Goldberg 1991, theorem 4."""
    one = a.number(1)
    u = a("Add", a.x, one)
    logarithm = a("Log", u)
    near = a("Mul", logarithm, a("Div", a.x, a("Sub", u, one)))
    near = a("Where", a("Equal", u, one, dtype=bool_), a.x, near)
    return a("Where", a("Less", a.x, one, dtype=bool_), near, logarithm)


def _atan2(a: Applied) -> Ref:
    """The inverse tangent of y / x in the half plane that x and y lie in."""
    y, x = a.inputs
    zero, pi = a.number(0), a.number(math.pi)
    above = a("GreaterOrEqual", y, zero, dtype=bool_)
    turn = a("Where", above, pi, a("Neg", pi))
    slope = a("Atan", a("Div", y, x))
    slanted = a("Where", a("Less", x, zero, dtype=bool_), a("Add", slope, turn), slope)
    upright = a("Mul", a("Sign", y), a.number(math.pi / 2))
    return a("Where", a("Equal", x, zero, dtype=bool_), upright, slanted)


def _where_zero(operator: str, second: str | None) -> Row:
    """0 where x is 0, else x times (or divided by) what `second` makes of y."""
    def row(a: Applied) -> Ref:
        x, y = a.inputs
        zero = a.number(0)
        return a("Where", a("Equal", x, zero, dtype=bool_), zero, a(operator, x, a(second, y) if second else y))
    return row


def _div_no_nan(a: Applied) -> Ref:
    x, y = a.inputs
    zero = a.number(0)
    return a("Where", a("Equal", y, zero, dtype=bool_), zero, a("Div", x, y))


# -- activations and their slopes -------------------------------------------------------------------------------------


def _relu(a: Applied) -> Ref:
    return a("Relu", a.x) if a.x.dtype.is_floating else a("Max", a.x, a.number(0))


def _clip(a: Applied, low: float, high: float) -> Ref:
    return a("Clip", a.x, a.number(low), a.number(high))


def _clip_by(a: Applied) -> Ref:
    x, low, high = a.inputs
    return a("Min", a("Max", x, low), high)


def _masked(a: Applied, mask: Ref) -> Ref:
    return a("Where", mask, a.x, a.number(0))


def _relu_grad(a: Applied) -> Ref:
    return _masked(a, a("Greater", a.inputs[1], a.number(0), dtype=bool_))


def _relu6_grad(a: Applied) -> Ref:
    f = a.inputs[1]
    inside = a("And", a("Greater", f, a.number(0), dtype=bool_), a("Less", f, a.number(6), dtype=bool_), dtype=bool_)
    return _masked(a, inside)


def _exponential_grad(scale: float, below: float) -> Row:
    def row(a: Applied) -> Ref:
        g, y = a.inputs
        low = a("Mul", g, a("Add", y, a.number(below)))
        high = g if scale == 1 else a("Mul", g, a.number(scale))
        return a("Where", a("Less", y, a.number(0), dtype=bool_), low, high)
    return row


def _softsign_grad(a: Applied) -> Ref:
    g, f = a.inputs
    base = a("Add", a("Abs", f), a.number(1))
    return a("Div", a("Div", g, base), base)


def _leaky_grad(a: Applied) -> Ref:
    g, f = a.inputs
    return a("Where", a("Greater", f, a.number(0), dtype=bool_), g, a("Mul", g, a.number(a.attrs["alpha"])))


def _selu(a: Applied) -> Ref:
    return a("Selu", a.x, alpha=SELU_SCALE_ALPHA / SELU_SCALE, gamma=SELU_SCALE)


def negated(a: Applied, x: Ref) -> Ref:
    """Return -x; of unsigned integers, which ONNX does not negate, from 0."""
    return a("Sub", a.number(0, x.dtype), x) if x.dtype.is_unsigned else a("Neg", x)


# -- bits -------------------------------------------------------------------------------------------------------------

_UNSIGNED: Mapping[DType, DType] = {dtypes.int8: dtypes.uint8, dtypes.int16: dtypes.uint16, dtypes.int32: dtypes.uint32,
                                    dtypes.int64: dtypes.uint64}


def _shift(a: Applied, direction: str) -> Ref:
    x, y = a.inputs
    own, bits = x.dtype, _UNSIGNED.get(x.dtype, x.dtype)
    places = a.to.cast(a("Mod", y, a.number(own.bits)), bits)
    negative = None
    if own.kind == "int" and direction == "RIGHT":  # the sign is kept: complement, shift, complement
        negative = a("Less", x, a.number(0), dtype=bool_)
        x = a("Where", negative, a("BitwiseNot", x), x)
    shifted = a.to.cast(a("BitShift", a.to.cast(x, bits), places, direction=direction), own)
    return shifted if negative is None else a("Where", negative, a("BitwiseNot", shifted), shifted)


# -- the rest ---------------------------------------------------------------------------------------------------------


def _cast(a: Applied) -> Ref:
    return a.to.cast(a.x, a.attrs["dtype"])


def _select(a: Applied) -> Ref:
    condition, x, y = a.inputs
    have, want = a.in_types[0], a.out.rank
    if have.rank and have.rank != want:
        condition = a.to.reshaped(condition, have.shape, (*have.shape, *[1] * (want - 1)))
    return a("Where", condition, x, y)


def _bias_add(a: Applied) -> Ref:
    value, bias = a.inputs
    rank = a.out.rank
    if a.attrs["data_format"].startswith("NC") and rank > 2:
        bias = a.to.reshaped(bias, a.in_types[1].shape, (a.in_types[1].shape[0], *[1] * (rank - 2)))
    return a("Add", value, bias)


def _sum_of_all(a: Applied) -> Ref:
    total = a.inputs[0]
    for x in a.inputs[1:]:
        total = a("Add", total, x)
    return total


def _like(value: int) -> Row:
    return lambda a: a("Expand", a.number(value), a.to.sizes(a.out.shape))


def _is_finite(a: Applied) -> Ref:
    return a("Not", a("Or", a("IsNaN", a.x, dtype=bool_), a("IsInf", a.x, dtype=bool_), dtype=bool_))


def _invert(a: Applied) -> Ref:
    return a("BitwiseNot", a.x)


ROWS: Mapping[str, Row] = {
    "Add": _as("Add"), "Sub": _as("Sub"), "Mul": _as("Mul"), "RealDiv": _as("Div"), "Div": _as("Div"),
    "DivNoNan": _div_no_nan, "FloorDiv": _floor_div, "TruncateDiv": _truncate_div, "FloorMod": _floor_mod,
    "TruncateMod": _truncate_mod, "Pow": _pow, "Maximum": _as("Max"), "Minimum": _as("Min"),
    "SquaredDifference": lambda a: (lambda d: a("Mul", d, d))(a("Sub", *a.inputs)),
    "Atan2": _atan2, "Xlogy": _where_zero("Mul", "Log"), "Xdivy": _where_zero("Div", None), "AddN": _sum_of_all,
    # comparisons and logic
    "Equal": _test("Equal"), "NotEqual": _not("Equal"), "Less": _test("Less"), "LessEqual": _test("LessOrEqual"),
    "Greater": _test("Greater"), "GreaterEqual": _test("GreaterOrEqual"), "LogicalAnd": _test("And"),
    "LogicalOr": _test("Or"), "LogicalXor": _test("Xor"), "LogicalNot": _as("Not"), "IsNan": _test("IsNaN"),
    "IsInf": _test("IsInf"), "IsFinite": _is_finite, "SelectV2": _as("Where"), "Select": _select,
    # bits
    "BitwiseAnd": _as("BitwiseAnd"), "BitwiseOr": _as("BitwiseOr"), "BitwiseXor": _as("BitwiseXor"), "Invert": _invert,
    "LeftShift": lambda a: _shift(a, "LEFT"), "RightShift": lambda a: _shift(a, "RIGHT"),
    # of one input
    "Neg": lambda a: negated(a, a.x), "Abs": _as("Abs"), "Sign": _as("Sign"), "Square": lambda a: a("Mul", a.x, a.x),
    "Sqrt": _as("Sqrt"), "Rsqrt": lambda a: a("Reciprocal", a("Sqrt", a.x)), "Reciprocal": _as("Reciprocal"),
    "Exp": _as("Exp"), "Expm1": _expm1, "Log": _as("Log"), "Log1p": _log1p, "Sigmoid": _as("Sigmoid"),
    "Sin": _as("Sin"), "Cos": _as("Cos"), "Tan": _as("Tan"), "Asin": _as("Asin"), "Acos": _as("Acos"),
    "Atan": _as("Atan"), "Sinh": _as("Sinh"), "Cosh": _as("Cosh"), "Tanh": _as("Tanh"), "Asinh": _as("Asinh"),
    "Acosh": _as("Acosh"), "Atanh": _as("Atanh"), "Erf": _as("Erf"),
    "Erfc": lambda a: a("Sub", a.number(1), a("Erf", a.x)), "Floor": _as("Floor"), "Ceil": _as("Ceil"),
    "Rint": _as("Round"), "Round": lambda a: a("Round", a.x) if a.x.dtype.is_floating else a.x,
    # activations
    "Relu": _relu, "Relu6": lambda a: _clip(a, 0, 6), "ClipByValue": _clip_by, "Elu": _as("Elu"), "Selu": _selu,
    "Softplus": _as("Softplus"), "Softsign": _as("Softsign"),
    "LeakyRelu": lambda a: a("LeakyRelu", a.x, alpha=float(a.attrs["alpha"])), "ReluGrad": _relu_grad,
    "Relu6Grad": _relu6_grad, "EluGrad": _exponential_grad(1.0, 1.0),
    "SeluGrad": _exponential_grad(SELU_SCALE, SELU_SCALE_ALPHA),
    "SoftplusGrad": lambda a: a("Mul", a.x, a("Sigmoid", a.inputs[1])), "SoftsignGrad": _softsign_grad,
    "LeakyReluGrad": _leaky_grad, "BiasAdd": _bias_add,
    # the rest
    "Cast": _cast, "ZerosLike": _like(0), "OnesLike": _like(1),
}
