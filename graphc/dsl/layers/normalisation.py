"""The layer of batch normalisation: moving statistics, and the updates that a training step must run.

Owns what `tf.layers` names of it.  Must not know optimizers.  Invariants: the variables are gamma, beta, moving_mean
and moving_variance; in training the two updates stand in the collection UPDATE_OPS at every call, and nothing runs them
that does not ask for them.
"""
from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.dsl import array, initializers
from graphc.dsl import elementwise as ew
from graphc.dsl import normalisation as norm
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.layers.base import Layer
from graphc.dsl.scope import has_tensor, name_scope
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["BatchNormalization", "batch_norm", "batch_normalization"]


class BatchNormalization(Layer):
    """Inputs normalised by channel: with the batch's statistics in training, else with moving ones.

    Source: tf.layers.BatchNormalization; Ioffe and Szegedy (2015).
    """

    def __init__(self, axis: Any = -1, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True,
                 scale: bool = True, beta_initializer: Any = initializers.Zeros,
                 gamma_initializer: Any = initializers.Ones, moving_mean_initializer: Any = initializers.Zeros,
                 moving_variance_initializer: Any = initializers.Ones, beta_regularizer: Any = None,
                 gamma_regularizer: Any = None, beta_constraint: Any = None, gamma_constraint: Any = None,
                 renorm: bool = False, renorm_clipping: Any = None, renorm_momentum: float = 0.99,
                 fused: bool | None = None, trainable: bool = True, virtual_batch_size: int | None = None,
                 adjustment: Any = None, name: str | None = None, _reuse: Any = None) -> None:
        super().__init__(name, "batch_normalization", trainable, _reuse)
        for refused, what in ((renorm, "renorm"), (virtual_batch_size, "virtual_batch_size"),
                              (adjustment, "adjustment")):
            if refused:
                raise at_user(GraphError, f"batch_normalization: {what} is not supported")
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.fused = fused
        self.gamma: Any = None
        self.beta: Any = None
        self.moving_mean: Any = None
        self.moving_variance: Any = None
        self._gamma = (gamma_initializer, gamma_regularizer, gamma_constraint)
        self._beta = (beta_initializer, beta_regularizer, beta_constraint)
        self._moving = (moving_mean_initializer, moving_variance_initializer)

    def call(self, inputs: Tensor, training: Any = False, **arguments: Any) -> Tensor:
        rank = inputs.shape.ndims
        if rank is None:
            raise at_user(ShapeError, "batch_normalization: the rank of the inputs must be known", [inputs])
        axes = self._axes(rank)
        fused = self._is_fused(rank, axes)
        dtype = dtypes.float32 if inputs.dtype.size == 2 else inputs.dtype
        self._variables(inputs, axes, dtype)
        static = not has_tensor(training)
        if fused and static:
            result, mean, variance = self._fused(inputs, axes[0], bool(training))
        else:
            result, mean, variance = self._composed(inputs, axes, fused, training)
        if not static or training:
            self._moved(mean, variance, None if static else convert_to_tensor(training))
        return result

    def _axes(self, rank: int) -> list[int]:
        given = list(self.axis) if isinstance(self.axis, (list, tuple)) else [self.axis]
        if not all(isinstance(a, int) and -rank <= a < rank for a in given):
            raise at_user(ShapeError, f"batch_normalization: axis {self.axis} is out of range for rank {rank}")
        return sorted({a % rank for a in given})

    def _is_fused(self, rank: int, axes: list[int]) -> bool:
        possible = rank == 4 and axes in ([1], [3])
        if self.fused and not possible:
            raise at_user(ShapeError, f"batch_normalization: fused=True normalises axis 1 or 3 of rank 4, not axis "
                                      f"{self.axis} of rank {rank}")
        return possible if self.fused is None else self.fused

    def _variables(self, inputs: Tensor, axes: list[int], dtype: Any) -> None:
        shape = [inputs.shape[a].value for a in axes]
        if None in shape:
            raise at_user(ShapeError, f"batch_normalization: axis {self.axis} of {inputs.shape} must have a known size",
                          [inputs])
        sizes = [int(n) for n in shape if n is not None]
        if self.scale:
            self.gamma = self._variable("gamma", sizes, dtype, *self._gamma)
        if self.center:
            self.beta = self._variable("beta", sizes, dtype, *self._beta)
        self.moving_mean = self._variable("moving_mean", sizes, dtype, self._moving[0], trainable=False)
        self.moving_variance = self._variable("moving_variance", sizes, dtype, self._moving[1], trainable=False)

    def _fused(self, inputs: Tensor, axis: int, training: bool) -> tuple[Tensor, Tensor, Tensor]:
        count, dtype = self.moving_mean.shape.as_list(), self.moving_mean.dtype
        gamma = self.gamma if self.scale else array.ones(count, dtype)
        beta = self.beta if self.center else array.zeros(count, dtype)
        mean, variance = (None, None) if training else (self.moving_mean, self.moving_variance)
        return norm.fused_batch_norm(inputs, gamma, beta, mean, variance, self.epsilon,
                                     "NHWC" if axis == 3 else "NCHW", training)

    def _composed(self, inputs: Tensor, axes: list[int], fused: bool, training: Any
                  ) -> tuple[Tensor, Tensor, Tensor]:
        """Without the op: other ranks and axes, or a choice of statistics that only the run can make.

        The second result is what the moving statistics follow, in a fused layer n / (n - 1) times the variance.
        """
        rank = inputs.shape.ndims or 0
        value = ew.cast(inputs, self.moving_mean.dtype)
        mean, variance = self.moving_mean.value(), self.moving_variance.value()
        followed = variance
        if has_tensor(training) or training:
            batch = norm.moments(value, [a for a in range(rank) if a not in axes])
            followed = batch[1] * _bessel(value, batch[1]) if fused else batch[1]
            if has_tensor(training):
                choice = convert_to_tensor(training)
                mean, variance = (array.where_v2(choice, b, m) for b, m in zip(batch, (mean, variance), strict=True))
            else:
                mean, variance = batch
        last = axes == [rank - 1]
        shape = [inputs.shape[a].value if a in axes else 1 for a in range(rank)]

        def along(v: Any) -> Any:
            return v if v is None or last else array.reshape(v, shape)

        offset, scale = (self.beta if self.center else None), (self.gamma if self.scale else None)
        result = norm.batch_normalization(value, along(mean), along(variance), along(offset), along(scale),
                                          self.epsilon)
        training_mean = batch[0] if has_tensor(training) or training else mean
        return ew.cast(result, inputs.dtype), training_mean, followed

    def _moved(self, mean: Tensor, variance: Tensor, choice: Tensor | None) -> None:
        """Add the updates of the moving statistics; where `choice` does not hold they change nothing."""
        rate: Any = 1.0 - self.momentum
        if choice is not None:
            rate = ew.cast(choice, self.moving_mean.dtype) * rate
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            with name_scope("AssignMovingAvg", values=[moving, value]):
                self._add_update(moving.assign_sub((moving - value) * rate))


def _bessel(x: Tensor, variance: Tensor) -> Any:
    """n / max(n - 1, 1) for the n elements of each channel."""
    known, channels = x.shape.num_elements(), variance.shape.num_elements()
    if known is not None and channels:
        count = known // channels
        return count / max(count - 1, 1)
    number = ew.cast(ew.floordiv(array.size(x), ew.maximum(array.size(variance), 1)), x.dtype)
    return number / ew.maximum(number - 1.0, 1.0)


def batch_normalization(inputs: Any, axis: Any = -1, momentum: float = 0.99, epsilon: float = 1e-3,
                        center: bool = True, scale: bool = True, beta_initializer: Any = initializers.Zeros,
                        gamma_initializer: Any = initializers.Ones, moving_mean_initializer: Any = initializers.Zeros,
                        moving_variance_initializer: Any = initializers.Ones, beta_regularizer: Any = None,
                        gamma_regularizer: Any = None, beta_constraint: Any = None, gamma_constraint: Any = None,
                        training: Any = False, trainable: bool = True, name: str | None = None, reuse: Any = None,
                        renorm: bool = False, renorm_clipping: Any = None, renorm_momentum: float = 0.99,
                        fused: bool | None = None, virtual_batch_size: int | None = None,
                        adjustment: Any = None) -> Tensor:
    """Return inputs normalised along `axis` by mean and variance: the batch's while `training`, else moving ones.

    training: a bool, or a bool tensor.  In training the updates of the moving statistics are added to the collection
    UPDATE_OPS; a training step must run them: with tf.control_dependencies(tf.get_collection(...)).  Variables:
    NAME/gamma, NAME/beta, NAME/moving_mean, NAME/moving_variance.  Raises GraphError for renorm, virtual_batch_size and
    adjustment.  Source: tf.layers.batch_normalization.
    """
    layer = BatchNormalization(axis, momentum, epsilon, center, scale, beta_initializer, gamma_initializer,
                               moving_mean_initializer, moving_variance_initializer, beta_regularizer,
                               gamma_regularizer, beta_constraint, gamma_constraint, renorm, renorm_clipping,
                               renorm_momentum, fused, trainable, virtual_batch_size, adjustment, name, reuse)
    return layer(inputs, training=training)


batch_norm = batch_normalization
