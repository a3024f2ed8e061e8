"""What `+`, `x[i]` and the other operators of tensors and variables mean.

Owns the table that fills Tensor's operator slots; importing this module fills them.
Invariant: as in TensorFlow 1, an operation made by an operator is named after it ("add", "mul", "strided_slice"), and
the operand that is not a tensor takes the tensor's dtype.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from graphc.dsl import elementwise as ew
from graphc.dsl import linear, variable
from graphc.dsl.convert import matching
from graphc.dsl.indexing import getitem
from graphc.dsl.scope import name_scope
from graphc.graph.shape import TensorShape
from graphc.graph.tensor import Tensor, install_operators


def _binary(name: str, function: Callable[..., Tensor]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The operator and its reflection."""
    def operator(x: Any, y: Any) -> Any:
        if not _is_operand(y):
            return NotImplemented
        with name_scope(None, name, [x, y]) as scope:
            a, b = matching(x, y)
            return function(a, b, name=scope)

    def reflected(y: Any, x: Any) -> Any:
        if not _is_operand(x):
            return NotImplemented
        with name_scope(None, name, [y, x]) as scope:
            a, b = matching(x, y)
            return function(a, b, name=scope)

    # errors name the function that the user called, which is the code's name
    operator.__code__ = operator.__code__.replace(co_name=name)
    reflected.__code__ = reflected.__code__.replace(co_name=name)
    return operator, reflected


def _is_operand(value: Any) -> bool:
    return not isinstance(value, (str, dict, set, TensorShape, type(None)))


def _negate(x: Any) -> Tensor:
    return ew.negative(x)


def _absolute(x: Any) -> Tensor:
    return ew.abs(x)


def _invert(x: Any) -> Tensor:
    return ew.logical_not(x)


def _less(x: Any, y: Any) -> Tensor:
    return ew.less(x, y)


def _less_equal(x: Any, y: Any) -> Tensor:
    return ew.less_equal(x, y)


def _greater(x: Any, y: Any) -> Tensor:
    return ew.greater(x, y)


def _greater_equal(x: Any, y: Any) -> Tensor:
    return ew.greater_equal(x, y)


_FUNCTIONS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "add": ("add", ew.add), "sub": ("sub", ew.subtract), "mul": ("mul", ew.multiply),
                                                            "truediv": ("truediv", ew.truediv),
    "floordiv": ("floordiv", ew.floordiv), "mod": ("mod", ew.floormod), "pow": ("pow", ew.pow),
    "matmul": ("matmul", cast("Callable[..., Tensor]", linear.matmul)), "and": ("and", ew.logical_and),
    "or": ("or", ew.logical_or), "xor": ("xor", ew.logical_xor),
}


def table() -> dict[str, Callable[..., Any]]:
    """Return the function of every operator."""
    found: dict[str, Callable[..., Any]] = {
        "__getitem__": getitem, "__neg__": _negate, "__abs__": _absolute, "__invert__": _invert,
        "__lt__": _less, "__le__": _less_equal, "__gt__": _greater, "__ge__": _greater_equal,
    }
    for slot, (name, function) in _FUNCTIONS.items():
        found[f"__{slot}__"], found[f"__r{slot}__"] = _binary(name, function)
    return found


install_operators(table())
variable.install_operators()
