"""Fusion: which nodes become one kernel.

Owns the order in which groups are tried, and the Fusion nodes that result.  access.py says what a node reads, group.py
what may be joined, acyclic.py that no cycle arises.  Law: exact (a Fusion evaluates its body).  Invariants: every node
with a lowering ends in a Fusion; nodes that are cheaper to compute again than to load are copied to their users; the
work is near-linear in the nodes.

A Fusion node has the attrs body, form, domain (sizes of the axes, kept ones first), kept (how many), and labels: for
each node of the body and each of its outputs, the domain axis per axis (-1 where the size is 1), or None where the
value is computed wherever it is read; then, for a reduction or product, the same for each input.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.errors import InternalError
from graphc.ir.function import Function, Node, Value
from graphc.ops.base import Contracting, Convolving, Staged, lookup
from graphc.passes.access import (
    UNIT,
    Unit,
    bytes_of,
    is_fusible,
    is_view,
    literal,
    root,
    unit_of,
)
from graphc.passes.acyclic import Acyclic
from graphc.passes.group import CHEAP_REPEAT, Group, Space, domain, join, merge, storable

CHEAP_COPY = 8  # primitives that may be computed again in each user


def fuse(function: Function) -> Function:
    """Return `function`, and the bodies in it, with nodes grouped into Fusions."""
    return Fuser(function).run()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why two groups, by the numbers they had then (see Fuser.group_of), did not become one."""

    first: int
    second: int
    reason: str


@dataclass
class Fuser:
    """One function's fusion.  refusals: every join that was tried and refused, in order."""

    function: Function
    space: Space = field(default_factory=Space)
    refusals: list[Refusal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = Acyclic()
        self.groups: dict[int, Group] = {}
        self.nodes: dict[int, Node] = {}  # of those that are no kernels
        self.home: dict[Value, int] = {}
        self.users: dict[Value, set[int]] = {}
        self._became: dict[int, int] = {}
        self.order: dict[Value, int] = {}
        self._needed = {root(v)[0] for v in self.function.results}
        self._operands: set[Value] = set()
        for node in self.function.nodes:
            if isinstance(node.op.lower, Contracting | Convolving | Staged):
                self._operands.update(root(v)[0] for v in node.inputs)
            elif not is_fusible(node) and not is_view(node):
                self._needed.update(root(v)[0] for v in node.inputs)
        self._copies: dict[Value, Unit | None] = {}
        self._units: dict[Value, Unit] = {}

    def run(self) -> Function:
        """Group everything; return the new function."""
        for node in self.function.nodes:
            if is_view(node) or node.op.name == "Const":
                continue
            if not is_fusible(node):
                self._add_node(node)
                continue
            for value in node.outputs:
                self.order[value] = len(self.order)
                self._units[value] = unit_of(value)
                if value in self._needed or self.copy_of(value) is None:
                    self._supply(value)
        for value in self.function.results:
            self._supply(root(value)[0])
        for number in list(self.groups):  # only now: who needs a value is known when every group stands
            self._join_parents(number)
        for number, group in list(self.groups.items()):
            if group.form != "map":
                self._shed(number)
        self._join_siblings()
        return self._rebuild()

    # -- groups ---------------------------------------------------------------------------------

    def _add_node(self, node: Node) -> None:
        inputs = [root(v)[0] for v in node.inputs]
        for v in inputs:
            self._supply(v)
        number = self.graph.add({self.home[v] for v in inputs if v in self.home})
        self.nodes[number] = node
        for v in node.outputs:
            self.home[v] = number
            self.order[v] = len(self.order)

    def _place(self, unit: Unit) -> None:
        """Give `unit` a group of its own, with copies of what it needs."""
        group = self._with_copies(unit)
        loaded = [v for v in group.reads if v not in group.defs]
        for v in loaded:
            self._supply(v)
        number = self.graph.add({self.home[v] for v in loaded if v in self.home})
        self.groups[number] = group
        self.home[unit.value] = number
        for v in loaded:
            self.users.setdefault(v, set()).add(number)

    def _supply(self, value: Value) -> None:
        """Make sure that somebody computes `value`: what is copied to its users has no group until one loads it."""
        if value in self._units and value not in self.home:
            self._place(self._units[value])

    def _join_parents(self, number: int) -> None:
        """Join a new group with those whose values it reads, the largest value first."""
        group = self.groups[number]
        saved: dict[int, int] = {}
        for v in group.reads:
            if v in self.home and v not in group.defs:
                parent = self.home[v]
                saved[parent] = saved.get(parent, 0) + bytes_of(v.tensor)
        for parent in sorted(saved, key=lambda p: (-saved[p], p)):
            number = self._try(parent, number)

    def _with_copies(self, unit: Unit, copy: bool = False, also: Mapping[Value, Unit] | None = None) -> Group:
        """The group of `unit` and of copies of what is cheaper to compute again than to load, and of `also`."""
        group = Group.of(unit, self.space, copy)
        for value in list(dict.fromkeys(r.value for r in unit.reads)):
            cheap = also[value] if also and value in also else self.copy_of(value)
            if cheap is None or value in group.defs:
                continue
            other = self._with_copies(cheap, True, also)
            joint = join(self.space, other, group, lambda _: False)
            if not isinstance(joint, str):
                group = merge(self.space, other, group, joint)
        return group

    def copy_of(self, value: Value) -> Unit | None:
        """Return the unit of `value` where each user should compute it again, else None."""
        if value not in self._copies:
            self._copies[value] = self._judge(value)
        return self._copies[value]

    def _judge(self, value: Value) -> Unit | None:
        unit = self._units.get(value)
        if unit is None or unit.kind != "map" or self._closure(unit) > CHEAP_COPY:
            return None
        reads = [r for r in unit.reads if literal(r.value) is None]
        if not reads:
            return unit
        if unit.primitives == 0 and all(r.labels is not None for r in reads):
            return unit  # a permutation or broadcast
        loaded, stored = sum(bytes_of(r.value.tensor) for r in reads), bytes_of(value.tensor)
        anchored = all(self._in_memory(r.value) for r in reads)
        if unit.primitives <= 2 and unit.cycles <= 6 and anchored and loaded <= 4 * stored:
            return unit
        return unit if unit.primitives <= 4 and unit.cycles <= 8 and 4 * loaded <= stored else None

    def _closure(self, unit: Unit) -> int:
        """Primitives of a copy, with those of the copies that it needs."""
        inner = {r.value: self.copy_of(r.value) for r in unit.reads}
        return unit.primitives + sum(self._closure(u) for u in inner.values() if u is not None)

    def _in_memory(self, value: Value) -> bool:
        """Whether `value` is loaded by its users whatever is fused: an input, a result, a factor of a product."""
        if value.producer is None or value in self._needed or value in self._operands or not is_fusible(value.producer):
            return True
        copy = self.copy_of(value)
        return copy is not None and all(self._in_memory(r.value) for r in copy.reads)

    def _outside(self, a: int, b: int) -> bool:
        """Whether a value of group a is needed by others than a and b."""
        group = self.groups[a]
        return any(v in self._needed or not self.users.get(v, set()) <= {a, b}
                   for v in group.defs if v not in group.copies)

    def _try(self, a: int, b: int) -> int:
        """Join two groups where that is legal; return the number of b's group afterwards."""
        if a == b or a not in self.groups:
            return b
        first, second = self.groups[a], self.groups[b]
        joint = join(self.space, first, second, lambda _: self._outside(a, b))
        if isinstance(joint, str):
            self.refusals.append(Refusal(a, b, joint))
            return b
        if not self.graph.contract(b, a):
            self.refusals.append(Refusal(a, b, "another kernel would have to run between them"))
            return b
        merged = merge(self.space, first, second, joint)
        del self.groups[a]
        self._became[a] = b
        self.groups[b] = merged
        for v in merged.units:
            if v not in merged.copies:
                self.home[v] = b
        for v in merged.reads:
            users = self.users.get(v)
            if users is not None and a in users:
                users.discard(a)
                users.add(b)
        return b

    def group_of(self, number: int) -> int:
        """Return the number of the group that group `number` is part of in the end."""
        while number in self._became:
            number = self._became[number]
        return number

    def _join_siblings(self) -> None:
        """Join groups that read the same over the same domain, and scalars' groups with each other."""
        readers: dict[Value, list[int]] = {}
        scalars: list[int] = []
        for number in sorted(self.groups, key=self.graph.rank.__getitem__):
            group = self.groups[number]
            if not group.axes:
                scalars.append(number)
            for v in group.reads if group.form != "contract" else ():
                if v not in group.defs and literal(v) is None:
                    readers.setdefault(v, []).append(number)
        pairs = [(a, b) for v in sorted(readers, key=lambda v: -bytes_of(v.tensor))
                 for a, b in _adjacent(readers[v]) if bytes_of(v.tensor) > 64]
        totals = [n for n in self.groups if self.groups[n].form == "rows" and not self.groups[n].kept]
        now: dict[int, int] = {}
        for a, b in [*pairs, *_adjacent(sorted(totals, key=self.graph.rank.__getitem__)), *_adjacent(scalars)]:
            while a in now:
                a = now[a]
            while b in now:
                b = now[b]
            if a != b and self._try(a, b) == b and a not in self.groups:
                now[a] = b

    def _shed(self, number: int) -> None:
        """Let the users of a group compute again what it would store although that follows, at little cost, from
        something else that it stores or that is in memory."""
        group = self.groups[number]
        pending = sorted(self._leaving(number), key=self.order.__getitem__, reverse=True)
        while pending:
            value = pending.pop(0)
            users = sorted(self.users.get(value, set()) - {number})
            inner = self._recomputed(value, number, users)
            if inner is None:
                continue
            copies = [(user, self._with_copies(group.units[value], True, inner)) for user in users]
            joints = [join(self.space, copy, self.groups[user], lambda _: False) for user, copy in copies]
            if any(isinstance(joint, str) for joint in joints):
                continue
            for (user, copy), joint in zip(copies, joints, strict=True):
                assert not isinstance(joint, str)
                self.groups[user] = merge(self.space, copy, self.groups[user], joint)
                for v in copy.reads:
                    if v not in copy.defs:
                        self.users.setdefault(v, set()).add(user)
            self.users[value] = self.users[value] & {number}
            self._prune(number)
            pending = sorted(self._leaving(number), key=self.order.__getitem__, reverse=True)

    def _recomputed(self, value: Value, number: int, users: Sequence[int]) -> dict[Value, Unit] | None:
        """Return what each of `users` would compute of group `number` to have `value` without loading it; None where
        one cannot, or where it costs more than it saves."""
        group = self.groups[number]
        if value in self._needed or value in self._operands or not users or any(u not in self.groups for u in users):
            return None
        stored = {v for v in self._leaving(number) if v != value}
        inner: dict[Value, Unit] = {}
        sources: dict[Value, None] = {}
        stack = [value]
        while stack:
            unit = group.units[stack.pop()]
            if unit.kind != "map" or any(r.labels is None for r in unit.reads):
                return None
            inner[unit.value] = unit
            for v in dict.fromkeys(r.value for r in unit.reads):
                if v in group.defs and v not in stored and v not in inner:
                    stack.append(v)
                elif v not in inner and literal(v) is None and self.copy_of(v) is None:
                    sources[v] = None
        primitives, cycles = sum(u.primitives for u in inner.values()), sum(u.cycles for u in inner.values())
        if primitives > CHEAP_COPY or cycles > CHEAP_REPEAT:
            return None
        still = {r.value for v in self._behind(group, stored) for r in group.units[v].reads}
        saved = bytes_of(value.tensor) * len(users) + bytes_of(value.tensor) // 4  # loads, and a part of the store
        saved += sum(bytes_of(v.tensor) for v in sources if v not in group.defs and v not in still)
        more = sum(bytes_of(v.tensor) for v in sources for u in users if v not in self.groups[u].reads)
        return inner if more <= saved else None

    def _behind(self, group: Group, values: Iterable[Value]) -> set[Value]:
        """Return the values of `group` that `values` of it are computed from, and these."""
        found: set[Value] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in group.units and value not in found:
                found.add(value)
                stack.extend(r.value for r in group.units[value].reads)
        return found

    def _prune(self, number: int) -> None:
        """Drop what a group computes for nobody any more."""
        group = self.groups[number]
        wanted = self._behind(group, self._leaving(number))
        for value in [v for v in group.units if v not in wanted]:
            del group.units[value], group.defs[value]
            group.copies.discard(value)
            group.spans.pop(value, None)
        read = {r.value for u in group.units.values() for r in u.reads}
        for value in [v for v in group.reads if v not in read]:
            del group.reads[value]
            self.users.get(value, set()).discard(number)

    def _leaving(self, number: int) -> list[Value]:
        """Values that group `number` must store."""
        group = self.groups[number]
        return [v for v in group.defs if v not in group.copies
                and (v in self._needed or not self.users.get(v, set()) <= {number})]

    # -- the new function -----------------------------------------------------------------------

    def _rebuild(self) -> Function:
        out: list[Node] = []
        mapping: dict[Value, Value] = {v: v for v in self.function.inputs}

        def get(value: Value) -> Value:
            chain = []
            while value not in mapping:
                assert value.producer is not None
                chain.append(value)
                if value.producer.op.name == "Const":
                    break
                if not is_view(value.producer):
                    raise InternalError(f"fusion lost the value of {value.producer.origin}")
                value = value.producer.inputs[0]
            for v in reversed(chain):
                node = v.producer
                assert node is not None
                again = Node(node.op, [mapping[u] for u in node.inputs], node.attrs, [v.type], node.origin)
                out.append(again)
                mapping[v] = again.output
            return mapping[chain[0] if chain else value]

        for number in sorted([*self.groups, *self.nodes], key=self.graph.rank.__getitem__):
            if number in self.nodes:
                node = self.nodes[number]
                attrs = {k: fuse(v) if isinstance(v, Function) else v for k, v in node.attrs.items()}
                again = Node(node.op, [get(v) for v in node.inputs], attrs, [v.type for v in node.outputs], node.origin)
                out.append(again)
                mapping.update(zip(node.outputs, again.outputs, strict=True))
                continue
            group = self.groups[number]
            leaving = sorted(self._leaving(number), key=self.order.__getitem__)
            if not leaving:
                continue
            fusion, inputs = self._fusion(group, leaving)
            node = Node(fusion.op, [get(v) for v in inputs], fusion.attrs, [v.type for v in leaving], fusion.origin)
            out.append(node)
            mapping.update(zip(leaving, node.outputs, strict=True))
        fetches, updates = (tuple(map(get, values)) for values in (self.function.fetches, self.function.updates))
        return self.function.replace(nodes=tuple(out), fetches=fetches, updates=updates)

    def _fusion(self, group: Group, leaving: Sequence[Value]) -> tuple[Node, list[Value]]:
        """The Fusion node of a group (its inputs as they are now) and those inputs."""
        body, inputs, made = _body(sorted(group.units, key=self.order.__getitem__), leaving)
        axes = domain(self.space, group, leaving)
        number = {a: i for i, a in enumerate(axes)}
        for v in leaving:
            if not storable(self.space, group, v):
                raise InternalError(f"a fused value from {group.units[v].node.origin} cannot leave its kernel")

        def labels(value: Value) -> tuple[int, ...] | None:
            at = self.space.resolve(group.defs.get(value))
            return None if at is None else tuple(UNIT if a == UNIT else number[a] for a in at)

        def node_labels(node: Node) -> tuple[tuple[int, ...] | None, ...]:
            outputs = tuple(map(labels, node.outputs))
            span = group.spans.get(node.outputs[0])
            if span is None:
                return outputs
            own = [number[self.space.find(a)] for a in span]
            return outputs + tuple(tuple(UNIT if a == UNIT else own[a] for a in at)
                                   for at in group.units[node.outputs[0]].inputs)

        attrs = {
            "body": body, "form": group.form, "domain": tuple(self.space.sizes[a] for a in axes),
            "kept": len(group.kept), "labels": tuple(map(node_labels, made))}
        origin = tuple(dict.fromkeys(o for v in sorted(group.units, key=self.order.__getitem__)
                                     for o in group.units[v].node.origin))
        return Node(lookup("Fusion"), inputs, attrs, [v.type for v in leaving], origin), inputs


def _adjacent(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    return itertools.pairwise(numbers)


def _body(values: Sequence[Value], leaving: Sequence[Value]) -> tuple[Function, list[Value], list[Node]]:
    """A function of the nodes that make `values`; what it reads, as its inputs, in order; and the nodes copied."""
    inside = {v.producer for v in values}
    mapping: dict[Value, Value] = {}
    feeds: list[Value] = []
    inputs: list[Value] = []
    nodes: list[Node] = []
    made: list[Node] = []

    def add(node: Node) -> None:
        types = [v.type for v in node.outputs]
        again = Node(node.op, [mapping[v] for v in node.inputs], node.attrs, types, node.origin)
        nodes.append(again)
        made.append(node)
        mapping.update(zip(node.outputs, again.outputs, strict=True))

    def supply(value: Value) -> None:
        """Make `value` available: through views and literals, else as an input."""
        chain = []
        while value not in mapping:
            node = value.producer
            if node is not None and literal(value) is not None:
                add(node)
            elif node is not None and is_view(node):
                chain.append(node)
                value = node.inputs[0]
            elif node is not None and node in inside:
                raise InternalError(f"a kernel reads {node.op.name} before computing it")
            else:
                feed = Value(value.type)
                mapping[value] = feed
                feeds.append(feed)
                inputs.append(value)
        for node in reversed(chain):
            if node.output not in mapping:
                add(node)

    for v in values:
        node = v.producer
        assert node is not None
        if node.outputs[0] in mapping:
            continue
        for u in node.inputs:
            supply(u)
        add(node)
    body = Function("fusion", tuple(feeds), tuple(nodes), tuple(mapping[v] for v in leaving))
    return body, inputs, made
