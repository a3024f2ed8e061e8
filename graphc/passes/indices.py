"""Index arithmetic of lowering: expressions over axes, simplified as they are built.

Owns the algebra of `x // n` and `x % n` that reshapes bring in.  Knows kernel expressions; knows no ops.
Invariant: every function returns an int64 expression equal to its definition for all indices within bounds.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc import dtypes
from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import Shape
from graphc.kernel.ir import Axis, Const, Expr, Prim, SizeOf, index, size

Extents = Mapping[str, Size]
ZERO = index(0)


def add(a: Expr, b: Expr) -> Expr:
    """Return a + b."""
    if _is(a, 0):
        return b
    if _is(b, 0):
        return a
    if isinstance(a, Const) and isinstance(b, Const):
        return index(int(a.value) + int(b.value))
    return Prim("add", (a, b), dtypes.int64)


def scale(a: Expr, by: Size) -> Expr:
    """Return a * by."""
    if _is(a, 0) or by == 0:
        return ZERO
    if by == 1:
        return a
    if _is(a, 1):
        return size(by)
    return Prim("mul", (a, size(by)), dtypes.int64)


def quotient(a: Expr, by: Size, extents: Extents) -> Expr:
    """Return a // by for a >= 0."""
    if by == 1 or _is(a, 0):
        return a
    if below(a, by, extents):
        return ZERO
    parts = _multiples(a, by, extents)
    return parts[0] if parts else Prim("floordiv", (a, size(by)), dtypes.int64)


def remainder(a: Expr, by: Size, extents: Extents) -> Expr:
    """Return a % by for a >= 0."""
    if by == 1:
        return ZERO
    if below(a, by, extents):
        return a
    parts = _multiples(a, by, extents)
    return parts[1] if parts else Prim("floormod", (a, size(by)), dtypes.int64)


def below(a: Expr, bound: Size, extents: Extents) -> bool:
    """Return whether a < bound is known (a >= 0 is given)."""
    limit = _limit(a, extents)
    if limit is None or limit == bound:
        return limit is not None
    room = bound - limit
    return isinstance(room, int) and room >= 0


def _limit(a: Expr, extents: Extents) -> Size | None:
    match a:
        case Const(value=value):
            return int(value) + 1
        case Axis(name):
            return extents.get(name)
        case Prim(op="floormod", args=(_, SizeOf(by))):
            return by
        case Prim(op="floormod", args=(_, Const(value=value))):
            return int(value)
        case Prim(op="add", args=(Prim(op="mul", args=(high, factor)), low)):
            step, top, rest = _factor(factor), _limit(high, extents), _limit(low, extents)
            return top * step if step is not None and top is not None and rest == step else None
        case _:
            return None


def _multiples(a: Expr, by: Size, extents: Extents) -> tuple[Expr, Expr] | None:
    """Return (q, r) where a is q * by + r with r < by as it is written."""
    match a:
        case Prim(op="mul", args=(high, factor)) if (known := _factor(factor)) is not None:
            exact = dim.divide_exactly(known, by)
            return None if exact is None else (scale(high, exact), ZERO)
        case Prim(op="add", args=(Prim(op="mul", args=(high, factor)), low)) if (known := _factor(factor)) is not None:
            exact = dim.divide_exactly(known, by)
            if exact is None:
                return None
            if below(low, by, extents):
                return scale(high, exact), low
            inner = _multiples(low, by, extents)
            return None if inner is None else (add(scale(high, exact), inner[0]), inner[1])
        case _:
            return None


def _factor(e: Expr) -> Size | None:
    match e:
        case SizeOf(known):
            return known
        case Const(value=value):
            return int(value)
        case _:
            return None


def _is(e: Expr, value: int) -> bool:
    return isinstance(e, Const) and e.value == value


def flatten(at: Sequence[Expr], shape: Sequence[Size]) -> Expr:
    """Return the row-major position of the element `at` of an array of `shape`."""
    total: Expr = ZERO
    for position, (e, _) in enumerate(zip(at, shape, strict=True)):
        total = add(scale(e, dim.product(shape[position + 1:])), total) if _is(total, 0) else \
            add(total, scale(e, dim.product(shape[position + 1:])))
    return total


def unflatten(flat: Expr, shape: Sequence[Size], extents: Extents) -> tuple[Expr, ...]:
    """Return the index of the element at row-major position `flat` of an array of `shape`."""
    out: list[Expr] = []
    for position, n in enumerate(shape):
        stride = dim.product(shape[position + 1:])
        high = quotient(flat, stride, extents)
        out.append(high if position == 0 else ZERO if n == 1 else remainder(high, n, extents))
    return tuple(ZERO if n == 1 else e for e, n in zip(out, shape, strict=True))


def pieces(a: Shape, b: Shape) -> list[tuple[range, range]]:
    """Return the finest cuts of two shapes of equal size into runs of axes with equal products: (axes of a, of b).

    Axes of size 1 at a cut belong to the run before it.  Symbolic sizes that only a check of the run makes equal are in
    the last run.  Raises InternalError where the shapes do not have one size.
    """
    if 0 in a and 0 in b:
        return [(range(len(a)), range(len(b)))]
    out: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        start = i, j
        left: Size = a[i] if i < len(a) else 1
        right: Size = b[j] if j < len(b) else 1
        i, j = min(i + 1, len(a)), min(j + 1, len(b))
        while left != right:
            grow_left = j >= len(b) or (i < len(a) and not _divides(right, left) and _smaller(left, right)) \
                or (i < len(a) and _divides(left, right))
            if grow_left and i < len(a):
                left, i = left * a[i], i + 1
            elif j < len(b):
                right, j = right * b[j], j + 1
            elif isinstance(left, int) and isinstance(right, int):
                raise InternalError(f"shapes {a} and {b} do not have the same size")
            else:
                break
        out.append((range(start[0], i), range(start[1], j)))
    return out


def _divides(small: Size, large: Size) -> bool:
    return dim.divide_exactly(large, small) is not None


def _smaller(a: Size, b: Size) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a < b


def reshaped(at: Sequence[Expr], shape: Shape, source: Shape, extents: Extents) -> tuple[Expr, ...]:
    """Return the index into an array of shape `source` of the element `at` of its reshape to `shape`."""
    out: list[Expr] = [ZERO] * len(source)
    for mine, other in pieces(shape, source):
        sizes = [shape[d] for d in mine]
        flat = flatten([ZERO if n == 1 else at[d] for d, n in zip(mine, sizes, strict=True)], sizes)
        for d, e in zip(other, unflatten(flat, [source[d] for d in other], extents), strict=True):
            out[d] = e
    return tuple(out)
