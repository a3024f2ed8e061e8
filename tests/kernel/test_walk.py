"""Walks: order, rewriting, substitution, affine forms; nothing recurses over expressions."""
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.dtypes import float32, int32, int64
from graphc.ir.dim import symbol
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Expr, For, Let, Load, Reduce, Store, Var, const, index, size
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import format_body, format_expr
from tests.backends.kernels import SAMPLES

N = symbol("n0")
i, j = Axis("i"), Axis("j")
v = Var("v", int64)


def test_postorder_visits_each_object_once_and_children_first() -> None:
    shared = prim("add", i, j)
    root = prim("mul", shared, prim("neg", shared))
    order = list(walk.postorder((root, shared)))
    assert [format_expr(e) for e in order] == ["i", "j", "i + j", "-(i + j)", "(i + j) * -(i + j)"]


def test_shared_subexpressions_do_not_blow_up() -> None:
    e: Expr = i
    for _ in range(200):
        e = prim("add", e, e)
    assert sum(1 for _ in walk.postorder((e,))) == 201
    replaced = walk.substitute(e, axes={"i": j})
    assert walk.free_axes(replaced) == {"j"} and sum(1 for _ in walk.postorder((replaced,))) == 201
    form = walk.affine(e)
    assert form is not None and form.coefficient("i") == 2 ** 200


def test_deep_chains() -> None:
    e: Expr = i
    for _ in range(20000):
        e = prim("add", e, index(1))
    assert walk.affine(e) == walk.Affine((("i", 1),), 20000)
    assert walk.coefficient(e, "i") == 1
    assert walk.free_axes(walk.substitute(e, axes={"i": j})) == {"j"}


def test_rewriting_keeps_what_does_not_change() -> None:
    for sample in SAMPLES.values():
        body = walk.map_expressions(sample.kernel.body, lambda e: walk.map_expr(e, lambda x: x))
        assert format_body(body) == format_body(sample.kernel.body)
    e = prim("add", i, prim("mul", j, index(2)))
    assert walk.map_expr(e, lambda x: x) is e


def test_substitution_in_statements() -> None:
    body = (Let("t", prim("add", i, v)), Store("y", (i,), Load("x", (Var("t", int64),), float32)))
    new = walk.substitute_body(body, axes={"i": prim("mul", i, index(4))}, names={"v": j})
    assert format_body(new, "") == "let t = i * 4 + j\ny[i * 4] = x[t]"


def test_loops_come_in_the_order_in_which_they_print() -> None:
    for sample in SAMPLES.values():
        lines = [line.split()[0] for line in format_body(sample.kernel.body).splitlines()]
        printed = [word for word in lines if word in ("for", "reduce", "scan")]
        assert [type(s).__name__.lower() for s in walk.loops(sample.kernel.body)] == printed


def test_collectors() -> None:
    kernel = SAMPLES["softmax_local"].kernel
    assert {e.buffer for e in walk.loads(kernel.body)} == {"x", "e"}
    assert [s.buffer for s in walk.stores(kernel.body)] == ["e", "y"]
    assert set(walk.buffers(kernel)) == {"x", "y", "e"}
    reduce = next(s for s in walk.statements(kernel.body) if isinstance(s, Reduce))
    assert walk.bound_names(reduce) == ("m",)


@pytest.mark.parametrize(("expr", "terms", "offset"), [
    (prim("add", prim("mul", i, size(N)), j), {"i": N, "j": 1}, 0),
    (prim("sub", prim("sub", size(N), index(1)), i), {"i": -1}, N - 1),
    (prim("mul", index(3), prim("sub", i, index(2))), {"i": 3}, -6),
    (prim("sub", i, i), {}, 0),
    (prim("floordiv", size(N), index(2)), {}, N // 2),
    (prim("neg", prim("add", i, j)), {"i": -1, "j": -1}, 0),
])
def test_affine(expr: Expr, terms: dict[str, object], offset: object) -> None:
    form = walk.affine(expr)
    assert form is not None and dict(form.terms) == terms and form.offset == offset


@pytest.mark.parametrize("expr", [
    prim("mul", i, j), prim("floordiv", i, index(2)), v, Load("at", (i,), int64), cast(Load("at", (i,), int32), int64),
    prim("floordiv", size(N), index(0)),
])
def test_not_affine(expr: Expr) -> None:
    assert walk.affine(expr) is None


def test_affine_through_lets_and_fixed_names() -> None:
    lets: dict[str, Expr] = {"v": prim("mul", i, index(8)), "w": prim("add", v, j)}
    assert walk.affine(Var("w", int64), lets) == walk.Affine((("i", 8), ("j", 1)), 0)
    assert walk.affine(prim("add", v, i), is_fixed=lambda name: name == "v") == walk.Affine((("i", 1), ("v", 1)), 0)


@given(st.integers(0, 10 ** 6))
def test_affine_agrees_with_evaluation(seed: int) -> None:
    rng = random.Random(seed)

    def tree(depth: int) -> tuple[Expr, object]:
        if depth == 0:
            number = rng.randint(-3, 3)
            leaves: list[tuple[Expr, object]] = [(i, "i"), (j, "j"), (index(number), number)]
            return rng.choice(leaves)
        op = rng.choice(["add", "sub", "mul"])
        (x, f), (y, g) = tree(depth - 1), tree(depth - 1)
        return prim(op, x, y), (op, f, g)

    def meaning(t: object, at: dict[str, int]) -> int:
        if isinstance(t, tuple):
            x, y = meaning(t[1], at), meaning(t[2], at)
            return x + y if t[0] == "add" else x - y if t[0] == "sub" else x * y
        return at[t] if isinstance(t, str) else int(str(t))

    expr, plan = tree(3)
    form = walk.affine(expr)
    if form is not None:
        at = {"i": rng.randint(0, 50), "j": rng.randint(0, 50)}
        assert form.offset + sum(c * at[name] for name, c in form.terms) == meaning(plan, at)


@pytest.mark.parametrize(("expr", "expected"), [
    (i, 1), (j, 0), (v, 0), (Var("w", int64), None), (prim("mul", i, size(N)), N), (prim("mul", v, i), None),
    (prim("add", prim("mul", v, index(3)), i), 1), (Load("at", (j,), int64), 0), (Load("at", (i,), int64), None),
    (prim("floordiv", i, index(2)), None), (prim("floordiv", j, index(2)), 0), (prim("sub", v, i), -1),
])
def test_coefficient(expr: Expr, expected: object) -> None:
    assert walk.coefficient(expr, "i", frozenset({"w"})) == expected


def test_linear_coefficient() -> None:
    shape = (N, 4, 5)
    assert walk.strides(shape) == (20, 5, 1)
    assert walk.linear_coefficient((i, j, i), shape, "i") == 21
    assert walk.linear_coefficient((v, j, index(0)), shape, "j") == 5
    assert walk.linear_coefficient((Var("w", int64), j, index(0)), shape, "j", frozenset({"w"})) is None


def test_as_size() -> None:
    assert walk.as_size(prim("add", size(N), index(2))) == N + 2
    assert walk.as_size(i) is None and walk.as_size(const(2, int32)) is None


def test_every_kind_of_statement_is_rewritten() -> None:
    seen = {type(s).__name__ for sample in SAMPLES.values() for s in walk.statements(sample.kernel.body)}
    assert seen == {"For", "Let", "Store", "Reduce", "Scan", "Local", "If", "While", "Scatter", "Contract"}
    for sample in SAMPLES.values():
        count = [0]

        def touch(e: Expr, count: list[int] = count) -> Expr:
            count[0] += 1
            return e

        walk.map_expressions(sample.kernel.body, touch)
        assert count[0] == sum(len(walk.expressions(s)) for s in walk.statements(sample.kernel.body))


def test_blocks_of_a_for() -> None:
    loop = For("i", index(3), (Let("t", i),))
    assert walk.blocks(loop) == (loop.body,) and walk.expressions(loop) == (loop.extent,)
