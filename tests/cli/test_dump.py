"""`graphc dump`: every stage in every format it has, and what is refused."""
from __future__ import annotations

import ast
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from graphc.cli.dump import WAYS
from graphc.ir.parse import parse
from graphc.ir.text import show
from tests.cli.conftest import Graphc


def test_the_ir_reads_back(graphc: Graphc, model: Path) -> None:
    for arguments in ((), ("--pass", "extract"), ("--pass", "canonicalise")):
        text = graphc("dump", model, *arguments).stdout
        assert show(parse(text)) == text
    assert "Fusion" in graphc("dump", model).stdout
    extracted = graphc("dump", model, "--pass", "extract").stdout
    assert "Fusion" not in extracted and 'from "first/dense/MatMul"' in extracted


def test_kernels_in_every_form(graphc: Graphc, model: Path) -> None:
    head = "kernel 0: contract_mat_mul_add_tanh\n"
    for what, comment, has in (("kernels", "#", "kernel contract_mat_mul_add_tanh("), ("llvm", ";", "define i32 @k_"),
                               ("numba", "#", "def contract_mat_mul_add_tanh("), ("asm", "#", ".globl\tk_")):
        text = graphc("dump", model, "--what", what, "--kernel", "0").stdout
        assert text.startswith(f"{comment} {head}{comment} ops: first/dense/MatMul, first/dense/BiasAdd, ")
        assert has in text and f"{comment} model.py:9:   h = tf.layers.dense" in text
        (one,) = json.loads(graphc("dump", model, "--what", what, "--kernel", "k0", "--format", "json").stdout)
        assert one["number"] == 0 and has in one["text"] and one["ops"][0] == "first/dense/MatMul"
    ast.parse(graphc("dump", model, "--what", "numba").stdout)
    assert graphc("dump", model, "--what", "kernels", "--kernel", "contract_mat_mul_add_tanh").stdout == \
        graphc("dump", model, "--what", "kernels", "--kernel", "0").stdout


def test_code_for_a_named_processor(graphc: Graphc, model: Path) -> None:
    wide = graphc("dump", model, "--what", "asm", "--target", "x86-64-v4").stdout
    narrow = graphc("dump", model, "--what", "asm", "--target", "x86-64").stdout
    assert "zmm" in wide and "zmm" not in narrow and "ymm" not in narrow and "xmm" in narrow


def test_the_plan(graphc: Graphc, model: Path) -> None:
    text = graphc("dump", model, "--what", "plan").stdout
    assert text.startswith("steps:\n") and "\narena: " in text
    told = json.loads(graphc("dump", model, "--what", "plan", "--format", "json").stdout)
    assert [s["step"] for s in told["steps"]] == ["call"] * 3
    assert told["steps"][0]["kernel"] == "contract_mat_mul_add_tanh"
    assert [s["name"] for s in told["fetches"]] == ["second/dense/BiasAdd", "best"]


@pytest.mark.parametrize("what", ["graph", "ir"])
def test_drawings(graphc: Graphc, model: Path, folder: Path, what: str) -> None:
    for form in WAYS[what]:
        out = folder / f"out.{form}"
        assert graphc("dump", model, "--what", what, "--format", form, "-o", out).stdout == ""
        text = out.read_text()
        assert "MatMul" in text
        match form:
            case "svg":
                assert ElementTree.fromstring(text).tag.endswith("svg")
            case "json":
                json.loads(text)
            case "dot":
                assert text.startswith("digraph ")
            case "html":
                assert text.lower().startswith("<!doctype html>")


def test_a_drawing_of_one_stage(graphc: Graphc, model: Path) -> None:
    for name in ("extract", "canonicalise", "merge_equal", "order"):
        assert "digraph" in graphc("dump", model, "--format", "dot", "--pass", name).stdout
    assert graphc("dump", model, "--format", "dot", "--pass", "extract").stdout != \
        graphc("dump", model, "--format", "dot", "--pass", "order").stdout


def test_the_same_again(graphc: Graphc, model: Path) -> None:
    for what, ways in WAYS.items():
        for form in ways:
            arguments = ("dump", model, "--what", what, "--format", form)
            assert graphc(*arguments).stdout == graphc(*arguments).stdout, (what, form)


def test_what_is_refused(graphc: Graphc, model: Path) -> None:
    for arguments, message in (
            (("--what", "asm", "--format", "dot"), "asm cannot be shown as dot; its formats: text, json"),
            (("--what", "plan", "--pass", "fuse"), "--pass says which ir is shown: it needs --what ir"),
            (("--pass", "cannonicalise"), "there is no pass called 'cannonicalise'; did you mean 'canonicalise'?"),
            (("--what", "numba", "--kernel", "9"), "there are numbers 0 to 2"),
            (("--what", "numba", "--kernel", "contract_mat_mul"), "did you mean 'contract_mat_mul_add'?"),
            (("--what", "grph"), "'grph' is not one of"), (("--format", "png"), "'png' is not one of")):
        assert message in graphc("dump", model, *arguments, code=2).stderr


def test_a_saved_program(graphc: Graphc, model: Path) -> None:
    graphc("compile", model, "-o", "model.gcx")
    for arguments in (("--what", "kernels"), ("--pass", "extract"), ("--what", "plan"), ("--format", "dot")):
        assert graphc("dump", "model.gcx", *arguments).stdout == graphc("dump", model, *arguments).stdout
    assert "MatMul" in graphc("dump", "model.gcx", "--what", "ir", "--format", "html").stdout
    assert "has no graph" in graphc("dump", "model.gcx", "--what", "graph", code=2).stderr


def saved(graphc: Graphc, model: Path) -> str:
    graphc("compile", model, "-o", "saved.gcx")
    return "saved.gcx"


def test_exports(graphc: Graphc, model: Path, folder: Path) -> None:
    assert "say with -o where to write it" in graphc("dump", model, "--format", "tensorboard", code=2).stderr
    assert "not of asm" in graphc("dump", model, "--what", "asm", "--format", "tensorboard", "-o", "out",
                                  code=2).stderr
    assert "has no graph" in graphc("dump", saved(graphc, model), "--format", "onnx", "-o", "out.onnx", code=2).stderr
    onnx = pytest.importorskip("onnx")
    graphc("dump", model, "--format", "onnx", "-o", "model.onnx")
    ends = onnx.load("model.onnx").graph
    assert [i.name for i in ends.input] == ["rows"] and [o.name for o in ends.output] == ["logits", "best"]
    pytest.importorskip("tensorboard")
    graphc("dump", model, "--format", "tensorboard", "-o", "events")
    (one,) = (folder / "events").iterdir()
    assert b"first/dense/MatMul" in one.read_bytes()
