"""check_numerics: finds the first kernel call of a run that made a NaN or an infinity.

Owns the run that stops after each step and the description of what was found.  Knows programs and
the buffers of a run; knows nothing of sessions.  Invariant: a run that finds nothing gives the same bits as
an ordinary run; one that finds something stops right after the step that made it.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes, errors
from graphc.dtypes import DType
from graphc.kernel.plan import Call, Step
from graphc.runtime.executor import Memory
from graphc.runtime.program import Program

Array = np.ndarray[Any, Any]


def first_bad(array: Array, dtype: DType) -> tuple[int, ...] | None:
    """Return the index of the first NaN or infinity in a stored `array`, or None."""
    if not dtype.is_floating or array.size == 0:
        return None
    finite = np.isfinite(dtypes.bfloat16_to_float32(array) if dtype is dtypes.bfloat16 else array)
    if finite.all():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), array.shape))


def describe(array: Array, dtype: DType) -> str:
    """Return dtype, shape and range of a stored `array`, and how many elements are NaN or infinite."""
    text = f"{dtype.name} ({', '.join(map(str, array.shape))})"
    if array.size == 0:
        return text
    values = dtypes.bfloat16_to_float32(array) if dtype is dtypes.bfloat16 else array
    if not dtype.is_floating:
        return f"{text} in [{values.min()}, {values.max()}]"
    finite = values[np.isfinite(values)]
    span = f" in [{finite.min():g}, {finite.max():g}]" if finite.size else ""
    counts = [(int(np.isnan(values).sum()), "NaN"), (int(np.isinf(values).sum()), "Inf")]
    return text + span + "".join(f", {n} {name}" for n, name in counts if n)


class NumericsCheck:
    """A watch (executor.Watch) that stops a run at the first call whose results are not finite."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._before: list[str] = []

    def before(self, memory: Memory, step: Step) -> None:
        """Describe the operands of `step`: it may work in place."""
        if isinstance(step, Call):
            kernel = self.program.plan.kernels[step.kernel]
            self._before = [describe(memory.view(b), p.dtype) for p, b in zip(kernel.params, step.buffers, strict=True)]

    def after(self, memory: Memory, step: Step) -> None:
        """Raise InvalidArgumentError where `step` wrote a NaN or an infinity."""
        if not isinstance(step, Call):
            return
        plan = self.program.plan
        kernel = plan.kernels[step.kernel]
        for p, number in zip(kernel.params, step.buffers, strict=True):
            if p.role == "in":
                continue
            values = memory.view(number)
            where = first_bad(values, p.dtype)
            if where is None:
                continue
            op = kernel.provenance[-1] if kernel.provenance else kernel.name
            value = values[where]
            shown = dtypes.bfloat16_to_float32(value)[()] if p.dtype is dtypes.bfloat16 else value
            operands = [(q.name, text) for q, text in zip(kernel.params, self._before, strict=True) if q.role != "out"]
            what = f"{op}: {'NaN' if np.isnan(shown) else 'Inf'} at [{', '.join(map(str, where))}] of its result"
            line = next((plan.lines[o] for o in reversed(kernel.provenance) if o in plan.lines), None)
            others = kernel.provenance[:-1]
            hint = f"computed together with {', '.join(others)}" if others else None
            raise errors.InvalidArgumentError(None, op, errors.report(
                what, line, [*operands, ("result", describe(values, p.dtype))], hint))
