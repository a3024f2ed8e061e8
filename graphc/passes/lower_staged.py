"""Lowering of staged ops: a hand-written kernel whose result goes on through the epilogue of its group.

Owns the `Stages` that such a kernel is written against.  Must not know what the kernel computes.  Invariant: the
epilogue stands once per element that the kernel hands over; what its elements share is computed once for all of them.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.function import Node, Value
from graphc.ir.types import TensorType
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Const, Expr, Let, Load, SizeOf, Stmt, Store, Var
from graphc.ops.base import Staged
from graphc.passes.emit import Emission, zero
from graphc.passes.lower_map import output_params
from graphc.passes.share import share
from graphc.passes.tidy import Piece, finish

RESULT = "result"  # stands for the element of the op in the epilogue


def lower_staged(name: str, emission: Emission, outputs: Sequence[Value], provenance: Sequence[str]) -> list[Piece]:
    """Return the kernel of a group around one staged op.  Its parameters are the emission's, then one per output."""
    (node,) = (n for n in emission.body.nodes if isinstance(n.op.lower, Staged))
    lower = node.op.lower
    assert isinstance(lower, Staged)
    body = lower.body(GroupStages(emission, node, outputs))
    params = [*emission.params.values(), *output_params(outputs)]
    return [Piece(*finish(name, params, body, emission.sites, provenance))]


class GroupStages:
    """The `Stages` of one staged op in its group."""

    def __init__(self, emission: Emission, node: Node, outputs: Sequence[Value]) -> None:
        self.attrs = node.attrs
        self.in_types: Sequence[TensorType] = [v.tensor for v in node.inputs]
        self.out_types: Sequence[TensorType] = [v.tensor for v in node.outputs]
        self.fresh = emission.fresh
        self._emission = emission
        self._inputs = node.inputs
        place = emission.place(node.output)
        self._axes = [e.name if isinstance(e, Axis) else None for e in place]
        emission.bound[node.output] = place, Var(RESULT, node.output.tensor.dtype)
        self._stores = [(p.name, emission.place(v), emission.at(v))
                        for p, v in zip(output_params(outputs), outputs, strict=True)]

    def load(self, i: int, index: Sequence[Expr], predicate: Expr | None = None) -> Expr:
        value = self._inputs[i]
        if predicate is None:
            return self._emission.element(value, index)
        return self._emission.conditional(value, index, predicate, zero(value.tensor.dtype), None)

    def finish(self, points: Sequence[tuple[Sequence[Expr], Expr]]) -> tuple[tuple[Stmt, ...], list[tuple[Stmt, ...]]]:
        first = points[0][0]
        fixed = {name: e for d, (name, e) in enumerate(zip(self._axes, first, strict=True))
                 if name is not None and all(at[d] == e for at, _ in points)}
        moving = {name for name in self._axes if name is not None and name not in fixed}
        stores = [(buffer, tuple(walk.substitute(e, fixed) for e in at), walk.substitute(value, fixed))
                  for buffer, at, value in self._stores]
        lets: list[Stmt] = []
        shared = _invariants([value for _, _, value in stores], moving | {RESULT}, self.fresh, lets)
        each = []
        for at, result in points:
            axes = {name: e for name, e in zip(self._axes, at, strict=True) if name in moving}
            statements = tuple(
                Store(buffer, tuple(walk.substitute(e, axes) for e in index),
                      walk.substitute(shared(value), axes, {RESULT: result})) for buffer, index, value in stores)
            each.append(share(statements, self.fresh, _free(statements)) if len(statements) > 1 else statements)
        return tuple(lets), each


def _invariants(roots: Sequence[Expr], moving: set[str], fresh: Callable[[str], str],
                lets: list[Stmt]) -> Callable[[Expr], Expr]:
    """Name the largest parts of `roots` that load something and depend on no name of `moving`, in `lets`; return the
    function that puts the names in their places."""
    varies: dict[int, bool] = {}
    loads: dict[int, bool] = {}
    for e in walk.postorder(roots):
        below = walk.children(e)
        own = isinstance(e, Axis | Var) and e.name in moving
        varies[id(e)] = own or any(varies[id(c)] for c in below)
        loads[id(e)] = isinstance(e, Load) or any(loads[id(c)] for c in below)
    named: dict[int, Expr] = {}
    inner = {id(c) for e in walk.postorder(roots) if varies[id(e)] for c in walk.children(e)}
    inner |= {id(e) for e in roots}
    for e in walk.postorder(roots):
        if id(e) in inner and loads[id(e)] and not varies[id(e)] and not isinstance(e, Const | SizeOf):
            let = Let(fresh("w"), e)
            lets.append(let)
            named[id(e)] = Var(let.name, e.dtype)

    def replaced(root: Expr) -> Expr:
        done: dict[int, Expr] = {}
        for e in walk.postorder((root,)):
            done[id(e)] = named[id(e)] if id(e) in named else walk.with_children(
                e, tuple(done[id(c)] for c in walk.children(e)))
        return done[id(root)]

    return replaced


def _free(body: tuple[Stmt, ...]) -> frozenset[str]:
    return frozenset(e.name for e in walk.all_expressions(body) if isinstance(e, Axis | Var))
