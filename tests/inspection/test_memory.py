"""Lifetimes and copies: no two temporaries that live together share bytes, and each copy says why it stayed."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import graphc as tf
from graphc.inspection import memory
from graphc.inspection.compilation import Compilation, record, record_function
from graphc.inspection.layers import at
from graphc.ir.parse import parse
from graphc.kernel.plan import Copy, Loop
from graphc.options import Options
from graphc.passes.report import plan_text

OPTIONS = Options(cache_dir="")
EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "ir" / "examples").glob("*.gir"))


@pytest.fixture
def graph() -> Iterator[tf.Graph]:
    with tf.Graph().as_default() as made:
        yield made


def network() -> Compilation:
    x = tf.placeholder(tf.float32, [None, 5], name="x")
    h = x
    for i in range(4):
        h = tf.layers.dense(h, 6 + i, tf.nn.tanh, name=f"layer{i}")
    loss = tf.reduce_mean(tf.square(h))
    return record(tf.get_default_graph(), [loss, tf.train.AdamOptimizer().minimize(loss)], options=OPTIONS)


def check(c: Compilation) -> None:
    lives = memory.lifetimes(c.plan)
    for free in (1, 3, int(np.random.default_rng().integers(2, 1000))):
        arena = at(c.plan.arena, free)
        for a, b in combinations(lives, 2):
            together = a.first <= b.last and b.first <= a.last
            in_place = a.last == b.first or b.last == a.first  # the kernel that reads the one writes the other over it
            if together and not in_place:
                start, end = at(a.offset, free), at(a.offset, free) + at(a.bytes, free)
                assert end <= at(b.offset, free) or at(b.offset, free) + at(b.bytes, free) <= start, (a, b)
        assert all(at(life.offset, free) + at(life.bytes, free) <= arena for life in lives)
    assert [life.first for life in lives] == sorted(life.first for life in lives)


def test_what_lives_together_shares_no_byte(graph: tf.Graph) -> None:
    check(network())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_in_loops_too(path: Path) -> None:
    check(record_function(parse(path.read_text()), OPTIONS))


def test_steps_are_numbered_as_in_the_plans_text() -> None:
    path = next(p for p in EXAMPLES if p.stem == "loop_gradients")
    plan = record_function(parse(path.read_text()), OPTIONS).plan
    steps = list(memory.numbered(plan.steps))
    lines = [line for line in plan_text(plan).splitlines() if line[:4].strip().isdigit()]
    assert [n for n, _, _ in steps] == list(range(1, len(lines) + 1)) == [int(line[:4]) for line in lines]
    for (_, step, last), line in zip(steps, lines, strict=True):
        assert ("loop " in line) == isinstance(step, Loop)
        assert last >= int(line[:4])
    lives = memory.lifetimes(plan)
    loop, end = next((n, last) for n, step, last in steps if isinstance(step, Loop))
    assert any(life.first < loop and life.last >= end for life in lives)  # a carried value lives through its loop


def test_copies_say_why(graph: tf.Graph) -> None:
    v = tf.get_variable("v", initializer=np.ones(3, np.float32))
    x = tf.placeholder(tf.float32, [3], name="x")
    y = tf.tanh(x, name="y")
    stays = memory.copies(record(graph, [y, x], options=OPTIONS).fused)
    assert [(s.target, s.source, s.bytes, s.reason) for s in stays] == [
        ("fetch 'x'", "feed 'x'", 12, "the value is fed: nothing computes it")]
    with tf.control_dependencies([v.read_value()]):
        changed = tf.assign(v, tf.reverse(v, [0]))
    stays = memory.copies(record(graph, targets=[changed.op], options=OPTIONS).fused)
    assert ("variable 'v'", "what stood there before is still needed when the value is computed") in [
        (s.target, s.reason) for s in stays]
    stays = memory.copies(record(graph, changed, options=OPTIONS).fused)
    assert [s.reason for s in stays] == ["the value is computed where another result is to be"]
    assert not memory.copies(record(graph, tf.assign_add(v, x).op, options=OPTIONS).fused)


def test_every_copy_of_the_plan_has_a_reason(graph: tf.Graph) -> None:
    for c in (network(), *(record_function(parse(p.read_text()), OPTIONS) for p in EXAMPLES)):
        copies = [s for _, s, _ in memory.numbered(c.plan.steps) if isinstance(s, Copy)]
        stays = memory.copies(c.fused)
        assert len(stays) == len(copies) and all(s.reason and "not worth" not in s.reason for s in stays)


def test_without_matplotlib(tmp_path: Path) -> None:
    script = "import sys; sys.modules['matplotlib'] = None\nimport graphc as tf\nfrom pathlib import Path\n" \
             "from graphc.inspection import memory\nfrom graphc.inspection.compilation import record\n" \
             "c = record(tf.get_default_graph(), tf.tanh(tf.placeholder(tf.float32, [3])))\n" \
             "try: memory.plot(c.plan, Path('out.png'), 1, 'x')\nexcept memory.MissingExtra as e: print(e)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
                          env={"PYTHONPATH": str(Path(tf.__file__).parent.parent), "PATH": ""})
    assert done.stdout == "drawing the memory plan needs matplotlib: pip install 'graphc[viz]'\n", done.stderr
