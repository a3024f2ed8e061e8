"""Loops in stages: dear functions of dear functions against NumPy, at lengths around vectors and chunks."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.llvm_cpu import staging
from graphc.dtypes import DType, float32, float64
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, For, Kernel, Let, Load, Param, Stmt, Store, Var, const, size
from graphc.kernel.primitives import prim
from graphc.kernel.schedule import LoopPlan
from tests.backends.llvm_native import Native, runnable

N, i = symbol("n0"), Axis("i")
MACHINES = runnable()


def chain(dtype: DType) -> Kernel:
    """y = tanh(x), z = log(exp(y) + exp(-x) + 1) * y: three stages, with a Let that two of them take."""
    x, y = Load("x", (i,), dtype), Var("t", dtype)
    total = prim("add", prim("exp", y), prim("add", prim("exp", prim("neg", x)), const(1.0, dtype)))
    body: tuple[Stmt, ...] = (Let("t", prim("tanh", x)), Store("y", (i,), y),
                              Store("z", (i,), prim("mul", prim("log", total), y)))
    params = tuple(Param(name, dtype, (N,), "in" if name == "x" else "out") for name in "xyz")
    return Kernel("chain", params, ("n0",), (For("i", size(N), body, parallel=True),))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", [float32, float64])
def test_values_at_every_kind_of_length(machine: str, dtype: DType) -> None:
    run, kernel = Native(MACHINES[machine]), chain(dtype)
    lanes = MACHINES[machine].lanes(dtype)
    chunk = staging.CHUNK * lanes
    for n in (0, 1, lanes - 1, lanes, lanes + 1, chunk - 1, chunk, chunk + 1, chunk + lanes, 3 * chunk + 5, 20011):
        x = np.random.default_rng().normal(scale=2, size=n).astype(dtype.storage)
        x[:: 97] = np.nan
        y, z = (np.full(n + 64, np.nan, dtype.storage) for _ in range(2))
        run(kernel, {"x": x, "y": y, "z": z}, {"n0": n}, claim=1)
        want = np.tanh(x)
        eps = 8 * float(np.finfo(dtype.storage).eps)
        np.testing.assert_allclose(y[:n], want, rtol=eps)
        np.testing.assert_allclose(z[:n], np.log(np.exp(want) + np.exp(-x) + 1) * want, rtol=eps)
        assert np.isnan(y[n:]).all() and np.isnan(z[n:]).all()


def test_each_function_has_its_stage() -> None:
    loop = chain(float32).body[0]
    assert isinstance(loop, For)
    found = staging.stages(loop, LoopPlan(16))
    assert [[e.op for e in stage.results if hasattr(e, "op")] for stage in found] == [["tanh", "exp"], ["exp"]]
    assert [len(stage.lets) for stage in found] == [0, 1]
    assert staging.stages(loop, LoopPlan()) == []
    short = For("i", const(100, size(N).dtype), loop.body, parallel=True)
    assert staging.stages(short, LoopPlan(16)) == []
