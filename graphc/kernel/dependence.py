"""Which loops may run their iterations in any order: proofs about the elements that they touch.

Owns `independent`, which the verifier uses for parallel loops and schedules use for sequential ones.
Knows kernel IR alone.  Invariant: sound, not complete: True means that no element stored in one
iteration is stored or loaded in another; False means that no proof was found.

The proof looks for one index position whose value is step * t + base + [0, spread] at iteration t, with
the same step and base (apart from a known gap) for both accesses of a pair: they can meet in different
iterations only if step * (t - u) falls into [gap - spread, gap + spread].  Where what spreads comes in multiples of
one number that all iterations together do not reach (phases of a strided axis), they do not meet either.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from graphc import dtypes
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import (
    Const,
    Contract,
    Expr,
    For,
    Let,
    Load,
    Local,
    Prim,
    Reduce,
    Scan,
    Scatter,
    Store,
    Var,
    While,
)
from graphc.kernel.text import format_expr

Extents = Mapping[str, tuple[Size, ...]]  # for each axis, sizes that its extent does not exceed


@dataclass(frozen=True, slots=True)
class _Access:
    """A Load or Store inside the loop; inner: the extents of the axes between the loop and it."""

    buffer: str
    index: tuple[Expr, ...]
    is_store: bool
    inner: Extents


@dataclass(frozen=True, slots=True)
class _Line:
    """The values step * t + base + offset + [0, spread]; base: terms that no iteration changes.  stride: every value in
    the spread is a multiple of it (0 where it is not known, or nothing spreads).  falls: they are negated."""

    step: Size
    base: tuple[tuple[str, Size], ...]
    offset: Size
    spread: Size
    stride: int
    falls: bool = False

    @property
    def way(self) -> tuple[object, ...]:
        """What two lines must have in common to be compared."""
        return self.step, self.base, self.falls


@dataclass(slots=True)
class _Body:
    """What the loop's body touches.  lets: values by name; moving: names whose values iterations change."""

    accesses: list[_Access] = field(default_factory=list)
    lets: dict[str, Expr] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)


def independent(loop: For) -> bool:
    """Return whether the iterations of `loop` provably touch no element that another one stores."""
    return separate(loop.axis, loop.extent, loop.body)


def separate(axis: str, extent: Expr, body: walk.Block) -> bool:
    """Return whether `body` run for one value of `axis` provably conflicts with no run for another."""
    found = _Body()
    _collect(body, {}, found)
    stored = {a.buffer for a in found.accesses if a.is_store}
    touched = [a for a in found.accesses if a.buffer in stored]
    counts = _most(extent, found)
    if any(isinstance(n, int) and n <= 1 for n in counts):
        return True
    return all(_apart(a, b, axis, counts, found) for n, a in enumerate(touched) for b in touched[n:]
               if a.buffer == b.buffer and (a.is_store or b.is_store))


def _collect(body: walk.Block, inner: Extents, found: _Body) -> None:
    for s in body:
        below = dict(inner)
        inside: tuple[Expr, ...] = ()
        match s:
            case Store(buffer=buffer, index=index) | Scatter(buffer=buffer, index=index):
                if buffer not in found.private:
                    found.accesses.append(_Access(buffer, index, True, inner))
            case Local(name=name):
                found.private.add(name)
            case Let(name, value):
                if found.lets.setdefault(name, value) is not value:
                    found.moving.add(name)  # two Lets of one name: treated as unknown
            case For(axis=axis, extent=extent):
                below[axis] = _most(extent, found)
            case Reduce(axis=axis, extent=extent, names=names, values=values):
                below[axis], inside = _most(extent, found), values
                found.moving.update(names)
            case Scan(axis=axis, extent=extent, name=name, value=value):
                below[axis], inside = _most(extent, found), (value,)
                found.moving.update((name, f"{name}_before"))
            case While(names=names):
                found.moving.update(names)
            case Contract(a=a, b=b, acc=acc):
                below |= {name: _most(e, found) for name, e in walk.axes_of(s)}
                inside = (a, b)
                found.moving.add(acc)
        here = [e for e in walk.expressions(s) if not any(e is other for other in inside)]
        for exprs, scope in ((here, inner), (inside, below)):
            found.accesses += [_Access(load.buffer, load.index, False, scope) for load in _loads(exprs)
                               if load.buffer not in found.private]
        for block in walk.blocks(s):
            _collect(block, below, found)


def _most(extent: Expr, found: _Body) -> tuple[Size, ...]:
    """Return sizes that an extent does not exceed: itself, or all that it is the least of; none where none is known."""
    while isinstance(extent, Var) and extent.name in found.lets and extent.name not in found.moving:
        extent = found.lets[extent.name]
    if isinstance(extent, Prim) and extent.op == "min":
        return sum((_most(e, found) for e in extent.args), ())
    known = walk.as_size(extent)
    return () if known is None else (known,)


def _loads(exprs: Iterable[Expr]) -> Iterator[Load]:
    return (e for e in walk.postorder(exprs) if isinstance(e, Load))


def _apart(a: _Access, b: _Access, axis: str, counts: tuple[Size, ...], found: _Body) -> bool:
    """Return whether a at iteration t and b at iteration u != t never meet.  Of several bounds of extents, the first
    ones are tried together, and the last ones."""
    split = [_without_lets(x.index, found) for x in (a, b)]
    pairs = list(itertools.starmap(_whole_multiples, zip(*split, strict=True)))
    pairs.sort(key=lambda pair: all(isinstance(e, Const) for e in pair))  # so that parts of a split are neighbours
    left, right = (_merge_splits(tuple(pair[side] for pair in pairs)) for side in (0, 1))
    if len(left) != len(right):
        return False
    for x, y, which in ((x, y, which) for which in (0, -1) for x, y in zip(left, right, strict=True)):
        p, q = _line(x, a.inner, axis, found, which), _line(y, b.inner, axis, found, which)
        count = counts[which] if counts else None
        if p is not None and q is not None and p.way == q.way and _never_equal(p, q, count):
            return True
    return False


def _never_equal(p: _Line, q: _Line, count: Size | None) -> bool:
    gap = q.offset - p.offset
    if _at_least(p.step - gap - q.spread, 1) and _at_least(p.step + gap - p.spread, 1):
        return True  # one step leaves the range
    if count is None or not _at_least(p.step, 0):
        return False
    reach = p.step * (count - 1)  # no number of steps reaches the range
    common = math.gcd(p.stride, q.stride)
    if gap == 0 and _at_least(p.step, 1) and _at_least(common - reach, 1):
        return True  # nor the next multiple
    return _at_least(gap - p.spread - reach, 1) or _at_least(0 - gap - q.spread - reach, 1)


def _at_least(s: Size, bound: int) -> bool:
    """Return whether s >= bound follows from sizes being non-negative."""
    if isinstance(s, int):
        return s >= bound
    return all(c > 0 for mono, c in s.terms if mono) and sum(c for mono, c in s.terms if not mono) >= bound


def _merge_splits(index: tuple[Expr, ...]) -> list[Expr]:
    """Return index expressions, a neighbouring pair (e // c, e % c) as the one expression e that it determines; again
    where e is such a part itself."""
    out: list[Expr] = []
    at = 0
    while at < len(index):
        match index[at:at + 2]:
            case (Prim(op="floordiv", args=(e, c)), Prim(op="floormod", args=(f, d))) if (
                    (e is f or format_expr(e) == format_expr(f)) and format_expr(c) == format_expr(d)):
                out.append(e)
                at += 2
            case _:
                out.append(index[at])
                at += 1
    return out if len(out) == len(index) else _merge_splits(tuple(out))


def _without_lets(index: tuple[Expr, ...], found: _Body) -> tuple[Expr, ...]:
    """Return index expressions that are parts of something (quotients, remainders) by what they are parts of."""
    lets = {name: e for name, e in found.lets.items() if name not in found.moving and e.dtype is dtypes.int64}
    while any(name in lets for e in index for name in walk.free_vars(e)):
        index = tuple(walk.substitute(e, names=lets) for e in index)
    return index


def _whole_multiples(x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """Return what must be equal for two indices to be: of (e // c) * m + r and (f // c) * m + s, with r and s below m,
    the quotients (the same of remainders)."""
    p, q = _multiple(x), _multiple(y)
    return (p[0], q[0]) if p is not None and q is not None and p[1] == q[1] else (x, y)


def _multiple(e: Expr) -> tuple[Expr, int] | None:
    """Return the part and the factor of part * factor + offset, the offset below the factor; None for anything else."""
    match e:
        case Prim(op="add", args=(whole, Const(value=offset))):
            pass
        case _:
            whole, offset = e, 0
    match whole:
        case Prim(op="mul", args=(Prim(op="floordiv" | "floormod") as part, Const(value=factor))) if (
                0 <= offset < factor):
            return part, int(factor)
        case _:
            return None


def _line(e: Expr, inner: Extents, axis: str, found: _Body, which: int) -> _Line | None:
    form = walk.affine(e, {n: v for n, v in found.lets.items() if n not in found.moving},
                       lambda name: name not in found.lets and name not in found.moving)
    if form is None:
        return None
    step: Size = form.coefficient(axis)
    spread: Size = 0
    low: Size = 0
    stride = 0
    base: list[tuple[str, Size]] = []
    for name, c in form.terms:
        if name == axis:
            continue
        if name not in inner:
            base.append((name, c))
            continue
        if not inner[name]:
            return None
        extent = inner[name][which]
        width = c * (extent - 1)
        stride = math.gcd(stride, c if isinstance(c, int) else 1)
        if _at_least(c, 0):
            spread = spread + width
        elif _at_least(0 - c, 0):
            spread, low = spread - width, low + width
        else:
            return None
    if not isinstance(step, int) or step >= 0:
        return _Line(step, tuple(base), form.offset + low, spread, stride)
    # A falling index: its negation rises.
    return _Line(-step, tuple((n, 0 - c) for n, c in base), 0 - form.offset - low - spread, spread, stride, True)
