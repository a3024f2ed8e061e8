"""Kernel IR printed as Python source that Numba compiles: plain loops over pointers, one scalar at a time.

Owns the printer of statements, memory and expressions; numba_cpu and numba_cuda share it.  Imports
neither Numba nor a GPU package, and knows no schedule.
Invariants: every printed value has exactly the type of its expression; one Python name has one type; an
expression that is long or used twice gets a name, so that nothing nests deeply.
"""
from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphc.backends.python_scalars import (
    LIBRARY_NAMES,
    MATH,
    ROUNDING,
    SCALARS,
    bare,
    converted,
    from_float32,
    identity,
    literal,
    memory_type,
    reinterpreted,
    to_float32,
    wrapped,
)
from graphc.dtypes import DType
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
)

_RESERVED = frozenset((
    *keyword.kwlist, *MATH, *ROUNDING, *SCALARS, *LIBRARY_NAMES, *(f"{p}_{s}" for s in SCALARS
                                                                 for p in ("bits", "to", "pointer")),
    "fma", "maximum", "minimum", "min", "max", "abs", "range", "inf", "nan", "cuda", "device", "math", "status",
    "begin", "end", "buffers", "sizes", "worker", "scratch", "item", "own"))
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "eq": "==", "ne": "!=", "lt": "<",
          "le": "<="}
_LONGEST = 72  # characters of an expression before it gets a name of its own


@dataclass(frozen=True, slots=True)
class Work:
    """The loops that become work items: (axis, extent) outermost first, the Lets before them, their body."""

    axes: tuple[tuple[str, Size], ...]
    before: walk.Block
    body: walk.Block


def work_of(kernel: Kernel, depth: int | None = None) -> Work:
    """Return the outermost perfectly nested parallel loops (at most `depth`), a Contract's kept axes included."""
    at = len(kernel.body) - 1
    axes: list[tuple[str, Size]] = []
    inner = kernel.body[at:]
    if at < 0 or not all(isinstance(s, Let) for s in kernel.body[:at]):
        return Work((), (), kernel.body)
    while len(inner) == 1 and (depth is None or len(axes) < depth):
        match inner[0]:
            case For(axis=axis, extent=extent, body=body, parallel=True):
                count = walk.as_size(extent)
                if count is None:
                    break
                axes.append((axis, count))
                inner = body
            case Contract() as contract:
                inner = (_contract_loops(contract),)
                if isinstance(inner[0], Contract):
                    break
            case _:
                break
    return Work(tuple(axes), kernel.body[:at], inner) if axes else Work((), (), kernel.body)


def _contract_loops(s: Contract) -> Stmt:
    """Return a Contract as parallel loops around one without kept axes; itself where it has none."""
    kept = s.batch + s.m + s.n
    inner: Stmt = Contract((), (), (), s.k, s.a, s.b, s.acc, s.acc_dtype, s.body)
    for axis, extent in reversed(kept):
        inner = For(axis, extent, (inner,), True)
    return inner if kept else s


@dataclass(slots=True)
class Printer:
    """Prints statements as lines of Python.  fail: the statement for a failing site (site + 1 given).

    An expression prints as an atom, a call or in parentheses, so that it can stand anywhere.
    names: the Python name of each visible axis, Var and buffer.  scratch: bytes of Locals so far;
    scratch_base: the Python name of the offset at which they begin, "" for 0.
    """

    kernel: Kernel
    fail: Callable[[int], str]
    scratch_base: str = ""
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    types: dict[str, DType] = field(default_factory=dict)
    shapes: dict[str, tuple[Size, ...]] = field(default_factory=dict)
    scratch: Size = 0
    _depth: int = 1
    _used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name in self.kernel.sizes:
            self.names[name] = self.fresh(name)
        for p in self.kernel.params:
            self.names[p.name] = self.fresh(p.name)
            self.types[p.name], self.shapes[p.name] = p.dtype, p.shape

    # -- lines and names ------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Add one line at the current depth."""
        self.lines.append("    " * self._depth + text)

    @contextmanager
    def inside(self, head: str) -> Iterator[None]:
        """Print `head` and what follows one level deeper; names bound there end there."""
        self.line(head)
        self._depth += 1
        kept, start = dict(self.names), len(self.lines)
        yield
        if len(self.lines) == start:
            self.line("pass")
        self.names = kept
        self._depth -= 1

    def fresh(self, name: str) -> str:
        """Return a Python name like `name` that nothing else has."""
        base = re.sub(r"\W", "_", name)
        if base in _RESERVED or not base or base[0].isdigit() or base.startswith("_"):
            base = "v_" + base
        candidate, n = base, 1
        while candidate in self._used:
            candidate, n = f"{base}_{n}", n + 1
        self._used.add(candidate)
        return candidate

    def bind(self, name: str) -> str:
        """Make `name` visible under a fresh Python name, and return that."""
        self.names[name] = self.fresh(name)
        return self.names[name]

    def size(self, s: Size) -> str:
        """Return a size as Python: an atom or in parentheses."""
        if isinstance(s, int):
            return str(s)
        binding: dict[str, Size] = {n: dim.symbol(self.names[n]) for n in s.symbols()}
        text = str(s.substitute(binding))
        return text if s.is_symbol else f"({text})"

    # -- statements -----------------------------------------------------------------------------

    def block(self, body: walk.Block) -> None:
        """Print statements."""
        for s in body:
            self.statement(s)

    def statement(self, s: Stmt) -> None:
        match s:
            case For(axis, extent, body):
                with self.loop(axis, extent):
                    self.block(body)
            case Let(name, value):
                text = self.value(value)
                self.line(f"{self.bind(name)} = {bare(text)}")
            case Store(buffer, index, value, predicate):
                *at, text = self.values([*index, value])
                if predicate is None:
                    self.line(f"{self.element(buffer, at)} = {bare(self.stored(text, value.dtype))}")
                else:
                    with self.inside(f"if {bare(self.value(predicate))}:"):
                        self.line(f"{self.element(buffer, at)} = {bare(self.stored(text, value.dtype))}")
            case Scatter(buffer, index, value, mode):
                *at, text = self.values([*index, value])
                if mode == "add":
                    old = self.loaded(self.element(buffer, at), value.dtype)
                    text = self.added(old, text, value.dtype)
                self.line(f"{self.element(buffer, at)} = {bare(self.stored(text, value.dtype))}")
            case Reduce():
                self.reduce(s)
            case Scan():
                self.scan(s)
            case Local(name, dtype, shape):
                self.local(name, dtype, shape)
            case If(condition, then, orelse):
                with self.inside(f"if {bare(self.value(condition))}:"):
                    self.block(then)
                if orelse:
                    with self.inside("else:"):
                        self.block(orelse)
            case While():
                self.loop_while(s)
            case Contract():
                self.contract(s)

    @contextmanager
    def loop(self, axis: str, extent: Expr) -> Iterator[str]:
        """Print a loop over an axis; yields the axis' Python name."""
        count = self.value(extent)
        name = self.fresh(axis)
        with self.inside(f"for {name} in range({count}):"):
            self.names[axis] = name
            yield name

    def reduce(self, s: Reduce) -> None:
        states = [self.fresh(n) for n in s.names]
        at = 0
        for c in s.combiners:
            self.line(f"{states[at]} = {identity(c, s.values[at].dtype)}")
            at += 1
            if c in ("argmax", "argmin"):
                self.line(f"{states[at]} = 0")
                at += 1
        with self.loop(s.axis, s.extent) as axis:
            self.block(s.body)
            values = self.values(s.values)
            at = 0
            for c in s.combiners:
                state, value, dtype = states[at], values[at], s.values[at].dtype
                if c in ("argmax", "argmin"):
                    new = self.fresh("candidate")
                    self.line(f"{new} = {value}")
                    order = ">" if c == "argmax" else "<"
                    nan = f" or ({new} != {new} and {state} == {state})" if dtype.is_floating else ""
                    with self.inside(f"if {axis} == 0 or {new} {order} {state}{nan}:"):
                        self.line(f"{state} = {new}")
                        self.line(f"{states[at + 1]} = {values[at + 1]}")
                    at += 2
                else:
                    self.line(f"{state} = {bare(self.combined(c, state, value, dtype))}")
                    at += 1
        self.names.update(zip(s.names, states, strict=True))

    def scan(self, s: Scan) -> None:
        dtype = s.value.dtype
        state = self.fresh(s.name)
        self.line(f"{state} = {identity(s.combiner, dtype)}")
        count = self.value(s.extent)
        axis = self.fresh(s.axis)
        steps = f"{count} - 1, -1, -1" if s.reverse else count
        with self.inside(f"for {axis} in range({steps}):"):
            self.names[s.axis] = axis
            self.block(s.body)
            value = self.value(s.value)
            self.line(f"{self.bind(s.name + '_before')} = {state}")
            self.line(f"{state} = {bare(self.combined(s.combiner, state, value, dtype))}")
            self.names[s.name] = state
            self.block(s.then)
        self.names[s.name] = state

    def local(self, name: str, dtype: DType, shape: tuple[Size, ...]) -> None:
        offset = self.size(self.scratch)
        self.scratch = self.scratch + dim.ceildiv(dim.product(shape) * dtype.size, 64) * 64
        self.types[name], self.shapes[name] = dtype, shape
        start = f"{self.scratch_base} + {offset}" if self.scratch_base else offset
        self.line(f"{self.bind(name)} = pointer_{memory_type(dtype)}(scratch, {start})")

    def loop_while(self, s: While) -> None:
        states = [self.fresh(n) for n in s.names]
        for state, text in zip(states, self.values(s.initial), strict=True):
            self.line(f"{state} = {text}")
        with self.inside("while True:"):
            self.names.update(zip(s.names, states, strict=True))
            condition = self.value(s.condition)
            with self.inside(f"if not {condition}:"):
                self.line("break")
            self.block(s.body)
            values = self.values(s.next)
            self.line(f"{', '.join(states)} = {', '.join(values)}")
        self.names.update(zip(s.names, states, strict=True))

    def contract(self, s: Contract) -> None:
        if s.batch or s.m or s.n:
            self.statement(_contract_loops(s))
            return
        acc = self.fresh(s.acc)
        self.line(f"{acc} = {literal(0, s.acc_dtype)}")
        self._contract_steps(s, s.k, acc)
        self.names[s.acc] = acc
        self.block(s.body)

    def _contract_steps(self, s: Contract, axes: tuple[tuple[str, Expr], ...], acc: str) -> None:
        if axes:
            with self.loop(*axes[0]):
                self._contract_steps(s, axes[1:], acc)
            return
        a, b = self.values((s.a, s.b))
        product = f"{a} * {b}"
        self.line(f"{acc} = {bare(self.added(acc, product, s.acc_dtype))}")

    # -- memory and combination -----------------------------------------------------------------

    def element(self, buffer: str, index: Sequence[str]) -> str:
        """Return `buffer[...]` at the row-major position of `index`."""
        terms = []
        for text, stride in zip(index, walk.strides(self.shapes[buffer]), strict=True):
            if text == "0" or stride == 0:
                continue
            terms.append(text if stride == 1 else f"{text} * {self.size(stride)}")
        return f"{self.names[buffer]}[{' + '.join(terms) or '0'}]"

    def loaded(self, element: str, dtype: DType) -> str:
        return f"({element} != 0)" if dtype.is_bool else element

    def stored(self, text: str, dtype: DType) -> str:
        return f"uint8({bare(text)})" if dtype.is_bool else text

    def added(self, a: str, b: str, dtype: DType) -> str:
        if dtype.is_floating and dtype.size < 4:
            return from_float32(f"({to_float32(a, dtype)} + {to_float32(b, dtype)})", dtype)
        return wrapped(f"{a} + {b}", dtype)

    def combined(self, combiner: str, a: str, b: str, dtype: DType) -> str:
        match combiner:
            case "sum":
                return self.added(a, b, dtype)
            case "prod":
                return wrapped(f"{a} * {b}", dtype)
            case "max" | "min":
                return f"{combiner}imum({a}, {b})" if dtype.is_floating else wrapped(f"{combiner}({a}, {b})", dtype)
            case _:
                return f"{a} {'|' if combiner == 'any' else '&'} {b}"

    # -- expressions ----------------------------------------------------------------------------

    def value(self, e: Expr) -> str:
        """Return an expression as Python; what is shared or long is printed before, under a name."""
        return self.values([e])[0]

    def values(self, roots: Sequence[Expr]) -> list[str]:
        """Return several expressions as Python, shared parts printed once."""
        uses: dict[int, int] = {}
        order = list(walk.postorder(roots))
        for e in order:
            for c in walk.children(e):
                uses[id(c)] = uses.get(id(c), 0) + 1
        for e in roots:
            uses[id(e)] = uses.get(id(e), 0) + 1
        done: dict[int, str] = {}
        for e in order:
            text = self.node(e, lambda c: done[id(c)])
            is_name = isinstance(e, Const | Axis | Var | SizeOf)
            if not is_name and (uses[id(e)] > 1 or len(text) > _LONGEST):
                name = self.fresh("t")
                self.line(f"{name} = {bare(text)}")
                text = name
            done[id(e)] = text
        return [done[id(e)] for e in roots]

    def node(self, e: Expr, of: Callable[[Expr], str]) -> str:
        match e:
            case Const(value, dtype):
                return literal(value, dtype)
            case Axis(name) | Var(name=name):
                return self.names[name]
            case SizeOf(size):
                return self.size(size)
            case Load(buffer=buffer, index=index, dtype=dtype, predicate=None):
                return self.loaded(self.element(buffer, [of(i) for i in index]), dtype)
            case Load(buffer=buffer, index=index, dtype=dtype, predicate=p, other=other) if p and other:
                element = self.loaded(self.element(buffer, [of(i) for i in index]), dtype)
                return f"({element} if {of(p)} else {of(other)})"
            case Guard(value, ok, fallback, site):
                holds = self.fresh("ok")
                self.line(f"{holds} = {bare(of(ok))}")
                with self.inside(f"if not {holds}:"):
                    self.line(self.fail(site + 1))
                return f"({of(value)} if {holds} else {of(fallback)})"
            case Random(low, high, key, lane):
                return f"philox({of(low)}, {of(high)}, {of(key)}, {of(lane)})"
            case Prim():
                return self.primitive(e, [of(a) for a in e.args])
            case _:
                raise BackendError(f"kernel {self.kernel.name}: {type(e).__name__} cannot be printed as Python")

    def primitive(self, e: Prim, args: list[str]) -> str:
        """Return a primitive applied to printed arguments; atoms or in parentheses, so that it can nest."""
        source, op = e.args[-1].dtype, e.op
        match op, args:
            case "cast", [x]:
                return converted(x, source, e.dtype)
            case "bitcast", [x]:
                return reinterpreted(x, source, e.dtype)
            case "select", [c, a, b]:
                return f"({a} if {c} else {b})"
            case "not", [x]:
                return f"(not {x})" if source.is_bool else wrapped(f"~{x}", source)
            case "xor", [a, b]:
                return f"({a} != {b})" if source.is_bool else wrapped(f"{a} ^ {b}", source)
            case ("shl" | "shr"), [a, b]:
                amount = f"({b} & {literal(source.bits - 1, source)})"
                return wrapped(f"{a} {'<<' if op == 'shl' else '>>'} {amount}", source)
            case "neg", [x]:
                zero = literal(0, source) + " " if source.is_unsigned else ""
                return wrapped(f"{zero}-{x}", source)
            case "abs", [x]:
                return x if source.is_unsigned else wrapped(f"abs({x})", source)
            case ("max" | "min"), [a, b]:
                return f"{op}imum({a}, {b})" if source.is_floating else wrapped(f"{op}({a}, {b})", source)
            case "truncmod", [a, b] if source.is_floating:
                return f"fmod({a}, {b})"
            case ("floordiv" | "floormod" | "truncdiv" | "truncmod"), [a, b]:
                name = op if not source.is_unsigned else f"floor{op[-3:]}_unsigned"
                return wrapped(f"{name}({a}, {b})", source)
            case _ if op in _INFIX:
                text = f"{args[0]} {_INFIX[op]} {args[1]}"
                return f"({text})" if e.dtype.is_bool else wrapped(text, e.dtype)
            case _ if op in MATH or op in ROUNDING or op == "fma":
                return f"{op}({', '.join(map(bare, args))})"
            case _:
                raise BackendError(f"kernel {self.kernel.name}: primitive {op} cannot be printed as Python")
