"""Walks over kernel IR: visit, collect, rewrite, and the affine reading of indices.

Owns the traversals that every user of kernel IR shares.  Knows no backend.  Invariants: nothing here
recurses over expressions (a fused chain may be thousands of nodes deep) and a shared subexpression is
visited once, so memos are keyed by identity and live for one call; statements nest no deeper than the
loops of a kernel, so walks over statements may recurse.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from graphc import dtypes
from graphc.ir import dim
from graphc.ir.dim import Size
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

Block: TypeAlias = tuple[Stmt, ...]
Loop: TypeAlias = For | Reduce | Scan

_LEAVES = frozenset((Const, Axis, SizeOf, Var))

# ---------------------------------------------------------------------------------------------
# Expressions.


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct subexpressions of `expr`."""
    kind = type(expr)  # a compilation asks millions of times, mostly for leaves
    if kind in _LEAVES:
        return ()
    match expr:
        case Prim(args=args):
            return args
        case Load(index=index, predicate=predicate, other=other):
            return index if predicate is None and other is None else index + tuple(
                e for e in (predicate, other) if e is not None)
        case Guard(value=value, ok=ok, fallback=fallback):
            return value, ok, fallback
        case Random(counter_low=low, counter_high=high, key=key, lane=lane):
            return low, high, key, lane
        case _:
            return ()


def with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """Return `expr` with its direct subexpressions replaced; `expr` itself where none differs."""
    if all(a is b for a, b in zip(children(expr), new, strict=True)):
        return expr
    match expr:
        case Prim():
            return Prim(expr.op, new, expr.dtype)
        case Load():
            rest = iter(new[len(expr.index):])
            predicate = next(rest) if expr.predicate is not None else None
            other = next(rest) if expr.other is not None else None
            return Load(expr.buffer, new[:len(expr.index)], expr.dtype, predicate, other)
        case Guard():
            return Guard(new[0], new[1], new[2], expr.site)
        case Random():
            return Random(*new)
        case _:
            return expr


def postorder(roots: Iterable[Expr]) -> list[Expr]:
    """Return every expression under `roots` once (by identity), subexpressions first."""
    found: list[Expr] = []
    seen: set[int] = set()
    stack: list[Expr | None] = list(roots)
    stack.reverse()
    while stack:
        expr = stack.pop()
        if expr is None:  # the one below has all its subexpressions
            found.append(stack.pop())  # type: ignore[arg-type]
        elif id(expr) not in seen:
            seen.add(id(expr))
            inner = children(expr)
            if inner:
                stack += (expr, None, *inner[::-1])
            else:
                found.append(expr)
    return found


def map_expr(root: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """Return `root` rewritten bottom-up: f sees each node with its new children and returns its successor."""
    done: dict[int, Expr] = {}
    for expr in postorder((root,)):
        done[id(expr)] = f(with_children(expr, tuple(done[id(c)] for c in children(expr))))
    return done[id(root)]


def substitute(root: Expr, axes: Mapping[str, Expr] | None = None, names: Mapping[str, Expr] | None = None) -> Expr:
    """Return `root` with each Axis in `axes` and each Var in `names` replaced (simultaneously)."""
    return map_expr(root, _substitution(axes or {}, names or {}))


def _substitution(axes: Mapping[str, Expr], names: Mapping[str, Expr]) -> Callable[[Expr], Expr]:
    def f(expr: Expr) -> Expr:
        match expr:
            case Axis(name):
                return axes.get(name, expr)
            case Var(name=name):
                return names.get(name, expr)
            case _:
                return expr
    return f


def free_axes(*roots: Expr) -> frozenset[str]:
    """Return the names of all axes that `roots` read directly (not through Vars)."""
    return frozenset(e.name for e in postorder(roots) if isinstance(e, Axis))


def free_vars(*roots: Expr) -> frozenset[str]:
    """Return the names of all Vars in `roots`."""
    return frozenset(e.name for e in postorder(roots) if isinstance(e, Var))


# ---------------------------------------------------------------------------------------------
# Statements.


def axes_of(contract: Contract) -> tuple[tuple[str, Expr], ...]:
    """Return all (axis, extent) pairs of a Contract: batch, m, n, k."""
    return contract.batch + contract.m + contract.n + contract.k


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """Return the expressions that belong to `stmt` itself, not to its inner blocks."""
    match stmt:
        case For(extent=extent):
            return (extent,)
        case Let(value=value):
            return (value,)
        case Store(index=index, value=value, predicate=predicate):
            return (*index, value) if predicate is None else (*index, value, predicate)
        case Reduce(extent=extent, values=values):
            return (extent, *values)
        case Scan(extent=extent, value=value):
            return extent, value
        case If(condition=condition):
            return (condition,)
        case While(initial=initial, condition=condition, next=after):
            return (*initial, condition, *after)
        case Scatter(index=index, value=value):
            return (*index, value)
        case Contract(a=a, b=b):
            return (*(extent for _, extent in axes_of(stmt)), a, b)
        case Local():
            return ()


def blocks(stmt: Stmt) -> tuple[Block, ...]:
    """Return the inner blocks of `stmt`, in the order in which they run."""
    match stmt:
        case For(body=body) | Reduce(body=body) | While(body=body) | Contract(body=body):
            return (body,)
        case Scan(body=body, then=then):
            return body, then
        case If(then=then, orelse=orelse):
            return then, orelse
        case _:
            return ()


def statements(body: Block) -> Iterator[Stmt]:
    """Yield every statement of `body` and its inner blocks, in preorder."""
    stack = list(reversed(body))
    while stack:
        stmt = stack.pop()
        yield stmt
        for block in reversed(blocks(stmt)):
            stack.extend(reversed(block))


def loops(body: Block) -> Iterator[Loop]:
    """Yield every For, Reduce and Scan in preorder: the order of `Schedule.loops`."""
    return (s for s in statements(body) if isinstance(s, For | Reduce | Scan))


def all_expressions(body: Block) -> list[Expr]:
    """Return every expression in `body`, each object once, subexpressions first."""
    return postorder(e for s in statements(body) for e in expressions(s))


def map_expressions(body: Block, f: Callable[[Expr], Expr]) -> Block:
    """Return `body` with every whole expression e of its statements replaced by f(e)."""
    return tuple(_map_stmt(s, f) for s in body)


def _map_stmt(s: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    def many(values: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(f(v) for v in values)

    def extents(pairs: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...]:
        return tuple((axis, f(extent)) for axis, extent in pairs)

    def inner(block: Block) -> Block:
        return map_expressions(block, f)

    match s:
        case For():
            return replace(s, extent=f(s.extent), body=inner(s.body))
        case Let():
            return Let(s.name, f(s.value))
        case Store():
            return Store(s.buffer, many(s.index), f(s.value), None if s.predicate is None else f(s.predicate))
        case Reduce():
            return replace(s, extent=f(s.extent), body=inner(s.body), values=many(s.values))
        case Scan():
            return replace(s, extent=f(s.extent), body=inner(s.body), value=f(s.value), then=inner(s.then))
        case Local():
            return s
        case If():
            return If(f(s.condition), inner(s.then), inner(s.orelse))
        case While():
            return While(s.names, many(s.initial), f(s.condition), inner(s.body), many(s.next))
        case Scatter():
            return Scatter(s.buffer, many(s.index), f(s.value), s.mode)
        case Contract():
            return replace(s, batch=extents(s.batch), m=extents(s.m), n=extents(s.n), k=extents(s.k),
                           a=f(s.a), b=f(s.b), body=inner(s.body))


def substitute_body(body: Block, axes: Mapping[str, Expr] | None = None,
                    names: Mapping[str, Expr] | None = None) -> Block:
    """Return `body` with free axes and Vars replaced.  The caller makes sure that nothing inside binds
    the same names."""
    f = _substitution(axes or {}, names or {})
    return map_expressions(body, lambda e: map_expr(e, f))


def bound_names(stmt: Stmt) -> tuple[str, ...]:
    """Return the names that `stmt` binds for the statements after it in its block."""
    match stmt:
        case Let(name=name) | Local(name=name):
            return (name,)
        case Reduce(names=names) | While(names=names):
            return names
        case Scan(name=name):
            return (name,)
        case _:
            return ()


def loads(body: Block) -> Iterator[Load]:
    """Yield every Load in `body`, each object once."""
    return (e for e in all_expressions(body) if isinstance(e, Load))


def stores(body: Block) -> Iterator[Store | Scatter]:
    """Yield every Store and Scatter in `body`, in preorder."""
    return (s for s in statements(body) if isinstance(s, Store | Scatter))


def buffers(kernel: Kernel) -> dict[str, tuple[dtypes.DType, tuple[Size, ...]]]:
    """Return dtype and shape of every parameter and Local by name."""
    found = {p.name: (p.dtype, p.shape) for p in kernel.params}
    return found | {s.name: (s.dtype, s.shape) for s in statements(kernel.body) if isinstance(s, Local)}


# ---------------------------------------------------------------------------------------------
# Sizes and affine indices.


@dataclass(frozen=True, slots=True)
class Affine:
    """offset + sum of coefficient * axis; axes with coefficient 0 are absent, the others sorted by name."""

    terms: tuple[tuple[str, Size], ...]
    offset: Size

    def coefficient(self, axis: str) -> Size:
        """Return the coefficient of `axis`; 0 where it does not occur."""
        return dict(self.terms).get(axis, 0)


def as_size(expr: Expr) -> Size | None:
    """Return the value of an int64 expression as a Size where it reads nothing but sizes, else None."""
    form = affine(expr)
    return None if form is None or form.terms else form.offset


def affine(root: Expr, lets: Mapping[str, Expr] | None = None,
           is_fixed: Callable[[str], bool] = lambda name: False) -> Affine | None:
    """Return `root` as an affine form over axes with Size coefficients, or None if it is none.

    A Var whose name is in `lets` stands for the expression there; one whose name is_fixed is a term of
    its own, like an axis; any other Var makes the answer None.
    """
    known = lets or {}
    done: dict[int, Affine | None] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done:
            continue
        below = (known[expr.name],) if isinstance(expr, Var) and expr.name in known else children(expr)
        if not ready and isinstance(expr, Prim | Var) and below:
            stack.append((expr, True))
            stack.extend((c, False) for c in below)
        elif isinstance(expr, Var):
            own = Affine(((expr.name, 1),), 0) if is_fixed(expr.name) and expr.dtype is dtypes.int64 else None
            done[id(expr)] = done[id(below[0])] if below else own
        else:
            done[id(expr)] = _affine_node(expr, [done[id(c)] for c in below] if isinstance(expr, Prim) else [])
    return done[id(root)]


def _affine_node(expr: Expr, args: list[Affine | None]) -> Affine | None:
    match expr:
        case Const(value=value) if expr.dtype is dtypes.int64:
            return Affine((), int(value))
        case Axis(name):
            return Affine(((name, 1),), 0)
        case SizeOf(size):
            return Affine((), size)
        case Prim(op=op, dtype=dtypes.int64):
            forms = [a for a in args if a is not None]
            return _affine_prim(op, forms) if len(forms) == len(args) else None
        case _:
            return None


def _affine_prim(op: str, args: list[Affine]) -> Affine | None:
    match op, args:
        case "add", [a, b]:
            return _combine(a, 1, b, 1)
        case "sub", [a, b]:
            return _combine(a, 1, b, -1)
        case "neg", [a]:
            return _combine(a, -1, Affine((), 0), 0)
        case "mul", [a, b] if not a.terms or not b.terms:
            scale, form = (a, b) if not a.terms else (b, a)
            return _combine(form, scale.offset, Affine((), 0), 0)
        case ("floordiv" | "floormod" | "min" | "max"), [a, b] if not a.terms and not b.terms:
            if op in ("floordiv", "floormod") and b.offset == 0:
                return None
            f = {"floordiv": dim.floordiv, "floormod": dim.mod, "min": dim.minimum, "max": dim.maximum}[op]
            return Affine((), f(a.offset, b.offset))
        case _:
            return None


def _combine(a: Affine, s: Size, b: Affine, t: Size) -> Affine:
    total: dict[str, Size] = {axis: c * s for axis, c in a.terms}
    for axis, c in b.terms:
        total[axis] = total.get(axis, 0) + c * t
    return Affine(tuple(sorted((axis, c) for axis, c in total.items() if c != 0)), a.offset * s + b.offset * t)


def coefficient(root: Expr, axis: str, varying: frozenset[str] = frozenset()) -> Size | None:
    """Return c where `root` is c * axis + (something that does not depend on axis), else None.

    varying: names of Vars whose values depend on `axis`.  Other Vars, Loads at invariant indices and
    whatever else does not reach the axis count as constants: what a vector code generator asks of an
    index (0: broadcast, 1: consecutive, another size: strided, None: gather).
    """
    done: dict[int, Size | None] = {}
    for expr in postorder((root,)):
        done[id(expr)] = _coefficient_node(expr, axis, varying, [done[id(c)] for c in children(expr)])
    return done[id(root)]


def _coefficient_node(expr: Expr, axis: str, varying: frozenset[str], args: list[Size | None]) -> Size | None:
    match expr:
        case Axis(name):
            return 1 if name == axis else 0
        case Var(name=name):
            return None if name in varying else 0
        case _ if all(isinstance(a, int) and a == 0 for a in args):
            return 0
        case Prim(op="add" | "sub" | "neg" | "mul", dtype=dtypes.int64):
            if any(a is None for a in args):
                return None
            known = [a for a in args if a is not None]
            match expr.op:
                case "add":
                    return known[0] + known[1]
                case "sub":
                    return known[0] - known[1]
                case "neg":
                    return 0 - known[0]
                case _:
                    moving = 0 if known[0] != 0 else 1
                    scale = as_size(expr.args[1 - moving])
                    return None if known[1 - moving] != 0 or scale is None else known[moving] * scale
        case _:
            return None


def strides(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """Return the row-major strides, in elements, of an array of `shape`."""
    return tuple(dim.product(shape[d + 1:]) for d in range(len(shape)))


def linear_coefficient(index: tuple[Expr, ...], shape: tuple[Size, ...], axis: str,
                       varying: frozenset[str] = frozenset()) -> Size | None:
    """Return by how many elements the address of buffer[index] moves per step of `axis`, or None."""
    total: Size = 0
    for expr, stride in zip(index, strides(shape), strict=True):
        c = coefficient(expr, axis, varying)
        if c is None:
            return None
        total = total + c * stride
    return total
