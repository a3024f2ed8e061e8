"""Scheduling for low peak memory: the order in which independent kernels run.

Owns the order of a fused function's nodes.  Knows sizes of values; must not know kernels.  Law: exact.
Invariants: every value is defined before it is used; whoever reads an old version of a variable comes before its
update where the graph allows it, so that the update can be written in place; near-linear in the nodes.
"""
from __future__ import annotations

import heapq

from graphc.ir.function import Function, Node, Value, is_token
from graphc.ops.base import Kind
from graphc.passes.access import bytes_of, is_view, root


def order(function: Function) -> Function:
    """Return `function` with its nodes reordered, and those of its bodies."""
    return function.replace(nodes=tuple(_Scheduler(function).run()))


class _Scheduler:
    """List scheduling: of the nodes that are ready, the one that frees most and allocates least comes next.

    Ties, and nodes of equal effect, keep the given order, so that equal functions stay equal.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.nodes = function.nodes
        self.number = {node: i for i, node in enumerate(self.nodes)}
        self.reads = {node: tuple(dict.fromkeys(root(v)[0] for v in node.inputs)) for node in self.nodes}
        self.waiting: dict[Value, int] = {}
        for node in self.nodes:
            if is_view(node):
                continue
            for v in self.reads[node]:
                self.waiting[v] = self.waiting.get(v, 0) + 1
        self.kept = {root(v)[0] for v in function.results} | set(function.inputs)
        self.after: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        self.missing: dict[Node, int] = dict.fromkeys(self.nodes, 0)
        for node in self.nodes:
            for producer in dict.fromkeys(v.producer for v in node.inputs):
                if producer is not None:
                    self._edge(producer, node)
        self._readers_first()
        self._hosts_first()

    def _edge(self, before: Node, behind: Node) -> None:
        self.after[before].append(behind)
        self.missing[behind] += 1

    def _readers_first(self) -> None:
        """Order the readers of each variable before its update, unless they depend on it."""
        readers: dict[Value, list[Node]] = {}
        states = set(self.function.states)
        for node in self.nodes:
            if is_view(node):
                continue
            for v in self.reads[node]:
                if v in states:
                    readers.setdefault(v, []).append(node)
        for state, update in zip(self.function.states, self.function.updates, strict=True):
            writer = root(update)[0].producer
            if writer is None:
                continue
            for reader in readers.get(state, ()):
                if reader is not writer and not self._reaches(writer, reader):
                    self._edge(reader, writer)

    def _hosts_first(self) -> None:
        """Order host calls before the updates of variables that they do not see: one that fails leaves variables as
        they were, and what waits for an assertion is not done before it."""
        hosts = [node for node in self.nodes if node.op.kind is Kind.HOST]
        for state, update in zip(self.function.states, self.function.updates, strict=True):
            writer = root(update)[0].producer
            if update is state or writer is None or writer in hosts:
                continue
            before = next((host for host in reversed(hosts) if not self._reaches(writer, host)), None)
            if before is not None:  # the earlier ones come before that one
                self._edge(before, writer)

    def _reaches(self, start: Node, goal: Node, limit: int = 2048) -> bool:
        """Whether `goal` comes behind `start` (taken for granted where the search grows too long)."""
        seen = {start}
        stack = [start]
        while stack:
            node = stack.pop()
            if node is goal or len(seen) > limit:
                return True
            for n in self.after[node]:
                if n not in seen:
                    seen.add(n)
                    stack.append(n)
        return False

    def run(self) -> list[Node]:
        ready = [(self._effect(n), self.number[n]) for n in self.nodes if self.missing[n] == 0]
        heapq.heapify(ready)
        out: list[Node] = []
        while ready:
            effect, number = heapq.heappop(ready)
            node = self.nodes[number]
            now = self._effect(node)
            if now != effect and ready and (now, number) > ready[0]:
                heapq.heappush(ready, (now, number))  # its effect changed since it became ready
                continue
            out.append(node)
            if not is_view(node):
                for v in self.reads[node]:
                    self.waiting[v] -= 1
            for n in self.after[node]:
                self.missing[n] -= 1
                if self.missing[n] == 0:
                    heapq.heappush(ready, (self._effect(n), self.number[n]))
        return out

    def _effect(self, node: Node) -> int:
        """Bytes that running `node` adds to what is live."""
        if is_view(node) or node.op.name == "Const":
            return -1 << 62  # costs nothing: as soon as it can
        if node.op.kind is Kind.HOST:
            return -1 << 61  # as soon as it can, too: an assertion comes before what it is to prevent
        added = sum(bytes_of(v.tensor) for v in node.outputs if v not in self.kept)
        freed = sum(bytes_of(v.tensor) for v in self.reads[node]
                    if self.waiting[v] == 1 and v not in self.kept and not is_token(v))
        return added - freed
