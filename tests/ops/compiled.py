"""A Function of the IR as a program of one backend: through the passes, fusion, lowering, planning and the executor.

Owns the way from `ir.Function` to arrays for tests that need no graph.  Must not know ops.  Invariant: nothing here
computes; it is what compiler.py does behind extraction.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import compiler
from graphc.ir.function import Function
from graphc.options import Options
from graphc.runtime.cache import Cache
from graphc.runtime.native import native
from graphc.runtime.variables import Variables
from graphc.runtime.walker import executor_for

BACKENDS = ("llvm_cpu", "numba_cpu", "interp")


class Compiled:
    """A compiled function, its states starting at `states`.  changes: of the options.  kernels: how many."""

    def __init__(self, function: Function, backend: str, level: int = 2, threads: int = 2,
                 states: Sequence[Any] = (), **changes: Any) -> None:
        options = Options(backend=backend, level=level, **changes)
        plan = compiler.make_plan(function, options)
        code = compiler.compile_kernels(plan.kernels, options, store())
        self.program = compiler.keep_program(compiler.program_key(function, options, store()), plan, code, store())
        self.kernels = len(plan.kernels)
        self._states = [(name, v.tensor.dtype) for name, v in zip(function.state_names, function.states, strict=True)]
        self._variables = Variables()
        for (name, dtype), value in zip(self._states, states, strict=True):
            self._variables.set(name, value, dtype)
        self._run = executor_for(self.program, self._variables, native(store()), threads, poison=True).run

    def __call__(self, feeds: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
        """The fetches for these feeds."""
        return [np.asarray(a) for a in self._run(feeds)]

    def states(self) -> list[np.ndarray[Any, Any]]:
        """What the states hold now."""
        return [self._variables.get(name) for name, _ in self._states]


@functools.cache
def store() -> Cache:
    """A cache in memory, for this process."""
    return Cache(None)
