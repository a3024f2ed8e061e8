"""Models as ONNX files: names, sizes, layout, what is refused; and whole models in onnxruntime at several batches."""
from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.errors import GraphError
from graphc.interop.onnx import NotExportable, export, write_onnx
from graphc.model import Model, choose_signature
from tests.interop.onnx_cases import open_model

onnx = pytest.importorskip("onnx", reason="needs the [onnx] extra")
pytest.importorskip("onnxruntime", reason="needs the [test] extra")

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def graph() -> Any:
    with tf.Graph().as_default() as made:
        yield made


def model_of(graph: Any) -> Model:
    return Model("m.py", graph, choose_signature(graph))


def feeds_of(model: Model, batch: int, seed: int = 0) -> dict[str, Array]:
    """Random inputs with every free size `batch`."""
    rng = np.random.default_rng((seed, batch))
    return {name: rng.standard_normal([batch if n is None else n for n in t.shape.as_list()]).astype(
        t.dtype.as_numpy_dtype) for name, t in model.signature.inputs.items()}


def wanted(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What the session gives."""
    variables = model.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    with tf.Session(graph=model.graph) as session:
        for variable in variables:
            variable.load(model.values()[variable.op.name], session)
        given = {model.signature.inputs[name]: a for name, a in feeds.items()}
        return {name: np.asarray(session.run(t, given)) for name, t in model.signature.outputs.items()}


def agree(model: Model, proto: Any, batches: tuple[int, ...] = (1, 3, 17), limit: float = 1e-5) -> None:
    """Fail where onnxruntime does not give what the session gives, at several batch sizes from one file."""
    session = open_model(proto)
    names = [o.name for o in session.get_outputs()]
    for batch in batches:
        feeds = feeds_of(model, batch)
        got = dict(zip(names, session.run(None, feeds), strict=True))
        for name, b in wanted(model, feeds).items():
            assert got[name].shape == b.shape and got[name].dtype == b.dtype, name
            largest = np.max(np.abs(b), initial=1.0) if b.dtype.kind == "f" else 0
            np.testing.assert_allclose(got[name], b, rtol=limit, atol=limit * largest, err_msg=f"{name}, batch {batch}")


def operators(proto: Any) -> list[str]:
    return [node.op_type for node in proto.graph.node]


# -- small graphs -----------------------------------------------------------------------------------------------------


def test_names_sizes_and_lines(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, 3), name="x")
    w = tf.get_variable("layer/w", initializer=np.arange(6, dtype=np.float32).reshape(3, 2))
    y = tf.tanh(tf.matmul(x, w, name="product"), name="bounded")
    tf.signature(inputs={"rows": x}, outputs={"result": y, "doubled": tf.concat([y, y], 0, name="twice")})
    proto = export(model_of(graph))
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 21)] and proto.ir_version == 10
    assert [i.name for i in proto.graph.input] == ["rows"]
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3]
    assert [o.name for o in proto.graph.output] == ["result", "doubled"]
    assert proto.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "2*batch"
    assert [(n.op_type, n.name) for n in proto.graph.node] == [("MatMul", "product"), ("Tanh", "bounded"),
                                                             ("Concat", "twice")]
    assert [t.name for t in proto.graph.initializer] == ["layer/w"]
    assert "test_onnx.py" in proto.graph.node[0].doc_string and "product" in proto.graph.node[0].doc_string
    agree(model_of(graph), proto)


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    written = []
    for i in range(2):
        with tf.Graph().as_default() as made:
            x = tf.placeholder(tf.float32, (None, 4), name="x")
            h = tf.layers.dense(x, 5, tf.nn.relu, kernel_initializer=tf.initializers.constant(0.5), name="h")
            tf.signature(outputs={"y": tf.reshape(h, (-1, 1))})
            written.append(write_onnx(tmp_path / f"{i}.onnx", model_of(made)).read_bytes())
    assert written[0] == written[1]
    onnx.checker.check_model(onnx.load(str(tmp_path / "0.onnx")), full_check=True)


def test_results_that_are_inputs_variables_or_each_other(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None,), name="x")
    v = tf.get_variable("v", initializer=np.float32(2))
    y = x * v
    tf.signature(inputs={"x": x}, outputs={"a": y, "b": y, "c": tf.identity(x), "d": tf.identity(v)})
    model = model_of(graph)
    agree(model, export(model))


def test_a_variable_and_an_input_of_one_name(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, 2), name="p")
    v = tf.get_variable("rows", initializer=np.ones((2, 70), np.float32))
    tf.signature(inputs={"rows": x}, outputs={"y": tf.matmul(x, v)})
    proto = export(model_of(graph))
    assert [t.name for t in proto.graph.initializer] == ["rows_1"]
    agree(model_of(graph), proto)


def test_sizes_are_nodes(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, None, 6), name="x")
    n = tf.shape(x)[0]
    rows = tf.reshape(x, (n * 2, -1, 3))
    tf.signature(inputs={"x": x}, outputs={
        "rows": rows, "half": x[:n // 2 + 1], "count": n * 3 - 1, "flat": tf.reshape(x, (-1,)),
        "filled": tf.fill((n, 2), 7.0), "steps": tf.range(n), "padded": tf.pad(x, [[0, 0], [1, 2], [0, 0]]),
        "back": tf.reverse(x, [0, 2]), "every": x[::-2, 1:, ::2], "last": x[-1], "tiled": tf.tile(x, (2, 1, 3)),
        "kept": tf.reshape(x, (n, tf.shape(x)[1], 2, 3)), "transposed": tf.transpose(x, (2, 0, 1))})
    model = model_of(graph)
    proto = export(model)
    assert operators(proto).count("Shape") == 2  # one for each free axis
    agree(model, proto, (1, 2, 3, 17))


def test_a_fed_size(graph: Any) -> None:
    n = tf.placeholder(tf.int32, (), name="n")
    tf.signature(inputs={"n": n}, outputs={"ones": tf.ones((n, 3)) * 2.0, "eye": tf.eye(n)})
    proto = export(model_of(graph))
    session = open_model(proto)
    for size in (0, 1, 5):
        ones, eye = session.run(None, {"n": np.array(size, np.int32)})
        np.testing.assert_array_equal(ones, np.full((size, 3), 2, np.float32))
        np.testing.assert_array_equal(eye, np.eye(size, dtype=np.float32))


def test_composites(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, 4, 6), name="x")
    labels = tf.argmax(x[:, 0], axis=1)
    mean, variance = tf.nn.moments(x, [2], keep_dims=True)
    tf.signature(inputs={"x": x}, outputs={
        "normalised": tf.nn.batch_normalization(x, mean, variance, None, None, 1e-5),
        "attention": tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x),
        "loss": tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=x[:, 1]),
        "dense_loss": tf.nn.softmax_cross_entropy_with_logits_v2(labels=tf.nn.softmax(x[:, 0]), logits=x[:, 1]),
        "total": tf.reduce_logsumexp(x, axis=[1, 2]), "unit": tf.nn.l2_normalize(x, axis=-1),
        "summed": tf.einsum("bij,bkj->bik", x, x), "hot": tf.one_hot(labels, 6),
        "picked": tf.gather_nd(x, tf.stack([tf.range(tf.shape(x)[0]), tf.zeros_like(tf.to_int32(labels))], 1)),
        "running": tf.cumsum(x, axis=1, exclusive=True), "chosen": tf.where(x > 0, x, tf.exp(x))})
    model = model_of(graph)
    agree(model, export(model))


# -- images -----------------------------------------------------------------------------------------------------------


def test_one_transpose_at_either_end(graph: Any) -> None:
    images = tf.placeholder(tf.float32, (None, 9, 11, 3), name="images")
    h = tf.layers.conv2d(images, 5, 3, 2, "same", activation=tf.nn.relu, name="one")
    side = tf.layers.conv2d(h, 5, 1, name="two") * 0.5 + h
    h = tf.concat([tf.nn.leaky_relu(side), tf.nn.max_pool(h, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")], 3)
    h = tf.layers.batch_normalization(h, training=False, name="norm")
    tf.signature(outputs={"map": tf.layers.conv2d(h, 2, 3, name="out"), "mean": tf.reduce_mean(h, [1, 2])})
    model = model_of(graph)
    proto = export(model)
    assert operators(proto).count("Transpose") == 2
    agree(model, proto)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_images_of_free_size(graph: Any, stride: int, padding: str) -> None:
    images = tf.placeholder(tf.float32, (None, None, None, 3), name="images")
    rng = np.random.default_rng(5)
    w = tf.get_variable("w", initializer=rng.standard_normal((3, 2, 3, 4)).astype(np.float32))
    d = tf.get_variable("d", initializer=rng.standard_normal((2, 3, 3, 2)).astype(np.float32))
    strides = (1, stride, stride, 1)
    tf.signature(outputs={
        "conv": tf.nn.conv2d(images, w, strides, padding), "depth": tf.nn.depthwise_conv2d(images, d, strides, padding),
        "largest": tf.nn.max_pool(images, (1, 3, 2, 1), strides, padding),
        "mean": tf.nn.avg_pool(images, (1, 2, 3, 1), strides, padding)})
    model = model_of(graph)
    agree(model, export(model), (5, 6, 9))


def test_upsampling_of_free_size(graph: Any) -> None:
    images = tf.placeholder(tf.float32, (None, None, None, 4), name="images")
    w = tf.get_variable("w", initializer=np.random.default_rng(5).standard_normal((4, 4, 3, 4)).astype(np.float32))
    n = tf.shape(images)
    tf.signature(outputs={
        "up": tf.nn.conv2d_transpose(images, w, (n[0], n[1] * 2, n[2] * 2, 3), (1, 2, 2, 1), "SAME"),
        "nearest": tf.image.resize_nearest_neighbor(images, (n[1] * 2, n[2] * 2)),
        "linear": tf.image.resize_bilinear(images, (n[1] * 3, n[2] * 2), align_corners=True),
        "blocks": tf.depth_to_space(images, 2)})
    model = model_of(graph)
    agree(model, export(model), (2, 4, 5))


# -- what is refused --------------------------------------------------------------------------------------------------


def test_everything_in_the_way_is_told_at_once(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, 4), name="x")
    h = tf.nn.dropout(tf.layers.dense(x, 3, name="dense"), keep_prob=0.5, name="drop")
    shown = tf.Print(x, [x], name="shown")
    count = tf.get_variable("count", initializer=np.float32(0))
    tf.signature(inputs={"x": x}, outputs={
        "y": tf.cumprod(h, axis=1, name="running"), "shown": shown, "count": tf.assign_add(count, 1.0, name="more"),
        "gamma": tf.lgamma(x, name="gamma")})
    with pytest.raises(NotExportable) as caught:
        export(model_of(graph))
    text = str(caught.value)
    for told in ("drop/random_uniform", "RandomUniform: its random numbers follow a counter", "Cumprod: ONNX has no",
                 "Print: it calls Python", "Lgamma: ONNX has no gamma function", "count:", "it is written",
                 "test_onnx.py", "hint: "):
        assert told in text, text
    assert re.match(r"5 operations cannot be exported to ONNX\n", text), text


def test_dropout_that_keeps_everything_is_exported(graph: Any) -> None:
    x = tf.placeholder(tf.float32, (None, 4), name="x")
    training = tf.placeholder_with_default(False, (), name="training")
    y = tf.nn.dropout(tf.nn.relu(x), keep_prob=tf.where(training, 0.5, 1.0))
    tf.signature(inputs={"x": x}, outputs={"y": y})
    model = model_of(graph)
    proto = export(model)
    assert operators(proto) == ["Relu"]
    agree(model, proto)


def test_inputs_that_cannot_be(graph: Any) -> None:
    x = tf.placeholder(tf.float32, name="x")
    tf.signature(inputs={"x": x}, outputs={"y": tf.exp(x)})
    with pytest.raises(GraphError, match="the rank of the fed tensor 'x:0' is not known"):
        export(model_of(graph))
    z = tf.placeholder(tf.float32, (2,), name="z")
    tf.signature(inputs={"z": z}, outputs={"z": tf.exp(z)})
    with pytest.raises(NotExportable, match="an input and a result are both called 'z'"):
        export(model_of(graph))
    v = tf.get_variable("v", initializer=np.float32(1))
    tf.signature(inputs={"z": z}, outputs={"y": z * v})
    with pytest.raises(NotExportable, match="no value of it is given"):
        export((graph, choose_signature(graph), {}))


def test_a_missing_package_is_told() -> None:
    code = ("import sys; sys.modules['onnx'] = None\n"
            "from graphc.interop.onnx import export_function\n"
            "try: export_function(None, {})\n"
            "except ImportError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "ONNX files need the package onnx" in done.stdout and "pip install 'graphc[onnx]'" in done.stdout


# -- whole models -----------------------------------------------------------------------------------------------------

Made = Callable[[Any], Any]
QUICK: Mapping[str, Made] = {"mlp": lambda m: m.build(20, 5, hidden=(16, 8)), "lenet5": lambda m: m.model(),
                             "gan": lambda m: m.model(), "dcgan": lambda m: m.model()}
LONG: Mapping[str, Made] = {"resnet": lambda m: m.model("resnet18", 64, 10), "googlenet": lambda m: m.model(64, 10),
                            "senet": lambda m: m.model(size=64, classes=10), "alexnet": lambda m: m.model(classes=10)}


def check_model(name: str, make: Made, monkeypatch: pytest.MonkeyPatch, batches: tuple[int, ...]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    made = make(importlib.import_module(name))
    graph = made if isinstance(made, tf.Graph) else made.graph
    model = model_of(graph)
    agree(model, export(model), batches)


@pytest.mark.parametrize("name", QUICK)
def test_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_model(name, QUICK[name], monkeypatch, (1, 3, 17))


@pytest.mark.nightly
@pytest.mark.parametrize("name", LONG)
def test_large_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_model(name, LONG[name], monkeypatch, (1, 3))


def test_the_page_runs(tmp_path: Path) -> None:
    """The Python of docs/onnx.md does what it says."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "onnx.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text(code)
    subprocess.run([sys.executable, "page.py"], cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT), "HOME": str(
        tmp_path), "PATH": "/usr/bin:/bin"})
    onnx.checker.check_model(onnx.load(str(tmp_path / "w.onnx")), full_check=True)
