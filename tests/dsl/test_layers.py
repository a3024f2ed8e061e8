"""Layers by TensorFlow's names: variables, scopes, sharing, collections; batch normalisation in all its modes."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.options import Options
from tests.ops.cases import Array, generator


def session(graph: Any) -> Any:
    made = tf.Session(graph=graph)
    made.options = Options(cache_dir="")
    return made


def names(collection: str = "variables") -> dict[str, list[int]]:
    return {v.name: v.shape.as_list() for v in tf.get_collection(collection)}


@pytest.mark.parametrize(("layer", "shape", "arguments", "result", "variables"), [
    ("conv1d", (None, 9, 3), (4, 3, 2, "same"), [None, 5, 4], {"kernel": [3, 3, 4], "bias": [4]}),
    ("conv2d", (None, 7, 8, 3), (5, (3, 2)), [None, 5, 7, 5], {"kernel": [3, 2, 3, 5], "bias": [5]}),
    ("conv3d", (2, 5, 6, 4, 2), (3, 2), [2, 4, 5, 3, 3], {"kernel": [2, 2, 2, 2, 3], "bias": [3]}),
    ("conv2d_transpose", (None, 4, 5, 3), (6, 3, 2, "same"), [None, 8, 10, 6], {"kernel": [3, 3, 6, 3], "bias": [6]}),
    ("conv2d_transpose", (1, 4, 5, 3), (6, (5, 2), 3), [1, 14, 15, 6], {"kernel": [5, 2, 6, 3], "bias": [6]}),
    ("conv3d_transpose", (1, 2, 3, 4, 2), (3, 2, 2), [1, 4, 6, 8, 3], {"kernel": [2, 2, 2, 3, 2], "bias": [3]}),
    ("separable_conv2d", (None, 7, 6, 3), (5, 3), [None, 5, 4, 5],
     {"depthwise_kernel": [3, 3, 3, 1], "pointwise_kernel": [1, 1, 3, 5], "bias": [5]}),
    ("separable_conv1d", (None, 9, 3), (5, 3, 2, "same"), [None, 5, 5],
     {"depthwise_kernel": [3, 3, 1], "pointwise_kernel": [1, 3, 5], "bias": [5]}),
    ("batch_normalization", (None, 4, 4, 6), (), [None, 4, 4, 6],
     {"gamma": [6], "beta": [6], "moving_mean": [6], "moving_variance": [6]})])
def test_variables_have_tensorflows_names_and_shapes(layer: str, shape: tuple[int, ...], arguments: tuple[Any, ...],
                                                     result: list[int], variables: dict[str, list[int]]) -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, shape)
        for count, name in enumerate((layer, f"{layer}_1")):
            y = getattr(tf.layers, layer)(x, *arguments)
            assert y.shape.as_list() == result
            assert names() == {f"{n}/{v}:0": s for n in (layer, f"{layer}_1")[:count + 1]
                               for v, s in variables.items()}
            assert y.op.name.startswith(f"{name}/")


def test_a_layer_shares_its_variables() -> None:
    with tf.Graph().as_default() as graph, session(graph) as run:
        x = tf.placeholder(tf.float32, [None, 5, 5, 2])
        layer = tf.layers.Conv2D(3, 3, padding="same", name="shared")
        first, second = layer(x), layer(x)
        with tf.variable_scope("", reuse=True):
            third = tf.layers.conv2d(x, 3, 3, padding="same", name="shared")
        with pytest.raises(ValueError, match="exists already"):
            tf.layers.conv2d(x, 3, 3, padding="same", name="shared")
        assert names() == {"shared/kernel:0": [3, 3, 2, 3], "shared/bias:0": [3]}
        assert layer.trainable_variables == layer.variables == tf.trainable_variables()
        run.run(tf.global_variables_initializer())
        a, b, c = run.run([first, second, third], {x: generator("shared").standard_normal((2, 5, 5, 2))})
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_channels_first_is_the_transpose_of_channels_last() -> None:
    x = generator("first").standard_normal((2, 3, 6, 7)).astype(np.float32)
    with tf.Graph().as_default() as graph, session(graph) as run:
        pairs = []
        for layer, arguments in (("conv2d", (4, 3, 2, "same")), ("conv2d_transpose", (4, 3, 2)),
                                 ("separable_conv2d", (4, 3)), ("max_pooling2d", (2, 2)),
                                 ("average_pooling2d", (3, 1, "same"))):
            made = getattr(tf.layers, layer)
            shared = {} if "pool" in layer else {"name": layer, "reuse": tf.AUTO_REUSE}
            pairs.append((made(x, *arguments, data_format="channels_first", **shared),
                          made(np.moveaxis(x, 1, -1), *arguments, **shared)))
        flat = tf.layers.flatten(x, data_format="channels_first")
        run.run(tf.global_variables_initializer())
        for got, want in run.run(pairs):
            np.testing.assert_allclose(np.moveaxis(got, 1, -1), want, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(run.run(flat), np.moveaxis(x, 1, -1).reshape(2, -1))


def test_regularizers_are_collected() -> None:
    with tf.Graph().as_default() as graph, session(graph) as run:
        x = tf.constant(np.ones((2, 3), np.float32))
        y = tf.layers.dense(x, 4, kernel_regularizer=tf.contrib.layers.l2_regularizer(0.5),
                            activity_regularizer=lambda t: tf.reduce_sum(t))
        losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
        run.run(tf.global_variables_initializer())
        values, kernel, result = run.run([losses, tf.trainable_variables()[0], y])
        np.testing.assert_allclose(values, [0.25 * np.sum(kernel ** 2), np.sum(result)], rtol=1e-5)


# -- batch normalisation ----------------------------------------------------------------------------------------------


def normalised(x: Array, axis: int, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    along = [-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]
    m, v, g, b = (np.asarray(t, np.float64).reshape(along) for t in (mean, variance, gamma, beta))
    return (x - m) / np.sqrt(v + epsilon) * g + b


@pytest.mark.parametrize("training", [False, True, "tensor on", "tensor off"])
@pytest.mark.parametrize(("shape", "axis", "fused"), [
    ((4, 3, 5, 6), -1, None), ((4, 3, 5, 6), 1, None), ((4, 3, 5, 6), 3, False), ((7, 5), -1, None),
    ((2, 3, 4, 2, 5), -1, None)])
def test_batch_normalisation_and_its_moving_statistics(shape: tuple[int, ...], axis: int, fused: bool | None,
                                                       training: Any) -> None:
    rng = generator(shape, axis, fused, training)
    x = rng.normal(1.0, 2.0, shape).astype(np.float32)
    channels = shape[axis]
    start = {n: rng.uniform(0.5, 1.5, channels).astype(np.float32)
             for n in ("gamma", "beta", "moving_mean", "moving_variance")}
    learns = training in (True, "tensor on")
    with tf.Graph().as_default() as graph, session(graph) as run:
        given = tf.placeholder(tf.float32, [None, *shape[1:]])
        switch = training if isinstance(training, bool) else tf.placeholder_with_default(learns, [])
        y = tf.layers.batch_normalization(given, axis, 0.9, 0.01, training=switch, fused=fused, name="bn")
        variables = {v.name.split("/")[-1][:-2]: v for v in tf.global_variables()}
        assert [v.name for v in tf.trainable_variables()] == ["bn/gamma:0", "bn/beta:0"]
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        assert len(updates) == (0 if training is False else 2)
        run.run([tf.assign(variables[n], v) for n, v in start.items()])
        got = run.run(y, {given: x})
        for n, v in start.items():
            np.testing.assert_array_equal(run.run(variables[n]), v)  # nothing moves that was not asked for
        run.run(updates, {given: x})
        moved = run.run([variables["moving_mean"], variables["moving_variance"]])
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    wide = x.astype(np.float64)
    mean, variance = (wide.mean(axes), wide.var(axes)) if learns else (start["moving_mean"], start["moving_variance"])
    want = normalised(wide, axis, mean, variance, start["gamma"], start["beta"], 0.01)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    n = x.size // channels
    followed = variance * (n / (n - 1)) if learns and fused is not False and x.ndim == 4 else variance
    for found, name, value in zip(moved, ("moving_mean", "moving_variance"), (mean, followed), strict=True):
        np.testing.assert_allclose(found, start[name] - (start[name] - value) * 0.1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_statistics_of_a_far_batch_keep_their_digits(layout: str) -> None:
    """Of a mean of 3000 and a deviation of 1, in several blocks: sums of squares would lose all digits."""
    x = generator(layout).normal(3000.0, 1.0, (6, 40, 40, 8) if layout == "NHWC" else (6, 8, 40, 40)).astype(np.float32)
    axes = (0, 1, 2) if layout == "NHWC" else (0, 2, 3)
    with tf.Graph().as_default() as graph, session(graph) as run:
        for shape in (x.shape, (None, *x.shape[1:])):
            t = tf.placeholder(tf.float32, shape)
            _, mean, variance = run.run(tf.nn.fused_batch_norm(t, np.ones(8, np.float32), np.zeros(8, np.float32),
                                                               data_format=layout), {t: x})
            np.testing.assert_allclose(mean, x.astype(np.float64).mean(axes), rtol=1e-6)
            np.testing.assert_allclose(variance, x.astype(np.float64).var(axes, ddof=1), rtol=2e-4)


def test_half_width_inputs_have_statistics_in_float32() -> None:
    x = generator("half").standard_normal((3, 4, 4, 5)).astype(np.float16)
    with tf.Graph().as_default() as graph, session(graph) as run:
        y = tf.layers.batch_normalization(tf.constant(x), training=True)
        assert y.dtype == tf.float16
        assert {v.dtype.name for v in tf.global_variables()} == {"float32"}
        run.run(tf.global_variables_initializer())
        wide = x.astype(np.float64)
        np.testing.assert_allclose(run.run(y), (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-3),
                                   rtol=2e-3, atol=2e-3)


def test_what_is_not_supported_is_refused() -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2, 3, 4])
        for argument in ({"renorm": True}, {"virtual_batch_size": 2}, {"adjustment": lambda s: s}):
            with pytest.raises(ValueError, match=f"{next(iter(argument))} is not supported"):
                tf.layers.batch_normalization(x, **argument)
        with pytest.raises(ValueError, match="fused=True normalises axis 1 or 3 of rank 4"):
            tf.layers.batch_normalization(x, fused=True)
        with pytest.raises(ValueError, match="must have a known size"):
            tf.layers.conv1d(tf.placeholder(tf.float32, [2, 3, None]), 4, 3)
        with pytest.raises(ValueError, match="have rank 4"):
            tf.layers.conv2d(x, 4, 3)
        with pytest.raises(ValueError, match="'channels_last' or 'channels_first'"):
            tf.layers.max_pooling1d(x, 2, 2, data_format="NWC")
        with pytest.raises(ValueError, match="left out in training"):
            tf.nn.fused_batch_norm(tf.zeros([1, 2, 2, 3]), [1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3)


# -- other normalisations ---------------------------------------------------------------------------------------------


def test_instance_group_and_layer_normalisation() -> None:
    rng = generator("norms")
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    scale, offset = (rng.uniform(0.5, 2.0, 6).astype(np.float32) for _ in range(2))
    with tf.Graph().as_default() as graph, session(graph) as run:
        t = tf.placeholder(tf.float32, [None, None, None, 6])
        first = tf.transpose(t, [0, 3, 1, 2])
        got = run.run([tf.nn.instance_norm(t, scale, offset), tf.nn.group_norm(t, 3, scale, offset),
                       tf.nn.layer_norm(t, scale, offset),
                       tf.transpose(tf.nn.instance_norm(first, scale, offset, data_format="NCHW"), [0, 2, 3, 1]),
                       tf.transpose(tf.nn.group_norm(first, 3, scale, offset, data_format="NCHW"), [0, 2, 3, 1])],
                      {t: x})
    wide = x.astype(np.float64)

    def normal(v: Array, axes: Any) -> Array:
        return (v - v.mean(axes, keepdims=True)) / np.sqrt(v.var(axes, keepdims=True) + 1e-5)

    groups = normal(wide.reshape(2, 4, 5, 3, 2), (1, 2, 4)).reshape(x.shape)
    wanted = [normal(wide, (1, 2)), groups, normal(wide, 3), normal(wide, (1, 2)), groups]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b * scale + offset, rtol=1e-4, atol=1e-4)


def test_local_response_normalisation() -> None:
    x = generator("lrn").standard_normal((2, 3, 4, 9)).astype(np.float32)
    with tf.Graph().as_default() as graph, session(graph) as run:
        t = tf.placeholder(tf.float32, [None, None, None, 9])
        got = run.run(tf.nn.lrn(t, 2, 1.0, 0.3, 0.75), {t: x})
    want = np.empty_like(x)
    for c in range(9):
        want[..., c] = x[..., c] / (1 + 0.3 * np.sum(x[..., max(0, c - 2):c + 3] ** 2, -1)) ** 0.75
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
