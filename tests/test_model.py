"""Model files: what they build, what they are called with, and the values of their variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc import dtypes
from graphc.errors import GraphError, ModelError
from graphc.model import Model, choose_signature, free_results, load_model
from graphc.tensorfile import Stored, pack_tensors

MODELS = Path(__file__).resolve().parents[1] / "models"

HEAD = "import graphc as tf\n"
LINE = """
x = tf.placeholder(tf.float32, (None, 3), name="x")
y = tf.placeholder(tf.float32, (None,), name="labels")
w = tf.get_variable("w", (3,), initializer=tf.ones_initializer())
out = tf.reduce_sum(x * w, axis=1, name="out")
loss = tf.reduce_mean(tf.square(out - y), name="loss")
train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")
"""


def write(folder: Path, text: str, name: str = "m.py") -> Path:
    (folder / name).write_text(HEAD + text)
    return folder / name


def indent(text: str) -> str:
    return text.replace("\n", "\n    ")


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    LINE,
    "tf.reset_default_graph()\n" + LINE,
    "def model():" + indent(LINE),
    "def model():\n    g = tf.Graph()\n    with g.as_default():" + indent(indent(LINE)) + "\n    return g",
    "class M:\n    pass\ndef model():\n    M.graph = tf.Graph()\n    with M.graph.as_default():" + indent(indent(LINE))
    + "\n    return M()",
])
def test_every_way_of_building(tmp_path: Path, text: str) -> None:
    before, path = tf.get_default_graph(), list(sys.path)
    count = before.operation_count
    model = load_model(write(tmp_path, text + '\nif __name__ == "__main__":\n    raise AssertionError("it ran")\n'))
    assert tf.get_default_graph() is before and before.operation_count == count and sys.path == path
    assert list(model.signature.outputs) == ["loss"] and list(model.signature.inputs) == ["x", "labels"]
    assert model.signature.targets == () and model.values().keys() == {"w"}
    assert np.array_equal(model.values()["w"], np.ones(3, np.float32))


def test_files_beside_it_can_be_imported_and_sessions_do_not_leak(tmp_path: Path) -> None:
    write(tmp_path, "size = 5\n", "helper_of_the_model.py")
    with tf.Graph().as_default(), tf.Session() as session:
        model = load_model(write(tmp_path, "import helper_of_the_model as h\nassert tf.get_default_session() is None\n"
                                           "out = tf.zeros((h.size,)) + tf.placeholder(tf.float32, (5,), name='x')\n"))
        assert tf.get_default_session() is session
    assert [t.shape.as_list() for t in model.signature.outputs.values()] == [[5]]


@pytest.mark.parametrize(("text", "message"), [
    ("", "builds no graph, and it has no function model()"),
    ("model = 3", "builds no graph, and it has no function model()"),
    ("def model(size):\n    pass", "cannot be called without arguments"),
    ("def model():\n    return 3", "builds nothing into the default graph and returns int"),
    ("def model():\n    return tf.Graph()", "returns Graph"),
    ("import sys\nsys.exit(3)", "ends the program when it is imported"),
    ("tf.constant(1.0)", "no result that nobody consumes"),
])
def test_files_that_are_no_model(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_file_and_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "absent.py")
    (tmp_path / "m.txt").write_text("x")
    with pytest.raises(ModelError, match="a model is a Python file"):
        load_model(tmp_path / "m.txt")


def test_errors_of_the_file_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load_model(write(tmp_path, "1 / 0"))
    with pytest.raises(TypeError, match="inside"):
        load_model(write(tmp_path, "def model():\n    raise TypeError('inside')"))


@pytest.mark.parametrize("name", ["hinge", "linear_regression", "logistic_regression", "mlp", "perceptron",
                                  "softmax_regression"])
def test_every_model_of_the_project_says_what_it_is(name: str) -> None:
    model = load_model(MODELS / f"{name}.py")
    assert list(model.signature.inputs) == ["x"] and model.signature.outputs and not model.signature.targets


# -- signatures -------------------------------------------------------------------------------------------------------


def test_names_of_signature_graph_and_tensors(tmp_path: Path) -> None:
    path = write(tmp_path, LINE + 'tf.signature({"rows": x}, {"sum": out})\n')
    model = load_model(path)
    assert list(model.signature.inputs) == ["rows"] and list(model.signature.outputs) == ["sum"]
    for fetches, outputs in ((["sum"], ["out:0"]), (["out"], ["out:0"]), (["out:0", "w"], ["out:0", "w:0"])):
        chosen = load_model(path, fetches=fetches).signature
        assert list(chosen.outputs) == fetches and [t.name for t in chosen.outputs.values()] == outputs
        assert list(chosen.inputs) == ["rows"]
    trained = load_model(path, fetches=["loss", "train"]).signature
    assert [op.name for op in trained.targets] == ["train"] and list(trained.inputs) == ["rows", "labels"]
    fed = load_model(path, fetches=["loss"], feeds=["out", "labels:0"]).signature
    assert {n: t.name for n, t in fed.inputs.items()} == {"out": "out:0", "labels:0": "labels:0"}


@pytest.mark.parametrize(("arguments", "message"), [
    ({"fetches": ["lost"]}, "cannot fetch 'lost': the graph has no operation 'lost'\n  hint: near names: loss"),
    ({"fetches": ["loss:1"]}, "cannot fetch 'loss:1'"),
    ({"feeds": ["labelz"]}, "cannot feed 'labelz'"),
    ({"feeds": ["train"]}, "the feed 'train' is an operation"),
])
def test_unknown_names_tell_near_ones(tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(write(tmp_path, LINE), **arguments)
    assert message in str(caught.value)


def test_a_placeholder_that_the_signature_forgets(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the outputs need the placeholder 'labels', which(.|\n)*m.py:4"):
        load_model(write(tmp_path, LINE + "tf.signature([x], [loss])"))


def test_what_a_graph_computes_for_its_user() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 3), name="x")
        tf.placeholder(tf.float32, (), name="unused")
        w = tf.Variable(tf.zeros((3, 1)), name="w")
        hidden = tf.matmul(x, w)
        one, two = tf.exp(hidden, name="one"), tf.reduce_mean(tf.square(hidden), name="two")
        tf.gradients(two, [w])
        awaited = tf.negative(x, name="awaited")
        tf.group(w.assign_add(tf.ones((3, 1))), awaited)
    assert free_results(graph) == [one, two]
    assert list(choose_signature(graph).outputs) == ["one", "two"]


def test_the_last_declaration_counts_and_lists_name_operations() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 3), name="in/x")
        a, b = tf.split(x, [1, 2], axis=1, name="parts")
        tf.signature([x], [a])
        tf.signature({"rows": x}, [a, b, tf.group(a, name="both")])
    signature = choose_signature(graph)
    assert list(signature.inputs) == ["rows"] and list(signature.outputs) == ["parts", "parts:1"]
    assert [op.name for op in signature.targets] == ["both"]


@pytest.mark.parametrize(("inputs", "outputs", "kind", "message"), [
    ({"x": "nothing"}, None, GraphError, "inputs: the graph has no operation 'nothing'"),
    (["x:0", "x:0"], None, GraphError, "two inputs are called 'x'"),
    ({"a": "x:0", "b": "x:0"}, None, GraphError, "'x:0' is two inputs"),
    ({1: "x:0"}, None, TypeError, "inputs go by texts, not 1"),
    ("x", None, TypeError, "dicts or lists, not str"),
    (None, {"a": 3}, GraphError, "outputs: 3 of type int"),
    (["go"], None, GraphError, "the input 'go' is an operation"),
])
def test_wrong_declarations(inputs: Any, outputs: Any, kind: type[Exception], message: str) -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, (), name="x")
        tf.group(x, name="go")
        with pytest.raises(kind, match=message) as caught:
            tf.signature(inputs, outputs)
        assert "test_model.py" in str(caught.value)


# -- values and checkpoints -------------------------------------------------------------------------------------------


def net() -> Model:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 3), name="x")
        w = tf.Variable(tf.random_normal((3, 2)), name="weights")
        b = tf.Variable(tf.ones((2,), tf.bfloat16), name="biases")
        tf.Variable(b.initialized_value() * 2, name="other")
        tf.signature([x], {"y": tf.matmul(x, w) + tf.cast(b, tf.float32)})
    return Model("", graph, choose_signature(graph))


def test_initial_values_are_drawn_once() -> None:
    model = net()
    values = model.values()
    assert values.keys() == {"weights", "biases", "other"} and np.array_equal(values["other"], [2, 2])
    again = model.values()
    assert all(np.array_equal(values[k], again[k]) for k in values) and again is not values


def checkpoint(folder: Path, kind: str, arrays: dict[str, np.ndarray]) -> Path:
    if kind == ".npz":
        np.savez(folder / "c.npz", **arrays)
    else:
        (folder / "c.safetensors").write_bytes(pack_tensors({
            k: Stored(dtypes.bfloat16, dtypes.float32_to_bfloat16(v)) if k == "biases" else
            Stored(dtypes.as_dtype(v.dtype), v) for k, v in arrays.items()}))
    return folder / f"c{kind}"


BUILD = """
x = tf.placeholder(tf.float32, (None, 3), name="x")
w = tf.Variable(tf.zeros((3, 2)), name="weights")
b = tf.Variable(tf.ones((2,), tf.bfloat16), name="biases")
momentum = tf.Variable(tf.zeros((3, 2)), name="weights/Momentum")
tf.signature([x], {"y": tf.matmul(x, w) + tf.cast(b, tf.float32)})
"""


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_checkpoints_give_the_values(tmp_path: Path, kind: str) -> None:
    given = {"weights": np.random.default_rng().standard_normal((3, 2)).astype(np.float32),
             "biases": np.array([0.5, -3], np.float32), "epochs": np.int64(3)}
    model = load_model(write(tmp_path, BUILD), checkpoint=checkpoint(tmp_path, kind, given))
    values = model.values()
    assert values.keys() == {"weights", "biases"} and model.unused == ("epochs",)
    assert all(np.array_equal(values[k], given[k]) and values[k].dtype == np.float32 for k in values)


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
@pytest.mark.parametrize(("given", "message"), [
    ({"weigths": np.zeros((3, 2), np.float32)},
     r"no value for 2 of the variables(.|\n)*weights:.*the file has 'weigths'(.|\n)*the file holds weigths"),
    ({"weights": np.zeros((2, 3), np.float32), "biases": np.zeros(2, np.float32)},
     r"weights: is float32 \(3, 2\), the file has float32 \(2, 3\)"),
    ({"weights": np.zeros((3, 2), np.float64), "biases": np.zeros(2, np.float32)}, r"the file has float64 \(3, 2\)"),
])
def test_checkpoints_that_do_not_fit(tmp_path: Path, kind: str, given: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(write(tmp_path, BUILD), checkpoint=checkpoint(tmp_path, kind, given))


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path, BUILD)
    (tmp_path / "c.npz").write_bytes(b"PK nothing")
    (tmp_path / "c.bin").write_bytes(b"")
    np.savez(tmp_path / "p.npz", weights=np.array([{}], object))
    for name, message in (("c.npz", "not arrays"), ("c.bin", ".safetensors or .npz"), ("p.npz", "not arrays")):
        with pytest.raises(ModelError, match=message):
            load_model(path, checkpoint=tmp_path / name)
