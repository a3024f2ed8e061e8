"""Shared libraries in the tests: made from functions and models, called through ctypes as C would call them.

Must not read a library's insides but through its functions.  Invariant: outputs are poisoned before each run.
"""
from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from graphc.compiler import compile_kernels, make_plan
from graphc.interop.c_interface import Interface, Status
from graphc.interop.shared_library import SharedLibrary, linkable, shared_library
from graphc.ir import dim
from graphc.ir.function import Function
from graphc.options import Options
from graphc.runtime.cache import Cache

Array = np.ndarray[Any, Any]


@functools.cache
def store() -> Cache:
    """A cache in memory, for this process."""
    return Cache(None)


def made(function: Function, states: Sequence[Any] = (), name: str = "model", **changes: Any) -> SharedLibrary:
    """Return the library of a function whose states begin as `states`.  changes: of the options."""
    options = Options(cache_dir="", **changes)
    target = linkable(options)
    plan = make_plan(function, options)
    values = dict(zip(function.state_names, map(np.asarray, states), strict=True))
    return shared_library(name, plan, compile_kernels(plan.kernels, options, store()), values, target)


class Failed(Exception):
    """A function of a library returned another status than OK."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{Status(status).name}: {text}")
        self.status, self.text = Status(status), text


class Opened:
    """A library that was written to a file and loaded."""

    def __init__(self, library: SharedLibrary, folder: Path) -> None:
        self.interface: Interface = library.interface
        path = folder / f"{self.interface.prefix}-{len(list(folder.iterdir()))}.so"
        path.write_bytes(library.image)
        self._code = ctypes.CDLL(str(path))

    def function(self, name: str, result: Any = ctypes.c_int32) -> Any:
        """Return the function prefix_name."""
        found = getattr(self._code, f"{self.interface.prefix}_{name}")
        found.restype = result
        return found

    def shape_of(self, output: str, **sizes: int) -> tuple[int, ...]:
        """Return an output's shape.  Raises Failed."""
        field = next(a for a in self.interface.outputs if a.name == output)
        given, shape = self.sizes(sizes), (ctypes.c_int64 * max(1, len(field.shape)))()
        arguments = [*([given] if self.interface.sizes else []), *([shape] if field.shape else [])]
        count = self.function(f"shape_of_{output}", ctypes.c_int64)(*arguments)
        if count < 0:
            raise Failed(-count, "")
        told = tuple(shape)[:len(field.shape)]
        assert count == np.prod(told, dtype=np.int64)
        return told

    def sizes(self, sizes: Mapping[str, int]) -> Any:
        """Return the struct of sizes."""
        fields = [f.name for f in self.interface.sizes]
        assert sorted(fields) == sorted(sizes)
        return (ctypes.c_int64 * max(1, len(fields)))(*(sizes[f] for f in fields))


class Context:
    """A context of an opened library.  Use it in a with statement."""

    def __init__(self, library: Opened, threads: int = 1) -> None:
        self.opened = library
        self._at = ctypes.c_void_p()
        status = library.function("create")(ctypes.byref(ctypes.c_int32(threads)), ctypes.byref(self._at))
        if status:
            assert not self._at
            raise Failed(status, "")

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.opened.function("destroy", None)(self._at)

    @property
    def error_text(self) -> str:
        return str(self.opened.function("error_text", ctypes.c_char_p)(self._at).decode())

    def call(self, sizes: Mapping[str, int], inputs: Sequence[int | None], outputs: Sequence[int | None]) -> None:
        """Run on addresses.  Raises Failed."""
        interface = self.opened.interface
        groups = [(interface.sizes, self.opened.sizes(sizes)),
                  (interface.inputs, (ctypes.c_void_p * max(1, len(inputs)))(*inputs)),
                  (interface.outputs, (ctypes.c_void_p * max(1, len(outputs)))(*outputs))]
        status = self.opened.function("run")(self._at, *(struct for fields, struct in groups if fields))
        if status:
            raise Failed(status, self.error_text)
        assert self.error_text == ""

    def run(self, *feeds: Any, **sizes: int) -> list[Array]:
        """Return the outputs, in stored form, for `feeds` in order.  sizes: those that shapes do not tell."""
        interface = self.opened.interface
        arrays = [np.array(f, a.dtype.storage, order="C") for f, a in zip(feeds, interface.inputs, strict=True)]
        bound = dict(sizes)
        for array, field in zip(arrays, interface.inputs, strict=True):
            for size, extent in zip(field.shape, array.shape, strict=True):
                if isinstance(size, dim.Dim) and size.is_symbol:
                    bound.setdefault(size.name, extent)
        outputs = []
        for field in interface.outputs:
            shape = self.opened.shape_of(field.name, **bound)
            assert shape == tuple(dim.evaluate(s, bound) for s in field.shape)
            outputs.append(np.full(shape, 0xFF, np.uint8).repeat(field.dtype.size, -1).view(field.dtype.storage)
                           if shape else np.frombuffer(bytearray(b"\xff" * field.dtype.size), field.dtype.storage)
                           .reshape(()))
        self.call(bound, [a.ctypes.data for a in arrays], [a.ctypes.data for a in outputs])
        return outputs
