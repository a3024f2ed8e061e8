"""Why two ops of the user's graph are, or are not, computed by one kernel.

Owns the question; the answers are the refusals that fusion met.  Knows fusion.  Invariant: changes nothing.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from graphc.graph.graph import near_names
from graphc.ir.function import Function, Node, Value
from graphc.passes.access import is_view, literal, root
from graphc.passes.fuse import Fuser

SHOWN = 2  # kernels between two that are named


@dataclass(frozen=True, slots=True)
class Verdict:
    """together: whether one kernel computes both.  text: that and the reason, in a sentence."""

    together: bool
    text: str


def why(function: Function, first: str, second: str) -> Verdict:
    """Return how fusion treats the ops `first` and `second` (names in the user's graph) of a function that is optimised
    but not fused.  Raises ValueError for a name that no op has, with the nearest."""
    origins = {name for node in function.nodes for name in node.origin}
    for name in (first, second):
        if name not in origins:
            near = near_names(name, sorted(origins), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the optimised program has no op called {name!r}{hint}")
    return _Question(function, first, second).verdict()


class _Question:
    """The two ops, and the groups that fusion put them in."""

    def __init__(self, function: Function, first: str, second: str) -> None:
        self.names = first, second
        self.fuser = Fuser(function)
        self.fused = self.fuser.run()
        self.nodes = [[n for n in function.nodes if name in n.origin] for name in self.names]
        self.groups = [dict.fromkeys(self._groups(nodes)) for nodes in self.nodes]

    def _groups(self, nodes: list[Node]) -> Iterator[int]:
        """The groups that the last values of an op are computed in."""
        for value in (v for n in nodes for v in n.outputs):
            number = self.fuser.home.get(root(value)[0])
            if number is not None:
                yield self.fuser.group_of(number)

    def verdict(self) -> Verdict:
        a, b = map(repr, self.names)
        for nodes, name in zip(self.nodes, (a, b), strict=True):
            free = self._free(nodes)
            if free:
                return Verdict(False, f"{name} {free}")
        for node in self.fused.nodes:
            if set(self.names) <= set(node.origin):
                return Verdict(True, f"{a} and {b} are computed by one kernel{self._copied(node)}")
        return Verdict(False, f"{a} and {b} are computed by different kernels: {self._reason()}")

    def _free(self, nodes: list[Node]) -> str:
        """What is said of an op that no kernel computes, or ""."""
        if all(is_view(n) for n in nodes):
            return "is another shape of what it reads: it costs nothing, and is part of no kernel"
        if all(is_view(n) or n.op.name == "Const" for n in nodes):
            return "is a constant" + (", a number written into the kernels that use it"
                                      if all(is_view(n) or literal(n.output) is not None for n in nodes) else "")
        return ""

    def _copied(self, node: Node) -> str:
        """Where one of the ops is a copy in the other's kernel."""
        for name, nodes, groups in zip(self.names, self.nodes, self.groups, strict=True):
            others = [n for n in self.fused.nodes if n is not node and name in n.origin]
            copied = all(self.fuser.copy_of(v) is not None for n in nodes for v in n.outputs
                         if v in self.fuser.order and not is_view(n))
            if copied and (others or not groups):
                return f" ({name!r} is cheaper to compute again than to load, so each kernel that needs it does)"
        return ""

    def _reason(self) -> str:
        for name, nodes in zip(self.names, self.nodes, strict=True):
            computed = [n for n in nodes if not is_view(n) and n.op.name != "Const"]
            if all(self.fuser.home.get(n.outputs[0]) in self.fuser.nodes for n in computed):
                return f"{name!r} is a {computed[-1].op.name}, which has kernels of its own"
        first, second = self.groups
        refused = [r.reason for r in self.fuser.refusals
                   if (self._met(r.first, r.second) in {(p, q) for p in first for q in second})
                   or (self._met(r.second, r.first) in {(p, q) for p in first for q in second})]
        if refused:
            return refused[-1]
        for start, end in ((first, second), (second, first)):
            path = self._path(list(start), set(end))
            if path:
                return self._between(path)
        shared = self._read(first) & self._read(second)
        if shared:
            return "neither needs the other, and what both read was shared with other kernels"
        return "they have nothing to do with each other: neither needs the other, and they read nothing in common"

    def _met(self, a: int, b: int) -> tuple[int, int]:
        return self.fuser.group_of(a), self.fuser.group_of(b)

    def _read(self, numbers: dict[int, None]) -> set[Value]:
        groups = self.fuser.groups
        return {v for n in numbers if n in groups for v in groups[n].reads
                if v not in groups[n].defs and literal(v) is None}

    def _after(self, number: int) -> list[int]:
        """The groups that read what group `number` computes, in order."""
        found = {n for v, home in self.fuser.home.items() if self.fuser.group_of(home) == number
                 for n in map(self.fuser.group_of, self.fuser.users.get(v, ())) if n != number}
        return sorted(found, key=self.fuser.graph.rank.__getitem__)

    def _path(self, start: list[int], goal: set[int]) -> list[int]:
        """The shortest way from one of the groups `start` to one of `goal` along what they read, or nothing."""
        came: dict[int, int | None] = dict.fromkeys(start)
        queue = list(start)
        for number in queue:
            if number in goal:
                path = [number]
                while (before := came[path[-1]]) is not None:
                    path.append(before)
                return path[::-1]
            for n in self._after(number):
                if n not in came:
                    came[n] = number
                    queue.append(n)
        return []

    def _between(self, path: list[int]) -> str:
        """What is said where other kernels stand between the two: the first refusal on the way."""
        inner = [f"the kernel of {self._named(n)}" for n in path[1:-1]]
        if len(inner) > SHOWN:
            inner[SHOWN:] = [f"{len(inner) - SHOWN} more"]
        listed = " and ".join((", ".join(inner[:-1]), inner[-1])) if len(inner) > 1 else "".join(inner)
        told = f"{listed} {'runs' if len(inner) == 1 else 'run'} between them" if inner else \
            "the one needs the other's result"
        for a, b in itertools.pairwise(path):
            reasons = [r.reason for r in self.fuser.refusals if self._met(r.first, r.second) == (a, b)]
            if reasons:
                return f"{told}; already {self._named(b)} was not joined to what it reads: {reasons[-1]}" \
                    if inner else f"{told}: {reasons[-1]}"
        return told

    def _named(self, number: int) -> str:
        """The last op that a group computes."""
        if number in self.fuser.nodes:
            node = self.fuser.nodes[number]
            return repr(node.origin[0] if node.origin else node.op.name)
        group = self.fuser.groups[number]
        last = max((v for v in group.defs if v not in group.copies), key=lambda v: self.fuser.order.get(v, -1))
        node = group.units[last].node
        return repr(node.origin[0] if node.origin else node.op.name)
