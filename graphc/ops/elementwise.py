"""How an elementwise op is said in a few lines: the builders of the rows in elementwise_unary, elementwise_binary, nn.

Owns `unary` and `binary`.  Must not know single ops.  Invariant: the inputs broadcast as in NumPy, and the gradient of
a broadcast input is summed back to its shape.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, float64
from graphc.kernel.ir import Expr
from graphc.ops import build as b
from graphc.ops.base import Kind, NoGradient, Op, Point, Pointwise, Sample, register
from graphc.ops.rules import Group, elementwise, typed

UNARY_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (0, 3), (5, 7), (2, 3, 17))
BINARY_SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()), ((5, 7), (5, 7)), ((5, 7), (7,)), ((5, 1), (1, 7)), ((), (3, 2)), ((0, 3), (1, 3)), ((2, 1, 19), (3, 1)))


def unary(name: str, allowed: Group, reference: Callable[[np.ndarray], Any], scalar: Callable[[Expr], Expr],
          gradient: Callable[[Any, Any, Any], Any] | NoGradient, doc: str, *,
          domain: tuple[float, float] = (-3.0, 3.0), ulp: float = 4.0, differentiable: bool = True,
          result: DType | None = None, symbolic: bool = False, special: bool = True, ulp64: float | None = None) -> Op:
    """Register an op of one input.  gradient(x, y, dy) -> dx.  ulp64: of float64, where it differs from `ulp`."""
    def derivative(op: Any, dy: Any) -> Sequence[Any]:
        assert not isinstance(gradient, NoGradient)
        return [gradient(op.inputs[0], op.outputs[0], dy)]

    def samples() -> list[Sample]:
        return [Sample((typed(d, *shape),), domain=domain, ulp=ulp64 if ulp64 and d is float64 else ulp,
                       special=special, differentiable=differentiable and d.is_floating)
                for d in allowed for shape in UNARY_SHAPES]

    return register(Op(
        name=name, kind=Kind.ELEMENTWISE, inputs=("x",), infer=elementwise(allowed, result),
        gradient=gradient if isinstance(gradient, NoGradient) else derivative,
        reference=lambda call: reference(call.arrays[0]), lower=Pointwise(scalar=lambda attrs, x: scalar(x)),
        samples=samples, doc=doc, symbolic=symbolic))


def binary(name: str, allowed: Group, reference: Callable[[np.ndarray, np.ndarray], Any],
           lower: Callable[[Expr, Expr], Expr] | Callable[[Point], Expr],
           gradient: Callable[[Any, Any, Any, Any], tuple[Any, Any]] | NoGradient, doc: str, *,
           domain: tuple[float, float] = (-3.0, 3.0), ulp: float = 4.0, differentiable: bool = True,
           result: DType | None = None, symbolic: bool = False, special: bool = True, guarded: bool = False) -> Op:
    """Register an op of two broadcast inputs.

    lower: (x, y) -> expression; where `guarded`, a function of the Point.  gradient(x, y, z, dz) -> (dx, dy) in the
    shape of z; either may be None.
    """
    def derivative(op: Any, dz: Any) -> Sequence[Any]:
        assert not isinstance(gradient, NoGradient)
        x, y = op.inputs
        return [None if d is None else b.unbroadcast(d, v) for d, v in zip(gradient(x, y, op.outputs[0], dz), (x, y),
                                                                          strict=True)]

    def samples() -> list[Sample]:
        return [Sample((typed(d, *first), typed(d, *second)), domain=domain, ulp=ulp, special=special,
                       differentiable=differentiable and d.is_floating)
                for d in allowed for first, second in BINARY_SHAPES]

    how = Pointwise(point=lower) if guarded else Pointwise(scalar=lambda attrs, x, y: lower(x, y))  # type: ignore
    return register(Op(
        name=name, kind=Kind.ELEMENTWISE, inputs=("x", "y"), infer=elementwise(allowed, result),
        gradient=gradient if isinstance(gradient, NoGradient) else derivative,
        reference=lambda call: reference(*call.arrays), lower=how, samples=samples, doc=doc, symbolic=symbolic))
