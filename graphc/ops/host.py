"""Ops that run in Python between kernels: printing, Python functions, assertions.

Owns their entries.  Must not know how a step calls the host.  Invariant: the attrs say all output types; nothing here
is merged, folded or dropped.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_, float32
from graphc.ir.types import PartialType
from graphc.ops.base import (
    REQUIRED,
    Call,
    Inference,
    InvalidValue,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Sample,
    register,
)
from graphc.ops.rules import BOOLS, check_dtype, require_rank, typed

_HOST = NotLowered("a step of the program calls the host")


def _print_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.inputs[0].dtype, ctx.inputs[0].shape)]


register(Op(
    name="Print", kind=Kind.HOST, inputs=("input", "*data"), infer=_print_infer, stateful=True,
    attrs={"message": "", "first_n": -1, "summarize": 3, "out_types": ()}, gradient=lambda op, dy: [dy] + [None] * (
        len(op.inputs) - 1), reference=lambda call: call.arrays[0], lower=_HOST,
    samples=lambda: [Sample((typed(float32, 2), typed(float32, 3)), {"message": "x: "})],
    doc="The input; prints a message and the data. tf.Print"))


def _py_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(d, None) for d in ctx.attrs["Tout"]]


def _py_reference(call: Call) -> Any:
    found = call.attrs["function"](*call.arrays)
    return tuple(found) if isinstance(found, (list, tuple)) else (found,)


register(Op(
    name="PyFunc", kind=Kind.HOST, inputs=("*input",), attrs={"function": REQUIRED, "Tout": REQUIRED, "out_types": ()},
    infer=_py_infer, gradient=NoGradient("a Python function says nothing of its derivative"), reference=_py_reference,
    lower=_HOST, samples=list, stateful=True, outputs=-1,
    doc="The arrays that a Python function returns for the inputs. tf.py_func"))


def _assert_infer(ctx: Inference) -> Sequence[PartialType]:
    check_dtype(ctx, ctx.inputs[0], BOOLS, "the condition")
    require_rank(ctx, ctx.inputs[0].shape, 0, "the condition", 0)
    return []


def _assert_reference(call: Call) -> tuple[()]:
    condition, *data = call.arrays
    if not bool(condition):
        shown = " ".join(f"[{' '.join(map(str, np.asarray(a).reshape(-1)[:call.attrs['summarize']]))}]" for a in data)
        raise InvalidValue(f"assertion failed: {call.attrs['message']} {shown}".rstrip())
    return ()


register(Op(
    name="Assert", kind=Kind.HOST, inputs=("condition", "*data"),
    attrs={"message": "", "summarize": 3, "out_types": ()}, infer=_assert_infer, gradient=NoGradient("it has no value"),
    reference=_assert_reference, lower=_HOST, stateful=True, outputs=0,
    samples=lambda: [Sample((typed(bool_), typed(float32, 3)), arrays={0: np.asarray(True)}, differentiable=False)],
    doc="Fail where the condition does not hold, showing the data. tf.Assert"))
