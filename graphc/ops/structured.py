"""Ops that hold functions: Loop, Cond, Fusion.

Owns their names and attrs.  Must not know the functions' form (ir/function.py comes later in the order of imports), so
what an ordinary op says of itself is said elsewhere: types in ir/infer.py, meaning in ir/evaluate.py, kernels and steps in
passes/.  Invariant: inputs and outputs stand in the order that ARCHITECTURE.md gives.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.ir.types import PartialType
from graphc.ops.base import REQUIRED, Call, Inference, Kind, NoGradient, NotLowered, Op, register

_GRADIENT = NoGradient("the gradient of a body is built where the body is, by the language")


def _no_infer(ctx: Inference) -> Sequence[PartialType]:
    raise InternalError("the types of a structured op are those of its bodies")


def _no_reference(call: Call) -> Any:
    raise InternalError("a structured op is evaluated through its bodies")


def _structured(name: str, inputs: tuple[str, ...], attrs: dict[str, Any], where: str, doc: str) -> None:
    register(Op(name=name, kind=Kind.STRUCTURED, inputs=inputs, attrs=attrs, infer=_no_infer, gradient=_GRADIENT,
                reference=_no_reference, lower=NotLowered(where), samples=list, doc=doc, outputs=-1))


_structured(
    "Loop", ("count", "*values"),
    {"body": REQUIRED, "cond": None, "carried": 0, "xs": 0, "captures": 0, "ys": 0, "reverse": False, "while": False,
     "length": None},
    "becomes a loop in the table of steps",
    "Iterations of a body over carried values, rows of stacked inputs and captures; gives the carried values, stacked "
    "rows and the number of iterations. With `while` the body's first result says whether to go on, `cond` says it before "
    "the first iteration. length: the first size of the stacked results (of the stacked inputs where None); rows that no "
    "iteration reached are zeros. reverse: iteration i takes and gives row count-1-i. tf.while_loop, tf.scan")
_structured(
    "Cond", ("predicate", "*captures"), {"then": REQUIRED, "orelse": REQUIRED}, "becomes a branch in the table of steps",
    "The results of `then` where the predicate holds, else of `orelse`. tf.cond")
_structured(
    "Fusion", ("*inputs",), {"body": REQUIRED, "form": REQUIRED}, "becomes one kernel",
    "A body that runs as one kernel of a form: map, rows or contract")
