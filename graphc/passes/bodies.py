"""Passes on bodies: what is done to a function is done to the functions inside it first.

Owns `everywhere`.  Knows the IR; knows no pass.  Invariant: a body that a pass leaves alone stays the same object, and
a body that several nodes share is rewritten once and stays shared.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeAlias, cast

from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value, rewrite

P = ParamSpec("P")


Step: TypeAlias = Callable[Concatenate[Function, P], Function]


def everywhere(step: Step[P]) -> Step[P]:
    """Return `step` applied to every body, innermost first, and then to the function."""
    @functools.wraps(step)
    def applied(function: Function, *args: P.args, **kwargs: P.kwargs) -> Function:
        return map_functions(function, lambda f: step(f, *args, **kwargs))
    return cast(Step[P], applied)


def map_functions(function: Function, step: Callable[[Function], Function]) -> Function:
    """Return `function` with `step` applied to it and every body in it, innermost first."""
    done: dict[int, Function] = {}
    stack = [(function, False)]
    while stack:
        f, ready = stack.pop()
        if id(f) in done:
            continue
        bodies = [body for node in f.nodes for _, body in node.bodies()]
        if bodies and not ready:
            stack.append((f, True))
            stack.extend((body, False) for body in reversed(bodies))
            continue
        done[id(f)] = step(with_bodies(f, done) if bodies else f)
    return done[id(function)]


def with_bodies(function: Function, bodies: dict[int, Function]) -> Function:
    """Return `function` with each body replaced by the one that `bodies` has for its id."""
    def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> tuple[Value, ...] | None:
        changes = {name: bodies[id(body)] for name, body in node.bodies() if bodies[id(body)] is not body}
        if not changes:
            return None
        return builder.add(node.op, inputs, {**node.attrs, **changes}, node.origin).outputs
    return rewrite(function, Builder(infer.types), rule)
