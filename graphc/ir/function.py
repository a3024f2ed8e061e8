"""The compiler's program: an immutable, typed function of values in single-assignment form.

Owns Value, Node, Function and their Builder.  Knows ops and types; knows nothing of the user's graph,
passes or machines.  Invariants (held by verify.py): nodes stand in an order in which every value is
defined before it is used; every type is what the op's own inference gives; a Function never changes:
a pass builds a new one.

Effects are values: a variable is a `state`, an input value with its content when the run starts, and
`updates[k]` is its content when the run ends (the input value itself where nothing writes it).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import VerifyError
from graphc.ir.types import HostType, TensorType, Type
from graphc.ops.base import Op


class Value:
    """One immutable value: an input of a function (producer None) or an output of a node."""

    __slots__ = ("index", "producer", "type")

    def __init__(self, type: Type, producer: Node | None = None, index: int = 0) -> None:
        self.type = type
        self.producer = producer
        self.index = index

    @property
    def tensor(self) -> TensorType:
        """The type, which must be a tensor's."""
        if not isinstance(self.type, TensorType):
            raise VerifyError(f"a value of type {self.type} is used as a tensor")
        return self.type

    def __repr__(self) -> str:
        made = f"{self.producer.op.name}:{self.index}" if self.producer else "input"
        return f"<Value {made} {self.type}>"


class Node:
    """One application of an op.

    op: the registry's entry.  inputs: values.  attrs: every attr of the op, plain data (bools, ints, floats, strings,
    DTypes, Sizes, tuples of them, NumPy arrays for Const); a body (a Function) where the op is structured.
    origin: names of the graph ops it came from, first the one that errors are reported for.
    """

    __slots__ = ("attrs", "inputs", "op", "origin", "outputs")

    def __init__(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any], types: Sequence[Type],
                 origin: tuple[str, ...] = ()) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.attrs: Mapping[str, Any] = dict(attrs)
        self.origin = origin
        self.outputs = tuple(Value(t, self, i) for i, t in enumerate(types))

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def bodies(self) -> Iterator[tuple[str, Function]]:
        """The functions among the attrs, by attr name."""
        for name, value in self.attrs.items():
            if isinstance(value, Function):
                yield name, value

    def __repr__(self) -> str:
        return f"<Node {self.op.name} {[str(o.type) for o in self.outputs]}>"


@dataclass(frozen=True, slots=True)
class Condition:
    """A relation between sizes that a run must satisfy; kernel/plan.py's Check says what each kind means.
    kind: "equal", "assume", "divides" or "at_most".  op: the graph op that needs it."""

    kind: str
    left: Any
    right: Any
    message: str
    op: str


@dataclass(frozen=True, slots=True)
class SymbolSource:
    """How a size symbol gets its number: axis `axis` of feed `feed`, or (axis -1) element `element` of its value."""

    symbol: str
    feed: int
    axis: int
    element: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """feeds, states -> fetches, updates (one per state).

    feed_names, state_names, fetch_names: names in the user's graph.  conditions: what must hold of the sizes.
    sources: where each size symbol comes from.  lines: graph op name -> the user's line, as text.
    A body (of Loop, Cond, Fusion) is a Function with feeds and fetches alone.
    """

    name: str
    feeds: tuple[Value, ...]
    nodes: tuple[Node, ...]
    fetches: tuple[Value, ...]
    states: tuple[Value, ...] = ()
    updates: tuple[Value, ...] = ()
    feed_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    fetch_names: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    sources: tuple[SymbolSource, ...] = ()
    lines: Mapping[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Feeds, then states."""
        return self.feeds + self.states

    @property
    def results(self) -> tuple[Value, ...]:
        """Fetches, then updates."""
        return self.fetches + self.updates

    def users(self) -> dict[Value, list[Node]]:
        """Who uses each value, in order; a node that uses it twice stands there twice.  Results are not users."""
        found: dict[Value, list[Node]] = {v: [] for v in self.inputs}
        for node in self.nodes:
            for v in node.inputs:
                found[v].append(node)
            for v in node.outputs:
                found[v] = []
        return found

    def replace(self, **changes: Any) -> Function:
        """Return a copy with these fields changed."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Function(**(values | changes))


Rewrite = Callable[["Node", tuple[Value, ...], "Builder"], Sequence[Value] | None]


class Builder:
    """Builds the nodes of one function, in order.  `infer` (ir/infer.py) gives the types."""

    def __init__(self, infer: Callable[[Op, Sequence[Value], Mapping[str, Any]], Sequence[Type]]) -> None:
        self._infer = infer
        self.nodes: list[Node] = []

    def add(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any] | None = None,
            origin: tuple[str, ...] = ()) -> Node:
        """Append an application of `op` (attrs in canonical form, types inferred) and return it."""
        full = {**op.attrs, **(attrs or {})}
        if op.canonical is not None:
            full = dict(op.canonical(full, [v.tensor for v in inputs]))
        node = Node(op, inputs, full, self._infer(op, inputs, full), origin)
        self.nodes.append(node)
        return node

    def copy(self, node: Node, inputs: Sequence[Value]) -> Node:
        """Append `node` again with other inputs (its types must still hold) and return the copy."""
        again = Node(node.op, inputs, node.attrs, [o.type for o in node.outputs], node.origin)
        self.nodes.append(again)
        return again


def rewrite(function: Function, builder: Builder, rule: Rewrite) -> Function:
    """Return `function` rebuilt node by node: rule(node, new inputs, builder) gives the values that stand for the
    node's outputs, or None to keep it.  Inputs, names and conditions stay; nodes nobody uses any more stay too (dead
    code elimination removes them).  Returns `function` itself where the rule kept every node."""
    mapping: dict[Value, Value] = {v: v for v in function.inputs}
    changed = False
    for node in function.nodes:
        inputs = tuple(mapping[v] for v in node.inputs)
        instead = rule(node, inputs, builder)
        if instead is None:
            if inputs == node.inputs:
                builder.nodes.append(node)
                instead = node.outputs
            else:
                instead = builder.copy(node, inputs).outputs
        else:
            changed = True
        for old, new in zip(node.outputs, instead, strict=True):
            mapping[old] = new
    if not changed:
        return function
    return function.replace(nodes=tuple(builder.nodes), fetches=tuple(mapping[v] for v in function.fetches),
                            updates=tuple(mapping[v] for v in function.updates))


def is_token(value: Value) -> bool:
    """Whether `value` is an order token of host calls."""
    return isinstance(value.type, HostType) and value.type.kind == "token"


def walk_bodies(functions: Iterable[Function]) -> Iterator[Function]:
    """Every function given and every body inside, outermost first, without recursion."""
    stack = list(functions)[::-1]
    while stack:
        f = stack.pop()
        yield f
        for node in reversed(f.nodes):
            stack.extend(body for _, body in node.bodies())
