"""The variables of a session: named arrays that outlive a run.

Owns their memory, their initialised flags and the counters of random ops, which are states like others.
Knows nothing of graphs or plans.  Elements are held in their stored form (bfloat16 as uint16).
Invariants: a variable's address never changes while `generation` stays the same; nobody outside the
runtime ever sees the memory itself, only copies.
"""
from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.runtime.forks import tell_of_forks
from graphc.runtime.memory import address, aligned_empty

Shape = tuple[int, ...]


@dataclass(slots=True)
class _Variable:
    dtype: DType
    array: np.ndarray[Any, Any]
    address: int
    initialised: bool


class Variables:
    """A store of states by name.

    generation: changes whenever an address changes or a variable stops being initialised, so that a
    frame whose generation is this one needs to look at nothing else.
    version: a number that differs after every change of a variable's content from all that it was before.
    """

    def __init__(self) -> None:
        self.generation = 1
        self.version = 0
        self.tick = itertools.count(1).__next__  # gives each number once, whichever threads ask
        self._variables: dict[str, _Variable] = {}
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not exist here."""
        self._lock = threading.Lock()

    def declare(self, name: str, dtype: DType, shape: Shape) -> int:
        """Return the address of `name`, with memory of this dtype and shape, zeroed where it is new.

        A variable of another dtype or shape is replaced and is then not initialised.
        """
        found = self._variables.get(name)
        if found is not None and found.dtype is dtype and found.array.shape == shape:
            return found.address
        with self._lock:
            found = self._variables.get(name)
            if found is None or found.dtype is not dtype or found.array.shape != shape:
                array = _allocate(dtype, shape)
                replaced = found is not None
                found = self._variables[name] = _Variable(dtype, array, address(array), False)
                if replaced:  # last, so that who reads the new generation finds the new address
                    self.generation += 1
            return found.address

    def describe(self, name: str) -> tuple[DType, Shape] | None:
        """Return dtype and shape of `name`, or None where it has no memory yet."""
        found = self._variables.get(name)
        return None if found is None else (found.dtype, found.array.shape)

    def names(self) -> tuple[str, ...]:
        """Return the names of all initialised variables, sorted."""
        return tuple(sorted(name for name, v in self._variables.items() if v.initialised))

    def is_initialised(self, name: str) -> bool:
        """Return whether `name` holds a value."""
        found = self._variables.get(name)
        return found is not None and found.initialised

    def mark(self, name: str, initialised: bool = True) -> None:
        """Say whether the declared variable `name` holds a value."""
        variable = self._variables[name]
        lost = variable.initialised and not initialised
        variable.initialised = initialised
        if lost:
            self.generation += 1
            self.version = self.tick()

    def get(self, name: str) -> np.ndarray[Any, Any]:
        """Return a copy of the value of `name` as users see it.  Raises KeyError where it has none."""
        found = self._variables.get(name)
        if found is None or not found.initialised:
            raise KeyError(name)
        return shown(found.array, found.dtype)

    def set(self, name: str, value: Any, dtype: DType) -> None:
        """Give `name` a copy of `value` (array-like, cast to `dtype`)."""
        array = stored(np.asarray(value), dtype)
        self.declare(name, dtype, array.shape)
        variable = self._variables[name]
        variable.array[...] = array
        variable.initialised = True
        self.version = self.tick()

    def view(self, name: str) -> np.ndarray[Any, Any]:
        """Return the memory of the declared variable `name` in its stored form (runtime only)."""
        return self._variables[name].array

    def clear(self) -> None:
        """Forget all variables."""
        with self._lock:
            self._variables.clear()
            self.generation += 1
            self.version = self.tick()


def stored(array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """Return `array` in the stored form of `dtype`; itself where it is that already."""
    if dtype is dtypes.bfloat16:
        return dtypes.float32_to_bfloat16(array)
    return np.asarray(array, dtype.storage)


def shown(array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """Return a copy of the stored `array` as users see it."""
    return dtypes.bfloat16_to_float32(array) if dtype is dtypes.bfloat16 else array.copy()


def _allocate(dtype: DType, shape: Shape) -> np.ndarray[Any, Any]:
    array = aligned_empty(int(np.prod(shape, dtype=np.int64)) * dtype.size).view(dtype.storage).reshape(shape)
    array[...] = 0
    return array
