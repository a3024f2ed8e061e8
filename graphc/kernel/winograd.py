"""Minimal filtering: the small matrices of Winograd's convolution, and straight-line code that applies them.

Owns the transforms F(2x2, 3x3) and F(4x4, 3x3) as exact fractions, and the derivation of code from a matrix.  Knows
scalar expressions; knows no loops, buffers or machines.  Invariants: for every filter g and data d,
output ((filter g filter^T) * (data d data^T)) output^T is the correlation of d with g, exactly (a test multiplies it
out); the code for a matrix is a function of the matrix alone.

A matrix is applied with few operations by two rules, besides skipping zeros and ones:
* inputs that every row takes with coefficients of equal size are added and subtracted once (the output's columns);
* rows that differ in the signs of some inputs alone are the sum and the difference of two halves (the data's rows).

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, sections 4.1 and 4.3.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from graphc.kernel.ir import Expr, const
from graphc.kernel.primitives import prim

Row: TypeAlias = tuple[Fraction, ...]
Matrix: TypeAlias = tuple[Row, ...]
Bind: TypeAlias = Callable[[Expr], Expr]

TAPS = 3  # of the filters, along each axis


@dataclass(frozen=True, slots=True)
class Transform:
    """tile: outputs along each axis.  data, filter, output: the matrices that are applied from both sides."""

    tile: int
    data: Matrix
    filter: Matrix
    output: Matrix

    @property
    def reach(self) -> int:
        """Elements of the data along each axis that a tile needs: as many as products."""
        return self.tile + TAPS - 1

    @property
    def points(self) -> int:
        """Products per tile and pair of channels; tile * tile * 9 without the transform."""
        return self.reach * self.reach


def _matrix(text: str) -> Matrix:
    return tuple(tuple(Fraction(c) for c in row.split()) for row in text.split(","))


TRANSFORMS: dict[int, Transform] = {t.tile: t for t in (
    Transform(
        2,
        _matrix("1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1"),
        _matrix("1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1"),
        _matrix("1 1 1 0, 0 1 -1 -1")),
    Transform(
        4,
        _matrix("4 0 -5 0 1 0, 0 -4 -4 1 1 0, 0 4 -4 -1 1 0, 0 -2 -1 2 1 0, 0 2 -1 -2 1 0, 0 4 0 -5 0 1"),
        _matrix("1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1"),
        _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 1")),
)}


def transposed(matrix: Matrix) -> Matrix:
    """Return the transpose of a matrix."""
    return tuple(zip(*matrix, strict=True))


def sandwich(matrix: Matrix, element: Callable[[int, int], Expr], bind: Bind) -> Iterator[list[Expr]]:
    """Yield the rows of matrix X matrix^T, X[i, j] being element(i, j); `bind` names a value and returns its name.

    Elements are asked for column by column, and a row is computed when it is asked for: so loads and stores stand where
    their registers are few.
    """
    size = range(len(matrix[0]))
    columns = [apply(matrix, [bind(element(i, j)) for i in size], bind) for j in size]
    for row in zip(*columns, strict=True):
        yield apply(matrix, row, bind)


def apply(matrix: Matrix, values: Sequence[Expr], bind: Bind) -> list[Expr]:
    """Return matrix * values as straight-line code."""
    matrix, values = _folded_inputs(matrix, list(values), bind)
    out: dict[int, Expr] = {}
    for i, row in enumerate(matrix):
        other = next((j for j in range(i + 1, len(matrix)) if j not in out and _is_mirror(row, matrix[j])), None)
        if i in out:
            continue
        if other is None:
            out[i] = _combination(row, values, bind)
            continue
        even, odd = (tuple((a + sign * b) / 2 for a, b in zip(row, matrix[other], strict=True)) for sign in (1, -1))
        scale = _common(odd)
        half = _combination(even, values, bind)
        rest = _combination(tuple(c / scale for c in odd), values, bind)
        out[i], out[other] = (bind(_plus(half, sign * scale, rest)) for sign in (1, -1))
    return [out[i] for i in range(len(matrix))]


def _folded_inputs(matrix: Matrix, values: list[Expr], bind: Bind) -> tuple[Matrix, list[Expr]]:
    """Replace pairs of inputs whose coefficients have equal size in every row by their sum and difference."""
    columns = [list(c) for c in zip(*matrix, strict=True)]
    for j in range(len(columns)):
        for k in range(j + 1, len(columns)):
            a, b = columns[j], columns[k]
            signs = {x == y for x, y in zip(a, b, strict=True) if x}
            if [abs(x) for x in a] != [abs(x) for x in b] or signs != {True, False}:
                continue
            values[j], values[k] = (bind(prim(op, values[j], values[k])) for op in ("add", "sub"))
            columns[j], columns[k] = ([x if (x == y) is same else Fraction(0) for x, y in zip(a, b, strict=True)]
                                      for same in (True, False))
    return tuple(zip(*columns, strict=True)), values


def _is_mirror(a: Row, b: Row) -> bool:
    """Whether two rows are sum and difference of halves that share no input."""
    signs = {x == y for x, y in zip(a, b, strict=True) if x}
    return [abs(x) for x in a] == [abs(y) for y in b] and signs == {True, False}


def _common(row: Row) -> Fraction:
    """The first coefficient of a row where all have its size, or 1."""
    found = [c for c in row if c]
    return found[0] if len({abs(c) for c in found}) == 1 else Fraction(1)


def _combination(row: Row, values: Sequence[Expr], bind: Bind) -> Expr:
    """Return the sum of coefficient * value; terms that need no product first."""
    terms = sorted(((c, v) for c, v in zip(row, values, strict=True) if c), key=lambda t: (t[0] != 1, abs(t[0]) != 1))
    scale, first = terms[0]
    total = first if scale == 1 else bind(prim("mul", first, const(float(scale), first.dtype)))
    for c, v in terms[1:]:
        total = bind(_plus(total, c, v))
    return total


def _plus(total: Expr, c: Fraction, v: Expr) -> Expr:
    """Return total + c * v."""
    if abs(c) == 1:
        return prim("add" if c == 1 else "sub", total, v)
    return prim("fma", v, const(float(c), v.dtype), total)
