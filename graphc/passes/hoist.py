"""What a program computes from variables and constants alone, computed once and kept until a variable changes.

Owns the split of a function into the part that every run needs and the part that depends on nothing that is fed.
Knows the IR; must not know who keeps the values (runtime/hoisted.py).  Law: exact; main(alone(states)) = function.
Invariants: only a function that writes no variable is split (counters of random ops may move); what is hoisted has
sizes known when compiling; both parts are functions like others, the hoisted values being states of either.

Inference is the case: a filter transformed for Winograd's product, a batch normalisation's scale, a cast or transposed
weight cost a run nothing.
"""
from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphc.ir import dim
from graphc.ir.function import Function, Node, Value
from graphc.ir.text import show
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, View
from graphc.passes.dce import remove_dead_code

PREFIX = "hoisted/"
GROWTH = 8  # times the bytes of the states it comes from that a hoisted value may have
_SPREADING = frozenset(("BroadcastTo", "Tile", "Fill"))  # read from what they spread, they cost nothing
_KINDS = frozenset((Kind.ELEMENTWISE, Kind.REDUCTION, Kind.MOVEMENT, Kind.CONTRACTION, Kind.INDEXING))


def split(function: Function) -> tuple[Function, Function | None]:
    """Return `function` with what is hoisted read from states of its own, and the part that computes those states, to
    be run again only when a variable has changed; `function` itself and None where there is nothing to hoist."""
    values = _hoisted(function)
    if not values:
        return function, None
    names = tuple(f"v{k}" for k in range(len(values)))
    alone = _only_used_states(remove_dead_code(Function(
        "once", (), function.nodes, values, function.states, function.states, (), function.state_names, names)))
    text = show(alone, hashed=True)  # tells what is hoisted from all else that a session's programs hoist
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    names = tuple(f"{PREFIX}{digest}/{k}" for k in range(len(values)))
    alone = alone.replace(fetches=(), fetch_names=(), states=alone.states + tuple(Value(v.type) for v in values),
                          state_names=alone.state_names + names, updates=alone.updates + alone.fetches,
                          lines=function.lines)
    return _reading(function, values, names), alone


def _reading(function: Function, values: Sequence[Value], names: tuple[str, ...]) -> Function:
    """Return `function` with `values` read from states of these names."""
    states = tuple(Value(v.type) for v in values)
    mapping = dict(zip(values, states, strict=True))
    nodes: list[Node] = []
    for node in function.nodes:
        inputs = tuple(mapping.get(v, v) for v in node.inputs)
        if inputs == node.inputs:
            nodes.append(node)
            continue
        again = Node(node.op, inputs, node.attrs, [o.type for o in node.outputs], node.origin)
        nodes.append(again)
        for old, new in zip(node.outputs, again.outputs, strict=True):
            mapping.setdefault(old, new)  # what is hoisted itself may be computed from another hoisted value
    main = function.replace(
        nodes=tuple(nodes), fetches=tuple(mapping.get(v, v) for v in function.fetches),
        states=function.states + states, state_names=function.state_names + names,
        updates=tuple(mapping.get(v, v) for v in function.updates) + states)
    return _only_used_states(remove_dead_code(main))


def _hoisted(function: Function) -> tuple[Value, ...]:
    """The values that are hoisted, in the order of their nodes: computed without feeds, used by what is not."""
    if not function.feeds or any(_writes(s, u) for s, u in zip(function.states, function.updates, strict=True)):
        return ()
    counters = {s for s, u in zip(function.states, function.updates, strict=True) if u is not s}
    sources = [s for s in function.states if s not in counters]
    sources += [node.output for node in function.nodes if node.op.name == "Const"]  # what is too large to fold
    leaves: dict[Value, frozenset[Value]] = {v: frozenset((v,)) for v in sources}
    work: dict[Value, bool] = dict.fromkeys(leaves, False)  # whether anything but a view was done to a state
    found: list[Value] = []
    for node in function.nodes:
        if _is_pure(node) and node.inputs and all(v in leaves for v in node.inputs):
            done = not isinstance(node.op.lower, View) or any(work[v] for v in node.inputs)
            leaves.update(dict.fromkeys(node.outputs, frozenset().union(*(leaves[v] for v in node.inputs))))
            work.update(dict.fromkeys(node.outputs, done))
            continue
        found += [v for v in node.inputs if work.get(v, False)]
    return tuple(v for v in dict.fromkeys(found) if _bytes(v) <= GROWTH * sum(map(_bytes, leaves[v])))


def _writes(state: Value, update: Value) -> bool:
    """Whether `update` writes a variable, not a counter."""
    return update is not state and (update.producer is None or update.producer.op.kind is not Kind.RANDOM)


def _is_pure(node: Node) -> bool:
    """Whether `node` can be computed elsewhere, and is worth memory of its own."""
    return node.op.kind in _KINDS and not node.op.stateful and node.op.name not in _SPREADING and all(
        isinstance(o.type, TensorType) and all(isinstance(n, int) for n in o.type.shape) for o in node.outputs)


def _bytes(value: Value) -> int:
    return dim.evaluate(dim.product(value.tensor.shape), {}) * value.tensor.dtype.size


def _only_used_states(function: Function) -> Function:
    """Return `function` without the states that nothing reads or writes."""
    used = {v for node in function.nodes for v in node.inputs} | set(function.fetches)
    kept = [i for i, (s, u) in enumerate(zip(function.states, function.updates, strict=True))
            if s in used or u is not s]
    return function.replace(states=tuple(function.states[i] for i in kept),
                            state_names=tuple(function.state_names[i] for i in kept),
                            updates=tuple(function.updates[i] for i in kept))
