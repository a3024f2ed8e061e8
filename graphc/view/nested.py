"""Where everything of a stage stands when some boxes are open.

Each open box is drawn by itself (layered.py) and is then one thing inside the box around it.  An edge that crosses the
border of an open box passes a port on it: one per source, so that a value used in several places enters once.
page/layout.js does the same for the page.
Owns positions on the whole drawing.  Knows stages and the sizes of closed things; draws nothing.  Invariant: nothing
overlaps but boxes with what is in them.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from graphc.view.layered import Point, Run, Thing, draw
from graphc.view.scene import Group, Node, Stage, children

PAD = 16.0
HEAD = 28.0
"""Height of an open box's title."""
PART_GAP = 36.0
GRID_GAP = 14.0
TAP_HEIGHT = 20.0
WHOLE = ""
FAN = 6
"""Edges of one source in one box that are still drawn; of more, the first alone, and taps for the others."""

SizeOf: TypeAlias = Callable[["Node | Group"], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of texts: of an edge's label, of an open box's title, of a tap with this label."""

    label: Callable[[str], float]
    title: Callable[[str], float]
    tap: Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Box:
    """A place: upper left corner and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn piece of an edge.  label_at: the middle of its label.  arrow: it ends at a thing, not at a port.
    control: no value passes along it."""

    points: tuple[Point, ...]
    label: str
    label_at: Point
    arrow: bool
    control: bool


@dataclass(frozen=True, slots=True)
class Nested:
    """boxes: by id, outer ones first.  lines: with the id of the box that they are in.  taps: sources told again beside
    what uses them, with their labels."""

    boxes: Mapping[str, Box]
    lines: tuple[tuple[str, Line], ...]
    taps: tuple[tuple[Box, str], ...]
    width: float
    height: float


@dataclass(slots=True)
class _Port:
    top: bool
    x: float = 0.0


@dataclass(slots=True)
class _Link:
    """A piece of an edge in one open box, between ids of things in it or keys of its ports; flip: it runs upwards.
    origin: the id of the one operation that it comes from, else that of the closed box."""

    origin: str
    a: str
    b: str
    flip: bool
    label: str
    control: bool
    from_port: str | None = None
    to_port: str | None = None
    points: list[Point] = field(default_factory=list)
    label_at: Point = (0.0, 0.0)


@dataclass(slots=True)
class _Level:
    """An open box."""

    id: str
    items: Sequence[Node | Group]
    depth: int
    links: dict[tuple[str, str, str], _Link] = field(default_factory=dict)
    ports: dict[str, _Port] = field(default_factory=dict)
    taps: dict[str, str] = field(default_factory=dict)
    """Key of each tap -> id of what it stands for."""
    places: dict[str, Point] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def port(self, source: str, top: bool) -> str:
        """The key of the port for what comes from `source`; no id looks like it."""
        key = f"\0{source}\0{'top' if top else 'bottom'}"
        self.ports.setdefault(key, _Port(top))
        return key


def opened(stage: Stage, most: int) -> set[str]:
    """Return the ids of the boxes to open, outer ones first, such that at most about `most` things are visible."""
    inside = children(stage)
    count, found = len(inside[WHOLE]), set()
    row = [WHOLE]
    while row:
        groups = [i for box in row for i in inside[box] if isinstance(i, Group)]
        row = []
        for group in groups:
            if count + len(inside[group.id]) <= most:
                found.add(group.id)
                count += len(inside[group.id])
                row.append(group.id)
    return found


def nested(stage: Stage, open_boxes: Set[str], size_of: SizeOf, widths: Widths) -> Nested:
    """Return the layout of a stage with these boxes open.  size_of: of a closed thing."""
    return _Layout(stage, open_boxes, size_of, widths).run()


class _Layout:
    def __init__(self, stage: Stage, open_boxes: Set[str], size_of: SizeOf, widths: Widths) -> None:
        self.stage = stage
        self.size_of = size_of
        self.widths = widths
        inside = children(stage)
        self.above = {g.id: g.parent for g in stage.groups} | {n.id: stage.parents.get(n.id, "") for n in stage.nodes}
        self.names = {g.id: g.label for g in stage.groups} | {n.id: n.label for n in stage.nodes}
        self.levels = {WHOLE: _Level(WHOLE, inside[WHOLE], 0)}
        for group in stage.groups:  # outer ones come first
            if group.id in open_boxes and group.parent in self.levels:
                self.levels[group.id] = _Level(group.id, inside[group.id], self.levels[group.parent].depth + 1)

    def run(self) -> Nested:
        self._connect()
        for level in self.levels.values():
            self._tap(level)
        for level in sorted(self.levels.values(), key=lambda level: -level.depth):
            self._arrange(level)
        whole = self.levels[WHOLE]
        boxes = {WHOLE: Box(0.0, 0.0, whole.width, whole.height)}
        for level in self.levels.values():
            own = boxes[level.id]
            for id, (x, y) in level.places.items():
                boxes[id] = Box(own.x + x, own.y + y, *self._size(id, level))
        lines = [(level.id, line) for level in self.levels.values() for line in self._route(level, boxes)]
        taps = [(boxes[key], self.names[id]) for level in self.levels.values() for key, id in level.taps.items()]
        drawn = {id: box for id, box in boxes.items() if id in self.above}
        return Nested(drawn, tuple(lines), tuple(taps), whole.width, whole.height)

    # -- edges cut into links ------------------------------------------------------------------------------------------

    def _shown(self, id: str) -> str:
        """What stands for `id`: the outermost closed box around it, or itself."""
        chain = [id]
        while self.above[chain[-1]]:
            chain.append(self.above[chain[-1]])
        return next((box for box in reversed(chain) if box not in self.levels), id)

    def _chain(self, id: str) -> list[str]:
        """`id`, then the boxes around it, the whole last."""
        chain = [id]
        while chain[-1]:
            chain.append(self.above[chain[-1]])
        return chain

    def _bundles(self) -> dict[tuple[str, str], tuple[set[tuple[str, int]], bool]]:
        """(source, target) of what is visible -> the values that pass, and whether none does (control edges alone)."""
        shown = {n.id: self._shown(n.id) for n in self.stage.nodes}
        found: dict[tuple[str, str], tuple[set[tuple[str, int]], bool]] = {}
        for node in self.stage.nodes:
            for source, output in node.inputs:
                ends = shown[source], shown[node.id]
                if ends[0] != ends[1]:
                    values, _ = found.get(ends, (set(), True))
                    found[ends] = (values | {(source, output)}, False)
            for source in node.after:
                ends = shown[source], shown[node.id]
                if ends[0] != ends[1]:
                    found.setdefault(ends, (set(), True))
        return found

    def _connect(self) -> None:
        nodes = {n.id: n for n in self.stage.nodes}
        cut = []
        for (source, target), (values, control) in self._bundles().items():
            up, down = self._chain(source), self._chain(target)
            while len(up) > 1 and len(down) > 1 and up[-2] == down[-2]:
                up.pop()
                down.pop()
            origins = {id for id, _ in values}
            origin = next(iter(origins)) if len(origins) == 1 else source
            cut.append((source, origin, up, down, _label(nodes, source, values), control))
        backward = _backward([(up[-2], down[-2]) for _, _, up, down, _, _ in cut])
        for source, origin, up, down, label, control in cut:
            a, b = up[-2], down[-2]
            back = (a, b) in backward
            main = self._link(up[-1], (source, origin), a, b, back, label, control)
            before = main
            for box, inner in zip(up[-2:0:-1], up[-3::-1], strict=False):
                before.from_port = self.levels[box].port(source, back)
                before = self._link(box, (source, origin), inner, before.from_port, back, "", control)
            before = main
            for box, inner in zip(down[-2:0:-1], down[-3::-1], strict=False):
                before.to_port = self.levels[box].port(source, not back)
                before = self._link(box, (source, origin), before.to_port, inner, back, "", control)

    def _link(self, box: str, sources: tuple[str, str], a: str, b: str, flip: bool, label: str,
              control: bool) -> _Link:
        source, origin = sources
        link = self.levels[box].links.setdefault((a, b, source), _Link(origin, a, b, flip, label, control))
        if link.origin != origin:
            link.origin = source
        link.control = link.control and control
        if link.label != label:
            link.label = ""
        return link

    def _tap(self, level: _Level) -> None:
        """Put taps in the place of wide fans: each target but the first gets a tap of its own."""
        place = {item.id: i for i, item in enumerate(level.items)}
        fans: dict[str, list[_Link]] = {}
        for link in level.links.values():
            if not link.flip and link.b in place:
                fans.setdefault(link.origin, []).append(link)
        for source, fan in fans.items():
            if len(fan) >= FAN:
                for link in sorted(fan, key=lambda k: place[k.b])[1:]:
                    link.a, link.from_port, link.label = f"{level.id}\0tap {len(level.taps)}", None, ""
                    level.taps[link.a] = source

    # -- one box -------------------------------------------------------------------------------------------------------

    def _size(self, id: str, level: _Level) -> tuple[float, float]:
        if id in level.taps:
            return self.widths.tap(self.names[level.taps[id]]), TAP_HEIGHT
        inner = self.levels.get(id)
        if inner is not None:
            return inner.width, inner.height
        return self.size_of(next(i for i in level.items if i.id == id))

    def _arrange(self, level: _Level) -> None:
        sizes = {id: self._size(id, level) for id in (*(i.id for i in level.items), *level.taps)}
        things = {id: Thing(*size) for id, size in sizes.items()} | {
            key: Thing(4.0, 0.0, "top" if port.top else "bottom") for key, port in level.ports.items()}
        parts = self._parts(level, things)
        places, width, height = _packed([(p.width, p.height) for p in parts], bool(level.ports))
        pad, head = (PAD, HEAD) if level.id else (0.0, 0.0)
        title = self.widths.title(self.names[level.id]) + 2 * PAD if level.id else 0.0
        spare = max(0.0, (title - width - 2 * pad) / 2)
        for part, (x, y) in zip(parts, places, strict=True):
            left, top = pad + spare + x, pad + head + y
            for id, (cx, cy) in part.centers.items():
                if id in level.ports:
                    level.ports[id].x = left + cx
                else:
                    level.places[id] = left + cx - sizes[id][0] / 2, top + cy - sizes[id][1] / 2
            for link, points, (lx, ly) in part.runs:
                link.points = [(left + px, top + py) for px, py in (reversed(points) if link.flip else points)]
                link.label_at = left + lx, top + ly
        level.width, level.height = width + 2 * (pad + spare), height + 2 * pad + head

    def _parts(self, level: _Level, things: Mapping[str, Thing]) -> list[_Part]:
        """What is connected, drawn together (with ports: all of it); what stands alone, in a grid."""
        near: dict[str, list[str]] = {}
        for link in level.links.values():
            near.setdefault(link.a, []).append(link.b)
            near.setdefault(link.b, []).append(link.a)
        connected = [set(near)] if level.ports else _components(near)
        parts = []
        for ids in ([id for id in things if id in part] for part in connected):
            number = {id: i for i, id in enumerate(ids)}
            links = [link for link in level.links.values() if link.a in number]
            runs = [Run(*((number[k.b], number[k.a]) if k.flip else (number[k.a], number[k.b])),
                        math.ceil(self.widths.label(k.label)) + 10.0 if k.label else 0.0) for k in links]
            drawn = draw([things[id] for id in ids], runs)
            parts.append(_Part(dict(zip(ids, drawn.centers, strict=True)),
                               list(zip(links, drawn.runs, drawn.labels, strict=True)), drawn.width, drawn.height))
        alone = [id for id in things if id not in near]
        return [*parts, _grid({id: (things[id].width, things[id].height) for id in alone})] if alone else parts

    # -- absolute points -----------------------------------------------------------------------------------------------

    def _route(self, level: _Level, boxes: Mapping[str, Box]) -> list[Line]:
        """The lines of one box: they leave and enter things side by side, open boxes at their ports."""
        own = boxes[level.id]
        ends: dict[tuple[str, bool], list[tuple[float, _Link, int]]] = {}
        for link in level.links.values():
            link.points = [(own.x + x, own.y + y) for x, y in link.points]
            for id, port, top, index in ((link.a, link.from_port, link.flip, 0),
                                         (link.b, link.to_port, not link.flip, -1)):
                if id in level.ports:
                    edge = own.y if level.ports[id].top else own.y + own.height
                    link.points[index] = own.x + level.ports[id].x, edge
                elif port is not None:
                    inner, at = boxes[id], self.levels[id].ports[port]
                    link.points[index] = inner.x + at.x, inner.y if at.top else inner.y + inner.height
                else:
                    ends.setdefault((id, top), []).append((link.points[1 if index == 0 else -2][0], link, index))
        for (id, top), uses in ends.items():
            box = boxes[id]
            uses.sort(key=lambda use: use[0])
            step = min(14.0, (box.width - 16) / len(uses))
            for i, (_, link, index) in enumerate(uses):
                x = box.x + box.width / 2 + (i - (len(uses) - 1) / 2) * step
                link.points[index] = x, box.y if top else box.y + box.height
        return [Line(tuple(k.points), k.label, (own.x + k.label_at[0], own.y + k.label_at[1]),
                     k.b not in level.ports and k.to_port is None, k.control) for k in level.links.values()]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a box: the centers of its things, the points and the label's middle of its links."""

    centers: Mapping[str, Point]
    runs: Sequence[tuple[_Link, tuple[Point, ...], Point]]
    width: float
    height: float


def _label(nodes: Mapping[str, Node], source: str, values: Set[tuple[str, int]]) -> str:
    if not values or (source in nodes and nodes[source].kind == "constant"):
        return ""
    if len(values) > 1:
        return f"{len(values)} tensors"
    ((id, output),) = values
    types = nodes[id].outputs
    return types[output].short if output < len(types) else ""


def _backward(links: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The links that close a cycle, found by walking along the links in their order."""
    following: dict[str, list[str]] = {}
    for a, b in links:
        following.setdefault(a, []).append(b)
    done: dict[str, bool] = {}
    found = set()
    for start in following:
        if start in done:
            continue
        done[start] = False
        stack = [(start, iter(following[start]))]
        while stack:
            id, rest = stack[-1]
            other = next(rest, None)
            if other is None:
                done[id] = True
                stack.pop()
            elif other not in done:
                done[other] = False
                stack.append((other, iter(following.get(other, ()))))
            elif not done[other]:
                found.add((id, other))
    return found


def _components(near: Mapping[str, Sequence[str]]) -> list[set[str]]:
    """The sets of what is connected, by neighbours."""
    parts: list[set[str]] = []
    seen: set[str] = set()
    for start in near:
        if start in seen:
            continue
        part, stack = {start}, [start]
        while stack:
            fresh = [id for id in near[stack.pop()] if id not in part]
            part.update(fresh)
            stack += fresh
        seen |= part
        parts.append(part)
    return parts


def _grid(sizes: Mapping[str, tuple[float, float]]) -> _Part:
    """Things without edges, in rows."""
    order = list(sizes)
    places, width, height = _packed([sizes[id] for id in order], False, GRID_GAP, 1.6)
    centers = {id: (x + sizes[id][0] / 2, y + sizes[id][1] / 2) for id, (x, y) in zip(order, places, strict=True)}
    return _Part(centers, (), width, height)


def _packed(sizes: Sequence[tuple[float, float]], one_row: bool, gap: float = PART_GAP,
            shape: float = 1.15) -> tuple[list[Point], float, float]:
    """Places side by side, in rows unless `one_row`; with the width and height of all."""
    area = sum((w + gap) * (h + gap) for w, h in sizes)
    limit = math.inf if one_row else max([math.sqrt(area) * shape, *(w for w, _ in sizes)])
    places = []
    x = y = row = width = 0.0
    for w, h in sizes:
        if x > 0 and x + w > limit:
            x, y, row = 0.0, y + row + gap, 0.0
        places.append((x, y))
        row, width, x = max(row, h), max(width, x + w), x + w + gap
    return places, width, y + row
