"""tf.nn's convolutions: TensorFlow 1's ways of writing them, the names of what they make, and their errors.

Values are those of conv2d of tests/ops/test_convolution.py; here equal things written in different ways agree.  Names,
and which arguments mean the same, are those of TensorFlow 1.15.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.errors import GraphError, ShapeError
from tests.oracle import OracleSession

RNG = np.random.default_rng()
X = RNG.uniform(-1, 1, (2, 9, 8, 4)).astype(np.float32)
W = RNG.uniform(-1, 1, (3, 2, 4, 6)).astype(np.float32)
DEPTH = RNG.uniform(-1, 1, (3, 2, 4, 2)).astype(np.float32)
POINT = RNG.uniform(-1, 1, (1, 1, 8, 3)).astype(np.float32)
LINE, LINE_W = X[:, 0], W[0]
CUBE = RNG.uniform(-1, 1, (1, 4, 5, 3, 2)).astype(np.float32)
CUBE_W = RNG.uniform(-1, 1, (2, 3, 2, 2, 3)).astype(np.float32)
FIRST = [0, 3, 1, 2]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def run(*tensors: Any) -> Any:
    with OracleSession() as sess:
        return sess.run(list(tensors))


def dilated(w: np.ndarray, rate: int) -> np.ndarray:
    """A filter with zeros between its taps."""
    out = np.zeros(((w.shape[0] - 1) * rate + 1, (w.shape[1] - 1) * rate + 1, *w.shape[2:]), w.dtype)
    out[::rate, ::rate] = w
    return out


def padded(x: np.ndarray, *pairs: tuple[int, int]) -> np.ndarray:
    return np.pad(x, [(0, 0), *pairs, (0, 0)])


def per_channel(x: np.ndarray, w: np.ndarray, **kwargs: Any) -> Any:
    """A depthwise convolution as one convolution per channel."""
    return tf.concat([tf.nn.conv2d(x[..., c:c + 1], w[:, :, c:c + 1], **kwargs) for c in range(x.shape[-1])], -1)


SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "an int for strides": (lambda: tf.nn.conv2d(X, W, 2, "SAME"), lambda: tf.nn.conv2d(X, W, [1, 2, 2, 1], "SAME")),
    "two strides": (lambda: tf.nn.conv2d(X, W, [1, 2], "valid"), lambda: tf.nn.conv2d(X, W, [1, 1, 2, 1], "VALID")),
    "the newer name of filter": (lambda: tf.nn.conv2d(X, filters=W, strides=1, padding="SAME"),
                                 lambda: tf.nn.conv2d(X, W, [1, 1, 1, 1], "SAME", True, "NHWC", [1, 1, 1, 1], "same")),
    "explicit padding": (lambda: tf.nn.conv2d(X, W, 1, [[0, 0], [1, 2], [0, 3], [0, 0]]),
                         lambda: tf.nn.conv2d(padded(X, (1, 2), (0, 3)), W, 1, "VALID")),
    "channels first": (lambda: tf.nn.conv2d(X.transpose(FIRST), W, [1, 1, 2, 1], "SAME", data_format="NCHW"),
                       lambda: tf.transpose(tf.nn.conv2d(X, W, [1, 2, 1, 1], "SAME"), FIRST)),
    "dilation": (lambda: tf.nn.conv2d(X, W, 1, "VALID", dilations=[1, 2, 2, 1]),
                 lambda: tf.nn.conv2d(X, dilated(W, 2), 1, "VALID")),
    "atrous_conv2d": (lambda: tf.nn.atrous_conv2d(X, W, 2, "SAME"),
                      lambda: tf.nn.conv2d(X, dilated(W, 2), 1, "SAME")),
    "atrous_conv2d_transpose": (
        lambda: tf.nn.atrous_conv2d_transpose(X, W.transpose(0, 1, 3, 2), [2, 9, 8, 6], 2, "SAME"),
        lambda: tf.nn.conv2d_transpose(X, dilated(W, 2).transpose(0, 1, 3, 2), [2, 9, 8, 6], 1)),
    "groups": (lambda: tf.nn.conv2d(X, W[:, :, :2], 1, "SAME"),
               lambda: tf.concat([tf.nn.conv2d(X[..., :2], W[:, :, :2, :3], 1, "SAME"),
                                  tf.nn.conv2d(X[..., 2:], W[:, :, :2, 3:], 1, "SAME")], -1)),
    "conv1d": (lambda: tf.nn.conv1d(LINE, LINE_W, 2, "SAME"),
               lambda: tf.nn.conv2d(LINE[:, :, None], LINE_W[:, None], [1, 2, 1, 1], "SAME")[:, :, 0]),
    "conv1d, channels first": (
        lambda: tf.nn.conv1d(LINE.transpose(0, 2, 1), LINE_W, 1, "VALID", data_format="NCW", dilations=2),
        lambda: tf.transpose(tf.nn.conv1d(LINE, LINE_W, 1, "VALID", dilations=[2]), [0, 2, 1])),
    "conv1d, explicit padding": (lambda: tf.nn.conv1d(LINE, LINE_W, 1, [[0, 0], [2, 1], [0, 0]]),
                                 lambda: tf.nn.conv1d(padded(LINE, (2, 1)), LINE_W, 1, "VALID")),
    "conv1d_transpose": (
        lambda: tf.nn.conv1d_transpose(LINE, LINE_W.transpose(0, 2, 1), [2, 16, 6], 2),
        lambda: tf.nn.conv2d_transpose(LINE[:, None], LINE_W.transpose(0, 2, 1)[None], [2, 1, 16, 6],
                                       [1, 1, 2, 1])[:, 0]),
    "conv1d_transpose, a tensor of sizes": (
        lambda: tf.nn.conv1d_transpose(LINE, LINE_W.transpose(0, 2, 1), tf.stack([tf.shape(LINE)[0], 16, 6]), 2),
        lambda: tf.nn.conv1d_transpose(LINE, LINE_W.transpose(0, 2, 1), [2, 16, 6], 2)),
    "a depth of one": (lambda: tf.nn.conv3d(X[:, None], W[None], 1, "SAME")[:, 0],
                       lambda: tf.nn.conv2d(X, W, 1, "SAME")),
    "conv3d, channels first": (
        lambda: tf.nn.conv3d(CUBE.transpose(0, 4, 1, 2, 3), CUBE_W, [1, 1, 2, 1, 1], "SAME", "NCDHW"),
        lambda: tf.transpose(tf.nn.conv3d(CUBE, CUBE_W, [1, 2, 1, 1, 1], "SAME"), [0, 4, 1, 2, 3])),
    "conv3d_transpose": (
        lambda: tf.nn.conv3d_transpose(X[:, None], W.transpose(0, 1, 3, 2)[None], [2, 1, 18, 16, 6], [1, 1, 2, 2, 1]),
        lambda: tf.nn.conv2d_transpose(X, W.transpose(0, 1, 3, 2), [2, 18, 16, 6], 2)[:, None]),
    "depthwise_conv2d": (lambda: tf.nn.depthwise_conv2d(X, DEPTH, [1, 2, 2, 1], "SAME"),
                         lambda: per_channel(X, DEPTH, strides=2, padding="SAME")),
    "a rate of depthwise_conv2d": (lambda: tf.nn.depthwise_conv2d(X, DEPTH, [1, 1, 1, 1], "SAME", rate=[2, 2]),
                                   lambda: per_channel(X, dilated(DEPTH, 2), strides=1, padding="SAME")),
    "depthwise_conv2d_native": (lambda: tf.nn.depthwise_conv2d_native(X, DEPTH, [1, 1, 1, 1], "VALID"),
                                lambda: tf.nn.depthwise_conv2d(X, DEPTH, [1, 1, 1, 1], "VALID")),
    "separable_conv2d": (
        lambda: tf.nn.separable_conv2d(X, DEPTH, POINT, [1, 1, 1, 1], "VALID"),
        lambda: tf.tensordot(tf.nn.depthwise_conv2d(X, DEPTH, [1, 1, 1, 1], "VALID"), POINT[0, 0], 1)),
    "convolution of one axis": (lambda: tf.nn.convolution(LINE, LINE_W, "SAME", [2]),
                                lambda: tf.nn.conv1d(LINE, LINE_W, 2, "SAME")),
    "convolution of two": (lambda: tf.nn.convolution(X, W, "VALID", dilation_rate=[2, 2]),
                           lambda: tf.nn.atrous_conv2d(X, W, 2, "VALID")),
    "convolution of three": (lambda: tf.nn.convolution(CUBE, CUBE_W, "SAME"),
                             lambda: tf.nn.conv3d(CUBE, CUBE_W, [1] * 5, "SAME")),
    "conv_transpose": (lambda: tf.nn.conv_transpose(X, W.transpose(0, 1, 3, 2), [2, 18, 16, 6], 2),
                       lambda: tf.nn.conv2d_transpose(X, W.transpose(0, 1, 3, 2), [2, 18, 16, 6], [1, 2, 2, 1])),
    "conv_transpose of one axis": (
        lambda: tf.nn.conv_transpose(LINE, LINE_W.transpose(0, 2, 1), [2, 16, 6], 2),
        lambda: tf.nn.conv1d_transpose(LINE, LINE_W.transpose(0, 2, 1), [2, 16, 6], 2)),
}


@pytest.mark.parametrize("what", SAME)
def test_two_ways_of_writing(what: str) -> None:
    first, second = (build() for build in SAME[what])
    a, b = run(first, second)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_gradients_by_name_are_those_of_the_graph() -> None:
    x, w, d = (tf.constant(v) for v in (X, W, DEPTH))
    y, z = tf.nn.conv2d(x, w, 2, "SAME"), tf.nn.depthwise_conv2d(x, d, [1, 1, 1, 1], "VALID")
    dy, dz = (tf.constant(RNG.uniform(-1, 1, t.shape.as_list()).astype(np.float32)) for t in (y, z))
    by_graph = [*tf.gradients(y, [x, w], dy), *tf.gradients(z, [x, d], dz)]
    by_name = [tf.nn.conv2d_backprop_input(X.shape, w, dy, 2, "SAME"),
               tf.nn.conv2d_backprop_filter(x, W.shape, dy, 2, "SAME"),
               tf.nn.depthwise_conv2d_native_backprop_input(tf.shape(x), d, dz, 1, "VALID"),
               tf.nn.depthwise_conv2d_native_backprop_filter(x, tf.shape(d), dz, 1, "VALID")]
    for a, b in zip(run(*by_graph), run(*by_name), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


NAMES: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda x: tf.nn.conv2d(x, W, 1, "SAME"), "Conv2D:0", "Conv2D"),
    (lambda x: tf.nn.conv2d(x, W, 1, "SAME", name="c"), "c:0", "Conv2D"),
    (lambda x: tf.nn.depthwise_conv2d(x, DEPTH, [1] * 4, "SAME"), "depthwise:0", "DepthwiseConv2dNative"),
    (lambda x: tf.nn.separable_conv2d(x, DEPTH, POINT, [1] * 4, "SAME"), "separable_conv2d:0", "Conv2D"),
    (lambda x: tf.nn.conv2d_transpose(x, W.transpose(0, 1, 3, 2), [2, 9, 8, 6], 1), "conv2d_transpose:0",
     "Conv2DBackpropInput"),
    (lambda x: tf.nn.convolution(x, W, "SAME"), "convolution:0", "Conv2D"),
    (lambda x: tf.nn.conv1d(x[:, 0], LINE_W, 1, "SAME"), "conv1d/Squeeze:0", "Squeeze"),
    (lambda x: tf.nn.conv2d_backprop_filter(x, [3, 2, 4, 4], x, 1, "SAME"), "Conv2DBackpropFilter:0",
     "Conv2DBackpropFilter"),
]


@pytest.mark.parametrize(("build", "name", "op_type"), NAMES, ids=[n for _, n, _ in NAMES])
def test_names(build: Callable[[Any], Any], name: str, op_type: str) -> None:
    made = build(tf.placeholder(tf.float32, [2, 9, 8, 4]))
    assert (made.name, made.op.type) == (name, op_type)


def test_static_shapes() -> None:
    x = tf.placeholder(tf.float32, [None, 28, None, 3])
    y = tf.nn.conv2d(x, tf.zeros([3, 3, 3, 8]), 2, "SAME")
    assert y.shape.as_list() == [None, 14, None, 8]
    back = tf.nn.conv2d_transpose(y, tf.zeros([3, 3, 5, 8]), tf.stack([tf.shape(y)[0], 28, 30, 5]), 2)
    assert back.shape.as_list() == [None, 28, 30, 5]
    assert tf.nn.conv2d(tf.placeholder(tf.float32), tf.zeros([3, 3, 3, 8]), 2, "SAME").shape.as_list() == [
        None, None, None, 8]


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: tf.nn.conv2d(X, W, 1, "FULL"), GraphError, "padding is 'SAME', 'VALID' or a list of pairs"),
    (lambda: tf.nn.conv2d(X, W, 1), GraphError, "padding is missing"),
    (lambda: tf.nn.conv2d(X, W, 1, [1, 2]), ShapeError, "explicit padding is 4 pairs"),
    (lambda: tf.nn.conv2d(X, W, [1, 1, 1], "SAME"), ShapeError, "strides has 1, 2 or 4 numbers, not 3"),
    (lambda: tf.nn.conv2d(X, W, 1, "SAME", data_format="NWHC"), GraphError, "'NHWC' or 'NCHW', not 'NWHC'"),
    (lambda: tf.nn.conv2d(X[0], W, 1, "SAME"), ShapeError, "the input has rank 4"),
    (lambda: tf.nn.conv2d(X, W, 1, "SAME", filters=W), GraphError, "not both"),
    (lambda: tf.nn.conv1d(X, LINE_W, 1, "SAME"), ShapeError, "the input has rank 3"),
    (lambda: tf.nn.conv2d_transpose(X, W, strides=2), GraphError, "output_shape is missing"),
    (lambda: tf.nn.convolution(X, POINT[0, 0], "SAME"), ShapeError, "1 to 3 spatial axes"),
    (lambda: tf.nn.conv2d_transpose(X, W.transpose(0, 1, 3, 2), [2, 20, 16, 6], 2), ShapeError,
     "Size of out_backprop doesn't match computed"),
]


@pytest.mark.parametrize(("build", "error", "message"), WRONG, ids=[m for _, _, m in WRONG])
def test_errors(build: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_training_step_runs_natively_for_any_batch() -> None:
    """Two layers, a transposed one among them; what a step leaves in the weights is what the oracle leaves."""
    x = tf.placeholder(tf.float32, [None, 6, 5, 2])
    w = tf.get_variable("w", initializer=tf.constant(W[:, :, :2, :3]))
    v = tf.get_variable("v", initializer=tf.constant(W[:, :2, :2, 3:]))
    h = tf.nn.relu(tf.nn.conv2d(x, w, 2, "SAME"))
    y = tf.nn.conv2d_transpose(h, v, tf.shape(x), 2)
    loss = tf.reduce_mean(tf.square(y - x))
    step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    results = []
    for session in (tf.Session, OracleSession):
        with session() as sess:
            sess.run(tf.global_variables_initializer())
            for batch in (2, 1, 3):
                sess.run(step, {x: np.resize(X, (batch, 6, 5, 2))})
            results.append(sess.run([w, v]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
