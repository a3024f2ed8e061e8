"""Neural networks: activations, losses per example, normalisation, dropout, embeddings.

Owns what `tf.nn` names (layers that own variables stand in layers/).  Must not know optimizers.
Invariant: losses and softmax are computed in their stable forms, from logits.
"""
from __future__ import annotations

from typing import Any, cast

from graphc.dsl import array, linear, random
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.convert import convert_to_tensor, matching
from graphc.dsl.elementwise import log_sigmoid, sigmoid, tanh
from graphc.dsl.nn_convolution import (
    atrous_conv2d,
    atrous_conv2d_transpose,
    conv1d,
    conv1d_transpose,
    conv2d,
    conv2d_backprop_filter,
    conv2d_backprop_input,
    conv2d_transpose,
    conv3d,
    conv3d_backprop_filter,
    conv3d_backprop_filter_v2,
    conv3d_transpose,
    conv_transpose,
    convolution,
    depthwise_conv2d,
    depthwise_conv2d_backprop_filter,
    depthwise_conv2d_backprop_input,
    depthwise_conv2d_native,
    depthwise_conv2d_native_backprop_filter,
    depthwise_conv2d_native_backprop_input,
    separable_conv2d,
)
from graphc.dsl.normalisation import (
    batch_norm_with_global_normalization,
    batch_normalization,
    fused_batch_norm,
    group_norm,
    instance_norm,
    l2_normalize,
    layer_norm,
    local_response_normalization,
    lrn,
    moments,
    normalize_moments,
    sufficient_statistics,
    weighted_moments,
)
from graphc.dsl.pooling import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    avg_pool_v2,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    max_pool_v2,
    max_pool_with_argmax,
    pool,
)
from graphc.dsl.reduction import l2_loss, older_name
from graphc.dsl.scope import create, has_tensor, name_scope
from graphc.dsl.variable import Variable
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = [
    "atrous_conv2d",
    "atrous_conv2d_transpose",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "avg_pool_v2",
    "batch_norm_with_global_normalization",
    "batch_normalization",
    "bias_add",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_backprop_filter",
    "conv2d_backprop_input",
    "conv2d_transpose",
    "conv3d",
    "conv3d_backprop_filter",
    "conv3d_backprop_filter_v2",
    "conv3d_transpose",
    "conv_transpose",
    "convolution",
    "crelu",
    "depthwise_conv2d",
    "depthwise_conv2d_backprop_filter",
    "depthwise_conv2d_backprop_input",
    "depthwise_conv2d_native",
    "depthwise_conv2d_native_backprop_filter",
    "depthwise_conv2d_native_backprop_input",
    "dropout",
    "elu",
    "embedding_lookup",
    "fused_batch_norm",
    "group_norm",
    "in_top_k",
    "instance_norm",
    "l2_loss",
    "l2_normalize",
    "layer_norm",
    "leaky_relu",
    "local_response_normalization",
    "log_poisson_loss",
    "log_sigmoid",
    "log_softmax",
    "lrn",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool_v2",
    "max_pool_with_argmax",
    "moments",
    "normalize_moments",
    "pool",
    "relu",
    "relu6",
    "relu_layer",
    "selu",
    "separable_conv2d",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v2",
    "softplus",
    "softsign",
    "sparse_softmax_cross_entropy_with_logits",
    "sufficient_statistics",
    "swish",
    "tanh",
    "weighted_cross_entropy_with_logits",
    "weighted_moments",
    "xw_plus_b",
    "zero_fraction",
]


# -- activations ------------------------------------------------------------------------------------------------------


def _unary(op_type: str, x: Any, name: str | None, **attrs: Any) -> Tensor:
    with name_scope(name, op_type, [x]) as scope:
        return cast(Tensor, create(op_type, scope, [convert_to_tensor(x, name="features")], attrs))


def relu(features: Any, name: str | None = None) -> Tensor:
    """Return max(x, 0).  Source: tf.nn.relu."""
    return _unary("Relu", features, name)


def relu6(features: Any, name: str | None = None) -> Tensor:
    """Return min(max(x, 0), 6).  Source: tf.nn.relu6."""
    return _unary("Relu6", features, name)


def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Tensor:
    """Return x where it is positive, else alpha * x.  Source: tf.nn.leaky_relu; Maas et al. (2013)."""
    if has_tensor(alpha):
        with name_scope(name, "LeakyRelu", [features, alpha]) as scope:
            x = convert_to_tensor(features, name="features")
            return ew.maximum(ew.multiply(x, alpha), x, scope)
    return _unary("LeakyRelu", features, name, alpha=float(alpha))


def elu(features: Any, name: str | None = None) -> Tensor:
    """Return x where it is positive, else exp(x) - 1.  Source: tf.nn.elu; Clevert et al. (2015)."""
    return _unary("Elu", features, name)


def selu(features: Any, name: str | None = None) -> Tensor:
    """Return elu scaled to keep mean 0 and variance 1.  Source: tf.nn.selu; Klambauer et al. (2017)."""
    return _unary("Selu", features, name)


def softplus(features: Any, name: str | None = None) -> Tensor:
    """Return log(1 + exp(x)), stably.  Source: tf.nn.softplus."""
    return _unary("Softplus", features, name)


def softsign(features: Any, name: str | None = None) -> Tensor:
    """Return x / (1 + |x|).  Source: tf.nn.softsign."""
    return _unary("Softsign", features, name)


def swish(features: Any, name: str | None = None) -> Tensor:
    """Return x * sigmoid(x).  Source: tf.nn.swish; Ramachandran et al. (2017)."""
    with name_scope(name, "swish", [features]) as scope:
        x = convert_to_tensor(features, name="features")
        return ew.multiply(x, sigmoid(x), scope)


def crelu(features: Any, name: str | None = None, axis: int = -1) -> Tensor:
    """Return relu of x and of -x, joined along `axis`.  Source: tf.nn.crelu; Shang et al. (2016)."""
    with name_scope(name, "CRelu", [features]) as scope:
        x = convert_to_tensor(features, name="features")
        return relu(array.concat([x, ew.negative(x)], axis), scope)


# -- softmax ----------------------------------------------------------------------------------------------------------


def softmax(logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `axis` (the last), without overflow.  Source: tf.nn.softmax."""
    return _along("Softmax", logits, older_name("axis", axis, "dim", dim), name)


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None) -> Tensor:
    """Return log(softmax(x)) along `axis` (the last), without overflow.  Source: tf.nn.log_softmax."""
    return _along("LogSoftmax", logits, older_name("axis", axis, "dim", dim), name)


def _along(op_type: str, logits: Any, axis: int | None, name: str | None) -> Tensor:
    with name_scope(name, op_type, [logits]) as scope:
        x = convert_to_tensor(logits, name="logits")
        turned, order = _last(x, -1 if axis is None else axis, op_type)
        if order is None:
            return cast(Tensor, create(op_type, scope, [x]))
        return array.transpose(create(op_type, None, [turned]), order, scope)


def _last(x: Tensor, axis: int, what: str) -> tuple[Tensor, tuple[int, ...] | None]:
    """x with `axis` exchanged with the last one, and the permutation that did it; None where it is the last."""
    rank = x.shape.ndims
    if axis == -1 or (rank is not None and axis == rank - 1):
        return x, None
    if rank is None or not -rank <= axis < rank:
        raise at_user(ShapeError, f"{what}: axis {axis} is out of range for {x.shape}", [x])
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return array.transpose(x, order), tuple(order)


# -- losses per example -----------------------------------------------------------------------------------------------


def softmax_cross_entropy_with_logits_v2(labels: Any = None, logits: Any = None, axis: int | None = None,
                                         name: str | None = None, dim: int | None = None) -> Tensor:
    """Return -sum(labels * log_softmax(logits)) along `axis`; gradients flow into the labels too.

    labels: probabilities, of the logits' shape and dtype.  Source: tf.nn.softmax_cross_entropy_with_logits_v2.
    """
    return _cross_entropy(labels, logits, older_name("axis", axis, "dim", dim), name,
                          "softmax_cross_entropy_with_logits", False)


def softmax_cross_entropy_with_logits(_sentinel: Any = None, labels: Any = None, logits: Any = None,
                                      dim: int | None = None, name: str | None = None,
                                      axis: int | None = None) -> Tensor:
    """Return -sum(labels * log_softmax(logits)) along `axis`; no gradient flows into the labels.

    Arguments are named, since their order was easy to mistake.  Source: tf.nn.softmax_cross_entropy_with_logits.
    """
    _named_only("softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    return _cross_entropy(labels, logits, older_name("axis", axis, "dim", dim), name,
                          "softmax_cross_entropy_with_logits_sg", True)


def _named_only(function: str, sentinel: Any, labels: Any, logits: Any) -> None:
    if sentinel is not None:
        raise at_user(GraphError, f"{function}: name the arguments: {function}(labels=..., logits=...)")
    if labels is None or logits is None:
        raise at_user(GraphError, f"{function}: labels and logits must both be given")


def _cross_entropy(labels: Any, logits: Any, axis: int | None, name: str | None, default: str, stop: bool) -> Tensor:
    _named_only("softmax_cross_entropy_with_logits", None, labels, logits)
    with name_scope(name, default, [logits, labels]) as scope:
        x, y = matching(logits, labels, ("logits", "labels"))
        if stop:
            y = array.stop_gradient(y, "labels_stop_gradient")
        along = -1 if axis is None else axis
        turned, order = _last(x, along, "softmax_cross_entropy_with_logits")
        if order is not None:
            x, y = turned, array.transpose(y, order)
        if x.shape.ndims == 2 and y.shape.ndims == 2:
            loss, _ = create("SoftmaxCrossEntropyWithLogits", scope, [x, y])
            return cast(Tensor, loss)
        classes = x.shape[-1].value if x.shape.ndims else None
        count = array.shape(x)[-1] if classes is None else classes
        rows = [array.reshape(v, [-1, count]) for v in (x, y)]
        loss, _ = create("SoftmaxCrossEntropyWithLogits", None, rows)
        return array.reshape(loss, _leading(x), scope)


def _leading(x: Tensor) -> Any:
    """The sizes of all axes but the last: a tuple where they are known, else a tensor."""
    sizes = x.shape.sizes
    if sizes is not None and None not in sizes[:-1]:
        return sizes[:-1]
    return array.shape(x)[:-1]


def sparse_softmax_cross_entropy_with_logits(_sentinel: Any = None, labels: Any = None, logits: Any = None,
                                             name: str | None = None) -> Tensor:
    """Return -log_softmax(logits)[label] for each integer label; the classes are the last axis of the logits.

    Source: tf.nn.sparse_softmax_cross_entropy_with_logits.
    """
    _named_only("sparse_softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    with name_scope(name, "SparseSoftmaxCrossEntropyWithLogits", [logits, labels]) as scope:
        x, y = convert_to_tensor(logits, name="logits"), convert_to_tensor(labels, name="labels")
        ranks = (x.shape.ndims, y.shape.ndims)
        if None not in ranks and ranks[1] != cast(int, ranks[0]) - 1:
            raise at_user(ShapeError,
                          f"sparse_softmax_cross_entropy_with_logits: labels {y.shape} must have one axis less "
                                      f"than logits {x.shape}", [y, x])
        if ranks[0] == 2:
            loss, _ = create("SparseSoftmaxCrossEntropyWithLogits", scope, [x, y])
            return cast(Tensor, loss)
        classes = x.shape[-1].value if ranks[0] else None
        flat = array.reshape(x, [-1, array.shape(x)[-1] if classes is None else classes])
        loss, _ = create("SparseSoftmaxCrossEntropyWithLogits", None, [flat, array.reshape(y, [-1])])
        sizes = y.shape.sizes
        return array.reshape(loss, sizes if sizes is not None and None not in sizes else array.shape(y), scope)


def sigmoid_cross_entropy_with_logits(_sentinel: Any = None, labels: Any = None, logits: Any = None,
                                      name: str | None = None, targets: Any = None) -> Tensor:
    """Return -z log(sigmoid(x)) - (1 - z) log(1 - sigmoid(x)) as max(x, 0) - x z + log(1 + exp(-|x|)).

    Source: tf.nn.sigmoid_cross_entropy_with_logits.
    """
    labels = older_name("labels", labels, "targets", targets)
    _named_only("sigmoid_cross_entropy_with_logits", _sentinel, labels, logits)
    with name_scope(name, "logistic_loss", [logits, labels]) as scope:
        x, z = matching(logits, labels, ("logits", "labels"))
        if not x.shape.is_compatible_with(z.shape):
            raise at_user(ShapeError,
                          f"sigmoid_cross_entropy_with_logits: logits {x.shape} and labels {z.shape} must have "
                                      "one shape", [x, z])
        return ew.add(relu(x) - x * z, ew.log1p(ew.exp(ew.negative(ew.abs(x)))), scope)


def weighted_cross_entropy_with_logits(labels: Any = None, logits: Any = None, pos_weight: Any = None,
                                       name: str | None = None, targets: Any = None) -> Tensor:
    """Return sigmoid cross-entropy whose positive part counts pos_weight times.

    Source: tf.nn.weighted_cross_entropy_with_logits.
    """
    labels = older_name("labels", labels, "targets", targets)
    with name_scope(name, "logistic_loss", [logits, labels]) as scope:
        x, z = matching(logits, labels, ("logits", "labels"))
        if not x.shape.is_compatible_with(z.shape):
            raise at_user(ShapeError, f"weighted_cross_entropy_with_logits: logits {x.shape} and labels {z.shape} must "
                                      "have one shape", [x, z])
        weight = 1 + (convert_to_tensor(pos_weight, x.dtype) - 1) * z
        return ew.add((1 - z) * x, weight * (ew.log1p(ew.exp(ew.negative(ew.abs(x)))) + relu(ew.negative(x))), scope)


def log_poisson_loss(targets: Any, log_input: Any, compute_full_loss: bool = False, name: str | None = None) -> Tensor:
    """Return exp(c) - z c, and Stirling's approximation of log(z!) where the full loss is asked for.

    Source: tf.nn.log_poisson_loss.
    """
    with name_scope(name, "log_poisson_loss", [log_input, targets]):
        c, z = matching(log_input, targets)
        loss = ew.exp(c) - c * z
        if compute_full_loss:
            stirling = z * ew.log(z) - z + 0.5 * ew.log(6.283185307179586 * z)
            small = ew.logical_and(z >= 0, z <= 1)
            loss = loss + array.where(small, array.zeros_like(z), stirling)
        return loss


# -- linear layers and dropout ----------------------------------------------------------------------------------------


def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Tensor:
    """Return value + bias along the channels: the last axis (NHWC), or axis 1 (NCHW).  Source: tf.nn.bias_add."""
    with name_scope(name, "BiasAdd", [value, bias]) as scope:
        x, b = matching(value, bias, ("input", "bias"))
        return cast(Tensor, create("BiasAdd", scope, [x, b], {"data_format": data_format or "NHWC"}))


def xw_plus_b(x: Any, weights: Any, biases: Any, name: str | None = None) -> Tensor:
    """Return x @ weights + biases.  Source: tf.nn.xw_plus_b."""
    with name_scope(name, "xw_plus_b", [x, weights, biases]) as scope:
        return bias_add(linear.matmul(x, weights), biases, name=scope)


def relu_layer(x: Any, weights: Any, biases: Any, name: str | None = None) -> Tensor:
    """Return relu(x @ weights + biases).  Source: tf.nn.relu_layer."""
    with name_scope(name, "relu_layer", [x, weights, biases]) as scope:
        return relu(bias_add(linear.matmul(x, weights), biases), scope)


def dropout(x: Any, keep_prob: Any = None, noise_shape: Any = None, seed: int | None = None, name: str | None = None,
            rate: Any = None) -> Tensor:
    """Return x with elements set to 0 with probability `rate`, the others divided by 1 - rate.

    keep_prob: 1 - rate, the older argument.  noise_shape: axes of size 1 are kept or dropped together.
    Raises GraphError for both, or for a rate outside [0, 1).  Sources: tf.nn.dropout; Srivastava et al. (2014).
    """
    if (keep_prob is None) == (rate is None):
        raise at_user(GraphError, "dropout: give rate, or its older form keep_prob = 1 - rate, not both")
    with name_scope(name, "dropout", [x]) as scope:
        value = convert_to_tensor(x, name="x")
        if not value.dtype.is_floating:
            raise at_user(DTypeError, f"dropout: x must be floating-point, not {value.dtype.name}", [value])
        fixed = not has_tensor(rate) and not has_tensor(keep_prob)
        if fixed:
            dropped = float(rate) if rate is not None else 1.0 - float(keep_prob)
            if not 0 <= dropped < 1:
                raise at_user(GraphError, f"dropout: rate must be in [0, 1), it is {dropped:g}")
            if dropped == 0:
                return array.identity(value, scope)
            keep: Any = float(keep_prob) if keep_prob is not None else 1.0 - dropped
        else:
            keep = convert_to_tensor(keep_prob, value.dtype) if rate is None else 1 - convert_to_tensor(rate,
                                                                                                        value.dtype)
        sizes = _noise_shape(value, noise_shape)
        noise = random.random_uniform(sizes, dtype=value.dtype, seed=seed)
        # a number in [0, 1) lies below keep with probability keep
        scaled = value * (1.0 / keep)
        kept = array.where_v2(ew.less(noise, keep), scaled, array.zeros_like(value))
        return array.identity(kept, scope)


def _noise_shape(x: Tensor, noise_shape: Any) -> Any:
    sizes = x.shape.sizes
    if noise_shape is None:
        return sizes if sizes is not None and None not in sizes else array.shape(x)
    given = noise_shape.sizes if hasattr(noise_shape, "sizes") else noise_shape
    if isinstance(given, (list, tuple)) and sizes is not None and len(given) == len(sizes):
        found = [n if g is None else g for g, n in zip(given, sizes, strict=True)]
        return [array.shape(x)[i] if n is None else n for i, n in enumerate(found)]
    return given


def zero_fraction(value: Any, name: str | None = None) -> Tensor:
    """Return the fraction of elements that are 0.  Source: tf.nn.zero_fraction."""
    with name_scope(name, "zero_fraction", [value]):
        x = convert_to_tensor(value, name="value")
        return red.reduce_mean(ew.to_float(ew.equal(x, array.zeros_like(x))))


# -- look-up ----------------------------------------------------------------------------------------------------------


def embedding_lookup(params: Any, ids: Any, partition_strategy: str = "mod", name: str | None = None,
                     validate_indices: bool = True, max_norm: float | None = None) -> Tensor:
    """Return the rows of `params` at `ids`; its gradient is by rows (IndexedSlices).

    max_norm: rows of a larger norm are scaled down to it.  Raises GraphError for several partitions.
    Source: tf.nn.embedding_lookup.
    """
    if isinstance(params, (list, tuple)):
        if len(params) != 1:
            raise at_user(GraphError, "embedding_lookup: partitioned embeddings are not supported; pass one tensor")
        params = params[0]
    with name_scope(name, "embedding_lookup", [params, ids]) as scope:
        if isinstance(params, Variable):
            params = params.value()
        if max_norm is None:
            return array.gather(params, ids, name=scope)
        rows = array.gather(params, ids)
        axes = tuple(range((convert_to_tensor(ids).shape.ndims or 0), rows.shape.ndims or 0))
        norm = ew.sqrt(red.reduce_sum(ew.square(rows), axes, True))
        return ew.multiply(rows, max_norm / ew.maximum(norm, max_norm), scope)


def in_top_k(predictions: Any, targets: Any, k: int, name: str | None = None) -> Tensor:
    """Return whether the target's prediction is among the k largest of its row (ties count as larger's equals).

    A prediction that is not finite is never in.  Source: tf.nn.in_top_k.
    """
    with name_scope(name, "InTopK", [predictions, targets]) as scope:
        x, labels = convert_to_tensor(predictions), convert_to_tensor(targets)
        if x.shape.ndims != 2 or labels.shape.ndims != 1:
            raise at_user(ShapeError,
                          f"in_top_k: predictions {x.shape} and targets {labels.shape} must be (rows, classes) "
                                      "and (rows,)", [x, labels])
        count = array.shape(labels)[0] if labels.shape[0].value is None else labels.shape[0].value
        rows = array.range_(0, count, dtype=labels.dtype)
        chosen = array.expand_dims(array.gather_nd(x, array.stack([rows, labels], 1)), 1)
        larger = red.reduce_sum(ew.cast(ew.greater(x, chosen), "int32"), 1)
        return ew.logical_and(ew.less(larger, k), array.squeeze(ew.is_finite(chosen), [1]), scope)
