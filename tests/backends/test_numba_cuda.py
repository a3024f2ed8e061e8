"""Kernels as numba-cuda source: the source itself, and its compilation to PTX where numba-cuda is installed."""
from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from graphc.backends.numba_cuda import compile_to_ptx, scratch_bytes, source, status_of
from graphc.errors import BackendError
from graphc.ir.dim import symbol
from tests.backends.kernels import SAMPLES

is_installed = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(not is_installed, reason="numba-cuda is not installed (graphc[cuda])")


@needs_numba_cuda
@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if "slow" not in s.tags])
def test_sample_compiles_to_ptx(name: str) -> None:
    ptx = compile_to_ptx(SAMPLES[name].kernel)
    assert len(re.findall(r"\.visible \.entry", ptx)) == 1 and ".target sm_90" in ptx
    assert ".extern .func" not in ptx, "a function that nothing defines"


@pytest.mark.skipif(is_installed, reason="numba-cuda is installed")
def test_missing_package_is_named() -> None:
    with pytest.raises(BackendError, match=r"install graphc\[cuda\]"):
        compile_to_ptx(SAMPLES["axpy"].kernel)


def test_one_thread_per_iteration_of_all_parallel_loops() -> None:
    assert source(SAMPLES["bias_relu"].kernel) == '''\
def bias_relu(x, b, y, mask, n0, n1, scratch, status):
    for item in range(cuda.grid(1), n0 * n1, cuda.gridsize(1)):
        j = item % n1
        left = item // n1
        i = left
        t = x[i * n1 + j] + b[j]
        y[i * n1 + j] = maximum(t, float32(0.0))
        mask[i * n1 + j] = uint8(float32(0.0) < t)
'''


def test_status_and_scratch() -> None:
    kernel = SAMPLES["gather"].kernel
    assert "cuda.atomic.max(status, 0, 1)" in source(kernel)  # site 1 of 2: the least urgent word
    assert [status_of(kernel, word) for word in (0, 1, 2)] == [0, 2, 1]
    assert scratch_bytes(kernel) == 0
    n1 = symbol("n1")
    assert scratch_bytes(SAMPLES["softmax_local"].kernel) == (4 * n1 + 63) // 64 * 64


def test_source_loads_no_cuda_package() -> None:
    code = ("import sys; from graphc.backends.numba_cuda import source; from tests.backends.kernels import SAMPLES; "
            "[source(s.kernel) for s in SAMPLES.values()]; sys.exit('numba' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
