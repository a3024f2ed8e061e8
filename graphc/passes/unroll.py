"""Sums over few windows, written out: every tap a term of one expression.

Owns how a sum of products over windows that share no work (a depthwise convolution) becomes an element by element
expression.  Knows windows and kernel expressions; must not know groups or loops.  Invariants: terms are added in the
order of the taps; what several taps have in common is one object; a condition that always holds is left out.
"""
from __future__ import annotations

import itertools
from collections.abc import Mapping

from graphc import dtypes
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Const, Expr, Prim, const, index, size
from graphc.kernel.primitives import cast, prim
from graphc.ops.base import Place, Point, Windows
from graphc.passes.indices import quotient, remainder

FEW_TAPS = 9


def has_few_taps(windows: Windows) -> bool:
    """Whether a sum over windows is short enough to be written out."""
    count = 1
    for name in windows.summed:
        n = windows.sizes[name]
        count *= n if isinstance(n, int) else FEW_TAPS + 1
    return 0 < count <= FEW_TAPS


def written_out(p: Point, windows: Windows, extents: Mapping[str, Size]) -> Expr:
    """Return the element at p.index of a sum over few windows.  extents: of the axes in p.index, where they are
    known."""
    axes = {name: e for name, e in zip(windows.out, p.index, strict=True) if name}
    for name, split in windows.splits.items():
        axes[split.outer] = quotient(axes[name], split.count, extents)
        axes[split.inner] = remainder(axes[name], split.count, extents)
    writer = _Writer(p, axes, extents)
    counts = [windows.sizes[name] for name in windows.summed]
    total: Expr | None = None
    for tap in itertools.product(*(range(n) for n in counts if isinstance(n, int))):
        at = dict(zip(windows.summed, tap, strict=True))
        term = prim("mul", writer.factor(windows.a, at), writer.factor(windows.b, at))
        total = term if total is None else prim("add", total, term)
    assert total is not None
    return total


class _Writer:
    """The factors of each tap; expressions are the same objects where taps agree in what they depend on."""

    def __init__(self, p: Point, axes: Mapping[str, Expr], extents: Mapping[str, Size]) -> None:
        self._p = p
        self._axes = axes
        self._extents = extents
        self._done: dict[tuple[int, tuple[int, ...]], Expr] = {}

    def factor(self, place: Place, tap: Mapping[str, int]) -> Expr:
        """The element of an operand that a tap takes, in the dtype of the sum."""
        at = [self._written(e, tap) for e in place.index]
        inside = None if place.inside is None else self._written(place.inside, tap)
        if inside is None or inside == _TRUE:
            value = self._p.load(place.input, at)
        else:
            value = self._p.load(place.input, at, inside, const(0, self._p.in_types[place.input].dtype))
        return cast(value, dtypes.float32) if value.dtype.size == 2 else value

    def _written(self, e: Expr, tap: Mapping[str, int]) -> Expr:
        own = tuple(tap[name] for name in sorted(walk.free_axes(e) & tap.keys()))
        key = id(e), own
        if key not in self._done:
            match e:
                case Axis(name):
                    self._done[key] = index(tap[name]) if name in tap else self._axes[name]
                case _:
                    below = tuple(self._written(c, tap) for c in walk.children(e))
                    self._done[key] = self._simplified(walk.with_children(e, below))
        return self._done[key]

    def _simplified(self, e: Expr) -> Expr:
        match e:
            case Prim(op="and", args=(a, b)):
                return b if a == _TRUE else a if b == _TRUE else e
            case Prim(op="le", args=(Const(value=0), x)):
                return _TRUE if self._least(x) else e
            case Prim(op="lt", args=(x, Const(value=n))):
                return _TRUE if self._least(prim("sub", index(int(n) - 1), x)) else e
            case Prim(dtype=dtypes.int64):
                form = walk.affine(e)
                return e if form is None else _affine(form)
            case _:
                return e

    def _least(self, e: Expr) -> bool:
        """Whether e >= 0 for all values of its axes."""
        form = walk.affine(e)
        if form is None or not isinstance(form.offset, int):
            return False
        least = form.offset
        for name, c in form.terms:
            n = self._extents.get(name)
            if not isinstance(c, int) or (c < 0 and not isinstance(n, int)):
                return False
            least += min(0, c * (n - 1)) if isinstance(n, int) else 0
        return least >= 0


_TRUE = const(True, dtypes.bool_)


def _affine(form: walk.Affine) -> Expr:
    """An affine form as an expression."""
    total: Expr | None = None
    for name, c in form.terms:
        term: Expr = Axis(name) if c == 1 else prim("mul", Axis(name), size(c))
        total = term if total is None else prim("add", total, term)
    if total is None:
        return size(form.offset)
    if isinstance(form.offset, int) and form.offset < 0:
        return prim("sub", total, index(-form.offset))
    return total if form.offset == 0 else prim("add", total, size(form.offset))
