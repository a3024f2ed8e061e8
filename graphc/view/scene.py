"""The scene: what every drawing shows, told once and drawn by many.

Owns the records Scene, Stage, Group, Node, Kernel: operations with their types and the user's line, name scopes and
fused kernels as nested boxes, one stage per pass.  Knows neither graphs nor functions (build.py makes scenes of them)
nor any way of drawing.  Invariants: within a stage every id is one node or one group; an input names a node of the same
stage; a group stands after the group it is in.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.graph.graph import near_names

UNKNOWN_SIZE = "?"


@dataclass(frozen=True, slots=True)
class Type:
    """dtype and sizes of a value: numbers, symbols, or "?"; shape None is an unknown rank."""

    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype}[{'...' if self.shape is None else ', '.join(map(str, self.shape))}]"

    @property
    def short(self) -> str:
        """The sizes as an edge shows them: `?×784`, `[512]`, or the dtype of a scalar."""
        if self.shape is None:
            return "any rank"
        return f"[{self.shape[0]}]" if len(self.shape) == 1 else "×".join(map(str, self.shape)) or self.dtype


@dataclass(frozen=True, slots=True)
class Node:
    """An operation, an input or a result.

    id: its full name in the stage.  label: what is left of the name inside its group.  kind: "op", "constant",
    "variable", "input", "output" or "update" (what a run leaves in a variable).  inputs: (id of a node, number of its
    output).  after: ids of the nodes it waits for.  line: where the user wrote it, or "".  origin: names of the graph's
    operations it came from.  kernels: numbers of the scene's kernels that compute it.
    """

    id: str
    label: str
    op: str
    kind: str
    inputs: tuple[tuple[str, int], ...] = ()
    after: tuple[str, ...] = ()
    outputs: tuple[Type, ...] = ()
    line: str = ""
    attrs: tuple[tuple[str, str], ...] = ()
    origin: tuple[str, ...] = ()
    kernels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A box around nodes and other boxes.

    id: ends in "/".  kind: "scope" (a name scope), "kernel" (ops fused into one kernel), "body" (of a loop or branch)
    or "block" (a stretch of a group too long to be read at once).  parent: the id of the group it is in, or "".
    """

    id: str
    label: str
    kind: str
    parent: str = ""
    kernels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """The graph at one time: as written, as extracted, or after a pass.  parents: node id -> id of its group or ""."""

    name: str
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the program.  sources: (form, text), most readable first.  lines: the user's lines in it."""

    name: str
    ops: tuple[str, ...]
    lines: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a drawing shows; the last stage is the one shown where only one can be."""

    title: str
    stages: tuple[Stage, ...]
    kernels: tuple[Kernel, ...] = ()

    def stage(self, name: str | None = None) -> Stage:
        """Return the last stage called `name`; None: the last one.  Raises ValueError with near names."""
        for stage in reversed(self.stages):
            if name is None or stage.name == name:
                return stage
        known = list(dict.fromkeys(s.name for s in self.stages))
        near = near_names(str(name), known)
        told = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"the drawing has no stage {name!r}; {told}")


def children(stage: Stage) -> dict[str, list[Node | Group]]:
    """Return what stands directly in each group ("" is the whole), in the order of each item's first node."""
    found: dict[str, list[Node | Group]] = {"": [], **{g.id: [] for g in stage.groups}}
    groups = {g.id: g for g in stage.groups}
    placed: set[str] = set()
    for node in stage.nodes:
        item: Node | Group = node
        parent = stage.parents.get(node.id, "")
        while True:
            found[parent].append(item)
            if not parent or parent in placed:
                break
            placed.add(parent)
            item, parent = groups[parent], groups[parent].parent
    return found


def sizes(stage: Stage) -> dict[str, int]:
    """Return the number of nodes in each group, those of the groups in it included."""
    count = {g.id: 0 for g in stage.groups}
    for node in stage.nodes:
        parent = stage.parents.get(node.id, "")
        if parent:
            count[parent] += 1
    for group in reversed(stage.groups):
        if group.parent:
            count[group.parent] += count[group.id]
    return count
