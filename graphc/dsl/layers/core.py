"""The layers without a spatial meaning: dense, dropout, flatten; and the regularizers.

Owns what `tf.layers` names of them, as functions and as classes.  Must not know optimizers.
Invariant: a layer's variables are "NAME/kernel" and "NAME/bias".
"""
from __future__ import annotations

from typing import Any, cast

from graphc.dsl import array, initializers, linear, nn
from graphc.dsl.control import identity
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.layers.base import Layer
from graphc.dsl.scope import has_tensor, name_scope
from graphc.dsl.variable_scope import get_variable, variable_scope
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["Dense", "Dropout", "Flatten", "dense", "dropout", "flatten", "fully_connected", "l1_regularizer",
           "l2_regularizer"]


class Dense(Layer):
    """activation(inputs @ kernel + bias) over the last axis.  Source: tf.layers.Dense."""

    def __init__(self, units: int, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = None,
                 bias_initializer: Any = initializers.Zeros, kernel_regularizer: Any = None,
                 bias_regularizer: Any = None,
                 activity_regularizer: Any = None, kernel_constraint: Any = None, bias_constraint: Any = None,
                 trainable: bool = True, name: str | None = None, _reuse: Any = None) -> None:
        super().__init__(name, "dense", trainable, _reuse, activity_regularizer=activity_regularizer)
        self.units = int(units)
        self.activation = activation
        self.use_bias = use_bias
        self._kernel = (kernel_initializer, kernel_regularizer, kernel_constraint)
        self._bias = (bias_initializer, bias_regularizer, bias_constraint)
        self.kernel: Any = None
        self.bias: Any = None

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        rank = inputs.shape.ndims
        width = inputs.shape[-1].value if rank else None
        if rank is None or width is None:
            raise at_user(ShapeError, f"dense: the last axis of {inputs.shape} must have a known size", [inputs])
        self.kernel = self._variable("kernel", [width, self.units], inputs.dtype, *self._kernel)
        if self.use_bias:
            self.bias = self._variable("bias", [self.units], inputs.dtype, *self._bias)
        if rank == 2:
            result = linear.matmul(inputs, self.kernel)
        else:
            result = linear.tensordot(inputs, self.kernel, [[rank - 1], [0]])
        if self.use_bias:
            result = nn.bias_add(result, self.bias)
        return result if self.activation is None else cast(Tensor, self.activation(result))


def dense(inputs: Any, units: int, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = None,
          bias_initializer: Any = initializers.Zeros, kernel_regularizer: Any = None, bias_regularizer: Any = None,
          activity_regularizer: Any = None, kernel_constraint: Any = None, bias_constraint: Any = None,
          trainable: bool = True, name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(inputs @ kernel + bias) over the last axis.  Source: tf.layers.dense."""
    return Dense(units, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
                 bias_regularizer,
                 activity_regularizer, kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


class Dropout(Layer):
    """nn.dropout while `training`, else the inputs.  Source: tf.layers.Dropout."""

    def __init__(self, rate: Any = 0.5, noise_shape: Any = None, seed: int | None = None,
                 name: str | None = None) -> None:
        super().__init__(name, "dropout")
        self.rate = rate
        self.noise_shape = noise_shape
        self.seed = seed

    def call(self, inputs: Tensor, training: Any = False, **arguments: Any) -> Tensor:
        if not has_tensor(training):
            return nn.dropout(inputs, noise_shape=self.noise_shape, seed=self.seed, rate=self.rate) if training \
                else identity(inputs)
        dropped = nn.dropout(inputs, noise_shape=self.noise_shape, seed=self.seed, rate=self.rate)
        return array.where_v2(training, dropped, inputs)


def dropout(inputs: Any, rate: Any = 0.5, noise_shape: Any = None, seed: int | None = None, training: Any = False,
            name: str | None = None) -> Tensor:
    """Return nn.dropout(inputs, rate) while `training` (a bool or a bool tensor), else inputs.

    Source: tf.layers.dropout.
    """
    return Dropout(rate, noise_shape, seed, name)(inputs, training=training)


class Flatten(Layer):
    """The axes after the first as one, the channels fastest.  Source: tf.layers.Flatten."""

    def __init__(self, data_format: str | None = None, name: str | None = None) -> None:
        super().__init__(name, "flatten")
        self.data_format = data_format or "channels_last"
        if self.data_format not in ("channels_last", "channels_first"):
            raise at_user(GraphError, f"flatten: data_format is 'channels_last' or 'channels_first', not "
                                      f"{data_format!r}")

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        sizes = inputs.shape.sizes
        if sizes is None or len(sizes) < 1:
            raise at_user(ShapeError, f"flatten: {inputs.shape} must have a known rank of 1 or more", [inputs])
        if self.data_format == "channels_first" and len(sizes) > 2:
            inputs = array.transpose(inputs, [0, *range(2, len(sizes)), 1])
        width = inputs.shape[1:].num_elements()
        if width is not None:
            return array.reshape(inputs, [-1, width])
        return array.reshape(inputs, [array.shape(inputs)[0] if sizes[0] is None else sizes[0], -1])


def flatten(inputs: Any, name: str | None = None, data_format: str = "channels_last") -> Tensor:
    """Return inputs with the axes after the first as one, the channels fastest.  Source: tf.layers.flatten."""
    return Flatten(data_format, name)(inputs)


def fully_connected(inputs: Any, num_outputs: int, activation_fn: Any = nn.relu, normalizer_fn: Any = None,
                    normalizer_params: Any = None, weights_initializer: Any = None, weights_regularizer: Any = None,
                    biases_initializer: Any = initializers.Zeros, biases_regularizer: Any = None, reuse: Any = None,
                    variables_collections: Any = None, outputs_collections: Any = None, trainable: bool = True,
                    scope: Any = None) -> Tensor:
    """Return activation_fn(inputs @ weights + biases); biases_initializer None leaves them out.

    Source: tf.contrib.layers.fully_connected.
    """
    value = convert_to_tensor(inputs, name="inputs")
    width = value.shape[-1].value if value.shape.ndims else None
    if width is None:
        raise at_user(ShapeError, f"fully_connected: the last axis of {value.shape} must have a known size", [value])
    with variable_scope(scope, "fully_connected", [value], reuse=reuse):
        weights = get_variable("weights", [width, num_outputs], value.dtype, weights_initializer, weights_regularizer,
                               trainable)
        rank = value.shape.ndims or 2
        result = linear.matmul(value, weights) if rank == 2 else linear.tensordot(value, weights, [[rank - 1], [0]])
        if normalizer_fn is not None:
            result = normalizer_fn(result, **(normalizer_params or {}))
        elif biases_initializer is not None:
            biases = get_variable("biases", [num_outputs], value.dtype, biases_initializer, biases_regularizer,
                                  trainable)
            result = nn.bias_add(result, biases)
        return result if activation_fn is None else cast(Tensor, activation_fn(result))


def l2_regularizer(scale: float, scope: str | None = None) -> Any:
    """Return a function that gives scale * l2_loss(weights), None for a scale of 0.

    Source: tf.contrib.layers.l2_regularizer.
    """
    def regularizer(weights: Any) -> Tensor | None:
        if not scale:
            return None
        with name_scope(scope, "l2_regularizer", [weights]):
            return scale * nn.l2_loss(weights)

    return regularizer


def l1_regularizer(scale: float, scope: str | None = None) -> Any:
    """Return a function that gives scale * sum(|weights|), None for a scale of 0.

    Source: tf.contrib.layers.l1_regularizer.
    """
    def regularizer(weights: Any) -> Tensor | None:
        if not scale:
            return None
        with name_scope(scope, "l1_regularizer", [weights]):
            return scale * linear.norm(weights, 1)

    return regularizer
