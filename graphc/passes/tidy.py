"""The last steps of writing a kernel: fewer axes, canonical names and sizes, aliases.

Owns what makes equal kernels equal.  Knows kernel IR alone.  Invariant: every function keeps what a kernel computes;
the text of a kernel is a function of what it computes and of the order in which it was written down.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import Shape
from graphc.kernel import walk
from graphc.kernel.ir import (
    Axis,
    Contract,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Local,
    Param,
    Reduce,
    Scan,
    Site,
    SizeOf,
    Stmt,
    Store,
    While,
    index,
)

Block: TypeAlias = tuple[Stmt, ...]
Access: TypeAlias = tuple[str, tuple[Expr, ...]]

STATIC_LIMIT = 64
"""Elements up to which the only axis of an elementwise kernel keeps its size as a constant; longer ones share a
kernel."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A kernel of a group, the size that each of its symbols stands for, and the temporaries that it makes."""

    kernel: Kernel
    sizes: tuple[Size, ...]
    partial: tuple[Param, ...] = ()


# ---------------------------------------------------------------------------------------------
# Fewer axes.


@dataclass(slots=True)
class Draft:
    """A kernel before its loops are written: axes with sizes (kept, then reduced), buffers, and what is computed.

    roots: expressions at the generic point; stores: (buffer, index) of what leaves.
    """

    kept: list[tuple[str, Size]]
    reduced: list[tuple[str, Size]]
    shapes: dict[str, Shape]


def collapse(draft: Draft, roots: Sequence[Expr], stores: Sequence[Access]) -> Rewriting:
    """Merge neighbouring axes of `draft` that every access walks as one; return the rewriting of expressions.

    Axes of size 1 of buffers go as well.
    """
    loads = [e for e in walk.postorder(roots) if isinstance(e, Load)]
    rewriting = Rewriting(draft, [(e.buffer, e.index) for e in loads] + list(stores), _fixed(roots))
    rewriting.drop_units()
    for axes in (draft.reduced, draft.kept):
        rewriting.merge_neighbours(axes)
    return rewriting


def _fixed(roots: Sequence[Expr]) -> set[str]:
    """Axes that are used for more than to index a buffer directly."""
    found = {e.name for e in roots if isinstance(e, Axis)}
    for e in walk.postorder(roots):
        direct = e.index if isinstance(e, Load) else ()
        for child in walk.children(e):
            if isinstance(child, Axis) and not any(child is d for d in direct):
                found.add(child.name)
    return found


class Rewriting:
    """What collapsing does to expressions (call it) and to the indices of stores (`index_of`).

    keep: the numbers of the axes of each buffer that stay.
    """

    def __init__(self, draft: Draft, accesses: Sequence[Access], fixed: set[str]) -> None:
        self.draft = draft
        self.fixed = fixed
        self.keep = {name: list(range(len(shape))) for name, shape in draft.shapes.items()}
        self.sizes = {name: list(shape) for name, shape in draft.shapes.items()}
        self.accesses: dict[str, list[tuple[Expr, ...]]] = {}
        for buffer, at in accesses:
            if buffer in self.keep:
                self.accesses.setdefault(buffer, []).append(at)
        self._memo: dict[int, Expr] = {}
        self._alive: list[Expr] = []

    def drop_units(self) -> None:
        for name, sizes in self.sizes.items():
            self.keep[name] = [d for d in self.keep[name] if sizes[d] != 1]
        self._settle()

    def merge_neighbours(self, axes: list[tuple[str, Size]]) -> None:
        at = len(axes) - 2
        while at >= 0:
            (a, n), (b, m) = axes[at], axes[at + 1]
            if self._mergeable(a, b, n, m):
                for name, indices in self.accesses.items():
                    for where in [d for d in self.keep[name] if any(_is_axis(i[d], a) for i in indices)]:
                        after = self.keep[name][self.keep[name].index(where) + 1]
                        self.sizes[name][after] = self.sizes[name][where] * self.sizes[name][after]
                        self.keep[name].remove(where)
                axes[at:at + 2] = [(b, n * m)]
                self._settle()
            at -= 1
            at = min(at, len(axes) - 2)

    def _mergeable(self, a: str, b: str, n: Size, m: Size) -> bool:
        if a in self.fixed or b in self.fixed:
            return False
        for name, indices in self.accesses.items():
            places = {tuple((d, e.name) for d in self.keep[name] if isinstance(e := at[d], Axis) and e.name in (a, b))
                      for at in indices}
            if len(places) != 1:
                return False
            found = next(iter(places))
            if not found:
                continue
            if len(found) != 2 or [axis for _, axis in found] != [a, b]:
                return False
            (p, _), (q, _) = found
            mine = self.keep[name]
            if mine.index(q) != mine.index(p) + 1 or self.sizes[name][q] != m or self.sizes[name][p] != n:
                return False
        return True

    def _settle(self) -> None:
        self.draft.shapes.update({name: tuple(self.sizes[name][d] for d in kept) for name, kept in self.keep.items()})

    def index_of(self, buffer: str, at: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Return the index `at` of a buffer without the axes that went."""
        return tuple(at[d] for d in self.keep[buffer]) if buffer in self.keep else at

    def __call__(self, root: Expr) -> Expr:
        for e in walk.postorder((root,)):
            if id(e) in self._memo:
                continue
            new = walk.with_children(e, tuple(self._memo[id(c)] for c in walk.children(e)))
            if isinstance(new, Load):
                new = replace(new, index=self.index_of(new.buffer, new.index))
            self._memo[id(e)] = new
            self._alive.append(e)
        return self._memo[id(root)]


def _is_axis(e: Expr, name: str) -> bool:
    return isinstance(e, Axis) and e.name == name


# ---------------------------------------------------------------------------------------------
# Canonical names and sizes.


def finish(name: str, params: Sequence[Param], body: Block, sites: Sequence[Site], provenance: Sequence[str],
           elementwise: bool = False) -> tuple[Kernel, tuple[Size, ...]]:
    """Return the kernel of this body, over its own size symbols, and the size that each of them stands for.

    elementwise: every access is along one axis; its size becomes a symbol even where it is known.
    """
    body = _canonical_axes(body)
    sizes = _sizes_used(params, body)
    if elementwise:
        long = [n for p in params for n in p.shape if isinstance(n, int) and n > STATIC_LIMIT]
        if long and not any(isinstance(n, Dim) for n in sizes):
            symbol = dim.symbol("n0")
            params = [replace(p, shape=tuple(symbol if n == long[0] else n for n in p.shape)) for p in params]
            body = walk.map_expressions(body, lambda e: SizeOf(symbol) if e == index(long[0]) else e)
            return _kernel(name, params, ("n0",), body, sites, provenance), (long[0],)
    table = _symbols(sizes)
    names = tuple(f"n{i}" for i in range(len(table)))
    whole = {size: dim.symbol(n) for size, n in zip(table, names, strict=True)}

    def local(size: Size) -> Size:
        if isinstance(size, int):
            return size
        if size in whole:
            return whole[size]
        return size.substitute({s.name: n for s, n in whole.items() if s.is_symbol})

    memo: dict[int, Expr] = {}

    def rewrite(root: Expr) -> Expr:
        for e in walk.postorder((root,)):
            if id(e) not in memo:
                new = walk.with_children(e, tuple(memo[id(c)] for c in walk.children(e)))
                memo[id(e)] = _size_of(local(new.size)) if isinstance(new, SizeOf) else new
        return memo[id(root)]

    body = _map_locals(walk.map_expressions(body, rewrite), local) if table else body
    params = [replace(p, shape=tuple(map(local, p.shape))) for p in params]
    return _kernel(name, params, names, body, sites, provenance), tuple(table)


def _canonical_axes(body: Block) -> Block:
    """Number the axes of each letter from 0 in the order of the loops: collapsing leaves gaps."""
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for s in walk.statements(body):
        axes = [a for a, _ in walk.axes_of(s)] if isinstance(s, Contract) else [s.axis] if isinstance(
            s, For | Reduce | Scan) else []
        for axis in axes:
            stem = axis.rstrip("0123456789")
            if axis not in names:
                names[axis] = f"{stem}{counts.get(stem, 0)}"
                counts[stem] = counts.get(stem, 0) + 1
    if all(old == new for old, new in names.items()):
        return body
    renamed = walk.substitute_body(body, {old: Axis(new) for old, new in names.items()})
    return tuple(_with_axes(s, names) for s in renamed)


def _with_axes(s: Stmt, names: Mapping[str, str]) -> Stmt:
    def inner(block: Block) -> Block:
        return tuple(_with_axes(t, names) for t in block)

    def pairs(axes: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...]:
        return tuple((names[axis], extent) for axis, extent in axes)

    match s:
        case For() | Reduce():
            return replace(s, axis=names[s.axis], body=inner(s.body))
        case Scan():
            return replace(s, axis=names[s.axis], body=inner(s.body), then=inner(s.then))
        case Contract():
            return replace(s, batch=pairs(s.batch), m=pairs(s.m), n=pairs(s.n), k=pairs(s.k), body=inner(s.body))
        case If():
            return replace(s, then=inner(s.then), orelse=inner(s.orelse))
        case While():
            return replace(s, body=inner(s.body))
        case _:
            return s


def _size_of(size: Size) -> Expr:
    return SizeOf(size) if isinstance(size, Dim) else index(size)


def _kernel(name: str, params: Sequence[Param], sizes: tuple[str, ...], body: Block, sites: Sequence[Site],
            provenance: Sequence[str]) -> Kernel:
    kernel = Kernel(name, tuple(params), sizes, body, tuple(sites), (), tuple(provenance))
    return replace(kernel, aliases=tuple(aliases(kernel)))


def _sizes_used(params: Sequence[Param], body: Block) -> list[Dim]:
    """The symbolic sizes of a kernel, in the order in which they appear."""
    found: dict[Dim, None] = {}
    for p in params:
        found.update(dict.fromkeys(n for n in p.shape if isinstance(n, Dim)))
    for s in walk.statements(body):
        if isinstance(s, Local):
            found.update(dict.fromkeys(n for n in s.shape if isinstance(n, Dim)))
    for e in walk.all_expressions(body):
        if isinstance(e, SizeOf):
            found.setdefault(e.size)
    return list(found)


def _symbols(sizes: Sequence[Dim]) -> list[Dim]:
    """The sizes that become symbols of the kernel: a compound one that shares no symbol with others, else its
    symbols."""
    out: dict[Dim, None] = {}
    for n in sizes:
        others = dim.symbols_of(m for m in sizes if m != n)
        if n.is_symbol or not (n.symbols() & others):
            out.setdefault(n)
        else:
            for name in sorted(n.symbols()):
                out.setdefault(dim.symbol(name))
    return list(out)


def _map_locals(body: Block, f: Callable[[Size], Size]) -> Block:
    out: list[Stmt] = []
    for s in body:
        match s:
            case Local():
                out.append(replace(s, shape=tuple(map(f, s.shape))))
            case For(body=inner):
                out.append(replace(s, body=_map_locals(inner, f)))
            case _:
                out.append(s)
    return tuple(out)


# ---------------------------------------------------------------------------------------------
# Aliases.


def aliases(kernel: Kernel) -> Iterable[tuple[str, str]]:
    """Yield the (output, input) pairs that may share memory: every load of the input is at the very element that the
    output stores, in the same turn of all parallel loops, and no later."""
    if any(isinstance(s, Scan) or type(s).__name__ in ("Scatter", "While", "If") for s in walk.statements(kernel.body)):
        return
    factors = {e.buffer for s in walk.statements(kernel.body) if isinstance(s, Contract)
               for e in walk.postorder((s.a, s.b)) if isinstance(e, Load)}
    indices: dict[str, list[tuple[Expr, ...]]] = {}
    for e in walk.loads(kernel.body):
        indices.setdefault(e.buffer, []).append(e.index)
    stored: dict[str, list[Store]] = {}
    for s in walk.stores(kernel.body):
        if isinstance(s, Store):
            stored.setdefault(s.buffer, []).append(s)
    late = _stored_in_last_block(kernel.body)
    for out in kernel.params:
        if out.role != "out" or len(stored.get(out.name, ())) != 1 or out.name not in late:
            continue
        at = stored[out.name][0].index
        if not all(isinstance(e, Axis) or e == index(0) for e in at):
            continue
        for source in kernel.params:
            if source.role == "in" and source.shape == out.shape and source.dtype.size == out.dtype.size \
                    and source.name not in factors and all(i == at for i in indices.get(source.name, [()])):
                yield out.name, source.name


def _stored_in_last_block(body: Block) -> set[str]:
    """Buffers whose stores are followed by no load: those of the last statement that stores, at each level."""
    found: set[str] = set()
    while body:
        last = len(body)
        while last and isinstance(body[last - 1], Store):
            last -= 1
        found |= {s.buffer for s in body[last:] if isinstance(s, Store)}
        if last < len(body):
            rest = body[:last]
            # Stores of an earlier loop are followed by what computes the later ones: safe only where nothing is loaded.
            loaded = {e.buffer for s in body[last:] for e in walk.loads((s,))}
            if not loaded and rest and isinstance(rest[-1], For):
                body = rest[-1].body
                continue
            return found
        match body[-1]:
            case For(body=inner) | Contract(body=inner):
                body = inner
            case _:
                return found
    return found
