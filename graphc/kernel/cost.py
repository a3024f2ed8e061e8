"""What a kernel costs: operations and bytes as sizes, and cycles for schedules.

Owns the counts.  Knows kernel IR and the primitives' cost table; knows no machine.
Invariant: counts are over the kernel's symbols; an extent that depends on data or on an outer axis
counts as `TYPICAL`, as does every unknown size in an estimate of cycles.
"""
from __future__ import annotations

from collections.abc import Iterable

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import (
    Const,
    Contract,
    Expr,
    For,
    Guard,
    Kernel,
    Load,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    Stmt,
    Store,
    While,
)
from graphc.kernel.primitives import PRIMITIVES

TYPICAL = 128  # what an unknown size is taken for
WHILE_STEPS = 16  # and the number of steps of a While
_LOAD, _STORE, _GUARD, _SCATTER, _PHILOX = 1.0, 1.0, 1.0, 4.0, 60.0
_DIVISIONS, _BY_CONSTANT = {"floordiv", "floormod", "truncdiv", "truncmod"}, 4.0
_NOT_ARITHMETIC = {"cast", "bitcast", "select", "eq", "ne", "lt", "le", "copysign"}


def flops(kernel: Kernel) -> Size:
    """Return the floating-point operations of one run: 1 per arithmetic primitive (2 for fma), 1 per step
    of a float Reduce or Scan state, 2 per multiply-add of a Contract.  Branches count as taken."""
    return _flops(kernel.body)


def traffic(kernel: Kernel) -> Size:
    """Return the bytes moved where every parameter goes through memory once (inout: twice)."""
    total: Size = 0
    for p in kernel.params:
        total = total + dim.product(p.shape) * (p.dtype.size * (2 if p.role == "inout" else 1))
    return total


def cycles(body: walk.Block, lanes: int = 1) -> float:
    """Return the estimated cycles of `body` where vectors have `lanes` elements, unknown sizes at TYPICAL."""
    return sum(_cycles(s, lanes) for s in body)


def primitive_cycles(e: Prim) -> float:
    """Return the estimated cycles of a primitive for one vector: a division by a constant is a shift or a product."""
    if e.op in _DIVISIONS and e.dtype.is_integer and isinstance(by := e.args[1], Const):
        return 1.0 if by.value > 0 and int(by.value) & (int(by.value) - 1) == 0 else _BY_CONSTANT
    return PRIMITIVES[e.op].cost


def expression_cycles(roots: Iterable[Expr]) -> float:
    """Return the estimated cycles of expressions for one vector, shared parts counted once."""
    total = 0.0
    for e in walk.postorder(roots):
        match e:
            case Prim():
                total += primitive_cycles(e)
            case Load():
                total += _LOAD
            case Guard():
                total += _GUARD
            case Random():
                total += _PHILOX
    return total


def extent_of(expr: Expr) -> Size:
    """Return an extent as a size, `TYPICAL` where it is not one."""
    known = walk.as_size(expr)
    return TYPICAL if known is None else known


def typical(size: Size) -> int:
    """Return a number for a size: its value with every symbol at TYPICAL."""
    return max(0, dim.evaluate(size, dict.fromkeys(dim.symbols_of((size,)), TYPICAL)))


def _expression_flops(roots: Iterable[Expr]) -> int:
    return sum(2 if e.op == "fma" else 1 for e in walk.postorder(roots)
               if isinstance(e, Prim) and e.dtype.is_floating and e.op not in _NOT_ARITHMETIC)


def _flops(body: walk.Block) -> Size:
    total: Size = 0
    for s in body:
        inner: Size = 0
        for block in walk.blocks(s):
            inner = inner + _flops(block)
        match s:
            case For():
                total = total + extent_of(s.extent) * inner
            case Reduce(values=values):
                states = sum(v.dtype.is_floating for v in values)
                total = total + extent_of(s.extent) * (inner + _expression_flops(values) + states)
            case Scan(value=value):
                total = total + extent_of(s.extent) * (inner + _expression_flops((value,)) + value.dtype.is_floating)
            case While():
                total = total + (inner + _expression_flops((s.condition, *s.next))) * WHILE_STEPS
            case Contract():
                outer, m, n, k = (dim.product(extent_of(e) for _, e in g) for g in (s.batch, s.m, s.n, s.k))
                float_steps = 2 if s.acc_dtype.is_floating else 0
                total = total + outer * m * n * k * float_steps + outer * m * n * inner
                total = total + outer * k * (m * _expression_flops((s.a,)) + n * _expression_flops((s.b,)))
            case Scatter(mode="add", value=value):
                total = total + _expression_flops((value,)) + value.dtype.is_floating
            case _:
                total = total + inner + _expression_flops(walk.expressions(s))
    return total


def _cycles(s: Stmt, lanes: int) -> float:
    inner = sum(sum(_cycles(t, 1) for t in block) for block in walk.blocks(s))
    own = expression_cycles(walk.expressions(s))
    match s:
        case For() | Reduce() | Scan():
            states = len(s.values) if isinstance(s, Reduce) else 1
            return typical(extent_of(s.extent)) * (inner + own + states) / lanes
        case While():
            return (inner + own) * WHILE_STEPS / lanes
        case Contract():
            points = [typical(extent_of(e)) for _, e in s.batch + s.m + s.n]
            steps = [typical(extent_of(e)) for _, e in s.k]
            return (dim.evaluate(dim.product(points), {}) *
                    (dim.evaluate(dim.product(steps), {}) * 0.5 + inner + own)) / lanes
        case Store():
            return (own + _STORE) / lanes
        case Scatter():
            return own + _SCATTER
        case _:
            return (inner + own) / lanes
