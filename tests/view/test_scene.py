"""Scenes: what a drawing says of graphs, functions and compilations, and where it puts things."""
from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as tf
from graphc.errors import GraphError
from graphc.view.build import function_stage, graph_stage, scene
from graphc.view.group import BLOCK, LIMIT, Placed, arrange
from graphc.view.scene import Group, Node, Scene, Stage, Type, children, sizes
from tests.view.examples import compilation, flat, function, layered, training


def check(stage: Stage) -> None:
    """What holds of every stage."""
    ids = [n.id for n in stage.nodes] + [g.id for g in stage.groups]
    assert len(set(ids)) == len(ids)
    nodes = {n.id: n for n in stage.nodes}
    for node in stage.nodes:
        assert set(node.after) <= set(nodes)
        for source, output in node.inputs:
            assert 0 <= output < len(nodes[source].outputs)
    known = {""}
    for group in stage.groups:
        assert group.id.endswith("/") and group.parent in known
        known.add(group.id)
    assert set(stage.parents.values()) <= known
    inside = children(stage)
    assert sorted(i.id for items in inside.values() for i in items) == sorted(ids)
    assert all(len(items) <= LIMIT for items in inside.values())
    assert all(inside[g.id] for g in stage.groups), "an empty box"
    count = sizes(stage)
    for group in stage.groups:
        assert count[group.id] == sum(1 if isinstance(i, Node) else count[i.id] for i in inside[group.id])


def boxes_of(stage: Stage, id: str) -> list[str]:
    """The boxes around a node, innermost first."""
    parents = {g.id: g.parent for g in stage.groups}
    found = [stage.parents[id]]
    while found[-1]:
        found.append(parents[found[-1]])
    return found[:-1]


def test_a_graph_is_told_whole() -> None:
    graph, _, _ = training()
    stage = graph_stage(graph)
    check(stage)
    assert [n.id for n in stage.nodes] == [op.name for op in graph.get_operations()]
    nodes = {n.id: n for n in stage.nodes}
    matmul = nodes["hidden/MatMul"]
    assert (matmul.op, matmul.kind, matmul.label) == ("MatMul", "op", "MatMul")
    assert matmul.inputs == (("x", 0), ("hidden/kernel/read", 0))
    assert matmul.outputs == (Type("float32", ("?", 16)),)
    assert matmul.line.startswith("examples.py:") and 'name="hidden"' in matmul.line
    assert dict(matmul.attrs) == {"transpose_a": "False", "transpose_b": "False"}
    assert {nodes[k].kind for k in ("x", "y")} == {"input"} and nodes["hidden/kernel"].kind == "variable"
    assert set(nodes["init"].after) == {op.name for op in graph.get_operation_by_name("init").control_inputs} != set()


def test_name_scopes_are_boxes_and_an_operation_stands_in_the_box_of_its_own_name() -> None:
    stage = graph_stage(training()[0])
    assert boxes_of(stage, "hidden/MatMul") == ["hidden/"]
    assert boxes_of(stage, "hidden/kernel") == boxes_of(stage, "hidden/kernel/read") == ["hidden/kernel/", "hidden/"]
    labels = {g.id: g.label for g in stage.groups}
    assert labels["hidden/"] == "hidden" and labels["hidden/kernel/"] == "kernel"


def test_boxes_that_tell_nothing_are_left_out() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [2], "x")
        x + 1.0  # "add", with its constant "add/y"
        with tf.name_scope("outer"), tf.name_scope("inner"):
            tf.tanh(x, name="t")
            tf.exp(x, name="e")
        with tf.name_scope("one"), tf.name_scope("two"):
            tf.tanh(x, name="alone")
    stage = graph_stage(graph)
    check(stage)
    assert {g.id: g.label for g in stage.groups} == {"outer/inner/": "outer/inner"}
    assert {n.id: n.label for n in stage.nodes if "alone" in n.id} == {"one/two/alone": "one/two/alone"}
    assert boxes_of(stage, "add") == boxes_of(stage, "add/y") == []


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT + 1, 300, 3000])
def test_long_boxes_are_cut_into_blocks_in_order(count: int) -> None:
    stage = graph_stage(flat(count))
    check(stage)
    blocks = [g for g in stage.groups if g.kind == "block"]
    assert bool(blocks) == (len(stage.nodes) > LIMIT)
    inside = children(stage)
    told: list[str] = []
    stack = list(reversed(inside[""]))
    while stack:
        item = stack.pop()
        if isinstance(item, Node):
            told.append(item.id)
        else:
            assert len(inside[item.id]) <= BLOCK
            stack += reversed(inside[item.id])
    assert told == [n.id for n in stage.nodes]


def test_blocks_are_cut_where_few_values_pass() -> None:
    """Chains of 23 that only one value joins: the cuts are at the joints, wherever they would be by count alone."""
    placed = []
    for chain in range(25):
        for i in range(23):
            id = f"n{chain}_{i}"
            near = [(f"n{chain}_{j}", 0) for j in range(max(0, i - 3), i)]
            joint = [(f"n{chain - 1}_22", 0)] if chain and i == 0 else []
            node = Node(id, id, "Add", "op", (*near, *joint), outputs=(Type("float32", ()),))
            placed.append(Placed(node, "", id))
    stage = arrange("chains", placed)
    check(stage)
    blocks = [g.id for g in stage.groups]
    members = [{n.id.split("_")[0] for n in stage.nodes if stage.parents[n.id] == b} for b in blocks]
    broken = sum(len(m & other) for i, m in enumerate(members) for other in members[:i])
    assert len(blocks) > 10 and broken <= 2


def test_few_boxes_stay_beside_the_blocks_of_many_operations() -> None:
    graph = flat(200)
    with graph.as_default(), tf.name_scope("head"):
        tf.exp(tf.tanh(graph.get_tensor_by_name("x:0")))
    stage = graph_stage(graph)
    check(stage)
    assert boxes_of(stage, "head/Exp") == ["head/"]


names = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join), max_size=60)


@given(names, st.randoms(use_true_random=False))
def test_any_names_give_a_sound_stage(paths: list[str], choice: random.Random) -> None:
    placed: list[Placed] = []
    for path in dict.fromkeys(paths):
        earlier = [p.node.id for p in placed]
        inputs = tuple((choice.choice(earlier), 0) for _ in range(choice.randrange(3)) if earlier)
        kind = choice.choice(["op", "constant"])
        node = Node(path, path.rpartition("/")[2], "Add", kind, inputs, outputs=(Type("float32", ()),))
        placed.append(Placed(node, "", path))
    check(arrange("any", placed))


# -- functions and compilations ----------------------------------------------------------------------------------------


def test_a_function_has_its_inputs_states_results_and_updates() -> None:
    stage = function_stage(function("adam"), "adam")
    check(stage)
    kinds = {kind: [n.id for n in stage.nodes if n.kind == kind] for kind in ("input", "variable", "output", "update")}
    f = function("adam")
    assert len(kinds["input"]) == len(f.feeds) and len(kinds["variable"]) == len(f.states)
    assert len(kinds["output"]) == len(f.fetches) and kinds["update"] == [f"updates/{name}" for name in f.state_names]


def test_bodies_of_loops_are_boxes_beside_their_operation() -> None:
    stage = function_stage(function("loop_gradients"), "loops")
    check(stage)
    loops = [n for n in stage.nodes if n.op == "Loop"]
    bodies = [g for g in stage.groups if g.kind == "body"]
    assert loops and len(bodies) >= len(loops)
    arguments = [n.label for n in stage.nodes if n.op == "Argument" and n.id.startswith(bodies[0].id)]
    assert arguments[:2] == ["iteration", "carried 0"] and "row 0" in arguments and arguments[-1].startswith("capture")
    for loop in loops:  # what its body computes flows into the loop
        assert any(source.startswith(tuple(b.id for b in bodies)) for source, _ in loop.inputs)


def test_a_compilation_has_a_stage_per_pass_and_its_kernels() -> None:
    c = compilation()
    drawn = scene(c, "step")
    for stage in drawn.stages:
        check(stage)
    assert [s.name for s in drawn.stages[:2]] == ["graph", "extract"] and len(drawn.stages) == 1 + len(c.stages)
    assert len({s.name for s in drawn.stages}) == len(drawn.stages)
    assert [k.name for k in drawn.kernels] == [k.name for k in c.kernels]
    for kernel, made in zip(drawn.kernels, c.kernels, strict=True):
        assert dict(kernel.sources)["kernel IR"] == c.kernel_text(made)
        assert f"def {made.name}" in dict(kernel.sources)["Python"]
        assert kernel.lines and all(line.startswith("examples.py:") for line in kernel.lines)


def test_operations_tell_the_kernels_they_went_into() -> None:
    c = compilation()
    drawn = scene(c)
    graph = {n.id: n for n in drawn.stage("graph").nodes}
    assert graph["hidden/MatMul"].kernels == c.kernel_of("hidden/MatMul") != ()
    assert graph["hidden/kernel/Assign"].kernels == ()
    boxes = [g for g in drawn.stages[-1].groups if g.kind == "kernel"]
    assert boxes and all(g.kernels for g in boxes)
    last = drawn.stages[-1]
    for box in boxes:
        (number, *_) = box.kernels
        assert box.label.endswith(drawn.kernels[number].name)  # with the scope that holds nothing else
        for node in (n for n in last.nodes if last.parents[n.id] == box.id):
            assert node.kernels == box.kernels


def test_names_stay_from_pass_to_pass() -> None:
    stages = scene(compilation()).stages
    for before, after in pairwise(stages[1:]):
        kept = {n.id for n in before.nodes} & {n.id for n in after.nodes}
        assert len(kept) > 0.6 * min(len(before.nodes), len(after.nodes)), (before.name, after.name)
    order = {n.id: n for n in stages[-1].nodes}
    if stages[-1].name == "order":  # another order of the same operations changes none of them
        assert {n.id: n for n in stages[-2].nodes} == order


def test_the_same_source_gives_the_same_scene() -> None:
    c = compilation()
    assert scene(c) == scene(c)
    assert scene(layered(60)) == scene(layered(60))


def test_a_stage_is_found_by_name() -> None:
    drawn = scene(compilation())
    assert drawn.stage() is drawn.stages[-1] and drawn.stage("fuse").name == "fuse"
    with pytest.raises(ValueError, match="did you mean 'fuse'"):
        drawn.stage("fuze")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GraphError, match="a list cannot be drawn"):
        scene([])  # type: ignore[arg-type]


@pytest.mark.parametrize("drawn", [scene(tf.Graph()), Scene("none", (Stage("s", (), (Group("g/", "g", "scope"),)),))])
def test_empty_scenes(drawn: Scene) -> None:
    assert drawn.stage().nodes == () and children(drawn.stage())[""] == []


def test_sessions_and_graphs_load_no_drawings() -> None:
    code = ("import sys, graphc; graphc.Session; graphc.Graph()\n"
            "assert not [m for m in sys.modules if m.startswith(('graphc.view', 'graphc.inspection'))]")
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
