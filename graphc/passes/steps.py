"""A program between lowering and the memory plan: steps over cells.

Owns the records.  Knows kernels; knows neither IR values nor addresses.  Invariant: a cell holds one value at a time,
and every move of a value from one cell to another is an explicit Move, which coalescing (coalesce.py) may remove.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import Shape
from graphc.kernel.ir import Kernel


@dataclass(eq=False, slots=True)
class Cell:
    """Where a value lies.

    role: "feed", "state", "constant", "fetch" (number `source`), "temp", "view" (all elements of `base` under another
    shape) or "slice" (a row of `base`, which the loop around moves).
    """

    dtype: DType
    shape: Shape
    role: str = "temp"
    source: int = -1
    base: Cell | None = None

    @property
    def bytes(self) -> Size:
        return dim.product(self.shape) * self.dtype.size

    @property
    def root(self) -> Cell:
        """The cell whose memory this is: itself, or what it is a view of."""
        cell = self
        while cell.role == "view":
            assert cell.base is not None
            cell = cell.base
        return cell


@dataclass(slots=True)
class Launch:
    """Run `kernel` on `cells`, one per parameter."""

    kernel: Kernel
    cells: tuple[Cell, ...]
    sizes: tuple[Size, ...]


@dataclass(slots=True)
class Move:
    """Copy the value in `source` to `target`."""

    target: Cell
    source: Cell


@dataclass(slots=True)
class Repeat:
    """A loop, as kernel/plan.py's Loop, over cells.  slices: (slice cell, reverse)."""

    body: list[Step]
    count: Size | None = None
    count_cell: Cell | None = None
    condition: Cell | None = None
    limit: Size | None = None
    slices: tuple[tuple[Cell, bool], ...] = ()
    index: Cell | None = None
    taken: Cell | None = None


@dataclass(slots=True)
class Choose:
    """A branch, as kernel/plan.py's Branch, over cells."""

    predicate: Cell
    then: list[Step]
    orelse: list[Step]


@dataclass(slots=True)
class Ask:
    """Call host function number `function`, as kernel/plan.py's Host, over cells."""

    function: int
    inputs: tuple[Cell, ...]
    outputs: tuple[Cell, ...]


Step: TypeAlias = Launch | Move | Repeat | Choose | Ask


@dataclass(slots=True)
class Steps:
    """A whole program: steps, and the arrays that constant cells hold."""

    steps: list[Step]
    constants: list[np.ndarray] = field(default_factory=list)


@dataclass(slots=True)
class Event:
    """One touch of a cell's memory at a position of the program; argument: number of the parameter of `step`."""

    position: int
    writes: bool
    step: Step
    argument: int = -1


@dataclass(slots=True)
class Range:
    """The positions that a loop covers, its header included."""

    first: int
    last: int


class Timeline:
    """Positions of all steps, and who touches which root cell when (by cell, in order of position)."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.events: dict[Cell, list[Event]] = {}
        self.loops: list[Range] = []
        self.hosts: list[int] = []
        self.position: dict[int, int] = {}
        self._now = 0
        self._walk(steps)

    def _walk(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._now += 1
            self.position[id(step)] = self._now
            match step:
                case Launch(kernel, cells, _):
                    for i, (p, cell) in enumerate(zip(kernel.params, cells, strict=True)):
                        if p.role != "out":
                            self._touch(cell, False, step, i)
                        if p.role != "in":
                            self._touch(cell, True, step, i)
                case Move(target, source):
                    self._touch(source, False, step)
                    self._touch(target, True, step)
                case Ask(_, inputs, outputs):
                    self.hosts.append(self._now)
                    for cell in inputs:
                        self._touch(cell, False, step)
                    for cell in outputs:
                        self._touch(cell, True, step)
                case Repeat():
                    self._repeat(step)
                case Choose(predicate, then, orelse):
                    self._touch(predicate, False, step)
                    self._walk(then)
                    self._walk(orelse)

    def _repeat(self, step: Repeat) -> None:
        loop = Range(self._now, self._now)
        self.loops.append(loop)
        for cell in (step.count_cell, step.condition):
            if cell is not None:
                self._touch(cell, False, step)
        if step.index is not None:
            self._touch(step.index, True, step)
        self._walk(step.body)
        self._now += 1
        loop.last = self._now
        if step.condition is not None:
            self._touch(step.condition, False, step)
        if step.taken is not None:
            self._touch(step.taken, True, step)

    def _touch(self, cell: Cell, writes: bool, step: Step, argument: int = -1) -> None:
        at: Cell | None = cell.root
        while at is not None:
            self.events.setdefault(at, []).append(Event(self._now, writes, step, argument))
            at = at.base.root if at.role == "slice" and at.base is not None else None

    def lifetime(self, cell: Cell) -> Range:
        """The positions over which `cell` must keep its bytes: a loop's whole range where its value crosses turns."""
        return self.extent(self.events[cell])

    def extent(self, events: Sequence[Event]) -> Range:
        """The lifetime of a cell with these events, in order."""
        first = min(e.position for e in events)
        last = max(e.position for e in events)
        for loop in sorted(self.loops, key=lambda r: r.first - r.last, reverse=True):  # inner ones first
            inside = [e for e in events if loop.first <= e.position <= loop.last]
            if not inside:
                continue
            crosses = len(inside) < len(events) or not inside[0].writes or any(
                e.position in (loop.first, loop.last) for e in inside) or first < loop.first
            if crosses or not _written_first(inside):
                first, last = min(first, loop.first), max(last, loop.last)
        return Range(first, last)


def _written_first(events: Sequence[Event]) -> bool:
    earliest = min(e.position for e in events)
    at_first = [e for e in events if e.position == earliest]
    return all(e.writes for e in at_first)


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield every step, those inside loops and branches too, in order."""
    stack = list(reversed(steps))
    while stack:
        step = stack.pop()
        yield step
        match step:
            case Repeat(body=body):
                stack.extend(reversed(body))
            case Choose(then=then, orelse=orelse):
                stack.extend(reversed([*then, *orelse]))


def filtered(steps: Sequence[Step], keep: Callable[[Step], bool]) -> list[Step]:
    """Return `steps` without those that `keep` refuses, inside loops and branches too."""
    out: list[Step] = []
    for step in steps:
        if not keep(step):
            continue
        match step:
            case Repeat(body=body):
                step.body = filtered(body, keep)
            case Choose(then=then, orelse=orelse):
                step.then, step.orelse = filtered(then, keep), filtered(orelse, keep)
        out.append(step)
    return out
