"""Lowering of map groups: parallel loops over the domain, every output stored at its element.

Owns that form.  Must not know reductions or products.  Invariant: one iteration stores one element of each output.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import Size
from graphc.ir.function import Value
from graphc.kernel.ir import Expr, For, Param, Stmt, Store, size
from graphc.passes.emit import Emission
from graphc.passes.flatten import flatten
from graphc.passes.share import share
from graphc.passes.tidy import Draft, Piece, collapse, finish


def lower_map(name: str, emission: Emission, outputs: Sequence[Value], provenance: Sequence[str]) -> list[Piece]:
    """Return the kernel of a map group.  Its parameters are the emission's, then one per output."""
    values = [emission.at(v) for v in outputs]
    out = output_params(outputs)
    params = [*emission.params.values(), *out]
    draft = Draft(list(emission.axes), [], {p.name: p.shape for p in params})
    stores = [(p.name, emission.place(v)) for p, v in zip(out, outputs, strict=True)]
    rewrite = collapse(draft, values, stores)
    body: tuple[Stmt, ...] = tuple(
        Store(p.name, rewrite.index_of(p.name, at), rewrite(value))
        for p, (_, at), value in zip(out, stores, values, strict=True))
    shaped = [Param(p.name, p.dtype, draft.shapes[p.name], p.role) for p in params]
    shaped, body = flatten(shaped, nest(draft.kept, body))
    body = share(body, emission.fresh)
    flat = len(draft.kept) == 1 and all(p.shape in ((), (draft.kept[0][1],)) for p in shaped)
    return [Piece(*finish(name, shaped, body, emission.sites, provenance, flat))]


def output_params(outputs: Sequence[Value]) -> list[Param]:
    """Return a parameter per output."""
    return [Param(f"y{i}", v.tensor.dtype, v.tensor.shape, "out") for i, v in enumerate(outputs)]


def nest(axes: Sequence[tuple[str, Size]], body: tuple[Stmt, ...], parallel: bool = True) -> tuple[Stmt, ...]:
    """Return `body` under loops over `axes`, the first outermost."""
    for axis, n in reversed(axes):
        body = (For(axis, extent(n), body, parallel),)
    return body


def extent(n: Size) -> Expr:
    """Return a loop's extent."""
    return size(n)
