"""Products of matrices and tensors.

Owns matmul, tensordot, einsum and their kin.  Must not know how a product is computed.
Invariant: a product of tensors of rank 2 is one MatMul; of higher rank, one BatchMatMulV2 whose leading axes broadcast.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from graphc.dsl import array
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.convert import convert_n_to_tensor, convert_to_tensor, matching
from graphc.dsl.scope import create, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["batch_matmul", "einsum", "matmul", "matvec", "norm", "tensordot", "trace"]


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, adjoint_a: bool = False,
           adjoint_b: bool = False, a_is_sparse: bool = False, b_is_sparse: bool = False,
           name: str | None = None) -> Tensor:
    """Return a @ b over the last two axes; leading axes are batches and broadcast.

    adjoint_a, adjoint_b: as the transposes, since elements are real.  Raises ShapeError, DTypeError.  Source:
    tf.matmul.
    """
    if (transpose_a and adjoint_a) or (transpose_b and adjoint_b):
        raise at_user(GraphError, "matmul: give transpose or adjoint, not both")
    with name_scope(name, "MatMul", [a, b]) as scope:
        x, y = matching(a, b, ("a", "b"))
        ta, tb = transpose_a or adjoint_a, transpose_b or adjoint_b
        ranks = (x.shape.ndims, y.shape.ndims)
        if all(r is None or r > 2 for r in ranks) or any(r is not None and r > 2 for r in ranks):
            return cast(Tensor, create("BatchMatMulV2", scope, [x, y], {"adj_x": ta, "adj_y": tb}))
        return cast(Tensor, create("MatMul", scope, [x, y], {"transpose_a": ta, "transpose_b": tb}))


def batch_matmul(x: Any, y: Any, adj_x: bool = False, adj_y: bool = False, name: str | None = None) -> Tensor:
    """Return matmul(x, y) over the last two axes.  Source: tf.batch_matmul."""
    return matmul(x, y, adj_x, adj_y, name=name)


def matvec(a: Any, b: Any, transpose_a: bool = False, name: str | None = None) -> Tensor:
    """Return the product of matrices and vectors over the last axes.  Source: tf.linalg.matvec."""
    with name_scope(name, "MatVec", [a, b]) as scope:
        x, y = matching(a, b, ("a", "b"))
        return array.squeeze(matmul(x, array.expand_dims(y, -1), transpose_a), [-1], scope)


def tensordot(a: Any, b: Any, axes: Any, name: str | None = None) -> Tensor:
    """Return the sum of products over `axes`: a count (the last of a, the first of b), or a pair of axes or lists.

    The other axes of a come first, then those of b.  Raises ShapeError.  Source: tf.tensordot.
    """
    with name_scope(name, "Tensordot", [a, b]) as scope:
        x, y = matching(a, b, ("a", "b"))
        ra, rb = x.shape.ndims, y.shape.ndims
        if ra is None or rb is None:
            raise at_user(ShapeError, "tensordot: the ranks of both tensors must be known")
        over_a, over_b = _pairs(plain(axes), ra, rb)
        letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        first = [next(letters) for _ in range(ra)]
        second = [next(letters) for _ in range(rb)]
        for i, j in zip(over_a, over_b, strict=True):
            second[j] = first[i]
        out = [c for i, c in enumerate(first) if i not in over_a] + [c for j, c in enumerate(second) if j not in over_b]
        equation = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
        return cast(Tensor, create("Einsum", scope, [x, y], {"equation": equation}))


def _pairs(axes: Any, ra: int, rb: int) -> tuple[list[int], list[int]]:
    if isinstance(axes, int):
        if not 0 <= axes <= min(ra, rb):
            raise at_user(ShapeError, f"tensordot: axes must be from 0 to {min(ra, rb)}, not {axes}")
        return list(range(ra - axes, ra)), list(range(axes))
    if not isinstance(axes, (list, tuple)) or len(axes) != 2:
        raise at_user(ShapeError, f"tensordot: axes must be a count or a pair, not {axes!r}")
    first, second = ([v] if isinstance(v, int) else list(v) for v in axes)
    if len(first) != len(second):
        raise at_user(ShapeError, f"tensordot: {len(first)} axes of a are paired with {len(second)} of b")
    for chosen, rank in ((first, ra), (second, rb)):
        if any(not -rank <= v < rank for v in chosen):
            raise at_user(ShapeError, f"tensordot: axes {chosen} are out of range for rank {rank}")
    return [v % ra for v in first], [v % rb for v in second]


def einsum(equation: str, *inputs: Any, name: str | None = None, optimize: str = "greedy") -> Tensor:
    """Return the sum of products that `equation` says ("ij,jk->ik"); three or more tensors are contracted in turn.

    Raises GraphError for an equation that is none.  Source: tf.einsum.
    """
    tensors: Sequence[Any] = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else inputs
    with name_scope(name, "einsum", tensors) as scope:
        given = convert_n_to_tensor(tensors)
        terms, out = _terms(equation, given)
        while len(given) > 2:
            kept = "".join(c for c in dict.fromkeys(terms[0] + terms[1]) if c in out or any(c in t for t in terms[2:]))
            partial = create("Einsum", None, given[:2], {"equation": f"{terms[0]},{terms[1]}->{kept}"})
            given, terms = [partial, *given[2:]], [kept, *terms[2:]]
        return cast(Tensor, create("Einsum", scope, given, {"equation": f"{','.join(terms)}->{out}"}))


def _terms(equation: str, given: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of every input and of the result: "..." spelled out, the result as NumPy infers it where left out."""
    text = equation.replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(given):
        raise at_user(GraphError, f"einsum: {equation!r} is about {len(terms)} tensors, {len(given)} are given")
    if "..." in text:
        free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in text]
        most = max((_hidden(t, g) for t, g in zip(terms, given, strict=True)), default=0)
        dots = "".join(free[:most])
        terms = [t.replace("...", dots[most - _hidden(t, g):]) for t, g in zip(terms, given, strict=True)]
        out = out.replace("...", dots) if arrow else out
    else:
        dots = ""
    if not arrow:
        letters = "".join(terms)
        out = dots + "".join(sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1))
    for c in "".join(terms) + out:
        if not c.isalpha():
            raise at_user(GraphError, f"einsum: {equation!r} holds {c!r}, which is not a letter")
    return terms, out


def _hidden(term: str, given: Tensor) -> int:
    if "..." not in term:
        return 0
    rank = given.shape.ndims
    if rank is None:
        raise at_user(ShapeError, f"einsum: '...' needs a known rank, but that of {given.name} is not known", [given])
    return rank - len(term.replace("...", ""))


def norm(tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool | None = None, name: str | None = None,
         keep_dims: bool | None = None) -> Tensor:
    """Return the norm over axes: "euclidean" ("fro"), 1, 2, another positive power, or infinity.  Source: tf.norm."""
    keep = bool(red.older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "norm", [tensor]):
        x = convert_to_tensor(tensor)
        if ord in ("euclidean", "fro", 2, 2.0):
            if ord in (2, 2.0) and isinstance(axis, (list, tuple)) and len(axis) == 2:
                raise at_user(GraphError, "norm: the spectral norm of matrices is not supported")
            return ew.sqrt(red.reduce_sum(ew.square(x), axis, keep))
        if ord == float("inf"):
            return red.reduce_max(ew.abs(x), axis, keep)
        if ord == 1:
            return red.reduce_sum(ew.abs(x), axis, keep)
        if not isinstance(ord, (int, float)) or ord <= 0:
            raise at_user(GraphError,
                          f"norm: ord must be 'euclidean', 'fro', a positive number or infinity, not {ord!r}")
        return ew.pow(red.reduce_sum(ew.pow(ew.abs(x), ord), axis, keep), 1.0 / ord)


def trace(x: Any, name: str | None = None) -> Tensor:
    """Return the sum of the diagonal over the last two axes.  Source: tf.trace."""
    with name_scope(name, "Trace", [x]):
        return red.reduce_sum(array.matrix_diag_part(convert_to_tensor(x)), -1)
