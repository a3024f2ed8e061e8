"""Every op on every backend against the oracle: many ops in one Function, through the whole compiler.

What runs at every change is a pairwise choice of the full product of samples (op, dtypes, shapes, layout of the feeds),
under a stated budget of kernels; the full product is `nightly`.
"""
from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.ir import infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, NotLowered
from tests.ops.cases import Array, draw, generator, rounded
from tests.ops.compiled import BACKENDS, Compiled
from tests.ops.pairwise import OPS, Case, all_cases, one_each, pairwise
from tests.ops.tolerance import LARGEST, PRODUCTS, SUMS, check, sum_bound, ulp

SEED = 1
BATCH = 48
"""Cases in one Function."""
BUDGET = {"llvm_cpu": 1600, "numba_cpu": 80, "interp": 1600, "other options": 200}
"""Kernels that the default suite may compile."""


def choice(backend: str) -> list[Case]:
    """The cases of the default suite."""
    cases = all_cases()
    if backend == "numba_cpu":  # which takes a quarter of a second for a kernel: every third op
        return one_each(cases, SEED)[SEED % 3::3]
    return pairwise(cases, SEED)


def batches(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases in groups; those with inputs of the same types come together, where they share feeds and so kernels."""
    order = sorted(cases, key=lambda c: (c.layout, [str(t) for t in c.sample.types], c.op.name, c.number))
    return [order[i:i + BATCH] for i in range(0, len(order), BATCH)]


def is_x86_64() -> bool:
    """Whether this machine can run what is compiled for x86-64-v3."""
    return platform.machine() in ("x86_64", "AMD64") and "avx2" in Path("/proc/cpuinfo").read_text()


def specials(dtype: dtypes.DType) -> Array:
    """Values at the ends of a float dtype, and none of a number."""
    info = np.finfo(np.float32 if dtype is dtypes.bfloat16 else dtype.as_numpy_dtype)
    tiny = float(info.tiny)
    low = tiny * 2.0 ** -3
    return rounded(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, low, -low, tiny, float(dtype.max),
                             float(dtype.min)]), dtype)


def fed(case: Case) -> list[Array]:
    """The arrays of a case, in its layout; the same for cases whose inputs are drawn alike."""
    sample = case.sample
    rng = generator(str(sample.types), sample.domain, sample.special, case.layout,
                    (case.op.name, case.number) if sample.arrays else "")
    arrays = draw(sample, rng, special=True)
    for i, (a, t) in enumerate(zip(arrays, sample.types, strict=True)):
        if i in sample.arrays or not sample.special or not a.size:
            continue
        if t.dtype.is_floating and case.op.kind is Kind.ELEMENTWISE:
            some = specials(t.dtype)
            a.reshape(-1)[rng.integers(0, a.size, min(a.size // 2, 24))] = rng.choice(some, min(a.size // 2, 24))
        if t.dtype.is_integer and sample.domain[0] < 0:
            a.reshape(-1)[rng.integers(0, a.size, min(a.size, 6))] = \
                rng.choice(np.array([t.dtype.min, t.dtype.max, 0, 1], a.dtype), min(a.size, 6))
    return [laid_out(a, case.layout) for a in arrays]


def laid_out(array: Array, layout: str) -> Array:
    """The same values in other memory."""
    if not array.ndim or layout == "contiguous":
        return array
    if layout == "transposed":
        return np.asfortranarray(array)
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


class Batch:
    """Cases as one Function: its feeds, and what the oracle gives for each case."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        builder = Builder(infer.types)
        feeds: dict[tuple[bytes, TensorType, int], Value] = {}
        self.arrays: list[Array] = []
        self.outputs: list[tuple[Value, ...]] = []
        self.inputs: list[list[Array]] = []
        self.attrs = []
        for case in cases:
            given = fed(case)
            values = []
            for i, (a, t) in enumerate(zip(given, case.sample.types, strict=True)):
                key = a.tobytes(), t, i
                if key not in feeds:
                    feeds[key] = Value(t)
                    self.arrays.append(a)
                values.append(feeds[key])
            node = builder.add(case.op, values, case.sample.attrs, (case.op.name,))
            self.inputs.append(given)
            self.outputs.append(node.outputs)
            self.attrs.append(node.attrs)
        fetches = tuple(v for outputs in self.outputs for v in outputs)
        self.function = Function(
            "batch", tuple(feeds.values()), tuple(builder.nodes), fetches,
            feed_names=tuple(f"x{i}" for i in range(len(feeds))),
            fetch_names=tuple(f"y{i}" for i in range(len(fetches))))
        self.wanted = evaluate(self.function, self.arrays)[0]

    def check(self, got: Sequence[Array]) -> None:
        """Fail, with every case that is wrong, where results are not the oracle's."""
        failures, at = [], 0
        for case, arrays, outputs, attrs in zip(self.cases, self.inputs, self.outputs, self.attrs, strict=True):
            for value in outputs:
                t, want = value.tensor, self.wanted[at]
                try:
                    bound = allowed(case, arrays, attrs, t, want) if t.dtype.is_floating else 0.0
                    check(np.asarray(got[at]), want, t.dtype, bound, str(case))
                except AssertionError as error:
                    failures.append(str(error))
                at += 1
        assert not failures, "\n".join(failures)


def allowed(case: Case, arrays: Sequence[Array], attrs: object, out: TensorType, want: Array) -> Array | float:
    """How far a result may be from the oracle's."""
    op, sample = case.op, case.sample
    if op.name in SUMS:
        return sum_bound(op, arrays, sample.types, attrs, out)  # type: ignore[arg-type]
    if op.name in LARGEST:
        return LARGEST[op.name] * float(np.max(np.abs(want), initial=0.0))
    units = sample.ulp
    if op.name == "Lgamma" and out.dtype is dtypes.float64:  # its roots at 1 and 2 lose what the Lanczos sum rounds
        return 64.0 * ulp(np.maximum(np.abs(want), 1.0), out.dtype)
    if op.name == "LinSpace":  # between its ends the numbers may cross zero
        return units * float(ulp(np.max(np.abs(want), initial=0.0), out.dtype))
    if op.name in PRODUCTS:
        units += max(arrays[0].shape, default=1)
    elif op.decompose is not None and isinstance(op.lower, NotLowered):  # rounded several times
        finite = np.abs(want[np.isfinite(want)])
        return units * float(ulp(np.max(finite, initial=1.0), out.dtype))
    return units * ulp(want, out.dtype)


def run(cases: Sequence[Case], backend: str, **options: Any) -> int:
    """Compile, run and check cases as one Function; the number of kernels."""
    held = Batch(cases)
    compiled = Compiled(held.function, backend, **options)
    held.check(compiled(held.arrays))
    return compiled.kernels


def run_all(cases: Sequence[Case], backend: str, **options: Any) -> int:
    """Run cases in batches, and tell all failures together; the number of kernels."""
    kernels, failures = 0, []
    for group in batches(cases):
        try:
            kernels += run(group, backend, **options)
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)
    return kernels


@pytest.mark.parametrize("backend", BACKENDS)
def test_ops_equal_the_oracle(backend: str) -> None:
    kernels = run_all(choice(backend), backend)
    assert kernels <= BUDGET[backend], kernels


@pytest.mark.parametrize("options", [{"target": "x86-64"}, {"target": "x86-64-v3"}, {"level": 0}, {"level": 1},
                                     {"numerics": "strict"}], ids=str)
def test_ops_equal_the_oracle_with_other_options(options: dict[str, Any]) -> None:
    if "target" in options and not is_x86_64():
        pytest.skip("runs on x86-64")
    assert run_all(one_each(all_cases(), SEED + 1), "llvm_cpu", **options) <= BUDGET["other options"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", [op.name for op in OPS])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_sample_of_every_op(backend: str, name: str) -> None:
    for cases in batches([case for case in all_cases() if case.op.name == name]):
        run(cases, backend)
