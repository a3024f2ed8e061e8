"""Graphs: names as TensorFlow 1 makes them, scopes, look-up, order, inference while building.

The names in `test_names_*` were printed by TensorFlow 2.15's compat.v1 for the same code.
"""
from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc as tf
from graphc import source
from graphc.errors import DTypeError, GraphError, ShapeError


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def made(g: tf.Graph, *hidden: str) -> list[str]:
    return [op.name for op in g.get_operations() if op.type not in ("Const", "Fill", *hidden)]


def test_names_of_operators(graph: tf.Graph) -> None:
    a = tf.placeholder(tf.float32, [None, 3], name="x")
    b = a + 1.0
    b * a, -b, a[0], a / 2, 1 - a, a ** 2, abs(a), a < 0.5, a @ tf.ones([3, 2])
    tf.add(a, 1.), tf.multiply(a, 2.), tf.matmul(a, tf.ones([3, 2])), tf.matmul(a, tf.ones([3, 2]))
    assert made(graph) == ["x", "add", "mul", "Neg", "strided_slice", "truediv", "sub", "pow", "Abs", "Less", "matmul",
                           "Add_1", "Mul_1", "MatMul_1", "MatMul_2"]  # names are told apart without case
    assert graph.get_operation_by_name("add/y").type == "Const"


def test_names_in_scopes(graph: tf.Graph) -> None:
    with tf.name_scope("s"):
        x = tf.placeholder(tf.float32)
        x + x
        with tf.name_scope("t"):
            x * x
    with tf.name_scope("s") as scope:
        w = tf.square(x)
        tf.identity(w, name=scope)
    with tf.name_scope(scope):
        tf.exp(x)
    with tf.name_scope(None):
        tf.exp(x)
    assert made(graph) == ["s/Placeholder", "s/add", "s/t/mul", "s_1/Square", "s_1", "s_1/Exp", "Exp"]


def test_names_differ_by_more_than_case(graph: tf.Graph) -> None:
    assert [tf.no_op(name=n).name for n in ("Op", "op", "op", "op_1")] == ["Op", "op_1", "op_2", "op_1_1"]


@pytest.mark.parametrize("name", ["a b", "_a", "é", "-x"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="not a valid name"):
        tf.no_op(name=name)


def test_printed_form() -> None:
    y = tf.matmul(tf.constant([[1]]), tf.constant([[2]]))
    assert str(y) == 'Tensor("MatMul:0", shape=(1, 1), dtype=int32)'
    assert repr(y) == "<tf.Tensor 'MatMul:0' shape=(1, 1) dtype=int32>"
    x = tf.placeholder(tf.float32, [None, 3])
    assert str(x) == 'Tensor("Placeholder:0", shape=(?, 3), dtype=float32)'
    assert str(tf.placeholder("float64")) == 'Tensor("Placeholder_1:0", dtype=float64)'
    assert repr(x.op) == "<tf.Operation 'Placeholder' type=Placeholder>"


def test_look_up(graph: tf.Graph) -> None:
    x = tf.placeholder(tf.float32, name="x")
    assert graph.get_tensor_by_name("x:0") is x
    assert graph.get_operation_by_name("x") is x.op
    assert graph.as_graph_element("x") is x.op
    with pytest.raises(KeyError, match="near names: 'x:0'"):
        graph.get_tensor_by_name("xx:0")
    with pytest.raises(KeyError, match="has 1 outputs"):
        graph.get_tensor_by_name("x:1")
    with pytest.raises(ValueError, match="did you mean 'x:0'\\?"):
        graph.get_tensor_by_name("x")
    with pytest.raises(TypeError):
        graph.get_tensor_by_name(3)
    with pytest.raises(TypeError):
        graph.as_graph_element(3.0)


def test_tensors_are_told_apart_by_identity() -> None:
    a, b = tf.constant(1), tf.constant(1)
    assert a != b
    assert {a: 1}[a] == 1
    with pytest.raises(TypeError, match="no truth value"):
        bool(a)
    with pytest.raises(NotImplementedError, match=r"Session\.run"):
        np.asarray(a)


def test_iteration() -> None:
    rows = list(tf.zeros([3, 2]))
    assert [r.shape.as_list() for r in rows] == [[2]] * 3
    with pytest.raises(TypeError, match="cannot be iterated"):
        iter(tf.placeholder(tf.float32, [None, 2]))


def test_numpy_arrays_leave_the_operator_to_tensors() -> None:
    y = np.ones(3, np.float32) * tf.ones([3])
    assert isinstance(y, tf.Tensor)
    assert y.op.type == "Mul"


def test_control_dependencies(graph: tf.Graph) -> None:
    a, b = tf.no_op("a"), tf.no_op("b")
    with tf.control_dependencies([a]):
        c = tf.no_op("c")
        with tf.control_dependencies([b, a]):
            d = tf.no_op("d")
            e = tf.constant(1)
            f = tf.identity(e)
        with tf.control_dependencies(None):
            g = tf.no_op("g")
    assert c.control_inputs == (a,)
    assert d.control_inputs == (a, b)
    assert e.op.control_inputs == (a, b)
    assert f.op.control_inputs == ()  # it waits through its input
    assert g.control_inputs == ()
    assert not graph.has_control_dependencies


def test_group_waits_for_all() -> None:
    a, x = tf.no_op("a"), tf.constant(1)
    g = tf.group(a, [x, [a]])
    assert g.control_inputs == (a, x.op)
    with pytest.raises(TypeError):
        tf.group(a, None)


def test_collections(graph: tf.Graph) -> None:
    x = tf.constant(1, name="s/x")
    tf.add_to_collection("k", x)
    tf.add_to_collection("k", 5)
    found = tf.get_collection("k")
    assert found == [x, 5]
    found.clear()
    assert tf.get_collection("k", "s/") == [x]
    assert tf.get_collection("k", "t/") == []
    tf.get_collection_ref("k").append(6)
    assert tf.get_collection("k")[-1] == 6
    graph.clear_collection("k")
    assert tf.get_collection("k") == []


def test_finalized_graphs_refuse_operations(graph: tf.Graph) -> None:
    graph.finalize()
    with pytest.raises(RuntimeError, match="finalized"):
        tf.constant(1)


def test_another_graphs_tensor(graph: tf.Graph) -> None:
    x = tf.constant(1.0, name="mine")
    with tf.Graph().as_default():
        y = tf.constant(2.0)
        assert (x + 1.0).graph is graph  # an operation is made where its input is
        with pytest.raises(GraphError, match="'Const:0', an input of Add, belongs to another graph"):
            tf.add(x, y)


def test_devices() -> None:
    with tf.device("/job:worker/task:1"), tf.device("/gpu:0"):
        x = tf.constant(1)
    assert x.device == "/job:worker/task:1/device:GPU:0"
    with tf.device("/cpu:0"), tf.device(None):
        assert tf.constant(1).device == ""
    with pytest.raises(ValueError, match="does not name a device"), tf.device("nowhere"):
        pass


def test_default_graphs_are_per_thread(graph: tf.Graph) -> None:
    found = []
    worker = threading.Thread(target=lambda: found.append(tf.get_default_graph()))
    worker.start()
    worker.join()
    assert tf.get_default_graph() is graph
    assert found[0] is not graph
    with pytest.raises(AssertionError):
        tf.reset_default_graph()


def test_operations_know_the_users_line(graph: tf.Graph) -> None:
    here = source.capture()
    x = tf.reduce_mean(tf.ones([2]))
    assert (x.op.source.file, x.op.source.line) == (here.file, here.line + 1)
    assert x.op.source.function == "test_operations_know_the_users_line"
    assert x.op.source.text == "x = tf.reduce_mean(tf.ones([2]))"


def test_unknown_sizes_stay_unknown_and_known_ones_are_kept() -> None:
    a = tf.placeholder(tf.float32, [None, 3])
    b = tf.placeholder(tf.float32, [None, 3])
    n = tf.placeholder(tf.int32, [])
    assert (a + b).shape.as_list() == [None, 3]
    assert (a + tf.ones([7, 1])).shape.as_list() == [7, 3]
    assert tf.zeros([n, 2]).shape.as_list() == [None, 2]
    assert tf.reshape(a, [-1]).shape.as_list() == [None]
    assert tf.reshape(a, [tf.shape(a)[0], 3, 1]).shape.as_list() == [None, 3, 1]
    assert tf.matmul(a, b, transpose_b=True).shape.as_list() == [None, None]
    assert tf.placeholder_with_default([1, 2], [None]).value is None  # it may be fed


def test_set_shape() -> None:
    x = tf.placeholder(tf.float32)
    x.set_shape([None, 3])
    x.set_shape([4, None])
    assert x.get_shape().as_list() == [4, 3]
    with pytest.raises(ShapeError, match=r"has the shape \(4, 3\), which contradicts \(5, 3\)"):
        x.set_shape([5, 3])


def test_dtypes_are_never_promoted() -> None:
    x = tf.constant(1.0)
    with pytest.raises(TypeError, match="float32 and float64"):
        x + tf.constant(1.0, tf.float64)
    with pytest.raises(DTypeError, match="of type float, but int32 is expected"):
        tf.constant(1) + 1.5
    assert (tf.constant(1.0, tf.float64) + 1).dtype is tf.float64
    assert (x + np.ones(2)).dtype is tf.float32


def test_a_long_chain_is_built_one_visit_per_operation(graph: tf.Graph) -> None:
    x = tf.placeholder(tf.float32, [None])
    y = x
    for _ in range(5000):
        y = tf.nn.relu(y)
    assert y.name == "Relu_4999:0"
    assert len(graph.get_operations()) == 5001
    assert y.op.inputs[0].consumers() == [y.op]
