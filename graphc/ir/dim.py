"""Symbolic sizes: integer expressions over named symbols, in one canonical form.

Owns the arithmetic of shapes.  A size is a Python int where it is known and a `Dim` where it is not,
so that `n == 128` and `n * 4 == m` mean what they say: equal expressions are equal objects' values.
Knows nothing of tensors.  Invariant: a `Dim` is a sum of products of atoms with integer
coefficients, sorted, never constant (constants are ints); an atom is a symbol or one irreducible
operation (`//`, `%`, `min`, `max`) on canonical sizes.  All sizes are non-negative integers.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, Union

Size: TypeAlias = Union[int, "Dim"]


@dataclass(frozen=True)
class Atom:
    """An irreducible factor: op "sym" with args (name,), or "//", "%", "min", "max" with two sizes."""

    op: str
    args: tuple[Any, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.op, self.args))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        if self.op == "sym":
            return str(self.args[0])
        a, b = (str(x) if isinstance(x, int) or x.is_atomic else f"({x})" for x in self.args)
        return f"{self.op}({self.args[0]}, {self.args[1]})" if self.op in ("min", "max") else f"({a} {self.op} {b})"


Monomial: TypeAlias = tuple[Atom, ...]  # sorted by text; () is the constant term


def _key(m: Monomial) -> tuple[int, str]:
    return (-len(m), "*".join(map(str, m)))


@dataclass(frozen=True, eq=True)
class Dim:
    """A size that is not known when compiling.  Use the operators; build symbols with `symbol`."""

    terms: tuple[tuple[Monomial, int], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    @property
    def is_atomic(self) -> bool:
        return len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1

    @property
    def is_symbol(self) -> bool:
        return self.is_atomic and self.terms[0][0][0].op == "sym"

    @property
    def name(self) -> str:
        """The symbol's name; only where `is_symbol`."""
        assert self.is_symbol
        return str(self.terms[0][0][0].args[0])

    def symbols(self) -> frozenset[str]:
        """The names of all symbols in this expression."""
        return self._symbols

    @cached_property
    def _symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for mono, _ in self.terms:
            for atom in mono:
                if atom.op == "sym":
                    found.add(atom.args[0])
                else:
                    for a in atom.args:
                        if isinstance(a, Dim):
                            found |= a.symbols()
        return frozenset(found)

    def __add__(self, other: Size) -> Size:
        return _sum([(self, 1), (other, 1)])

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return _sum([(self, 1), (other, -1)])

    def __rsub__(self, other: Size) -> Size:
        return _sum([(other, 1), (self, -1)])

    def __neg__(self) -> Size:
        return _sum([(self, -1)])

    def __mul__(self, other: Size) -> Size:
        acc: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                m = tuple(sorted(m1 + m2, key=str))
                acc[m] = acc.get(m, 0) + c1 * c2
        return _make(acc)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other)

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)

    def __int__(self) -> int:
        raise TypeError(f"size {self} is not known before the graph is fed")

    def __bool__(self) -> bool:
        raise TypeError(f"size {self} is not known before the graph is fed; compare it explicitly")

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        out = ""
        for mono, c in self.terms:
            body = "*".join(map(str, mono))
            text = body if abs(c) == 1 and body else f"{abs(c)}*{body}" if body else str(abs(c))
            out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
        return out

    __repr__ = __str__

    def substitute(self, binding: Mapping[str, Size]) -> Size:
        """Return this expression with the symbols in `binding` replaced."""
        if not (self.symbols() & binding.keys()):
            return self
        total: Size = 0
        for mono, c in self.terms:
            product: Size = c
            for atom in mono:
                product = product * _substitute_atom(atom, binding)
            total = total + product
        return total

    def evaluate(self, binding: Mapping[str, int]) -> int:
        """Return the value with every symbol bound.  Raises KeyError for a symbol without a value."""
        total = 0
        for mono, c in self.terms:
            product = c
            for atom in mono:
                if atom.op == "sym":
                    product *= binding[atom.args[0]]
                else:
                    a, b = (x if isinstance(x, int) else x.evaluate(binding) for x in atom.args)
                    product *= _NUMERIC[atom.op](a, b)
            total += product
        return total


_NUMERIC: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b, "%": lambda a, b: a % b, "min": min, "max": max,
}


def symbol(name: str) -> Dim:
    """Return the size named `name` (letters, digits, underscores, not starting with a digit)."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} cannot name a size")
    return Dim((((Atom("sym", (name,)),), 1),))


def _terms(value: Size) -> Iterable[tuple[Monomial, int]]:
    if isinstance(value, Dim):
        return value.terms
    return (((), int(value)),)


def _make(acc: dict[Monomial, int]) -> Size:
    terms = tuple(sorted(((m, c) for m, c in acc.items() if c), key=lambda t: _key(t[0])))
    if not terms:
        return 0
    if len(terms) == 1 and terms[0][0] == ():
        return terms[0][1]
    return Dim(terms)


def _sum(parts: Iterable[tuple[Size, int]]) -> Size:
    acc: dict[Monomial, int] = {}
    for value, sign in parts:
        for m, c in _terms(value):
            acc[m] = acc.get(m, 0) + sign * c
    return _make(acc)


def _substitute_atom(atom: Atom, binding: Mapping[str, Size]) -> Size:
    if atom.op == "sym":
        return binding.get(atom.args[0], symbol(atom.args[0]))
    a, b = (x.substitute(binding) if isinstance(x, Dim) else x for x in atom.args)
    return {"//": floordiv, "%": mod, "min": minimum, "max": maximum}[atom.op](a, b)


def _atom(op: str, a: Size, b: Size) -> Dim:
    return Dim((((Atom(op, (a, b)),), 1),))


def divide_exactly(a: Size, b: Size) -> Size | None:
    """Return the canonical q with q * b == a for every value of the symbols, or None if none is found."""
    if a == b:
        return 1
    if isinstance(b, int):
        if b == 0:
            return None
        if isinstance(a, int):
            return a // b if a % b == 0 else None
        return _make({m: c // b for m, c in a.terms}) if all(c % b == 0 for _, c in a.terms) else None
    if a == 0:
        return 0
    if isinstance(a, int) or len(b.terms) != 1:
        return None
    (bm, bc), = b.terms
    out: dict[Monomial, int] = {}
    for m, c in a.terms:
        rest = list(m)
        for atom in bm:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % bc:
            return None
        out[tuple(rest)] = c // bc
    return _make(out)


def floordiv(a: Size, b: Size) -> Size:
    """Return a // b."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = divide_exactly(a, b)
    return exact if exact is not None else _atom("//", a, b)


def mod(a: Size, b: Size) -> Size:
    """Return a % b."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return 0 if divide_exactly(a, b) is not None else _atom("%", a, b)


def ceildiv(a: Size, b: Size) -> Size:
    """Return a divided by b, rounded up."""
    exact = divide_exactly(a, b)
    return exact if exact is not None else floordiv(a + b - 1, b)


def minimum(a: Size, b: Size) -> Size:
    """Return the smaller of the two."""
    d = a - b
    if isinstance(d, int):
        return a if d <= 0 else b
    x, y = sorted((a, b), key=str)
    return _atom("min", x, y)


def maximum(a: Size, b: Size) -> Size:
    """Return the larger of the two."""
    d = a - b
    if isinstance(d, int):
        return a if d >= 0 else b
    x, y = sorted((a, b), key=str)
    return _atom("max", x, y)


def product(sizes: Iterable[Size]) -> Size:
    """Return the product of all sizes; 1 for none."""
    total: Size = 1
    for s in sizes:
        total = total * s
    return total


def substitute(size: Size, binding: Mapping[str, Size]) -> Size:
    """Return `size` with symbols replaced; ints pass through."""
    return size.substitute(binding) if isinstance(size, Dim) else size


def evaluate(size: Size, binding: Mapping[str, int]) -> int:
    """Return the number that `size` is under `binding`."""
    return size.evaluate(binding) if isinstance(size, Dim) else size


def symbols_of(sizes: Iterable[Size]) -> frozenset[str]:
    """Return the names of all symbols in `sizes`."""
    return frozenset().union(*(s.symbols() for s in sizes if isinstance(s, Dim)))


_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_]\w*|//|[-+*%(),])")


def parse(text: str) -> Size:
    """Return the size that `str(size)` printed as `text`.  Raises ValueError for anything else."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"cannot read size {text!r}")
    at = 0

    def take(expected: str | None = None) -> str:
        nonlocal at
        if at >= len(tokens) or (expected is not None and tokens[at] != expected):
            raise ValueError(f"cannot read size {text!r}")
        at += 1
        return str(tokens[at - 1])

    def peek() -> str:
        return tokens[at] if at < len(tokens) else ""

    def factor() -> Size:
        t = take()
        if t == "-":
            return 0 - factor()
        if t == "(":
            inner = total()
            take(")")
            return inner
        if t.isdigit():
            return int(t)
        if t in ("min", "max") and peek() == "(":
            take("(")
            a = total()
            take(",")
            b = total()
            take(")")
            return minimum(a, b) if t == "min" else maximum(a, b)
        return symbol(t)

    def term() -> Size:
        value = factor()
        while peek() in ("*", "//", "%"):
            op, rhs = take(), factor()
            value = value * rhs if op == "*" else floordiv(value, rhs) if op == "//" else mod(value, rhs)
        return value

    def total() -> Size:
        value = term()
        while peek() in ("+", "-"):
            op, rhs = take(), term()
            value = value + rhs if op == "+" else value - rhs
        return value

    result = total()
    if at != len(tokens):
        raise ValueError(f"cannot read size {text!r}")
    return result
