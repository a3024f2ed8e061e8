"""Loops of kernel IR as LLVM blocks: For, Reduce, Scan and While, scalar or along a vector.

Owns how an axis is stepped: whole vectors, then one masked step for the rest; several independent
partial states where the plan unrolls a reduction; what is hoisted out of a loop.  Works on a `Renderer`
and its `Context`s; knows no expressions.  Invariants: the order of combination is a function of the
plan and the extent; the state of a loop lives in stack slots, which LLVM's sroa turns into registers.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphc import dtypes
from graphc.backends.llvm_cpu import primitives, staging, streaming
from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.convert import register_element
from graphc.errors import BackendError
from graphc.kernel import walk
from graphc.kernel.ir import (
    COMBINERS,
    Axis,
    Expr,
    For,
    Guard,
    Let,
    Load,
    Local,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    Stmt,
    Store,
    Var,
    While,
)
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.schedule import LoopPlan

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.render import Context, Renderer

# body(context, slot): one step; slot numbers the independent partial state that it works on.
Body = Callable[["Context", int], None]

EXPAND_LIMIT = 4  # constant extents up to this are written out
HOIST_COST = 5.0  # primitives at least this dear are computed before the loop that they do not depend on


def along(r: Renderer, axis: str, low: Value, high: Value, plan: LoopPlan, context: Context, body: Body) -> None:
    """Run `body` for axis = low .. high-1, `plan.lanes` at a time, `plan.unroll` steps at a time."""
    from_zero = low.constant == 0 and high.constant is not None
    if not plan.is_vector and from_zero and 0 <= (high.constant or 0) <= EXPAND_LIMIT:
        for i in range(high.constant or 0):
            body(context.bound({axis: r.b.i64(i)}), i % plan.unroll)
        return
    if plan.is_vector:
        full = whole_steps(r, axis, low, high, plan, context, body)
        masked_steps(r, axis, full, high, plan, context, body)
        return
    start = low
    if plan.unroll > 1:
        start = _full_end(r, low, high, plan.unroll)
        with r.b.loop(low, start, plan.unroll) as loop:
            for u in range(plan.unroll):
                body(_scalar(r, context, axis, loop.index + u), u)
    if start.constant is not None and start.constant == high.constant:
        return
    with r.b.loop(start, high) as loop:
        body(_scalar(r, context, axis, loop.index), 0)


def _scalar(r: Renderer, context: Context, axis: str, index: Value) -> Context:
    r.bounded(index)
    return context.bound({axis: index})


def _full_end(r: Renderer, low: Value, high: Value, step: int) -> Value:
    """Return low + the largest multiple of `step` that fits below high."""
    count = high - low
    if count.constant is not None:
        return low + max(count.constant, 0) // step * step
    if step & (step - 1) == 0:
        return low + (count & -step)
    return low + r.b.binary("sdiv", count, step) * step


def whole_steps(r: Renderer, axis: str, low: Value, high: Value, plan: LoopPlan, context: Context,
                body: Body) -> Value:
    """Run `body` on full vectors as long as whole steps fit; return where they end."""
    step = plan.lanes * plan.unroll
    end = _full_end(r, low, high, step)
    known = low.constant is not None and end.constant is not None

    def one(index: Value) -> None:
        for u in range(plan.unroll):
            at = index + u * plan.lanes
            r.quad(at, index)
            body(_lanes(r, context, axis, at, plan.lanes, None), u)

    r.quad(end, low)
    if known and end.constant == low.constant:
        return end
    if known and end.constant - low.constant == step:  # type: ignore[operator]
        one(low)
        return end
    with r.b.loop(low, end, step) as loop:
        r.quad(loop.index, low)
        one(loop.index)
    return end


def masked_steps(r: Renderer, axis: str, low: Value, high: Value, plan: LoopPlan, context: Context,
                 body: Body) -> None:
    """Run `body` on what whole steps left over, lanes at and above `high` switched off."""
    lanes = plan.lanes

    def one(index: Value) -> None:
        mask = r.b.lane_mask(high - index, lanes)
        body(_lanes(r, context, axis, index, lanes, mask), 0)

    if low.constant is not None and high.constant is not None:
        for index in range(low.constant, high.constant, lanes):
            rest = high.constant - index
            mask = None if rest >= lanes else r.b.low_lanes(rest, lanes)
            body(_lanes(r, context, axis, r.b.i64(index), lanes, mask), 0)
    elif plan.unroll == 1:
        with r.b.when(low.lt(high)):
            one(low)
    else:
        with r.b.loop(low, high, lanes) as loop:
            r.quad(loop.index, low)
            one(loop.index)


def _lanes(r: Renderer, context: Context, axis: str, index: Value, lanes: int, mask: Value | None) -> Context:
    """Return the context of one vector step from `index` on."""
    r.bounded(index)
    return context.bound({axis: r.linear(index)}, lanes=lanes, mask=mask)


def plan_of(r: Renderer, stmt: For | Reduce | Scan, context: Context) -> LoopPlan:
    """Return the plan of a loop.  Raises BackendError for a vector loop inside of another."""
    plan = r.plans.get(id(stmt), LoopPlan())
    if plan.is_vector and context.lanes > 1:
        raise BackendError(f"{r.kernel.name}: the schedule has vector loop {stmt.axis!r} inside of another")
    return plan


def for_(r: Renderer, stmt: For, context: Context) -> None:
    """Render a For over its whole extent."""
    high = r.scalar(stmt.extent, context)
    outer = hoist(r, stmt.body, (), (stmt.axis,), high, context)
    run(r, stmt, r.b.i64(0), high, plan_of(r, stmt, context), outer)


def run(r: Renderer, stmt: For, low: Value, high: Value, plan: LoopPlan, context: Context) -> None:
    """Render a For over low .. high-1."""
    def body(inner: Context, _: int) -> None:
        r.statements(stmt.body, inner)

    staged = staging.stages(stmt, plan)

    def whole(start: Value, stop: Value) -> Value:
        if staged:
            return staging.run(r, stmt, staged, start, stop, plan, context)
        return whole_steps(r, stmt.axis, start, stop, plan, context, body)

    stores = streaming.outputs(r, stmt, plan, context)
    large = streaming.is_large(r, stores, plan.lanes) if stores else None
    if large is not None and large.constant != 0:
        streaming.run(r, stmt, low, high, context, stores, large, plan.lanes, whole,
                      lambda start, stop: masked_steps(r, stmt.axis, start, stop, plan, context, body))
    elif staged:
        masked_steps(r, stmt.axis, whole(low, high), high, plan, context, body)
    else:
        along(r, stmt.axis, low, high, plan, context, body)


# ---------------------------------------------------------------------------------------------
# Reductions.


def reduce_(r: Renderer, stmt: Reduce, context: Context) -> None:
    """Render a Reduce: partial states, their combination in fixed order, and the binding of its names."""
    b, plan = r.b, plan_of(r, stmt, context)
    high = r.scalar(stmt.extent, context)
    outer = hoist(r, stmt.body, stmt.values, (stmt.axis,), high, context)
    groups = groups_of(stmt.combiners)
    varying = varies(stmt.body, stmt.values, context)
    lanes = plan.lanes if plan.is_vector else context.lanes
    widths = [plan.lanes if plan.is_vector else lanes if any(varying[k] for k in ks) else 1
              for _, ks in groups for _ in ks]
    slots: list[list[Value]] = []
    for _ in range(plan.unroll):
        slot = [b.alloca(register_element(v.dtype), w) for v, w in zip(stmt.values, widths, strict=True)]
        for combiner, ks in groups:
            b.store(primitives.identity(b, combiner, stmt.values[ks[0]].dtype, widths[ks[0]]), slot[ks[0]])
            for k in ks[1:]:
                b.store(b.const(0, "i64", widths[k]), slot[k])
        slots.append(slot)

    def read(slot: int, k: int) -> Value:
        return b.load(slots[slot][k], register_element(stmt.values[k].dtype), widths[k])

    def step(inner: Context, slot: int) -> None:
        r.statements(stmt.body, inner)
        new = [r.value(v, inner) for v in r.evaluate_all(stmt.values, inner)]
        for combiner, ks in groups:
            state = [read(slot, k) for k in ks]
            taken = primitives.combine(b, combiner, stmt.values[ks[0]].dtype, state,
                                       [b.splat(new[k], widths[k]) for k in ks], in_order=True)
            for k, old, value in zip(ks, state, taken, strict=True):
                on = inner.mask if widths[k] > 1 else None
                b.store(value if on is None else b.select(on, value, old), slots[slot][k])

    along(r, stmt.axis, b.i64(0), high, plan, outer, step)
    for combiner, ks in groups:
        dtype = stmt.values[ks[0]].dtype
        state = [read(0, k) for k in ks]
        for u in range(1, plan.unroll):
            state = primitives.combine(b, combiner, dtype, state, [read(u, k) for k in ks], in_order=False)
        if plan.is_vector:
            state = horizontal(r, combiner, dtype, state)
        for k, value in zip(ks, state, strict=True):
            context.names[stmt.names[k]] = value


def groups_of(combiners: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return (combiner, positions of its states) for combiners whose states follow one another."""
    groups, at = [], 0
    for combiner in combiners:
        groups.append((combiner, list(range(at, at + COMBINERS[combiner]))))
        at += COMBINERS[combiner]
    return groups


def horizontal(r: Renderer, combiner: str, dtype: dtypes.DType, state: Sequence[Value]) -> list[Value]:
    """Return the lanes of a state combined into one: the upper half with the lower, again and again."""
    b, lanes, current = r.b, state[0].lanes, list(state)
    while lanes > 1:
        lanes //= 2
        lower = [b.shuffle(v, None, range(lanes)) for v in current]
        upper = [b.shuffle(v, None, range(lanes, 2 * lanes)) for v in current]
        current = primitives.combine(b, combiner, dtype, lower, upper, in_order=False)
    return current


def scan(r: Renderer, stmt: Scan, context: Context) -> None:
    """Render a running combination; its name stays bound to the last value."""
    b, plan = r.b, plan_of(r, stmt, context)
    if plan.is_vector:
        raise BackendError(f"{r.kernel.name}: scan {stmt.name!r} cannot run along a vector")
    high = r.scalar(stmt.extent, context)
    dtype = stmt.value.dtype
    if COMBINERS[stmt.combiner] != 1:
        raise BackendError(f"{r.kernel.name}: scan {stmt.name!r} with combiner {stmt.combiner} is not supported")
    width = context.lanes if varies(stmt.body, (stmt.value,), context)[0] else 1
    element = register_element(dtype)
    slot = b.alloca(element, width)
    b.store(primitives.identity(b, stmt.combiner, dtype, width), slot)
    with b.loop(b.i64(0), high) as loop:
        index = high - 1 - loop.index if stmt.reverse else loop.index
        r.bounded(index)
        inner = context.bound({stmt.axis: index})
        r.statements(stmt.body, inner)
        value = b.splat(r.value(r.evaluate(stmt.value, inner), inner), width)
        before = b.load(slot, element, width)
        after, = primitives.combine(b, stmt.combiner, dtype, [before], [value], in_order=True)
        b.store(after, slot)
        inner.names[stmt.name], inner.names[stmt.name + "_before"] = after, before
        r.statements(stmt.then, inner)
    context.names[stmt.name] = b.load(slot, element, width)


def while_(r: Renderer, stmt: While, context: Context) -> None:
    """Render a While; where lanes disagree on the condition, those that are done keep their state."""
    b = r.b
    parts = (*stmt.initial, stmt.condition, *stmt.next)
    differs = any(varies(stmt.body, parts, context))
    width = context.lanes if differs else 1
    elements = [register_element(e.dtype) for e in stmt.initial]
    slots = [b.alloca(e, width) for e in elements]
    initial = [r.value(v, context) for v in r.evaluate_all(stmt.initial, context)]
    for slot, value in zip(slots, initial, strict=True):
        b.store(b.splat(value, width), slot)
    on_slot = b.alloca("i1", width) if width > 1 else None
    if on_slot is not None:
        b.store(context.mask if context.mask is not None else b.const(1, "i1", width), on_slot)
    head, again, done = b.new_block(), b.new_block(), b.new_block()
    b.branch(head)
    b.start_block(head)
    inner = context.bound({n: b.load(s, e, width)
                           for n, s, e in zip(stmt.names, slots, elements, strict=True)})
    if on_slot is not None:
        inner.mask = b.load(on_slot, "i1", width)
    condition = r.value(r.evaluate(stmt.condition, inner), inner)
    if on_slot is not None:
        assert inner.mask is not None
        inner.mask = inner.mask & b.splat(condition, width)
        b.store(inner.mask, on_slot)
        condition = b.any(inner.mask)
    b.branch_if(condition, again, done)
    b.start_block(again)
    r.statements(stmt.body, inner)
    following = [r.value(v, inner) for v in r.evaluate_all(stmt.next, inner)]
    for slot, name, value in zip(slots, stmt.names, following, strict=True):
        old = inner.names[name]
        value = b.splat(value, width)
        b.store(value if on_slot is None or inner.mask is None else
                b.select(inner.mask, value, r.value(old, inner)), slot)
    b.branch(head)
    b.start_block(done)
    for name, slot, element in zip(stmt.names, slots, elements, strict=True):
        context.names[name] = b.load(slot, element, width)


# ---------------------------------------------------------------------------------------------
# What depends on the lanes, and what does not depend on the loop.


def varies(body: tuple[Stmt, ...], roots: Sequence[Expr], context: Context) -> list[bool]:
    """Return for each root, evaluated after `body`, whether it may differ between the context's lanes."""
    if context.lanes == 1:
        return [False] * len(roots)
    varying = {n for n, v in context.names.items() if not isinstance(v, Value) or v.lanes > 1}
    # A Local of a vector loop has one copy per lane.
    private = {s.name for s in walk.statements(body) if isinstance(s, Local)} | context.private
    for stmt in walk.statements(body):
        # A loop's results depend on everything inside of it.
        parts = walk.statements((stmt,)) if isinstance(stmt, Reduce | Scan | While) else iter((stmt,))
        if any(_differs(e, varying, private) for s in parts for e in walk.expressions(s)):
            varying.update(walk.bound_names(stmt))
            if isinstance(stmt, Scan):
                varying.add(stmt.name + "_before")
    return [_differs(e, varying, private) for e in roots]


def _differs(root: Expr, varying: set[str], private: frozenset[str] | set[str]) -> bool:
    return any(e.name in varying if isinstance(e, Axis | Var) else isinstance(e, Load) and e.buffer in private
               for e in walk.postorder((root,)))


def hoist(r: Renderer, body: tuple[Stmt, ...], roots: Sequence[Expr], axes: Sequence[str], extent: Value,
          context: Context) -> Context:
    """Return a context in which the dear subexpressions of a loop that it does not change are computed.

    Only what always runs is taken (nothing inside of an If or While), and Loads only from parameters that
    this kernel does not write, where the loop is known to run or the element is known to exist.
    """
    bound = {*axes}
    for stmt in walk.statements(body):
        bound.update(walk.bound_names(stmt))
        if isinstance(stmt, For | Reduce | Scan):
            bound.add(stmt.axis)
        if isinstance(stmt, Scan):
            bound.add(stmt.name + "_before")
    runs = extent.constant is not None and extent.constant > 0
    known: dict[int, bool] = {}
    found: list[Expr] = []
    for whole, sure in [*((e, runs) for e in roots), *_always(body, runs)]:
        covered: set[int] = set()
        for e in reversed(list(walk.postorder((whole,)))):
            if id(e) in covered or id(e) in context.hoisted:
                covered.update(id(c) for c in walk.children(e))
            elif isinstance(e, Prim) and PRIMITIVES[e.op].cost >= HOIST_COST and _invariant(r, e, bound, sure, known):
                found.append(e)
                covered.update(id(c) for c in walk.children(e))
    if not found:
        return context
    outer = context.bound({})
    outer.hoisted = dict(context.hoisted)
    for e, value in zip(found, r.evaluate_all(found, context), strict=True):
        outer.hoisted[id(e)] = value
    return outer


def _always(body: tuple[Stmt, ...], runs: bool) -> list[tuple[Expr, bool]]:
    """Return the expressions of a loop's body outside of branches, with whether they surely run."""
    found: list[tuple[Expr, bool]] = []
    for stmt in body:
        match stmt:
            case Let() | Store() | Scatter():
                found.extend((e, runs) for e in walk.expressions(stmt))
            case For() | Reduce() | Scan():
                found.append((stmt.extent, runs))
                found.extend((e, False) for e in walk.expressions(stmt)[1:])
                for block in walk.blocks(stmt):
                    found.extend(_always(block, False))
            case _:
                continue
    return found


def _invariant(r: Renderer, root: Expr, bound: set[str], runs: bool, known: dict[int, bool]) -> bool:
    for e in walk.postorder((root,)):
        if id(e) in known:
            continue
        good = all(known[id(c)] for c in walk.children(e))
        if isinstance(e, Axis | Var):
            good = e.name not in bound
        elif isinstance(e, Load):
            good = good and r.is_read_only(e.buffer) and (runs or r.exists(e))
        elif isinstance(e, Guard | Random):
            good = False
        known[id(e)] = good
    return known[id(root)]
