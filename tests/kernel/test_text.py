"""The printed form of kernels: the sketch in ir.py, precedence, and that different kernels differ."""
from __future__ import annotations

import math
import operator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.dtypes import bfloat16, bool_, float32, float64, int32, uint8
from graphc.ir.dim import symbol
from graphc.kernel.ir import (
    Axis,
    Expr,
    For,
    Guard,
    Kernel,
    Load,
    Param,
    Prim,
    Random,
    Reduce,
    Site,
    Store,
    Var,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import format_expr, format_kernel, format_stmt
from tests.backends.kernels import SAMPLES

N = symbol("n0")
i, j = Axis("i"), Axis("j")
a, b, c = (Var(name, float32) for name in "abc")
p, q = (Var(name, bool_) for name in "pq")


def test_the_sketch_of_the_kernel_ir() -> None:
    x, m, s = Load("x", (i, j), float32), Var("m", float32), Var("s", float32)
    exp = prim("exp", prim("sub", x, m))
    ten = index(10)
    kernel = Kernel("softmax", (Param("x", float32, (N, 10), "in"), Param("y", float32, (N, 10), "out")), ("n0",), (
        For("i", size(N), (
            Reduce(("m",), ("max",), "j", ten, (), (x,)), Reduce(("s",), ("sum",), "j", ten, (), (exp,)),
            For("j", ten, (Store("y", (i, j), prim("div", exp, s)),))), True),))
    assert format_kernel(kernel) == """\
kernel softmax(x: in f32[n0, 10], y: out f32[n0, 10]) sizes(n0)
  for i < n0 parallel
    reduce m = max over j < 10: x[i, j]
    reduce s = sum over j < 10: exp(x[i, j] - m)
    for j < 10
      y[i, j] = exp(x[i, j] - m) / s
"""


@pytest.mark.parametrize(("expr", "text"), [
    (prim("add", a, prim("mul", b, c)), "a + b * c"),
    (prim("mul", prim("add", a, b), c), "(a + b) * c"),
    (prim("sub", prim("sub", a, b), c), "a - b - c"),
    (prim("sub", a, prim("sub", b, c)), "a - (b - c)"),
    (prim("div", a, prim("mul", b, c)), "a / (b * c)"),
    (prim("neg", prim("add", a, b)), "-(a + b)"),
    (prim("neg", const(1.0, float32)), "neg(1.0)"),
    (const(-1.0, float32), "-1.0"),
    (prim("sub", a, const(-1.0, float32)), "a - -1.0"),
    (prim("and", prim("lt", a, b), prim("le", b, c)), "(a < b) & (b <= c)"),
    (prim("eq", prim("or", p, q), p), "p | q == p"),
    (prim("or", prim("and", p, q), prim("not", p)), "p & q | ~p"),
    (prim("eq", prim("lt", a, b), prim("lt", b, c)), "(a < b) == (b < c)"),
    (prim("select", p, a, b), "select(p, a, b)"),
    (cast(i, float32), "f32(i)"),
    (Prim("bitcast", (a,), int32), "bits_i32(a)"),
    (Load("x", (prim("sub", i, index(1)),), float32, p, a), "x[i - 1; p else a]"),
    (Guard(i, p, index(0), 2), "guard#2(i, p, 0)"),
    (Random(index(1), index(2), index(3), i), "philox(1, 2, 3)[i]"),
    (size(N + 1), "{n0 + 1}"), (size(N), "n0"), (const(3, int32), "3:i32"), (const(True, bool_), "true"),
    (const(0.1, float64), "0.1:f64"), (const(-0.0, float32), "-0.0"), (const(math.inf, float32), "inf"),
    (const(1.5, bfloat16), "1.5:bf16"), (const(7, uint8), "7:u8"),
])
def test_expressions(expr: Expr, text: str) -> None:
    assert format_expr(expr) == text


_MEANING = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}
_ops = st.sampled_from(["add", "sub", "mul", "div"])
_trees = st.recursive(st.sampled_from([a, b, c]), lambda t: st.builds(prim, _ops, t, t) | st.builds(
    lambda x: prim("neg", x), t), max_leaves=12)


@given(_trees, st.fixed_dictionaries(dict.fromkeys("abc", st.integers(1, 9).map(float))))
def test_python_reads_arithmetic_the_same(tree: Expr, values: dict[str, float]) -> None:
    def meaning(e: Expr) -> float:
        match e:
            case Var(name=name):
                return values[name]
            case Prim(op="neg", args=(x,)):
                return -meaning(x)
            case Prim(op=op, args=(x, y)):
                return float(_MEANING[op](meaning(x), meaning(y)))
        raise AssertionError(e)

    try:
        expected = meaning(tree)
    except ZeroDivisionError:
        return
    assert eval(format_expr(tree), {}, dict(values)) == expected


def test_different_kernels_print_differently() -> None:
    texts = [format_kernel(s.kernel) for s in SAMPLES.values()]
    assert len(set(texts)) == len(texts)
    kernel = SAMPLES["gather"].kernel
    changes = [replace(kernel, name="other"), replace(kernel, sites=(Site("index", "else", "gather"), kernel.sites[1])),
               replace(kernel, aliases=(("y", "x"),)), replace(kernel, body=kernel.body * 2),
               replace(kernel, params=(replace(kernel.params[0], role="inout"), *kernel.params[1:]))]
    assert len({format_kernel(k) for k in [kernel, *changes]}) == len(changes) + 1
    assert format_kernel(replace(kernel, provenance=("op",))) == format_kernel(kernel)


def test_deep_chains_print() -> None:
    kernel = SAMPLES["chain"].kernel
    assert format_kernel(kernel).count(" + 1.0") == 1500


def test_a_statement_prints_as_its_first_line() -> None:
    assert format_stmt(SAMPLES["softmax"].kernel.body[0]) == "for i < n0 parallel"
