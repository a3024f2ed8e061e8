"""The compiler as a whole: from a graph to a program that runs; its cache, dumps and variants."""
from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc import compiler
from graphc.compiler import Compiled, compile_program, make_plan, program_key, store_in
from graphc.options import Options
from graphc.passes.extract import extract
from graphc.passes.pipeline import LEVELS, optimise
from graphc.runtime.program import AssumptionFailed
from graphc.runtime.variables import Variables
from graphc.runtime.walker import executor_for
from tests.passes.plans import check_function


class Model:
    """An MLP of one hidden layer with its training step, and logistic regression, as graphs of their own."""

    def __init__(self, optimizer: Any, sizes: tuple[int, ...] = (12, 8, 5)) -> None:
        self.graph = tf.Graph()
        rng = np.random.default_rng(0)
        with self.graph.as_default():
            self.x = tf.placeholder(tf.float32, [None, sizes[0]], name="x")
            self.y = tf.placeholder(tf.int32, [None], name="y")
            h: Any = self.x
            for i, (m, n) in enumerate(itertools.pairwise(sizes)):
                w = tf.Variable((rng.normal(size=(m, n)) / np.sqrt(m)).astype(np.float32), name=f"w{i}")
                b = tf.Variable(np.zeros(n, np.float32), name=f"b{i}")
                h = tf.matmul(h, w) + b
                h = tf.nn.relu(h) if i < len(sizes) - 2 else h
            self.loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.y, logits=h))
            self.train = optimizer().minimize(self.loss)


def adam() -> Any:
    return tf.train.AdamOptimizer(0.01)


def step(model: Model, options: Options) -> Compiled:
    """The compiled training step."""
    return compile_program([model.loss], [model.x, model.y], [model.train], options)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(backend="interp", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("sizes", [(12, 8, 5), (30, 20, 10, 4)])
def test_a_training_step_against_the_oracle(sizes: tuple[int, ...]) -> None:
    model = Model(adam, sizes)
    function = optimise(extract([model.loss], [model.x, model.y], [model.train]), Options())
    rng = np.random.default_rng()
    states = [np.abs(rng.normal(size=[int(n) for n in v.tensor.shape])) * 0.3 for v in function.states]
    for n in (1, 6):
        plan = check_function(function, [rng.normal(size=(n, sizes[0])), rng.integers(0, sizes[-1], n)], states)
    layers = len(sizes) - 1
    # products; softmax, cross-entropy and its gradient; mean; weights and biases; masks; powers of beta
    assert len(plan.steps) <= layers + 2 + 2 * layers + (layers - 1) + 1
    assert all(type(s).__name__ == "Call" for s in plan.steps)


def test_logistic_regression_is_three_kernels() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, [None, 30]), tf.placeholder(tf.float32, [None])
        w, b = tf.Variable(np.zeros((30, 1), np.float32)), tf.Variable(np.zeros(1, np.float32))
        z = tf.reshape(tf.matmul(x, w) + b, [-1])
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=z))
        train = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    plan = make_plan(extract([loss], [x, y], [train]), Options(backend="interp"))
    assert len(plan.steps) == 3


@pytest.mark.parametrize("backend", ["interp", "llvm_cpu"])
def test_a_program_trains(backend: str, options: Options) -> None:
    model = Model(adam)
    compiled = step(model, options.replace(backend=backend))
    variables = Variables()
    for slot in compiled.program.plan.states:
        operation = model.graph.get_operation_by_name(slot.name)
        shape = tuple(int(n) for n in operation.outputs[0].shape.as_list())
        value = {"beta1_power": 0.9, "beta2_power": 0.999}.get(slot.name, 0.0)
        start = np.full(shape, value, np.float32)
        if slot.name.startswith("w") and "Adam" not in slot.name:
            start = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        variables.set(slot.name, start, slot.dtype)
    executor = executor_for(compiled.program, variables, compiled.native)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(16, 12)).astype(np.float32), rng.integers(0, 5, 16).astype(np.int32)
    losses = [float(executor.run([x, y])[0]) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(executor.run([x[:1], y[:1]])[0])  # another batch size, the same program


def test_the_cache_gives_the_program_back(options: Options) -> None:
    options = options.replace(backend="llvm_cpu")
    store = store_in(options.cache_path)
    first = step(Model(adam), options)
    before = store.hits
    second = step(Model(adam), options)
    assert store.hits > before
    assert [b.offset for b in second.program.plan.buffers] == [b.offset for b in first.program.plan.buffers]
    assert second.program.plan.lines.keys() == first.program.plan.lines.keys()


def test_a_second_process_needs_neither_passes_nor_llvm(options: Options) -> None:
    script = (
        "import sys, numpy as np, graphc as tf\n"
        "x = tf.placeholder(tf.float32, [None, 3])\n"
        "with tf.Session() as s: print(s.run(tf.exp(x), {x: np.zeros((2, 3), np.float32)}).sum())\n"
        "print('llvmlite' in sys.modules)\n")
    environment = {"GRAPHC_CACHE_DIR": str(options.cache_dir), "PYTHONPATH": str(Path(compiler.__file__).parent.parent),
                   "PATH": "/usr/bin:/bin"}
    runs = [subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)]
    assert [r.stdout.split() for r in runs] == [["6.0", "True"], ["6.0", "False"]]


def test_the_key_of_a_program_tells_what_matters(options: Options) -> None:
    model = Model(adam)
    store = store_in(options.cache_path)
    function = extract([model.loss], [model.x, model.y], [])
    key = program_key(function, options, store)
    assert key == program_key(function.replace(lines={"x": "elsewhere.py:7"}), options, store)
    assert key != program_key(function, options.replace(level=1), store)
    assert key != program_key(extract([model.loss], [model.x, model.y], [model.train]), options, store)


def test_every_program_has_a_folder_of_its_own(options: Options, tmp_path: Path) -> None:
    """Passes, kernels, plan and timings; all but the timings are the same at every run."""
    parent = tmp_path / "dump"
    for _ in range(2):
        step(Model(adam), options.replace(dump_passes=str(parent)))
    folders = sorted(parent.iterdir())
    assert [p.name for p in folders] == ["001_Mean_Adam", "002_Mean_Adam"]
    texts = [{p.name: p.read_text() for p in sorted(folder.iterdir())} for folder in folders]
    names = list(texts[0])
    assert names[0] == "00_extract.gir"
    assert [n[2] for n in names[:-4]] == ["_"] * (len(names) - 4)
    assert any(n.endswith("_fuse.gir") for n in names)
    assert names[-4:] == ["kernels.py", "kernels.txt", "plan.txt", "timings.txt"]
    for text in texts:
        timings = text.pop("timings.txt")
        assert "fuse " in timings
        assert "all kernels" in timings
    assert texts[0] == texts[1]
    assert "contract" in texts[0]["kernels.txt"]
    compile(texts[0]["kernels.py"], "kernels.py", "exec")
    assert "bytes planned" in texts[0]["plan.txt"]


def test_check_numerics_is_part_of_the_kernels(options: Options) -> None:
    model = Model(adam)
    function = extract([model.loss], [model.x, model.y], [model.train])
    plain, checked = (make_plan(function, options.replace(check_numerics=on)) for on in (False, True))
    assert not any("check_numerics" in s.message for k in plain.kernels for s in k.sites)
    assert any("check_numerics" in s.message for k in checked.kernels for s in k.sites)
    assert len(checked.steps) <= 2 * len(plain.steps)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_every_level_compiles(options: Options, level: int) -> None:
    compiled = step(Model(adam), options.replace(level=level))
    assert compiled.program.plan.steps


def test_an_assumption_that_fails_names_its_condition(options: Options) -> None:
    graph = tf.Graph()
    with graph.as_default():
        a, b = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.float32, [None])
        c = a + b
    compiled = compile_program([c], [a, b], [], options)
    executor = executor_for(compiled.program, Variables(), compiled.native)
    one, many = np.ones(1, np.float32), np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(executor.run([many, many])[0], 2 * many)
    with pytest.raises(AssumptionFailed) as failed:
        executor.run([one, many])
    condition = compiled.conditions[failed.value.check]
    variant = compile_program([c], [a, b], [], options, assumptions={condition: failed.value.one})
    result = executor_for(variant.program, Variables(), variant.native).run([one, many])[0]
    np.testing.assert_array_equal(result, many + 1)
