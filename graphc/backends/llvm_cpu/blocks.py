"""Work items taken apart: which block of which axis a number stands for.

Owns that arithmetic, shared by everything that is cut into blocks.  Knows no kernel.  Invariant: axes that run together
are given outermost first, the last one running fastest.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.pack import Span
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.backends.llvm_cpu.tiling import Range
from graphc.ir import dim
from graphc.ir.dim import Size


def divided(renderer: Renderer, x: Value, by: Size) -> tuple[Value, Value]:
    """Return quotient and remainder of non-negative integers."""
    b, divisor = renderer.b, renderer.size(by)
    if divisor.constant == 1:
        return x, b.i64(0)
    return b.binary("udiv", x, divisor), b.binary("urem", x, divisor)


def bound(renderer: Renderer, context: Context, axes: Sequence[Range], number: Value) -> Context:
    """Return `context` with `axes` bound to their values at this number."""
    for position, axis in reversed(list(enumerate(axes))):
        value = number
        if position:
            number, value = divided(renderer, number, dim.maximum(axis.extent, 1))
        context = context.bound({str(axis.name): value})
    return context


def block(axis: Range, number: Value, length: int) -> Span:
    """Return block `number`, of `length`, of an axis of known extent; the last one may be shorter."""
    b, extent = number.b, axis.extent
    assert isinstance(extent, int)
    if extent <= length:
        return Span(axis.name, b.i64(0), b.i64(extent))
    first = number * length
    if extent % length == 0:
        return Span(axis.name, first, b.i64(length))
    return Span(axis.name, first, b.intrinsic("smin", b.i64(extent) - first, b.i64(length)))
