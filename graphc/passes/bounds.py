"""What is known of sizes whatever their symbols are.

Owns the proofs of inequalities between sizes.  Knows sizes alone.  Invariant: sound, not complete: True means that the
relation holds for all non-negative values of the symbols.
"""
from __future__ import annotations

from collections.abc import Iterator

from graphc.ir import dim
from graphc.ir.dim import Size


def at_least(a: Size, b: Size) -> bool:
    """Return whether a >= b is known, whatever the symbols are."""
    return never_negative(a - b)


def never_negative(size: Size, depth: int = 6) -> bool:
    """Return whether `size` >= 0 is known, whatever the symbols are.

    max(x, y) is at least either, min(x, y) at most either; x // c lies between (x - c + 1) / c and x / c.
    """
    if isinstance(size, int):
        return size >= 0
    if all(c >= 0 for _, c in size.terms):
        return True
    if depth == 0:
        return False
    for monomial, coefficient in size.terms:
        for atom in monomial:
            if atom.op not in ("max", "min", "//"):
                continue
            rest = list(monomial)
            rest.remove(atom)
            factor: Size = coefficient * dim.product(dim.Dim((((a,), 1),)) for a in rest)
            whole = size - factor * dim.Dim((((atom,), 1),))
            x, y = atom.args
            if atom.op == "//":
                if not isinstance(y, int) or y <= 0:
                    continue
                bound = x - (y - 1) if coefficient > 0 else x
                if never_negative(whole * y + factor * bound, depth - 1):
                    return True
            elif (atom.op == "max") == (coefficient > 0) and any(
                    never_negative(whole + factor * b, depth - 1) for b in _choices(atom)):
                return True
    return False


def _choices(atom: dim.Atom) -> Iterator[Size]:
    """The sizes that a max (or min) of maxima (or minima) chooses from."""
    stack: list[Size] = list(reversed(atom.args))
    while stack:
        size = stack.pop()
        inner = size.terms[0][0][0] if isinstance(size, dim.Dim) and size.is_atomic else None
        if inner is not None and inner.op == atom.op:
            stack.extend(reversed(inner.args))
        else:
            yield size
