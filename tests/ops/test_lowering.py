"""What each op says of its elements (Pointwise) and routines (RoutineBody), run as kernels, against its reference.

One op becomes one kernel here, without fusion or schedule, and runs on the backend that interprets kernels.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.backends import interp
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.evaluate import apply, resolve_attr
from graphc.ir.types import TensorType
from graphc.kernel import verify
from graphc.kernel.ir import Axis, Expr, For, Guard, Kernel, Load, Param, Site, Stmt, Store, index, size
from graphc.kernel.primitives import cast, prim
from graphc.ops.base import Op, Pointwise, RoutineBody, Sample, lookup, widen
from tests.ops.cases import TENSOR_OPS, Array, draw, function_of, generator, symbolic
from tests.ops.tolerance import LARGEST, check

_SPACING = {dtypes.float16: 10, dtypes.bfloat16: 7, dtypes.float32: 23, dtypes.float64: 52}


class _Sites:
    """The guards of one kernel."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.names = 0

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        self.sites.append(Site(kind, message, "op"))
        return Guard(value, ok, fallback, len(self.sites) - 1)


class _Point(_Sites):
    def __init__(self, attrs: Mapping[str, Any], in_types: Sequence[TensorType], out: TensorType) -> None:
        super().__init__()
        self.attrs, self.in_types = attrs, in_types
        self.out_types: Sequence[TensorType] = [out]
        self.output = 0
        self.index: tuple[Expr, ...] = tuple(Axis(f"i{a}") for a in range(out.rank))

    def load(self, i: int, where: Sequence[Expr], predicate: Expr | None = None, other: Expr | None = None) -> Expr:
        return Load(f"x{i}", tuple(where), self.in_types[i].dtype, predicate, other)


class _Routine(_Sites):
    def __init__(self, attrs: Mapping[str, Any], in_types: Sequence[TensorType], out: TensorType,
                 inplace: Mapping[int, int]) -> None:
        super().__init__()
        self.attrs, self.in_types, self.inplace = attrs, in_types, inplace
        self.out_types: Sequence[TensorType] = [out]

    def input(self, i: int) -> str:
        return f"x{i}"

    def output(self, i: int) -> str:
        return "y"

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"


def _element(op: Op, p: _Point) -> Expr:
    lower = op.lower
    assert isinstance(lower, Pointwise)
    if lower.point is not None:
        return lower.point(p)
    assert lower.scalar is not None
    args = []
    for i, t in enumerate(p.in_types):
        tail = p.index[len(p.index) - t.rank:]
        args.append(widen(p.load(i, [index(0) if n == 1 else e for n, e in zip(t.shape, tail, strict=True)])))
    return lower.scalar(p.attrs, *args)


def _cast(value: Expr, dtype: DType) -> Expr:
    """As the lowering does: from a half through float32."""
    return cast(widen(value) if value.dtype is not dtype else value, dtype)


def kernel_of(op: Op, sample: Sample, types: Sequence[TensorType] | None = None, sizes: Sequence[str] = (),
              ) -> tuple[Kernel, TensorType, Mapping[str, Any]]:
    types = types or sample.types
    node = function_of(op, types, sample.attrs).nodes[0]
    (out,) = [v.tensor for v in node.outputs]
    params = [Param(f"x{i}", t.dtype, t.shape, "in") for i, t in enumerate(types)]
    body: tuple[Stmt, ...]
    names: _Sites
    match op.lower:
        case Pointwise():
            names = point = _Point(node.attrs, types, out)
            body = (Store("y", point.index, _cast(_element(op, point), out.dtype)),)
            for a in reversed(range(out.rank)):
                body = (For(f"i{a}", size(out.shape[a]), body, parallel=True),)
            params.append(Param("y", out.dtype, out.shape, "out"))
        case RoutineBody(body=build, inplace=inplace):
            names = routine = _Routine(node.attrs, types, out, inplace)
            body = build(routine)
            params.append(Param("y", out.dtype, out.shape, "inout" if inplace else "out"))
        case _:
            raise AssertionError(op.lower)
    kernel = Kernel(op.name.lower(), tuple(params), tuple(sizes), body, tuple(names.sites))
    verify.verify(kernel)
    return kernel, out, node.attrs


def _stored(values: Array, dtype: DType) -> Array:
    return dtypes.float32_to_bfloat16(values) if dtype is dtypes.bfloat16 else np.asarray(values, dtype.storage)


def execute(kernel: Kernel, out: TensorType, arrays: Sequence[Array], types: Sequence[TensorType],
            start: Array | None, sizes: Mapping[str, int] | None = None) -> tuple[int, Array]:
    buffers = {f"x{i}": _stored(a, t.dtype) for i, (a, t) in enumerate(zip(arrays, types, strict=True))}
    shape = tuple(dim.evaluate(n, sizes or {}) for n in out.shape)
    poison = np.full(shape, 0x55, np.uint8).astype(out.dtype.storage)
    if out.dtype.is_floating and out.dtype is not dtypes.bfloat16:
        poison = np.full(shape, np.nan, out.dtype.storage)
    buffers["y"] = poison if start is None else _stored(start, out.dtype).copy()
    status = interp.run(kernel, buffers, sizes or {})
    y = buffers["y"]
    return status, dtypes.bfloat16_to_float32(y) if out.dtype is dtypes.bfloat16 else y


def close(got: Array, want: Array, dtype: DType, ulp: float) -> None:
    if not dtype.is_floating:
        np.testing.assert_array_equal(got, want)
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    bits = _SPACING[dtype]
    with np.errstate(all="ignore"):
        unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(want), 2.0 ** -14))) - bits)
        fine = (np.abs(got - want) <= ulp * unit) | (got == want) | (np.isnan(got) & np.isnan(want))
    assert fine.all(), (got[~fine], want[~fine])


KNOWN_SIZES = ("WinogradFilterGradient", "ResizeAxisShares")
"""Ops that a pass puts in place where all sizes but the batch are known."""
LOWERED = [op for op in TENSOR_OPS if isinstance(op.lower, (Pointwise, RoutineBody))]


@pytest.mark.parametrize("op", LOWERED, ids=lambda op: op.name)
@pytest.mark.parametrize("form", ["numbers", "symbols"])
def test_kernel_equals_the_reference(op: Op, form: str) -> None:
    for number, sample in enumerate(op.samples()):
        types, sizes = symbolic(sample) if form == "symbols" and op.name not in KNOWN_SIZES else (sample.types, {})
        kernel, out, attrs = kernel_of(op, sample, types, list(sizes))
        arrays = draw(sample, generator(op.name, number), special=True)
        known = TensorType(out.dtype, tuple(dim.evaluate(n, sizes) for n in out.shape))
        (want,) = apply(op, arrays, sample.types, {k: resolve_attr(v, sizes) for k, v in attrs.items()}, [known])
        start = arrays[op.lower.inplace[0]] if isinstance(op.lower, RoutineBody) and op.lower.inplace else None
        status, got = execute(kernel, out, arrays, sample.types, start, sizes)
        assert status == 0, kernel.sites[status - 1]
        if op.name in LARGEST:
            check(got, want, out.dtype, LARGEST[op.name] * float(np.max(np.abs(want), initial=0.0)), str(sample))
        else:
            close(got, want, out.dtype, sample.ulp)


@pytest.mark.parametrize(("name", "arrays", "attrs", "message"), [
    ("GatherV2", [np.ones((3, 2), np.float32), np.array([0, 3], np.int32)], {"axis": 0}, "not in [0, 3)"),
    ("GatherV2", [np.ones((0, 2), np.float32), np.array([0], np.int32)], {"axis": 0}, "not in [0, 0)"),
    ("GatherNd", [np.ones((3, 2), np.float32), np.array([[0, -1]], np.int32)], {}, "out of range"),
    ("ScatterNd", [np.array([[5]], np.int32), np.ones((1, 2), np.float32)], {"shape": (3, 2)}, "out of range"),
    ("UnsortedSegmentSum", [np.ones((2,), np.float32), np.array([0, 9], np.int32)], {"num_segments": 2},
     "out of range"),
    ("FloorDiv", [np.array([4], np.int32), np.array([0], np.int32)], {}, "division by zero"),
    ("TruncateMod", [np.array([4], np.int8), np.array([0], np.int8)], {}, "division by zero"),
    ("Pow", [np.array([2], np.int64), np.array([-1], np.int64)], {}, "negative integer powers"),
    ("LabelMask", [np.array([3], np.int64)], {"classes": 3}, "outside the range"),
    ("CheckNumerics", [np.array([np.nan], np.float32)], {"message": "here"}, "here: the tensor has NaN"),
])
def test_bad_values_fail_with_a_message(name: str, arrays: list[Array], attrs: dict[str, Any], message: str) -> None:
    op = lookup(name)
    types = tuple(TensorType(dtypes.as_dtype(a.dtype), a.shape) for a in arrays)
    kernel, out, full = kernel_of(op, Sample(types, attrs))
    status, _ = execute(kernel, out, arrays, types, None)
    assert status > 0 and message in kernel.sites[status - 1].message
    with pytest.raises(ValueError, match=r"index|zero|negative|range|NaN"):
        apply(op, arrays, types, full, [out])


def test_integer_division_wraps_and_rounds() -> None:
    for name, want in (("FloorDiv", [-128, -4, 3]), ("TruncateDiv", [-128, -3, 3]), ("FloorMod", [0, 1, 1])):
        arrays = [np.array([-128, -7, 7], np.int8), np.array([-1, 2, 2], np.int8)]
        types = (TensorType(dtypes.int8, (3,)),) * 2
        kernel, out, _ = kernel_of(lookup(name), Sample(types))
        assert execute(kernel, out, arrays, types, None)[1].tolist() == want
    assert prim("add", index(1), index(2)).dtype is dtypes.int64
