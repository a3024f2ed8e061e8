"""Dead code: nodes whose values nobody needs, and the dead parts of loops and branches.

Law: exact; fetches and updates keep their values, host calls keep their place.  A stacked result, a stacked input or a
capture that nothing uses leaves its Loop; a result or a capture that nothing uses leaves its Cond.  Idempotent: one
walk from the results back decides everything.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value
from graphc.ir.infer import loop_parts
from graphc.ops.base import Kind
from graphc.passes.bodies import everywhere


@dataclass(frozen=True, slots=True)
class _Slim:
    """A structured node without its dead parts: which inputs and outputs stay, and what attrs change."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: Mapping[str, Any]


@everywhere
def remove_dead_code(function: Function) -> Function:
    """Return `function` without dead nodes and dead parts of structured nodes."""
    live = set(function.results)
    slims: dict[Node, _Slim] = {}
    dead = 0
    for node in reversed(function.nodes):
        if not _kept(node, live):
            dead += 1
            continue
        slim = _SLIMMERS[node.op.name](node, live) if node.op.name in _SLIMMERS else None
        if slim is None:
            live.update(node.inputs)
        else:
            slims[node] = slim
            live.update(node.inputs[i] for i in slim.inputs)
    return _without(function, live, slims) if dead or slims else function


def _kept(node: Node, live: set[Value]) -> bool:
    return node.op.kind is Kind.HOST or any(v in live for v in node.outputs)


def _without(function: Function, live: set[Value], slims: Mapping[Node, _Slim]) -> Function:
    """`function` with what is kept of it."""
    mapping: dict[Value, Value] = {}
    builder = Builder(infer.types)
    for node in function.nodes:
        if not _kept(node, live):
            continue
        inputs = tuple([mapping.get(v, v) for v in node.inputs])
        slim = slims.get(node)
        if slim is not None:
            again = builder.add(node.op, [inputs[i] for i in slim.inputs], {**node.attrs, **slim.attrs}, node.origin)
            mapping.update(zip((node.outputs[i] for i in slim.outputs), again.outputs, strict=True))
        elif inputs == node.inputs:
            builder.nodes.append(node)
        else:
            mapping.update(zip(node.outputs, builder.copy(node, inputs).outputs, strict=True))
    return function.replace(nodes=tuple(builder.nodes), fetches=tuple(mapping.get(v, v) for v in function.fetches),
                            updates=tuple(mapping.get(v, v) for v in function.updates))


def _used(body: Function) -> set[Value]:
    return {v for node in body.nodes for v in node.inputs} | set(body.fetches)


def _slim_loop(node: Node, live: set[Value]) -> _Slim | None:
    """What stays of a Loop: all carried values, live rows, and the inputs that the body then uses."""
    attrs = node.attrs
    body: Function = attrs["body"]
    condition: Function | None = attrs.get("cond")
    carried, xs, captures, ys = loop_parts(attrs)
    first = (1 if attrs.get("while") else 0) + carried
    rows = [i for i in range(ys) if node.outputs[carried + i] in live]
    body = remove_dead_code(body.replace(
        fetches=body.fetches[:first] + tuple(body.fetches[first + i] for i in rows), feed_names=(), fetch_names=()))
    used = _used(body)
    used_first = set() if condition is None else _used(condition)
    stacked = [i for i in range(xs) if body.feeds[1 + carried + i] in used]
    held = [i for i in range(captures) if body.feeds[1 + carried + xs + i] in used
            or (condition is not None and condition.feeds[carried + i] in used_first)]
    if (len(rows), len(stacked), len(held)) == (ys, xs, captures):
        return None
    inputs = (*range(1 + carried), *(1 + carried + i for i in stacked), *(1 + carried + xs + i for i in held))
    changes: dict[str, Any] = {"xs": len(stacked), "ys": len(rows), "captures": len(held),
                               "body": body.replace(feeds=tuple(body.feeds[i] for i in inputs))}
    if rows and attrs.get("length") is None:
        changes["length"] = infer.loop_length([v.type for v in node.inputs], attrs)
    if condition is not None:
        given = (*range(carried), *(carried + i for i in held))
        changes["cond"] = condition.replace(feeds=tuple(condition.feeds[i] for i in given), feed_names=())
    return _Slim(inputs, (*range(carried), *(carried + i for i in rows), len(node.outputs) - 1), changes)


def _slim_cond(node: Node, live: set[Value]) -> _Slim | None:
    """What stays of a Cond: live results, and the captures that a body then uses."""
    rows = tuple(i for i, v in enumerate(node.outputs) if v in live)
    bodies = {name: remove_dead_code(body.replace(fetches=tuple(body.fetches[i] for i in rows), feed_names=(),
                                                  fetch_names=())) for name, body in node.bodies()}
    used = [_used(body) for body in bodies.values()]
    held = tuple(i for i in range(len(node.inputs) - 1)
                 if any(body.feeds[i] in found for body, found in zip(bodies.values(), used, strict=True)))
    if len(rows) == len(node.outputs) and len(held) == len(node.inputs) - 1:
        return None
    changes = {name: body.replace(feeds=tuple(body.feeds[i] for i in held)) for name, body in bodies.items()}
    return _Slim((0, *(1 + i for i in held)), rows, changes)


_SLIMMERS = {"Loop": _slim_loop, "Cond": _slim_cond}
