"""Variables as the language has them: the class, the scopes, and the operations on many.

Owns the collections of variables and their initializers.  Must not know sessions.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.dsl import control
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope
from graphc.dsl.variable import Variable, handle_of, scatter
from graphc.dsl.variable_scope import (
    AUTO_REUSE,
    VariableScope,
    get_local_variable,
    get_variable,
    get_variable_scope,
    no_regularizer,
    variable_op_scope,
    variable_scope,
)
from graphc.graph.graph import get_default_graph
from graphc.graph.keys import GraphKeys
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor, default_session

__all__ = ["AUTO_REUSE", "Variable", "VariableScope", "all_variables", "assert_variables_initialized", "assign",
           "assign_add", "assign_sub", "get_local_variable", "get_variable", "get_variable_scope", "global_variables",
           "global_variables_initializer", "initialize_all_variables", "initialize_local_variables",
           "initialize_variables", "is_variable_initialized", "local_variables", "local_variables_initializer",
           "model_variables", "moving_average_variables", "no_regularizer", "report_uninitialized_variables",
           "scatter_add", "scatter_sub", "scatter_update", "trainable_variables", "variable_op_scope",
           "variable_scope", "variables_initializer"]


def global_variables(scope: str | None = None) -> list[Any]:
    """Return the variables of the default graph.  Source: tf.global_variables."""
    return get_default_graph().get_collection(GraphKeys.GLOBAL_VARIABLES, scope)


def all_variables() -> list[Any]:
    """Return global_variables().  Source: tf.all_variables."""
    return global_variables()


def local_variables(scope: str | None = None) -> list[Any]:
    """Return the local variables of the default graph.  Source: tf.local_variables."""
    return get_default_graph().get_collection(GraphKeys.LOCAL_VARIABLES, scope)


def model_variables(scope: str | None = None) -> list[Any]:
    """Return the model variables of the default graph.  Source: tf.model_variables."""
    return get_default_graph().get_collection(GraphKeys.MODEL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[Any]:
    """Return the variables that optimizers change by default.  Source: tf.trainable_variables."""
    return get_default_graph().get_collection(GraphKeys.TRAINABLE_VARIABLES, scope)


def moving_average_variables(scope: str | None = None) -> list[Any]:
    """Return the variables that have moving averages.  Source: tf.moving_average_variables."""
    return get_default_graph().get_collection(GraphKeys.MOVING_AVERAGE_VARIABLES, scope)


def variables_initializer(var_list: Sequence[Any], name: str = "init") -> Operation:
    """Return the operation that initialises `var_list`.  Source: tf.variables_initializer."""
    return control.group(*[v.initializer for v in var_list], name=name)


def global_variables_initializer() -> Operation:
    """Return the operation that initialises all global variables.  Source: tf.global_variables_initializer."""
    return variables_initializer(global_variables())


def local_variables_initializer() -> Operation:
    """Return the operation that initialises all local variables.  Source: tf.local_variables_initializer."""
    return variables_initializer(local_variables())


def initialize_all_variables() -> Operation:
    """Return global_variables_initializer().  Source: tf.initialize_all_variables."""
    return global_variables_initializer()


def initialize_local_variables() -> Operation:
    """Return local_variables_initializer().  Source: tf.initialize_local_variables."""
    return local_variables_initializer()


def initialize_variables(var_list: Sequence[Any], name: str = "init") -> Operation:
    """Return variables_initializer(var_list).  Source: tf.initialize_variables."""
    return variables_initializer(var_list, name)


def assign(ref: Any, value: Any, validate_shape: bool | None = None, use_locking: bool | None = None,
           name: str | None = None) -> Any:
    """Return the tensor of a variable's new content, whose computation writes it.

    A variable never changes its shape, whatever validate_shape is.  Source: tf.assign.
    """
    return _write("Assign", ref, value, name)


def assign_add(ref: Any, value: Any, use_locking: bool | None = None, name: str | None = None) -> Any:
    """Return the tensor of a variable's content plus `value`, whose computation writes it.  Source: tf.assign_add."""
    return _write("AssignAdd", ref, value, name)


def assign_sub(ref: Any, value: Any, use_locking: bool | None = None, name: str | None = None) -> Any:
    """Return the tensor of a variable's content minus `value`, whose computation writes it.  Source: tf.assign_sub."""
    return _write("AssignSub", ref, value, name)


def _write(op_type: str, ref: Any, value: Any, name: str | None) -> Tensor:
    handle = handle_of(ref)
    with name_scope(name, op_type, [handle]) as scope:
        return cast(Tensor, create(op_type, scope, [handle, convert_to_tensor(value, handle.dtype, "value")]))


def scatter_update(ref: Any, indices: Any, updates: Any, use_locking: bool = True, name: str | None = None) -> Tensor:
    """Set rows of a variable; of equal indices the last one stays.  Source: tf.scatter_update."""
    return scatter("ScatterUpdate", ref, indices, updates, name)


def scatter_add(ref: Any, indices: Any, updates: Any, use_locking: bool = False, name: str | None = None) -> Tensor:
    """Add to rows of a variable; equal indices add up.  Source: tf.scatter_add."""
    return scatter("ScatterAdd", ref, indices, updates, name)


def scatter_sub(ref: Any, indices: Any, updates: Any, use_locking: bool = False, name: str | None = None) -> Tensor:
    """Subtract from rows of a variable; equal indices add up.  Source: tf.scatter_sub."""
    return scatter("ScatterSub", ref, indices, updates, name)


def is_variable_initialized(variable: Any, name: str | None = None) -> Tensor:
    """Return a bool scalar: whether the variable has a value.  Source: tf.is_variable_initialized."""
    handle = handle_of(variable)
    with name_scope(name, "IsVariableInitialized", [handle]) as scope:
        return cast(Tensor, create("IsVariableInitialized", scope, [handle]))


class UninitializedVariables:
    """What `report_uninitialized_variables` returns: fetched, it gives the names of variables without a value."""

    def __init__(self, var_list: Sequence[Any], name: str) -> None:
        with name_scope(name, values=list(var_list)):
            self._names = [v.op.name for v in var_list]
            self._tests = [is_variable_initialized(v) for v in var_list]

    def _fetch_parts(self) -> tuple[list[Tensor], Callable[[Sequence[Any]], np.ndarray[Any, Any]]]:
        return self._tests, self._missing

    def _missing(self, holds: Sequence[Any]) -> np.ndarray[Any, Any]:
        return np.array([n.encode() for n, held in zip(self._names, holds, strict=True) if not held], object)

    def eval(self, feed_dict: Any = None, session: Any = None) -> np.ndarray[Any, Any]:
        """Return the names, as bytes."""
        graph = self._tests[0].graph if self._tests else get_default_graph()
        found: np.ndarray[Any, Any] = default_session(session, graph, "report variables", "eval").run(self, feed_dict)
        return found


def report_uninitialized_variables(var_list: Sequence[Any] | None = None,
                                   name: str = "report_uninitialized_variables") -> UninitializedVariables:
    """Return what gives, when it is run, the names of the variables without a value (global and local ones).

    Source: tf.report_uninitialized_variables.
    """
    return UninitializedVariables([*global_variables(), *local_variables()] if var_list is None else list(var_list),
                                  name)


def assert_variables_initialized(var_list: Sequence[Any] | None = None) -> Operation | None:
    """Return an operation whose run fails where a variable has no value: it reads them all.

    Source: tf.assert_variables_initialized.
    """
    chosen = [*global_variables(), *local_variables()] if var_list is None else list(var_list)
    return control.group(*[v.read_value() for v in chosen], name="assert_variables_initialized") if chosen else None
