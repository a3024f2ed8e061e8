"""Targets and schedules: what is a vector, what is parallel, and that only kernel and target decide."""
from __future__ import annotations

import pytest

from graphc.dtypes import bool_, float16, float32, float64, int8, int64
from graphc.ir import dim
from graphc.ir.dim import symbol
from graphc.kernel import walk
from graphc.kernel.ir import Axis, For, Kernel, Let, Load, Param, Reduce, Store, Var, index, size
from graphc.kernel.primitives import prim
from graphc.kernel.schedule import LoopPlan, Schedule, schedule
from graphc.kernel.target import NAMED, Target, named
from tests.backends.kernels import SAMPLES

WIDE = named("x86-64-v4")


def of(name: str, target: Target = WIDE) -> Schedule:
    return schedule(SAMPLES[name].kernel, target)


def test_named_targets() -> None:
    assert {n: t.vector_bits for n, t in NAMED.items()} == {
        "x86-64": 128, "x86-64-v2": 128, "x86-64-v3": 256, "x86-64-v4": 512, "aarch64": 128}
    assert [t.has_fma for t in NAMED.values()] == [False, False, True, True, True]
    assert [WIDE.lanes(d) for d in (float32, float64, float16, int8, bool_)] == [16, 8, 16, 64, 64]
    with pytest.raises(ValueError, match="unknown target 'pentium'; known: host, x86-64"):
        named("pentium")


def test_targets_from_features() -> None:
    t = Target.from_features("x86_64-pc-linux-gnu", "znver4", ["+avx2", "fma", "-avx512f", "+avx2"])
    assert t.features == ("+avx2", "+fma", "-avx512f") and (t.vector_bits, t.registers, t.has_fma) == (256, 16, True)
    assert Target.from_features("arm64-apple-darwin", "apple-m1", []).registers == 32
    with pytest.raises(ValueError, match="no code is generated for 'riscv64'"):
        Target.from_features("riscv64-linux", "generic", [])


@pytest.mark.parametrize(("name", "lanes"), [
    ("axpy", [16]), ("bias_relu", [1, 16]), ("transpose", [16, 1]), ("rows_f32_sum", [1, 16]),
    ("columns_f32_sum", [64, 1]), ("columns_f64_sum_prod", [32, 1]), ("sum_all", [1, 16]), ("softmax", [1, 16, 16, 16]),
    ("gather", [1, 16]), ("scatter_add_f32", [16, 1]), ("sort", [1, 1, 16]), ("newton", [16]), ("half_bf16", [16]),
    ("scan_sum_f32", [1, 1]), ("integer_i8", [64]), ("integer_i64", [8]), ("scalar", []), ("dense", []),
])
def test_vector_axis(name: str, lanes: list[int]) -> None:
    assert [p.lanes for p in of(name).loops] == lanes


def test_parts_of_a_length_known_at_run_time_leave_the_lanes_to_the_columns() -> None:
    """Columns summed in parts, the last of them shorter: a gather along the part would be read from as many rows."""
    n0, x = symbol("n0"), ("x", float32, (symbol("n0"), 64))
    part, column, row = Axis("p"), Axis("i"), Axis("r")
    length = prim("min", index(8), prim("sub", size(n0), prim("mul", part, index(8))))
    at = prim("add", prim("mul", part, index(8)), row)
    total = Reduce(("s",), ("sum",), "r", Var("t", int64), (), (Load("x", (at, column), float32),))
    body = (For("p", size(dim.ceildiv(n0, 8)), (
        Let("t", length),
        For("i", index(64), (total, Store("y", (part, column), Var("s", float32))), True)), True),)
    kernel = Kernel("k", (Param(*x, "in"), Param("y", float32, (dim.ceildiv(n0, 8), 64), "out")), ("n0",), body)
    assert [p.lanes for p in schedule(kernel, WIDE).loops] == [1, 64, 1]


def test_partial_states_hide_latency() -> None:
    assert of("rows_f32_sum").loops[1].unroll == 4
    assert of("columns_f32_sum").loops[1].unroll == 2  # beside the four registers of its lanes
    assert of("softmax").loops[2].unroll < 4  # exp hides it


@pytest.mark.parametrize(("name", "axes"), [
    ("axpy", ("i",)), ("bias_relu", ("i", "j")), ("columns_f32_sum", ("j",)), ("softmax", ("i",)), ("movement", ()),
    ("sum_all", ()), ("scalar", ()), ("matmul_nn_f32", ()), ("gather", ("i",)), ("random_blocks", ("i",)),
])
def test_parallel_axes(name: str, axes: tuple[str, ...]) -> None:
    assert of(name).axes == axes


def test_extent_counts_blocks() -> None:
    s = of("bias_relu")
    n0, n1 = symbol("n0"), symbol("n1")
    assert s.extent == n0 * dim.ceildiv(n1, s.block) and s.block % 16 == 0
    assert Schedule((), (), 1, 1, 1.0, ()).extent == 1


@pytest.mark.parametrize("target", NAMED.values(), ids=str)
def test_invariants(target: Target) -> None:
    def check(body: walk.Block, plans: list[LoopPlan], vectors: int) -> None:
        for s in body:
            inside = vectors
            if isinstance(s, walk.Loop):
                inside += plans.pop(0).is_vector
                assert inside <= 1
            for block in walk.blocks(s):
                check(block, plans, inside)

    for sample in SAMPLES.values():
        s = schedule(sample.kernel, target)
        plans = list(s.loops)
        check(sample.kernel.body, plans, 0)
        assert not plans and s.grain >= 1 and s.block >= 1 and s.cost > 0
        assert all(p.lanes & (p.lanes - 1) == 0 and p.unroll & (p.unroll - 1) == 0 for p in s.loops)
        nest = [t for t in walk.statements(sample.kernel.body) if isinstance(t, For)][:len(s.axes)]
        assert tuple(f.axis for f in nest) == s.axes and all(f.parallel for f in nest)
        if s.axes:
            last = s.loops[len(s.axes) - 1]
            assert s.block % (last.lanes * last.unroll) == 0
        assert schedule(sample.kernel, target) == s
