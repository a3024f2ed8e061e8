"""Special functions of one input: erfc, lgamma, digamma, trigamma.

Owns them.  Must not know other ops.  Invariant: they are computed in float64 whatever the input's dtype, so that one
expansion serves every float; the primitives they use are those of kernel IR.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.dtypes import float64
from graphc.kernel.ir import Expr, const
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import NoGradient
from graphc.ops.elementwise import unary
from graphc.ops.rules import FLOATS


def _c(value: float) -> Expr:
    return const(value, float64)


def _add(*terms: Expr) -> Expr:
    total = terms[0]
    for t in terms[1:]:
        total = prim("add", total, t)
    return total


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial with these coefficients, the highest power first."""
    total: Expr = _c(coefficients[0])
    for a in coefficients[1:]:
        total = prim("fma", total, x, _c(a))
    return total


# -- complementary error function -------------------------------------------------------------------------------------

# Chebyshev coefficients of log(erfc(x) / t) + x^2 over y = 2t - 1, t = 2 / (2 + x), for x >= 0; fitted with 40 digits,
# the sum is within 3 ulp of float64 up to underflow.
_ERFC = (
    -0.6513268598908547, 0.6419697923564902, 0.019476473204185836, -0.009561514786808632, -0.0009465953444820369,
    0.00036683949785276145, 4.252332480690777e-05, -2.0278578112534242e-05, -1.6242900046470256e-06,
    1.3036558355805232e-06, 1.5626441722066142e-08, -8.523809591492654e-08, 6.5290544390988515e-09,
    5.059343495551469e-09, -9.91364156493033e-10, -2.2736512229318357e-10, 9.646791102015528e-11,
    2.394038083038881e-12, -6.886027526496772e-12, 8.94487927308485e-13, 3.130921399286456e-13,
    -1.1270822358703124e-13, 3.8109048679522714e-16, 7.10609747757342e-15, -1.5230273230386746e-15,
    -9.457658425771247e-17, 1.2102032928879454e-16)


def _erfc(x: Expr) -> Expr:
    wide = cast(x, float64)
    a = prim("min", prim("abs", wide), _c(30))  # erfc(30) underflows; NaN goes through
    t = prim("div", _c(2), prim("add", _c(2), a))
    y = prim("fma", t, _c(2), _c(-1))
    twice = prim("add", y, y)
    first: Expr = _c(0)
    second: Expr = _c(0)
    for k in _ERFC[:0:-1]:  # Clenshaw
        first, second = prim("sub", prim("fma", twice, first, _c(k)), second), first
    power = prim("sub", prim("fma", y, first, _c(_ERFC[0])), second)
    square = prim("mul", a, a)
    lost = prim("fma", a, a, prim("neg", square))
    tail = prim("mul", prim("mul", t, prim("exp", prim("neg", square))), prim("exp", prim("sub", power, lost)))
    return cast(prim("select", prim("lt", wide, _c(0)), prim("sub", _c(2), tail), tail), x.dtype)


unary("Erfc", FLOATS, np.vectorize(math.erfc, otypes=[np.float64]), _erfc,
      lambda x, y, dy: b.mul(b.mul(dy, -2 / math.sqrt(math.pi)), b.op("Exp", b.op("Neg", b.op("Square", x)))),
      "1 - erf(x), exact where that is small. tf.erfc", ulp=8.0)

# -- logarithm of gamma -----------------------------------------------------------------------------------------------

# Source: C. Lanczos, "A precision approximation of the gamma function", 1964; g = 7, nine terms.
_LANCZOS_G = 7.0
_LGAMMA_LARGEST = 2.55634816387169e305  # log(gamma(x)) overflows beyond it
_LANCZOS = (0.99999999999980993227684700473478, 676.520368121885098567009190444019, -1259.13921672240287047156078755283,
            771.3234287776530788486528258894, -176.61502916214059906584551354, 12.507343278686904814458936853,
            -0.13857109526572011689554707, 9.984369578019570859563e-6, 1.50563273514931155834e-7)


def _lgamma(x: Expr) -> Expr:
    wide = cast(x, float64)
    reflect = prim("lt", wide, _c(0.5))
    z = prim("select", reflect, prim("neg", wide), prim("sub", wide, _c(1)))
    series: Expr = _c(_LANCZOS[0])
    for k, a in enumerate(_LANCZOS[1:], 1):
        series = prim("add", series, prim("div", _c(a), prim("add", z, _c(k))))
    log_t = prim("add", _c(math.log(_LANCZOS_G + 0.5)), prim("log1p", prim("div", z, _c(_LANCZOS_G + 0.5))))
    t = prim("add", z, _c(_LANCZOS_G + 0.5))
    scaled = prim("mul", prim("sub", prim("add", z, _c(0.5)), prim("div", t, log_t)), log_t)
    above = _add(scaled, _c(0.5 * math.log(2 * math.pi)), prim("log", series))
    sine = prim("sin", prim("mul", _c(math.pi), prim("abs", prim("sub", wide, prim("rint", wide)))))
    below = prim("sub", prim("sub", _c(math.log(math.pi)), prim("log", sine)), above)
    value = prim("select", reflect, below, above)
    root = prim("or", prim("eq", wide, _c(1)), prim("eq", wide, _c(2)))
    infinite = prim("lt", _c(_LGAMMA_LARGEST), prim("abs", wide))  # below its negative there are poles alone
    value = prim("select", infinite, _c(math.inf), prim("select", root, _c(0), value))
    return cast(value, x.dtype)


def _lgamma_scalar(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:  # of the largest numbers
        return math.inf


unary("Lgamma", FLOATS, np.vectorize(_lgamma_scalar, otypes=[np.float64]), _lgamma,
      lambda x, y, dy: b.mul(dy, b.op("Digamma", x)), "log(|gamma(x)|). tf.lgamma", domain=(0.1, 6.0), ulp64=1024.0)

# -- its derivatives --------------------------------------------------------------------------------------------------

_SHIFT = 10  # the asymptotic series is used at x + 10
# Bernoulli numbers B2k / 2k, and B2k, for k = 7 .. 1.
_DIGAMMA = (1 / 12, -691 / 32760, 5 / 660, -1 / 240, 1 / 252, -1 / 120, 1 / 12)
_TRIGAMMA = (7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6)


def _reflected(wide: Expr) -> tuple[Expr, Expr, Expr]:
    """Whether x < 0.5; x or 1 - x, whichever is above; x less its nearest integer."""
    reflect = prim("lt", wide, _c(0.5))
    return (reflect, prim("select", reflect, prim("sub", _c(1), wide), wide),
            prim("sub", wide, prim("rint", wide)))


def _digamma(x: Expr) -> Expr:
    wide = cast(x, float64)
    reflect, at, part = _reflected(wide)
    shifted = prim("add", at, _c(_SHIFT))
    inverse = prim("div", _c(1), shifted)
    square = prim("mul", inverse, inverse)
    series = prim("mul", square, _horner(square, _DIGAMMA))
    value = prim("sub", prim("sub", prim("log", shifted), prim("mul", _c(0.5), inverse)), series)
    for k in range(_SHIFT - 1, -1, -1):
        value = prim("sub", value, prim("div", _c(1), prim("add", at, _c(k))))
    cotangent = prim("div", _c(math.pi), prim("tan", prim("mul", _c(math.pi), part)))
    whole = prim("and", prim("eq", part, _c(0)), reflect)
    value = prim("select", reflect, prim("sub", value, cotangent), value)
    return cast(prim("select", whole, _c(math.nan), value), x.dtype)


def _trigamma(x: Expr) -> Expr:
    wide = cast(x, float64)
    reflect, at, part = _reflected(wide)
    shifted = prim("add", at, _c(_SHIFT))
    inverse = prim("div", _c(1), shifted)
    square = prim("mul", inverse, inverse)
    series = prim("mul", prim("mul", square, inverse), _horner(square, _TRIGAMMA))
    value = _add(series, prim("mul", _c(0.5), square), inverse)
    for k in range(_SHIFT - 1, -1, -1):
        term = prim("div", _c(1), prim("add", at, _c(k)))
        value = prim("fma", term, term, value)
    quotient = prim("div", _c(math.pi), prim("sin", prim("mul", _c(math.pi), part)))
    return cast(prim("select", reflect, prim("sub", prim("mul", quotient, quotient), value), value), x.dtype)


def _digamma_reference(x: np.ndarray) -> np.ndarray:
    reflect = x < 0.5
    at = np.where(reflect, 1 - x, x)
    total = np.zeros_like(at)
    for k in range(16):
        total = total - 1 / (at + k)
    z = at + 16
    value = total + np.log(z) - 0.5 / z - np.polyval(_DIGAMMA, z ** -2.0) * z ** -2.0
    part = x - np.rint(x)
    value = np.where(reflect, value - np.pi / np.tan(np.pi * part), value)
    return np.where(reflect & (part == 0), np.nan, value)


def _trigamma_reference(x: np.ndarray) -> np.ndarray:
    reflect = x < 0.5
    at = np.where(reflect, 1 - x, x)
    total = np.zeros_like(at)
    for k in range(16):
        total = total + (at + k) ** -2.0
    z = at + 16
    value = total + 1 / z + 0.5 * z ** -2.0 + np.polyval(_TRIGAMMA, z ** -2.0) * z ** -3.0
    return np.where(reflect, (np.pi / np.sin(np.pi * (x - np.rint(x)))) ** 2 - value, value)


unary("Digamma", FLOATS, _digamma_reference, _digamma, lambda x, y, dy: b.mul(dy, b.op("Trigamma", x)),
      "The derivative of lgamma. tf.digamma", domain=(0.3, 6.0), ulp64=1024.0, special=False)
unary("Trigamma", FLOATS, _trigamma_reference, _trigamma,
      NoGradient("the third derivative of lgamma has no op"), "The derivative of digamma. tf.math.polygamma(1, x)",
      domain=(0.3, 6.0), ulp64=64.0, special=False)
