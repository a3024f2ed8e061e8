"""An acyclic graph whose nodes are contracted one pair after the other.

Owns the incremental topological order.  Knows nothing of what its nodes are.  Invariants: ranks rise along every edge;
a contraction that would close a cycle is refused.  A search visits only nodes whose ranks lie between its ends, and
gives up (refuses) after `limit` visits, so that a whole fusion stays near-linear.
Source: Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs", JEA 11, 2006.
"""
from __future__ import annotations

from collections.abc import Iterable


class Acyclic:
    """Nodes 0, 1, ... in topological order at first.  visits: the work done so far."""

    def __init__(self, limit: int = 1024) -> None:
        self.limit = limit
        self.visits = 0
        self.after: list[set[int]] = []
        self.before: list[set[int]] = []
        self.rank: list[int] = []

    def add(self, before: Iterable[int]) -> int:
        """Append a node behind all others, with edges from `before`; return its number."""
        number = len(self.rank)
        self.rank.append(number)
        self.before.append(set(before))
        self.after.append(set())
        for p in self.before[number]:
            self.after[p].add(number)
        return number

    def contract(self, a: int, b: int) -> bool:
        """Make a and b one node, called a, unless a path through other nodes joins them; return whether it was done."""
        low, high = (a, b) if self.rank[a] < self.rank[b] else (b, a)
        behind = self._between(low, high, self.after)
        if behind is None:
            return False
        ahead = self._between(high, low, self.before)
        if ahead is None:
            return False
        rank = self.rank
        pool = sorted([rank[low], rank[high], *(rank[n] for n in behind), *(rank[n] for n in ahead)])
        del pool[len(ahead) + 1]  # so that no node ahead rises and no node behind falls
        order = [*sorted(ahead, key=rank.__getitem__), a, *sorted(behind, key=rank.__getitem__)]
        for node, place in zip(order, pool, strict=True):
            rank[node] = place
        for forth, back in ((self.after, self.before), (self.before, self.after)):
            for n in forth[b]:
                back[n].discard(b)
                if n != a:
                    back[n].add(a)
                    forth[a].add(n)
            forth[b] = set()
            forth[a].discard(b)
        return True

    def _between(self, start: int, goal: int, edges: list[set[int]]) -> set[int] | None:
        """What `start` reaches with ranks on this side of that of `goal`; None where it reaches `goal` through it."""
        first, last = sorted((self.rank[start], self.rank[goal]))
        found: set[int] = set()
        stack = [n for n in edges[start] if n != goal]
        while stack:
            node = stack.pop()
            if node == goal:
                return None
            if node in found or not first < self.rank[node] < last:
                continue
            found.add(node)
            self.visits += 1
            if len(found) > self.limit:
                return None
            stack.extend(edges[node])
        return found
