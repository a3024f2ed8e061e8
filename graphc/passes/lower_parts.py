"""Long sums of products in parts: one kernel adds each part, another one the parts.

Owns that splitting of a Contract whose output is small and whose depth is long, as a filter's gradient is: all images
of a batch meet in each of its elements, and threads share the images, not the elements.  Where no axes make windows,
the product is one of matrices, whose depth is not cut.  Knows kernel IR; must not know which op it came from.
Invariants: the number of parts is a function of the sizes alone; parts are added in order.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Const, Contract, Expr, For, Load, Param, Reduce, Site, Store, Var, size
from graphc.kernel.primitives import prim
from graphc.passes.access import estimate
from graphc.passes.lower_map import extent
from graphc.passes.tidy import Piece, finish

PARTS = 16  # at most: eight threads share them evenly
ROOM = 1 << 20  # elements of all partial results: they pass through the caches once more
LONG = 4096  # terms of a sum that is worth splitting


def in_parts(name: str, params: Sequence[Param], statements: walk.Block, sites: Sequence[Site],
             provenance: Sequence[str]) -> list[Piece] | None:
    """Return the two kernels of a Contract and the Lets before it, split along its outermost summed axis; None where
    that does not pay."""
    *lets, contract = statements
    if not isinstance(contract, Contract) or walk.free_vars(contract.a, contract.b) or len(contract.k) < 2:
        return None
    (axis, total), *rest = [(axis, _size(n)) for axis, n in contract.k]
    kept = (*contract.batch, *contract.m, *contract.n)
    results = estimate(dim.product(_size(n) for _, n in kept))
    most = min(PARTS, ROOM // max(1, results))
    terms = estimate(total * dim.product(n for _, n in rest))
    if most < 2 or terms < LONG or total == 1 or not _splits(contract, axis):
        return None
    length = dim.maximum(1, dim.ceildiv(total, most))
    parts = dim.ceildiv(total, length)
    at = prim("add", prim("mul", Axis("part"), size(length)), Axis(axis))
    bound = None if dim.divide_exactly(total, length) is not None else prim("lt", at, size(total))
    a, b = (walk.map_expr(walk.substitute(e, {axis: at}), lambda x: _within(x, axis, bound))
            for e in (contract.a, contract.b))
    dtype = contract.acc_dtype
    place = tuple(Axis(name) for name, _ in kept)
    partial = Param("z0", dtype, (parts, *(_size(n) for _, n in kept)), "out")
    first = replace(
        contract, batch=(("part", extent(parts)), *contract.batch), k=((axis, extent(length)), *contract.k[1:]),
        a=a, b=b, body=(Store("z0", (Axis("part"), *place), Var(contract.acc, dtype)),))
    loaded = {e.buffer for e in walk.loads((first,))}
    pieces = [Piece(*finish(f"{name}_parts", [*(p for p in params if p.name in loaded), partial], (first,), sites,
                            provenance), (partial,))]
    added = Reduce((contract.acc,), ("sum",), "part", extent(parts), (), (Load("z0", (Axis("part"), *place), dtype),))
    body: walk.Block = (added, *contract.body)
    for axis_name, n in reversed(kept):
        body = (For(axis_name, n, body, parallel=True),)
    body = (*lets, *body)
    used = {e.buffer for e in walk.loads(body)}
    last = [p for p in params if p.role != "in" or p.name in used] + [replace(partial, role="in")]
    pieces.append(Piece(*finish(f"{name}_of_parts", last, body, sites, provenance)))
    return pieces


def _splits(contract: Contract, axis: str) -> bool:
    """Whether `axis` is an index by itself wherever it occurs, others making windows."""
    found = [i for e in walk.postorder((contract.a, contract.b)) if isinstance(e, Load) for i in e.index]
    m, k = ({name for name, n in axes if _size(n) != 1} for axes in (contract.m, contract.k))
    return all(isinstance(i, Axis) for i in found if axis in walk.free_axes(i)) \
        and any(m & walk.free_axes(i) and k & walk.free_axes(i) for i in found)


def _size(n: Expr) -> Size:
    found = walk.as_size(n)
    assert found is not None
    return found


def _within(e: Expr, axis: str, bound: Expr | None) -> Expr:
    """Return a load along `axis` guarded by `bound`: beyond it, it is zero."""
    if bound is None or not isinstance(e, Load) or axis not in walk.free_axes(*e.index):
        return e
    if e.predicate is None:
        return replace(e, predicate=bound, other=Const(0.0 if e.dtype.is_floating else 0, e.dtype))
    return replace(e, predicate=prim("and", e.predicate, bound))
