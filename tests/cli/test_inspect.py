"""`graphc inspect`: its numbers against counts by hand, its sections, its answers to --why."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Graphc

SIGNATURE = """model.py: 1 input, 2 outputs, 53 parameters, 3 kernels

signature
  input   rows    float32 (None, 6)  x
  output  logits  float32 (None, 3)  second/dense/BiasAdd
  output  best    int64 (None,)
"""


def data(graphc: Graphc, *arguments: Any) -> Any:
    return json.loads(graphc("inspect", *arguments, "--json").stdout)


def test_the_signature(graphc: Graphc, model: Path) -> None:
    assert graphc("inspect", model, "--show", "signature").stdout == SIGNATURE
    told = data(graphc, model, "--show", "signature")
    assert told["signature"][1] == {"role": "output", "name": "logits", "type": "float32 (None, 3)",
                                    "tensor": "second/dense/BiasAdd"}


@pytest.mark.parametrize("batch", [1, 7])
def test_layers_are_counted(graphc: Graphc, model: Path, batch: int) -> None:
    rows = {r["layer"]: r for r in data(graphc, model, "--show", "layers", "--batch", batch)["layers"]}
    assert list(rows) == ["first", "second", "(no scope)"]
    assert rows["first"] == {"layer": "first", "output": "float32 (None, 5)", "parameters": 6 * 5 + 5,
                             "multiply_adds": batch * 6 * 5, "activation_bytes": 3 * 4 * 5 * batch}
    assert rows["second"] == {"layer": "second", "output": "float32 (None, 3)", "parameters": 5 * 3 + 3,
                              "multiply_adds": batch * 5 * 3, "activation_bytes": 2 * 4 * 3 * batch}
    assert rows["(no scope)"] == {"layer": "(no scope)", "output": "int64 (None,)", "parameters": 0,
                                  "multiply_adds": 0, "activation_bytes": 8 * batch}
    text = graphc("inspect", model, "--show", "layers", "--batch", batch).stdout
    assert f"layers, None = {batch}\n" in text and "  66.7%\n" in text
    assert [line.split()[0] for line in text.splitlines()[3:8]] == ["layer", "first", "second", "(no", "all"]


def test_deeper_layers(graphc: Graphc, model: Path) -> None:
    assert [r["layer"] for r in data(graphc, model, "--show", "layers", "--depth", 2)["layers"]] == [
        "first/dense", "second/dense", "(no scope)"]


def test_kernels_show_the_users_lines(graphc: Graphc, model: Path) -> None:
    text = graphc("inspect", model, "--show", "kernels").stdout
    assert "  k0  contract_mat_mul_add_tanh\n      ops  first/dense/MatMul, first/dense/BiasAdd, first/dense/Tanh\n" \
           "      model.py:9:   h = tf.layers.dense(x, 5, tf.nn.tanh" in text
    kernels = data(graphc, model, "--show", "kernels")["kernels"]
    assert [k["number"] for k in kernels] == [0, 1, 2] and all(k["calls"] == 1 for k in kernels)


def test_fetches_and_feeds_by_name(graphc: Graphc, model: Path) -> None:
    text = graphc("inspect", model, "--fetch", "logits", "--feed", "first/dense/Tanh", "--show", "signature").stdout
    assert "  input   first/dense/Tanh  float32 (None, 5)\n  output  logits " in text
    assert graphc("inspect", model, "--fetch", "logit", code=1).stderr == \
        "ModelError: cannot fetch 'logit': the graph has no operation 'logit'\n  hint: near names: logits\n"


def test_checks_and_guards(graphc: Graphc, folder: Path) -> None:
    (folder / "checked.py").write_text(
        "import graphc as tf\n"
        "a, b = (tf.placeholder(tf.float32, [None], name=n) for n in 'ab')\n"
        "i = tf.placeholder(tf.int32, [None], name='i')\n"
        "total = tf.add(a, b, name='total')\n"
        "picked = tf.gather(a, i, name='picked')\n")
    told = data(graphc, "checked.py", "--show", "checks")["checks"]
    assert told["variants"] == [{"assumes": "a_0 == b_0", "op": "total"}]
    assert [g["op"] for g in told["guards"]] == ["picked"]
    text = graphc("inspect", "checked.py", "--show", "checks").stdout
    assert "a_0 == b_0  total  checked.py:4  assumed equal; where one is 1, another variant is compiled" in text
    assert "picked  checked.py:5  map_gather" in text


def test_why(graphc: Graphc, model: Path) -> None:
    told = graphc("inspect", model, "--why", "first/dense/MatMul", "first/dense/Tanh").stdout
    assert told == "'first/dense/MatMul' and 'first/dense/Tanh' are computed by one kernel\n"
    told = data(graphc, model, "--why", "first/dense/Tanh", "second/dense/MatMul")
    assert told == {"first": "first/dense/Tanh", "second": "second/dense/MatMul", "together": False,
                    "why": "'first/dense/Tanh' and 'second/dense/MatMul' are computed by different kernels: "
                           "a factor of a product is read from memory"}
    told = graphc("inspect", model, "--why", "first/dense/kernel", "x").stdout
    assert told.startswith("'first/dense/kernel' is in no kernel: it is a variable, ")
    assert graphc("inspect", model, "--why", "first/dense/Tan", "x", code=1).stderr.startswith(
        "GraphError: there is no operation 'first/dense/Tan'; near names: first/dense/Tanh")


def test_the_memory_plan(graphc: Graphc, model: Path) -> None:
    told = data(graphc, model, "--show", "memory", "--batch", 10)["memory"]
    assert told["temporaries"][0]["bytes"] == 10 * 5 * 4 and told["copies"] == []
    assert told["arena_bytes"] >= 200
    assert "arena: " in graphc("inspect", model, "--show", "memory").stdout


def test_the_memory_plan_drawn(graphc: Graphc, model: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, start in (("plan.png", b"\x89PNG"), ("plan.svg", b"<?xml")):
        assert f"memory plan drawn: {name}" in graphc("inspect", model, "--plot", name).stdout
        assert (folder / name).read_bytes().startswith(start)
    first = (folder / "plan.svg").read_bytes()
    graphc("inspect", model, "--plot", "plan.svg")
    assert (folder / "plan.svg").read_bytes() == first
    assert "not supported" in graphc("inspect", model, "--plot", "plan.xyz", code=2).stderr


def test_a_saved_program(graphc: Graphc, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphc("compile", model, "-o", "model.gcx")
    whole = graphc("inspect", model, "--show", "signature", "--show", "layers", "--show", "kernels").stdout
    saved = graphc("inspect", "model.gcx", "--show", "signature", "--show", "layers", "--show", "kernels").stdout
    head, told, rest = saved.split("\n", 2)
    assert f"{head.replace('model.gcx', 'model.py')}\n{rest}" == whole
    assert told.startswith("saved by graphc ") and told.endswith(", trusted; 1 variant")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "")
    assert "), not trusted; 1 variant\n" in graphc("inspect", "model.gcx", "--show", "signature").stdout
    assert "are computed by one kernel" in graphc("inspect", "model.gcx", "--why", "first/dense/MatMul",
                                                  "first/dense/Tanh").stdout
    Path("model.gcx").write_bytes(Path("model.gcx").read_bytes()[:-1])
    told = graphc("inspect", "model.gcx", code=1).stderr
    assert told.startswith("ProgramFileError: model.gcx: ") and told.count("model.gcx") == 1
    assert "whose inputs and results are settled" in graphc("inspect", "model.gcx", "--fetch", "best", code=2).stderr


def test_convolutions_say_their_algorithm(graphc: Graphc, tmp_path: Path) -> None:
    file = tmp_path / "images.py"
    file.write_text("import graphc as tf\n"
                    "x = tf.placeholder(tf.float32, (None, 32, 32, 64), name='x')\n"
                    "y = tf.layers.conv2d(x, 64, 3, padding='same', name='wide')\n"
                    "z = tf.layers.conv2d(y, 8, 5, name='large')\n")
    first, second = data(graphc, file, "--show", "convolutions")["convolutions"]
    assert first["op"] == "wide/Conv2D" and first["winograd_tile"] in (2, 4) and "estimated" in first["reason"]
    assert second == {"op": "large/Conv2D", "winograd_tile": 0, "reason": "direct: its filters are 5 x 5"}
    assert "direct: its filters are 5 x 5" in graphc("inspect", file).stdout


def test_models_without_convolutions_do_not_speak_of_them(graphc: Graphc, model: Path) -> None:
    assert "convolutions" not in graphc("inspect", model).stdout
    assert "convolutions\n  none\n" in graphc("inspect", model, "--show", "convolutions").stdout
