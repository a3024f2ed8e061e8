"""A layered drawing of one box: what stands where, and through which points the edges run.

Sugiyama's method (Sugiyama, Tagawa and Toda, 1981): layers by the longest path, an order within each layer by sweeps of
medians, then places by least squares.  It stands here because networkx has no layered layout, grandalf has had no
release since 2023, and a picture of 200 things needs no more than this.
Owns the positions in one box.  Knows sizes and edges by number.  Invariant: things in a layer do not overlap; the same
input gives the same drawing.
"""
from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise

NODE_GAP = 20.0
EDGE_GAP = 12.0
LAYER_GAP = 17.0
"""Between a layer of things and the layer of edges' labels beside it."""
LABEL_HEIGHT = 14.0
TALL = 60.0
ORDER_SWEEPS = 12
PLACE_SWEEPS = 40
NEAR, RUN, PORT = 4.0, 12.0, 1.0
"""How strongly edges pull: between neighbouring layers, inside long edges, at ports and the ends of long edges."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Thing:
    """What is placed: its size, and whether it is a port, at the "top" or the "bottom"."""

    width: float
    height: float
    port: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """An edge between things by number; width: of its label, or 0."""

    source: int
    target: int
    width: float = 0.0


@dataclass(slots=True, eq=False)
class _Spot:
    """A thing, or the bend of an edge in a layer that it passes."""

    layer: int
    half: float
    height: float
    gap: float
    x: float = 0.0
    pulls: list[tuple[_Spot, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drawing:
    """centers: of each thing.  runs: the points of each edge, downwards.  labels: the middle of each edge's label.  The
    drawing starts at (0, 0)."""

    centers: tuple[Point, ...]
    runs: tuple[tuple[Point, ...], ...]
    labels: tuple[Point, ...]
    width: float
    height: float


def draw(things: Sequence[Thing], runs: Sequence[Run]) -> Drawing:
    """Return the drawing of at least one thing and edges without cycles."""
    layers = _layers(things, runs)
    spots = [_Spot(layers[i], t.width / 2, t.height, NODE_GAP) for i, t in enumerate(things)]
    chains = [_chain(run, spots, things) for run in runs]
    rows = _ordered(spots, chains)
    _spread(rows)
    for sweep in range(PLACE_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _settle(row)
    return _finished(spots, chains, rows)


def _layers(things: Sequence[Thing], runs: Sequence[Run]) -> list[int]:
    """Even numbers; the odd layers between them are for labels.  Sources move down to what uses them."""
    before: dict[int, dict[int, None]] = {i: {} for i in range(len(things))}
    after: dict[int, dict[int, None]] = {i: {} for i in range(len(things))}
    for run in runs:
        before[run.target][run.source] = None
        after[run.source][run.target] = None
    start = 2 if any(t.port == "top" for t in things) else 0
    layer = [0 if t.port == "top" else start for t in things]
    order = list(TopologicalSorter(before).static_order())
    for v in order:
        layer[v] = max([layer[v], *(layer[u] + 2 for u in before[v])])
    for v in reversed(order):
        if after[v] and not things[v].port and len(after[v]) >= len(before[v]):
            layer[v] = max(layer[v], min(layer[w] for w in after[v]) - 2)
    last = max(layer)
    return [last if t.port == "bottom" else n for t, n in zip(things, layer, strict=True)]


def _chain(run: Run, spots: Sequence[_Spot], things: Sequence[Thing]) -> list[_Spot]:
    """The spots of an edge from its source to its target, with a bend in every layer between; they pull each other."""
    first, last = spots[run.source], spots[run.target]
    middle = (first.layer + last.layer) // 2
    bends = [_Spot(n, run.width / 2 if n == middle else 1.0, LABEL_HEIGHT if n == middle and run.width else 0.0,
                   EDGE_GAP) for n in range(first.layer + 1, last.layer)]
    chain = [first, *bends, last]
    loose = len(bends) > 1 or bool(things[run.source].port or things[run.target].port)
    for k, (a, b) in enumerate(pairwise(chain)):
        weight = RUN if 0 < k < len(chain) - 2 else PORT if loose else NEAR
        a.pulls.append((b, weight))
        b.pulls.append((a, weight))
    return chain


# -- order -------------------------------------------------------------------------------------------------------------


def _ordered(spots: Sequence[_Spot], chains: Sequence[Sequence[_Spot]]) -> list[list[_Spot]]:
    """The layers, each in an order of few crossings: the best of some sweeps of medians."""
    every = list(dict.fromkeys([*spots, *(s for chain in chains for s in chain)]))
    rows: list[list[_Spot]] = [[] for _ in range(max(s.layer for s in every) + 1)]
    for spot in _walk(every):
        rows[spot.layer].append(spot)
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(ORDER_SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        place = {s: float(i) for row in rows for i, s in enumerate(row)}
        for row in rows if down else reversed(rows):
            wish = {s: _median(s, place, -1 if down else 1, i) for i, s in enumerate(row)}
            row.sort(key=wish.__getitem__)
            place.update({s: float(i) for i, s in enumerate(row)})
        crossed = _crossings(rows)
        if crossed < fewest:
            best, fewest = [list(row) for row in rows], crossed
    return [row for row in best if row]


def _walk(every: Sequence[_Spot]) -> list[_Spot]:
    """All spots, those that are connected near each other: depth first."""
    found: dict[_Spot, None] = {}
    for start in every:
        stack = [start]
        while stack:
            spot = stack.pop()
            if spot not in found:
                found[spot] = None
                stack += [other for other, _ in reversed(spot.pulls)]
    return list(found)


def _median(spot: _Spot, place: dict[_Spot, float], side: int, own: float) -> float:
    near = sorted(place[other] for other, _ in spot.pulls if other.layer == spot.layer + side)
    if not near:
        return own
    return (near[(len(near) - 1) // 2] + near[len(near) // 2]) / 2


def _crossings(rows: Sequence[Sequence[_Spot]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {s: i for i, s in enumerate(lower)}
        passed: list[int] = []
        for spot in upper:
            ends = sorted(place[o] for o, _ in spot.pulls if o in place)
            total += sum(len(passed) - bisect.bisect_right(passed, end) for end in ends)
            for end in ends:
                bisect.insort(passed, end)
    return total


# -- places ------------------------------------------------------------------------------------------------------------


def _distance(a: _Spot, b: _Spot) -> float:
    return a.half + b.half + (max(a.gap, b.gap) if a.gap == b.gap else 0.8 * max(a.gap, b.gap))


def _spread(rows: Sequence[Sequence[_Spot]]) -> None:
    """First places: side by side, around the middle."""
    for row in rows:
        for a, b in pairwise(row):
            b.x = a.x + _distance(a, b)
        middle = (row[0].x + row[-1].x) / 2
        for spot in row:
            spot.x -= middle


def _settle(row: Sequence[_Spot]) -> None:
    """Move the spots of a layer, in their order, as near as can be to where they are pulled: least squares of places in
    a given order are an isotonic regression, solved by pooling (Barlow et al., "Statistical inference under order
    restrictions", 1972)."""
    offsets = [0.0]
    for a, b in pairwise(row):
        offsets.append(offsets[-1] + _distance(a, b))
    pools: list[tuple[float, float, int]] = []  # weight, weight times place, how many
    for spot, offset in zip(row, offsets, strict=True):
        weight = 0.02 + sum(w for _, w in spot.pulls)
        wish = 0.02 * spot.x + sum(w * other.x for other, w in spot.pulls) - weight * offset
        pools.append((weight, wish, 1))
        while len(pools) > 1 and pools[-2][1] / pools[-2][0] > pools[-1][1] / pools[-1][0]:
            (w, x, n), (v, y, m) = pools.pop(), pools.pop()
            pools.append((w + v, x + y, n + m))
    places = [wish / weight for weight, wish, count in pools for _ in range(count)]
    for spot, place, offset in zip(row, places, offsets, strict=True):
        spot.x = place + offset


def _finished(spots: Sequence[_Spot], chains: Sequence[Sequence[_Spot]], rows: Sequence[Sequence[_Spot]]) -> Drawing:
    left = min(s.x - s.half for row in rows for s in row)
    right = max(s.x + s.half for row in rows for s in row)
    heights: dict[int, float] = {}
    for row in rows:
        heights[row[0].layer] = max(s.height for s in row)
    middles: dict[int, float] = {}
    y = 0.0
    for n in range(max(heights) + 1):
        height = heights.get(n, 0.0)
        middles[n] = y + height / 2
        y += height + LAYER_GAP

    def at(spot: _Spot) -> Point:
        return spot.x - left, middles[spot.layer]

    def along(chain: Sequence[_Spot]) -> tuple[Point, ...]:
        points = [at(chain[0])]
        for bend in chain[1:-1]:
            x, middle = at(bend)
            room = heights[bend.layer]
            # beside something tall, an edge runs upright along all of it
            points += [(x, middle - room / 2), (x, middle + room / 2)] if room > TALL else [(x, middle)]
        return (*points, at(chain[-1]))

    return Drawing(tuple(map(at, spots)), tuple(map(along, chains)), tuple(at(c[len(c) // 2]) for c in chains),
                   right - left, y - LAYER_GAP)
