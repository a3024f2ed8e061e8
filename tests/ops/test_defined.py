"""What other languages leave undefined is defined here: division, shifts, conversions, indices out of range."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

import graphc as tf
from graphc import dtypes
from graphc.ir import infer
from graphc.ir.function import Builder, Function, Value
from graphc.ir.types import TensorType
from graphc.ops.base import lookup
from graphc.options import Options
from tests.ops.cases import Array
from tests.ops.compiled import BACKENDS, Compiled

SIGNED = (dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64)
Applied: TypeAlias = tuple[str, list[Array], dict[str, Any]]
NATIVE = ("llvm_cpu", "interp")


def functions(cases: Sequence[Applied]) -> tuple[Function, list[Array]]:
    """Applications of ops to fed arrays as one Function."""
    builder, feeds, arrays = Builder(infer.types), [], []
    for name, given, attrs in cases:
        values = [Value(TensorType(dtypes.as_dtype(a.dtype), a.shape)) for a in given]
        builder.add(lookup(name), values, attrs, (name,))
        feeds += values
        arrays += given
    fetches = tuple(node.output for node in builder.nodes)
    return Function("f", tuple(feeds), tuple(builder.nodes), fetches,
                    feed_names=tuple(f"x{i}" for i in range(len(feeds))),
                    fetch_names=tuple(f"y{i}" for i in range(len(fetches)))), arrays


def results(cases: Sequence[Applied], backend: str) -> list[Array]:
    function, arrays = functions(cases)
    return Compiled(function, backend)(arrays)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 35])
def test_the_smallest_integer_divided_by_minus_one_wraps(backend: str, count: int) -> None:
    names = ("FloorDiv", "TruncateDiv", "FloorMod", "TruncateMod")
    dtypes_of = SIGNED if backend != "numba_cpu" else SIGNED[1::2]
    cases: list[Applied] = []
    wanted = []
    for d in dtypes_of:
        low = np.full(count, d.min, d.as_numpy_dtype)
        for name in names:
            cases.append((name, [low, np.full(count, -1, d.as_numpy_dtype)], {}))
            wanted.append(low if name.endswith("Div") else np.zeros_like(low))
    for got, want in zip(results(cases, backend), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("backend", NATIVE)
def test_shifts_take_their_amount_modulo_the_width(backend: str) -> None:
    cases: list[Applied] = []
    wanted = []
    for d in (*SIGNED, dtypes.uint8, dtypes.uint32, dtypes.uint64):
        t = d.as_numpy_dtype
        x = np.array([1, 3, d.max, d.min], t)
        for by in (0, 1, d.bits - 1, d.bits, d.bits + 1):
            amount = np.full(4, by, t)
            cases += [("LeftShift", [x, amount], {}), ("RightShift", [x, amount], {})]
            wanted += [np.left_shift(x, t(by % d.bits)), np.right_shift(x, t(by % d.bits))]
    for got, want in zip(results(cases, backend), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("backend", NATIVE)
def test_casts_of_floats_to_integers_saturate(backend: str) -> None:
    values = [0.0, -0.0, 1.9, -1.9, np.inf, -np.inf, np.nan, 1e30, -1e30]
    targets = (*SIGNED, dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64)
    cases = [("Cast", [np.array(values, s)], {"dtype": t}) for s in (np.float32, np.float64) for t in targets]
    wanted = [[0, 0, 1, max(-1, t.min), t.max, t.min, 0, t.max, t.min] for t in (*targets, *targets)]
    for got, want in zip(results(cases, backend), wanted, strict=True):
        assert got.tolist() == [int(n) for n in want], got.dtype


def test_checks_of_sizes_hold_in_every_run() -> None:
    """A size that only a check makes known is checked again when a run finds everything bound."""
    with tf.Graph().as_default(), tf.Session() as session:
        session.options = Options(cache_dir="")
        x = tf.placeholder(tf.float32, [None, 4])
        y = tf.matmul(tf.ones([5, 4]), x, transpose_a=True)
        for _ in range(2):
            np.testing.assert_array_equal(session.run(y, {x: np.ones((5, 4))}), np.full((4, 4), 5.0))
            for rows in (1, 4, 6):
                with pytest.raises(tf.errors.InvalidArgumentError, match="inner sizes differ"):
                    session.run(y, {x: np.ones((rows, 4), np.float32)})


# -- errors with the user's line --------------------------------------------------------------------------------------


def quotient() -> tuple[Any, dict[Any, Any], str]:
    x, y = tf.placeholder(tf.int32, [None], "x"), tf.placeholder(tf.int32, [None], "y")
    z = tf.floordiv(x, y, name="share")
    return tf.negative(z), {x: [1, 2, 3], y: [1, 0, 1]}, "integer division by zero"


def remainder() -> tuple[Any, dict[Any, Any], str]:
    x = tf.placeholder(tf.int64, [], "x")
    return tf.mod(7, x, name="share"), {x: 0}, "integer division by zero"


def lookup_rows() -> tuple[Any, dict[Any, Any], str]:
    table, i = tf.constant(np.ones((4, 3), np.float32)), tf.placeholder(tf.int32, [None], "i")
    return tf.reduce_sum(tf.gather(table, i, name="share") * 2.0, 1), {i: [0, 4]}, "not in [0, 4)"


def below() -> tuple[Any, dict[Any, Any], str]:
    table, i = tf.constant(np.ones((4, 3), np.float32)), tf.placeholder(tf.int64, [None, None], "i")
    return tf.gather(table, i, name="share"), {i: [[0, -1]]}, "not in [0, 4)"


def labels() -> tuple[Any, dict[Any, Any], str]:
    x, i = tf.placeholder(tf.float32, [None, 3], "x"), tf.placeholder(tf.int32, [None], "i")
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=i, logits=x, name="share")
    return tf.reduce_mean(loss), {x: np.zeros((2, 3)), i: [2, 3]}, "outside the range"


def scattered() -> tuple[Any, dict[Any, Any], str]:
    i = tf.placeholder(tf.int32, [None, 1], "i")
    return tf.scatter_nd(i, tf.ones_like(i[:, 0]), [4], name="share") + 1, {i: [[1], [5]]}, "out of range"


def segments() -> tuple[Any, dict[Any, Any], str]:
    i = tf.placeholder(tf.int32, [None], "i")
    return tf.unsorted_segment_sum(tf.cast(i, tf.float32), i, 3, name="share"), {i: [0, 3]}, "out of range"


def slope_of_rows() -> tuple[Any, dict[Any, Any], str]:
    x, i = tf.placeholder(tf.float32, [2, 3], "x"), tf.placeholder(tf.int32, [None], "i")
    y = tf.gather(x, i, name="share")
    return tf.gradients(tf.reduce_sum(y * y), x)[0], {x: np.ones((2, 3)), i: [2]}, "not in [0, 2)"


def power() -> tuple[Any, dict[Any, Any], str]:
    x = tf.placeholder(tf.int64, [None], "x")
    return tf.pow(x, x - 1, name="share"), {x: [3, 0]}, "negative integer powers"


@pytest.mark.parametrize("build", [quotient, remainder, lookup_rows, below, labels, scattered, segments, slope_of_rows,
                                   power], ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", NATIVE)
def test_a_bad_value_names_the_op_and_the_users_line(backend: str, build: Callable[[], tuple[Any, Any, str]]) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        session.options = Options(backend=backend, cache_dir="")
        fetch, feeds, message = build()
        good = {t: np.ones_like(v) for t, v in feeds.items()}
        session.run(fetch, good)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            session.run(fetch, feeds)
        assert caught.value.op.name.startswith("share")
        text = str(caught.value)
        line = next(n for n, s in enumerate(Path(__file__).read_text().splitlines(), 1)
                    if build.__code__.co_firstlineno <= n and 'name="share"' in s)
        assert message in text and f"test_defined.py:{line}" in text, text
        session.run(fetch, good)
