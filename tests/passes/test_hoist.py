"""Values that depend on variables alone: split off, computed once, and again when a variable has changed."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as tf
from graphc.compiler import compile_program
from graphc.ir.verify import verify
from graphc.options import from_environment
from graphc.passes.extract import extract
from graphc.passes.hoist import PREFIX, split


@pytest.fixture(autouse=True)
def fresh_graph() -> None:
    tf.reset_default_graph()


def layer() -> tuple[tf.Tensor, tf.Tensor, tf.Variable, tf.Variable]:
    """x, exp(w) scaled by the deviation b, w, b."""
    x = tf.placeholder(tf.float32, (None, 4))
    w = tf.Variable(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), name="w")
    b = tf.Variable(np.full(3, 2.0, np.float32), name="b")
    return x, tf.matmul(x, tf.exp(w)) * tf.rsqrt(b), w, b


def expected(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return x @ np.exp(w) / np.sqrt(b)


def test_the_parts_are_valid_and_agree_on_names() -> None:
    x, y, _, _ = layer()
    function = extract((y,), (x,), ())
    main, alone = split(function)
    assert alone is not None
    verify(main)
    verify(alone)
    hoisted = [name for name in main.state_names if name.startswith(PREFIX)]
    assert len(hoisted) == 2
    assert [n for n in alone.state_names if n.startswith(PREFIX)] == hoisted
    assert set(alone.state_names) == {"w", "b", *hoisted}
    assert "Exp" in [n.op.name for n in alone.nodes]
    assert not {"Exp", "Rsqrt"} & {n.op.name for n in main.nodes}
    assert set(main.state_names) == set(hoisted)


def test_a_value_hoisted_beside_its_own_source() -> None:
    x = tf.placeholder(tf.float32, (None, 3))
    scale, offset, mean, variance = (tf.Variable(np.ones(3, np.float32), name=n) for n in ("s", "o", "m", "v"))
    function = extract((tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3),), (x,), ())
    main = split(function)[0]
    assert [n.op.name for n in main.nodes] == ["Mul", "Add"]
    assert len(main.states) == 2


def test_constants_too_large_to_fold_are_computed_once() -> None:
    x = tf.placeholder(tf.float32, (None, 600))
    large = np.linspace(-1, 1, 360000, dtype=np.float32).reshape(600, 600)
    y = tf.matmul(x, tf.exp(tf.constant(large)))
    function = extract((y,), (x,), ())
    alone = split(function)[1]
    assert alone is not None and [n.op.name for n in alone.nodes] == ["Const", "Exp"]
    assert [n.op.name for n in split(function)[0].nodes] == ["MatMul"]
    values = np.random.default_rng().standard_normal((3, 600)).astype(np.float32)
    with tf.Session() as sess:
        np.testing.assert_allclose(sess.run(y, {x: values}), values @ np.exp(large), rtol=1e-3, atol=1e-3)


def test_a_program_that_writes_variables_is_left_alone() -> None:
    x, y, w, _ = layer()
    function = extract((y,), (x,), (tf.assign(w, w * 0.5).op,))
    assert split(function)[0] is function
    assert split(function)[1] is None


def test_a_program_without_feeds_is_left_alone() -> None:
    _, _, w, _ = layer()
    function = extract((tf.exp(w) + 1.0,), (), ())
    assert split(function)[0] is function


def test_nothing_that_only_spreads_or_reshapes_is_hoisted() -> None:
    x = tf.placeholder(tf.float32, (None, 4))
    b = tf.Variable(np.ones(2, np.float32))
    function = extract((x + tf.tile(b, [2]) + tf.reshape(tf.tile(b, [2]), (1, 4)),), (x,), ())
    assert split(function)[0] is function


def test_random_values_stay_where_they_are() -> None:
    x = tf.placeholder(tf.float32, (None, 4))
    w = tf.Variable(np.ones((4,), np.float32))
    function = extract((x + tf.exp(w) * tf.random_normal((4,)),), (x,), ())
    main = split(function)[0]
    kinds = {n.op.name for n in main.nodes}
    assert "RandomStandardNormal" in kinds and "Exp" not in kinds


@pytest.mark.parametrize("backend", ["llvm_cpu", "interp"])
def test_changes_of_variables_are_seen(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_BACKEND", backend)
    x, y, w, b = layer()
    halve = tf.assign(w, w * 0.5)
    rng = np.random.default_rng()
    values = rng.standard_normal((5, 4)).astype(np.float32)
    with tf.Session() as sess:
        with pytest.raises(tf.errors.FailedPreconditionError, match="'w', 'b'"):
            sess.run(y, {x: values})
        sess.run(tf.global_variables_initializer())
        for change in (lambda: None, lambda: sess.run(halve), lambda: b.load(np.full(3, 5.0, np.float32), sess),
                       lambda: sess.run(tf.global_variables_initializer())):
            change()
            held = sess.run([w, b])
            for rows in (5, 2):
                got = sess.run(y, {x: values[:rows]})
                np.testing.assert_allclose(got, expected(values[:rows], *held), rtol=1e-5, atol=1e-5)


def test_what_is_hoisted_runs_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.runtime.hoisted import Hoisted

    computed = []
    refresh = Hoisted.refresh
    monkeypatch.setattr(Hoisted, "refresh", lambda self: (computed.append(1), refresh(self)))
    x, y, w, _ = layer()
    noise = tf.random_normal(())
    values = np.ones((2, 4), np.float32)
    with tf.Session() as sess:
        sess.run([tf.global_variables_initializer(), noise])
        for _ in range(5):
            sess.run(y, {x: values})
            sess.run(noise)  # moves a counter, which is no variable
        assert len(computed) == 1
        sess.run(tf.assign(w, w + 1.0))
        sess.run(y, {x: values})
        assert len(computed) == 2


def test_a_second_compilation_comes_from_the_cache(tmp_path: object) -> None:
    x, y, _, _ = layer()
    options = from_environment({"GRAPHC_CACHE_DIR": str(tmp_path)}).replace(hoist=True)
    first, second = (compile_program((y,), (x,), (), options) for _ in range(2))
    assert first.once is not None and second.once is not None
    assert [s.name for s in first.once.plan.states] == [s.name for s in second.once.plan.states]


def test_sessions_do_not_share_hoisted_values() -> None:
    x, y, w, b = layer()
    values = np.ones((2, 4), np.float32)
    with tf.Session() as one, tf.Session() as other:
        for sess in (one, other):
            sess.run(tf.global_variables_initializer())
        one.run(tf.assign(w, w * 3.0))
        for sess in (one, other, one):
            held = sess.run([w, b])
            np.testing.assert_allclose(sess.run(y, {x: values}), expected(values, *held), rtol=1e-5, atol=1e-5)
