"""What the functions of the language compute, against NumPy's own formulas; TensorFlow 1's older argument names."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.errors import GraphError
from tests.oracle import OracleSession

RNG = np.random.default_rng()
A, B = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
T = RNG.normal(size=(2, 4, 3)).astype(np.float32)
P = np.abs(A) + 0.1
I = np.array([2, 0, 1, 2], np.int32)  # noqa: E741
HOT = np.eye(3, dtype=np.float32)[I]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def run(t: Any, feed: Any = None) -> Any:
    with OracleSession() as sess:
        return sess.run(t, feed)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def entropy(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    return -(p * np.log(softmax(x))).sum(-1)


SIG = 1 / (1 + np.exp(-A))

CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "slices": (lambda: tf.constant(A)[1:3, ::-1], A[1:3, ::-1]),
    "last": (lambda: tf.constant(A)[-1], A[-1]),
    "ellipsis": (lambda: tf.constant(T)[..., None, 1], T[..., None, 1]),
    "tensor index": (lambda: tf.constant(A)[tf.constant(2), tf.constant(0):], A[2]),
    "reduction_indices": (lambda: tf.reduce_sum(A, reduction_indices=[1]), A.sum(1)),
    "keep_dims": (lambda: tf.reduce_max(A, 0, keep_dims=True), A.max(0, keepdims=True)),
    "mean of ints": (lambda: tf.reduce_mean([1, 2, 4]), 2),
    "logsumexp": (lambda: tf.reduce_logsumexp(A * 100, 1), np.logaddexp.reduce(A.astype(np.float64) * 100, 1)),
    "argmax dimension": (lambda: tf.argmax(A, dimension=1), A.argmax(1)),
    "softmax dim": (lambda: tf.nn.softmax(T, dim=1), softmax(T, 1)),
    "log_softmax": (lambda: tf.nn.log_softmax(T), np.log(softmax(T))),
    "cross-entropy": (lambda: tf.nn.softmax_cross_entropy_with_logits(labels=HOT, logits=A), entropy(HOT, A)),
    "cross-entropy of rank 3": (lambda: tf.nn.softmax_cross_entropy_with_logits_v2(labels=softmax(T), logits=T),
                                entropy(softmax(T), T)),
    "sparse cross-entropy": (lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=I, logits=A),
                             entropy(HOT, A)),
    "sigmoid cross-entropy": (lambda: tf.nn.sigmoid_cross_entropy_with_logits(labels=HOT, logits=A),
                              -HOT * np.log(SIG) - (1 - HOT) * np.log(1 - SIG)),
    "weighted cross-entropy": (lambda: tf.nn.weighted_cross_entropy_with_logits(HOT, A, 3.0),
                               -3 * HOT * np.log(SIG) - (1 - HOT) * np.log(1 - SIG)),
    "moments": (lambda: tf.nn.moments(T, [0, 2]), (T.mean((0, 2)), T.var((0, 2)))),
    "batch normalisation": (lambda: tf.nn.batch_normalization(A, 0.5, 4.0, 1.0, 3.0, 0.0), (A - 0.5) / 2 * 3 + 1),
    "layer norm": (lambda: tf.nn.layer_norm(A, epsilon=0.0),
                   (A - A.mean(1, keepdims=True)) / A.std(1, keepdims=True)),
    "l2_normalize": (lambda: tf.nn.l2_normalize(A, 1), A / np.linalg.norm(A, axis=1, keepdims=True)),
    "in_top_k": (lambda: tf.nn.in_top_k([[1., 3, 2], [1, 3, 2], [1, np.nan, 2]], [1, 0, 1], 2), [True, False, False]),
    "clip_by_norm": (lambda: tf.clip_by_norm(A, 0.5), A * 0.5 / np.linalg.norm(A)),
    "clip_by_norm below": (lambda: tf.clip_by_norm(A, 100.0), A),
    "global norm": (lambda: tf.global_norm([A, None, tf.constant(B)]), np.sqrt((A ** 2).sum() + (B ** 2).sum())),
    "clip_by_global_norm": (lambda: tf.clip_by_global_norm([A, None, tf.constant(B)], 1.0)[0][2],
                            B / np.sqrt((A ** 2).sum() + (B ** 2).sum())),
    "tensordot": (lambda: tf.tensordot(T, P, [[1], [0]]), np.tensordot(T, P, [[1], [0]])),
    "einsum": (lambda: tf.einsum("...ij,kj->...ik", T, A), np.einsum("...ij,kj->...ik", T, A)),
    "einsum of three": (lambda: tf.einsum("ij,kj,kl->il", A, B, T[0]), np.einsum("ij,kj,kl->il", A, B, T[0])),
    "einsum implied": (lambda: tf.einsum("ba,bc", A, B), np.einsum("ba,bc", A, B)),
    "batched product": (lambda: tf.matmul(T, T, transpose_b=True), T @ T.transpose(0, 2, 1)),
    "norm": (lambda: tf.norm(A, np.inf, axis=0), np.abs(A).max(0)),
    "split": (lambda: tf.split(A, [1, 2], 1), (A[:, :1], A[:, 1:])),
    "old concat": (lambda: tf.concat(1, [A, B]), np.concatenate([A, B], 1)),
    "where rows": (lambda: tf.where(I > 0, A, B), np.where((I > 0)[:, None], A, B)),
    "floor division": (lambda: tf.constant([-7, 7]) // 2, [-4, 3]),
    "modulo": (lambda: tf.constant([-7, 7]) % 3, [2, 1]),
    "true division of ints": (lambda: tf.constant([1, 2]) / 4, [0.25, 0.5]),
    "meshgrid": (lambda: tf.meshgrid([1, 2], [3, 4, 5]), np.meshgrid([1, 2], [3, 4, 5])),
    "roll": (lambda: tf.roll(A, 1, 0), np.roll(A, 1, 0)),
    "eye": (lambda: tf.eye(2, 3, [2]), np.broadcast_to(np.eye(2, 3), (2, 2, 3))),
    "one_hot": (lambda: tf.one_hot([0, 5, -1], 3, on_value=7, off_value=2), [[7, 2, 2], [2, 2, 2], [2, 2, 2]]),
    "sequence_mask": (lambda: tf.sequence_mask([1, 3], 3, tf.int32), [[1, 0, 0], [1, 1, 1]]),
    "saturate_cast": (lambda: tf.saturate_cast([-5.0, 300.0], tf.uint8), [0, 255]),
    "confusion": (lambda: tf.confusion_matrix([0, 1, 1], [1, 1, 1], 2), [[0, 1], [0, 2]]),
    "mean squared error": (lambda: tf.losses.mean_squared_error(HOT, A), ((A - HOT) ** 2).mean()),
    "weighted loss": (lambda: tf.losses.absolute_difference(HOT, A, weights=[[1.], [0.], [1.], [0.]]),
                      np.abs(A - HOT)[[0, 2]].mean()),
    "hinge loss": (lambda: tf.losses.hinge_loss(HOT, A), np.maximum(0, 1 - (2 * HOT - 1) * A).mean()),
    "huber loss": (lambda: tf.losses.huber_loss([0., 0.], [0.5, 3.0]), (0.125 + 2.5) / 2),
    "variance": (lambda: tf.math.reduce_std(A), A.std()),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    build, expected = CASES[name]
    found = run(build())
    for f, e in zip(found, expected, strict=True) if isinstance(found, (list, tuple)) else [(found, expected)]:
        assert np.shape(f) == np.shape(e)
        np.testing.assert_allclose(f, e, rtol=2e-5, atol=2e-6)


def test_a_global_norm_that_is_not_finite_spoils_everything() -> None:
    clipped, norm = run(tf.clip_by_global_norm([[np.inf, 1.0], [2.0]], 1.0))
    assert np.isinf(norm)
    assert all(np.isnan(c).all() for c in clipped)


def test_dropout_keeps_the_mean_and_zeroes_a_fraction() -> None:
    x = tf.ones([200, 100])
    for y in (tf.nn.dropout(x, keep_prob=0.75), tf.nn.dropout(x, rate=0.25, seed=3),
              tf.nn.dropout(x, rate=tf.constant(0.25))):
        value = run(y)
        assert set(np.unique(value)) == {0, np.float32(1 / np.float32(0.75))}
        assert abs((value == 0).mean() - 0.25) < 0.02
    rows = run(tf.nn.dropout(x, rate=0.5, noise_shape=[None, 1]))
    assert (rows.min(1) == rows.max(1)).all()
    assert tf.nn.dropout(x, rate=0).op.type == "Identity"
    for bad in ({}, {"rate": 0.5, "keep_prob": 0.5}, {"rate": 1.0}, {"rate": -0.1}):
        with pytest.raises(GraphError):
            tf.nn.dropout(x, **bad)


def test_layers_drop_only_while_training() -> None:
    x = tf.ones([50])
    training = tf.placeholder(tf.bool, [])
    y = tf.layers.dropout(x, 0.5, training=training)
    assert run(y, {training: False}).tolist() == [1.0] * 50
    assert 0 in run(y, {training: True})
    assert run(tf.layers.dropout(x, 0.5)).tolist() == [1.0] * 50


def test_what_depends_on_values_is_refused_with_a_way_out() -> None:
    for build in (lambda: tf.where([True]), lambda: tf.boolean_mask([1], [True]), lambda: tf.sequence_mask([1])):
        with pytest.raises(GraphError, match=r"values|only the run knows"):
            build()


def test_arguments_are_named_where_their_order_is_easily_mistaken() -> None:
    with pytest.raises(ValueError, match="name the arguments"):
        tf.nn.softmax_cross_entropy_with_logits(HOT, A)
    with pytest.raises(ValueError, match="not both"):
        tf.reduce_sum(A, axis=0, reduction_indices=0)


def test_compat_v1_is_the_same_language() -> None:
    import graphc.compat.v1 as v1

    v1.disable_v2_behavior()
    assert v1.placeholder is tf.placeholder
    assert v1.Session is tf.Session
    assert tf.compat.as_str(b"x") == "x"
    with pytest.raises(AttributeError, match="near names: placeholder"):
        tf.placehoder  # noqa: B018


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["script", "--steps=7", "--nofast", "--other", "x"])
    tf.flags.DEFINE_integer("steps", 3, "steps")
    tf.app.flags.DEFINE_boolean("fast", True, "fast")
    tf.app.flags.DEFINE_string("where", "here", "where")
    flags = tf.app.flags.FLAGS
    assert (flags.steps, flags.fast, flags.where) == (7, False, "here")
    with pytest.raises(SystemExit) as end:
        tf.app.run(lambda argv: argv[1:] != ["--other", "x"])
    assert end.value.code is False


def test_shapes_with_tensors_in_them() -> None:
    n = tf.placeholder(tf.int32, (), name="n")
    with tf.Session() as session:
        for shape in ([n, 2], (n, 2), (2, n)):
            wanted = tuple(3 if size is n else size for size in shape)
            filled, zeros, ones = session.run([tf.fill(shape, 1.5), tf.zeros(shape), tf.ones(shape)], {n: 3})
            assert filled.shape == zeros.shape == ones.shape == wanted
