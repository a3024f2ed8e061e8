"""Runs a plan step by step in Python: the meaning of a step table, without native code.

Owns the executor of kernels that Python runs (backend "interp"), and is what the native driver is tested
against.  Knows programs and variables; knows nothing of tables and addresses.
Invariant: a buffer is an array in stored form; feeds are copied, fetches are fresh arrays.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import errors
from graphc.ir import dim
from graphc.kernel.plan import Branch, Call, Copy, Host, Loop, Step
from graphc.runtime.executor import Converter, Executor, Runner, Watch, kernel_error
from graphc.runtime.memory import aligned_empty
from graphc.runtime.native import Native
from graphc.runtime.program import Program
from graphc.runtime.variables import Variables, shown, stored

Array = np.ndarray[Any, Any]
CallKernel = Callable[[int, Sequence[Array], Sequence[int]], int]


class Walker:
    """Runs one program on one set of variables, like executor.Executor.

    call: runs kernel number k on its buffers (arrays in the order and shape of its parameters) and its
    sizes, and returns the status; without it the program's callables are used.  watch: told of each step.
    """

    def __init__(self, program: Program, variables: Variables, call: CallKernel | None = None,
                 watch: Watch | None = None, changes: bool = True) -> None:
        self.program = program
        self.variables = variables
        self.watch = watch
        self.changes = changes and any(program.plan.written)
        self._call = call or self._call_callable

    def runner(self, order: Sequence[int], convert: Converter | None = None) -> Runner:
        """Return a function of the fed values, in which argument i is the plan's feed order[i]."""
        places = [list(order).index(i) for i in range(len(self.program.plan.feeds))]
        return lambda *values: self.run([values[p] for p in places], convert)

    def run(self, feeds: Sequence[Any], convert: Converter | None = None) -> tuple[Any, ...]:
        """Return the fetches for the plan's feeds in order.  Raises as Executor.run does."""
        plan = self.program.plan
        arrays = [np.asarray(f, s.dtype.as_numpy_dtype) if convert is None else np.asarray(convert(i, f))
                  for i, (f, s) in enumerate(zip(feeds, plan.feeds, strict=True))]
        binding = self.program.bind(arrays)
        for slot, read in zip(plan.states, plan.initialised, strict=True):
            if read and not self.variables.is_initialised(slot.name):
                raise errors.FailedPreconditionError(None, slot.name,
                                                     f"Attempting to use uninitialized value {slot.name}")
            self.variables.declare(slot.name, slot.dtype, _shape(slot.shape, binding))
        buffers = self._buffers(arrays, binding)
        try:
            self._steps(plan.steps, buffers, binding)
        finally:
            if self.changes:
                self.variables.version = self.variables.tick()
        for slot, written in zip(plan.states, plan.written, strict=True):
            if written:
                self.variables.mark(slot.name)
        fetches = [shown(buffers[s].reshape(_shape(f.shape, binding)), f.dtype)
                   for s, f in zip(plan.fetch_sources, plan.fetches, strict=True)]
        return tuple(f[()] if f.ndim == 0 else f for f in fetches)

    def _buffers(self, feeds: Sequence[Array], binding: Mapping[str, int]) -> list[Array]:
        plan = self.program.plan
        arena = aligned_empty(dim.evaluate(plan.arena, binding))
        arena[:] = 0xFF
        fetches = [np.empty(_shape(s.shape, binding), s.dtype.storage) for s in plan.fetches]
        found: list[Array] = []
        for b in plan.buffers:
            shape = _shape(b.shape, binding)
            match b.role:
                case "feed":
                    array = stored(feeds[b.source], b.dtype).copy()
                case "state":
                    array = self.variables.view(plan.states[b.source].name)
                case "constant":
                    array = plan.constants[b.source]
                case "fetch":
                    array = fetches[b.source]
                case "temp":
                    start = dim.evaluate(b.offset, binding)
                    nbytes = int(np.prod(shape, dtype=np.int64)) * b.dtype.size
                    array = arena[start:start + nbytes].view(b.dtype.storage)
                case _:  # a slice: set by its loop
                    array = np.empty(shape, b.dtype.storage)
            found.append(array.reshape(shape))
        return found

    def _steps(self, steps: Sequence[Step], buffers: list[Array], binding: Mapping[str, int]) -> None:
        for step in steps:
            if self.watch is None or isinstance(step, Loop | Branch):
                self._step(step, buffers, binding)
            else:
                self.watch.before(_Buffers(buffers), step)
                self._step(step, buffers, binding)
                self.watch.after(_Buffers(buffers), step)

    def _step(self, step: Step, buffers: list[Array], binding: Mapping[str, int]) -> None:
        match step:
            case Call(kernel, numbers, sizes):
                values = [dim.evaluate(s, binding) for s in sizes]
                status = self._call(kernel, [buffers[n] for n in numbers], values)
                if status:
                    raise kernel_error(self.program, step, status)
            case Copy(target, source):
                buffers[target].reshape(-1)[:] = buffers[source].reshape(-1)
            case Branch(predicate, then, orelse):
                self._steps(then if buffers[predicate][()] else orelse, buffers, binding)
            case Loop():
                self._loop(step, buffers, binding)
            case Host(function, inputs, outputs):
                self.program.hosts[function]([buffers[i] for i in inputs], [buffers[o] for o in outputs])

    def _loop(self, loop: Loop, buffers: list[Array], binding: Mapping[str, int]) -> None:
        plan = self.program.plan
        bound = loop.count if loop.count is not None else loop.limit
        total = None if bound is None else dim.evaluate(bound, binding)
        if loop.count_buffer is not None:
            total = int(buffers[loop.count_buffer][()])
        i = 0
        while (total is None or i < total) and (loop.condition is None or buffers[loop.condition][()]):
            for number, reverse in loop.slices:
                row = total - 1 - i if reverse and total is not None else i
                # With `...` a row of a vector is a view too, not a copy of the element.
                buffers[number] = buffers[plan.buffers[number].base][row, ...].reshape(buffers[number].shape)
            if loop.index >= 0:
                buffers[loop.index][...] = i
            self._steps(loop.body, buffers, binding)
            i += 1
        if loop.taken >= 0:
            buffers[loop.taken][...] = i

    def _call_callable(self, number: int, arrays: Sequence[Array], sizes: Sequence[int]) -> int:
        kernel, info = self.program.plan.kernels[number], self.program.infos[number]
        local = dict(zip(kernel.sizes, sizes, strict=True))
        named = {p.name: a.reshape(_shape(p.shape, local)) for p, a in zip(kernel.params, arrays, strict=True)}
        return self.program.callables[number](0, dim.evaluate(info.extent, local), named, local)


def executor_for(program: Program, variables: Variables, native: Native, threads: int = 1, poison: bool = False,
                 watch: Watch | None = None, changes: bool = True) -> Executor | Walker:
    """Return what runs `program`: the native driver, or, for kernels that Python runs, a Walker."""
    if program.callables:
        return Walker(program, variables, watch=watch, changes=changes)
    return Executor(program, variables, native, threads, poison, watch, changes)


class _Buffers:
    """The buffers of a walk, as watches see them."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = arrays

    def view(self, buffer: int) -> Array:
        return self._arrays[buffer]


def _shape(shape: Sequence[dim.Size], binding: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim.evaluate(s, binding) for s in shape)
