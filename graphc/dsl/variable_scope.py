"""Variables by name: `get_variable`, and the scopes that name, share and default them.

Owns TensorFlow 1's rules of sharing.  Knows the store of one graph; must not know sessions.
Invariant: within a graph a name made by `get_variable` stands for one variable.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from enum import Enum
from types import TracebackType
from typing import Any

import numpy as np

from graphc import dtypes, source
from graphc.dsl import initializers
from graphc.dsl.control import init_scope
from graphc.dsl.scope import graph_of, name_scope
from graphc.dsl.variable import Variable
from graphc.errors import GraphError, report
from graphc.graph.graph import Graph, get_default_graph, near_names
from graphc.graph.keys import GraphKeys
from graphc.graph.operation import at_user
from graphc.graph.shape import TensorShape, as_shape
from graphc.graph.tensor import Tensor


class _ReuseMode(Enum):
    """AUTO_REUSE: take the variable where it exists, make it where it does not."""

    AUTO_REUSE = 1


AUTO_REUSE = _ReuseMode.AUTO_REUSE


class VariableScope:
    """A prefix of names, whether variables are shared there, and defaults.  Source: tf.VariableScope."""

    def __init__(self, reuse: Any, name: str = "", initializer: Any = None, regularizer: Any = None,
                 caching_device: Any = None, partitioner: Any = None, custom_getter: Any = None, name_scope: str = "",
                 dtype: Any = dtypes.float32, use_resource: Any = None, constraint: Any = None) -> None:
        _refuse_partitioner(partitioner)
        self._name = name
        self._reuse = reuse
        self._initializer = initializer
        self._regularizer = regularizer
        self._custom_getter = custom_getter
        self._name_scope = name_scope
        self._dtype = dtypes.as_dtype(dtype)
        self._constraint = constraint

    name = property(lambda self: self._name)
    original_name_scope = property(lambda self: self._name_scope)
    reuse = property(lambda self: self._reuse)
    initializer = property(lambda self: self._initializer)
    regularizer = property(lambda self: self._regularizer)
    custom_getter = property(lambda self: self._custom_getter)
    dtype = property(lambda self: self._dtype)
    constraint = property(lambda self: self._constraint)

    def reuse_variables(self) -> None:
        """Share variables from here on."""
        self._reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Set the default initializer."""
        self._initializer = initializer

    def set_regularizer(self, regularizer: Any) -> None:
        """Set the default regularizer."""
        self._regularizer = regularizer

    def set_custom_getter(self, custom_getter: Any) -> None:
        """Set the function that stands before `get_variable`."""
        self._custom_getter = custom_getter

    def set_dtype(self, dtype: Any) -> None:
        """Set the default dtype."""
        self._dtype = dtypes.as_dtype(dtype)

    def get_collection(self, name: str) -> list[Any]:
        """Return the items of a collection whose names lie in this scope."""
        return get_default_graph().get_collection(name, f"{self._name}/" if self._name else "")

    def trainable_variables(self) -> list[Any]:
        """Return the trainable variables of this scope."""
        return self.get_collection(GraphKeys.TRAINABLE_VARIABLES)

    def global_variables(self) -> list[Any]:
        """Return the variables of this scope."""
        return self.get_collection(GraphKeys.GLOBAL_VARIABLES)

    def changed(self, **changes: Any) -> VariableScope:
        """Return a copy; values that are None leave what is there."""
        now = {"reuse": self._reuse, "name": self._name, "initializer": self._initializer,
               "regularizer": self._regularizer, "custom_getter": self._custom_getter, "name_scope": self._name_scope,
               "dtype": self._dtype, "constraint": self._constraint}
        return VariableScope(**(now | {k: v for k, v in changes.items() if v is not None}))

    def get_variable(self, name: str, **arguments: Any) -> Variable:
        """Return the variable `name` in this scope; arguments as of tf.get_variable."""
        with _entered(get_default_graph(), self):
            return get_variable(name, **arguments)


class _Store:
    """What a graph knows of its variables by name."""

    def __init__(self) -> None:
        self.variables: dict[str, Variable] = {}
        self.counts: dict[str, int] = {}
        self.current = VariableScope(False)

    def close(self, prefix: str) -> None:
        """Forget how often scopes below `prefix` were opened, so that entering it again makes the same names."""
        for name in self.counts:
            if not prefix or name.startswith(f"{prefix}/"):
                self.counts[name] = 0

    def unique(self, prefix: str) -> str:
        """Return `prefix`, or with _1, _2 ... where a scope of that name was opened."""
        here = self.current.name
        full = f"{here}/{prefix}" if here else prefix
        if not self.counts.get(full):
            return prefix
        n = 1
        while self.counts.get(f"{full}_{n}"):
            n += 1
        return f"{prefix}_{n}"


def _store(graph: Graph) -> _Store:
    return graph.extensions.setdefault("variable_store", _Store())  # type: ignore[no-any-return]


class _entered(AbstractContextManager[VariableScope]):
    """Make `scope` the current one inside a `with` block."""

    def __init__(self, graph: Graph, scope: VariableScope) -> None:
        self._store = _store(graph)
        self._scope = scope

    def __enter__(self) -> VariableScope:
        self._before = self._store.current
        self._store.current = self._scope
        return self._scope

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._store.current = self._before


class variable_scope:
    """`with variable_scope(name) as scope`: names of variables and operations inside start with `name`/.

    name_or_scope: a name, or a VariableScope to enter again.  default_name: made unique where name_or_scope is None.
    reuse: True, False, None (inherit) or AUTO_REUSE.  The others are defaults of get_variable inside.
    Source: tf.variable_scope.
    """

    def __init__(self, name_or_scope: Any, default_name: str | None = None, values: Sequence[Any] | None = None,
                 initializer: Any = None, regularizer: Any = None, caching_device: Any = None, partitioner: Any = None,
                 custom_getter: Any = None, reuse: Any = None, dtype: Any = None, use_resource: bool | None = None,
                 constraint: Any = None, auxiliary_name_scope: bool = True) -> None:
        if name_or_scope is None and default_name is None:
            raise TypeError("variable_scope: give a name, a scope, or default_name")
        if name_or_scope is None and reuse:
            raise at_user(GraphError, "variable_scope: reuse needs a name or a scope, default_name makes new names")
        if name_or_scope is not None and not isinstance(name_or_scope, (str, VariableScope)):
            raise TypeError(f"variable_scope: {name_or_scope!r} is neither a name nor a scope")
        if reuse not in (True, False, None, AUTO_REUSE):
            raise at_user(GraphError,
                          f"variable_scope: reuse must be True, False, None or tf.AUTO_REUSE, not {reuse!r}")
        _refuse_partitioner(partitioner)
        self._name_or_scope = name_or_scope
        self._default_name = default_name
        self._values = values
        self._reuse = reuse
        self._auxiliary = auxiliary_name_scope
        self._defaults = {"initializer": initializer, "regularizer": regularizer, "custom_getter": custom_getter,
                          "dtype": dtype, "constraint": constraint}

    def __enter__(self) -> VariableScope:
        graph = graph_of(self._values or ())
        store = _store(graph)
        again = self._name_or_scope if isinstance(self._name_or_scope, VariableScope) else None
        base = again or store.current
        if again is not None:
            full, prefix = again.name, again.name.rsplit("/", 1)[-1]
        else:
            prefix = str(self._default_name if self._name_or_scope is None else self._name_or_scope)
            name = store.unique(prefix) if self._name_or_scope is None else prefix
            full = "/".join(part for part in (base.name, name) if part)
        changes = dict(self._defaults)
        if base.custom_getter is not None and changes["custom_getter"] is not None:
            changes["custom_getter"] = _composed(changes["custom_getter"], base.custom_getter)
        with ExitStack() as stack:
            stack.enter_context(graph.as_default())
            if self._auxiliary and prefix:
                stack.enter_context(name_scope(prefix))
            here = graph.get_name_scope()
            operations = again.original_name_scope if again is not None else f"{here}/" if here else ""
            # sharing is inherited: an inner scope cannot take it back
            scope = base.changed(reuse=self._reuse or base.reuse, name=full, name_scope=operations, **changes)
            if again is not None:
                stack.callback(store.counts.update, dict(store.counts))
            else:
                store.counts[full] = store.counts.get(full, 0) + 1
                stack.callback(store.close, full)
            stack.enter_context(_entered(graph, scope))
            self._exit = stack.pop_all()
        return scope

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._exit.__exit__(kind, error, trace)


def _composed(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    def both(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return inner(lambda *a, **k: outer(getter, *a, **k), *args, **kwargs)
    return both


def get_variable_scope() -> VariableScope:
    """Return the current scope of variables.  Source: tf.get_variable_scope."""
    return _store(get_default_graph()).current


def get_variable(name: str, shape: Any = None, dtype: Any = None, initializer: Any = None, regularizer: Any = None,
                 trainable: bool | None = None, collections: Sequence[str] | None = None, caching_device: Any = None,
                 partitioner: Any = None, validate_shape: bool = True, use_resource: bool | None = None,
                 custom_getter: Any = None, constraint: Any = None, synchronization: Any = None,
                 aggregation: Any = None) -> Variable:
    """Return the variable `name` of the current scope: made, or shared where the scope reuses.

    initializer: an initializer, a function of (shape, dtype), or a value (then no shape); Glorot's uniform for floats,
    zeros for other dtypes.  Raises GraphError (a ValueError) where it exists and is not reused, or the reverse;
    ShapeError and DTypeError where it exists with another type.  Source: tf.get_variable.
    """
    _refuse_partitioner(partitioner)
    graph = get_default_graph()
    scope = _store(graph).current
    getter = custom_getter or scope.custom_getter
    if custom_getter is not None and scope.custom_getter is not None:
        getter = _composed(custom_getter, scope.custom_getter)
    full = f"{scope.name}/{name}" if scope.name else name
    if not full:
        raise at_user(GraphError, "get_variable: a variable needs a name")
    arguments = {
        "shape": shape, "dtype": scope.dtype if dtype is None else dtypes.as_dtype(dtype),
        "initializer": scope.initializer if initializer is None else initializer,
        "regularizer": scope.regularizer if regularizer is None else regularizer,
        "reuse": scope.reuse, "trainable": trainable, "collections": collections, "validate_shape": validate_shape,
        "constraint": scope.constraint if constraint is None else constraint}
    if dtype is None and _is_value(arguments["initializer"]):
        arguments["dtype"] = None  # a value brings its own dtype
    made: Variable = _get(full, **arguments) if getter is None else getter(_get, full, **arguments)
    return made


def _is_value(initializer: Any) -> bool:
    return isinstance(initializer, (Tensor, Variable, np.ndarray, np.generic, int, float, bool, list, tuple))


def _get(name: str, shape: Any = None, dtype: Any = None, initializer: Any = None, regularizer: Any = None,
         reuse: Any = None, trainable: bool | None = None, collections: Sequence[str] | None = None,
         caching_device: Any = None, partitioner: Any = None, validate_shape: bool = True, use_resource: Any = None,
         constraint: Any = None, synchronization: Any = None, aggregation: Any = None) -> Variable:
    """Return the variable of the full `name`, made or shared as `reuse` says."""
    graph = get_default_graph()
    store = _store(graph)
    found = store.variables.get(name)
    if found is not None:
        if not reuse:
            raise GraphError(report(f"get_variable: the variable {name!r} exists already", str(source.capture()),
                                    [(name, f"made at {found.op.source}")],
                                    "pass reuse=True or reuse=tf.AUTO_REUSE to the variable_scope to share it"))
        return _checked(found, name, shape, dtype)
    if reuse is True:
        near = near_names(name, store.variables)
        hint = f"near names: {', '.join(map(repr, near))}" if near else "pass reuse=tf.AUTO_REUSE to make missing ones"
        raise at_user(GraphError, f"get_variable: the variable {name!r} does not exist, and the scope only shares", (),
                      hint)
    made = _make(name, shape, dtype, initializer, trainable, collections, validate_shape, constraint)
    store.variables[name] = made
    if regularizer is not None:
        with name_scope(f"{name}/Regularizer/", values=[made]):
            loss = regularizer(made)
        if loss is not None:
            graph.add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
    return made


def _checked(found: Variable, name: str, shape: Any, dtype: Any) -> Variable:
    made = [(name, f"{found.dtype.name} {found.shape}, made at {found.op.source}")]
    if shape is not None and not as_shape(shape).is_compatible_with(found.shape):
        raise GraphError(report(f"get_variable: the shared variable {name!r} has the shape {found.shape}, "
                                f"not {as_shape(shape)}", str(source.capture()), made))
    if dtype is not None and dtypes.as_dtype(dtype) is not found.dtype:
        raise GraphError(report(f"get_variable: the shared variable {name!r} is {found.dtype.name}, "
                                f"not {dtypes.as_dtype(dtype).name}", str(source.capture()), made))
    return found


def _make(name: str, shape: Any, dtype: Any, initializer: Any, trainable: bool | None,
          collections: Sequence[str] | None, validate_shape: bool, constraint: Any) -> Variable:
    start: Any
    if _is_value(initializer):
        if shape is not None:
            given = as_shape(shape)
            have = initializer.shape if isinstance(initializer, (Tensor, Variable)) else as_shape(np.shape(initializer))
            if not given.is_compatible_with(have):
                raise at_user(GraphError,
                              f"get_variable: the initial value of {name!r} has the shape {have}, not {given}")
        start = initializer
    else:
        sizes = TensorShape(shape)
        wanted = dtypes.float32 if dtype is None else dtypes.as_dtype(dtype)
        init = initializers.get(_default_initializer(wanted) if initializer is None else initializer)
        if shape is None and (initializer is None or isinstance(init, initializers.Initializer)):
            raise GraphError(report(f"get_variable: the shape of {name!r} is missing", str(source.capture()),
                                    hint="give a shape, or a value as the initializer"))
        if shape is None:
            start = init
        elif sizes.is_fully_defined():
            def start() -> Any:
                return init(sizes.as_list(), dtype=wanted)
        else:
            raise GraphError(report(f"get_variable: the shape {sizes} of {name!r} is not fully known",
                                    str(source.capture())))
    with init_scope(), name_scope(""):
        return Variable(start, True if trainable is None else trainable, collections, validate_shape, name=name,
                        dtype=dtype, constraint=constraint)


def _default_initializer(dtype: dtypes.DType) -> Any:
    return initializers.glorot_uniform() if dtype.is_floating else initializers.Zeros()


def _refuse_partitioner(partitioner: Any) -> None:
    if partitioner is not None:
        raise at_user(GraphError, "partitioned variables are not supported: a variable lives in one place")


def get_local_variable(name: str, *args: Any, **arguments: Any) -> Variable:
    """Return get_variable(name, ...) of a variable that is local: not trainable, not saved.

    Source: tf.get_local_variable.
    """
    arguments.setdefault("collections", [GraphKeys.LOCAL_VARIABLES])
    return get_variable(name, *args, **{**arguments, "trainable": False})


def variable_op_scope(values: Sequence[Any], name_or_scope: Any, default_name: str | None = None,
                      **arguments: Any) -> variable_scope:
    """Return variable_scope(name_or_scope, default_name, values, ...).  Source: tf.variable_op_scope."""
    return variable_scope(name_or_scope, default_name, values, **arguments)


def no_regularizer(_: Any) -> None:
    """Add no loss.  Source: tf.no_regularizer."""
