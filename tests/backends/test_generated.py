"""Generated kernels: every backend gives the interpreter's bits, on every target that runs here."""
from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc.backends import interp
from graphc.backends.numba_cpu import NumbaBackend
from graphc.kernel.ir import Kernel
from graphc.kernel.verify import verify
from graphc.options import Options
from tests.backends.generate import random_arrays, random_kernel
from tests.backends.harness import Arrays, Execute
from tests.backends.llvm_native import Native, runnable
from tests.backends.native import call

SIZES = ({"n0": 1, "n1": 1}, {"n0": 7, "n1": 19}, {"n0": 21, "n1": 70})
LLVM = {name: Native(machine) for name, machine in runnable().items()}
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2 ** 40)


def compare(kernel: Kernel, execute: Execute, seed: int) -> None:
    for sizes in SIZES:
        expected = random_arrays(kernel, sizes, seed)
        actual: Arrays = {name: a.copy() for name, a in expected.items()}
        assert interp.run(kernel, expected, sizes) == execute(kernel, actual, dict(sizes))
        for name, want in expected.items():
            np.testing.assert_array_equal(actual[name], want, err_msg=f"{name} at {sizes}")


@settings(QUIET, max_examples=40)
@given(seed=seeds, target=st.sampled_from(sorted(LLVM)), claim=st.integers(0, 3))
def test_llvm_cpu(seed: int, target: str, claim: int) -> None:
    kernel = random_kernel(seed)
    verify(kernel)
    compare(kernel, lambda k, arrays, sizes: LLVM[target](k, arrays, sizes, claim), seed)


@settings(QUIET, max_examples=8)
@given(seed=seeds)
def test_numba_cpu(seed: int) -> None:
    kernel = random_kernel(seed)
    compiled = NumbaBackend().compile([kernel], Options(backend="numba_cpu"))
    compare(kernel, lambda k, arrays, sizes: call(compiled.addresses[0], compiled.infos[0], k, arrays, sizes, 2), seed)
