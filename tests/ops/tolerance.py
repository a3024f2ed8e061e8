"""How far a backend may be from the oracle, stated once.

Owns the tolerances.  Knows the ops that sum.  Invariants: NaN, infinities, integers and bools are exact;
a sum of K products is within c sqrt(K) eps sum|a||b|, and never above K eps sum|a||b|; else a result is within the
sample's units of last place.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir.evaluate import apply
from graphc.ir.types import TensorType
from graphc.ops.base import Op, lookup
from graphc.ops.convolution import FAMILIES
from tests.ops.cases import Array

SUM_FACTOR = 4.0
"""The c of c sqrt(K) eps sum|a||b|."""
BITS: Mapping[DType, int] = {dtypes.float16: 10, dtypes.bfloat16: 7, dtypes.float32: 23, dtypes.float64: 52}
LOWEST: Mapping[DType, int] = {dtypes.float16: -14, dtypes.bfloat16: -126, dtypes.float32: -126, dtypes.float64: -1022}
"""Exponent of the smallest normal number."""
SUMS = ("Sum", "Mean", "SumToShape", "L2Loss", "MatMul", "BatchMatMulV2", "Einsum", "Cumsum", "AddN", "ScatterNd",
        "TensorScatterAdd", "TensorScatterSub", "UnsortedSegmentSum",
        "AvgPool", "AvgPool3D", "AvgPoolGrad", "AvgPool3DGrad", "MaxPoolSpread", "NeighbourSum", "PatchesGrad",
        *(name for f in FAMILIES for name in (f.name, f.for_input, f.for_filter)))
PRODUCTS = ("Prod", "Cumprod")
LARGEST: Mapping[str, float] = {"WinogradFilter": 4e-7, "WinogradConvolution": 2e-5,
                                "WinogradFilterGradient": 2e-5, "ResizeAxis": 1e-6,
                                "ResizeAxisGrad": 1e-6}
"""Ops whose rounding is measured against the largest element of the result, and its bound."""


def ulp(values: Array, dtype: DType) -> Array:
    """The unit of last place of each value."""
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.abs(np.where(np.isfinite(values), values, 1.0)), dtype=np.float64))
    return np.asarray(2.0 ** (np.maximum(exponent, LOWEST[dtype]) - BITS[dtype]))


def sum_bound(op: Op, arrays: Sequence[Array], types: Sequence[TensorType], attrs: Mapping[str, Any],
              out: TensorType) -> Array:
    """c sqrt(K) eps sum|a||b| of an op that sums, element by element, and at least the rounding of the result."""
    same = lookup("TensorScatterAdd") if op.name == "TensorScatterSub" else op
    wide = [TensorType(dtypes.float64, t.shape) if t.dtype.is_floating else t for t in types]
    total = TensorType(dtypes.float64, out.shape)

    def summed(change: Any) -> Array:
        values = [change(a.astype(np.float64)) if t.dtype.is_floating else a
                  for a, t in zip(arrays, types, strict=True)]
        return apply(same, values, wide, attrs, [total])[0]

    terms = summed(np.ones_like)
    if op.name.startswith("AvgPool"):
        terms = np.full_like(terms, arrays[0].size)
    if op.name in ("Mean", "L2Loss"):
        terms = np.full_like(terms, arrays[0].size / max(1, terms.size))
    eps = 2.0 ** -BITS[out.dtype]
    inner = eps if "catter" in op.name or op.name == "UnsortedSegmentSum" else 2.0 ** -max(23, BITS[out.dtype])
    # halves are summed in float32, but for those that memory holds between two additions
    magnitude = summed(np.abs)
    share = np.minimum(SUM_FACTOR * np.sqrt(np.maximum(terms, 1.0)), np.maximum(terms, 1.0)) * inner
    return np.asarray((share + (eps if inner != eps else 0.0)) * magnitude)


def check(got: Array, want: Array, dtype: DType, bound: Array | float, what: str) -> None:
    """Fail where `got` is not `want`, within `bound` where both are finite."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, expected {want.dtype}"
    if not dtype.is_floating:
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        fine = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) <= bound))
    if not fine.all():
        off = np.abs(a - b)[~fine] / ulp(b, dtype)[~fine]
        raise AssertionError(f"{what}: {int((~fine).sum())} of {fine.size} differ; got {a[~fine][:4]}, expected "
                             f"{b[~fine][:4]}, off by {off[:4]} ulp")
