"""Rewrite rules as data: a small pattern language, and the engine that applies a table of rules.

Owns `Rule` and its texts, and `rewriter`, which makes a pass of a table.  Knows the IR; knows no single rule
(canonical.py, stabilise.py, algebra.py own the tables).

A pattern is an expression over op names: `Mul(x, 1)`.  Small letters stand for any value, the same letter for the same
value; `c` and `d` stand for constants of one element; a number matches a constant of that value (`-0.0` matches
negative zero only, `0` both); `Sum{k}(x)` calls the attrs of that op `k`; `_` matches any value and is forgotten;
`AddN(...)` matches any number of inputs.
Operands of commutative ops match in either order.  The replacement is written in the same language (attrs may be
given plainly: `Sum{k}(x)` passes on `k`), or is a function of the Match where it must compute.

Invariants: a replacement has the type of what it replaces (a missing broadcast is added); what is built is simplified
again by the same table; every rule says what it preserves.
"""
from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import numpy as np

from graphc.dtypes import DType
from graphc.errors import InternalError
from graphc.ir import infer
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.ir.types import TensorType
from graphc.ops.base import Op, lookup

COMMUTATIVE = frozenset((
    "Add", "Mul", "Maximum", "Minimum", "SquaredDifference", "Equal", "NotEqual", "LogicalAnd", "LogicalOr",
    "LogicalXor", "BitwiseAnd", "BitwiseOr", "BitwiseXor"))

EXACT, ROUNDING, FINITE = "exact", "rounding", "finite"
_DEPTH = 12  # of rules applied to what rules built

Bindings: TypeAlias = dict[str, Any]


class Match:
    """What a rule matched: the application (op, inputs, attrs, type), what its letters stand for, and how to build."""

    __slots__ = ("_rewriting", "attrs", "bound", "inputs", "op", "type")

    def __init__(self, rewriting: _Rewriting, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any],
                 type: TensorType, bound: Bindings) -> None:
        self._rewriting = rewriting
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.type = type
        self.bound = bound

    def __getitem__(self, letter: str) -> Any:
        return self.bound[letter]

    def number(self, letter: str) -> Any:
        """The number that the constant `letter` is."""
        return number(self.bound[letter])

    def make(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        """Build an application of `op` (simplified by the table) and return its only value."""
        return self._rewriting.make(lookup(op), inputs, attrs)[0]

    def constant(self, value: Any, dtype: DType) -> Value:
        """Build a scalar constant."""
        return self._rewriting.constant(value, dtype)


Replacement: TypeAlias = "str | Callable[[Match], Value | None]"


@dataclass(frozen=True, slots=True)
class Rule:
    """pattern -> replacement, where `when` holds.

    preserves: "exact" (every bit), "rounding" (up to rounding, the sign of zero and overflow on the way; NaN and
    infinities that are fed keep their effect) or "finite" (up to rounding where all values are finite), all of them
    said of floats: on integers and bools every rule is exact.
    on: "any", "float" or "int": the dtypes of the first operand it is for.
    given: for its example: numbers for c and d, attrs for attr letters, and for other letters the range of the
    values, a TensorType, or an array.
    """

    pattern: str
    replacement: Replacement
    preserves: str = EXACT
    when: Callable[[Match], bool] | None = None
    on: str = "any"
    given: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        then = self.replacement if isinstance(self.replacement, str) else self.replacement.__name__.strip("_")
        return f"{self.pattern} -> {then}"


# -- patterns ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Letter:
    name: str


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Application:
    op: str
    args: tuple[Pattern, ...]
    attrs: str | None = None
    variadic: bool = False


Pattern: TypeAlias = "Letter | Number | Application"
CONSTANTS = ("c", "d")

_TOKEN = re.compile(r"\s*(-?\d+(?:\.\d+)?|\w+|\.\.\.|[(){},])")


def read(text: str) -> Pattern:
    """Return the pattern that `text` says.  Raises InternalError: rules are part of the program."""
    tokens = _TOKEN.findall(text)
    at = 0

    def wrong() -> NoReturn:
        raise InternalError(f"cannot read the pattern {text!r}")

    def take(expected: str | None = None) -> str:
        nonlocal at
        if at >= len(tokens) or (expected is not None and tokens[at] != expected):
            wrong()
        at += 1
        return str(tokens[at - 1])

    def pattern() -> Pattern:
        token = take()
        if token[0] in "-0123456789":
            return Number(float(token))
        if not token[0].isupper():
            return Letter(token)
        attrs = None
        if tokens[at] == "{":
            take("{")
            attrs = take()
            take("}")
        take("(")
        args: list[Pattern] = []
        variadic = tokens[at] == "..."
        if variadic:
            take()
        elif tokens[at] != ")":
            args.append(pattern())
        while tokens[at] == ",":
            take(",")
            args.append(pattern())
        take(")")
        return Application(token, tuple(args), attrs, variadic)

    if "".join(tokens) != re.sub(r"\s", "", text):
        wrong()
    found = pattern()
    if at != len(tokens):
        wrong()
    return found


def orders(pattern: Pattern) -> list[Pattern]:
    """Every order of operands of commutative ops in `pattern`."""
    if not isinstance(pattern, Application):
        return [pattern]
    found: list[Pattern] = []
    for args in itertools.product(*map(orders, pattern.args)):
        found.append(Application(pattern.op, args, pattern.attrs, pattern.variadic))
        if pattern.op in COMMUTATIVE and len(args) == 2 and args[0] != args[1]:
            found.append(Application(pattern.op, args[::-1], pattern.attrs))
    return list(dict.fromkeys(found))


def number(value: Value) -> Any:
    """Return the number that a constant of one element is, broadcast or not; None for any other value."""
    producer = value.producer
    if producer is None:
        return None
    if producer.op.name == "BroadcastTo":
        producer = producer.inputs[0].producer
        if producer is None:
            return None
    if producer.op.name != "Const":
        return None
    array = producer.attrs["value"]
    return array.item() if isinstance(array, np.ndarray) and array.size == 1 else None


Matcher: TypeAlias = Callable[[Value, Bindings], bool]


def _matcher(pattern: Pattern) -> Matcher:
    match pattern:
        case Letter("_"):
            return lambda value, bound: True
        case Letter(name):
            constant = name in CONSTANTS

            def letter(value: Value, bound: Bindings) -> bool:
                if name in bound:
                    return bound[name] is value
                if constant and number(value) is None:
                    return False
                bound[name] = value
                return True
            return letter
        case Number(wanted):
            negative_zero = wanted == 0 and math.copysign(1, wanted) < 0

            def literal(value: Value, bound: Bindings) -> bool:
                found = number(value)
                if found is None or found != wanted:
                    return False
                return not negative_zero or (isinstance(found, float) and math.copysign(1, found) < 0)
            return literal
    if pattern.variadic:
        raise InternalError("... stands at the root of a pattern only")
    op, attrs = pattern.op, pattern.attrs
    args = tuple(map(_matcher, pattern.args))
    count = len(args)

    def application(value: Value, bound: Bindings) -> bool:
        producer = value.producer
        if producer is None or producer.op.name != op or len(producer.inputs) != count:
            return False
        if attrs is not None:
            bound[attrs] = producer.attrs
        return all(arg(v, bound) for arg, v in zip(args, producer.inputs, strict=True))
    return application


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A rule ready to be applied to its root op: one tuple of matchers per order of operands, None for any inputs."""

    rule: Rule
    attrs: str | None
    orders: tuple[tuple[Matcher, ...] | None, ...]
    template: Pattern | None


def _compile(rule: Rule) -> tuple[str, _Compiled]:
    root = read(rule.pattern)
    if not isinstance(root, Application):
        raise InternalError(f"the rule {rule} matches everything")
    variants: list[tuple[Matcher, ...] | None] = []
    for order in orders(root):
        assert isinstance(order, Application)
        variants.append(None if order.variadic else tuple(map(_matcher, order.args)))
    template = read(rule.replacement) if isinstance(rule.replacement, str) else None
    return root.op, _Compiled(rule, root.attrs, tuple(variants), template)


def index(rules: Iterable[Rule]) -> Mapping[str, Sequence[_Compiled]]:
    """Return the rules by the op at their root, in their order."""
    table: dict[str, list[_Compiled]] = {}
    for rule in rules:
        root, compiled = _compile(rule)
        table.setdefault(root, []).append(compiled)
    return table


# -- the engine -------------------------------------------------------------------------------------------------------


class _Rewriting:
    """One walk over a function with a table of rules; counts how often each rule fired."""

    def __init__(self, table: Mapping[str, Sequence[_Compiled]], allowed: frozenset[str], builder: Builder,
                 fired: dict[str, int]) -> None:
        self.table = table
        self.allowed = allowed
        self.builder = builder
        self.fired = fired
        self.origin: tuple[str, ...] = ()
        self.depth = 0

    def node(self, node: Node, inputs: tuple[Value, ...], builder: Builder) -> Sequence[Value] | None:
        """What stands for `node` on new inputs; None where no rule fires."""
        if node.op.name not in self.table or len(node.outputs) != 1:
            return None
        self.origin = node.origin
        type = node.outputs[0].type
        assert isinstance(type, TensorType)
        value = self.simplified(node.op, inputs, node.attrs, type)
        return None if value is None else (value,)

    def simplified(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any],
                   type: TensorType) -> Value | None:
        """The value that the first matching rule gives, of type `type`; None where none fires."""
        if self.depth >= _DEPTH:
            return None
        floats = bool(inputs) and isinstance(inputs[0].type, TensorType) and inputs[0].type.dtype.is_floating
        kind = "float" if floats else "int"
        for compiled in self.table.get(op.name, ()):
            rule = compiled.rule
            if rule.on not in ("any", kind) or (floats and rule.preserves not in self.allowed):
                continue
            for matchers in compiled.orders:
                bound: Bindings = {} if compiled.attrs is None else {compiled.attrs: attrs}
                if matchers is not None and not (len(matchers) == len(inputs) and all(
                        m(v, bound) for m, v in zip(matchers, inputs, strict=True))):
                    continue
                found = Match(self, op, inputs, attrs, type, bound)
                if rule.when is not None and not rule.when(found):
                    continue
                value = self._replacement(compiled, found)
                if value is not None:
                    self.fired[str(rule)] = self.fired.get(str(rule), 0) + 1
                    return self._of_type(value, type, rule)
        return None

    def _replacement(self, compiled: _Compiled, found: Match) -> Value | None:
        self.depth += 1
        try:
            if compiled.template is not None:
                return self._build(compiled.template, found, found.type.dtype)
            assert callable(compiled.rule.replacement)
            return compiled.rule.replacement(found)
        finally:
            self.depth -= 1

    def _build(self, template: Pattern, found: Match, dtype: DType) -> Value:
        match template:
            case Letter(name):
                value = found.bound[name]
                assert isinstance(value, Value)
                return value
            case Number(wanted):
                return self.constant(wanted, dtype)
        parts = [None if isinstance(a, Number) else self._build(a, found, dtype) for a in template.args]
        like = next((p.tensor.dtype for p in reversed(parts) if p is not None), dtype)
        args = [p if p is not None else self._build(a, found, like) for p, a in zip(parts, template.args, strict=True)]
        attrs = found.bound[template.attrs] if template.attrs is not None else {}
        return self.make(lookup(template.op), tuple(args), attrs)[0]

    def _of_type(self, value: Value, type: TensorType, rule: Rule) -> Value:
        found = value.tensor
        if found == type:
            return value
        if found.dtype is not type.dtype:
            raise InternalError(f"the rule {rule} gives {found} for {type}")
        return self.make(lookup("BroadcastTo"), (value,), {"shape": type.shape})[0]

    def make(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
        """An application of `op`, simplified where a rule fires."""
        full = {**op.attrs, **attrs}
        if op.canonical is not None:
            full = dict(op.canonical(full, [v.tensor for v in inputs]))
        types = infer.types(op, inputs, full)
        if len(types) == 1 and op.name in self.table:
            (type,) = types
            assert isinstance(type, TensorType)
            self.depth += 1
            try:
                value = self.simplified(op, inputs, full, type)
            finally:
                self.depth -= 1
            if value is not None:
                return (value,)
        node = Node(op, inputs, full, types, self.origin)
        self.builder.nodes.append(node)
        return node.outputs

    def constant(self, value: Any, dtype: DType) -> Value:
        array = np.asarray(value).astype(dtype.as_numpy_dtype)
        return self.make(lookup("Const"), (), {"value": array, "dtype": dtype})[0]


def allowed(numerics: str) -> frozenset[str]:
    """Return what rules may preserve under an option `numerics`: "strict", "default" or "fast"."""
    return frozenset({"strict": (EXACT,), "default": (EXACT, ROUNDING), "fast": (EXACT, ROUNDING, FINITE)}[numerics])


def apply_rules(function: Function, table: Mapping[str, Sequence[_Compiled]], numerics: str = "default",
                fired: dict[str, int] | None = None) -> Function:
    """Return `function` with the rules of `table` applied once at every node, operands first, and to what they built.

    fired: receives how often each rule fired, by its text.
    """
    builder = Builder(infer.types)
    rewriting = _Rewriting(table, allowed(numerics), builder, {} if fired is None else fired)
    return rewrite(function, builder, rewriting.node)

