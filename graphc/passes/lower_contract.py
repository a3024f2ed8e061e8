"""Lowering of products: one Contract and an epilogue over its output elements.

Owns that form.  Must not know other forms.  Invariant: factors are loads (through permutations and casts); everything
else of the group is computed from the sum, once per element.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.ir.function import Node, Value
from graphc.kernel.ir import Contract, Expr, Param, Stmt, Store, Var
from graphc.kernel.primitives import cast
from graphc.ops.base import Contracting
from graphc.passes.access import Product, product_of
from graphc.passes.emit import Emission, factors
from graphc.passes.flatten import flatten
from graphc.passes.lower_map import extent, output_params
from graphc.passes.share import share
from graphc.passes.tidy import Draft, Piece, collapse, finish


def lower_contract(name: str, emission: Emission, outputs: Sequence[Value], provenance: Sequence[str]) -> list[Piece]:
    """Return the kernel of a contract group.  Its parameters are the emission's, then one per output."""
    node = _contraction(emission)
    a, b = factors(emission, node)
    acc = Var("acc", a.dtype)
    emission.bound[node.output] = (emission.place(node.output), cast(acc, node.output.tensor.dtype))
    values = [emission.at(v) for v in outputs]
    out = output_params(outputs)
    params = [*emission.params.values(), *out]
    draft = Draft([], [], {p.name: p.shape for p in params})
    stores = [(p.name, emission.place(v)) for p, v in zip(out, outputs, strict=True)]
    rewrite = collapse(draft, [a, b, *values], stores)
    body: tuple[Stmt, ...] = tuple(
        Store(p.name, rewrite.index_of(p.name, at), rewrite(value))
        for p, (_, at), value in zip(out, stores, values, strict=True))
    product = product_of(node)
    axes = _axes(emission, node, product)
    batch, m, n, k = (tuple(axes[c] for c in product.letters(group)) for group in ("batch", "m", "n", "k"))
    contract = Contract(batch, m, n, k, rewrite(a), rewrite(b), acc.name, acc.dtype, body)
    shaped = [Param(p.name, p.dtype, draft.shapes[p.name], p.role) for p in params]
    shaped, statements = flatten(shaped, (contract,))
    return [Piece(*finish(name, shaped, share(statements, emission.fresh), emission.sites, provenance))]


def _contraction(emission: Emission) -> Node:
    found = [n for n in emission.body.nodes if isinstance(n.op.lower, Contracting)]
    if len(found) != 1:
        raise InternalError(f"a product's kernel has {len(found)} products")
    return found[0]


def _axes(emission: Emission, node: Node, product: Product) -> dict[str, tuple[str, Expr]]:
    """The axis (name, extent) of each letter."""
    found: dict[str, tuple[str, Expr]] = {}
    for letters, labels in zip((product.a, product.b), emission.input_labels[node], strict=True):
        for c, label in zip(letters, labels or (), strict=True):
            if label >= 0:
                name, n = emission.axes[label]
                found[c] = (name, extent(n))
    return found
