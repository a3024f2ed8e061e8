"""The verifier of kernels: everything that ir.py promises, checked.

Owns `verify`.  Knows kernel IR alone.  Invariant: a kernel that passes can be rendered by any backend
without further checks of form; what data decides (bounds, divisors) stays with Guards.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import KernelError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.dependence import independent, separate
from graphc.kernel.ir import (
    COMBINERS,
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
from graphc.kernel.primitives import PRIMITIVES, prim
from graphc.kernel.text import format_expr, format_stmt, short

ROLES = ("in", "out", "inout")
SITE_KINDS = ("index", "division", "assert")
_QUOTE = 300  # characters of a statement that an error shows


def verify(kernel: Kernel) -> None:
    """Check the invariants of kernel IR.  Raises KernelError with the kernel's name and the statement."""
    _Verifier(kernel).run()


class _Verifier:
    """Walks one kernel with the names that are visible at each statement.

    names: the dtype of each visible axis and Var.  buffers: parameters and visible Locals.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.at: Stmt | None = None
        self.buffers = {p.name: (p.dtype, p.shape) for p in kernel.params}
        self.stored: set[str] = set()

    def fail(self, what: str) -> KernelError:
        text = f"kernel {self.kernel.name}: {what}"
        if self.at is not None:
            line = format_stmt(self.at)
            text += f"\n  in: {line if len(line) <= _QUOTE else line[:_QUOTE] + ' ...'}"
        return KernelError(text)

    def run(self) -> None:
        k = self.kernel
        taken = [p.name for p in k.params] + list(k.sizes)
        if len(set(taken)) != len(taken):
            raise self.fail("two parameters or sizes have the same name")
        for p in k.params:
            if p.role not in ROLES:
                raise self.fail(f"parameter {p.name} has the role {p.role!r}")
            self.sizes(p.shape)
        for s in k.sites:
            if s.kind not in SITE_KINDS:
                raise self.fail(f"a site has the kind {s.kind!r}")
        roles = {p.name: p for p in k.params}
        for out, source in k.aliases:
            if out not in roles or source not in roles or roles[out].role == "in" or roles[source].role != "in":
                raise self.fail(f"alias {out} = {source} is not between an output and an input")
            if roles[out].dtype.size != roles[source].dtype.size:
                raise self.fail(f"alias {out} = {source} is between elements of different size")
        self.block(k.body, dict.fromkeys(k.sizes, dtypes.int64))
        for p in k.params:
            if p.role != "in" and p.name not in self.stored:
                raise self.fail(f"{p.role} parameter {p.name} is never stored")

    def sizes(self, shape: Iterable[Size]) -> None:
        unknown = dim.symbols_of(shape) - set(self.kernel.sizes)
        if unknown:
            raise self.fail(f"size {', '.join(sorted(unknown))} is not among the kernel's sizes")

    def bind(self, names: dict[str, DType], name: str, dtype: DType) -> None:
        if name in names or name in self.buffers:
            raise self.fail(f"{name} is bound twice")
        names[name] = dtype

    # -- statements -----------------------------------------------------------------------------

    def block(self, body: walk.Block, names: dict[str, DType]) -> None:
        """Check statements under the visible `names`; what they bind is visible until the block ends."""
        visible, before = dict(names), dict(self.buffers)
        for s in body:
            self.at = s
            self.statement(s, visible)
        self.buffers = before

    def statement(self, s: Stmt, names: dict[str, DType]) -> None:
        match s:
            case For(axis, extent, body, parallel):
                self.extent(extent, names)
                self.block(body, self.with_axes(names, (axis,)))
                self.at = s
                if parallel and not independent(s):
                    raise self.fail(f"iterations of the parallel loop over {axis} may store to the same element")
            case Let(name, value):
                self.expression(value, names)
                self.bind(names, name, value.dtype)
            case Store(buffer, index, value, predicate):
                self.target(buffer, index, value, names)
                if predicate is not None:
                    self.expression(predicate, names, dtypes.bool_)
            case Scatter(buffer, index, value, mode):
                if mode not in ("set", "add"):
                    raise self.fail(f"scatter has the mode {mode!r}")
                self.target(buffer, index, value, names)
            case Reduce():
                self.reduce(s, names)
            case Scan():
                self.scan(s, names)
            case Local(name, dtype, shape, scope):
                if scope not in ("row", "block"):
                    raise self.fail(f"local {name} has the scope {scope!r}")
                if name in names or name in self.buffers:
                    raise self.fail(f"{name} is bound twice")
                self.sizes(shape)
                self.buffers[name] = (dtype, shape)
            case If(condition, then, orelse):
                self.expression(condition, names, dtypes.bool_)
                self.block(then, names)
                self.block(orelse, names)
            case While():
                self.loop_while(s, names)
            case Contract():
                self.contract(s, names)

    def with_axes(self, names: dict[str, DType], axes: Iterable[str]) -> dict[str, DType]:
        inner = dict(names)
        for axis in axes:
            self.bind(inner, axis, dtypes.int64)
        return inner

    def extent(self, extent: Expr, names: dict[str, DType]) -> None:
        self.expression(extent, names, dtypes.int64)

    def target(self, buffer: str, index: tuple[Expr, ...], value: Expr, names: dict[str, DType]) -> None:
        if any(p.name == buffer and p.role == "in" for p in self.kernel.params):
            raise self.fail(f"{buffer} is an input and cannot be stored")
        self.index(buffer, index)
        for e in index:
            self.expression(e, names, dtypes.int64)
        self.expression(value, names, self.buffers[buffer][0])
        self.stored.add(buffer)

    def index(self, buffer: str, index: tuple[Expr, ...]) -> None:
        if buffer not in self.buffers:
            raise self.fail(f"there is no buffer {buffer}")
        rank = len(self.buffers[buffer][1])
        if len(index) != rank:
            raise self.fail(f"{buffer} has {rank} axes and is indexed by {len(index)} expressions")
        for e in index:
            if e.dtype is not dtypes.int64:
                raise self.fail(f"index {format_expr(e)} of {buffer} is {short(e.dtype)}, not i64")

    def combiner(self, combiner: str, value: Expr) -> None:
        if combiner not in COMBINERS:
            raise self.fail(f"there is no combiner {combiner!r}")
        dtype = value.dtype
        if combiner in ("any", "all"):
            good = dtype.is_bool
        else:
            good = not dtype.is_bool and not (dtype.is_floating and dtype.size < 4)
        if not good:
            raise self.fail(f"combiner {combiner} cannot take {short(dtype)}")

    def reduce(self, s: Reduce, names: dict[str, DType]) -> None:
        self.extent(s.extent, names)
        if not all(isinstance(t, Let | Reduce) for t in s.body):
            raise self.fail("the body of a reduce holds more than Lets and Reduces")
        expected = sum(COMBINERS.get(c, 1) for c in s.combiners)
        if len(s.names) != expected or len(s.values) != expected:
            raise self.fail(f"combiners {', '.join(s.combiners)} take {expected} names and values")
        inner = self.with_axes(names, (s.axis,))
        before = dict(self.buffers)
        for t in s.body:
            self.at = t
            self.statement(t, inner)
        self.at, self.buffers = s, before
        at = 0
        for c in s.combiners:
            self.combiner(c, s.values[at])
            if COMBINERS[c] == 2 and s.values[at + 1].dtype is not dtypes.int64:
                raise self.fail(f"the index of {c} is {short(s.values[at + 1].dtype)}, not i64")
            at += COMBINERS[c]
        for value in s.values:
            self.expression(value, inner)
        for name, value in zip(s.names, s.values, strict=True):
            self.bind(names, name, value.dtype)

    def scan(self, s: Scan, names: dict[str, DType]) -> None:
        self.extent(s.extent, names)
        self.combiner(s.combiner, s.value)
        if COMBINERS[s.combiner] != 1:
            raise self.fail(f"a scan cannot combine with {s.combiner}")
        inner = self.with_axes(names, (s.axis,))
        before = dict(self.buffers)
        for t in s.body:
            self.at = t
            self.statement(t, inner)
        self.at = s
        self.expression(s.value, inner)
        for name in (s.name, s.name + "_before"):
            self.bind(inner, name, s.value.dtype)
        self.block(s.then, inner)
        self.at, self.buffers = s, before
        self.bind(names, s.name, s.value.dtype)

    def loop_while(self, s: While, names: dict[str, DType]) -> None:
        if not len(s.names) == len(s.initial) == len(s.next):
            raise self.fail("a while has as many initial and next values as names")
        inner = dict(names)
        for name, value in zip(s.names, s.initial, strict=True):
            self.expression(value, names)
            self.bind(inner, name, value.dtype)
        self.expression(s.condition, inner, dtypes.bool_)
        before = dict(self.buffers)
        for t in s.body:
            self.at = t
            self.statement(t, inner)
        self.at, self.buffers = s, before
        for first, after in zip(s.initial, s.next, strict=True):
            self.expression(after, inner, first.dtype)
        for name, value in zip(s.names, s.initial, strict=True):
            self.bind(names, name, value.dtype)

    def contract(self, s: Contract, names: dict[str, DType]) -> None:
        axes = walk.axes_of(s)
        for _, extent in axes:
            self.extent(extent, names)
        inner = self.with_axes(names, (axis for axis, _ in axes))
        m, n, k = ({axis for axis, _ in group} for group in (s.m, s.n, s.k))
        for what, operand, foreign in (("a", s.a, n), ("b", s.b, m)):
            self.expression(operand, inner, s.acc_dtype)
            if walk.free_axes(operand) & foreign:
                raise self.fail(f"operand {what} of the contract reads an axis of the other operand")
        if s.acc_dtype.is_bool or (s.acc_dtype.is_floating and s.acc_dtype.size < 4):
            raise self.fail(f"a contract cannot accumulate in {short(s.acc_dtype)}")
        if not all(isinstance(t, Let | If | Store) for t in walk.statements(s.body)):
            raise self.fail("the body of a contract holds more than Lets, Ifs and Stores")
        kept = {name: dtype for name, dtype in inner.items() if name not in k}
        self.bind(kept, s.acc, s.acc_dtype)
        self.block(s.body, kept)
        self.at = s
        rest = [pair for pair in axes if pair[0] not in k]
        while rest:  # two points differ along some axis first, and are equal along those taken before it
            taken = next((pair for pair in rest if self.apart(pair, rest, s.body)), None)
            if taken is None:
                raise self.fail(f"points of the contract along {rest[0][0]} may store to the same element")
            rest.remove(taken)

    def apart(self, axis: tuple[str, Expr], axes: Iterable[tuple[str, Expr]], body: walk.Block) -> bool:
        """Return whether points that differ along `axis` store to different elements, whatever the others do."""
        for other, count in axes:
            if other != axis[0]:
                body = (For(other, count, body),)
        return separate(*axis, body)

    # -- expressions ----------------------------------------------------------------------------

    def expression(self, root: Expr, names: dict[str, DType], dtype: DType | None = None) -> None:
        """Check `root` and everything under it; with `dtype`, that it has this one."""
        for e in walk.postorder((root,)):
            self.node(e, names)
        if dtype is not None and root.dtype is not dtype:
            raise self.fail(f"{self.quote(root)} is {short(root.dtype)}, not {short(dtype)}")

    def quote(self, e: Expr) -> str:
        text = format_expr(e)
        return text if len(text) <= _QUOTE else text[:_QUOTE] + " ..."

    def node(self, e: Expr, names: dict[str, DType]) -> None:
        match e:
            case Const(value, dtype):
                if not _holds(dtype, value):
                    raise self.fail(f"{value!r} is not a value of {short(dtype)}")
            case Axis(name) | Var(name=name):
                if name not in names:
                    raise self.fail(f"{name} is not bound here")
                if names[name] is not e.dtype:
                    raise self.fail(f"{name} is {short(names[name])}, used as {short(e.dtype)}")
            case SizeOf(size):
                self.sizes((size,))
            case Load(buffer=buffer, index=index, dtype=dtype, predicate=predicate, other=other):
                self.index(buffer, index)
                if dtype is not self.buffers[buffer][0]:
                    raise self.fail(f"{buffer} is {short(self.buffers[buffer][0])}, loaded as {short(dtype)}")
                if (predicate is None) != (other is None):
                    raise self.fail(f"load of {buffer} has a predicate or another value, not both")
                if predicate is not None and not predicate.dtype.is_bool:
                    raise self.fail(f"predicate of the load of {buffer} is {short(predicate.dtype)}")
                if other is not None and other.dtype is not dtype:
                    raise self.fail(f"other value of the load of {buffer} is {short(other.dtype)}, not {short(dtype)}")
            case Prim():
                self.primitive(e)
            case Guard(value, ok, fallback, site):
                if not 0 <= site < len(self.kernel.sites):
                    raise self.fail(f"guard names the site {site} of {len(self.kernel.sites)}")
                if not ok.dtype.is_bool or fallback.dtype is not value.dtype:
                    raise self.fail(f"guard of {self.quote(value)} has a wrong condition or fallback")
            case Random(low, high, key, lane):
                if {low.dtype, high.dtype, key.dtype} != {dtypes.uint64} or lane.dtype is not dtypes.int64:
                    raise self.fail("a random word takes three u64 and one i64")

    def primitive(self, e: Prim) -> None:
        rule = PRIMITIVES.get(e.op)
        if rule is None:
            raise self.fail(f"there is no primitive {e.op!r}")
        if len(e.args) != rule.arity:
            raise self.fail(f"{e.op} takes {rule.arity} argument(s), not {len(e.args)}")
        if rule.result == "cast":
            if e.op == "bitcast" and e.args[0].dtype.size != e.dtype.size:
                raise self.fail(f"bitcast from {short(e.args[0].dtype)} to {short(e.dtype)} changes the width")
            return
        try:
            checked = prim(e.op, *e.args)
        except TypeError as error:
            raise self.fail(str(error)) from None
        if checked.dtype is not e.dtype:
            raise self.fail(f"{e.op} of {short(e.args[0].dtype)} is not {short(e.dtype)}")


def _holds(dtype: DType, value: object) -> bool:
    if dtype.is_bool:
        return isinstance(value, bool)
    if dtype.is_floating:
        return isinstance(value, float)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    info = np.iinfo(dtype.as_numpy_dtype)
    return int(info.min) <= value <= int(info.max)
