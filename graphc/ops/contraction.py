"""Sums of products: MatMul, BatchMatMulV2, Einsum.

Owns them and the reading of einsum equations.  Must not know tiles or machines.  Invariant: what lowers is one pair of
operands whose every letter stands in the result or in both; everything else decomposes into that.
"""
from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import float32, float64, int32
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Contracting,
    Decomposition,
    Inference,
    Kind,
    Op,
    Sample,
    register,
)
from graphc.ops.rules import FLOATS, check_same_dtype, require_rank, show, typed

_DTYPES = (*FLOATS, dtypes.int32, dtypes.int64)
_NUMERIC = (float32, float64, int32, dtypes.bfloat16)


def _flops(in_types: Sequence[TensorType], out_types: Sequence[TensorType], attrs: Mapping[str, Any]) -> Size:
    """Two for each multiply-add: the result's elements times the length of the sum."""
    a = in_types[0].shape
    inner = a[-2] if attrs.get("transpose_a") or attrs.get("adj_x") else a[-1]
    return out_types[0].elements * inner * 2


# -- two matrices -----------------------------------------------------------------------------------------------------


def _inner(ctx: Inference, a: Shape, b_: Shape, ta: bool, tb: bool) -> tuple[Size, Size]:
    """Check the inner sizes of the last two axes; the outer ones."""
    m, k = (a[-1], a[-2]) if ta else (a[-2], a[-1])
    l, n = (b_[-1], b_[-2]) if tb else (b_[-2], b_[-1])  # noqa: E741
    message = f"inner sizes differ, {show(a)}{'^T' if ta else ''} @ {show(b_)}{'^T' if tb else ''}: {k} != {l}"
    if isinstance(k, int) and isinstance(l, int) and k != l:
        raise ctx.fail(message, _advice(k, l, m, n, tb, b_))
    ctx.equal(k, l, message)
    return m, n


def _advice(k: int, l: int, m: Size, n: Size, tb: bool, b_: Shape) -> str:  # noqa: E741
    """What would make m x k @ l x n fit."""
    flag = "transpose_b=False" if tb else "transpose_b=True"
    shape = (*b_[:-2], n, k) if tb else (*b_[:-2], k, n)
    if n == k:
        return f"pass {flag}, or give the second matrix the shape {show(shape)}"
    if m == l:
        return f"transpose the first matrix, or give the second one the shape {show(shape)}"
    return f"give the second matrix the shape {show(shape)}"


def _matmul_infer(ctx: Inference) -> Sequence[PartialType]:
    x, y = ctx.inputs
    dtype = check_same_dtype(ctx, (x, y), _DTYPES)
    for t, name in ((x, "a"), (y, "b")):
        require_rank(ctx, t.shape, 2, name, 2)
    ta, tb = ctx.attrs["transpose_a"], ctx.attrs["transpose_b"]
    if x.shape is None or y.shape is None:
        rows = ctx.unknown() if x.shape is None else x.shape[1 if ta else 0]
        columns = ctx.unknown() if y.shape is None else y.shape[0 if tb else 1]
        return [PartialType(dtype, (rows, columns))]
    return [PartialType(dtype, _inner(ctx, x.shape, y.shape, ta, tb))]


def _turned(x: np.ndarray, turn: bool) -> np.ndarray:
    return np.swapaxes(x, -1, -2) if turn else x


def _matmul_reference(call: Call) -> Any:
    x, y = call.arrays
    return np.matmul(_turned(x, call.attrs["transpose_a"]), _turned(y, call.attrs["transpose_b"]))


def product_gradient(product: Any, x: Any, y: Any, ta: bool, tb: bool, dz: Any) -> tuple[Any, Any]:
    """Gradients of op(x) @ op(y) by the four cases of transposition.  product(a, b, ta, tb) -> a @ b."""
    match bool(ta), bool(tb):
        case False, False:
            return product(dz, y, False, True), product(x, dz, True, False)
        case False, True:
            return product(dz, y, False, False), product(dz, x, True, False)
        case True, False:
            return product(y, dz, False, True), product(x, dz, False, False)
        case _:
            return product(y, dz, True, True), product(dz, x, True, True)


def _matmul_gradient(op: Any, dz: Any) -> Sequence[Any]:
    x, y = op.inputs
    return product_gradient(b.matmul, x, y, op.attrs["transpose_a"], op.attrs["transpose_b"], dz)


def _matmul_spec(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> tuple[str, str, str]:
    return "km" if attrs["transpose_a"] else "mk", "nk" if attrs["transpose_b"] else "kn", "mn"


_FLAGS = ((False, False), (False, True), (True, False), (True, True))


def _matmul_samples() -> list[Sample]:
    out = []
    for d in _NUMERIC:
        for m, k, n in ((5, 7, 3), (1, 17, 1), (4, 0, 3), (33, 1, 9)):
            for ta, tb in _FLAGS:
                out.append(Sample((typed(d, *((k, m) if ta else (m, k))), typed(d, *((n, k) if tb else (k, n)))),
                                  {"transpose_a": ta, "transpose_b": tb}, special=False, differentiable=d.is_floating))
    return out


register(Op(
    name="MatMul", kind=Kind.CONTRACTION, inputs=("a", "b"), attrs={"transpose_a": False, "transpose_b": False},
    infer=_matmul_infer, gradient=_matmul_gradient, reference=_matmul_reference, lower=Contracting(_matmul_spec),
    samples=_matmul_samples, flops=_flops, doc="Product of two matrices, each transposed where asked. tf.matmul"))

# -- batches of matrices ----------------------------------------------------------------------------------------------


def _batch_infer(ctx: Inference) -> Sequence[PartialType]:
    x, y = ctx.inputs
    dtype = check_same_dtype(ctx, (x, y), _DTYPES)
    for t, name in ((x, "x"), (y, "y")):
        require_rank(ctx, t.shape, 2, name)
    if x.shape is None or y.shape is None:
        return [PartialType(dtype, None)]
    batch = ctx.broadcast(x.shape[:-2], y.shape[:-2])
    return [PartialType(dtype, batch + _inner(ctx, x.shape, y.shape, ctx.attrs["adj_x"], ctx.attrs["adj_y"]))]


def _batch_gradient(op: Any, dz: Any) -> Sequence[Any]:
    def product(x: Any, y: Any, ta: bool, tb: bool) -> Any:
        return b.op("BatchMatMulV2", x, y, adj_x=ta, adj_y=tb)

    x, y = op.inputs
    grads = product_gradient(product, x, y, op.attrs["adj_x"], op.attrs["adj_y"], dz)
    return [b.unbroadcast(g, v) for g, v in zip(grads, (x, y), strict=True)]


def _batch_spec(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> tuple[str, str, str]:
    batch = string.ascii_uppercase[:in_types[0].rank - 2]
    return (batch + ("km" if attrs["adj_x"] else "mk"), batch + ("nk" if attrs["adj_y"] else "kn"), batch + "mn")


def _batch_decompose(d: Decomposition) -> Sequence[Any] | None:
    """Where the batches differ: an Einsum without the axes along which an operand is repeated."""
    shapes = [t.shape for t in d.in_types]
    if shapes[0][:-2] == shapes[1][:-2]:
        return None
    out = d.out_types[0].shape
    letters = string.ascii_uppercase[:len(out) - 2]
    ends = ("km" if d.attrs["adj_x"] else "mk", "nk" if d.attrs["adj_y"] else "kn")
    operands, specs = [], []
    for value, shape, end in zip(d.inputs, shapes, ends, strict=True):
        own = letters[len(letters) - (len(shape) - 2):]
        full = out[len(letters) - len(own):-2]
        kept = [i for i, n in enumerate(shape[:-2]) if n == full[i]]
        repeated = len(kept) < len(own)
        operands.append(d.op("Reshape", value, shape=tuple(shape[i] for i in kept) + shape[-2:]) if repeated else value)
        specs.append("".join(own[i] for i in kept) + end)
    return [d.op("Einsum", *operands, equation=f"{specs[0]},{specs[1]}->{letters}mn")]


def _batch_reference(call: Call) -> Any:
    x, y = call.arrays
    return np.matmul(_turned(x, call.attrs["adj_x"]), _turned(y, call.attrs["adj_y"]))


def _batch_samples() -> list[Sample]:
    out = []
    for d in (float32, float64, int32):
        for left, right in (((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((3,), ()), ((0,), (0,))):
            for ta, tb in _FLAGS:
                x, y = typed(d, *left, *((7, 5) if ta else (5, 7))), typed(d, *right, *((4, 7) if tb else (7, 4)))
                out.append(Sample((x, y), {"adj_x": ta, "adj_y": tb}, special=False, differentiable=d.is_floating))
    return out


register(Op(
    name="BatchMatMulV2", kind=Kind.CONTRACTION, inputs=("x", "y"), attrs={"adj_x": False, "adj_y": False},
    infer=_batch_infer, gradient=_batch_gradient, reference=_batch_reference, lower=Contracting(_batch_spec),
    decompose=_batch_decompose, samples=_batch_samples, flops=_flops,
    doc="Products of matrices in the last two axes; the axes before broadcast. tf.matmul of rank 3 and more"))

# -- einsum -----------------------------------------------------------------------------------------------------------


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return (letters per operand, letters of the result), an ellipsis replaced by capital letters of its own.

    Without "->" the result has the letters that occur once, in order.  Raises ValueError for a bad equation.
    """
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"the equation {equation!r} names {len(terms)} operands, {len(ranks)} are given")
    used = set(text)
    spare = [c for c in string.ascii_uppercase if c not in used]
    longest = max((rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True) if "..." in t),
                  default=0)
    if longest > len(spare):
        raise ValueError(f"the equation {equation!r} leaves no letters for the axes of its ellipsis")
    dots = "".join(spare[:max(longest, 0)])
    full = []
    for term, rank in zip(terms, ranks, strict=True):
        own = rank - len(term.replace("...", ""))
        letters = term.replace("...", dots[len(dots) - own:] if own > 0 else "") if "..." in term else term
        if len(letters) != rank or own < 0:
            raise ValueError(f"{term!r} of the equation {equation!r} does not fit an operand of rank {rank}")
        if not all(c in string.ascii_letters for c in letters):
            raise ValueError(f"{term!r} of the equation {equation!r} holds something other than letters")
        if len(set(letters)) != len(letters):
            raise ValueError(f"{term!r} of the equation {equation!r} repeats a letter: take the diagonal first")
        full.append(letters)
    if arrow:
        out = right.replace("...", dots)
    else:
        every = "".join(full)
        out = dots + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in dots))
    if len(set(out)) != len(out) or not set(out) <= set("".join(full)):
        raise ValueError(f"the result {right!r} of the equation {equation!r} repeats a letter or has one of its own")
    return full, out


def _einsum_infer(ctx: Inference) -> Sequence[PartialType]:
    dtype = check_same_dtype(ctx, ctx.inputs, _DTYPES)
    shapes = [t.shape for t in ctx.inputs]
    if any(s is None for s in shapes):
        return [PartialType(dtype, None)]
    known = [s for s in shapes if s is not None]
    try:
        terms, out = parse_equation(ctx.attrs["equation"], [len(s) for s in known])
    except ValueError as error:
        raise ctx.fail(str(error)) from None
    sizes: dict[str, Size] = {}
    for term, shape in zip(terms, known, strict=True):
        for letter, n in zip(term, shape, strict=True):
            if letter not in sizes:
                sizes[letter] = n
            elif letter.isupper():
                (sizes[letter],) = ctx.broadcast((sizes[letter],), (n,))
            else:
                sizes[letter] = ctx.equal(sizes[letter], n, f"the sizes of {letter!r} in "
                                                            f"{ctx.attrs['equation']!r} differ: {sizes[letter]} != {n}")
    return [PartialType(dtype, tuple(sizes[c] for c in out))]


def _einsum_terms(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> tuple[list[str], str]:
    return parse_equation(attrs["equation"], [t.rank for t in in_types])


def _einsum_canonical(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> Mapping[str, Any]:
    terms, out = _einsum_terms(attrs, in_types)
    return {**attrs, "equation": f"{','.join(terms)}->{out}"}


def _einsum_spec(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> tuple[str, str, str]:
    (a, c), out = _einsum_terms(attrs, in_types)
    return a, c, out


def _einsum_decompose(d: Decomposition) -> Sequence[Any] | None:
    """First reduce each operand to the letters that others need, then take the operands in pairs, from the left."""
    terms, out = _einsum_terms(d.attrs, d.in_types)
    types = [t.shape for t in d.in_types]
    sizes: dict[str, Size] = {}
    for term, shape in zip(terms, types, strict=True):
        for letter, n in zip(term, shape, strict=True):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = n
    values: list[Any] = []
    letters: list[str] = []
    changed = len(terms) != 2
    for i, (value, term, shape) in enumerate(zip(d.inputs, terms, types, strict=True)):
        others = set(out).union(*(t for j, t in enumerate(terms) if j != i))
        repeated = {c for c, n in zip(term, shape, strict=True) if n == 1 and sizes[c] != 1}
        single = tuple(k for k, c in enumerate(term) if c not in others)
        if single:
            value = d.op("Sum", value, axis=single, keepdims=False)
            term = "".join(c for c in term if c in others)
        if repeated:
            term = "".join(c for c in term if c not in repeated)
            value = d.op("Reshape", value, shape=tuple(sizes[c] for c in term))
        changed = changed or bool(single) or bool(repeated)
        values.append(value)
        letters.append(term)
    if not changed:
        return None
    while len(values) > 2:
        needed = set(out).union(*letters[2:])
        joint = "".join(dict.fromkeys(c for c in letters[0] + letters[1] if c in needed))
        values[:2] = [d.op("Einsum", values[0], values[1], equation=f"{letters[0]},{letters[1]}->{joint}")]
        letters[:2] = [joint]
    if len(values) == 2:
        return [d.op("Einsum", *values, equation=f"{letters[0]},{letters[1]}->{out}")]
    (value,), (term,) = values, letters
    return [value if term == out else d.op("Transpose", value, perm=tuple(term.index(c) for c in out))]


def _einsum_gradient(op: Any, dz: Any) -> Sequence[Any]:
    """For each operand the einsum of the others with dz; letters that only it has are repeated along its axes."""
    ranks = [t.type.shape for t in op.inputs]
    if any(r is None for r in ranks):
        raise TypeError("the gradient of Einsum needs ranks that are known while the graph is built")
    terms, out = parse_equation(op.attrs["equation"], [len(r) for r in ranks])
    grads = []
    for i, (x, term) in enumerate(zip(op.inputs, terms, strict=True)):
        others = [t for j, t in enumerate(terms) if j != i]
        available = set(out).union(*others)
        found = "".join(c for c in term if c in available)
        operands = [dz, *(t for j, t in enumerate(op.inputs) if j != i)]
        g = b.op("Einsum", *operands, equation=f"{','.join([out, *others])}->{found}")
        lost = tuple(k for k, c in enumerate(term) if c not in available)
        if lost:
            g = b.op("ExpandDims", g, lost)
            g = b.broadcast_like(g, x)
        grads.append(b.unbroadcast(g, x) if any(c.isupper() for c in term) else g)
    return grads


_EQUATIONS: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = (
    ("ij,jk->ik", ((5, 7), (7, 3))), ("bij,bjk->bik", ((2, 5, 7), (2, 7, 3))), ("bi,bj->bij", ((2, 5), (2, 3))),
    ("i,i->", ((7,), (7,))), ("ij->ji", ((5, 7),)), ("ij->", ((5, 7),)), ("ijk,kl->lij", ((2, 3, 4), (4, 5))),
    ("ij,k->ik", ((2, 3), (4,))), ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))),
    ("...ij,...jk->...ik", ((2, 1, 3, 4), (5, 4, 2))),
    ("ij,ij", ((2, 3), (2, 3))))


def _einsum_reference(call: Call) -> Any:
    terms, out = _einsum_terms(call.attrs, call.in_types)
    return np.einsum(f"{','.join(terms)}->{out}", *call.arrays)


def _einsum_flops(in_types: Sequence[TensorType], out_types: Sequence[TensorType], attrs: Mapping[str, Any]) -> Size:
    terms, _ = _einsum_terms(attrs, in_types)
    sizes = {c: n for term, t in zip(terms, in_types, strict=True) for c, n in zip(term, t.shape, strict=True)}
    total: Size = 2
    for n in sizes.values():
        total = total * n
    return total


register(Op(
    name="Einsum", kind=Kind.CONTRACTION, inputs=("*inputs",), attrs={"equation": REQUIRED}, infer=_einsum_infer,
    gradient=_einsum_gradient, reference=_einsum_reference, lower=Contracting(_einsum_spec),
    decompose=_einsum_decompose, canonical=_einsum_canonical, flops=_einsum_flops,
    samples=lambda: [Sample(tuple(typed(d, *s) for s in shapes), {"equation": e}, special=False,
                            differentiable=d.is_floating) for d in (float32, float64) for e, shapes in _EQUATIONS],
    doc='Sum of products by index letters, "ij,jk->ik"; each letter once per operand, ... broadcasts. tf.einsum'))
