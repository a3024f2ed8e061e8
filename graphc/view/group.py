"""Boxes: where each node of a stage stands.

Owns the way from names to nested groups: name scopes as boxes, boxes of one thing left out, and stretches of long
groups gathered in blocks.  Knows scenes alone.  Invariants: every node has one place; no group directly holds more than
`LIMIT` things, so that opening one is always quick and readable; the same nodes give the same boxes.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from graphc.view.scene import Group, Node, Stage, children

LIMIT = 48
"""Things that stand directly in one box, at most."""

BLOCK = 40
"""Blocks that stand in one box, and things that stand in one block, at most where blocks are needed."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A node, and the box it belongs to for a reason other than its name: `base` ("" is the whole drawing), inside of
    which its `path` is made of name scopes; flat: of none."""

    node: Node
    base: str
    path: str
    flat: bool = False


def arrange(name: str, placed: Sequence[Placed], boxes: Iterable[tuple[Group, str]] = ()) -> Stage:
    """Return the stage of these nodes.  boxes: (a box, the box that it stands in apart from name scopes)."""
    groups: dict[str, Group] = {}
    for box, base in boxes:
        _scopes(base, box.parent.removeprefix(base), groups)
        groups[box.id] = box
    for p in placed:
        if not p.flat:
            _scopes(p.base, p.path, groups)
    parents: dict[str, str] = {}
    for p in placed:
        inner = f"{p.base}{p.path}/"  # an operation that is also a scope stands in its own box
        scope = inner if not p.flat and inner in groups else p.base + p.path[:p.path.rfind("/") + 1]
        parents[p.node.id] = p.base if p.flat else scope
    stage = Stage(name, tuple(p.node for p in placed), _parents_first(groups), parents)
    return _blocks(_without_single(stage))


def _scopes(base: str, path: str, groups: dict[str, Group]) -> None:
    """Add the scopes that `path` names."""
    start = 0
    parent = base
    while (end := path.find("/", start)) >= 0:
        scope = f"{base}{path[:end]}/"
        if scope not in groups:
            groups[scope] = Group(scope, path[start:end], "scope", parent)
        parent, start = scope, end + 1


def _parents_first(groups: Mapping[str, Group]) -> tuple[Group, ...]:
    ordered: dict[str, Group] = {}
    for group in groups.values():
        chain = [group]
        while chain[-1].parent and chain[-1].parent not in ordered:
            chain.append(groups[chain[-1].parent])
        for g in reversed(chain):
            ordered.setdefault(g.id, g)
    return tuple(ordered.values())


def _without_single(stage: Stage) -> Stage:
    """Leave out boxes that tell nothing: those of one thing, whose label grows instead, and those of one operation and
    its constants."""
    inside = children(stage)
    groups = {g.id: g for g in stage.groups}
    parents = dict(stage.parents)
    nodes = {n.id: n for n in stage.nodes}
    instead: dict[str, list[Node | Group]] = {}  # what stands where a box was
    for group in reversed(stage.groups):  # inner ones first
        items = [i for item in inside[group.id] for i in instead.get(item.id, (item,))]
        if group.kind != "scope":
            continue
        members = [i for i in items if isinstance(i, Node)]
        computed = [n for n in members if n.kind != "constant"]
        if len(items) == 1:
            (item,) = items
            own = item.label if item.label == group.label and isinstance(item, Node) else f"{group.label}/{item.label}"
            if isinstance(item, Node):
                items[0] = nodes[item.id] = replace(item, label=own)
            else:
                items[0] = groups[item.id] = replace(groups[item.id], label=own)
        elif len(members) < len(items) or len(computed) != 1 or f"{computed[0].id}/" != group.id:
            continue
        for i in items:
            if isinstance(i, Node):
                parents[i.id] = group.parent
            else:
                groups[i.id] = replace(groups[i.id], parent=group.parent)
        instead[group.id] = items
        del groups[group.id]
    return Stage(stage.name, tuple(nodes.values()), _parents_first(groups), parents)


# -- long groups -------------------------------------------------------------------------------------------------------


def _blocks(stage: Stage) -> Stage:
    """Gather stretches of every group that holds more than LIMIT things."""
    inside = children(stage)
    long = [parent for parent, items in inside.items() if len(items) > LIMIT]
    if not long:
        return stage
    links = _links(stage, set(long))
    groups = {g.id: g for g in stage.groups}
    parents = dict(stage.parents)
    for parent in long:
        items = inside[parent]
        boxes = [i for i in items if isinstance(i, Group)]
        kept = boxes if len(boxes) <= LIMIT // 2 else []
        rest = [i for i in items if not (kept and isinstance(i, Group))]
        _cut(parent, rest, LIMIT - len(kept), links[parent], groups, parents)
    return Stage(stage.name, stage.nodes, _parents_first(groups), parents)


def _links(stage: Stage, wanted: set[str]) -> dict[str, list[tuple[str, str]]]:
    """The edges between things that stand directly in each of the wanted groups, as pairs of their ids."""
    above = {g.id: g.parent for g in stage.groups} | dict(stage.parents)
    found: dict[str, list[tuple[str, str]]] = {group: [] for group in wanted}
    chains: dict[str, list[str]] = {"": [""]}

    def chain(group: str) -> list[str]:
        """From the whole drawing down to `group`."""
        missing = []
        while group not in chains:
            missing.append(group)
            group = above[group]
        for inner in reversed(missing):
            chains[inner] = [*chains[above[inner]], inner]
            group = inner
        return chains[group]

    for node in stage.nodes:
        down = [*chain(above.get(node.id, "")), node.id]
        for source, _ in node.inputs:
            up = [*chain(above.get(source, "")), source]
            depth = next((d for d, (a, b) in enumerate(zip(up, down, strict=False)) if a != b), 0)
            if depth and up[depth - 1] in found:
                found[up[depth - 1]].append((up[depth], down[depth]))
    return found


def _cut(parent: str, items: Sequence[Node | Group], limit: int, links: Sequence[tuple[str, str]],
         groups: dict[str, Group], parents: dict[str, str]) -> None:
    """Gather `items` of the group `parent` in at most `limit` blocks, cut where few values pass; blocks that are still
    too long are cut again."""
    if len(items) <= limit:
        return
    crossing = _crossing(items, links)
    levels = math.ceil(math.log(len(items), BLOCK))  # so that the blocks of every level are about as many
    pieces = max(2, min(limit, math.ceil(len(items) ** (1 / max(2, levels)))))
    cuts = [0]
    for left in range(pieces, 1, -1):
        step = (len(items) - cuts[-1]) / left
        ideal, slack = round(cuts[-1] + step), int(step / 4)
        near = range(max(cuts[-1] + 1, ideal - slack), min(len(items) - left + 1, ideal + slack) + 1)
        cuts.append(min(near, key=lambda i: (crossing[i], abs(i - ideal), i)))
    cuts.append(len(items))
    for number, (start, end) in enumerate(pairwise(cuts), 1):
        part = items[start:end]
        first, last = part[0].label, part[-1].label
        block = Group(f"{parent}#{number}/", first if first == last else f"{first} … {last}", "block", parent)
        groups[block.id] = block
        for item in part:
            if isinstance(item, Node):
                parents[item.id] = block.id
            else:
                groups[item.id] = replace(groups[item.id], parent=block.id)
        _cut(block.id, part, BLOCK, links, groups, parents)


def _crossing(items: Sequence[Node | Group], links: Sequence[tuple[str, str]]) -> list[int]:
    """How many edges pass each place between two items: entry i stands before item i."""
    place = {item.id: i for i, item in enumerate(items)}
    change = [0] * (len(items) + 1)
    for source, target in links:
        a, b = place.get(source), place.get(target)
        if a is not None and b is not None and a != b:
            change[min(a, b) + 1] += 1
            change[max(a, b) + 1] -= 1
    for i in range(1, len(change)):
        change[i] += change[i - 1]
    return change
