"""flatten: quotient and remainder of one index become the index; what does not fit stays."""
from __future__ import annotations

from graphc import dtypes
from graphc.ir import dim
from graphc.kernel.ir import Axis, Expr, For, Load, Param, Prim, Store, index, size
from graphc.passes.flatten import flatten

ROW, COLUMN = Axis("i0"), Axis("k0")
N = dim.symbol("n")


def quotient(e: Expr, by: int) -> Expr:
    return Prim("floordiv", (e, index(by)), dtypes.int64)


def remainder(e: Expr, by: int) -> Expr:
    return Prim("floormod", (e, index(by)), dtypes.int64)


def copied(source: tuple[Expr, ...], target: tuple[Expr, ...]) -> tuple[For]:
    inner = For("k0", index(6), (Store("y", target, Load("x", source, dtypes.float32)),), parallel=True)
    return (For("i0", size(N * 4), (inner,), parallel=True),)


def params(x: tuple[dim.Size, ...], y: tuple[dim.Size, ...]) -> list[Param]:
    return [Param("x", dtypes.float32, x, "in"), Param("y", dtypes.float32, y, "out")]


def test_pairs_merge_in_loads_and_stores() -> None:
    body = copied((quotient(ROW, 4), remainder(ROW, 4), COLUMN), (COLUMN, quotient(ROW, 4), remainder(ROW, 4)))
    found, after = flatten(params((N, 4, 6), (6, N, 4)), body)
    assert [p.shape for p in found] == [(N * 4, 6), (6, N * 4)]
    assert after == copied((ROW, COLUMN), (COLUMN, ROW))


def test_two_pairs_of_one_buffer() -> None:
    body = copied((quotient(ROW, 4), remainder(ROW, 4), quotient(COLUMN, 2), remainder(COLUMN, 2)), (ROW, COLUMN))
    found, after = flatten(params((N, 4, 3, 2), (N * 4, 6)), body)
    assert [p.shape for p in found] == [(N * 4, 6), (N * 4, 6)]
    assert after == copied((ROW, COLUMN), (ROW, COLUMN))


def test_what_is_no_pair_stays() -> None:
    for source in ((quotient(ROW, 4), remainder(ROW, 2), COLUMN), (quotient(ROW, 2), remainder(ROW, 2), COLUMN),
                   (quotient(ROW, 4), remainder(COLUMN, 4), COLUMN), (remainder(ROW, 4), quotient(ROW, 4), COLUMN)):
        body = copied(source, (ROW, COLUMN))
        given = params((N, 4, 6), (N * 4, 6))
        assert flatten(given, body) == (given, body)


def test_one_other_access_keeps_the_axes() -> None:
    pair = Load("x", (quotient(ROW, 4), remainder(ROW, 4)), dtypes.float32)
    other = Load("x", (quotient(ROW, 4), index(0)), dtypes.float32)
    store = Store("y", (ROW,), Prim("add", (pair, other), dtypes.float32))
    body = (For("i0", size(N * 4), (store,), parallel=True),)
    given = params((N, 4), (N * 4,))
    assert flatten(given, body) == (given, body)
