"""Tiles of images as kernels walk over them: their numbers and places, and the transformation of what they cover.

Owns what the kernels of Winograd's convolutions share.  Knows kernel IR and the matrices (kernel/winograd.py); must not
know ops.  Invariant: tiles are numbered through all images, an image's own row by row.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import int64
from graphc.ir.dim import Size
from graphc.kernel.ir import Axis, Const, Expr, For, Let, Stmt, Store, Var, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.kernel.winograd import Matrix, Transform, sandwich

STRIP = 16  # channels that lie together: a cache line
UNIT = 4  # tiles of a block are a multiple of it

Fresh = Callable[[str], str]
Read = Callable[[tuple[Expr, ...], "Expr | None"], Expr]


def strips_of(channels: int) -> int:
    """Return how many strips hold `channels` channels."""
    return -(-channels // STRIP)


@dataclass(frozen=True, slots=True)
class Grid:
    """down, across: tiles of an image.  count: of all images.  side: outputs of a tile along each axis."""

    down: int
    across: int
    count: Size
    side: int


def grid_of(images: Size, size: tuple[int, int], side: int) -> Grid:
    """Return the tiles that cover outputs of this size."""
    down, across = (-(-n // side) for n in size)
    return Grid(down, across, images * (down * across), side)


@dataclass(frozen=True, slots=True)
class Tile:
    """Where a tile lies: its image, and its row and column in units of tiles."""

    image: Expr
    down: Expr
    across: Expr


def locate(fresh: Fresh, grid: Grid, number: Expr) -> tuple[Tile, list[Stmt]]:
    """Return the place of a tile, and the statements that compute it."""
    image, inside = _split(number, grid.down * grid.across, grid.count)
    down, across = _split(inside, grid.across, grid.down * grid.across)
    lets: list[Stmt] = []

    def named(value: Expr) -> Expr:
        if isinstance(value, Const):
            return value
        lets.append(let := Let(fresh("at"), value))
        return Var(let.name, int64)

    return Tile(named(image), named(down), named(across)), lets


def _split(e: Expr, inner: int, total: Size) -> tuple[Expr, Expr]:
    """Return quotient and remainder of `e`, which is below `total`, by `inner`."""
    if inner == 1:
        return e, index(0)
    return (index(0), e) if total == inner else (prim("floordiv", e, index(inner)), prim("floormod", e, index(inner)))


@dataclass(frozen=True, slots=True)
class Cover:
    """What of an array a tile covers, and what becomes of it: `matrix` is applied from both sides to as many elements
    along each axis as it has columns, of which the first is `before` elements before the tile's first output.
    size, channels: of the array.  read(index, predicate): its element, zero where the predicate does not hold."""

    matrix: Matrix
    size: tuple[int, int]
    channels: int
    before: tuple[int, int]
    read: Read


def transformed(fresh: Fresh, grid: Grid, cover: Cover, target: str, pitch: int, start: Expr, rows: Expr) -> Stmt:
    """Return the loop that transforms what the tiles start .. start + rows - 1 cover: of tile t, point p and channel c
    goes to target[p, (t - start) * pitch + c]."""
    number = Axis(fresh("t"))
    tile, statements = locate(fresh, grid, add(start, number))
    (ys, y_inside), (xs, x_inside) = (
        _along(fresh, grid, cover, axis, place, statements) for axis, place in enumerate((tile.down, tile.across)))
    channel, reach = Axis(fresh("c")), len(cover.matrix)
    lets, bind = binder(fresh)

    def element(i: int, j: int) -> Expr:
        inside = [e for e in (y_inside[i], x_inside[j]) if e is not None]
        return cover.read((tile.image, ys[i], xs[j], channel), both(inside) if inside else None)

    for a, row in enumerate(sandwich(cover.matrix, element, bind)):
        lets += [Store(target, (index(a * reach + b), add(times(number, pitch), channel)), value)
                 for b, value in enumerate(row)]
    return For(number.name, rows, (*statements, loop(channel, cover.channels, *lets)), True)


def _along(fresh: Fresh, grid: Grid, cover: Cover, axis: int, tile: Expr,
           statements: list[Stmt]) -> tuple[list[Expr], list[Expr | None]]:
    """Return, along one axis, the positions that a tile covers, and which of them are inside of the array (None:
    always).  What is named on the way is added to `statements`."""
    before, tiles, size = cover.before[axis], (grid.down, grid.across)[axis], cover.size[axis]
    first = add(times(tile, grid.side), index(-before))
    if not isinstance(first, Const):
        statements.append(let := Let(fresh("at"), first))
        first = Var(let.name, int64)
    places: list[Expr] = []
    inside: list[Expr | None] = []
    last = (tiles - 1) * grid.side - before
    for i in range(len(cover.matrix[0])):
        place = add(first, index(i))
        conditions = ([prim("le", index(0), place)] if i < before else []) + (
            [prim("lt", place, index(size))] if last + i >= size else [])
        places.append(place)
        if conditions:
            let = Let(fresh("in"), both(conditions))
            statements.append(let)
            inside.append(Var(let.name, let.value.dtype))
        else:
            inside.append(None)
    return places, inside


# -- small parts of kernels -------------------------------------------------------------------------------------------


def binder(fresh: Fresh) -> tuple[list[Stmt], Callable[[Expr], Expr]]:
    """Return an empty list of statements, and the function that names a value by a Let in it."""
    statements: list[Stmt] = []

    def bind(value: Expr) -> Expr:
        let = Let(fresh("w"), value)
        statements.append(let)
        return Var(let.name, value.dtype)

    return statements, bind


def loop(axis: Axis, extent: Size, *body: Stmt) -> For:
    """Return a parallel loop."""
    return For(axis.name, size_of(extent), body, True)


def add(a: Expr, b: Expr) -> Expr:
    """Return a + b."""
    match a, b:
        case Const(value=x), Const(value=y):
            return index(int(x + y))
        case (Const(value=0), rest) | (rest, Const(value=0)):
            return rest
        case _:
            return prim("add", a, b)


def times(a: Expr, n: int) -> Expr:
    """Return a * n."""
    return index(int(a.value) * n) if isinstance(a, Const) else prim("mul", a, index(n))


def both(conditions: Sequence[Expr]) -> Expr:
    """Return whether all conditions hold; at least one is given."""
    total = conditions[0]
    for c in conditions[1:]:
        total = prim("and", total, c)
    return total


def windows_of(x: np.ndarray[Any, Any], transform: Transform, size: tuple[int, int], before: Sequence[int],
               reach: int = 0) -> np.ndarray[Any, Any]:
    """Return what the tiles of an output of `size` cover of the images x, as [tile, channel, row, column], for NumPy;
    `reach` elements along each axis (0: the transform's), zeros outside of x."""
    side, reach = transform.tile, reach or transform.reach
    down, across = (-(-n // side) for n in size)
    padded = np.zeros((x.shape[0], down * side + reach - side, across * side + reach - side, x.shape[3]), x.dtype)
    rows, columns = (min(x.shape[1 + a], padded.shape[1 + a] - before[a]) for a in (0, 1))
    padded[:, before[0]:before[0] + rows, before[1]:before[1] + columns] = x[:, :rows, :columns]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (1, 2))[:, ::side, ::side]
    return windows.reshape(-1, *windows.shape[3:])


def floats(matrix: Matrix) -> np.ndarray[Any, Any]:
    """Return a matrix as NumPy computes with it."""
    return np.array([[float(c) for c in row] for row in matrix])
