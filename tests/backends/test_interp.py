"""The interpreter against NumPy on every sample kernel, and its refusal to leave a buffer."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.backends import interp
from graphc.backends.interp import InterpBackend, run
from graphc.dtypes import float32
from graphc.errors import KernelError
from graphc.kernel.ir import Axis, For, Kernel, Load, Param, Store, index
from graphc.kernel.primitives import prim
from graphc.options import Options
from tests.backends.harness import check
from tests.backends.kernels import SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(name: str) -> None:
    for seed, sizes in enumerate(SAMPLES[name].sizes):
        check(SAMPLES[name], run, sizes, seed)


@pytest.mark.parametrize("name", [n for n in SAMPLES if not n.startswith(("matmul", "integer", "cast", "chain"))])
def test_loops_in_small_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interp, "BLOCK_ELEMENTS", 100)
    check(SAMPLES[name], run, SAMPLES[name].sizes[-2 % len(SAMPLES[name].sizes)])


@pytest.mark.parametrize("shift", [1, -1])
def test_access_out_of_bounds_is_an_error(shift: int) -> None:
    i = Axis("i")
    kernel = Kernel("bad", (Param("x", float32, (4,), "in"), Param("y", float32, (4,), "out")), (), (
        For("i", index(4), (Store("y", (i,), Load("x", (prim("add", i, index(shift)),), float32)),), True),))
    with pytest.raises(KernelError, match=r"kernel bad: index (4|-1) is out of range for size 4: x\[i \+ -?1\]"):
        run(kernel, {"x": np.zeros(4, np.float32), "y": np.zeros(4, np.float32)}, {})


def test_wrong_array_is_an_error() -> None:
    kernel = SAMPLES["axpy"].kernel
    with pytest.raises(KernelError, match="axpy: x is float64"):
        run(kernel, {"x": np.zeros(3), "y": np.zeros(3, np.float32)}, {"n0": 3})


def test_backend_gives_callables() -> None:
    kernel = SAMPLES["axpy"].kernel
    compiled = InterpBackend().compile([kernel], Options(backend="interp"))
    arrays = {"x": np.ones(3, np.float32), "y": np.zeros(3, np.float32)}
    assert compiled.infos[0].extent == 1 and compiled.callables[0](1, 1, arrays, {"n0": 3}) == 0
    assert not arrays["y"].any()
    assert compiled.callables[0](0, 1, arrays, {"n0": 3}) == 0
    assert (arrays["y"] == 2).all()
