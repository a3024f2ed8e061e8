"""Stabilisation: formulas that lose digits or overflow, said in the op that does not.

Owns the table.  Law: the same function over the reals; on floats at least as accurate, and finite wherever the formula
is ("rounding" for the values where the formula is accurate).  Runs before decomposition, so that it sees whole ops.
"""
from __future__ import annotations

from graphc.ir.function import Function
from graphc.passes.bodies import everywhere
from graphc.passes.patterns import FINITE, ROUNDING, Match, Rule, apply_rules, index

_PLAIN = {"x": (-2.0, 2.0)}
_POSITIVE = {"x": (0.1, 2.0)}


def _over_last_axis(m: Match) -> bool:
    """Whether the Sum runs over the last axis and keeps it, as a softmax does."""
    return m["k"]["axis"] == (m["x"].tensor.rank - 1,) and bool(m["k"]["keepdims"])


RULES: tuple[Rule, ...] = (
    Rule("RealDiv(Exp(x), Sum{k}(Exp(x)))", "Softmax(x)", ROUNDING, when=_over_last_axis, on="float",
         given={**_PLAIN, "k": {"axis": (1,), "keepdims": True}}),
    Rule("Log(Softmax(x))", "LogSoftmax(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Exp(LogSoftmax(x))", "Softmax(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Log(Add(Exp(x), 1))", "Softplus(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Log1p(Exp(x))", "Softplus(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Log(Add(x, 1))", "Log1p(x)", ROUNDING, on="float", given=_POSITIVE),
    Rule("Log(Sub(1, x))", "Log1p(Neg(x))", ROUNDING, on="float", given={"x": (0.1, 0.9)}),
    Rule("Sub(Exp(x), 1)", "Expm1(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Add(Exp(x), -1)", "Expm1(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("RealDiv(1, Add(Exp(Neg(x)), 1))", "Sigmoid(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Reciprocal(Add(Exp(Neg(x)), 1))", "Sigmoid(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Sub(1, Sigmoid(x))", "Sigmoid(Neg(x))", ROUNDING, on="float", given=_PLAIN),
    Rule("Log(Sigmoid(x))", "Neg(Softplus(Neg(x)))", ROUNDING, on="float", given=_PLAIN),
    Rule("Log1p(Neg(Sigmoid(x)))", "Neg(Softplus(x))", ROUNDING, on="float", given=_PLAIN),
    Rule("Sqrt(Square(x))", "Abs(x)", ROUNDING, on="float", given=_PLAIN),
    Rule("Log(Exp(x))", "x", FINITE, on="float", given=_PLAIN),
    # Gradients of log(softmax(x)) and log(sigmoid(x)), as they come where the logarithm is the user's: the division by
    # a probability that may underflow meets the product with it.
    Rule("Mul(RealDiv(g, Softmax(x)), Softmax(x))", "g", ROUNDING, on="float", given=_PLAIN),
    Rule("Mul(Sub(RealDiv(g, Softmax(x)), s), Softmax(x))", "Sub(g, Mul(s, Softmax(x)))", ROUNDING, on="float",
         given=_PLAIN),
    Rule("Mul(RealDiv(g, Sigmoid(x)), Mul(Sigmoid(x), y))", "Mul(g, y)", ROUNDING, on="float", given=_PLAIN),
    Rule("Mul(Neg(RealDiv(g, Sigmoid(x))), Mul(Sigmoid(x), y))", "Neg(Mul(g, y))", ROUNDING, on="float", given=_PLAIN),
)

TABLE = index(RULES)


@everywhere
def stabilise(function: Function, numerics: str = "default") -> Function:
    """Return `function` with unstable formulas replaced."""
    return apply_rules(function, TABLE, numerics)
