"""Coalescing: a value is computed where it is to end up, so that its move disappears.

Owns the rule of writing in place (ARCHITECTURE): a value bound for cell T is written there directly when nothing
touches T from its first write to the move, except that the writing kernel may read T at the same element only; and
when T is not written again while the value is still read.  Variables, fetched arrays, carried values and stacked rows
are all cells, so this is the one rule for all of them.  Knows steps; must not know addresses. Invariant: the steps
compute the same; only temporaries change their place.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import dim
from graphc.passes.access import estimate
from graphc.passes.steps import Cell, Event, Launch, Move, Step, Timeline, all_steps, filtered


def coalesce(steps: list[Step]) -> list[Step]:
    """Return `steps` with the moves that are no copies removed; the cells of their values become those of the
    targets."""
    timeline = Timeline(steps)
    gone: set[int] = set()
    moves = [s for s in all_steps(steps) if isinstance(s, Move)]
    for move in sorted(moves, key=_priority):
        if obstacle(timeline, move) is None:
            _merge(timeline, move, move.target.root, move.source.root)
            gone.add(id(move))
    return filtered(steps, lambda s: id(s) not in gone)


def _priority(move: Move) -> tuple[int, int]:
    """Variables first, then the largest; the sort is stable."""
    return (0 if move.target.root.role == "state" else 1, -estimate(move.source.bytes))


def obstacle(timeline: Timeline, move: Move) -> str | None:
    """Return why the value that `move` copies cannot be computed where it is to end up, or None where it can."""
    target, source = move.target.root, move.source.root
    if target is source:
        return "it copies a value onto itself"
    if source.role != "temp":
        return _ELSEWHERE[source.role]
    if source.dtype is not target.dtype or target.role == "constant" or \
            dim.product(source.shape) != dim.product(target.shape):
        return "the two are of different types"
    end = timeline.position[id(move)]
    mine = timeline.events[source]
    if any(loop.first < end < loop.last and not all(loop.first < e.position < loop.last for e in mine)
           for loop in timeline.loops):
        return "the value comes from outside of the loop that copies it at each turn"
    life = timeline.extent(mine)
    start = life.first
    if start > end or not any(e.writes for e in mine if e.position <= end):
        return "the value is computed after it is copied, at the turn before"
    if any(e.writes for e in mine if e.position > end):
        return "the value is changed after it was copied"
    if target.role == "state" and timeline.hosts and timeline.hosts[-1] > start:
        return "a host call that may fail comes in between, and variables change only after it"
    last = max(e.position for e in mine)
    if life.last > max(last, end):
        last = life.last  # it lives through all turns of a loop
    for e in timeline.events.get(target, ()):
        if e.step is move:
            continue
        if start < e.position <= end or (e.position == start and not _reads_in_place(e, mine, start)):
            return "what stood there before is still needed when the value is computed"
        if e.position > end and e.writes and e.position <= last:
            return "the value is still needed when its place is written again"
    return None


_ELSEWHERE = {
    "feed": "the value is fed: nothing computes it", "constant": "the value is a constant: nothing computes it",
    "state": "the value is what a variable held, or holds next",
    "fetch": "the value is computed where another result is to be", "slice": "the value is a row of another one",
}
"""Why a value that lies in a cell of this role is not computed in another place."""


def _reads_in_place(event: Event, mine: Sequence[Event], start: int) -> bool:
    """Whether a kernel that writes the value first reads its future place only as it may."""
    step = event.step
    if event.writes or not isinstance(step, Launch):
        return False
    own = [e for e in mine if e.position == start]
    names = [p.name for p in step.kernel.params]
    return all(e.step is step and e.writes and (names[e.argument], names[event.argument]) in step.kernel.aliases
               for e in own)


def _merge(timeline: Timeline, move: Move, target: Cell, source: Cell) -> None:
    """Make `source` a view of `target`."""
    events = [e for e in timeline.events.pop(source) if e.step is not move]
    known = [e for e in timeline.events.get(target, []) if e.step is not move]
    timeline.events[target] = sorted(known + events, key=lambda e: e.position)
    base = target.base if target.role == "slice" else None
    while base is not None:
        root = base.root
        timeline.events[root] = sorted(timeline.events[root] + events, key=lambda e: e.position)
        base = root.base if root.role == "slice" else None
    source.role, source.base = "view", target
