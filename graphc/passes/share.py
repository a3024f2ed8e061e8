"""Sharing within a kernel: what is used more than once, or stays the same in a loop, is computed once.

Owns where Lets go.  Knows kernel IR alone.  Invariants: keeps what a kernel computes; a Guard moves only to where it
would surely have run; where a block stores more than once, every value is computed before the first store.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from graphc import dtypes
from graphc.kernel import walk
from graphc.kernel.cost import expression_cycles
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    Let,
    Load,
    Prim,
    Random,
    Reduce,
    Stmt,
    Store,
    Var,
)

Block: TypeAlias = tuple[Stmt, ...]

INDEX_LENGTH = 16
"""Operations on int64 up to which an expression is taken for an index, and never bound to a name."""
HOIST_CYCLES = 4.0
"""Cycles from which something that stays the same is computed before the loop."""


def share(body: Block, fresh: Callable[[str], str], bound: frozenset[str] = frozenset()) -> Block:
    """Return `body` with every subexpression that is used more than once bound by a Let where all its uses see it."""
    chosen, anchors = _shared(body, bound)
    lets: dict[int, list[Let]] = {}
    names: dict[int, Expr] = {}

    def rename(root: Expr) -> Expr:
        for e in walk.postorder((root,)):
            if id(e) not in names:
                names[id(e)] = walk.with_children(e, tuple(names[id(c)] for c in walk.children(e)))
        return names[id(root)]

    alive = []
    for e in chosen:
        value = walk.with_children(e, tuple(map(rename, walk.children(e))))
        let = Let(fresh("t"), value)
        lets.setdefault(anchors[id(e)], []).append(let)
        names[id(e)] = Var(let.name, e.dtype)
        alive.append(e)
    out: list[Stmt] = []
    visible = set(bound)
    for number, s in enumerate(body):
        for let in lets.get(number, ()):
            out.append(let)
            visible.add(let.name)
        (s,) = walk.map_expressions((s,), rename) if not isinstance(s, Contract) else (_in_contract(s, rename),)
        out.append(_share_inside(s, fresh, frozenset(visible)))
        visible.update(walk.bound_names(s))
    return _stores_last(tuple(out), fresh)


def _in_contract(s: Contract, f: Callable[[Expr], Expr]) -> Contract:
    """Rewrite the epilogue only: the factors stay loads."""
    return replace(s, body=walk.map_expressions(s.body, f))


def _share_inside(s: Stmt, fresh: Callable[[str], str], bound: frozenset[str]) -> Stmt:
    match s:
        case For(axis=axis, body=body):
            return replace(s, body=share(body, fresh, bound | {axis}))
        case Reduce(axis=axis):
            return _share_reduce(s, fresh, bound | {axis})
        case Contract(body=body):
            axes = {name for name, _ in s.batch + s.m + s.n}
            return replace(s, body=share(body, fresh, bound | axes | {s.acc}))
        case _:
            return s


def _share_reduce(s: Reduce, fresh: Callable[[str], str], bound: frozenset[str]) -> Reduce:
    """Bind what the values of a reduction share inside its body."""
    probe: Block = (*s.body, *(Let(f"#{i}", v) for i, v in enumerate(s.values)))
    done = share(probe, fresh, bound)
    named = {t.name: t.value for t in done if isinstance(t, Let)}
    values = tuple(named[f"#{i}"] for i in range(len(s.values)))
    return replace(s, body=tuple(t for t in done if not (isinstance(t, Let) and t.name.startswith("#"))), values=values)


@dataclass(slots=True)
class _Use:
    """How a block uses an expression.  count: how often; first: the number of the first statement that does.

    nested: inside of loops alone.  certain: in a place that surely runs where the block does.
    """

    count: int
    first: int
    nested: bool
    certain: bool


def _shared(body: Block, bound: frozenset[str]) -> tuple[list[Expr], dict[int, int]]:
    """Expressions of a block to bind, inner ones first, and before which statement each is bound: what is used more
    than once, and what a loop inside would compute at each turn although it stays the same."""
    uses: dict[int, _Use] = {}
    order: list[Expr] = []

    def used(e: Expr, number: int, depth: int, certain: bool) -> bool:
        """Note a use; whether it is the first."""
        known = uses.get(id(e))
        if known is None:
            uses[id(e)] = _Use(1, number, depth > 0, certain)
            return True
        known.count += 1
        known.nested &= depth > 0
        known.certain |= certain
        return False

    for number, s in enumerate(body):
        for depth, certain, roots in _roots(s):
            stack = [(e, False) for e in reversed(roots)]
            while stack:
                e, ready = stack.pop()
                if ready:
                    order.append(e)
                elif used(e, number, depth, certain):
                    stack.append((e, True))
                    stack.extend((c, False) for c in reversed(walk.children(e)))
    free = _free_names(order)
    available = [bound]
    for s in body:
        available.append(available[-1] | set(walk.bound_names(s)))
    worth = _worth(order)
    fits = {id(e) for e in order if id(e) in worth and free[id(e)] <= available[uses[id(e)].first]
            and (uses[id(e)].certain or not _has_guard(e))}
    inside = {id(c) for e in order if id(e) in fits for c in walk.children(e)}
    chosen = [e for e in order if id(e) in fits and (uses[id(e)].count > 1 or (
        uses[id(e)].nested and id(e) not in inside and expression_cycles((e,)) >= HOIST_CYCLES))]
    return chosen, {i: u.first for i, u in uses.items()}


def _roots(s: Stmt, depth: int = 0, certain: bool = True) -> Iterator[tuple[int, bool, tuple[Expr, ...]]]:
    """The expressions of a statement and of the blocks inside, with their depth and whether they surely run; a
    product's factors left out."""
    own = walk.expressions(s)
    if isinstance(s, Reduce):
        yield depth, certain, own[:1]
        yield depth + 1, certain and _runs(s.extent), own[1:]
    else:
        yield depth, certain, own[:-2] if isinstance(s, Contract) else own
    runs = certain and isinstance(s, For | Reduce) and _runs(s.extent)
    for block in walk.blocks(s):
        for t in block:
            yield from _roots(t, depth + 1, runs)


def _runs(extent: Expr) -> bool:
    """Whether a loop surely has a turn."""
    return isinstance(extent, Const) and extent.value > 0


def _free_names(order: Sequence[Expr]) -> dict[int, frozenset[str]]:
    free: dict[int, frozenset[str]] = {}
    for e in order:
        own = frozenset((e.name,)) if isinstance(e, Axis | Var) else frozenset()
        free[id(e)] = own.union(*(free[id(c)] for c in walk.children(e)))
    return free


def _worth(order: Sequence[Expr]) -> set[int]:
    """Of expressions, inner ones first, those that it saves something to bind: arithmetic of indices stays where it is,
    so that it can be analysed, as long as it is short."""
    worth: set[int] = set()
    length: dict[int, int] = {}
    for e in order:
        length[id(e)] = 1 + sum(1 if id(c) in worth else length[id(c)] for c in walk.children(e))
        if isinstance(e, Prim):
            index = e.dtype is dtypes.int64 and e.op in ("add", "sub", "mul", "neg")
            if not index or length[id(e)] > INDEX_LENGTH:
                worth.add(id(e))
        elif isinstance(e, Load | Guard | Random):
            worth.add(id(e))
    return worth


def _has_guard(root: Expr) -> bool:
    return any(isinstance(e, Guard) for e in walk.postorder((root,)))


def _stores_last(body: Block, fresh: Callable[[str], str]) -> Block:
    """Where a block stores more than once, compute all values before the first store (outputs may alias inputs)."""
    stores = [s for s in body if isinstance(s, Store)]
    if len(stores) < 2:
        return body
    out: list[Stmt] = []
    late: list[Stmt] = []
    for s in body:
        if isinstance(s, Store):
            if not isinstance(s.value, Var | Const):
                let = Let(fresh("t"), s.value)
                out.append(let)
                s = replace(s, value=Var(let.name, s.value.dtype))
            late.append(s)
        else:
            out.append(s)
    return (*out, *late)
