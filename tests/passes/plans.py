"""Runs a Plan on NumPy: kernels in the interpreter, the arena as bytes poisoned with NaN.

Owns the reference executor of these tests.  Must not use graphc.runtime.  Invariant: every kernel and every plan that
runs here was verified.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.backends import interp
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.evaluate import bind, evaluate
from graphc.ir.function import Function
from graphc.ir.verify import verify
from graphc.kernel import verify as kernels
from graphc.kernel.plan import Branch, Call, Copy, Loop, Plan, Step
from graphc.passes.check_memory import check_memory
from graphc.passes.coalesce import coalesce
from graphc.passes.fuse import fuse
from graphc.passes.lower import lower
from graphc.passes.memory import plan_memory
from graphc.passes.order import order


def planned(function: Function, share: bool = True) -> Plan:
    """Return the plan of a function: fused, ordered, lowered, coalesced, with a memory plan that was checked."""
    fused = order(verify(fuse(function)))
    verify(fused)
    lowered = lower(fused)
    if share:
        lowered.steps = coalesce(lowered.steps)
    plan = plan_memory(fused, lowered, share)
    for k in plan.kernels:
        kernels.verify(k)
    check_memory(plan)
    return plan


def stored(value: Any, dtype: DType) -> np.ndarray:
    """Return `value` as it lies in memory."""
    if dtype is dtypes.bfloat16:
        return dtypes.float32_to_bfloat16(value)
    return np.ascontiguousarray(np.asarray(value, dtype.storage)).reshape(np.shape(value))


def shown(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Return memory as values."""
    return dtypes.bfloat16_to_float32(array) if dtype is dtypes.bfloat16 else array.copy()


class PlanRun:
    """One run of a plan on bound sizes."""

    def __init__(self, plan: Plan, sizes: dict[str, int], feeds: Sequence[Any], states: Sequence[Any]) -> None:
        self.plan = plan
        self.sizes = sizes
        self.arena = np.full(dim.evaluate(plan.arena, sizes) // 4 + 16, np.nan, np.float32).view(np.uint8)
        self.rows: dict[int, np.ndarray] = {}
        self.feeds = [stored(a, s.dtype) for a, s in zip(feeds, plan.feeds, strict=True)]
        self.states = [stored(a, s.dtype).copy() for a, s in zip(states, plan.states, strict=True)]
        self.fetches = [self._poisoned(s.shape, s.dtype) for s in plan.fetches]
        self.status = 0

    def _poisoned(self, shape: Any, dtype: DType) -> np.ndarray:
        out = np.empty(tuple(dim.evaluate(n, self.sizes) for n in shape), dtype.storage)
        out.reshape(-1).view(np.uint8)[...] = 0xFF
        return out

    def array(self, number: int) -> np.ndarray:
        """Return the memory of buffer `number`."""
        b = self.plan.buffers[number]
        shape = tuple(dim.evaluate(n, self.sizes) for n in b.shape)
        match b.role:
            case "feed" | "state" | "fetch":
                source = {"feed": self.feeds, "state": self.states, "fetch": self.fetches}[b.role][b.source]
                return source.reshape(shape)
            case "constant":
                return self.plan.constants[b.source].reshape(shape)
            case "slice":
                return self.rows[number].reshape(shape)
            case _:
                at = dim.evaluate(b.offset, self.sizes)
                count = int(np.prod(shape, dtype=np.int64)) * b.dtype.size
                assert at % 64 == 0 and at + count <= len(self.arena)
                return self.arena[at:at + count].view(b.dtype.storage).reshape(shape)

    def _row(self, number: int, row: int) -> np.ndarray:
        """Return row `row` of the base of slice buffer `number`."""
        b = self.plan.buffers[number]
        shape = tuple(dim.evaluate(n, self.sizes) for n in b.shape)
        size = int(np.prod(shape, dtype=np.int64))
        return self.array(b.base).reshape(-1)[row * size:(row + 1) * size]

    def run(self, steps: Sequence[Step]) -> None:
        """Run steps in order."""
        for step in steps:
            match step:
                case Call(number, buffers, sizes):
                    kernel = self.plan.kernels[number]
                    local = {n: dim.evaluate(s, self.sizes) for n, s in zip(kernel.sizes, sizes, strict=True)}
                    arrays = {p.name: self.array(b).reshape(tuple(dim.evaluate(n, local) for n in p.shape))
                              for p, b in zip(kernel.params, buffers, strict=True)}
                    status = interp.run(kernel, arrays, local)
                    if status and not self.status:
                        self.status = status
                case Copy(target, source):
                    self.array(target).reshape(-1)[...] = self.array(source).reshape(-1).copy()
                case Branch(predicate, then, orelse):
                    self.run(then if bool(self.array(predicate)) else orelse)
                case Loop():
                    self._loop(step)

    def _loop(self, step: Loop) -> None:
        count: int | None = None
        if step.count is not None:
            count = dim.evaluate(step.count, self.sizes)
        elif step.count_buffer is not None:
            count = int(self.array(step.count_buffer))
        elif step.limit is not None:
            count = dim.evaluate(step.limit, self.sizes)
        i = 0
        while (count is None or i < count) and (step.condition is None or bool(self.array(step.condition))):
            for number, reverse in step.slices:
                assert not reverse or count is not None
                row = (count or 0) - 1 - i if reverse else i
                self.rows[number] = self._row(number, row)
            if step.index >= 0:
                self.array(step.index)[...] = i
            self.run(step.body)
            i += 1
        if step.taken >= 0:
            self.array(step.taken)[...] = i


def run_plan(plan: Plan, sizes: dict[str, int], feeds: Sequence[Any], states: Sequence[Any] = ()
             ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Run `plan` and return (fetches, states) as values."""
    with np.errstate(all="ignore"):
        run = PlanRun(plan, sizes, feeds, states)
        before = [a.copy() for a in run.feeds]
        run.run(plan.steps)
    for a, b in zip(run.feeds, before, strict=True):
        assert a.tobytes() == b.tobytes(), "a feed was written"
    assert run.status == 0
    return ([shown(a, s.dtype) for a, s in zip(run.fetches, plan.fetches, strict=True)],
            [shown(a, s.dtype) for a, s in zip(run.states, plan.states, strict=True)])


def assert_close(actual: np.ndarray, expected: np.ndarray, dtype: DType, what: str) -> None:
    """Fail where values differ by more than rounding in several steps explains."""
    assert actual.shape == expected.shape, what
    if not dtype.is_floating:
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    eps = {dtypes.float64: 1e-12, dtypes.float32: 2e-5, dtypes.float16: 8e-3}.get(dtype, 6e-2)
    scale = float(np.max(np.abs(expected[np.isfinite(expected)]), initial=1e-6))
    np.testing.assert_allclose(actual, expected, rtol=eps, atol=eps * scale, err_msg=what)


def check_function(function: Function, feeds: Sequence[Any], states: Sequence[Any] = (), share: bool = True) -> Plan:
    """Plan and run a function; its results must be the oracle's.  Returns the plan."""
    plan = planned(function, share)
    sizes = bind(function, [np.asarray(a) for a in (*feeds, *states)])
    fetches, updates = evaluate(function, feeds, states)
    got, after = run_plan(plan, sizes, feeds, states)
    for i, (a, e, s) in enumerate(zip(got, fetches, plan.fetches, strict=True)):
        assert_close(a, e, s.dtype, f"fetch {i}")
    for i, (a, e, s) in enumerate(zip(after, updates, plan.states, strict=True)):
        assert_close(a, e, s.dtype, f"state {i}")
    return plan
