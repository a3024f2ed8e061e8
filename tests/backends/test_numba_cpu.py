"""Kernels printed as Python and compiled by Numba, against NumPy on every sample kernel."""
from __future__ import annotations

import subprocess
import sys

import pytest

from graphc.backends.numba_cpu import NumbaBackend, source
from graphc.errors import BackendError
from graphc.options import Options
from tests.backends.harness import Arrays, check
from tests.backends.kernels import SAMPLES
from tests.backends.native import call

OPTIONS = Options(backend="numba_cpu")


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(name: str) -> None:
    sample = SAMPLES[name]
    compiled = NumbaBackend().compile([sample.kernel], OPTIONS)

    def execute(kernel: object, arrays: Arrays, sizes: dict[str, int]) -> int:
        claim = 0 if sum(sizes.values()) % 2 else 3
        return call(compiled.addresses[0], compiled.infos[0], sample.kernel, arrays, sizes, claim)

    for seed, sizes in enumerate(sample.sizes):
        check(sample, execute, sizes, seed)


def test_equal_kernels_share_a_function() -> None:
    kernel = SAMPLES["axpy"].kernel
    compiled = NumbaBackend().compile([kernel, kernel], OPTIONS)
    assert compiled.addresses[0] == compiled.addresses[1] and compiled.objects == ()


def test_other_targets_are_refused() -> None:
    with pytest.raises(BackendError, match="host alone"):
        NumbaBackend().compile([], OPTIONS.replace(target="aarch64"))


def test_source_reads_like_python() -> None:
    assert source(SAMPLES["softmax"].kernel) == '''\
def softmax(begin, end, buffers, sizes, worker, scratch):
    n0 = sizes[0]
    n1 = sizes[1]
    x = pointer_float32(buffers[0], 0)
    y = pointer_float32(buffers[1], 0)
    status = 0
    for i in range(begin, end):
        m = float32(-inf)
        for j in range(n1):
            m = maximum(m, x[i * n1 + j])
        s = float32(0.0)
        for j_1 in range(n1):
            s = s + exp(x[i * n1 + j_1] - m)
        for j_2 in range(n1):
            y[i * n1 + j_2] = exp(x[i * n1 + j_2] - m) / s
    return int32(status)
'''


def test_source_does_not_load_numba() -> None:
    code = ("import sys; from graphc.backends.numba_cpu import source; from tests.backends.kernels import SAMPLES; "
            "[source(s.kernel) for s in SAMPLES.values()]; sys.exit('numba' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
