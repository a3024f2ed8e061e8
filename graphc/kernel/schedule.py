"""How a kernel is run on a target: which axis is the vector, how work is split, how many partial states.

Owns `Schedule` and the function that chooses one.  Knows kernel IR and `Target` (data); generates no
code.  Invariants: a schedule is a function of the kernel and the target alone, never of the number of
threads; on every path from the body to a statement at most one loop is a vector loop; the work items
of a kernel store disjointly because they are blocks of parallel loops.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import cost, walk
from graphc.kernel.dependence import independent
from graphc.kernel.ir import (
    Axis,
    Contract,
    Expr,
    For,
    If,
    Kernel,
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
from graphc.kernel.target import Target


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """How one For, Reduce or Scan runs.

    lanes: elements of the vector that runs along this loop's axis, a power of two, several registers' worth
    where that pays; 1 means that the loop is stepped one by one.  Inside a loop with lanes > 1 every value
    that depends on its axis is a vector, inner loops included (column sums: the kept axis has the lanes,
    the Reduce inside holds vectors as its state).
    A Reduce with lanes > 1 keeps `lanes` partial states per vector and combines them horizontally
    when it ends, the upper half of the lanes with the lower, again and again (row sums).
    The last step of a vector loop is masked.
    unroll: vectors (or, with lanes == 1, iterations) per step.  For a Reduce it is also the number of
    independent partial states that break the chain of latencies; they are combined in order 0, 1, ...
    """

    lanes: int = 1
    unroll: int = 1

    @property
    def is_vector(self) -> bool:
        return self.lanes > 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """axes: the outermost perfectly nested parallel Fors whose iterations are the kernel's work items,
    outermost first; () where the kernel runs as one item (extent 1), Lets before them are computed by
    every item.  extents: one size per axis.  block: iterations of the last axis that one work item
    covers (a multiple of its lanes * unroll where it is the vector axis).  With B = ceil(extents[-1] /
    block), work item t is the block t % B of the last axis, and t // B counts the other axes, the last
    of them fastest.  grain: work items per claim.  cost: estimated cycles of one work item.

    loops: one plan per loop statement (For, Reduce, Scan), in the order of `walk.loops(kernel.body)`:
    preorder, the order in which they print.  Loops of the same axis name may have different plans.

    A kernel whose work is a Contract outside of any For has no axes: the backend that tiles it also
    partitions it, and `loops` covers the loops in the Contract's body alone.
    """

    axes: tuple[str, ...]
    extents: tuple[Size, ...]
    block: int
    grain: int
    cost: float
    loops: tuple[LoopPlan, ...]

    @property
    def extent(self) -> Size:
        """Number of work items."""
        if not self.axes:
            return 1
        return dim.product(self.extents[:-1]) * dim.ceildiv(self.extents[-1], self.block)


# Estimated cycles of one claim: long against claiming it (tens of ns), short against a run.  Where there are
# several loops, items are blocked to less: sizes that are unknown may turn out small or large.
CLAIM_CYCLES = 8000.0
ITEM_CYCLES = 600.0
MAX_BLOCK = 1 << 15
UNKNOWN_GRAIN = 4  # work items per claim at most, where an item holds a loop of unknown size
UNKNOWN_ROW = 512  # iterations that the last axis of a nest is taken to have where its size is unknown
# Estimated cycles, beside those of primitives (primitives.py) and of contiguous accesses (1 per register).
_STEP = 1.0  # one step of a loop, beyond its body
_VECTOR_STEP = 2.0  # the same with a mask for the last one
_GATHER, _SCATTER = 2.0, 1.75  # per element; a scattered line stays in the cache for the next steps
_HORIZONTAL = 4.0  # latency of halving a vector of partial states once
_CHEAP_STEP = 12.0  # a step of a Reduce that is cheap enough to run several registers side by side


def schedule(kernel: Kernel, target: Target) -> Schedule:
    """Return how `kernel` runs on `target`."""
    planner = _Planner(target, walk.buffers(kernel))
    whole = planner.block(kernel.body, None)
    nest = _outer_nest(kernel.body)
    if not nest:
        return Schedule((), (), 1, 1, whole.cycles, whole.plans)
    # The nest's plans are in a row at the front: what comes before it holds no loops.
    vector = next((n for n, p in enumerate(whole.plans[:len(nest)]) if p.is_vector), None)
    if vector is not None:
        nest = nest[:vector + 1]
    plan = whole.plans[len(nest) - 1]
    extents = tuple(cost.extent_of(f.extent) for f in nest)
    counts = [max(1, cost.typical(e)) for e in extents]
    per_iteration = max(1.0, whole.cycles) / dim.evaluate(dim.product(counts), {})
    step = plan.lanes * plan.unroll
    is_line = plan.is_vector and len(whole.plans) == 1  # no other loop whose extent may turn out long
    wanted = (CLAIM_CYCLES if is_line else ITEM_CYCLES) / per_iteration
    block = step
    while block < min(wanted, MAX_BLOCK):
        block *= 2
    last = extents[-1]
    if isinstance(last, int):
        block = min(block, max(1, -(-last // step)) * step)
        last = min(last, block)
    else:
        last = block if len(nest) == 1 else min(block, UNKNOWN_ROW)
    item = max(1.0, per_iteration * last)
    inner = walk.loops(nest[-1].body)
    most = MAX_BLOCK if all(isinstance(walk.as_size(t.extent), int) for t in inner) else UNKNOWN_GRAIN
    grain = max(1, min(most, int(CLAIM_CYCLES / item)))
    return Schedule(tuple(f.axis for f in nest), extents, block, grain, item, whole.plans)


def _outer_nest(body: walk.Block) -> list[For]:
    """Return the perfectly nested parallel Fors that are all of `body` but Lets, outermost first."""
    if not body or not all(isinstance(s, Let) for s in body[:-1]):
        return []
    nest: list[For] = []
    inner: Sequence[Stmt] = body[-1:]
    while len(inner) == 1 and isinstance(inner[0], For) and inner[0].parallel and walk.as_size(
            inner[0].extent) is not None:
        nest.append(inner[0])
        inner = inner[0].body
    return nest


@dataclass(frozen=True, slots=True)
class _Choice:
    """Estimated cycles of statements, and the plans of the loops in them in preorder."""

    cycles: float
    plans: tuple[LoopPlan, ...]


@dataclass(slots=True)
class _Lane:
    """The vector loop that statements are in.  varying: Vars that differ between lanes; lets: the values
    of integer Lets, through which indices are read."""

    axis: str
    lanes: int
    varying: set[str] = field(default_factory=set)
    lets: dict[str, Expr] = field(default_factory=dict)


class _Planner:
    """Chooses, for every loop that has no vector around it, the cheaper of: lanes here, or inside."""

    def __init__(self, target: Target, buffers: dict[str, tuple[DType, tuple[Size, ...]]]) -> None:
        self.target = target
        self.buffers = buffers

    def block(self, body: walk.Block, lane: _Lane | None) -> _Choice:
        parts = [self.statement(s, lane) for s in body]
        return _Choice(sum(p.cycles for p in parts), tuple(plan for p in parts for plan in p.plans))

    def statement(self, s: Stmt, lane: _Lane | None) -> _Choice:
        match s:
            case For() | Reduce() | Scan():
                return self.loop(s, lane)
            case Let(name, value):
                own = self.expressions((value,), lane)
                if lane is not None and _varies((value,), lane):
                    if value.dtype is dtypes.int64:
                        lane.lets[name] = walk.substitute(value, names=lane.lets)
                    else:
                        lane.varying.add(name)
                return _Choice(own, ())
            case Store(buffer=buffer, index=index) | Scatter(buffer=buffer, index=index):
                own = self.expressions(walk.expressions(s), lane)
                return _Choice(own + self.access(buffer, index, lane, _SCATTER), ())
            case If():
                then, orelse = self.block(s.then, lane), self.block(s.orelse, lane)
                share = 0.5 if lane is None else 1.0  # lanes go both ways
                own = self.expressions((s.condition,), lane)
                return _Choice(own + share * (then.cycles + orelse.cycles), then.plans + orelse.plans)
            case While():
                if lane is not None:
                    lane.varying.update(s.names)
                inner = self.block(s.body, lane)
                own = self.expressions((s.condition, *s.next), lane)
                return _Choice(cost.WHILE_STEPS * (inner.cycles + own), inner.plans)
            case Contract():
                return _Choice(cost.cycles((s,), self.target.lanes(s.acc_dtype)), self.block(s.body, None).plans)
            case Local():
                return _Choice(0.0, ())

    def loop(self, s: walk.Loop, lane: _Lane | None) -> _Choice:
        """Return the cheaper of stepping this loop one by one and, where allowed, by vectors."""
        count = cost.typical(cost.extent_of(s.extent))
        inner = self.inside(s, lane)
        unroll = 1
        if isinstance(s, Reduce) and not inner.plans:
            unroll = self.partial_states(s, inner.cycles, count, 1 if lane is None else lane.lanes)
        plain = _Choice(count * (inner.cycles + _STEP), (LoopPlan(1, unroll), *inner.plans))
        if lane is not None:
            if any(_varies(v, lane) for v in _results(s)):
                lane.varying.update(walk.bound_names(s))
            return plain
        lanes = self.lanes(s)
        if lanes == 1 or not self.may_vectorise(s, lanes):
            return plain
        lanes = self.widened(s, lanes, count)
        step = self.inside(s, _Lane(s.axis, lanes))
        cycles = -(-count // lanes) * (step.cycles + _VECTOR_STEP)
        if isinstance(s, Reduce):
            cycles += _HORIZONTAL * lanes.bit_length() + len(s.values) * lanes.bit_length()
        if cycles >= plain.cycles:
            return plain
        unroll = 1
        if isinstance(s, Reduce) and not step.plans:
            unroll = self.partial_states(s, step.cycles, -(-count // lanes), lanes)
        elif not step.plans:
            unroll = _within(4 if step.cycles <= 6 else 2 if step.cycles <= 12 else 1, -(-count // lanes))
        return _Choice(cycles, (LoopPlan(lanes, unroll), *step.plans))

    def inside(self, s: walk.Loop, lane: _Lane | None) -> _Choice:
        """Return the choice for one step of a loop: its blocks and the values that it combines."""
        if lane is not None and isinstance(s, Scan):
            lane.varying.update((s.name, s.name + "_before"))
        parts = [self.block(block, lane) for block in walk.blocks(s)]
        own = 0.0
        if not isinstance(s, For):
            values = s.values if isinstance(s, Reduce) else (s.value,)
            own = self.expressions(values, lane) + len(values)
        return _Choice(own + sum(p.cycles for p in parts), tuple(plan for p in parts for plan in p.plans))

    def widened(self, s: walk.Loop, lanes: int, count: int) -> int:
        """Return the lanes of a loop around plain Reduces (column sums): several registers side by side, so
        that every line of memory that a step of the Reduce touches brings more than one register's worth."""
        if not isinstance(s, For):
            return lanes
        inner = list(walk.loops(s.body))
        flat = all(isinstance(t, Reduce) and not any(walk.loops(t.body)) for t in inner)
        if not inner or not flat or any(self.inside(t, None).cycles > _CHEAP_STEP for t in inner):
            return lanes
        moves = {walk.linear_coefficient(e.index, self.buffers[e.buffer][1], s.axis) for e in walk.loads(tuple(inner))}
        if not moves <= {0, 1}:
            return lanes
        states = sum(len(t.values) for t in inner if isinstance(t, Reduce))
        factor = 4
        while factor > 1 and (states * factor > self.target.registers // 4 or lanes * factor > count):
            factor //= 2
        return lanes * factor

    def partial_states(self, s: Reduce, cycles: float, steps: int, lanes: int) -> int:
        """Return how many partial states hide the latency of combining: more for cheaper steps."""
        held = sum(max(1, self.registers(v.dtype, lanes)) for v in s.values)
        fitting = max(1, self.target.registers // (4 * held))
        return _within(min(fitting, 4 if cycles <= 8 else 2 if cycles <= 24 else 1), steps)

    def registers(self, dtype: DType, lanes: int) -> int:
        """Return how many registers hold `lanes` elements."""
        return -(-lanes // self.target.lanes(dtype))

    def lanes(self, s: walk.Loop) -> int:
        """Return the lanes that the data of a loop suggests: those of its widest float, else integer."""
        used = {self.buffers[a.buffer][0] for a in [*walk.loads((s,)), *walk.stores((s,))]}
        used |= {e.dtype for e in walk.all_expressions((s,)) if e.dtype.is_floating}
        floats = {self.target.lanes(d) for d in used if d.is_floating}
        integers = {self.target.lanes(d) for d in used if d.is_integer}
        narrow = {self.target.lanes(d) for d in used if d.is_integer and d.size < 8}
        return min(floats or narrow or integers or {self.target.lanes(dtypes.int32)})

    def may_vectorise(self, s: walk.Loop, lanes: int) -> bool:
        """Return whether the iterations may run as lanes, with everything inside of them."""
        if isinstance(s, Scan) or (isinstance(s, For) and not s.parallel and not independent(s)):
            return False
        for t in walk.statements(tuple(x for block in walk.blocks(s) for x in block)):
            if isinstance(t, Contract):
                return False
            if isinstance(t, For | Reduce | Scan) and walk.as_size(t.extent) is None and _depends(t.extent, s):
                return False
            if isinstance(t, Local):  # one copy per lane must stay in the cache
                elements = dim.product(t.shape)
                if not isinstance(elements, int) or elements * t.dtype.size * lanes > self.target.l1 // 2:
                    return False
        return True

    def expressions(self, roots: Sequence[Expr], lane: _Lane | None) -> float:
        """Return the cycles of expressions, for all lanes at once where there are any."""
        if lane is None:
            return cost.expression_cycles(roots)
        total = 0.0
        moving = _moving(roots, lane)
        for e in walk.postorder(roots):
            match e:
                case Load():
                    total += self.access(e.buffer, e.index, lane, _GATHER)
                case Prim():
                    vectors = float(self.registers(e.dtype, lane.lanes)) if id(e) in moving else 0.25
                    total += cost.primitive_cycles(e) * vectors
                case Random():
                    total += cost.expression_cycles((e,))
        return total

    def access(self, buffer: str, index: tuple[Expr, ...], lane: _Lane | None, scattered: float) -> float:
        """Return the cycles of one Load or Store: of one element, or of a vector of them."""
        if lane is None:
            return 1.0
        through = tuple(walk.substitute(e, names=lane.lets) for e in index) if lane.lets else index
        stride = walk.linear_coefficient(through, self.buffers[buffer][1], lane.axis, frozenset(lane.varying))
        if stride is None or stride not in (0, 1, -1):  # machines gather words; bytes go one by one
            return scattered * lane.lanes * (1.0 if self.buffers[buffer][0].size >= 4 else 2.0)
        if stride == 0:
            return 1.0
        return (2.0 if stride == -1 else 1.0) * self.registers(self.buffers[buffer][0], lane.lanes)


def _depends(extent: Expr, s: walk.Loop) -> bool:
    """Return whether an extent inside of `s` may differ between its iterations: it reads its axis, or what is bound
    inside."""
    inside = [t for block in walk.blocks(s) for t in walk.statements(block)]
    bound = {s.axis, *(t.axis for t in inside if isinstance(t, For | Reduce | Scan)),
             *(name for t in inside for name in walk.bound_names(t))}
    return not bound.isdisjoint(walk.free_axes(extent) | walk.free_vars(extent))


def _within(unroll: int, steps: int) -> int:
    """Return the largest power of two that is at most `unroll` and at most `steps`."""
    while unroll > max(1, steps):
        unroll //= 2
    return unroll


def _results(s: walk.Loop) -> Iterator[tuple[Expr, ...]]:
    if isinstance(s, Reduce):
        yield s.values
    elif isinstance(s, Scan):
        yield (s.value,)


def _varies(roots: Sequence[Expr], lane: _Lane) -> bool:
    return any(_differs(e, lane) for e in walk.postorder(roots))


def _differs(e: Expr, lane: _Lane) -> bool:
    """Return whether `e` is an axis or name that differs between lanes."""
    return (isinstance(e, Axis) and e.name == lane.axis) or (
        isinstance(e, Var) and (e.name in lane.varying or e.name in lane.lets))


def _moving(roots: Sequence[Expr], lane: _Lane) -> set[int]:
    """Return the identities of the expressions under `roots` that differ between lanes."""
    found: set[int] = set()
    for e in walk.postorder(roots):
        if _differs(e, lane) or any(id(c) in found for c in walk.children(e)):
            found.add(id(e))
    return found
