"""Windows: what makes a product a convolution, read from its operands.

Owns the recognition.  Knows kernel IR; knows no machine and emits nothing.  Two axes of a product form a window where
an operand knows them only by one coordinate,

    coordinate = free_step * free + summed_step * summed

`free` being an axis of the output and `summed` one that is added over.  In a convolution free is an output position and
summed a tap; in the gradient of its filter it is the other way round.  The operand is then a function of fewer
coordinates than the product has axes: each of its elements meets many windows, and a patch of it that is copied once
serves all of them.
Invariants: what is recognised is structure, never the name of an op; `Patch.whole` at a coordinate is the operand at
any pair of values that has it.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc import dtypes
from graphc.backends.llvm_cpu.tiling import (
    Range,
    computing,
    contiguous,
    merged,
    size_of,
    stride,
    without_units,
)
from graphc.dtypes import DType
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Contract, Expr, Kernel, Load, Prim, index
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import format_expr

MANY = 8  # channels that are worth turning through registers


@dataclass(frozen=True, slots=True)
class Window:
    """free, summed: two axes of known extent that meet in the coordinate called `axis`."""

    free: Range
    free_step: int
    summed: Range
    summed_step: int

    @property
    def axis(self) -> str:
        return f"{self.free.name}~{self.summed.name}"

    @property
    def frees(self) -> int:
        return known(self.free)

    @property
    def summeds(self) -> int:
        return known(self.summed)

    def span(self, frees: int, summeds: int) -> int:
        """Return how many coordinates so many values of both axes cover, gaps included."""
        return (frees - 1) * self.free_step + (summeds - 1) * abs(self.summed_step) + 1


@dataclass(frozen=True, slots=True)
class Term:
    """A condition: left < right, left <= right where not `is_strict`; or any other, which is `left` itself."""

    left: Expr
    right: Expr | None = None
    is_strict: bool = False

    def slope(self, axis: str) -> int | None:
        """Return c where the condition is c * axis + (what does not depend on it) < 0 or <= 0; None if it is not."""
        if self.right is None:
            return 0 if axis not in walk.free_axes(self.left) else None
        slopes = [walk.coefficient(e, axis) for e in (self.left, self.right)]
        return slopes[0] - slopes[1] if isinstance(slopes[0], int) and isinstance(slopes[1], int) else None

    @property
    def expr(self) -> Expr:
        return self.left if self.right is None else prim("lt" if self.is_strict else "le", self.left, self.right)


@dataclass(frozen=True, slots=True)
class Patch:
    """An operand over the coordinates of its windows.

    whole: its value.  terms: where it is read from memory: there it is `inside`, elsewhere `outside`; without terms
    whole is inside.  channel: the axis in no window whose neighbours lie closest.  is_run: inside at (x, channel) is
    inside at (0, x * channels + channel), x the coordinate of the last window: a row of the patch is one run of memory.
    is_turned: memory runs along x instead.
    """

    whole: Expr
    inside: Expr
    outside: Expr
    terms: tuple[Term, ...]
    channel: Range
    is_run: bool
    is_turned: bool


@dataclass(frozen=True, slots=True)
class Convolution:
    """A Contract with windows, taken apart.

    windows: those of operand left, in the order of their free axes, all extents known and none 0.  batch; m, k: axes of
    these groups that are in no window.  columns: the one axis of n, of known extent.  left, right: of dtype `dtype`.
    """

    dtype: DType
    windows: tuple[Window, ...]
    batch: tuple[Range, ...]
    m: tuple[Range, ...]
    k: tuple[Range, ...]
    columns: Range
    left: Expr
    right: Expr
    body: walk.Block

    @property
    def last(self) -> Window:
        return self.windows[-1]

    @property
    def line(self) -> Window | None:
        """The last window but one."""
        return self.windows[-2] if len(self.windows) > 1 else None

    @property
    def fixed(self) -> frozenset[str]:
        """The names of the batch axes."""
        return frozenset(str(axis.name) for axis in self.batch)

    @property
    def filters(self) -> int:
        return known(self.columns)


def known(axis: Range) -> int:
    """Return the extent of an axis that is known."""
    assert isinstance(axis.extent, int)
    return axis.extent


def convolution_of(kernel: Kernel, statement: Contract) -> Convolution | None:
    """Return `statement`, the work of `kernel`, taken apart; None where it is no convolution of known sizes."""
    contract = without_units(statement)
    if not windows_of(contract) and not phased(contract)[1]:
        return None
    contract = merged(kernel, contract, ("n",))
    if len(contract.n) > 1:  # phases that operand a does not know
        contract = replace(contract, batch=(*contract.batch, *contract.n[:-1]), n=contract.n[-1:])
    windows = windows_of(contract)
    if not windows:
        contract, windows = phased(contract)
    columns = Range(contract.n[0][0], size_of(contract.n[0][1])) if contract.n else Range(None, 1)
    if not windows or not isinstance(columns.extent, int):
        return None
    if 0 in (columns.extent, *(n for w in windows for n in (w.frees, w.summeds))):
        return None
    taken = {axis.name for w in windows for axis in (w.free, w.summed)}
    batch, m, k = (tuple(Range(name, size_of(extent)) for name, extent in axes if name not in taken)
                   for axes in (contract.batch, contract.m, contract.k))
    dtype = computing(contract.acc_dtype)
    left, right = (cast(cast(e, contract.acc_dtype), dtype) for e in (contract.a, contract.b))
    return Convolution(dtype, windows, batch, m, k, columns, left, right, contract.body)


def windows_of(contract: Contract) -> tuple[Window, ...]:
    """Return the windows in operand a of `contract`, in the order of their free axes; none where it has none, or where
    an axis of one is also used in another way."""
    free = {name: Range(name, size_of(extent)) for name, extent in contract.m}
    summed = {name: Range(name, size_of(extent)) for name, extent in contract.k}
    found: dict[str, Window] = {}
    operand = _simplified(contract.a, {*free, *summed})
    for form in _forms(operand):
        terms = dict(form.terms)
        pair = [[name for name in axes if name in terms] for axes in (free, summed)]
        if not pair[0] or not pair[1]:
            continue
        if len(pair[0]) != 1 or len(pair[1]) != 1:
            return ()
        (f,), (s,) = pair
        steps = [c for c in (terms[f], terms[s]) if isinstance(c, int)]
        if len(steps) != 2:
            return ()
        sign = 1 if steps[0] > 0 else -1
        divisor = math.gcd(*steps)
        window = Window(free[f], sign * steps[0] // divisor, summed[s], sign * steps[1] // divisor)
        if found.setdefault(f, window) != window:
            return ()
    windows = tuple(found[name] for name in free if name in found)
    axes = [axis for w in windows for axis in (w.free.name, w.summed.name)]
    ok = len(set(axes)) == len(axes) and all(
        isinstance(w.free.extent, int) and isinstance(w.summed.extent, int)
        and 1 in (w.free_step, abs(w.summed_step)) for w in windows)
    return windows if ok and all(_only_together(operand, w) for w in windows) else ()


def _simplified(root: Expr, axes: set[str]) -> Expr:
    """Return `root` with everything that does not depend on `axes` and is not affine replaced by an axis of its own."""
    def simple(e: Expr) -> Expr:
        fixed = isinstance(e, Prim) and e.dtype is dtypes.int64 and not axes & walk.free_axes(e)
        return Axis(f"~{format_expr(e)}") if fixed and walk.affine(e) is None else e

    return walk.map_expr(root, simple)


def _forms(root: Expr) -> Iterable[walk.Affine]:
    """Yield the affine expressions under `root` that are no part of others."""
    forms = {id(e): walk.affine(e) if e.dtype is dtypes.int64 else None for e in walk.postorder((root,))}
    for e in walk.postorder((root,)):
        if forms[id(e)] is None:
            yield from (form for child in walk.children(e) if (form := forms[id(child)]) is not None)


def _only_together(root: Expr, window: Window) -> bool:
    """Whether `root` knows the axes of `window` by their coordinate only."""
    assert window.free.name is not None and window.summed.name is not None
    return all(form.coefficient(window.free.name) * window.summed_step
               == form.coefficient(window.summed.name) * window.free_step for form in _forms(root))


def patch_of(kernel: Kernel, operand: Expr, windows: tuple[Window, ...], channel: Range) -> Patch:
    """Return `operand` over the coordinates of `windows`."""
    axes: dict[str, Expr] = {}
    for w in windows:
        assert w.free.name is not None and w.summed.name is not None
        at = Axis(w.axis)
        if w.free_step == 1:
            axes |= {w.free.name: at, w.summed.name: index(0)}
        else:
            axes |= {w.free.name: index(0),
                     w.summed.name: at if w.summed_step > 0 else prim("sub", index(0), at)}
    whole = walk.substitute(operand, axes)
    terms, inside, outside = split(whole)
    last = Range(windows[-1].axis, 1)
    is_turned = channel.name is not None and known(channel) >= MANY and contiguous(kernel, inside, last) \
        and not contiguous(kernel, inside, channel)
    return Patch(whole, inside, outside, terms, channel, _is_run(kernel, inside, windows[-1], channel), is_turned)


def split(expr: Expr) -> tuple[tuple[Term, ...], Expr, Expr]:
    """Return the terms of the one predicate under which all of `expr` is read, `expr` where they hold, and where not.
    Without such a predicate there are no terms."""
    guarded = [e for e in walk.postorder((expr,)) if isinstance(e, Load) and e.predicate is not None]
    if not guarded or any(e.predicate != guarded[0].predicate or e.other is None for e in guarded):
        return (), expr, expr

    def bare(e: Expr) -> Expr:
        return replace(e, predicate=None, other=None) if isinstance(e, Load) else e

    def other(e: Expr) -> Expr:
        return e.other if isinstance(e, Load) and e.predicate is not None and e.other is not None else e

    assert guarded[0].predicate is not None
    return tuple(_terms(guarded[0].predicate)), walk.map_expr(expr, bare), walk.map_expr(expr, other)


def _terms(predicate: Expr) -> Iterable[Term]:
    match predicate:
        case Prim(op="and", args=args):
            for arg in args:
                yield from _terms(arg)
        case Prim(op="lt" | "le", args=(left, right)) if left.dtype is dtypes.int64:
            yield Term(left, right, predicate.op == "lt")
        case _:
            yield Term(predicate)


def conjunction(terms: Iterable[Term]) -> Expr | None:
    """Return that all of `terms` hold; None where there are none."""
    total: Expr | None = None
    for term in terms:
        total = term.expr if total is None else prim("and", total, term.expr)
    return total


def _is_run(kernel: Kernel, inside: Expr, window: Window, channel: Range) -> bool:
    """Whether memory under `inside` goes on from the last channel of a coordinate to the first of the next, and
    nothing else depends on either."""
    row = Range(window.axis, 1)

    def hide(e: Expr) -> Expr:
        whole = isinstance(e, Load) and (channel.name is None or stride(kernel, e, channel) == 1) \
            and stride(kernel, e, row) == known(channel)
        return replace(e, index=()) if isinstance(e, Load) and whole else e

    return not {window.axis, channel.name} & walk.free_axes(walk.map_expr(inside, hide))


def bounds_of(terms: Iterable[Term], axis: str | None, fixed: frozenset[str]) -> tuple[Term, ...]:
    """Return those of `terms` that bound `axis` from above and depend on nothing else but the axes `fixed`."""
    return () if axis is None else tuple(t for t in terms if t.right is not None and (t.slope(axis) or 0) > 0
                                         and walk.free_axes(t.expr) <= fixed | {axis})


def phased(contract: Contract) -> tuple[Contract, tuple[Window, ...]]:
    """Return `contract` with windows of one tap around its last two axes of positions, where all of operand b is zero
    for some values of batch axes (phases that no tap reads); as it is and no windows where it is not so."""
    batch = frozenset(name for name, _ in contract.batch)
    terms, _, _ = split(contract.b)
    places = [Range(name, size_of(extent)) for name, extent in contract.m[-2:]]
    if not any(walk.free_axes(t.expr) <= batch for t in terms) or not all(isinstance(p.extent, int) for p in places):
        return contract, ()
    windows = tuple(Window(p, 1, Range(f"{p.name}~tap", 1), 1) for p in places)
    taps = tuple((str(w.summed.name), index(1)) for w in windows)
    return replace(contract, k=(*taps, *contract.k)), windows


def channel_of(kernel: Kernel, operand: Expr, axes: Iterable[Range]) -> Range:
    """Return that of `axes` whose neighbours lie closest in `operand`; no axis where there is none."""
    found = [axis for axis in axes if contiguous(kernel, operand, axis)]
    rest = list(axes)
    return found[0] if found else rest[-1] if rest else Range(None, 1)

