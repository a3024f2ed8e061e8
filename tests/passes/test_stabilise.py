"""Stabilisation does what it is for: formulas as users write them stay finite and accurate where they would not."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.evaluate import evaluate
from graphc.ir.parse import parse
from graphc.options import Options
from graphc.passes.pipeline import optimise

ONE = "%one = Const() {value=array float32[] (1.0,), dtype=float32}"
FORMULAS = [
    ("%s = Softmax(%x) %y = Log(%s)", [[-200.0, 0.0, 200.0]], [[-400.0, -200.0, 0.0]]),
    ("%e = Exp(%x) %s = Sum(%e) {axis=(1,), keepdims=true} %y = RealDiv(%e, %s)", [[1000.0, 1000.0]], [[0.5, 0.5]]),
    (f"{ONE} %e = Exp(%x) %a = Add(%one, %e) %y = Log(%a)", [[-30.0, 200.0]], [[9.357623e-14, 200.0]]),
    (f"{ONE} %a = Add(%x, %one) %y = Log(%a)", [[1e-12, 1.0]], [[1e-12, 0.6931472]]),
    (f"{ONE} %e = Exp(%x) %y = Sub(%e, %one)", [[1e-12, 0.0]], [[1e-12, 0.0]]),
    ("%s = Sigmoid(%x) %y = Log(%s)", [[-300.0, 300.0]], [[-300.0, 0.0]]),
    (f"{ONE} %s = Sigmoid(%x) %t = Sub(%one, %s) %y = Log(%t)", [[300.0, 20.0]], [[-300.0, -20.0]]),
    ("%s = Softmax(%x) %q = RealDiv(%x, %s) %y = Mul(%q, %s)", [[-500.0, 500.0]], [[-500.0, 500.0]]),
]


@pytest.mark.parametrize(("body", "x", "want"), FORMULAS)
def test_formulas(body: str, x: list[list[float]], want: list[list[float]]) -> None:
    n = len(x[0])
    f = parse(f"func @f(%x: float32[1, {n}]) {{ {body} return %y }}")
    (got,), _ = evaluate(optimise(f, Options()), [x])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-20)


def test_strict_numerics_keep_the_formula() -> None:
    f = parse("func @f(%x: float32[1, 2]) { %s = Sigmoid(%x) %y = Log(%s) return %y }")
    with np.errstate(all="ignore"):
        assert np.isneginf(evaluate(optimise(f, Options(numerics="strict")), [[[-300.0, 1.0]]])[0][0][0, 0])
