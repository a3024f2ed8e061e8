"""The host functions of a program: what Python does for the ops Print, PyFunc and Assert of its graph.

Owns the functions (program.HostFunction) and the errors of their calls.  They come from the function that was
extracted, not from the plan, so a program from the cache calls this process's Python.  Knows the IR; knows no graphs.
Invariant: functions are numbered in the order of the host ops of the function, which tokens keep in every pass.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import errors
from graphc.ir.function import Function, Node
from graphc.ir.types import TensorType
from graphc.ops.base import Kind
from graphc.runtime.program import HostFunction
from graphc.runtime.variables import shown, stored

Array = np.ndarray[Any, Any]


def host_functions(function: Function) -> tuple[HostFunction, ...]:
    """Return what Python does in a run of `function`, in the order of its host ops."""
    made: list[HostFunction] = []
    for node in function.nodes:
        if node.op.kind is Kind.HOST:
            made.append(_KINDS[node.op.name](node, function.lines))
    return tuple(made)


class _Host:
    """A host op: its node, and the arrays of a call in the form that users see."""

    def __init__(self, node: Node, lines: Mapping[str, str]) -> None:
        self.node = node
        self.name = node.origin[0] if node.origin else node.op.name
        self.line = lines.get(self.name)
        self.taken = [v.type.dtype for v in node.inputs if isinstance(v.type, TensorType)]
        self.given = [v.type.dtype for v in node.outputs if isinstance(v.type, TensorType)]

    def values(self, arrays: Sequence[Array]) -> list[Array]:
        return [shown(a, dtype) for a, dtype in zip(arrays, self.taken, strict=True)]

    def fail(self, what: str) -> errors.InvalidArgumentError:
        return errors.InvalidArgumentError(None, self.name, errors.report(f"{self.name}: {what}", self.line))


class _Print(_Host):
    """Prints `message[1 2 3...]`, as TensorFlow does, at most first_n times."""

    def __init__(self, node: Node, lines: Mapping[str, str]) -> None:
        super().__init__(node, lines)
        self.left = int(node.attrs["first_n"])

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        outputs[0][...] = inputs[0]
        if self.left == 0:
            return
        self.left -= self.left > 0
        data = self.values(inputs)[1:]
        sys.stderr.write(self.node.attrs["message"] + _summary(data, self.node.attrs["summarize"]) + "\n")


class _PyFunc(_Host):
    """Calls a Python function and checks what it returns."""

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        found = self.node.attrs["function"](*self.values(inputs))
        results = list(found) if isinstance(found, (list, tuple)) else [] if found is None else [found]
        if len(results) != len(outputs):
            raise self.fail(f"the Python function returned {len(results)} values, {len(outputs)} are declared")
        for i, (result, output, dtype) in enumerate(zip(results, outputs, self.given, strict=True)):
            array = np.asarray(result)
            if array.dtype != np.dtype(dtype.as_numpy_dtype):
                raise self.fail(f"value {i} of the Python function is {array.dtype}, {dtype.name} is declared")
            if array.shape != output.shape:
                raise self.fail(f"value {i} of the Python function has the shape {array.shape}, not {output.shape}")
            output[...] = stored(array, dtype)


class _Assert(_Host):
    """Ends the run where the condition does not hold."""

    def __call__(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        condition, *data = self.values(inputs)
        if not condition:
            message = self.node.attrs["message"]
            told = _summary(data, self.node.attrs["summarize"])
            raise self.fail(" ".join(part for part in ("assertion failed:", message, told) if part))


_KINDS: Mapping[str, Callable[[Node, Mapping[str, str]], HostFunction]] = {
    "Print": _Print, "PyFunc": _PyFunc, "Assert": _Assert}


def _summary(data: Sequence[Array], summarize: int) -> str:
    """The first elements of each array: "[1 2 3...][0.5]"; all of them where summarize is negative."""
    texts = []
    for a in data:
        flat = a.reshape(-1)
        few = flat if summarize < 0 else flat[:summarize]
        shown_few = " ".join(f"{v:g}" if a.dtype.kind == "f" else str(v) for v in few)
        texts.append(f"[{shown_few}{'...' if few.size < flat.size else ''}]")
    return "".join(texts)
