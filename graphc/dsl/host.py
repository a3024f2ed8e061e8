"""Operations that Python does in the middle of a run: printing, Python functions, assertions.

Owns their functions.  Must not know how a run calls Python.  Invariant: they run in the order in which they were made.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from graphc import dtypes
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope
from graphc.graph.graph import get_default_graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor

__all__ = ["Assert", "Print", "py_func"]


def Print(input_: Any, data: Sequence[Any], message: str | None = None, first_n: int | None = None,
          summarize: int | None = None, name: str | None = None) -> Tensor:
    """Return `input_`; each run that computes it prints `message` and `data` to standard error.

    first_n: print that often at most, in each compiled program.  summarize: elements shown per tensor (3).
    Source: tf.Print.
    """
    with name_scope(name, "Print", [input_, *data]) as scope:
        attrs = {"message": message or "", "first_n": -1 if first_n is None else first_n, "summarize": summarize or 3}
        return cast(Tensor, create("Print", scope, [convert_to_tensor(v) for v in (input_, *data)], attrs))


def py_func(func: Callable[..., Any], inp: Sequence[Any], Tout: Any, stateful: bool = True,
            name: str | None = None) -> Any:
    """Return the tensors that `func`, called with the values of `inp` as NumPy arrays, returns.

    Tout: the dtype of the result, or a list of dtypes, one per result (then a list is returned).  The shapes of the
    results must be given with set_shape before a run.  stateful: accepted; every call is made, and none is merged.
    The run raises what func raises, and InvalidArgumentError where its results are of another number, dtype or shape.
    Source: tf.py_func.
    """
    several = isinstance(Tout, (list, tuple))
    wanted = tuple(dtypes.as_dtype(t) for t in (Tout if several else [Tout]))
    with name_scope(name, "PyFunc", inp) as scope:
        made = create("PyFunc", scope, [convert_to_tensor(v) for v in inp], {"function": func, "Tout": wanted})
        return list(made) if several else made[0]


def Assert(condition: Any, data: Sequence[Any], summarize: int | None = None, name: str | None = None) -> Operation:
    """Return an operation that ends the run with InvalidArgumentError, showing `data`, where `condition` is false.

    It runs where it is fetched or something waits for it (control_dependencies).  Source: tf.Assert.
    """
    with name_scope(name, "Assert", [condition, *data]) as scope:
        inputs = [convert_to_tensor(v) for v in (condition, *data)]
        return get_default_graph().create_op("Assert", inputs, {"summarize": summarize or 3}, scope or None)
