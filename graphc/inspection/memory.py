"""The memory of a program: who lives where and how long, what sharing saves, and which copies stayed.

Owns lifetimes over a plan's steps, their drawing, and the reasons of copies.  Knows plans, and the passes that decided
them; decides nothing itself.  Invariant: steps are numbered as in `plan_text`; a lifetime covers a whole loop where the
value crosses its turns.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.errors import GraphcError
from graphc.inspection.layers import at
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.function import Function
from graphc.kernel.plan import Branch, Buffer, Call, Copy, Host, Loop, Plan, Step
from graphc.passes.coalesce import coalesce, obstacle
from graphc.passes.lower import lower
from graphc.passes.steps import Cell, Move, Timeline, all_steps


class MissingExtra(GraphcError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A temporary: number of its buffer, its type, its bytes, its offset, the first and last step that it lives in,
    and what the first step is."""

    buffer: int
    type: str
    bytes: Size
    offset: Size
    first: int
    last: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Stay:
    """A copy that writing in place could not avoid.  bytes: that it moves at each run (or turn of its loop)."""

    target: str
    source: str
    bytes: Size
    reason: str


def numbered(steps: Sequence[Step], start: int = 1) -> Iterator[tuple[int, Step, int]]:
    """Yield (number, step, number of the last step inside of it) in order."""
    number = start
    for step in steps:
        inner = (*step.then, *step.orelse) if isinstance(step, Branch) else step.body if isinstance(step, Loop) else ()
        below = list(numbered(inner, number + 1))
        last = below[-1][0] if below else number
        yield number, step, last
        yield from below
        number = last + 1


def lifetimes(plan: Plan) -> tuple[Lifetime, ...]:
    """Return the temporaries of a plan in the order in which they are first written."""
    used: dict[int, list[int]] = {}
    steps = list(numbered(plan.steps))
    loops = [(number, last) for number, step, last in steps if isinstance(step, Loop)]
    names: dict[int, str] = {}
    for number, step, _ in steps:
        names[number] = step_name(plan, step)
        for buffer in _buffers(step):
            while buffer >= 0:
                used.setdefault(buffer, []).append(number)
                buffer = plan.buffers[buffer].base
    found = []
    for i, b in enumerate(plan.buffers):
        if b.role != "temp" or i not in used:
            continue
        first, last = min(used[i]), max(used[i])
        for start, end in sorted(loops, key=lambda loop: loop[0] - loop[1], reverse=True):  # inner ones first
            if (first < start <= last) or (start <= first <= end < last):
                first, last = min(first, start), max(last, end)
        found.append(Lifetime(i, _type(b), dim.product(b.shape) * b.dtype.size, b.offset, first, last, names[first]))
    return tuple(sorted(found, key=lambda life: (life.first, life.buffer)))


def step_name(plan: Plan, step: Step) -> str:
    """Return what a step is, in a word."""
    match step:
        case Call(kernel):
            return plan.kernels[kernel].name
        case Host(function):
            return f"host function {function}"
        case _:
            return type(step).__name__.lower()


def _buffers(step: Step) -> tuple[int, ...]:
    match step:
        case Call(buffers=buffers):
            return buffers
        case Copy(target, source):
            return target, source
        case Host(_, inputs, outputs):
            return (*inputs, *outputs)
        case Branch(predicate):
            return (predicate,)
        case Loop():
            asked = (step.count_buffer, step.condition, step.index, step.taken)
            return tuple(b for b in asked if b is not None and b >= 0)


def _type(b: Buffer) -> str:
    return f"{b.dtype.name}[{', '.join(map(str, b.shape))}]"


def copies(fused: Function) -> tuple[Stay, ...]:
    """Return the copies that remain in the program of a fused function, each with the reason."""
    steps = coalesce(lower(fused).steps)
    timeline = Timeline(steps)
    names = {"feed": fused.feed_names, "state": fused.state_names, "fetch": fused.fetch_names}

    def told(cell: Cell) -> str:
        given = names.get(cell.role, ())
        words = {"temp": "a temporary", "slice": "a row of a stacked value", "state": "variable"}
        named = f" {given[cell.source]!r}" if cell.source < len(given) and cell.role in names else ""
        return f"{words.get(cell.role, cell.role)}{named}"

    return tuple(Stay(told(m.target.root), told(m.source.root), m.source.bytes,
                      obstacle(timeline, m) or "it is not worth a kernel of its own")
                 for m in all_steps(steps) if isinstance(m, Move))


def plot(plan: Plan, path: Path, free: int, title: str) -> None:
    """Draw the temporaries of a plan as boxes, steps to the right and the arena's bytes upwards, and write the picture.

    path: its ending says the format (.png, .svg, .pdf).  free: the number that every free size has.
    Raises MissingExtra without matplotlib, ValueError for an ending that is no format, OSError.
    """
    try:
        from matplotlib import colormaps, rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise MissingExtra("drawing the memory plan needs matplotlib: pip install 'graphc[viz]'") from None
    lives = lifetimes(plan)
    unit, per = _unit(at(plan.arena, free))
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    colours: Any = colormaps["tab20"]
    for i, life in enumerate(lives):
        height = at(life.bytes, free) / per
        axes.bar(life.first - 0.5, height, width=life.last - life.first + 1, bottom=at(life.offset, free) / per,
                 align="edge", color=colours(i % 20), edgecolor="black", linewidth=0.5)
        if height > 0.02 * at(plan.arena, free) / per:
            axes.text((life.first + life.last) / 2, (at(life.offset, free) + at(life.bytes, free) / 2) / per,
                      f"b{life.buffer}", ha="center", va="center", fontsize=7)
    steps = sum(1 for _ in numbered(plan.steps))
    axes.set(title=f"{title}: memory plan, every free size {free}", xlabel="step", ylabel=f"arena, {unit}",
             xlim=(0.5, max(1, steps) + 0.5), ylim=(0, max(at(plan.arena, free) / per, 1e-9)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    with rc_context({"svg.hashsalt": title}):  # else its ids are random
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _unit(size: int) -> tuple[str, float]:
    for name, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_:
            return name, float(bytes_)
    return "bytes", 1.0
