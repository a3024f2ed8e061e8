"""How a sample kernel is run through a backend and compared with its reference.

Owns `Sample`, `Expected` and `check`.  Knows no backend: `execute(kernel, arrays, sizes)` runs the
kernel in place and returns its status.  Invariant: inputs must come back unchanged and outputs are
poisoned before.  bfloat16 arrays are uint16 storage throughout.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.kernel.ir import Kernel

Arrays = dict[str, np.ndarray]
Sizes = Mapping[str, int]
Execute = Callable[[Kernel, Arrays, dict[str, int]], int]


@dataclass(frozen=True)
class Expected:
    """value: in the widest type at hand.  ulps: allowed error in units of the result dtype's spacing at
    the value; None means exact.  scale: added to |value| in that unit (sums: the sum of magnitudes).
    flush: results below the smallest normal number may be zero."""

    value: np.ndarray
    ulps: float | None = None
    scale: np.ndarray | float = 0.0
    flush: bool = False


@dataclass(frozen=True)
class Sample:
    """inputs(rng, sizes) gives the arrays of roles in and inout; reference(arrays, sizes) the expected
    contents of roles out and inout (an array means exact) and, under "status", a status other than 0."""

    kernel: Kernel
    inputs: Callable[[np.random.Generator, Sizes], Arrays]
    reference: Callable[[Arrays, Sizes], dict[str, Any]]
    sizes: tuple[dict[str, int], ...] = ({},)
    tags: frozenset[str] = field(default=frozenset())

    @property
    def name(self) -> str:
        return self.kernel.name


def show(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Return stored elements as the values they stand for."""
    return dtypes.bfloat16_to_float32(array) if dtype is dtypes.bfloat16 else array


def store(array: Any, dtype: DType) -> np.ndarray:
    """Return values (of a wider type) rounded to the stored form of `dtype`."""
    if dtype is dtypes.bfloat16:
        return dtypes.float32_to_bfloat16(np.asarray(array, np.float32))
    with np.errstate(all="ignore"):
        return np.array(array, dtype.storage, order="C")


def poison(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Return an array of values that no kernel should give: NaN, or a pattern of bits."""
    if dtype.is_bool:
        return np.ones(shape, np.bool_)
    if dtype.is_floating and dtype is not dtypes.bfloat16:
        return np.full(shape, np.nan, dtype.storage)
    return np.full(shape, 0x7FC1 if dtype is dtypes.bfloat16 else 0x5B, dtype.storage)


def assert_close(name: str, actual: np.ndarray, expected: Expected | np.ndarray, dtype: DType) -> None:
    """Fail with the worst element where `actual` (stored form) is not what is expected."""
    want = expected if isinstance(expected, Expected) else Expected(np.asarray(expected))
    got = show(actual, dtype)
    value = np.asarray(want.value)
    assert got.shape == value.shape, f"{name}: shape {got.shape}, expected {value.shape}"
    if want.ulps is None:
        exact = show(store(value, dtype), dtype)
        np.testing.assert_array_equal(got, exact, err_msg=name)
        if dtype.is_floating:
            zeros = exact == 0
            np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(exact[zeros]), err_msg=name + ": -0.0")
        return
    if dtype is dtypes.bfloat16:
        eps, tiny, largest = 2.0 ** -7, 2.0 ** -126, float(dtypes.bfloat16.max)
    else:
        info = np.finfo(dtype.storage)
        eps, tiny, largest = float(info.eps), float(info.tiny), float(info.max)
    with np.errstate(all="ignore"):
        wide = value.astype(np.longdouble)
        magnitude = np.maximum(np.abs(wide) + np.abs(np.asarray(want.scale, np.longdouble)), tiny)
        allowed = want.ulps * eps * magnitude
        error = np.abs(got.astype(np.longdouble) - wide)
        good = (error <= allowed) | (np.isnan(got) & np.isnan(wide)) | (got == wide)
        good |= np.isinf(got) & (np.abs(wide) + allowed >= largest) & (np.signbit(got) == np.signbit(wide))
        if want.flush:
            good |= (np.abs(wide) < 1.0001 * tiny) & (np.abs(got) <= tiny)
    if not good.all():
        at = tuple(np.argwhere(~good)[0]) if good.ndim else ()
        raise AssertionError(f"{name}{list(map(int, at))} = {got[at]!r}, expected {value[at]!r}; "
                             f"{int((~good).sum())} of {good.size} wrong")


def check(sample: Sample, execute: Execute, sizes: dict[str, int], seed: int = 0) -> None:
    """Run one sample at `sizes` and compare every parameter with its reference.

    Inputs must come back unchanged, outputs are poisoned before, inout buffers get their inputs.
    """
    rng = np.random.default_rng(seed)
    kernel = sample.kernel
    given = sample.inputs(rng, sizes)
    arrays: Arrays = {}
    for p in kernel.params:
        shape = tuple(dim.evaluate(s, sizes) for s in p.shape)
        if p.role == "out":
            arrays[p.name] = poison(shape, p.dtype)
        else:
            arrays[p.name] = np.array(given[p.name], order="C")
            assert arrays[p.name].shape == shape and arrays[p.name].dtype == p.dtype.storage, p.name
    before = {name: a.copy() for name, a in arrays.items()}
    status = execute(kernel, arrays, dict(sizes))
    expected = dict(sample.reference({n: a.copy() for n, a in before.items()}, sizes))
    assert status == expected.pop("status", 0), f"{sample.name}: status {status}"
    for p in kernel.params:
        label = f"{sample.name}{dict(sizes)}: {p.name}"
        if p.role == "in":
            assert arrays[p.name].tobytes() == before[p.name].tobytes(), f"{label} was written"
        else:
            assert_close(label, arrays[p.name], expected.pop(p.name), p.dtype)
    assert not expected, f"{sample.name}: no parameter for {sorted(expected)}"
