"""Minimal filtering: the matrices, exactly, and the code that applies them."""
from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from graphc.dtypes import float64
from graphc.kernel.ir import Const, Expr, Prim, Var
from graphc.kernel.winograd import TAPS, TRANSFORMS, Matrix, Transform, apply, sandwich

PARTS = [(t, part) for t in TRANSFORMS.values() for part in ("data", "filter", "output")]
COUNTS = {(2, "data"): 32, (2, "filter"): 28, (2, "output"): 24, (4, "data"): 144, (4, "filter"): 81,
          (4, "output"): 100}
"""Operations of each transform: a rule of the generator that is lost shows here."""


class Tape:
    """Lets, as they are bound, evaluated in fractions at once."""

    def __init__(self, values: dict[str, Fraction]) -> None:
        self.values = dict(values)
        self.operations = 0

    def bind(self, value: Expr) -> Expr:
        name = f"t{len(self.values)}"
        self.operations += isinstance(value, Prim)
        self.values[name] = self.of(value)
        return Var(name, float64)

    def of(self, e: Expr) -> Fraction:
        match e:
            case Var(name=name):
                return self.values[name]
            case Const(value=value):
                return Fraction(value).limit_denominator(1000)
            case Prim(op="fma", args=(a, b, c)):
                return self.of(a) * self.of(b) + self.of(c)
            case Prim(op="add", args=(a, b)):
                return self.of(a) + self.of(b)
            case Prim(op="sub", args=(a, b)):
                return self.of(a) - self.of(b)
            case Prim(op="mul", args=(a, b)):
                return self.of(a) * self.of(b)
            case _:
                raise AssertionError(e)


def times(a: Matrix, b: list[list[Fraction]]) -> list[list[Fraction]]:
    return [[sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0)) for column in zip(*b, strict=True)]
            for row in a]


def transposed(a: Matrix) -> list[list[Fraction]]:
    return [list(c) for c in zip(*a, strict=True)]


def both_sides(matrix: Matrix, grid: list[list[Fraction]]) -> list[list[Fraction]]:
    return times(tuple(map(tuple, times(matrix, grid))), transposed(matrix))


def unit(size: int, i: int, j: int) -> list[list[Fraction]]:
    return [[Fraction((r, c) == (i, j)) for c in range(size)] for r in range(size)]


@pytest.mark.parametrize("t", TRANSFORMS.values(), ids=lambda t: f"F{t.tile}")
def test_the_three_matrices_make_a_correlation(t: Transform) -> None:
    """For every tap and every element of the window, so for all filters and data."""
    for tap in itertools.product(range(TAPS), repeat=2):
        filters = both_sides(t.filter, unit(TAPS, *tap))
        for at in itertools.product(range(t.reach), repeat=2):
            data = both_sides(t.data, unit(t.reach, *at))
            products = [[a * b for a, b in zip(x, y, strict=True)] for x, y in zip(filters, data, strict=True)]
            want = [[Fraction((i + tap[0], j + tap[1]) == at) for j in range(t.tile)] for i in range(t.tile)]
            assert both_sides(t.output, products) == want


@pytest.mark.parametrize(("t", "part"), PARTS, ids=lambda v: v if isinstance(v, str) else f"F{v.tile}")
def test_code_is_the_product_from_both_sides(t: Transform, part: str) -> None:
    matrix: Matrix = getattr(t, part)
    size = len(matrix[0])
    numbers = [[Fraction(7 * i * i - 5 * j + 3 * i * j + 1, 4) for j in range(size)] for i in range(size)]
    tape = Tape({f"x{i}_{j}": numbers[i][j] for i in range(size) for j in range(size)})
    rows = [list(row) for row in sandwich(matrix, lambda i, j: Var(f"x{i}_{j}", float64), tape.bind)]
    assert [[tape.of(e) for e in row] for row in rows] == both_sides(matrix, numbers)
    assert tape.operations == COUNTS[t.tile, part]


def test_any_matrix_is_applied() -> None:
    """Rows and columns that nothing can be shared between, mirrored ones, signs, zeros, a single coefficient."""
    half = Fraction(1, 2)
    matrix = tuple(tuple(map(Fraction, row)) for row in (
        (1, -1, 0, 2), (1, 1, 0, 2), (0, 0, -3, 0), (-1, -1, half, 0), (5, 5, 1, -half), (0, -1, 0, -1)))
    numbers = [Fraction(n) for n in (3, -2, 11, 7)]
    tape = Tape({f"x{i}": n for i, n in enumerate(numbers)})
    got = [tape.of(e) for e in apply(matrix, [Var(f"x{i}", float64) for i in range(4)], tape.bind)]
    assert got == [sum((c * n for c, n in zip(row, numbers, strict=True)), Fraction(0)) for row in matrix]
