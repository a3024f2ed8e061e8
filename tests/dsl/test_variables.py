"""Variables: names, sharing, collections, reads under control dependencies, initial values."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as tf
from tests.oracle import OracleSession


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def test_names_and_collections(graph: tf.Graph) -> None:
    v = tf.Variable(tf.zeros([2]), name="v")
    u = tf.Variable([1.0, 2.0])
    w = tf.Variable(3, trainable=False, collections=["mine"])
    assert [v.name, u.name, w.name] == ["v:0", "Variable:0", "Variable_1:0"]
    assert [v.initializer.name, v.value().name] == ["v/Assign", "v/read:0"]
    assert tf.global_variables() == [v, u] == tf.trainable_variables()
    assert tf.get_collection("mine") == [w]
    assert repr(v) == "<tf.Variable 'v:0' shape=(2,) dtype=float32>"
    assert graph.as_graph_element(v) is v.handle
    assert tf.global_variables_initializer().name == "init"


def test_sharing_by_name() -> None:
    with tf.variable_scope("a") as scope:
        w = tf.get_variable("w", [2])
        assert (w * 2).name == "a/mul:0"
        with tf.variable_scope("b"):
            assert tf.get_variable("w", [2]).name == "a/b/w:0"
    with pytest.raises(ValueError, match="'a/w' exists already"), tf.variable_scope("a"):
        tf.get_variable("w", [2])
    with tf.variable_scope("a", reuse=True):
        assert tf.get_variable("w") is w
        assert tf.get_variable("w", [2]) is w
        assert (w * 2).name == "a_2/mul:0"
        with pytest.raises(ValueError, match=r"has the shape \(2,\), not \(3,\)"):
            tf.get_variable("w", [3])
        with pytest.raises(ValueError, match="near names: 'a/w'"):
            tf.get_variable("ww")
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        assert tf.get_variable("w", [2]) is w
        assert tf.get_variable("new", [1]).name == "a/new:0"
    with tf.variable_scope(None, "a"):
        assert tf.get_variable("w", [1]).name == "a_1/w:0"
    assert tf.get_variable_scope().name == ""
    assert not tf.get_variable_scope().reuse
    tf.get_variable("w", [1])
    tf.get_variable_scope().reuse_variables()
    assert tf.get_variable("w").name == "w:0"


def test_scopes_give_defaults() -> None:
    def getter(inner, name, *args, **kwargs):
        seen.append(name)
        return inner(name, *args, **kwargs)

    seen: list[str] = []
    with tf.variable_scope("s", initializer=tf.ones_initializer(), dtype=tf.float64, custom_getter=getter,
                           regularizer=tf.contrib.layers.l2_regularizer(0.5)):
        w = tf.get_variable("w", [2])
        with tf.variable_scope("t"):
            tf.get_variable("u", [])
    assert seen == ["s/w", "s/t/u"]
    assert w.dtype is tf.float64
    assert len(tf.losses.get_regularization_losses()) == 2
    with OracleSession() as sess:
        sess.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(sess.run(w), [1, 1])
        assert sess.run(tf.losses.get_regularization_loss()) == 0.5 * (1 + 0.5)


def test_get_variable_with_values() -> None:
    assert tf.get_variable("a", initializer=np.ones(3)).dtype is tf.float64
    assert tf.get_variable("b", initializer=2.0).shape.as_list() == []
    assert tf.get_variable("c", [2], initializer=lambda shape, dtype: tf.fill(shape, tf.cast(7, dtype))).shape == [2]
    with pytest.raises(ValueError, match="shape of 'd' is missing"):
        tf.get_variable("d")
    with pytest.raises(ValueError, match="not fully known"):
        tf.get_variable("e", [None])


def test_uses_share_one_read_unless_something_must_come_first(graph: tf.Graph) -> None:
    v = tf.Variable(1.0, name="v")
    assert (v + 1).op.inputs[0] is (v * 2).op.inputs[0]
    write = v.assign(5.0)
    with tf.control_dependencies([write]):
        late = v + 1
    assert late.op.inputs[0].op.control_inputs == (write.op,)
    with OracleSession() as sess:
        sess.run(v.initializer)
        assert sess.run([v * 1, late]) == [1.0, 6.0]
        assert sess.run(v) == 5.0


def test_assignments_give_the_new_content() -> None:
    v = tf.Variable([1.0, 2.0, 3.0])
    add, sub = v.assign_add([1, 1, 1]), tf.assign_sub(v, [0, 0, 1])
    rows = tf.scatter_add(v, [0, 0], [10.0, 20.0])
    with OracleSession() as sess:
        sess.run(v.initializer)
        np.testing.assert_array_equal(sess.run(add), [2, 3, 4])
        np.testing.assert_array_equal(sess.run(sub), [2, 3, 3])
        np.testing.assert_array_equal(sess.run(rows), [32, 3, 3])
        np.testing.assert_array_equal(v.eval(sess), [32, 3, 3])
        v.load([1, 2, 3], sess)
        np.testing.assert_array_equal(sess.run(v), [1, 2, 3])
    with pytest.raises(TypeError):
        tf.assign(tf.constant(1.0), 2.0)


def test_variables_that_start_from_each_other_are_initialised_in_one_run() -> None:
    tf.set_random_seed(3)
    a = tf.Variable(tf.random_normal([4]))
    b = tf.Variable(a * 2)
    c = tf.Variable(b.initialized_value() + a)
    with OracleSession() as sess:
        sess.run(tf.global_variables_initializer())
        x, y, z = sess.run([a, b, c])
    np.testing.assert_array_equal(y, x * 2)
    np.testing.assert_array_equal(z, y + x)


def test_initialisation_is_reported() -> None:
    a, b = tf.Variable(1, name="a"), tf.Variable(2, name="b")
    asked = tf.is_variable_initialized(b)
    report = tf.report_uninitialized_variables()
    with OracleSession() as sess:
        assert list(sess.run(report)) == [b"a", b"b"]
        assert not sess.run(asked)
        sess.run(a.initializer)
        assert list(sess.run(report)) == [b"b"]
        assert sess.run(tf.where(asked, 1, 2)) == 2
        sess.run(b.initializer)
        assert sess.run(tf.where(asked, 1, 2)) == 1


@pytest.mark.parametrize("init", [
    tf.zeros_initializer, tf.ones_initializer(), tf.constant_initializer(2.5), tf.initializers.orthogonal(),
    tf.initializers.constant(0.5), tf.initializers.random_uniform(-1, 1), tf.initializers.random_normal(),
    tf.initializers.truncated_normal(stddev=0.1),
    tf.initializers.identity(), tf.initializers.he_normal(), tf.contrib.layers.xavier_initializer(),
    tf.initializers.lecun_uniform(), tf.random_uniform_initializer(-1, 1), tf.truncated_normal_initializer(stddev=0.1),
])
def test_initializers(init: object) -> None:
    tf.set_random_seed(1)
    v = tf.get_variable("v", [30, 30], initializer=init)
    with OracleSession() as sess:
        sess.run(v.initializer)
        w = sess.run(v)
    assert np.isfinite(w).all()
    name = type(init).__name__
    if name == "Orthogonal":
        np.testing.assert_allclose(w.T @ w, np.eye(30), atol=1e-5)
    elif name == "Identity":
        np.testing.assert_array_equal(w, np.eye(30))
    elif name == "VarianceScaling":
        expected = np.sqrt(init.scale / 30)
        assert 0.8 * expected < w.std() < 1.2 * expected
    elif name == "TruncatedNormal":
        assert np.abs(w).max() <= 0.2


def test_layers_own_their_variables() -> None:
    x = tf.placeholder(tf.float32, [None, 4])
    y = tf.layers.dense(x, 3, tf.nn.relu, name="top")
    tf.layers.dense(y, 2)
    tf.layers.dense(tf.zeros([2, 5, 3]), 2, use_bias=False)
    shared = tf.layers.Dense(4)
    shared(x), shared(x)
    assert [v.op.name for v in tf.trainable_variables()] == [
        "top/kernel", "top/bias", "dense/kernel", "dense/bias", "dense_1/kernel", "dense_2/kernel", "dense_2/bias"]
    assert y.shape.as_list() == [None, 3]
    assert y.name == "top/Relu:0"
    assert [v.shape.as_list() for v in shared.variables] == [[4, 4], [4]]
    assert tf.layers.flatten(tf.placeholder(tf.float32, [None, 2, 3])).shape.as_list() == [None, 6]
    with pytest.raises(ValueError, match="exists already"):
        tf.layers.dense(x, 3, name="top")
    with pytest.raises(ValueError, match="must have a known size"):
        tf.layers.dense(tf.placeholder(tf.float32, [2, None]), 3)


def test_custom_gradient() -> None:
    @tf.custom_gradient
    def clipped(x):
        return x * x, lambda dy: tf.clip_by_value(dy * 2 * x, -1.0, 1.0)

    x = tf.constant([0.25, 3.0])
    y = clipped(x)
    with OracleSession() as sess:
        np.testing.assert_allclose(sess.run(y), [0.0625, 9])
        np.testing.assert_allclose(sess.run(tf.gradients(y, x)[0]), [0.5, 1])
