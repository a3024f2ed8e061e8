"""Dead code: nodes whose values nobody needs, and the dead parts of loops and branches.

Law: exact; fetches and updates keep their values, host calls keep their place.  A stacked result, a stacked input or a
capture that nothing uses leaves its Loop; a result or a capture that nothing uses leaves its Cond.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value
from graphc.ir.infer import loop_parts
from graphc.ops.base import Kind
from graphc.passes.bodies import everywhere


@everywhere
def remove_dead_code(function: Function) -> Function:
    """Return `function` without dead nodes and dead parts of structured nodes."""
    live = _live(function)
    mapping: dict[Value, Value] = {}
    builder = Builder(infer.types)
    changed = False
    for node in function.nodes:
        if not _kept(node, live):
            changed = True
            continue
        slim = _slim(node, live, builder, mapping) if node.op.name in ("Loop", "Cond") else None
        if slim is not None:
            mapping.update(slim)
            changed = True
            continue
        inputs = tuple(mapping.get(v, v) for v in node.inputs)
        if inputs == node.inputs:
            builder.nodes.append(node)
        else:
            mapping.update(zip(node.outputs, builder.copy(node, inputs).outputs, strict=True))
    if not changed:
        return function
    return function.replace(nodes=tuple(builder.nodes), fetches=tuple(mapping.get(v, v) for v in function.fetches),
                            updates=tuple(mapping.get(v, v) for v in function.updates))


def _kept(node: Node, live: set[Value]) -> bool:
    return node.op.kind is Kind.HOST or any(v in live for v in node.outputs)


def _live(function: Function) -> set[Value]:
    """The values that results and host calls need."""
    live = set(function.results)
    for node in reversed(function.nodes):
        if _kept(node, live):
            live.update(node.inputs)
    return live


def _slim(node: Node, live: set[Value], builder: Builder, mapping: dict[Value, Value]) -> dict[Value, Value] | None:
    """The live outputs of `node` built again without its dead parts; None where it has none."""
    inputs = [mapping.get(v, v) for v in node.inputs]
    return (_slim_loop if node.op.name == "Loop" else _slim_cond)(node, inputs, live, builder)


def _used(body: Function) -> set[Value]:
    return {v for node in body.nodes for v in node.inputs} | set(body.fetches)


def _slim_loop(node: Node, inputs: Sequence[Value], live: set[Value], builder: Builder) -> dict[Value, Value] | None:
    attrs, body = node.attrs, node.attrs["body"]
    carried, xs, captures, ys = loop_parts(attrs)
    first = 1 if attrs.get("while") else 0
    rows = [i for i in range(ys) if node.outputs[carried + i] in live]
    fetches = body.fetches[:first + carried] + tuple(body.fetches[first + carried + i] for i in rows)
    used = _used(remove_dead_code(body.replace(fetches=fetches, fetch_names=())))
    condition = attrs.get("cond")
    used_first = _used(condition) if condition is not None else set()
    stacked = [i for i in range(xs) if body.feeds[1 + carried + i] in used]
    held = [i for i in range(captures) if body.feeds[1 + carried + xs + i] in used or (
        condition is not None and condition.feeds[carried + i] in used_first)]
    if (len(rows), len(stacked), len(held)) == (ys, xs, captures):
        return None
    changes: dict[str, object] = {"xs": len(stacked), "ys": len(rows), "captures": len(held)}
    if rows and attrs.get("length") is None:
        changes["length"] = infer.loop_length([v.type for v in node.inputs], attrs)
    feeds = body.feeds
    changes["body"] = body.replace(
        feeds=feeds[:1 + carried] + tuple(feeds[1 + carried + i] for i in stacked) + tuple(
            feeds[1 + carried + xs + i] for i in held),
        fetches=fetches, feed_names=(), fetch_names=())
    if condition is not None:
        given = condition.feeds
        changes["cond"] = condition.replace(
            feeds=given[:carried] + tuple(given[carried + i] for i in held), feed_names=())
    kept = [*inputs[:1 + carried], *(inputs[1 + carried + i] for i in stacked),
            *(inputs[1 + carried + xs + i] for i in held)]
    changes["body"] = remove_dead_code(changes["body"])  # type: ignore[arg-type]
    again = builder.add(node.op, kept, {**attrs, **changes}, node.origin)
    old = [*node.outputs[:carried], *(node.outputs[carried + i] for i in rows), node.outputs[-1]]
    return dict(zip(old, again.outputs, strict=True))


def _slim_cond(node: Node, inputs: Sequence[Value], live: set[Value], builder: Builder) -> dict[Value, Value] | None:
    rows = [i for i, v in enumerate(node.outputs) if v in live]
    bodies = {}
    for name, body in node.bodies():
        fetches = tuple(body.fetches[i] for i in rows)
        bodies[name] = remove_dead_code(body.replace(fetches=fetches, fetch_names=(), feed_names=()))
    used = [_used(body) for body in bodies.values()]
    held = [i for i in range(len(inputs) - 1)
            if any(body.feeds[i] in u for body, u in zip(bodies.values(), used, strict=True))]
    if len(rows) == len(node.outputs) and len(held) == len(inputs) - 1:
        return None
    slim = {name: body.replace(feeds=tuple(body.feeds[i] for i in held)) for name, body in bodies.items()}
    again = builder.add(node.op, [inputs[0], *(inputs[1 + i] for i in held)], {**node.attrs, **slim}, node.origin)
    return dict(zip((node.outputs[i] for i in rows), again.outputs, strict=True))
