"""The record of a compilation: its stages are those of a run, and each kernel can be read in every form."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc as tf
from graphc.compiler import make_plan
from graphc.errors import GraphError, ModelError
from graphc.inspection.compilation import Compilation, record
from graphc.ir.text import show
from graphc.ir.verify import verify
from graphc.kernel.text import format_kernel
from graphc.options import Options

OPTIONS = Options(cache_dir="")


@pytest.fixture
def graph() -> Iterator[tf.Graph]:
    with tf.Graph().as_default() as made:
        yield made


def network() -> tuple[tf.Tensor, tf.Operation]:
    x = tf.placeholder(tf.float32, [None, 5], name="x")
    w = tf.get_variable("w", [5, 3], initializer=tf.zeros_initializer())
    b = tf.get_variable("b", [3], initializer=tf.zeros_initializer())
    with tf.name_scope("layer"):
        h = tf.nn.relu(tf.matmul(x, w, name="product") + b, name="active")
    loss = tf.reduce_mean(tf.square(h - 1.0), name="loss")
    return loss, tf.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")


def recorded() -> Compilation:
    loss, train = network()
    return record(tf.get_default_graph(), [loss, train], options=OPTIONS)


def test_the_stages_are_those_of_a_run(graph: tf.Graph) -> None:
    c = recorded()
    assert c.stages[0] == ("extract", c.function)
    assert [name for name, _ in c.stages[-2:]] == ["fuse", "order"]
    assert c.stages[-1][1] is c.fused is c.after("order")
    for (_, before), (_, after) in zip(c.stages, c.stages[1:], strict=False):
        assert after is not before
    for _, function in c.stages:
        verify(function)
    assert [r.name for r in c.records] == [name for name, _ in c.runs[1:]]
    assert "Fusion" not in {n.op.name for n in c.optimised.nodes}
    assert "Fusion" in {n.op.name for n in c.after("fuse").nodes}
    assert [f for n, f in c.runs if n == "fuse"] == [c.after("fuse")]
    again = make_plan(c.function, OPTIONS)
    assert list(map(format_kernel, c.kernels)) == list(map(format_kernel, again.kernels))
    assert c.plan.steps == again.steps and c.plan.arena == again.arena
    assert all(s >= 0 for _, s in c.seconds)


def test_two_records_are_equal_in_text(graph: tf.Graph) -> None:
    first = recorded()
    second = record(graph, first.fetches + first.targets, options=OPTIONS)
    assert [show(f) for _, f in first.stages] == [show(f) for _, f in second.stages]


def test_a_pass_that_did_not_run_is_told(graph: tf.Graph) -> None:
    c = recorded()
    with pytest.raises(ValueError, match=r"no pass called 'simplfy' ran; did you mean 'simplify'\?"):
        c.after("simplfy")
    with pytest.raises(ValueError, match="the passes that ran: extract, remove_dead_code, "):
        c.after("qqq")


def test_kernels_know_their_ops_and_lines(graph: tf.Graph) -> None:
    c = recorded()
    (product,) = c.kernel_of("layer/product")
    assert c.kernel_of("layer/active") == (product,)
    assert c.kernels[product].name.startswith("contract")
    assert c.kernel_of("nowhere") == c.kernel_of("x") == ()
    assert any("h = tf.nn.relu(tf.matmul(x, w" in line for line in c.user_lines(c.kernels[product]))
    for kernel in c.kernels:
        assert c.kernel_text(kernel).startswith(f"kernel {kernel.name}(")
        assert c.python(kernel).startswith("def ")
        assert "define i32 @k_" in c.llvm(kernel)
        assert ".globl\tk_" in c.assembly(kernel)
    assert [name for name, _ in c.compile_kernels()] == [k.name for k in c.kernels]


def test_equal_kernels_are_one_that_comes_from_all_their_ops(graph: tf.Graph) -> None:
    a, b = (tf.placeholder(tf.float32, [None, 7], name=n) for n in "ab")
    first, second = tf.tanh(a, name="first"), tf.tanh(b, name="second")
    c = record(graph, [first, second], options=OPTIONS)
    assert len(c.kernels) == 1 and len(c.plan.steps) == 2
    assert c.kernels[0].provenance == ("first", "second")
    assert c.kernel_of("first") == c.kernel_of("second") == (0,)


def test_what_a_bare_graph_computes(graph: tf.Graph) -> None:
    _, train = network()
    c = record(graph, options=OPTIONS)
    assert [t.name for t in c.fetches] == ["loss:0"] and [t.name for t in c.feeds] == ["x:0"] and c.targets == ()
    c = record(graph, targets=[train], options=OPTIONS)
    assert c.fetches == () and c.targets == (train,) and c.plan.written == (True, True)
    c = record(graph, "loss:0", feeds=["layer/active:0"], options=OPTIONS)
    assert [t.name for t in c.feeds] == ["layer/active:0"] and c.kernel_of("layer/product") == ()


def test_what_cannot_be_recorded(graph: tf.Graph) -> None:
    with pytest.raises(ModelError, match="no result"):
        record(graph, options=OPTIONS)
    with pytest.raises(GraphError, match="nothing to compute"):
        record(graph, [], options=OPTIONS)
    x = tf.placeholder(tf.float32, name="x")
    with pytest.raises(GraphError, match="rank of the fed tensor 'x:0' is not known"):
        record(graph, x + 1, options=OPTIONS)


def test_a_question_to_the_session_is_fed(graph: tf.Graph) -> None:
    v = tf.get_variable("v", initializer=np.zeros(3, np.float32))
    c = record(graph, tf.is_variable_initialized(v), options=OPTIONS)
    assert [t.op.type for t in c.feeds] == ["IsVariableInitialized"]


def test_recording_loads_no_compiler(tmp_path: Path) -> None:
    script = "import sys, graphc as tf\nfrom graphc.inspection.compilation import record\n" \
             "c = record(tf.get_default_graph(), tf.tanh(tf.placeholder(tf.float32, [3])))\n" \
             "c.python(c.kernels[0]); c.kernel_text(c.kernels[0])\n" \
             "print([n for n in ('numba', 'llvmlite', 'click', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          cwd=Path(tf.__file__).parent.parent)
    assert done.stdout == "[]\n", done.stderr
