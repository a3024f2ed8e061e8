"""The verifier: whether a Function keeps the rules of the IR.

Owns the rules (function.py states them).  Knows ops through their inference; changes nothing.
Invariant: a function that passes can be evaluated, printed and lowered; the error names function, node and rule.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.errors import GraphcError, VerifyError
from graphc.ir.dim import Dim, Size, symbols_of
from graphc.ir.function import Condition, Function, Node
from graphc.ir.infer import Unifier, types
from graphc.ir.text import BETWEEN
from graphc.ir.types import HostType, TensorType, Type
from graphc.ops.base import Kind, all_ops

NO_SYMBOLS: frozenset[str] = frozenset()


def verify(function: Function, inferred: set[Node] | None = None) -> Function:
    """Return `function` if it and its bodies are well formed, else raise VerifyError.

    inferred: nodes whose attrs and types were found right before, and need not be inferred again (nodes never change);
    receives those of this function.
    """
    known_nodes = set() if inferred is None else inferred
    equalities = _Equalities(function.conditions)
    checked: set[int] = set()
    stack: list[tuple[Function, frozenset[str], bool]] = [(function, NO_SYMBOLS, True)]
    while stack:
        f, outer, outermost = stack.pop()
        if id(f) in checked:
            continue
        checked.add(id(f))
        known = outer | _signature(f, outermost)
        _verify_nodes(f, known, equalities, known_nodes)
        _verify_results(f, equalities)
        stack.extend((body, known, False) for node in f.nodes for _, body in node.bodies())
    return function


class _Equalities:
    """Which sizes the conditions of a function make equal."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = conditions
        self._unifier: Unifier | None = None

    def hold(self, a: Type, b: Type) -> bool:
        """Whether two types are the same under the conditions."""
        if a == b:
            return True
        if not (isinstance(a, TensorType) and isinstance(b, TensorType)) or a.dtype is not b.dtype or a.rank != b.rank:
            return False
        return all(self._equal(x, y) for x, y in zip(a.shape, b.shape, strict=True))

    def _equal(self, a: Size, b: Size) -> bool:
        if a == b:
            return True
        if self._unifier is None:
            self._unifier = Unifier()
            for c in self._conditions:
                if c.kind in ("equal", "assume"):
                    self._unifier.meet("equal", c.left, c.right, c.message, c.op)
        before = len(self._unifier.conditions)
        met = self._unifier.meet("equal", a, b, "", "")
        stated_already = len(self._unifier.conditions) == before
        if not stated_already:  # a new equality is no consequence; forget what it taught
            self._unifier = None
        return met is not None and stated_already


def _fail(f: Function, message: str) -> VerifyError:
    return VerifyError(f"function @{f.name}: {message}")


def _signature(f: Function, outermost: bool) -> frozenset[str]:
    """Check inputs, names, sources and conditions; the symbols that inputs and sources bind."""
    if len(set(f.inputs)) != len(f.inputs):
        raise _fail(f, "an input stands twice in the signature")
    for v in f.inputs:
        if v.producer is not None:
            raise _fail(f, "an input is the output of a node")
    for what, names, values in (("feed", f.feed_names, f.feeds), ("state", f.state_names, f.states),
                                ("fetch", f.fetch_names, f.fetches)):
        if names and len(names) != len(values):
            raise _fail(f, f"{len(values)} {what} values have {len(names)} names")
        if what != "fetch" and len(set(names)) != len(names):
            raise _fail(f, f"two {what} values have the same name")
    if len(f.updates) != len(f.states):
        raise _fail(f, f"{len(f.states)} states have {len(f.updates)} updates")
    if not outermost and (f.states or f.sources or f.conditions):
        raise _fail(f, "a body has feeds and fetches alone")
    bound = set()
    for s in f.sources:
        if not 0 <= s.feed < len(f.feeds):
            raise _fail(f, f"the source of {s.symbol} is feed {s.feed} of {len(f.feeds)}")
        t = f.feeds[s.feed].type
        if not isinstance(t, TensorType) or s.axis >= t.rank or (
                s.axis < 0 and (s.element < 0 or not t.dtype.is_integer)):
            raise _fail(f, f"the source of {s.symbol} does not fit feed {s.feed} of type {t}")
        bound.add(s.symbol)
    for v in f.inputs:
        if isinstance(v.type, TensorType):
            bound |= {n.name for n in v.type.shape if isinstance(n, Dim) and n.is_symbol}
    for c in f.conditions:
        if c.kind not in BETWEEN:
            raise _fail(f, f"unknown kind of condition {c.kind!r}")
        if not symbols_of((c.left, c.right)) <= bound:
            raise _fail(f, f"a condition of {c.op} speaks of an unbound size")
    return frozenset(bound)


def _verify_nodes(f: Function, known: frozenset[str], equalities: _Equalities, inferred: set[Node]) -> None:
    registry = all_ops()
    defined = set(f.inputs)
    for number, node in enumerate(f.nodes):
        for i, v in enumerate(node.inputs):
            if v not in defined:
                raise _fail_at(f, number, f"input {i} is used before it is defined")
        for v in node.outputs:
            if v in defined:
                raise _fail_at(f, number, "this node stands twice in the function")
            defined.add(v)
        if node in inferred:
            continue
        if registry.get(node.op.name) is not node.op:
            raise _fail_at(f, number, "this op is not in the registry")
        _verify_node(f, number, equalities)
        for i, v in enumerate(node.outputs):
            if isinstance(v.type, TensorType) and not (symbols := symbols_of(v.type.shape)) <= known:
                unbound = ", ".join(sorted(symbols - known))
                raise _fail_at(f, number, f"the size {unbound} of output {i} is bound nowhere")
        inferred.add(node)


def _fail_at(f: Function, number: int, message: str) -> VerifyError:
    node = f.nodes[number]
    made = f" from {node.origin[0]!r}" if node.origin else ""
    return _fail(f, f"node {number}, {node.op.name}{made}: {message}")


def _verify_node(f: Function, number: int, equalities: _Equalities) -> None:
    """Check attrs and types of one node."""
    node = f.nodes[number]
    for name, value in node.attrs.items():
        if not _plain(value) and not (node.op.kind is Kind.HOST and callable(value)):
            raise _fail_at(f, number, f"attr {name!r} of type {type(value).__name__} is not plain data")
    try:
        found = types(node.op, node.inputs, node.attrs)
    except GraphcError as error:
        raise _fail_at(f, number, str(error)) from error
    if len(found) != len(node.outputs):
        raise _fail_at(f, number, f"{len(found)} outputs are inferred, {len(node.outputs)} are there")
    for i, (v, t) in enumerate(zip(node.outputs, found, strict=True)):
        if v.producer is not node or v.index != i:
            raise _fail_at(f, number, f"output {i} does not know its node")
        if not equalities.hold(v.type, t):
            raise _fail_at(f, number, f"output {i} has the type {v.type}, inference gives {t}")


def _verify_results(f: Function, equalities: _Equalities) -> None:
    defined = set(f.inputs)
    for node in f.nodes:
        defined.update(node.outputs)
    for i, v in enumerate(f.fetches):
        if v not in defined:
            raise _fail(f, f"fetch {i} is not defined in the function")
    for i, (state, v) in enumerate(zip(f.states, f.updates, strict=True)):
        if v not in defined:
            raise _fail(f, f"update {i} is not defined in the function")
        if not equalities.hold(state.type, v.type):
            raise _fail(f, f"state {i} of type {state.type} is updated with {v.type}")


def _plain(value: Any) -> bool:
    """Whether an attr is plain data that the text can say."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, (bool, int, float, str, DType, Dim, Function, TensorType, HostType))

