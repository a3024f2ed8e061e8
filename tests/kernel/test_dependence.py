"""Proofs of independence, checked against brute force on random small loops."""
from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.dtypes import float32, int64
from graphc.ir.dim import symbol
from graphc.kernel.dependence import independent
from graphc.kernel.ir import (
    Axis,
    Const,
    Expr,
    For,
    Let,
    Load,
    Local,
    Prim,
    Reduce,
    Scatter,
    Stmt,
    Store,
    Var,
    const,
    index,
    size,
)
from graphc.kernel.primitives import prim

N, M = symbol("n0"), symbol("n1")
i, j = Axis("i"), Axis("j")
one = const(1.0, float32)
v = Var("v", int64)


def put(*at: Expr, buffer: str = "y") -> Stmt:
    return Store(buffer, at, one)


def get(*at: Expr, buffer: str = "y") -> Stmt:
    return Let("t", Load(buffer, at, float32))


def plus(a: Expr, b: int) -> Expr:
    return prim("add", a, index(b))


def times(a: Expr, b: Expr) -> Expr:
    return prim("mul", a, b)


def for_j(*body: Stmt, extent: object = M) -> Stmt:
    return For("j", size(extent), body)  # type: ignore[arg-type]


@pytest.mark.parametrize(("body", "expected"), [
    ((put(i),), True),
    ((put(index(0)),), False),
    ((put(v),), False),
    ((put(prim("add", i, v)),), True),
    ((put(i), get(i)), True),
    ((put(i), get(plus(i, 1))), False),
    ((put(i), get(plus(i, 1), buffer="x")), True),
    ((put(times(i, index(2))), put(plus(times(i, index(2)), 1))), True),
    ((put(times(i, index(2))), put(plus(times(i, index(2)), 2))), False),
    ((put(i), put(prim("add", i, size(N)))), True),
    ((put(i), put(plus(prim("add", i, size(N)), -1))), False),
    ((for_j(put(prim("add", times(i, size(M)), j))),), True),
    ((for_j(put(prim("add", times(i, size(M)), j)), extent=M + 1),), False),
    ((for_j(put(prim("add", i, times(j, size(N))))),), False),
    ((for_j(put(i, j), get(i, prim("sub", j, index(1)))),), True),
    ((for_j(put(j, i)),), True),
    ((for_j(put(j, j)),), False),
    ((put(prim("sub", size(N), i)),), True),
    ((put(prim("floordiv", i, index(3)), prim("floormod", i, index(3))),), True),
    ((put(prim("floordiv", i, index(3)), index(0)),), False),
    ((Let("w", plus(i, 3)), put(Var("w", int64))), True),
    ((Let("w", Load("at", (i,), int64)), put(Var("w", int64))), False),
    ((Let("w", Load("at", (i,), int64)), put(Var("w", int64), i)), True),
    ((Local("t2", float32, (4,)), put(index(0), buffer="t2")), True),
    ((Reduce(("r",), ("sum",), "j", size(M), (), (Load("y", (j,), float32),)), put(i)), False),
    ((Scatter("y", (v, i), one, "add"),), True),
    ((Scatter("y", (v,), one, "add"),), False),
])
def test_known_loops(body: tuple[Stmt, ...], expected: bool) -> None:
    assert independent(For("i", size(N), body)) is expected


def digits(e: Expr, *factors: int, offset: int = 0) -> tuple[Expr, ...]:
    """The image, row and column of tile `e`, of which an image has 3 x 5, times factors and with an offset."""
    inside = prim("floormod", e, index(15))
    parts = (prim("floordiv", e, index(15)), prim("floordiv", inside, index(5)), prim("floormod", inside, index(5)))
    return tuple(plus(times(d, index(f)), offset) if f != 1 else d for d, f in zip(parts, factors, strict=True))


@pytest.mark.parametrize(("body", "expected"), [
    ((put(*digits(i, 1, 4, 4)),), True),
    ((put(*digits(i, 1, 4, 4, offset=3)), put(*digits(i, 1, 4, 4, offset=1))), True),
    ((put(*digits(i, 1, 4, 4, offset=4)), put(*digits(i, 1, 4, 4, offset=0))), False),
    ((put(*digits(i, 1, 4, 4)), put(*digits(i, 1, 3, 3))), False),
    ((put(*digits(prim("floordiv", i, index(2)), 1, 4, 4)),), False),
    ((Let("w", digits(i, 1, 4, 4)[1]), put(digits(i, 1, 4, 4)[0], Var("w", int64), digits(i, 1, 4, 4)[2])), True),
    ((put(digits(i, 1, 1, 1)[0], digits(i, 1, 1, 1)[2]),), False),
])
def test_tiles_of_images(body: tuple[Stmt, ...], expected: bool) -> None:
    assert independent(For("i", size(N), body)) is expected


def test_an_extent_is_no_more_than_what_it_is_the_least_of() -> None:
    least = prim("min", size(M), prim("sub", size(N), times(i, size(M))))
    at = prim("add", times(i, size(M)), j)
    assert independent(For("i", size(N), (For("j", least, (put(at),)),)))
    # Of several bounds any may be the one that helps.
    known = For("j", prim("min", least, index(5)), (put(prim("add", times(i, index(5)), j)),))
    assert independent(For("i", size(N), (known,)))
    assert independent(For("i", prim("min", index(1), size(N)), (put(index(0)),)))
    assert not independent(For("i", prim("min", index(2), size(N)), (put(index(0)),)))
    assert not independent(For("i", size(N), (For("j", prim("max", size(M), size(N)), (put(at),)),)))
    assert not independent(For("i", size(N), (For("j", least, (put(plus(at, 0), buffer="y"), put(plus(at, 1)))),)))


def _value(e: Expr, at: dict[str, int]) -> int:
    match e:
        case Axis(name):
            return at[name]
        case Prim(op=op, args=(a, b)):
            x, y = _value(a, at), _value(b, at)
            return x + y if op == "add" else x * y
        case Const(value):
            return int(value)
        case _:
            raise AssertionError(e)


@given(st.integers(0, 10 ** 9))
def test_proofs_are_sound(seed: int) -> None:
    rng = random.Random(seed)
    outer, inner = rng.randint(1, 5), rng.randint(1, 5)

    def form() -> Expr:
        scaled = prim("add", times(i, index(rng.randint(-3, 6))), times(j, index(rng.randint(-2, 3))))
        return plus(scaled, rng.randint(-3, 6))

    first, second = form(), form()
    second = rng.choice([first, second, plus(first, rng.randint(-6, 6))])
    loop = For("i", index(outer), (For("j", index(inner), (put(first), rng.choice([put, get])(second))),))
    if independent(loop):
        def cells(e: Expr, t: int) -> Iterator[int]:
            return (_value(e, {"i": t, "j": u}) for u in range(inner))

        written = {t: set(cells(first, t)) for t in range(outer)}
        touched = {t: written[t] | set(cells(second, t)) for t in range(outer)}
        assert all(not written[t] & touched[u] for t in range(outer) for u in range(outer) if t != u)


def test_a_falling_index_may_meet_a_rising_one() -> None:
    falling = prim("sub", index(6), i)
    assert not independent(For("i", index(5), (put(falling), put(plus(i, 2)))))
    assert independent(For("i", index(5), (put(falling),)))


@pytest.mark.parametrize(("phases", "expected"), [(2, True), (3, False)])
def test_phases_of_a_strided_axis_are_apart(phases: int, expected: bool) -> None:
    """Positions j * 2 + i are those of phase i, whatever the extent of j, where there are two phases."""
    body = for_j(put(prim("add", times(j, index(2)), i)))
    assert independent(For("i", index(phases), (body,))) == expected


@pytest.mark.parametrize(("length", "expected"), [(4, True), (5, False)])
def test_the_last_part_may_be_shorter(length: int, expected: bool) -> None:
    """Parts of at most `length`, four apart."""
    rest = Let("v", prim("min", index(length), prim("sub", size(M), times(i, index(4)))))
    part = For("j", v, (put(prim("add", times(i, index(4)), j)),))
    assert independent(For("i", size(N), (rest, part))) == expected
