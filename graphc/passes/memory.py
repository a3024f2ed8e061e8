"""The memory plan: every temporary a place in one arena, for all sizes at once.

Owns lifetimes, slots and offsets, and writes the final Plan.  Knows steps and sizes; knows no kernels' insides but
their aliases.  Invariants: two temporaries share a slot only where their lifetimes are disjoint, or meet in one
kernel that may write the one over the other; a slot's size is the maximum of its tenants' sizes as an expression, so
the plan holds for all sizes and only offsets change.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.function import Function, Value
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Binding, Branch, Buffer, Call, Check, Copy, Host, Loop, Plan, Slot
from graphc.kernel.plan import Step as PlanStep
from graphc.kernel.text import format_kernel
from graphc.passes.access import estimate
from graphc.passes.bounds import at_least
from graphc.passes.extract import states_read
from graphc.passes.steps import Ask, Cell, Choose, Launch, Move, Range, Repeat, Step, Steps, Timeline

ALIGNMENT = 64


def plan_memory(function: Function, lowered: Steps, share: bool = True) -> Plan:
    """Return the plan of `function` from its steps.  share: temporaries may share memory."""
    timeline = Timeline(lowered.steps)
    offsets, arena = _arena(timeline, share)
    return _Writer(function, lowered, offsets, arena).plan()


# ---------------------------------------------------------------------------------------------
# Slots.


@dataclass(slots=True)
class Place:
    """One slot: its size, and the last tenant with its lifetime."""

    size: Size
    tenants: list[tuple[Cell, Range]] = field(default_factory=list)


def aligned(size: Size) -> Size:
    """Return `size` rounded up to the alignment of slots."""
    return dim.ceildiv(size, ALIGNMENT) * ALIGNMENT


def _arena(timeline: Timeline, share: bool) -> tuple[dict[Cell, Size], Size]:
    """Return the offset of every temporary, and the bytes of the arena."""
    cells = [(timeline.lifetime(c), c) for c in timeline.events if c.role == "temp"]
    cells.sort(key=lambda pair: (pair[0].first, pair[0].last))
    places: list[Place] = []
    for life, cell in cells:
        place = _choose(places, timeline, life, cell) if share else None
        need = aligned(cell.bytes)
        if place is None:
            place = Place(need)
            places.append(place)
        elif not at_least(place.size, need):
            place.size = need if at_least(need, place.size) else dim.maximum(place.size, need)
        place.tenants.append((cell, life))
    places.sort(key=lambda p: not isinstance(p.size, int))  # known sizes first, so that their offsets are numbers
    offsets: dict[Cell, Size] = {}
    total: Size = 0
    for place in places:
        for cell, _ in place.tenants:
            offsets[cell] = total
        total = total + place.size
    return offsets, total


def _choose(places: Sequence[Place], timeline: Timeline, life: Range, cell: Cell) -> Place | None:
    """The free place that fits best: the smallest that is large enough, else the largest that must grow."""
    need = estimate(aligned(cell.bytes))
    best: tuple[tuple[int, int], Place] | None = None
    for place in places:
        tenant, other = place.tenants[-1]
        meet = other.last == life.first and _written_over(timeline, cell, tenant, life.first)
        if other.last >= life.first and not meet:
            continue
        have = estimate(place.size)
        rank = (0, have - need) if have >= need else (1, need - have)
        if best is None or rank < best[0]:
            best = rank, place
    return None if best is None else best[1]


def _written_over(timeline: Timeline, cell: Cell, tenant: Cell, position: int) -> bool:
    """Whether the kernel at `position` writes `cell` and may do so over `tenant`, which it reads for the last time."""
    writes = [e for e in timeline.events[cell] if e.position == position]
    reads = [e for e in timeline.events[tenant] if e.position == position]
    steps = {id(e.step) for e in writes + reads}
    if len(steps) != 1 or not isinstance(writes[0].step, Launch) or cell.bytes != tenant.bytes:
        return False
    kernel = writes[0].step.kernel
    names = [p.name for p in kernel.params]
    return len(writes) == 1 and all(
        not r.writes and (names[writes[0].argument], names[r.argument]) in kernel.aliases for r in reads)


# ---------------------------------------------------------------------------------------------
# The plan.


class _Writer:
    """Turns steps over cells into steps over numbered buffers."""

    def __init__(self, function: Function, lowered: Steps, offsets: dict[Cell, Size], arena: Size) -> None:
        self.function = function
        self.lowered = lowered
        self.offsets = offsets
        self.arena = arena
        self.kernels: dict[str, int] = {}
        self.bodies: list[Kernel] = []
        self.buffers: dict[Buffer | Cell, int] = {}
        self.made: list[Buffer] = []

    def plan(self) -> Plan:
        f = self.function
        feeds, states = _slots(f.feed_names, f.feeds), _slots(f.state_names, f.states)
        fetches = _slots(f.fetch_names, f.fetches)
        sources = tuple(self.buffer(Cell(s.dtype, s.shape, "fetch", i)) for i, s in enumerate(fetches))
        steps = self.steps(self.lowered.steps)
        checks = tuple(Check(c.kind, c.left, c.right, c.message, c.op) for c in f.conditions)
        named = {s.op for k in self.bodies for s in k.sites} | {c.op for c in checks} | {
            o for k in self.bodies for o in k.provenance}
        return Plan(
            kernels=tuple(self.bodies), buffers=tuple(self.made), steps=steps, feeds=feeds, states=states,
            fetches=fetches, fetch_sources=sources, initialised=states_read(f),
            written=tuple(u is not s for s, u in zip(f.states, f.updates, strict=True)),
            constants=tuple(self.lowered.constants),
            bindings=tuple(Binding(s.symbol, s.feed, s.axis, s.element) for s in f.sources), checks=checks,
            arena=self.arena, lines={name: line for name, line in f.lines.items() if name in named})

    def steps(self, steps: Sequence[Step]) -> tuple[PlanStep, ...]:
        return tuple(map(self.step, steps))

    def step(self, step: Step) -> PlanStep:
        match step:
            case Launch(kernel, cells, sizes):
                return Call(self.kernel(kernel), tuple(map(self.buffer, cells)), sizes)
            case Move(target, source):
                return Copy(self.buffer(target), self.buffer(source))
            case Ask(function, inputs, outputs):
                return Host(function, tuple(map(self.buffer, inputs)), tuple(map(self.buffer, outputs)))
            case Choose(predicate, then, orelse):
                return Branch(self.buffer(predicate), self.steps(then), self.steps(orelse))
            case Repeat():
                count, condition = (None if c is None else self.buffer(c) for c in (step.count_cell, step.condition))
                index, taken = (-1 if c is None else self.buffer(c) for c in (step.index, step.taken))
                slices = tuple((self.buffer(c), reverse) for c, reverse in step.slices)
                return Loop(self.steps(step.body), step.count, count, condition, step.limit, slices, index, taken)

    def kernel(self, kernel: Kernel) -> int:
        """The number of a kernel; equal ones share it, and it comes from the ops of all of them."""
        text = format_kernel(kernel)
        number = self.kernels.setdefault(text, len(self.bodies))
        if number == len(self.bodies):
            self.bodies.append(kernel)
        elif not set(kernel.provenance) <= set(self.bodies[number].provenance):
            known = self.bodies[number]
            together = tuple(dict.fromkeys((*known.provenance, *kernel.provenance)))
            self.bodies[number] = replace(known, provenance=together)
        return number

    def buffer(self, cell: Cell) -> int:
        """The number of the buffer that a cell is a view of.  Each temporary, and each slice, which its loop moves, has
        a buffer of its own, so that a buffer's number tells values apart."""
        root = cell.root
        match root.role:
            case "temp":
                made = Buffer(root.dtype, root.shape, "temp", offset=self.offsets[root])
            case "slice" if root.base is not None:
                made = Buffer(root.dtype, root.shape, "slice", base=self.buffer(root.base))
            case role:
                made = Buffer(root.dtype, root.shape, role, root.source)
        key = root if root.role in ("temp", "slice") else made
        if key not in self.buffers:
            self.buffers[key] = len(self.made)
            self.made.append(made)
        return self.buffers[key]


def _slots(names: Sequence[str], values: Sequence[Value]) -> tuple[Slot, ...]:
    """Names (numbers where there are none), dtypes and shapes of a function's inputs or results."""
    given = names or [str(i) for i in range(len(values))]
    return tuple(Slot(n, v.tensor.dtype, v.tensor.shape) for n, v in zip(given, values, strict=True))
