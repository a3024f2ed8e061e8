"""Types of the IR: what each op's own inference gives where every rank is known.

Owns `Typing`, the IR's side of `ops.base.Inference`; `Sizes`, what is done where two sizes meet; `Unifier`, which
solves the meetings at extraction; and `types`, which a Builder calls.  Knows ops and sizes; knows nothing of graphs.
Invariant: `types` is a pure function of op, input types and attrs, so a verifier can ask again.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_, int64
from graphc.errors import DTypeError, InternalError, ShapeError, VerifyError, report
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Condition, Function, Value
from graphc.ir.types import PartialType, Shape, TensorType, Type
from graphc.ops.base import REQUIRED, Kind, Op

Reporter = Callable[[str, "str | None"], str]


def better(a: Size, b: Size) -> Size:
    """Return the one of two equal sizes that is better known: an int, else the shorter expression."""
    if isinstance(a, int) or isinstance(b, int):
        return a if isinstance(a, int) else b
    return min(a, b, key=lambda size: (len(size.terms), len(str(size)), str(size)))


class Sizes:
    """Meetings of sizes in a function whose conditions are already stated: unknown sizes that meet are equal."""

    def meet(self, kind: str, a: Size, b: Size, message: str, op: str) -> Size | None:
        """Return the size that a and b are, by a condition of `kind`; None where they are known to differ."""
        if a == b:
            return a
        return None if _differ(a, b) else better(a, b)

    def divide(self, size: Size, by: Size, message: str, op: str) -> Size | None:
        """Return size / by, which must be whole; None where it is known not to be."""
        exact = dim.divide_exactly(size, by)
        if exact is not None:
            return exact
        return None if by == 0 or (isinstance(size, int) and isinstance(by, int)) else dim.floordiv(size, by)

    def bound(self, a: Size, b: Size, message: str, op: str) -> bool:
        """Require a <= b; False where that is known not to hold."""
        room = b - a
        return not isinstance(room, int) or room >= 0


class Unifier(Sizes):
    """Meetings of sizes while a program is extracted: each one binds a symbol or leaves a condition.

    solution: symbol -> the size that stands for it.  conditions: what each run must check, over the symbols as
    their sources give them.  assumptions: number of a condition -> "left" or "right", the side that is 1 in the
    variant being extracted; numbers before the first changed one are the same in every variant.
    rank: symbols in the order in which they should survive (a symbol not listed goes first).
    """

    def __init__(self, assumptions: Mapping[int, str] | None = None) -> None:
        self.solution: dict[str, Size] = {}
        self.conditions: list[Condition] = []
        self._assumptions = assumptions or {}
        self._stated: set[tuple[str, Size, Size]] = set()
        self._rank: dict[str, int] = {}

    def introduce(self, name: str) -> Dim:
        """Return the symbol `name`; symbols introduced earlier stand for those introduced later."""
        self._rank.setdefault(name, len(self._rank))
        return dim.symbol(name)

    def resolve(self, size: Size) -> Size:
        """Return `size` with every solved symbol replaced."""
        while isinstance(size, Dim) and not self.solution.keys().isdisjoint(size.symbols()):
            size = size.substitute(self.solution)
        return size

    def meet(self, kind: str, a: Size, b: Size, message: str, op: str) -> Size | None:
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return a
        if _differ(a, b):
            return None
        if ("meet", a, b) in self._stated:
            return better(a, b)
        self._stated.add(("meet", a, b))
        one = self._assumptions.get(len(self.conditions)) if kind == "assume" else None
        if one is not None:
            single, other = (a, b) if one == "left" else (b, a)
            self.conditions.append(Condition("equal", single, 1, template(message, single, 1), op))
            self._solve(single, 1)
            return self.resolve(other)
        self.conditions.append(Condition(kind, a, b, template(message, a, b), op))
        self._solve(a, b)
        return better(self.resolve(a), self.resolve(b))

    def divide(self, size: Size, by: Size, message: str, op: str) -> Size | None:
        size, by = self.resolve(size), self.resolve(by)
        quotient = super().divide(size, by, message, op)
        if quotient is not None and dim.divide_exactly(size, by) is None and ("divides", size, by) not in self._stated:
            self._stated.add(("divides", size, by))
            self.conditions.append(Condition("divides", size, by, template(message, size, by), op))
        return quotient

    def bound(self, a: Size, b: Size, message: str, op: str) -> bool:
        a, b = self.resolve(a), self.resolve(b)
        if not super().bound(a, b, message, op):
            return False
        if not never_negative(b - a) and ("at_most", a, b) not in self._stated:
            self._stated.add(("at_most", a, b))
            self.conditions.append(Condition("at_most", a, b, template(message, a, b), op))
        return True

    def _solve(self, a: Size, b: Size) -> None:
        """Bind the latest symbol that a == b gives as a sum of non-negative terms; none where there is no such."""
        difference = a - b
        if isinstance(difference, int):
            return
        best: tuple[int, str, Size] | None = None
        for monomial, coefficient in difference.terms:
            if len(monomial) != 1 or monomial[0].op != "sym":
                continue
            name = str(monomial[0].args[0])
            rest = difference - coefficient * dim.symbol(name)
            if name in dim.symbols_of((rest,)):
                continue
            value = dim.divide_exactly(0 - rest, coefficient)
            if value is None or not never_negative(value):
                continue
            rank = self._rank.get(name, -1)
            if best is None or isinstance(value, int) or rank > best[0]:
                best = (rank, name, value)
        if best is not None:
            self.solution[best[1]] = best[2]


def _differ(a: Size, b: Size) -> bool:
    """Whether a and b are different whatever their symbols are."""
    if isinstance(a, int) and isinstance(b, int):
        return a != b
    return isinstance(a - b, int) and a != b


def template(message: str, left: Size, right: Size) -> str:
    """Return an op's message with the two sizes, where it names them, left open for the numbers of a run."""
    for size, slot in sorted(((left, "{left}"), (right, "{right}")), key=lambda pair: -len(str(pair[0]))):
        if isinstance(size, Dim):
            message = re.sub(rf"(?<![\w{{]){re.escape(str(size))}(?![\w}}])", slot, message)
    return message


def never_negative(size: Size) -> bool:
    """Whether `size` is at least 0 whatever its symbols are, as far as its signs tell."""
    return size >= 0 if isinstance(size, int) else all(c >= 0 for _, c in size.terms)


class Typing:
    """What an op's `infer` sees in the IR.  known(i): the symbolic content of input i, or None."""

    def __init__(self, op: Op, inputs: Sequence[PartialType], attrs: Mapping[str, Any], sizes: Sizes,
                 known: Callable[[int], np.ndarray[Any, Any] | None], reporter: Reporter, name: str) -> None:
        self.inputs = inputs
        self.attrs = attrs
        self._op = op
        self._sizes = sizes
        self._known = known
        self._report = reporter
        self._name = name

    def value(self, i: int) -> np.ndarray[Any, Any] | None:
        return self._known(i)

    def equal(self, a: Size, b: Size, message: str) -> Size:
        if a == b:
            return a
        met = self._sizes.meet("equal", a, b, message, self._name)
        if met is None:
            raise self.fail(message)
        return met

    def broadcast(self, a: Shape, b: Shape) -> Shape:
        if a == b:
            return a
        longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
        out = list(longer)
        lead = len(longer) - len(shorter)
        for axis, size in enumerate(shorter, lead):
            other = longer[axis]
            if size == 1 or size == other:
                continue
            if other == 1:
                out[axis] = size
                continue
            left, right = (other, size) if longer is a else (size, other)
            met = self._sizes.meet("assume", left, right, "sizes {left} and {right} do not broadcast", self._name)
            if met is None:
                raise self.fail(f"shapes {_shape(a)} and {_shape(b)} do not broadcast")
            out[axis] = met
        return tuple(out)

    def divides(self, size: Size, by: Size, message: str) -> Size:
        quotient = self._sizes.divide(size, by, message, self._name)
        if quotient is None:
            raise self.fail(message)
        return quotient

    def at_most(self, a: Size, b: Size, message: str) -> None:
        if not self._sizes.bound(a, b, message, self._name):
            raise self.fail(message)

    def unknown(self) -> Size:
        raise self.fail("a size of the result is not known before the run",
                        "graphc compiles programs whose sizes follow from the shapes and sizes that are fed")

    def fail(self, message: str, hint: str | None = None) -> ShapeError:
        return ShapeError(self._report(f"{self._op.name}: {message}", hint))

    def fail_dtype(self, message: str, hint: str | None = None) -> DTypeError:
        return DTypeError(self._report(f"{self._op.name}: {message}", hint))


def _shape(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


_LENIENT = Sizes()


def _nothing_known(i: int) -> None:
    return None


def types(op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> tuple[Type, ...]:
    """Return the types of the outputs of `op` on `inputs`.  Raises ShapeError, DTypeError or VerifyError."""
    for name, value in attrs.items():
        if value is REQUIRED:
            raise VerifyError(f"{op.name} lacks its attr {name!r}")
    if op.kind is Kind.STRUCTURED:
        return structured_types(op, inputs, attrs)
    if op.kind is Kind.HOST:
        return tuple(attrs["out_types"])

    def reporter(what: str, hint: str | None) -> str:
        return report(what, None, [(f"input {i}", str(v.type)) for i, v in enumerate(inputs)], hint)

    partial = [PartialType(v.tensor.dtype, v.tensor.shape) for v in inputs]
    ctx = Typing(op, partial, attrs, _LENIENT, _nothing_known, reporter, op.name)
    return full_types(op, op.infer(ctx))


def full_types(op: Op, inferred: Sequence[PartialType]) -> tuple[TensorType, ...]:
    """Return what an op's `infer` gave as types of the IR.  Raises InternalError for an unknown rank."""
    out = []
    for partial in inferred:
        if partial.shape is None:
            raise InternalError(f"{op.name}: the rank of the result does not follow from the ranks of the inputs")
        out.append(TensorType(partial.dtype, tuple(partial.shape)))
    return tuple(out)


def structured_types(op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> tuple[Type, ...]:
    """Return the types of a node with bodies: what its bodies return (ARCHITECTURE: structured nodes)."""
    given = tuple(v.type for v in inputs)
    match op.name:
        case "Loop":
            return _loop_types(given, attrs)
        case "Cond":
            then, orelse = _body(attrs, "then"), _body(attrs, "orelse")
            _agree("Cond: then", given[1:], tuple(v.type for v in then.feeds))
            _agree("Cond: orelse", given[1:], tuple(v.type for v in orelse.feeds))
            _agree("Cond: results", tuple(v.type for v in then.fetches), tuple(v.type for v in orelse.fetches))
            if not given or given[0] != TensorType(bool_, ()):
                raise VerifyError("Cond: the first input must be a bool scalar")
            return tuple(v.type for v in then.fetches)
        case "Fusion":
            body = _body(attrs, "body")
            _agree("Fusion", given, tuple(v.type for v in body.feeds))
            return tuple(v.type for v in body.fetches)
        case name:
            raise VerifyError(f"no rule gives the types of the structured op {name}")


def _body(attrs: Mapping[str, Any], name: str) -> Function:
    body = attrs.get(name)
    if not isinstance(body, Function):
        raise VerifyError(f"attr {name!r} must be a function")
    return body


def loop_parts(attrs: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return (carried, xs, captures, ys) of a Loop's attrs.  Raises VerifyError."""
    parts = tuple(attrs.get(name) for name in ("carried", "xs", "captures", "ys"))
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in parts):
        raise VerifyError("Loop: carried, xs, captures and ys must be counts")
    return parts  # type: ignore[return-value]


def _loop_types(given: tuple[Type, ...], attrs: Mapping[str, Any]) -> tuple[Type, ...]:
    carried, xs, captures, ys = loop_parts(attrs)
    body = _body(attrs, "body")
    index = TensorType(int64, ())
    if len(given) != 1 + carried + xs + captures:
        raise VerifyError(f"Loop: {1 + carried + xs + captures} inputs are declared, {len(given)} are given")
    if given[0] != index:
        raise VerifyError(f"Loop: the first input must be an int64 scalar, not {given[0]}")
    state = given[1:1 + carried]
    stacked = given[1 + carried:1 + carried + xs]
    rest = given[1 + carried + xs:]
    rows: list[Type] = []
    for t in stacked:
        if not isinstance(t, TensorType) or not t.shape:
            raise VerifyError(f"Loop: a stacked input must have a first axis, {t} has none")
        rows.append(TensorType(t.dtype, t.shape[1:]))
    _agree("Loop: body", (index, *state, *rows, *rest), tuple(v.type for v in body.feeds))
    results = tuple(v.type for v in body.fetches)
    if attrs.get("while"):
        if not results or results[0] != TensorType(bool_, ()):
            raise VerifyError("Loop: with while the body's first fetch must be a bool scalar")
        results = results[1:]
        first = _body(attrs, "cond")
        _agree("Loop: cond", (*state, *rest), tuple(v.type for v in first.feeds))
        _agree("Loop: cond's result", (TensorType(bool_, ()),), tuple(v.type for v in first.fetches))
    if len(results) != carried + ys:
        raise VerifyError(f"Loop: the body must return {carried} carried values and {ys} rows, "
                          f"not {len(results)} values")
    _agree("Loop: carried values", state, results[:carried])
    length = loop_length(given, attrs) if ys else 0
    out: list[Type] = list(state)
    for t in results[carried:]:
        if not isinstance(t, TensorType):
            raise VerifyError(f"Loop: rows of type {t} cannot be stacked")
        out.append(TensorType(t.dtype, (length, *t.shape)))
    return (*out, index)


def loop_length(given: Sequence[Type], attrs: Mapping[str, Any]) -> Size:
    """Return the first size of a Loop's stacked results: attr `length`, else the first stacked input's."""
    length = attrs.get("length")
    if length is not None:
        return length  # type: ignore[no-any-return]
    carried, xs, _, _ = loop_parts(attrs)
    if not xs:
        raise VerifyError("Loop: stacked results without stacked inputs need the attr length")
    first = given[1 + carried]
    assert isinstance(first, TensorType)
    return first.shape[0]


def _agree(what: str, given: Sequence[Type], wanted: Sequence[Type]) -> None:
    if len(given) != len(wanted):
        raise VerifyError(f"{what}: {len(wanted)} values are expected, {len(given)} are given")
    for i, (a, b) in enumerate(zip(given, wanted, strict=True)):
        if not same_type(a, b):
            raise VerifyError(f"{what}: value {i} is {a}, expected {b}")


def same_type(a: Type, b: Type) -> bool:
    """Whether two types agree: equal, or tensors whose sizes are not known to differ."""
    if a == b:
        return True
    if not (isinstance(a, TensorType) and isinstance(b, TensorType)):
        return False
    return a.dtype is b.dtype and a.rank == b.rank and \
        not any(x != y and _differ(x, y) for x, y in zip(a.shape, b.shape, strict=True))
