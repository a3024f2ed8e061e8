"""The text of a Function (.gir): the parser.  text.py prints what it reads.

Owns the grammar.  Knows the IR, the ops' names and their inference (types may be left out in texts written by
hand); runs nothing.  Invariant: whatever the text, `parse` gives a Function or raises ParseError with line and column;
its time and memory are bounded by the length of the text.
"""
from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc import dtypes
from graphc.errors import GraphcError, ParseError
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Condition, Function, Node, SymbolSource, Value
from graphc.ir.infer import types as infer_types
from graphc.ir.text import BETWEEN, RESERVED
from graphc.ir.types import HostType, TensorType, Type
from graphc.ops.base import all_ops

T = TypeVar("T")

_TOKENS = re.compile(r'''
    (?P<space>\s+|\#[^\n]*)
  | (?P<string>"(?:[^"\\\n]++|\\.)*+")
  | (?P<float>\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+)
  | (?P<int>\d+)
  | (?P<value>%\w+)
  | (?P<function>@\w+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign>//|==|<=|[-+*%(){}\[\]<>=:,.])
''', re.VERBOSE | re.ASCII)

_DTYPES = {d.name: d for d in dtypes.ALL}
_DEPTH = 64      # of parentheses
_TERMS = 256     # of one size
_BITS = 256      # of a number in a size
_COUNTS = ("num", "num_split")  # attrs that say how many values an op gives
_HOST_KINDS = ("string", "token", "iterator", "queue")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Function:
    """Return the last function of `text`.  Raises ParseError."""
    return _Parser(text).functions()[-1]


class _Parser:
    """A recursive descent over the tokens of one text; `at` is the next token's number."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokenise()
        self.at = 0
        self.depth = 0
        self.known: dict[str, Function] = {}
        self.values: dict[str, Value] = {}

    def _tokenise(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self.text):
            found = _TOKENS.match(self.text, at)
            if found is None:
                self.fail(f"cannot read {self.text[at]!r}", at)
            if found.lastgroup != "space":
                tokens.append(_Token(str(found.lastgroup), found.group(), at))
            at = found.end()
        return [*tokens, _Token("end", "", len(self.text))]

    # -- tokens

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        place = self.tokens[self.at].at if at is None else at
        line = self.text.count("\n", 0, place) + 1
        column = place - self.text.rfind("\n", 0, place)
        raise ParseError(f"line {line}, column {column}: {message}")

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def accept(self, text: str) -> bool:
        """Take the sign or name `text` if it comes next."""
        token = self.next
        if token.text == text and token.kind in ("sign", "name"):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.next.text or 'the end'!r}")

    def take(self, kind: str, what: str) -> str:
        token = self.next
        if token.kind != kind:
            self.fail(f"expected {what}, found {token.text or 'the end'!r}")
        self.at += 1
        return token.text

    def string(self) -> str:
        text = self.take("string", "a string")
        try:
            return str(json.loads(text))
        except ValueError:
            self.at -= 1
            self.fail(f"cannot read the string {text}")

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        text = self.take("int", "an integer")
        if len(text) > 100:
            self.fail("an integer of more than 100 digits")
        return sign * int(text)

    def listed(self, item: Callable[[], T], close: str) -> list[T]:
        """Items between commas up to `close`, which is taken."""
        items: list[T] = []
        while not self.accept(close):
            items.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return items

    # -- functions

    def functions(self) -> list[Function]:
        found = []
        while self.next.kind != "end":
            start = self.at
            f = self.function()
            if f.name in self.known:
                self.fail(f"function @{f.name} is defined twice", self.tokens[start].at)
            self.known[f.name] = f
            found.append(f)
        if not found:
            self.fail("expected 'func'")
        return found

    def function(self) -> Function:
        self.expect("func")
        name = self.take("function", "a function's name")[1:]
        self.values = {}
        self.expect("(")
        feeds, feed_names = self._named(self.listed(self._input, ")"))
        states: tuple[Value, ...] = ()
        state_names: tuple[str, ...] = ()
        if self.accept("states"):
            self.expect("(")
            states, state_names = self._named(self.listed(self._input, ")"))
        self.expect("{")
        sources: list[SymbolSource] = []
        conditions: list[Condition] = []
        nodes: list[Node] = []
        lines: dict[str, str] = {}
        while not self.accept("return"):
            token = self.next
            if token.text == "source":
                sources.append(self._source(feeds))
            elif token.text in BETWEEN:
                conditions.append(self._condition())
            else:
                nodes.append(self._node())
        fetches, fetch_names = self._named(self._results())
        updates: list[Value] = []
        if self.accept("updates"):
            updates = [self._use()]
            while self.accept(","):
                updates.append(self._use())
        if len(updates) != len(states):
            self.fail(f"{len(states)} states have {len(updates)} updates")
        while self.accept("line"):
            op = self.string()
            lines[op] = self.string()
        self.expect("}")
        return Function(name, feeds, tuple(nodes), fetches, states, tuple(updates), feed_names, state_names,
                        fetch_names, tuple(conditions), tuple(sources), lines)

    def _named(self, items: Sequence[tuple[Value, str | None]]) -> tuple[tuple[Value, ...], tuple[str, ...]]:
        names = tuple(n for _, n in items if n is not None)
        if names and len(names) != len(items):
            self.fail("either all of these values have names or none")
        return tuple(v for v, _ in items), names

    def _input(self) -> tuple[Value, str | None]:
        place = self.at
        name = self.take("value", "a value")
        self.expect(":")
        value = Value(self.type())
        self._define(name, value, place)
        return value, self.string() if self.next.kind == "string" else None

    def _define(self, name: str, value: Value, place: int) -> None:
        if name in self.values:
            self.fail(f"{name} is defined twice", self.tokens[place].at)
        self.values[name] = value

    def _use(self) -> Value:
        name = self.take("value", "a value")
        if name not in self.values:
            self.at -= 1
            self.fail(f"{name} is not defined")
        return self.values[name]

    def _results(self) -> list[tuple[Value, str | None]]:
        found: list[tuple[Value, str | None]] = []
        while self.next.kind == "value":
            value = self._use()
            found.append((value, self.string() if self.next.kind == "string" else None))
            if not self.accept(","):
                break
        return found

    def _source(self, feeds: tuple[Value, ...]) -> SymbolSource:
        self.expect("source")
        symbol = self.take("name", "a symbol")
        self.expect("=")
        value = self._use()
        if value not in feeds:
            self.fail("a symbol's source must be a feed")
        self.expect(".")
        if self.accept("axis"):
            return SymbolSource(symbol, feeds.index(value), self._in_brackets())
        self.expect("element")
        return SymbolSource(symbol, feeds.index(value), -1, self._in_brackets())

    def _in_brackets(self) -> int:
        self.expect("(")
        number = self.integer()
        if number < 0:
            self.fail("expected a number that is not negative")
        self.expect(")")
        return number

    def _condition(self) -> Condition:
        kind = self.take("name", "a condition")
        left = self.size()
        self.expect(BETWEEN[kind])
        right = self.size()
        message = self.string()
        self.expect("at")
        return Condition(kind, left, right, message, self.string())

    def _node(self) -> Node:
        start = self.next.at
        names: list[tuple[str, int]] = []
        if self.next.kind == "value":
            while True:
                names.append((self.take("value", "a value"), self.at - 1))
                if not self.accept(","):
                    break
            self.expect("=")
        called = self.take("name", "an op's name")
        op = all_ops().get(called)
        if op is None:
            self.at -= 1
            self.fail(f"unknown op {called!r}")
        self.expect("(")
        inputs = self.listed(self._use, ")")
        attrs: dict[str, Any] = dict(op.attrs)
        if self.accept("{"):
            for name, value in self.listed(self._attr, "}"):
                attrs[name] = value
        for count in _COUNTS:  # before inference makes so many types
            if count in op.attrs and attrs[count] is not op.attrs[count] and attrs[count] != len(names):
                self.fail(f"{op.name} gives {attrs[count]} values, {len(names)} are named", start)
        types: Sequence[Type]
        if self.accept(":"):
            types = [self.type()]
            while self.accept(","):
                types.append(self.type())
        else:
            try:
                types = infer_types(op, inputs, attrs)
            except GraphcError as error:
                self.fail(str(error), start)
            except Exception as error:  # an op's inference on attrs of any kind: told, never hidden
                self.fail(f"{op.name}: its inference failed on these inputs and attrs: {error!r}", start)
        origin: list[str] = []
        if self.accept("from"):
            origin.append(self.string())
            while self.accept(","):
                origin.append(self.string())
        if len(types) != len(names):
            self.fail(f"{op.name} gives {len(types)} values, {len(names)} are named", start)
        node = Node(op, inputs, attrs, types, tuple(origin))
        for (name, place), value in zip(names, node.outputs, strict=True):
            self._define(name, value, place)
        return node

    def _attr(self) -> tuple[str, Any]:
        name = self.take("name", "an attr's name")
        self.expect("=")
        return name, self.attr_value()

    # -- types, sizes and attrs

    def type(self) -> Type:
        if self.accept("host"):
            self.expect("<")
            kind = self.take("name", "a kind of host value")
            if kind not in _HOST_KINDS:
                self.fail(f"unknown kind of host value {kind!r}")
            self.expect(">")
            return HostType(kind)
        name = self.take("name", "a dtype")
        if name not in _DTYPES:
            self.at -= 1
            self.fail(f"unknown dtype {name!r}")
        self.expect("[")
        return TensorType(_DTYPES[name], tuple(self.listed(self.size, "]")))

    def size(self) -> Size:
        start = self.next.at
        value = self._sum()
        if isinstance(value, bool) or not isinstance(value, (int, Dim)):
            self.fail("expected a size", start)
        if isinstance(value, int) and value < 0:
            self.fail("a size is not negative", start)
        return value

    def attr_value(self) -> Any:
        token = self.next
        if token.kind == "string":
            return self.string()
        if token.kind == "function":
            self.at += 1
            if token.text[1:] not in self.known:
                self.fail(f"function {token.text} is not defined before its use", token.at)
            return self.known[token.text[1:]]
        if self.accept("array"):
            return self._array(token.at)
        if self.accept("python"):
            self.fail("a Python function cannot be read back from its name", token.at)
        if self.accept("<"):
            inner = self.type()
            self.expect(">")
            return inner
        return self._sum()

    def _sum(self) -> Any:
        value = self._term()
        while self.next.text in ("+", "-") and self.next.kind == "sign":
            start, sign = self.next.at, self.next.text
            self.at += 1
            other = self._term()
            value = self._apply(sign, value, other, start)
        return value

    def _term(self) -> Any:
        value = self._factor()
        while self.next.text in ("*", "//", "%") and self.next.kind == "sign":
            start, sign = self.next.at, self.next.text
            self.at += 1
            value = self._apply(sign, value, self._factor(), start)
        return value

    def _apply(self, sign: str, a: Any, b: Any, at: int) -> Size:
        for x in (a, b):
            if isinstance(x, bool) or not isinstance(x, (int, Dim)):
                self.fail(f"{sign!r} stands between sizes only", at)
        if sign in ("//", "%") and b == 0:
            self.fail("division by zero", at)
        match sign:
            case "+":
                value = a + b
            case "-":
                value = a - b
            case "*":
                value = a * b
            case "//":
                value = dim.floordiv(a, b)
            case _:
                value = dim.mod(a, b)
        terms = value.terms if isinstance(value, Dim) else (((), value),)
        if len(terms) > _TERMS or any(len(m) > _DEPTH or c.bit_length() > _BITS for m, c in terms):
            self.fail("this size is too long", at)
        return value  # type: ignore[no-any-return]

    def _factor(self) -> Any:
        self.depth += 1
        if self.depth > _DEPTH:
            self.fail("too many parentheses")
        try:
            return self._literal()
        finally:
            self.depth -= 1

    def _literal(self) -> Any:
        token = self.next
        if token.kind == "int":
            return self.integer()
        if token.kind == "float":
            self.at += 1
            return float(token.text)
        if self.accept("("):
            start = self.at
            items = self.listed(self.attr_value, ")")
            comma = self.tokens[self.at - 2].text == "," and self.at - 1 > start
            return items[0] if len(items) == 1 and not comma else tuple(items)
        if self.accept("-"):
            value = self._factor()
            if isinstance(value, bool) or not isinstance(value, (int, float, Dim)):
                self.fail("'-' stands before a number only", token.at)
            return -value
        name = self.take("name", "a value")
        if name in ("min", "max") and self.accept("("):
            a = self.size()
            self.expect(",")
            b = self.size()
            self.expect(")")
            return dim.minimum(a, b) if name == "min" else dim.maximum(a, b)
        if name in _DTYPES:
            return _DTYPES[name]
        words: dict[str, Any] = {"true": True, "false": False, "none": None, "inf": math.inf, "nan": math.nan}
        if name in words:
            return words[name]
        if name in RESERVED:
            self.at -= 1
            self.fail(f"{name!r} is not a value")
        return dim.symbol(name)

    def _array(self, start: int) -> np.ndarray[Any, Any]:
        kind = self.type()
        if not isinstance(kind, TensorType) or not all(isinstance(n, int) for n in kind.shape):
            self.fail("an array has a dtype and known sizes", start)
        dtype = kind.dtype.storage if kind.dtype is not dtypes.bfloat16 else np.dtype(np.float32)
        shape = tuple(int(n) for n in kind.shape)
        if math.prod(max(n, 1) for n in shape) >= 1 << 60 or len(shape) > 32:
            self.fail("an array this large has no memory", start)
        if self.accept("all"):
            return np.broadcast_to(np.asarray(self._elements([self.attr_value()], dtype, start)[0]), shape)
        if self.accept("base64"):
            try:
                data = base64.b64decode(self.string(), validate=True)
            except (binascii.Error, ValueError):
                self.fail("cannot read these base64 bytes", start)
            if len(data) != math.prod(shape) * dtype.itemsize:
                self.fail(f"{len(data)} bytes are given for {kind}", start)
            return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        self.expect("(")
        items = self.listed(self.attr_value, ")")
        if len(items) != math.prod(shape):
            self.fail(f"{len(items)} elements are given for {kind}", start)
        return self._elements(items, dtype, start).reshape(shape)

    def _elements(self, items: list[Any], dtype: np.dtype[Any], start: int) -> np.ndarray[Any, Any]:
        wanted: tuple[type, ...] = {"b": (bool,), "f": (float, int)}.get(dtype.kind, (int,))
        for item in items:
            if not isinstance(item, wanted) or (isinstance(item, bool) and dtype.kind != "b"):
                self.fail(f"{item!r} is not an element of an array of {dtype.name}", start)
        try:
            with np.errstate(over="ignore"):
                return np.array(items, dtype)
        except (OverflowError, ValueError):
            self.fail(f"an element does not fit into {dtype.name}", start)
