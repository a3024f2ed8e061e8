"""Ops that hold bodies or no value at all: Loop, Cond, Fusion, NoOp.

Owns their entries; ARCHITECTURE.md says what their attrs and bodies are.  Must not know passes.  Invariant: their types
are what their bodies return (ir/infer.py) and their value is what their bodies compute (ir/evaluate.py).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.ir.types import PartialType
from graphc.ops.base import REQUIRED, Call, Inference, Kind, NoGradient, NotLowered, Op, register


def _of_bodies(ctx: Inference) -> Sequence[PartialType]:
    raise ctx.fail("its types are those that its bodies return", "make it in the IR")


def _value_of_bodies(call: Call) -> Any:
    raise TypeError("a structured op is evaluated by evaluating its bodies")


def _no_rule(name: str) -> Any:
    def gradient(op: Any, *grads: Any) -> Sequence[Any]:
        raise LookupError(f"{name} is differentiated by building another {name}, which this graph does not ask for")
    return gradient


def _structured(name: str, inputs: tuple[str, ...], attrs: Mapping[str, Any], gradient: Any, doc: str) -> None:
    register(Op(name=name, kind=Kind.STRUCTURED, inputs=inputs, attrs=attrs, infer=_of_bodies, gradient=gradient,
                reference=_value_of_bodies, lower=NotLowered("lowered through its bodies"), samples=list, doc=doc,
                outputs=-1))


_structured("Loop", ("*inputs",),
            {"body": REQUIRED, "carried": REQUIRED, "xs": 0, "captures": 0, "ys": 0, "reverse": False, "while": False,
             "cond": None, "length": None}, _no_rule("Loop"),
            "Run a body a number of times, or while it says so; carries values, takes rows of xs, stacks rows into ys")
_structured("Cond", ("predicate", "*captures"), {"then": REQUIRED, "orelse": REQUIRED}, _no_rule("Cond"),
            "The results of one of two bodies, as a bool scalar chooses")
_structured("Fusion", ("*inputs",), {"body": REQUIRED, "form": REQUIRED},
            NoGradient("made when compiling, after all gradients"), "A group of ops that becomes one kernel")

register(Op(
    name="NoOp", kind=Kind.STATE, inputs=(), infer=lambda ctx: [], gradient=NoGradient("it has no value"),
    reference=lambda call: (), lower=NotLowered("it orders other operations and does nothing"), samples=list,
    outputs=0, doc="Nothing: control edges make it wait for others. tf.no_op"))
