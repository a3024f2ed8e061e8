"""Lowering of products: one Contract and an epilogue over its output elements.

Owns that form.  Must not know other forms.  Invariants: factors are loads (through permutations and casts; those of a
convolution at computed positions, zero outside of the operand); everything else of the group is computed from the sum,
once per element.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from graphc.errors import InternalError
from graphc.ir.dim import ceildiv, divide_exactly
from graphc.ir.function import Node, Value
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Contract, Expr, If, Param, Stmt, Store, Var, size
from graphc.kernel.primitives import cast, prim
from graphc.ops.base import Contracting, Convolving
from graphc.passes.access import product_of, windows_of
from graphc.passes.emit import Emission, factors, window_axes, window_factors
from graphc.passes.flatten import flatten
from graphc.passes.indices import add, scale
from graphc.passes.lower_map import extent, output_params
from graphc.passes.lower_parts import in_parts
from graphc.passes.share import share
from graphc.passes.tidy import Draft, Piece, collapse, finish

Loops: TypeAlias = tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class Nest:
    """A product: its loops and its factors.  parts: what an axis of the domain is where it is no loop itself but two;
    inside: where these are indices of the output (None: everywhere)."""

    batch: Loops
    m: Loops
    n: Loops
    k: Loops
    a: Expr
    b: Expr
    parts: dict[str, Expr] = field(default_factory=dict)
    inside: Expr | None = None


def lower_contract(name: str, emission: Emission, outputs: Sequence[Value], provenance: Sequence[str]) -> list[Piece]:
    """Return the kernel of a contract group.  Its parameters are the emission's, then one per output."""
    node = _contraction(emission)
    nest = _convolution(emission, node) if isinstance(node.op.lower, Convolving) else _product(emission, node)
    acc = Var("acc", nest.a.dtype)
    emission.bound[node.output] = (emission.place(node.output), cast(acc, node.output.tensor.dtype))
    values = [emission.at(v) for v in outputs]
    out = output_params(outputs)
    params = [*emission.params.values(), *out]
    draft = Draft([], [], {p.name: p.shape for p in params})
    stores = [(p.name, emission.place(v)) for p, v in zip(out, outputs, strict=True)]
    rewrite = collapse(draft, [nest.a, nest.b, *values], stores)
    body: tuple[Stmt, ...] = tuple(
        Store(p.name, rewrite.index_of(p.name, at), rewrite(value))
        for p, (_, at), value in zip(out, stores, values, strict=True))
    summed = {axis for axis, _ in nest.k}
    domain = tuple((axis, extent(n)) for axis, n in emission.axes if axis not in summed)
    whole = Contract((), (), domain, nest.k, rewrite(nest.a), rewrite(nest.b), acc.name, acc.dtype, body)
    shaped, statements = flatten([Param(p.name, p.dtype, draft.shapes[p.name], p.role) for p in params], (whole,))
    statements = tuple(_in_loops(s, nest) if isinstance(s, Contract) else s for s in share(statements, emission.fresh))
    if isinstance(node.op.lower, Convolving):
        parts = in_parts(name, shaped, statements, emission.sites, provenance)
        if parts is not None:
            return parts
    return [Piece(*finish(name, shaped, statements, emission.sites, provenance))]


def _contraction(emission: Emission) -> Node:
    found = [n for n in emission.body.nodes if isinstance(n.op.lower, Contracting | Convolving)]
    if len(found) != 1:
        raise InternalError(f"a product's kernel has {len(found)} products")
    return found[0]


def _in_loops(contract: Contract, nest: Nest) -> Contract:
    """A product over the axes of its domain as one over the loops of `nest`."""
    body = walk.substitute_body(contract.body, nest.parts) if nest.parts else contract.body
    if nest.inside is not None:
        body = (If(nest.inside, body),)
    return replace(contract, batch=nest.batch, m=nest.m, n=nest.n, body=body)


def _product(emission: Emission, node: Node) -> Nest:
    """The loops over the letters of a product."""
    product = product_of(node)
    found: dict[str, tuple[str, Expr]] = {}
    for letters, labels in zip((product.a, product.b), emission.input_labels[node], strict=True):
        for c, label in zip(letters, labels or (), strict=True):
            if label >= 0:
                name, length = emission.axes[label]
                found[c] = (name, extent(length))
    batch, m, n, k = (tuple(found[c] for c in product.letters(group)) for group in ("batch", "m", "n", "k"))
    return Nest(batch, m, n, k, *factors(emission, node))


def _convolution(emission: Emission, node: Node) -> Nest:
    """The loops of a convolution: over its axes, a split one being two.  A loop over phases, or one that both factors
    know, is one of the batch; one that the second alone knows is over columns, every other one over rows."""
    windows = windows_of(node)
    axes = window_axes(emission, node, windows)
    kept: list[tuple[str, Expr]] = []
    phases: set[str] = set()
    parts: dict[str, Expr] = {}
    inside: Expr | None = None
    for number, axis in enumerate(a for a in windows.out if a):
        whole = axes[axis]
        assert isinstance(whole, Axis)
        total = windows.sizes[axis]
        split = windows.splits.get(axis)
        if split is None:
            kept.append((whole.name, extent(total)))
            continue
        outer, inner = f"q{number}", f"p{number}"
        kept += [(outer, extent(ceildiv(total, split.count))), (inner, extent(split.count))]
        axes |= {split.outer: Axis(outer), split.inner: Axis(inner)}
        phases |= {inner} if split.phased else set()
        parts[whole.name] = add(scale(Axis(outer), split.count), Axis(inner))
        if divide_exactly(total, split.count) is None:
            ok = prim("lt", parts[whole.name], size(total))
            inside = ok if inside is None else prim("and", inside, ok)
    a, b = window_factors(emission, node, windows, axes)
    in_a, in_b = walk.free_axes(a), walk.free_axes(b)
    batch = phases | (in_a & in_b)
    summed = tuple((e.name, extent(windows.sizes[s])) for s in windows.summed if isinstance(e := axes[s], Axis))
    return Nest(tuple(x for x in kept if x[0] in batch), tuple(x for x in kept if x[0] not in batch | in_b),
                tuple(x for x in kept if x[0] in in_b - batch), summed, a, b, parts, inside)
