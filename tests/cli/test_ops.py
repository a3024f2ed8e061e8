"""`graphc ops`: the registry, complete and in order."""
from __future__ import annotations

import json

from graphc.ops.base import Kind, NoGradient, all_ops
from tests.cli.conftest import Graphc


def test_the_list_is_complete(graphc: Graphc) -> None:
    told = json.loads(graphc("ops", "--json").stdout)
    assert [op["name"] for op in told] == sorted(all_ops())
    assert {op["name"] for op in told if not op["gradient"]} == {
        name for name, op in all_ops().items() if isinstance(op.gradient, NoGradient)}
    lines = graphc("ops").stdout.splitlines()
    assert lines[0].split() == ["op", "kind", "inputs", "attrs", "gradient", "what", "it", "computes"]
    assert [line.split()[0] for line in lines[1:-2]] == sorted(all_ops())
    assert lines[-1] == f"{len(all_ops())} operations; `graphc ops NAME` shows one in full"


def test_one_kind(graphc: Graphc) -> None:
    told = json.loads(graphc("ops", "--kind", "contraction", "--json").stdout)
    assert {op["name"] for op in told} == {n for n, op in all_ops().items() if op.kind is Kind.CONTRACTION}
    assert "'contractoin' is not one of" in graphc("ops", "--kind", "contractoin", code=2).stderr


def test_one_op(graphc: Graphc) -> None:
    text = graphc("ops", "MatMul").stdout
    assert text.startswith("MatMul: Product of two matrices, each transposed where asked. tf.matmul\n")
    assert "  attrs     transpose_a = False, transpose_b = False\n" in text
    assert json.loads(graphc("ops", "ArgMax", "--json").stdout)["no_gradient_because"]
    assert "axis = required" not in graphc("ops", "Sum").stdout


def test_every_op_can_be_shown(graphc: Graphc) -> None:
    for name in all_ops():
        assert graphc("ops", name).stdout.startswith(f"{name}: ")


def test_near_names(graphc: Graphc) -> None:
    assert "there is no operation 'matmul'; did you mean 'MatMul'" in graphc("ops", "matmul", code=2).stderr
    assert "`graphc ops` lists them all" in graphc("ops", "zzz", code=2).stderr
