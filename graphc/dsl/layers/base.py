"""What all layers share: the scope of their variables, made once and shared at every further call.

Owns `Layer` and how TensorFlow's layers name layouts and sizes.  Must not know single layers.
Invariant: a layer's variables are "NAME/...", whether it was called once or often; what it adds to collections (losses,
updates) it adds at every call, as TensorFlow 1 does.
"""
from __future__ import annotations

from typing import Any

from graphc.dsl.collections import GraphKeys, add_to_collection
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.pooling import FORMATS
from graphc.dsl.scope import name_scope, plain
from graphc.dsl.variable_scope import VariableScope, get_variable, variable_scope
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor


def sizes(value: Any, count: int, what: str) -> tuple[int, ...]:
    """Return one size per spatial axis from one number or as many.  Raises ShapeError."""
    given = plain(value)
    found = (given,) * count if isinstance(given, int) else tuple(given)
    if len(found) != count or not all(isinstance(n, int) for n in found):
        raise at_user(ShapeError, f"{what} is a number or {count} of them, not {value!r}")
    return found


def layout(data_format: str, spatial: int, what: str) -> str:
    """Return the layout ("NHWC" ...) that "channels_last" or "channels_first" is.  Raises GraphError."""
    if data_format not in ("channels_last", "channels_first"):
        raise at_user(GraphError, f"{what}: data_format is 'channels_last' or 'channels_first', not {data_format!r}")
    return FORMATS[spatial][data_format == "channels_first"]


class Layer:
    """A function with variables: made at the first call, shared by the later ones.  Source: tf.layers.Layer."""

    def __init__(self, name: str | None, default: str, trainable: bool = True, reuse: Any = None,
                 activity_regularizer: Any = None) -> None:
        self._given = name
        self._default = default
        self._trainable = trainable
        self._reuse = reuse
        self._scope: VariableScope | None = None
        self._activity_regularizer = activity_regularizer
        self.variables: list[Any] = []
        self.updates: list[Any] = []
        self.losses: list[Tensor] = []

    @property
    def name(self) -> str:
        """The layer's name; before the first call, the one it was given or its class's."""
        return self._scope.name.rsplit("/", 1)[-1] if self._scope is not None else self._given or self._default

    @property
    def trainable_variables(self) -> list[Any]:
        return [v for v in self.variables if v.trainable]

    trainable_weights = trainable_variables

    @property
    def weights(self) -> list[Any]:
        return list(self.variables)

    def __call__(self, inputs: Any, **arguments: Any) -> Tensor:
        """Return the layer's output for `inputs`."""
        value = convert_to_tensor(inputs, name="inputs")
        first = self._scope is None
        reuse = self._reuse if first else True
        with variable_scope(self._given if first else self._scope, self._default, [value], reuse=reuse) as scope:
            self._scope = scope
            result = self.call(value, **arguments)
            if self._activity_regularizer is not None:
                self._add_loss(result)
            return result

    apply = __call__

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        """Compute the output; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes")

    def _variable(self, name: str, shape: list[int], dtype: Any, initializer: Any, regularizer: Any = None,
                  constraint: Any = None, trainable: bool = True) -> Any:
        made = get_variable(name, shape, dtype, initializer, regularizer, self._trainable and trainable,
                            constraint=constraint)
        if made not in self.variables:
            self.variables.append(made)
        return made

    def _add_loss(self, result: Tensor) -> None:
        with name_scope("ActivityRegularizer"):
            loss = self._activity_regularizer(result)
        if loss is not None:
            self.losses.append(loss)
            add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)

    def _add_update(self, update: Any) -> None:
        self.updates.append(update)
        add_to_collection(GraphKeys.UPDATE_OPS, update)
