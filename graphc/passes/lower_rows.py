"""Lowering of row groups: parallel loops over the kept axes, inside them stages over the reduced ones.

Owns that form: the levels of reductions that feed each other, what a row keeps in scratch, and long reductions in two
kernels.  Must not know products as such (a narrow product is a reduction here).  Invariants: reductions of one level
share one loop; outputs over the whole domain are stored in one last loop, after every reduction; a value is
recomputed in each stage unless that costs more than `KEEP_CYCLES` and a row of it fits the scratch; the number of
partial results of a long reduction depends on its sizes alone.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Node, Value
from graphc.kernel import walk
from graphc.kernel.ir import (
    COMBINERS,
    Axis,
    Const,
    Expr,
    For,
    Load,
    Local,
    Param,
    Prim,
    Reduce,
    Stmt,
    Store,
    Var,
    index,
    size,
)
from graphc.kernel.primitives import PRIMITIVES, prim
from graphc.passes.access import UNIT, estimate
from graphc.passes.emit import Emission, finished, reduction
from graphc.passes.flatten import flatten
from graphc.passes.group import FEW_ROWS, LONG, MANY_COLUMNS, SERIAL_ROWS
from graphc.passes.lower_map import nest, output_params
from graphc.passes.share import share
from graphc.passes.tidy import Draft, Piece, collapse, finish

KEEP_CYCLES = 10.0      # of an element: a load and a store from the first-level cache cost less
KEEP_LEAST, KEEP_MOST = 64, 8192  # elements of a row that is worth keeping, and that fits
PART = 8192             # elements of one part of a long reduction: what it reads stays in the nearest caches
LEAST_PART = 32         # elements that one partial result stands for, at least


@dataclass(frozen=True, slots=True)
class State:
    """One reduction: its node, combiner, names of its states, and the values combined."""

    node: Node
    combiner: str
    names: tuple[str, ...]
    values: tuple[Expr, ...]


@dataclass(slots=True)
class Stages:
    """What a row computes: levels of reductions, then stores per row and per element."""

    levels: list[list[State]]
    row_stores: list[tuple[Param, Value, Expr]]
    element_stores: list[tuple[Param, Value, Expr]]


def lower_rows(name: str, emission: Emission, outputs: Sequence[Value], kept: int,
               provenance: Sequence[str]) -> list[Piece]:
    """Return the kernels of a row group.  Their parameters are the emission's, partial results, and one per output."""
    stages = _stages(emission, outputs, kept)
    params = [*emission.params.values(), *(p for p, _, _ in stages.row_stores + stages.element_stores)]
    params.sort(key=lambda p: (p.role != "in", int(p.name[1:])))
    draft = Draft(list(emission.axes[:kept]), list(emission.axes[kept:]), {p.name: p.shape for p in params})
    roots = [v for level in stages.levels for s in level for v in s.values]
    roots += [e for _, _, e in stages.row_stores + stages.element_stores]
    places = [(p.name, emission.place(v)) for p, v, _ in stages.row_stores + stages.element_stores]
    rewrite = collapse(draft, roots, places)

    def store(p: Param, v: Value, e: Expr) -> Store:
        return Store(p.name, rewrite.index_of(p.name, emission.place(v)), rewrite(e))

    levels = [[State(s.node, s.combiner, s.names, tuple(map(rewrite, s.values))) for s in level]
              for level in stages.levels]
    elements = [store(*s) for s in stages.element_stores]
    rows = [store(*s) for s in stages.row_stores]
    shaped = [Param(p.name, p.dtype, draft.shapes[p.name], p.role) for p in params]
    cut = _cut(draft, [v for s in levels[0] for v in s.values]) if len(levels) == 1 else None
    if cut is not None and not any(_reads(s.value, levels[0]) for s in elements):
        return _in_parts(name, emission, draft, cut, levels[0], elements, rows, shaped, provenance)
    body = nest(draft.kept, (*_write(emission, draft, levels, elements), *rows))
    shaped, body = flatten(shaped, body)
    return [Piece(*finish(name, shaped, share(body, emission.fresh), emission.sites, provenance))]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a long reduction is cut into parts: at each step of the axes `outer`, and every `length` of `axis` (of size
    `total`); a part runs over these and the axes `inner`."""

    outer: tuple[tuple[str, Size], ...]
    axis: str
    total: Size
    length: int
    inner: tuple[tuple[str, Size], ...]

    @property
    def count(self) -> Size:
        """How often `axis` is cut."""
        return dim.ceildiv(self.total, self.length)

    @property
    def is_even(self) -> bool:
        """Whether all parts are known to have one length."""
        return dim.divide_exactly(self.total, self.length) is not None


def _cut(draft: Draft, values: Sequence[Expr]) -> Cut | None:
    """Return how a reduction of very many elements to few results is cut; None for any other one, and where only the
    batch is unknown, which is short."""
    sizes = [n for _, n in draft.reduced]
    if len(sizes) == 1 and isinstance(sizes[0], Dim) and sizes[0].is_symbol:
        return None
    rows, row = (estimate(dim.product(n for _, n in axes)) for axes in (draft.kept, draft.reduced))
    if rows * row < LONG or (rows > FEW_ROWS and not _are_long_columns(draft, values)):
        return None
    for number, (axis, total) in enumerate(draft.reduced):
        inner = estimate(dim.product(sizes[number + 1:]))
        if rows * inner <= PART or number == len(sizes) - 1:
            length = max(1, LEAST_PART // max(1, inner), PART // max(1, rows * inner))
            if isinstance(total, int):  # parts of equal length
                length = -(-total // -(-total // length))
            cut = Cut(tuple(draft.reduced[:number]), axis, total, length, tuple(draft.reduced[number + 1:]))
            return cut if cut.outer or cut.count != 1 else None
    return None


def _are_long_columns(draft: Draft, values: Sequence[Expr]) -> bool:
    """Whether what is reduced to neighbouring results lies side by side in memory, in few rows of results."""
    last = {e.index[-1] for e in walk.postorder(values) if isinstance(e, Load) and e.index}
    return any(Axis(name) in last and estimate(n) <= MANY_COLUMNS
               and estimate(dim.product(m for other, m in draft.kept if other != name)) <= SERIAL_ROWS
               for name, n in draft.kept)


def _reads(value: Expr, states: Sequence[State]) -> bool:
    """Whether `value` depends on the result of a reduction."""
    return not walk.free_vars(value).isdisjoint(n for s in states for n in s.names)


def _in_parts(name: str, emission: Emission, draft: Draft, cut: Cut, states: Sequence[State],
              elements: Sequence[Store], rows: Sequence[Stmt], params: Sequence[Param],
              provenance: Sequence[str]) -> list[Piece]:
    """Two kernels: one partial result per part, in parallel, with what is stored per element; then the reduction of
    the partial results."""
    start = prim("mul", Axis("part"), index(cut.length))
    shift: dict[str, Expr] = {} if cut.count == 1 else {cut.axis: prim("add", start, Axis(cut.axis))}
    values = [walk.substitute(v, shift) for s in states for v in s.values]
    length = index(cut.length) if cut.is_even else prim("min", index(cut.length), prim("sub", size(cut.total), start))
    axes = [(cut.axis, length), *((axis, size(n)) for axis, n in cut.inner)]
    parts = cut.outer if cut.count == 1 else (*cut.outer, ("part", cut.count))
    shape = (*(n for _, n in parts), *(n for _, n in draft.kept))
    partial = [Param(f"z{i}", v.dtype, shape, "out") for i, v in enumerate(values)]
    at = tuple(Axis(a) for a, _ in (*parts, *draft.kept))
    names = [n for s in states for n in s.names]
    first: tuple[Stmt, ...] = (
        _reduce(emission, axes, states, values),
        *(Store(p.name, at, Var(n, p.dtype)) for p, n in zip(partial, names, strict=True)),
        *_over(axes, walk.substitute_body(tuple(elements), shift)))
    loaded = {e.buffer for e in walk.loads(first)} | {s.buffer for s in elements}
    shaped, body = flatten([*(p for p in params if p.name in loaded), *partial],
                           nest((*parts, *draft.kept), first))
    pieces = [Piece(*finish(f"{name}_parts", shaped, share(body, emission.fresh), emission.sites, provenance),
                    tuple(partial))]
    again = _reduce(emission, [(axis, size(n)) for axis, n in parts], states,
                    [Load(p.name, at, p.dtype) for p in partial])
    body = nest(draft.kept, (again, *rows))
    used = {e.buffer for e in walk.loads(body)} | {s.buffer for s in walk.stores(body)}
    last = [p for p in params if p.name in used] + [replace(p, role="in") for p in partial]
    return [*pieces, Piece(*finish(name, last, share(body, emission.fresh), emission.sites, provenance))]


def _over(axes: Sequence[tuple[str, Expr]], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """`body` in loops over `axes`, one after the other; nothing where there is no body."""
    for axis, n in reversed(axes if body else ()):
        body = (For(axis, n, body),)
    return body


def _stages(emission: Emission, outputs: Sequence[Value], kept: int) -> Stages:
    """Bind every reduction, level by level, and collect what is stored."""
    depth: dict[Value, int] = dict.fromkeys(emission.body.feeds, 0)
    levels: list[list[State]] = []
    reduced = [name for name, _ in emission.axes[kept:]]
    for node in emission.body.nodes:
        below = max((depth[v] for v in node.inputs), default=0)
        is_state = bool(emission.input_labels[node])
        depth.update(dict.fromkeys(node.outputs, below + is_state))
        if not is_state:
            continue
        combiner, values = reduction(emission, node, reduced)
        names = tuple(emission.fresh("s") for _ in range(COMBINERS[combiner]))
        if len(levels) <= below:
            levels.append([])
        levels[below].append(State(node, combiner, names, values))
        count = _count(emission, node)
        states = [Var(n, v.dtype) for n, v in zip(names, values, strict=True)]
        emission.bound[node.output] = (emission.place(node.output), finished(node, states, count))
    stages = Stages(levels, [], [])
    for v, p in zip(outputs, output_params(outputs), strict=True):
        (stages.row_stores if _is_row(emission, v, kept) else stages.element_stores).append((p, v, emission.at(v)))
    return stages


def _is_row(emission: Emission, value: Value, kept: int) -> bool:
    """A value without reduced axes is one per row (also where reduced axes have size 1 alone)."""
    return all(a < kept for a in emission.labels[value] or () if a != UNIT)


def _count(emission: Emission, node: Node) -> Expr:
    """Number of elements that a reduction node combines into one."""
    total = node.inputs[0].tensor.shape
    axes = node.attrs.get("axis", ())
    return size(dim.product(total[a] for a in axes)) if isinstance(axes, tuple) else index(1)


def _write(emission: Emission, draft: Draft, levels: list[list[State]], elements: list[Store]) -> tuple[Stmt, ...]:
    """The statements of one row: a Reduce per level, then one loop that stores elements."""
    roots = [[v for s in level for v in s.values] for level in levels]
    roots.append([s.value for s in elements])
    scratch = _kept_rows(draft, roots)
    names: dict[int, Expr] = {}
    body: list[Stmt] = []
    place = tuple(Axis(name) for name, _ in draft.reduced)
    for number, stage in enumerate(roots):
        for e in scratch.get(number, ()):
            local = Local(emission.fresh("e"), e.dtype, tuple(n for _, n in draft.reduced))
            body.append(local)
            body.extend(nest(draft.reduced, (Store(local.name, place, _replaced(e, names)),), parallel=False))
            names[id(e)] = Load(local.name, place, e.dtype)
        if number < len(levels):
            body.append(_reduce(emission, [(axis, size(n)) for axis, n in draft.reduced], levels[number],
                                [_replaced(v, names) for v in stage]))
        elif elements:
            stores = tuple(Store(s.buffer, s.index, _replaced(s.value, names)) for s in elements)
            body.extend(nest(draft.reduced, stores, parallel=False))
    return tuple(body)


def _replaced(root: Expr, names: dict[int, Expr]) -> Expr:
    """`root` with what is kept in scratch loaded from there."""
    for e in walk.postorder((root,)):
        if id(e) not in names:
            names[id(e)] = walk.with_children(e, tuple(names[id(c)] for c in walk.children(e)))
    return names[id(root)]


def _kept_rows(draft: Draft, stages: Sequence[Sequence[Expr]]) -> dict[int, list[Expr]]:
    """What each stage computes into scratch first: dear expressions over the row that a later stage takes again."""
    row = dim.product(n for _, n in draft.reduced)
    if not isinstance(row, int) or not KEEP_LEAST <= row <= KEEP_MOST or len(draft.reduced) != 1:
        return {}
    axis = draft.reduced[0][0]
    seen: dict[int, int] = {}
    found: dict[int, list[Expr]] = {}
    taken: set[int] = set()
    for number, stage in enumerate(stages):
        for e in _outermost(stage, lambda e: id(e) in seen and id(e) not in taken and _is_dear(e, axis, taken)):
            taken.add(id(e))
            found.setdefault(seen[id(e)], []).append(e)
        for e in walk.postorder(stage):
            seen.setdefault(id(e), number)
    return found


def _outermost(roots: Sequence[Expr], wanted: Callable[[Expr], bool]) -> list[Expr]:
    found: dict[int, Expr] = {}
    stack = list(reversed(roots))
    visited: set[int] = set()
    while stack:
        e = stack.pop()
        if id(e) in visited:
            continue
        visited.add(id(e))
        if wanted(e):
            found[id(e)] = e
        else:
            stack.extend(reversed(walk.children(e)))
    return list(found.values())


def _is_dear(e: Expr, axis: str, kept: set[int]) -> bool:
    """Whether computing `e` again, from what is kept already, costs more than keeping it."""
    if isinstance(e, Load | Const | Var | Axis) or axis not in walk.free_axes(e):
        return False
    seen: set[int] = set()
    stack: list[Expr] = [e]
    cycles = 0.0
    while stack:
        inner = stack.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        if id(inner) in kept:
            cycles += 1.0
            continue
        cycles += PRIMITIVES[inner.op].cost if isinstance(inner, Prim) else isinstance(inner, Load)
        stack.extend(walk.children(inner))
    return cycles >= KEEP_CYCLES


def _reduce(emission: Emission, axes: Sequence[tuple[str, Expr]], states: Sequence[State], values: Sequence[Expr]
            ) -> Reduce:
    """One Reduce for the states of a level, nested where several axes are reduced."""
    combiners = tuple(s.combiner for s in states)
    names = tuple(n for s in states for n in s.names)
    inner = tuple(values)
    body: tuple[Stmt, ...] = ()
    for depth, (axis, n) in enumerate(reversed(axes)):
        outermost = depth == len(axes) - 1
        own = names if outermost else tuple(emission.fresh("p") for _ in names)
        reduce = Reduce(own, combiners, axis, n, body, inner)
        if outermost:
            return reduce
        body = (reduce,)
        inner = tuple(Var(n, v.dtype) for n, v in zip(own, inner, strict=True))
    raise AssertionError("a reduction runs over an axis")
