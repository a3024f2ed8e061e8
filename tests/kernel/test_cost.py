"""Counts of operations and bytes against counts by hand."""
from __future__ import annotations

import pytest

from graphc.ir.dim import symbol
from graphc.kernel import cost
from tests.backends.kernels import SAMPLES

N0, N1, N2 = symbol("n0"), symbol("n1"), symbol("n2")


@pytest.mark.parametrize(("name", "flops"), [
    ("axpy", 2 * N0), ("transpose", 0), ("matmul_nn_f32", 2 * N0 * N1 * N2), ("matmul_nt_i32", 0),
    ("dense", 2 * N0 * N1 * N2 + 2 * N0 * N1), ("rows_f32_sum", N0 * N1), ("sum_all", N0 * N1 + N0),
    ("softmax", 7 * N0 * N1), ("scan_sum_f32", N0 * N1), ("divide", 0),
])
def test_flops(name: str, flops: object) -> None:
    assert cost.flops(SAMPLES[name].kernel) == flops


@pytest.mark.parametrize(("name", "traffic"), [
    ("axpy", 12 * N0), ("scalar", 24), ("bias_relu", 9 * N0 * N1 + 4 * N1), ("matmul_nn_bf16",
                                                                         2 * N0 * N2 + 2 * N2 * N1 + 4 * N0 * N1),
])
def test_traffic(name: str, traffic: object) -> None:
    assert cost.traffic(SAMPLES[name].kernel) == traffic


def test_cycles_order_kernels_sensibly() -> None:
    cycles = {name: cost.cycles(s.kernel.body) for name, s in SAMPLES.items()}
    assert all(c > 0 for c in cycles.values())
    assert cycles["exponential_f32"] > cycles["arithmetic_f32"] > cycles["axpy"]
    assert cost.cycles(SAMPLES["axpy"].kernel.body, 8) < cycles["axpy"]


def test_typical() -> None:
    assert cost.typical(7) == 7 and cost.typical(N0) == cost.TYPICAL and cost.typical(N0 - 1000) == 0
