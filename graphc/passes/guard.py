"""Guards against NaN and infinities: every computed float is checked where it is computed.

Owns `guard_numerics`, the pass that Options.check_numerics asks for.  Knows the IR and the op CheckNumerics; knows no
kernels.  Law: exact where every value is finite; elsewhere the run fails.  It runs after the simplifications, which so
stay what they are, and before fusion, which makes the checks part of the kernels: values that never reach memory, and
values that a `where` discards, are checked too.
"""
from __future__ import annotations

from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, lookup
from graphc.passes.bodies import everywhere

MESSAGE = "check_numerics"
"""The message of the checks that this pass adds; the site's text starts with it."""

_KINDS = frozenset((Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CONTRACTION, Kind.INDEXING, Kind.LIBRARY))
"""What can make a NaN or an infinity.  Movement, constants and random numbers cannot; bodies are guarded inside."""


@everywhere
def guard_numerics(function: Function) -> Function:
    """Return `function` with every float that a node computes passed through a check of its own."""
    check = lookup("CheckNumerics")

    def guarded(value: Value, node: Node, builder: Builder) -> Value:
        if not isinstance(value.type, TensorType) or not value.type.dtype.is_floating:
            return value
        return builder.add(check, (value,), {"message": MESSAGE}, node.origin).output

    def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> tuple[Value, ...] | None:
        if node.op.kind not in _KINDS or node.op is check:
            return None
        made = builder.copy(node, inputs)
        return tuple(guarded(v, node, builder) for v in made.outputs)

    return rewrite(function, Builder(infer.types), rule)
