"""Python values as tensors: TensorFlow 1's rules of dtypes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as tf
from graphc.errors import DTypeError, ShapeError


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def content(t: tf.Tensor) -> np.ndarray:
    assert t.op.type == "Const"
    return t.op.attrs["value"]


@pytest.mark.parametrize(("value", "dtype", "shape"), [
    (1, "int32", []), (1.5, "float32", []), (True, "bool", []), ([1, 2.5], "float32", [2]), (2**40, "int64", []),
    (np.float64(1), "float64", []), (np.ones((2, 1)), "float64", [2, 1]), (np.int8(3), "int8", []),
    ([[1, 2], [3, 4]], "int32", [2, 2]), ([], "float32", [0]), (np.zeros((0, 3), np.float16), "float16", [0, 3]),
])
def test_default_dtypes(value: object, dtype: str, shape: list[int]) -> None:
    t = tf.constant(value)
    assert t.dtype.name == dtype
    assert t.shape.as_list() == shape
    np.testing.assert_array_equal(content(t), np.asarray(value))


def test_dtypes_that_are_asked_for() -> None:
    assert tf.constant(1, tf.float64).dtype is tf.float64
    assert tf.constant([1, 2], "uint8").dtype is tf.uint8
    assert content(tf.constant(1.005859375, tf.bfloat16)) == np.float32(1.0078125)
    assert content(tf.constant(np.float64(2.7), tf.int32)) == 2


@pytest.mark.parametrize(("value", "dtype", "message"), [
    (1.5, tf.int32, "of type float, but int32 is expected"), (True, tf.float32, "of type bool"),
    (1, tf.bool, "of type int"), (300, tf.uint8, "does not fit uint8"), (-1, tf.uint32, "does not fit uint32"),
    ("text", None, "numbers and bools are"), (1j, None, "not a value"), (None, None, "None is not a value"),
])
def test_what_does_not_fit(value: object, dtype: tf.DType, message: str) -> None:
    with pytest.raises(DTypeError, match=message):
        tf.constant(value, dtype)


def test_ragged_rows() -> None:
    with pytest.raises(ShapeError, match="different lengths"):
        tf.constant([[1, 2], [3]])


def test_constants_fill_their_shape_with_the_last_value() -> None:
    np.testing.assert_array_equal(content(tf.constant([1, 2, 3], shape=[2, 2])), [[1, 2], [3, 3]])
    np.testing.assert_array_equal(content(tf.constant(7, shape=[3])), [7, 7, 7])
    with pytest.raises(ShapeError):
        tf.constant([1, 2, 3], shape=[2])
    with pytest.raises(ShapeError):
        tf.constant(1, shape=[2], verify_shape=True)


def test_constants_do_not_change_with_their_array() -> None:
    a = np.ones(2)
    t = tf.constant(a)
    a[:] = 5
    np.testing.assert_array_equal(content(t), [1, 1])
    with pytest.raises(ValueError, match="read-only"):
        content(t)[0] = 3


def test_lists_with_tensors_are_packed() -> None:
    x = tf.constant(2.0, tf.float64)
    t = tf.convert_to_tensor([[1, x], [x, 2.5]])
    assert t.dtype is tf.float64
    assert t.shape.as_list() == [2, 2]
    assert tf.convert_to_tensor([1, tf.constant(2)]).name.startswith("packed")


def test_conversion_of_tensors() -> None:
    x = tf.constant(1)
    assert tf.convert_to_tensor(x) is x
    with pytest.raises(TypeError, match="int32 is given where float32 is expected"):
        tf.convert_to_tensor(x, tf.float32)
    assert tf.convert_to_tensor(1, preferred_dtype=tf.float32).dtype is tf.float32
    assert tf.convert_to_tensor(1.5, preferred_dtype=tf.int32).dtype is tf.float32
    assert tf.convert_to_tensor(tf.TensorShape([2, 3])).dtype is tf.int32


def test_numbers_take_the_dtype_of_the_tensor_on_either_side() -> None:
    x = tf.constant(1.0, tf.float64)
    for y in (x * 2, 2 * x, tf.maximum(0, x), tf.maximum(x, 0), tf.add(1, x), x * [2]):
        assert y.dtype is tf.float64
    assert tf.truediv(tf.constant(1), 2).dtype is tf.float64
    assert tf.truediv(tf.constant(1, tf.int8), tf.constant(2, tf.int8)).dtype is tf.float32
    assert tf.div(tf.constant(3), 2).dtype is tf.int32
