"""Losses of a batch: weighted, reduced, and collected.

Owns what `tf.losses` names.  Must not know optimizers.
Invariant: a loss that is computed here stands in the collection LOSSES, unless loss_collection is None.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl import array, nn
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.collections import GraphKeys, add_to_collection, get_collection
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import name_scope
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["Reduction", "absolute_difference", "add_loss", "compute_weighted_loss", "cosine_distance",
           "get_losses", "get_regularization_loss", "get_regularization_losses", "get_total_loss", "hinge_loss",
           "huber_loss", "log_loss", "mean_squared_error", "sigmoid_cross_entropy", "softmax_cross_entropy",
           "sparse_softmax_cross_entropy"]


class Reduction:
    """How the weighted losses become one number.  Source: tf.losses.Reduction."""

    NONE = "none"
    SUM = "weighted_sum"
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"
    MEAN = "weighted_mean"
    SUM_OVER_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    SUM_BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Return all reductions."""
        return (cls.NONE, cls.SUM, cls.MEAN, cls.SUM_OVER_BATCH_SIZE, cls.SUM_BY_NONZERO_WEIGHTS)

    @classmethod
    def validate(cls, key: str) -> None:
        """Raise ValueError for what is no reduction."""
        if key not in cls.all():
            raise at_user(GraphError, f"{key!r} is no reduction of losses; known: {', '.join(cls.all())}")


def compute_weighted_loss(losses: Any, weights: Any = 1.0, scope: str | None = None,
                          loss_collection: str | None = GraphKeys.LOSSES,
                          reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return losses * weights, reduced; the mean over elements of non-zero weight by default.

    weights: a number, or a tensor whose axes have size 1 or that of the losses.  Source:
    tf.losses.compute_weighted_loss.
    """
    Reduction.validate(reduction)
    with name_scope(scope, "weighted_loss", [losses, weights]):
        values = convert_to_tensor(losses)
        wide = values if values.dtype.is_floating else ew.to_float(values)
        factors = ew.cast(convert_to_tensor(weights), wide.dtype)
        _check_weights(factors, wide)
        weighted = ew.multiply(wide, factors)
        loss = weighted
        if reduction != Reduction.NONE:
            loss = red.reduce_sum(weighted)
            if reduction == Reduction.MEAN:
                loss = _safe_divide(loss, red.reduce_sum(array.ones_like(wide) * factors))
            elif reduction == Reduction.SUM_BY_NONZERO_WEIGHTS:
                loss = _safe_divide(loss, _present(wide, factors, weights))
            elif reduction == Reduction.SUM_OVER_BATCH_SIZE:
                loss = _safe_divide(loss, _count(wide))
        loss = convert_to_tensor(ew.cast(loss, values.dtype))
        if loss_collection is not None:
            add_to_collection(loss_collection, loss)
        return loss


def _check_weights(weights: Tensor, values: Tensor) -> None:
    a, b = weights.shape.sizes, values.shape.sizes
    if not a or b is None:
        return
    if len(a) != len(b) or any(x not in (1, None, y) and y is not None for x, y in zip(a, b, strict=True)):
        raise at_user(ShapeError, f"weights {weights.shape} do not fit losses {values.shape}", [weights, values],
                      "every axis of the weights must have size 1 or the losses' size")


def _count(values: Tensor) -> Tensor:
    number = values.shape.num_elements()
    if number is not None:
        return convert_to_tensor(float(number), values.dtype, "num_elements")
    return convert_to_tensor(ew.cast(array.size(values), values.dtype))


def _present(values: Tensor, factors: Tensor, weights: Any) -> Tensor:
    """The number of elements whose weight is not 0."""
    if isinstance(weights, (int, float)) and weights != 0:
        return _count(values)
    nonzero = ew.cast(ew.not_equal(factors, 0), values.dtype)
    return red.reduce_sum(array.ones_like(values) * nonzero)


def _safe_divide(total: Tensor, count: Tensor) -> Tensor:
    return ew.div_no_nan(total, count, "value")


def _loss(default: str, scope: str | None, first: Any, labels: Any, weights: Any, collection: str | None,
          reduction: str,
          function: Callable[[Tensor, Tensor], Tensor], label_name: str = "labels") -> Tensor:
    """A loss of predictions and labels of one shape, in float32."""
    if labels is None or first is None:
        raise at_user(GraphError, f"{default}: {label_name} and predictions must both be given")
    with name_scope(scope, default, [first, labels, weights]) as inner:
        x = ew.to_float(convert_to_tensor(first))
        y = ew.to_float(convert_to_tensor(labels))
        if not x.shape.is_compatible_with(y.shape):
            raise at_user(ShapeError,
                          f"{default}: predictions {x.shape} and {label_name} {y.shape} must have one shape", [x, y])
        return compute_weighted_loss(function(x, y), weights, inner, collection, reduction)


def mean_squared_error(labels: Any, predictions: Any, weights: Any = 1.0, scope: str | None = None,
                       loss_collection: str | None = GraphKeys.LOSSES,
                       reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean of (predictions - labels) squared.  Source: tf.losses.mean_squared_error."""
    return _loss("mean_squared_error", scope, predictions, labels, weights, loss_collection, reduction,
                 lambda x, y: ew.squared_difference(x, y))


def absolute_difference(labels: Any, predictions: Any, weights: Any = 1.0, scope: str | None = None,
                        loss_collection: str | None = GraphKeys.LOSSES,
                        reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean of |predictions - labels|.  Source: tf.losses.absolute_difference."""
    return _loss("absolute_difference", scope, predictions, labels, weights, loss_collection, reduction,
                 lambda x, y: ew.abs(ew.subtract(x, y)))


def huber_loss(labels: Any, predictions: Any, weights: Any = 1.0, delta: float = 1.0, scope: str | None = None,
               loss_collection: str | None = GraphKeys.LOSSES,
               reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean of half the square up to `delta`, linear beyond.  Sources: tf.losses.huber_loss; Huber (1964)."""
    def function(x: Tensor, y: Tensor) -> Tensor:
        distance = ew.abs(ew.subtract(x, y))
        quadratic = ew.minimum(distance, delta)
        return 0.5 * ew.square(quadratic) + delta * (distance - quadratic)

    return _loss("huber_loss", scope, predictions, labels, weights, loss_collection, reduction, function)


def log_loss(labels: Any, predictions: Any, weights: Any = 1.0, epsilon: float = 1e-7, scope: str | None = None,
             loss_collection: str | None = GraphKeys.LOSSES,
             reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean of -y log(p + epsilon) - (1 - y) log(1 - p + epsilon).  Source: tf.losses.log_loss."""
    return _loss("log_loss", scope, predictions, labels, weights, loss_collection, reduction,
                 lambda x, y: -(y * ew.log(x + epsilon)) - (1 - y) * ew.log(1 - x + epsilon))


def hinge_loss(labels: Any, logits: Any, weights: Any = 1.0, scope: str | None = None,
               loss_collection: str | None = GraphKeys.LOSSES,
               reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean of max(0, 1 - y x) with labels 0 and 1 taken as -1 and 1.  Source: tf.losses.hinge_loss."""
    return _loss("hinge_loss", scope, logits, labels, weights, loss_collection, reduction,
                 lambda x, y: nn.relu(1 - (2 * y - 1) * x))


def cosine_distance(labels: Any, predictions: Any, axis: int | None = None, weights: Any = 1.0,
                    scope: str | None = None,
                    loss_collection: str | None = GraphKeys.LOSSES,
                    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS, dim: int | None = None) -> Tensor:
    """Return the mean of 1 - sum(predictions * labels) over `axis` of unit vectors.

    Source: tf.losses.cosine_distance.
    """
    along = red.older_name("axis", axis, "dim", dim)
    if along is None:
        raise at_user(GraphError, "cosine_distance: axis is missing")
    return _loss("cosine_distance_loss", scope, predictions, labels, weights, loss_collection, reduction,
                 lambda x, y: 1 - red.reduce_sum(x * y, along, True))


def sigmoid_cross_entropy(multi_class_labels: Any, logits: Any, weights: Any = 1.0, label_smoothing: float = 0,
                          scope: str | None = None, loss_collection: str | None = GraphKeys.LOSSES,
                          reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean sigmoid cross-entropy; labels smoothed towards 1/2.  Source: tf.losses.sigmoid_cross_entropy."""
    with name_scope(scope, "sigmoid_cross_entropy_loss", [logits, multi_class_labels, weights]) as inner:
        x = convert_to_tensor(logits)
        y = ew.cast(convert_to_tensor(multi_class_labels), x.dtype)
        if label_smoothing > 0:
            y = y * (1 - label_smoothing) + 0.5 * label_smoothing
        return compute_weighted_loss(nn.sigmoid_cross_entropy_with_logits(labels=y, logits=x), weights, inner,
                                     loss_collection, reduction)


def softmax_cross_entropy(onehot_labels: Any, logits: Any, weights: Any = 1.0, label_smoothing: float = 0,
                          scope: str | None = None, loss_collection: str | None = GraphKeys.LOSSES,
                          reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean softmax cross-entropy; labels smoothed towards 1/classes.

    Source: tf.losses.softmax_cross_entropy.
    """
    with name_scope(scope, "softmax_cross_entropy_loss", [logits, onehot_labels, weights]) as inner:
        x = convert_to_tensor(logits)
        y = ew.cast(convert_to_tensor(onehot_labels), x.dtype)
        if not x.shape.is_compatible_with(y.shape):
            raise at_user(ShapeError,
                          f"softmax_cross_entropy: logits {x.shape} and labels {y.shape} must have one shape", [x, y])
        if label_smoothing > 0:
            classes = ew.cast(array.shape(y)[1], x.dtype) if y.shape[1].value is None else float(int(y.shape[1]))
            y = y * (1 - label_smoothing) + label_smoothing / classes
        losses = nn.softmax_cross_entropy_with_logits_v2(labels=array.stop_gradient(y), logits=x)
        return compute_weighted_loss(losses, weights, inner, loss_collection, reduction)


def sparse_softmax_cross_entropy(labels: Any, logits: Any, weights: Any = 1.0, scope: str | None = None,
                                 loss_collection: str | None = GraphKeys.LOSSES,
                                 reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS) -> Tensor:
    """Return the mean softmax cross-entropy of integer labels.  Source: tf.losses.sparse_softmax_cross_entropy."""
    with name_scope(scope, "sparse_softmax_cross_entropy_loss", [logits, labels, weights]) as inner:
        x, y = convert_to_tensor(logits), convert_to_tensor(labels)
        ranks = (x.shape.ndims, y.shape.ndims)
        if None not in ranks and ranks[0] == ranks[1] and y.shape[-1].value == 1:
            y = array.squeeze(y, [-1])
        losses = nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)
        return compute_weighted_loss(losses, weights, inner, loss_collection, reduction)


def add_loss(loss: Tensor, loss_collection: str | None = GraphKeys.LOSSES) -> None:
    """Put a loss into the collection.  Source: tf.losses.add_loss."""
    if loss_collection is not None:
        add_to_collection(loss_collection, loss)


def get_losses(scope: str | None = None, loss_collection: str = GraphKeys.LOSSES) -> list[Any]:
    """Return the collected losses.  Source: tf.losses.get_losses."""
    return get_collection(loss_collection, scope)


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """Return the losses of regularizers.  Source: tf.losses.get_regularization_losses."""
    return get_collection(GraphKeys.REGULARIZATION_LOSSES, scope)


def get_regularization_loss(scope: str | None = None, name: str = "total_regularization_loss") -> Tensor:
    """Return the sum of the losses of regularizers; 0 for none.  Source: tf.losses.get_regularization_loss."""
    return _sum(get_regularization_losses(scope), name)


def get_total_loss(add_regularization_losses: bool = True, name: str = "total_loss",
                   scope: str | None = None) -> Tensor:
    """Return the sum of all collected losses, with those of regularizers.  Source: tf.losses.get_total_loss."""
    losses = get_losses(scope)
    if add_regularization_losses:
        losses += get_regularization_losses(scope)
    return _sum(losses, name)


def _sum(losses: Sequence[Any], name: str) -> Tensor:
    return ew.add_n(losses, name) if losses else convert_to_tensor(0.0, name=name)
