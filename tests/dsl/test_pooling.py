"""Pooling by TensorFlow's names against loops over windows: shapes, layouts, unknown sizes, gradients, ties, NaN."""
from __future__ import annotations

import itertools
from collections.abc import Sequence
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


def spans(size: int, taps: int, stride: int, padding: str) -> list[range]:
    """The elements of each window along one axis, as TensorFlow's documentation defines SAME and VALID."""
    count = -(-size // stride) if padding == "SAME" else (size - taps) // stride + 1
    before = max((count - 1) * stride + taps - size, 0) // 2 if padding == "SAME" else 0
    starts = [i * stride - before for i in range(count)]
    return [range(max(s, 0), min(s + taps, size)) for s in starts]


def windows(x: Array, axes: Sequence[int], taps: Sequence[int], strides: Sequence[int], padding: str) -> Any:
    """Each window's place, and the slices of x that it is."""
    every = [spans(x.shape[a], k, s, padding) for a, k, s in zip(axes, taps, strides, strict=True)]
    for places in itertools.product(*map(enumerate, every)):
        out: list[Any] = [slice(None)] * x.ndim
        inner: list[Any] = [slice(None)] * x.ndim
        for axis, (number, span) in zip(axes, places, strict=True):
            out[axis], inner[axis] = slice(number, number + 1), slice(span.start, span.stop)
        yield tuple(out), tuple(inner), tuple(len(e) for e in every)


def pooled(x: Array, axes: Sequence[int], taps: Sequence[int], strides: Sequence[int], padding: str,
           combine: Any) -> Array:
    places = list(windows(x, axes, taps, strides, padding))
    shape = list(x.shape)
    for axis, n in zip(axes, places[0][2], strict=True):
        shape[axis] = n
    y = np.full(shape, np.nan, x.dtype)
    for out, inner, _ in places:
        y[out] = combine(x[inner], axis=tuple(axes), keepdims=True)
    return y


CASES = [
    ("max_pool", "avg_pool", "NHWC", (2, 7, 6, 5), (3, 2), (2, 1)),
    ("max_pool", "avg_pool", "NCHW", (2, 3, 6, 7), (2, 3), (2, 2)),
    ("max_pool1d", "avg_pool1d", "NWC", (3, 9, 4), (4,), (3,)),
    ("max_pool1d", "avg_pool1d", "NCW", (1, 4, 9), (2,), (2,)),
    ("max_pool3d", "avg_pool3d", "NDHWC", (2, 3, 4, 5, 3), (2, 2, 3), (1, 2, 2)),
    ("max_pool3d", "avg_pool3d", "NCDHW", (1, 2, 3, 4, 5), (2, 3, 2), (2, 1, 2)),
    ("max_pool", "avg_pool", "NHWC", (1, 11, 13, 3), (9, 7), (1, 2)),
]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("largest", "mean", "layout", "shape", "taps", "strides"), CASES)
def test_pools_equal_loops_over_windows(largest: str, mean: str, layout: str, shape: tuple[int, ...],
                                        taps: tuple[int, ...], strides: tuple[int, ...], padding: str) -> None:
    x = generator(largest, layout, shape, padding).standard_normal(shape).astype(np.float32)
    first = 2 if layout.startswith("NC") else 1
    axes = tuple(range(first, first + len(taps)))
    with tf.Graph().as_default() as graph, session(graph) as run:
        known = tf.placeholder(tf.float32, shape)
        open_ = tf.placeholder(tf.float32, [None if i in (0, *axes) else n for i, n in enumerate(shape)])
        fetches = [getattr(tf.nn, name)(t, taps, strides, padding, data_format=layout)
                   for t in (known, open_) for name in (largest, mean)]
        assert fetches[0].shape.as_list() == list(pooled(x, axes, taps, strides, padding, np.max).shape)
        got = run.run(fetches, {known: x, open_: x})
    for y, combine in zip(got, (np.max, np.mean) * 2, strict=True):
        np.testing.assert_allclose(y, pooled(x, axes, taps, strides, padding, combine), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layout", "shape", "taps", "strides", "padding"), [
    ("NHWC", (2, 6, 4, 3), (2, 2), (2, 2), "VALID"), ("NHWC", (1, 7, 5, 9), (3, 3), (2, 2), "SAME"),
    ("NHWC", (1, 5, 6, 2), (3, 2), (1, 1), "SAME"), ("NCHW", (2, 2, 5, 7), (2, 3), (3, 2), "VALID"),
    ("NHWC", (2, 4, 5, 3), (4, 5), (1, 1), "VALID"), ("NHWC", (1, 9, 10, 2), (7, 5), (1, 1), "SAME")])
def test_the_gradient_goes_to_the_first_largest_element(layout: str, shape: tuple[int, ...], taps: tuple[int, ...],
                                                        strides: tuple[int, ...], padding: str) -> None:
    """Of small integers, so that most windows have several largest elements; at unknown sizes too."""
    rng = generator(layout, shape, taps)
    x = rng.integers(-1, 2, shape).astype(np.float32)
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    y = pooled(x, axes, taps, strides, padding, np.max)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    want, second = np.zeros_like(x), np.zeros_like(y)
    for out, inner, _ in windows(x, axes, taps, strides, padding):
        part = np.moveaxis(x[inner], axes, (-2, -1))
        where = part.reshape(*part.shape[:2], -1).argmax(-1)
        for n, c in np.ndindex(where.shape):
            i, j = np.unravel_index(where[n, c], part.shape[2:])
            at = (n, c, inner[2].start + i, inner[3].start + j) if layout == "NCHW" else \
                (n, inner[1].start + i, inner[2].start + j, c)
            hit = (n, c, out[2].start, out[3].start) if layout == "NCHW" else (n, out[1].start, out[2].start, c)
            want[at] += dy[hit]
            second[hit] = x[at]
    with tf.Graph().as_default() as graph, session(graph) as run:
        for t in (tf.placeholder(tf.float32, shape), tf.placeholder(tf.float32, [None] * 4)):
            up = tf.placeholder(tf.float32, [None] * 4)
            dx, = tf.gradients(tf.nn.max_pool(t, taps, strides, padding, data_format=layout), t, grad_ys=up)
            again, = tf.gradients(dx, up, grad_ys=t)
            got = run.run([dx, again], {t: x, up: dy})
            np.testing.assert_allclose(got[0], want, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(got[1], second)


def test_a_nan_is_the_largest_only_of_a_window_without_numbers() -> None:
    rows = np.array([[1, 2, np.nan, 3], [np.nan, 1, 2, 3], [np.nan] * 4, [-np.inf, np.nan, -np.inf, np.nan]],
                    np.float32)
    with tf.Graph().as_default() as graph, session(graph) as run:
        x = tf.placeholder(tf.float32, [4, 2, 2, 1])
        y = tf.nn.max_pool(x, 2, 2, "VALID")
        largest, number = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")
        got = run.run([y, largest, number, tf.gradients(y, x)[0], tf.nn.max_pool(x, [2, 1], 1, "SAME")],
                      {x: rows.reshape(4, 2, 2, 1)})
    np.testing.assert_array_equal(got[0].reshape(-1), [3, 3, -np.inf, -np.inf])
    np.testing.assert_array_equal(got[1], got[0])
    assert got[2].reshape(-1).tolist() == [3, 3, 0, 0]
    np.testing.assert_array_equal(got[3].reshape(4, 4), np.eye(4, dtype=np.float32)[[3, 3, 0, 0]])
    np.testing.assert_array_equal(got[4][0, :, :, 0], [[1, 3], [-np.inf, 3]])


@pytest.mark.parametrize("batch", [False, True])
def test_argmax_counts_within_the_example_or_the_batch(batch: bool) -> None:
    x = generator("argmax").permutation(2 * 5 * 6 * 3).reshape(2, 5, 6, 3).astype(np.float32)
    with tf.Graph().as_default() as graph, session(graph) as run:
        t = tf.placeholder(tf.float32, [None, None, None, 3])
        y, number = tf.nn.max_pool_with_argmax(t, 3, 2, "SAME", Targmax=tf.int32, include_batch_in_index=batch)
        values, numbers = run.run([y, number], {t: x})
    assert numbers.dtype == np.int32
    flat = x.reshape(-1) if batch else x.reshape(2, -1)
    np.testing.assert_array_equal(values, flat[numbers] if batch else np.stack([f[n] for f, n in zip(
        flat, numbers, strict=True)]))


def test_pool_chooses_by_the_number_of_sizes() -> None:
    x = generator("pool").standard_normal((2, 6, 6, 3)).astype(np.float32)
    with tf.Graph().as_default() as graph, session(graph) as run:
        got = run.run([tf.nn.pool(x, [3, 2], "AVG", "SAME", strides=[2, 1]), tf.nn.pool(x, [2, 2], "MAX", "VALID"),
                       tf.nn.max_pool_v2(x[:, 0], 2, 2, "SAME"), tf.nn.avg_pool_v2(x[:, 0], 3, 1, "VALID")])
    np.testing.assert_allclose(got[0], pooled(x, (1, 2), (3, 2), (2, 1), "SAME", np.mean), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[1], pooled(x, (1, 2), (2, 2), (1, 1), "VALID", np.max))
    np.testing.assert_array_equal(got[2], pooled(x[:, 0], (1,), (2,), (2,), "SAME", np.max))
    np.testing.assert_allclose(got[3], pooled(x[:, 0], (1,), (3,), (1,), "VALID", np.mean), rtol=1e-5, atol=1e-6)


def test_wrong_windows_are_refused() -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 4, 4, 3])
        with pytest.raises(ValueError, match="a window of 5 is wider than axis 1"):
            tf.nn.max_pool(x, 5, 1, "VALID")
        with pytest.raises(ValueError, match='"SAME" or "VALID"'):
            tf.nn.max_pool(x, 2, 1, "FULL")
        with pytest.raises(ValueError, match="must not reach over examples"):
            tf.nn.avg_pool(x, [2, 2, 2, 1], 1, "SAME")
        with pytest.raises(ValueError, match="'NHWC' or 'NCHW'"):
            tf.nn.avg_pool(x, 2, 1, "SAME", data_format="NWC")
        with pytest.raises(ValueError, match="has 1, 2 or 4 numbers, not 3"):
            tf.nn.avg_pool(x, [2, 2, 2], 1, "SAME")
        with pytest.raises(TypeError, match="takes floats"):
            tf.nn.avg_pool(tf.cast(x, tf.int32), 2, 2, "SAME")


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_a_batch_may_be_empty(pool: str) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 5, 4, 2))
        y = getattr(tf.nn, pool)(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
        ends = [y, tf.gradients(y, x)[0]]
    with session(graph) as made:
        for rows in (0, 1):
            values = made.run(ends, {x: np.ones((rows, 5, 4, 2), np.float32)})
            assert [v.shape for v in values] == [(rows, 2, 2, 2), (rows, 5, 4, 2)]
