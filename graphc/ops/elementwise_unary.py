"""Ops of one input, element by element: neg, exp, tanh, floor, is_nan ...

Owns their rows.  Must not know fusion or other op files.  Invariant: `scalar` sees float16 and bfloat16 as float32, and
writes its constants in the dtype of its argument, so that one line serves every float.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.kernel.ir import Expr, const
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import Call, InvalidValue, Kind, NoGradient, Op, Point, Pointwise, operand, register
from graphc.ops.elementwise import unary
from graphc.ops.rules import BOOLS, FLOATS, INTEGERS, NUMBERS, SIGNED, elementwise, samples_of


def _one(x: Expr) -> Expr:
    return const(1, x.dtype)


def _of(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


def _p(name: str) -> Callable[[Expr], Expr]:
    return lambda x: prim(name, x)


def _sign(x: Expr) -> Expr:
    zero = const(0, x.dtype)
    if not x.dtype.is_floating:
        below = prim("select", prim("lt", x, zero), const(-1, x.dtype), zero) if x.dtype.kind == "int" else zero
        return prim("select", prim("lt", zero, x), const(1, x.dtype), below)
    unit = prim("select", prim("lt", x, zero), const(-1, x.dtype), x)  # keeps NaN and the zero's sign
    return prim("select", prim("lt", zero, x), const(1, x.dtype), unit)


def _sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)): exp overflows to infinity where the quotient is 0 anyway."""
    return prim("div", _one(x), prim("add", _one(x), prim("exp", prim("neg", x))))


def _sigmoid_reference(x: np.ndarray) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _zero(x: Any, y: Any, dy: Any) -> Any:
    return b.zeros_like(x)


def _round_integers(x: Expr) -> Expr:
    return prim("rint", x) if x.dtype.is_floating else x


# -- arithmetic -------------------------------------------------------------------------------------------------------

unary("Neg", NUMBERS, np.negative, _p("neg"), lambda x, y, dy: b.op("Neg", dy),
       "Negate. tf.negative", symbolic=True)
unary("Abs", SIGNED + FLOATS, np.abs, _p("abs"), lambda x, y, dy: b.mul(dy, b.op("Sign", x)),
       "Absolute value. tf.abs")
unary("Sign", SIGNED + FLOATS, np.sign, _sign, _zero, "-1, 0 or 1 as the sign of x; NaN stays. tf.sign")
unary("Square", NUMBERS, np.square, lambda x: prim("mul", x, x), lambda x, y, dy: b.mul(dy, b.mul(x, 2)),
       "x * x. tf.square", symbolic=True)
unary("Sqrt", FLOATS, np.sqrt, _p("sqrt"), lambda x, y, dy: b.div(b.mul(dy, 0.5), y),
       "Square root. tf.sqrt", domain=(0.1, 9.0))
unary("Rsqrt", FLOATS, lambda x: 1 / np.sqrt(x), lambda x: prim("div", _one(x), prim("sqrt", x)),
       lambda x, y, dy: b.mul(b.mul(dy, -0.5), b.mul(y, b.op("Square", y))),
       "Reciprocal square root. tf.rsqrt", domain=(0.1, 9.0))
unary("Reciprocal", FLOATS, lambda x: 1 / x, lambda x: prim("div", _one(x), x),
       lambda x, y, dy: b.op("Neg", b.mul(dy, b.op("Square", y))), "1 / x. tf.reciprocal", domain=(0.5, 3.0))

# -- exponentials and logarithms --------------------------------------------------------------------------------------

unary("Exp", FLOATS, np.exp, _p("exp"), lambda x, y, dy: b.mul(dy, y), "e to the x. tf.exp")
unary("Expm1", FLOATS, np.expm1, _p("expm1"), lambda x, y, dy: b.mul(dy, b.op("Exp", x)),
       "exp(x) - 1, exact near 0. tf.expm1")
unary("Log", FLOATS, np.log, _p("log"), lambda x, y, dy: b.div(dy, x),
       "Natural logarithm. tf.log", domain=(0.1, 5.0))
unary("Log1p", FLOATS, np.log1p, _p("log1p"), lambda x, y, dy: b.div(dy, b.add(x, 1)),
       "log(1 + x), exact near 0. tf.log1p", domain=(-0.8, 4.0))
unary("Sigmoid", FLOATS, _sigmoid_reference, _sigmoid,
       lambda x, y, dy: b.mul(dy, b.mul(y, b.sub(1, y))), "1 / (1 + exp(-x)). tf.sigmoid", ulp=8.0)

# -- trigonometric and hyperbolic -------------------------------------------------------------------------------------

unary("Sin", FLOATS, np.sin, _p("sin"), lambda x, y, dy: b.mul(dy, b.op("Cos", x)), "Sine. tf.sin")
unary("Cos", FLOATS, np.cos, _p("cos"), lambda x, y, dy: b.op("Neg", b.mul(dy, b.op("Sin", x))), "Cosine. tf.cos")
unary("Tan", FLOATS, np.tan, _p("tan"), lambda x, y, dy: b.mul(dy, b.add(b.op("Square", y), 1)),
       "Tangent. tf.tan", domain=(-1.4, 1.4))
unary("Asin", FLOATS, np.arcsin, _p("asin"),
       lambda x, y, dy: b.mul(dy, b.op("Rsqrt", b.sub(1, b.op("Square", x)))),
       "Inverse sine. tf.asin", domain=(-0.9, 0.9))
unary("Acos", FLOATS, np.arccos, _p("acos"),
       lambda x, y, dy: b.op("Neg", b.mul(dy, b.op("Rsqrt", b.sub(1, b.op("Square", x))))),
       "Inverse cosine. tf.acos", domain=(-0.9, 0.9))
unary("Atan", FLOATS, np.arctan, _p("atan"), lambda x, y, dy: b.div(dy, b.add(b.op("Square", x), 1)),
       "Inverse tangent. tf.atan")
unary("Sinh", FLOATS, np.sinh, _p("sinh"), lambda x, y, dy: b.mul(dy, b.op("Cosh", x)), "Hyperbolic sine. tf.sinh")
unary("Cosh", FLOATS, np.cosh, _p("cosh"), lambda x, y, dy: b.mul(dy, b.op("Sinh", x)), "Hyperbolic cosine. tf.cosh")
unary("Tanh", FLOATS, np.tanh, _p("tanh"), lambda x, y, dy: b.mul(dy, b.sub(1, b.op("Square", y))),
       "Hyperbolic tangent. tf.tanh")
unary("Asinh", FLOATS, np.arcsinh, _p("asinh"), lambda x, y, dy: b.div(dy, b.op("Cosh", y)),
       "Inverse hyperbolic sine. tf.asinh")
unary("Acosh", FLOATS, np.arccosh, _p("acosh"), lambda x, y, dy: b.div(dy, b.op("Sinh", y)),
       "Inverse hyperbolic cosine. tf.acosh", domain=(1.2, 6.0))
unary("Atanh", FLOATS, np.arctanh, _p("atanh"), lambda x, y, dy: b.div(dy, b.sub(1, b.op("Square", x))),
       "Inverse hyperbolic tangent. tf.atanh", domain=(-0.9, 0.9))

# -- error function ---------------------------------------------------------------------------------------------------

_erf_reference = np.vectorize(math.erf, otypes=[np.float64])
_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)


def _gaussian(x: Any, dy: Any, factor: float) -> Any:
    return b.mul(b.mul(dy, factor), b.op("Exp", b.op("Neg", b.op("Square", x))))


unary("Erf", FLOATS, _erf_reference, _p("erf"), lambda x, y, dy: _gaussian(x, dy, _TWO_OVER_SQRT_PI),
       "Gauss error function. tf.erf")

# -- rounding ---------------------------------------------------------------------------------------------------------

_STEP = NoGradient("a step function: its derivative is zero wherever it has one")
unary("Floor", FLOATS, np.floor, _p("floor"), _STEP, "Largest integer not above x. tf.floor")
unary("Ceil", FLOATS, np.ceil, _p("ceil"), _STEP, "Smallest integer not below x. tf.ceil")
unary("Rint", FLOATS, np.rint, _p("rint"), _STEP, "Nearest integer, ties to even. tf.rint")
unary("Round", NUMBERS, lambda x: np.rint(x) if x.dtype.kind == "f" else x, _round_integers, _STEP,
       "Nearest integer, ties to even. tf.round")

# -- tests and logic --------------------------------------------------------------------------------------------------

_TEST = NoGradient("the result is bool")
unary("IsNan", FLOATS, np.isnan, lambda x: prim("ne", x, x), _TEST, "Whether x is not a number. tf.is_nan",
       result=bool_)
unary("IsInf", FLOATS, np.isinf, lambda x: prim("eq", prim("abs", x), _of(x, math.inf)), _TEST,
       "Whether x is infinite. tf.is_inf", result=bool_)
unary("IsFinite", FLOATS, np.isfinite, lambda x: prim("lt", prim("abs", x), _of(x, math.inf)), _TEST,
       "Whether x is neither infinite nor NaN. tf.is_finite", result=bool_)
unary("LogicalNot", BOOLS, np.logical_not, _p("not"), _TEST, "Negation. tf.logical_not")
unary("Invert", INTEGERS, np.invert, _p("not"), NoGradient("works on bits"), "Every bit flipped. tf.bitwise.invert")


# -- checks -----------------------------------------------------------------------------------------------------------


def _check_numerics_reference(call: Call) -> np.ndarray:
    (x,) = call.arrays
    if not np.isfinite(x).all():
        raise InvalidValue(f"{call.attrs['message']}: the tensor has NaN or Inf values")
    return x


def _check_numerics(p: Point) -> Expr:
    x = operand(p, 0)
    ok = prim("lt", prim("abs", x), const(math.inf, x.dtype))
    return p.guard(x, ok, x, "assert", f"{p.attrs['message']}: the tensor has NaN or Inf values")


def _check_numerics_gradient(op: Any, dy: Any) -> list[Any]:
    return [b.op("CheckNumerics", dy, message="not a number (NaN) or infinity (Inf) values detected in gradient")]


register(Op(
    name="CheckNumerics", kind=Kind.ELEMENTWISE, inputs=("tensor",), attrs={"message": ""},
    infer=elementwise(FLOATS), gradient=_check_numerics_gradient,
    reference=_check_numerics_reference, lower=Pointwise(point=_check_numerics),
    samples=samples_of(FLOATS, (((),), ((5, 7),)), special=False), stateful=True,
    doc="Give the input; fail where it holds a NaN or an infinity. tf.check_numerics"))
