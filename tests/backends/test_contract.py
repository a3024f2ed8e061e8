"""Products on llvm_cpu: every layout, tail, dtype and epilogue, against float64 or exact integers.

Buffers end at a protected page, outputs and scratch are poisoned, and the work items run in random
pieces, so that reading too far, reading unwritten scratch or depending on neighbours shows.
"""
from __future__ import annotations

import ctypes
import itertools
import mmap
import struct
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc import dtypes
from graphc.backends.llvm_cpu import contract, tiling
from graphc.backends.llvm_cpu.codegen import LlvmCpu, host_target
from graphc.dtypes import DType, float32
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size, symbol
from graphc.kernel import target as targets
from graphc.kernel.ir import (
    Axis,
    Contract,
    Expr,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Param,
    Site,
    Stmt,
    Store,
    Var,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from graphc.kernel.target import Target
from tests.backends.contract_kernels import CONTRACT_SAMPLES
from tests.backends.harness import Arrays, Sample, check, poison, show, store
from tests.backends.llvm_native import runnable

BACKEND = LlvmCpu()
HOST = host_target()
TARGETS = {"host": HOST} | {name: targets.named(name) for name in ("x86-64-v3", "x86-64") if name in runnable()}
M, N, K, B = symbol("m"), symbol("n"), symbol("k"), symbol("b")
b, m, n, k = Axis("b"), Axis("m"), Axis("n"), Axis("k")


class Compiled:
    """A kernel in memory, run over guarded copies of its arrays."""

    def __init__(self, kernel: Kernel, target: Target = HOST) -> None:
        self.kernel, self.info = kernel, BACKEND.info(kernel, target)
        self._engine = llvm.create_mcjit_compiler(
            llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(BACKEND.object_code(kernel, target)))
        self._engine.finalize_object()
        address = self._engine.get_function_address(self.info.symbol)
        self._run = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
                                     ctypes.c_int64, ctypes.c_void_p)(address)

    def __call__(self, arrays: Arrays, sizes: dict[str, int], pieces: Sequence[tuple[int, int]] | None = None) -> int:
        guarded = {name: Guarded(a) for name, a in arrays.items()}
        addresses = (ctypes.c_void_p * len(arrays))(*(guarded[p.name].address for p in self.kernel.params))
        table = (ctypes.c_int64 * max(len(sizes), 1))(*(sizes[name] for name in self.kernel.sizes))
        items = self.items(sizes)
        statuses = []
        for begin, end in [(0, items)] if pieces is None else pieces:
            scratch = Guarded(np.full(dim.evaluate(self.info.scratch, sizes) // 4, np.nan, np.float32), align=64)
            statuses.append(self._run(begin, end, addresses, table, 0, scratch.address))
        for name, a in arrays.items():
            a[...] = guarded[name].array
        return min((s for s in statuses if s), default=0)

    def items(self, sizes: dict[str, int]) -> int:
        return dim.evaluate(self.info.extent, sizes)


class Guarded:
    """A copy of an array that ends where a page without access begins (up to `align`)."""

    _protect = ctypes.CDLL(None, use_errno=True).mprotect

    def __init__(self, array: np.ndarray, align: int = 1) -> None:
        length = -(-array.nbytes // align) * align
        room = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, room + mmap.PAGESIZE)
        whole = np.frombuffer(self._map, np.uint8)
        end = whole.ctypes.data + room
        if self._protect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.address = end - length
        self.array = whole[room - length:room - length + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array


def product(rows: Size = M, columns: Size = N, depth: Size = K, layout: str = "nn", dtype: DType = float32,
            acc: DType | None = None, body: tuple[Stmt, ...] | None = None, extra: tuple[Param, ...] = (),
            left: Expr | None = None, right: Expr | None = None, before: tuple[Stmt, ...] = ()) -> Kernel:
    """Return c = a @ b, or what is asked for instead."""
    acc = acc or dtype
    ashape, aindex = ((rows, depth), (m, k)) if layout[0] == "n" else ((depth, rows), (k, m))
    bshape, bindex = ((depth, columns), (k, n)) if layout[1] == "n" else ((columns, depth), (n, k))
    left = left or cast(Load("a", aindex, dtype), acc)
    right = right or cast(Load("b", bindex, dtype), acc)
    body = body or (Store("c", (m, n), Var("acc", acc)),)
    params = (Param("a", dtype, ashape, "in"), Param("b", dtype, bshape, "in"), Param("c", acc, (rows, columns), "out"))
    return Kernel("product", params + extra, ("m", "n", "k"), (*before, Contract(
        (), (("m", size(rows)),), (("n", size(columns)),), (("k", size(depth)),), left, right, "acc", acc, body)))


def random(rng: np.random.Generator, dtype: DType, *shape: int) -> np.ndarray:
    if dtype.is_integer:
        return rng.integers(int(dtype.min), int(dtype.max), shape, dtype.storage, endpoint=True)
    return store(rng.normal(size=shape), dtype)


def assert_product(actual: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Fail where `actual` is further from left @ right than sqrt(K) roundings of the terms' magnitudes."""
    wide: Any = np.longdouble if actual.dtype == np.float64 else np.float64
    left, right = left.astype(wide), right.astype(wide)
    allowed = 3 * max(left.shape[-1], 1) ** 0.5 * np.finfo(actual.dtype).eps * (np.abs(left) @ np.abs(right))
    error = np.abs(actual.astype(wide) - left @ right)
    assert (error <= allowed).all(), f"error {error.max()} at {np.argwhere(~(error <= allowed))[:3].tolist()}"


def run(compiled: Compiled, layout: str, rows: int, columns: int, depth: int, dtype: DType = float32,
        seed: int = 0) -> np.ndarray:
    """Run a plain product at these sizes, compare it, and return it."""
    rng = np.random.default_rng([seed, rows, columns, depth])
    left = random(rng, dtype, *((rows, depth) if layout[0] == "n" else (depth, rows)))
    right = random(rng, dtype, *((depth, columns) if layout[1] == "n" else (columns, depth)))
    acc = compiled.kernel.param("c").dtype
    arrays = {"a": left, "b": right, "c": poison((rows, columns), acc)}
    assert compiled(arrays, {"m": rows, "n": columns, "k": depth}) == 0
    x, y = show(left if layout[0] == "n" else left.T, dtype), show(right if layout[1] == "n" else right.T, dtype)
    if acc.is_integer:
        np.testing.assert_array_equal(arrays["c"], x.astype(acc.storage) @ y.astype(acc.storage))
    else:
        assert_product(arrays["c"], x, y)
    return arrays["c"]


# ---------------------------------------------------------------------------------------------
# Sizes and layouts.


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("target", TARGETS)
def test_sizes_and_layouts(target: str, layout: str) -> None:
    compiled = Compiled(product(layout=layout), TARGETS[target])
    for rows in (0, 1, 3, 5, 8, 12, 13, 31):
        for columns in (0, 1, 7, 16, 33):
            for depth in (0, 1, 15, 17):
                run(compiled, layout, rows, columns, depth)
    for sizes in ((200, 300, 70), (5, 7, 513), (37, 65, 1100), (13, 20, 2049), (450, 33, 20)):
        run(compiled, layout, *sizes)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("columns", [1, 2, 10, 16, 17])
def test_narrow_outputs(layout: str, columns: int) -> None:
    compiled = Compiled(product(columns=columns, layout=layout))
    for rows, depth in ((0, 5), (1, 1), (9, 40), (33, 600), (300, 10)):
        run(compiled, layout, rows, columns, depth)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("rows", [1, 4, 7, 16, 40])
def test_known_rows(layout: str, rows: int) -> None:
    compiled = Compiled(product(rows=rows, layout=layout))
    for columns, depth in ((0, 3), (1, 1), (3, 40), (70, 513)):
        run(compiled, layout, rows, columns, depth)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (12, 32, 8), (33, 10, 700), (256, 20, 0), (0, 4, 4)])
def test_all_sizes_known(sizes: tuple[int, int, int]) -> None:
    for layout in ("nn", "tt"):
        run(Compiled(product(*sizes, layout=layout)), layout, *sizes)


@pytest.mark.parametrize("sample", CONTRACT_SAMPLES, ids=lambda s: s.name)
@pytest.mark.parametrize("target", TARGETS)
def test_samples(target: str, sample: Sample) -> None:
    compiled = Compiled(sample.kernel, TARGETS[target])
    for sizes in sample.sizes:
        check(sample, lambda kernel, arrays, given: compiled(arrays, given), sizes)


# ---------------------------------------------------------------------------------------------
# Dtypes.


@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if not d.is_bool], ids=str)
@pytest.mark.parametrize("target", ["host", "x86-64"])
def test_dtypes(target: str, dtype: DType) -> None:
    acc = float32 if dtype.is_floating and dtype.size == 2 else dtype
    for layout in ("nn", "nt", "tn"):
        compiled = Compiled(product(layout=layout, dtype=dtype, acc=acc), TARGETS[target])
        for sizes in ((5, 3, 7), (14, 37, 40), (20, 70, 530)):
            run(compiled, layout, *sizes, dtype=dtype)


def test_wider_sums() -> None:
    run(Compiled(product(dtype=dtypes.int8, acc=dtypes.int64)), "nn", 13, 37, 300, dtype=dtypes.int8)
    run(Compiled(product(layout="tt", dtype=float32, acc=dtypes.float64)), "tt", 13, 37, 60)


@pytest.mark.parametrize("acc", [dtypes.float16, dtypes.bfloat16, dtypes.bool_])
def test_sums_that_do_not_exist_are_refused(acc: DType) -> None:
    with pytest.raises(BackendError, match=acc.name):
        BACKEND.info(product(dtype=acc), HOST)


def test_nan_and_inf_stay_in_their_rows_and_columns() -> None:
    rng = np.random.default_rng(3)
    compiled = Compiled(product())
    arrays = {"a": random(rng, float32, 14, 20), "b": random(rng, float32, 20, 35), "c": poison((14, 35), float32)}
    arrays["a"][13, 4], arrays["b"][7, 34] = np.nan, np.inf
    compiled(arrays, {"m": 14, "n": 35, "k": 20})
    assert np.isnan(arrays["c"][13]).all() and np.isfinite(arrays["c"][:13, :34]).all()
    assert not np.isfinite(arrays["c"][:, 34]).any()


# ---------------------------------------------------------------------------------------------
# Batches and several axes.


@pytest.mark.parametrize("layout", ["bmk,bkn->bmn", "bmk,kn->bmn", "mk,bkn->bmn", "mbk,bnk->mbn", "bkm,bkn->bnm",
                                    "bmk,bk->bm", "bk,bk->b", "bmk,nk->bnm", "mbk,knb->bmn"])
def test_batches(layout: str) -> None:
    (left, right), result = layout.split("->")[0].split(","), layout.split("->")[1]
    extents = {"b": B, "m": M, "n": N, "k": K}

    def shape(axes: str) -> tuple[Size, ...]:
        return tuple(extents[x] for x in axes)

    def at(axes: str) -> tuple[Expr, ...]:
        return tuple(Axis(x) for x in axes)

    def pairs(names: str) -> tuple[tuple[str, Expr], ...]:
        return tuple((x, size(extents[x])) for x in names if x in result or x == "k")

    kernel = Kernel("batched", (Param("a", float32, shape(left), "in"), Param("b", float32, shape(right), "in"),
                                Param("c", float32, shape(result), "out")), ("b", "m", "n", "k"),
                    (Contract(pairs("b"), pairs("m"), pairs("n"), pairs("k"), Load("a", at(left), float32),
                              Load("b", at(right), float32), "acc", float32,
                              (Store("c", at(result), Var("acc", float32)),)),))
    compiled = Compiled(kernel)
    rng = np.random.default_rng(1)
    for sizes in ({"b": 3, "m": 13, "n": 37, "k": 21}, {"b": 1, "m": 1, "n": 1, "k": 1},
                  {"b": 40, "m": 2, "n": 3, "k": 4}, {"b": 0, "m": 2, "n": 3, "k": 4},
                  {"b": 2, "m": 50, "n": 20, "k": 700}):
        a, c = (rng.integers(-8, 9, [sizes[x] for x in axes]).astype(np.float32) for axes in (left, right))
        arrays = {"a": a, "b": c, "c": poison(tuple(sizes[x] for x in result), float32)}
        compiled(arrays, sizes)
        np.testing.assert_array_equal(arrays["c"], np.einsum(layout, a, c), err_msg=str(sizes))


def test_axes_that_lie_together_are_merged() -> None:
    p, q, r, s = (Axis(x) for x in "pqrs")
    e: dict[str, Size] = {"p": 3, "q": M, "r": 5, "s": N, "k": 7}

    def pairs(names: str) -> tuple[tuple[str, Expr], ...]:
        return tuple((x, size(e[x])) for x in names)

    def kernel(aindex: tuple[Expr, ...], ashape: tuple[Size, ...]) -> Kernel:
        return Kernel("merge", (Param("a", float32, ashape, "in"), Param("b", float32, (7, 5, N), "in"),
                                Param("c", float32, (3, M, 5, N), "out")), ("m", "n"),
                      (Contract((), pairs("pq"), pairs("rs"), pairs("k"), Load("a", aindex, float32),
                                Load("b", (k, r, s), float32), "acc", float32,
                                (Store("c", (p, q, r, s), Var("acc", float32)),)),))

    together, apart = kernel((p, q, k), (3, M, 7)), kernel((q, p, k), (M, 3, 7))
    found = tiling.merged(together, together.body[0])  # type: ignore[arg-type]
    assert [len(g) for g in (found.m, found.n)] == [1, 1]
    assert len(tiling.merged(apart, apart.body[0]).m) == 2  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    sizes = {"m": 6, "n": 9}
    for tested, spec, shape in ((together, "pqk,krs->pqrs", (3, 6, 7)), (apart, "qpk,krs->pqrs", (6, 3, 7))):
        arrays = {"a": random(rng, float32, *shape), "b": random(rng, float32, 7, 5, 9),
                  "c": poison((3, 6, 5, 9), float32)}
        Compiled(tested)(arrays, sizes)
        np.testing.assert_allclose(arrays["c"], np.einsum(spec, arrays["a"], arrays["b"]), rtol=1e-4, atol=1e-5)


def test_several_depth_axes() -> None:
    j, one = Axis("j"), ((("m", size(M)),), (("n", size(N)),), (("j", size(K)), ("k", size(6))))
    for ashape, aindex, spec in (((M, K, 6), (m, j, k), "mjk,jkn->mn"), ((M, 6, K), (m, k, j), "mkj,jkn->mn")):
        kernel = Kernel("depths", (Param("a", float32, ashape, "in"), Param("b", float32, (K, 6, N), "in"),
                                   Param("c", float32, (M, N), "out")), ("m", "n", "k"),
                        (Contract((), *one, Load("a", aindex, float32), Load("b", (j, k, n), float32), "acc", float32,
                                  (Store("c", (m, n), Var("acc", float32)),)),))
        compiled = Compiled(kernel)
        for sizes in ({"m": 14, "n": 35, "k": 9}, {"m": 3, "n": 2, "k": 0}, {"m": 3, "n": 70, "k": 200}):
            rng = np.random.default_rng(0)
            a = rng.integers(-8, 9, [dim.evaluate(x, sizes) for x in ashape]).astype(np.float32)
            right = rng.integers(-8, 9, (sizes["k"], 6, sizes["n"])).astype(np.float32)
            arrays = {"a": a, "b": right, "c": poison((sizes["m"], sizes["n"]), float32)}
            compiled(arrays, sizes)
            np.testing.assert_array_equal(arrays["c"], np.einsum(spec, a, right))


# ---------------------------------------------------------------------------------------------
# Epilogues and prologues.


def _acc(dtype: DType = float32) -> Var:
    return Var("acc", dtype)


@pytest.mark.parametrize("columns", [N, 10], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_updates_in_place_with_several_outputs(target: str, columns: Size) -> None:
    """A momentum step on the product's gradient: two buffers are read and written, one only written."""
    momentum, weight = (Load(name, (m, n), float32) for name in ("v", "w"))
    v = Var("next", float32)
    body: tuple[Stmt, ...] = (
        Let("next", prim("add", prim("mul", const(0.5, float32), momentum), _acc())),
        Store("v", (m, n), v), Store("w", (m, n), prim("sub", weight, prim("mul", Var("rate", float32), v))),
        Store("c", (m, n), cast(prim("lt", const(0.0, float32), _acc()), float32)))
    extra = (*tuple(Param(name, float32, (M, columns), "inout") for name in ("v", "w")), Param("r", float32, (), "in"))
    compiled = Compiled(product(columns=columns, layout="tn", body=body, extra=extra,
                                before=(Let("rate", Load("r", (), float32)),)), TARGETS[target])
    for rows, width, depth in ((14, 37, 20), (3, 5, 600), (70, 65, 3)):
        width = columns if isinstance(columns, int) else width
        rng = np.random.default_rng(0)
        a, right, v0, w0 = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (
            (depth, rows), (depth, width), (rows, width), (rows, width)))
        arrays = {"a": a, "b": right, "c": poison((rows, width), float32), "v": v0.copy(), "w": w0.copy(),
                  "r": np.array(0.25, np.float32)}
        compiled(arrays, {"m": rows, "n": width, "k": depth})
        gradient = a.T @ right
        np.testing.assert_array_equal(arrays["v"], v0 / 2 + gradient)
        np.testing.assert_array_equal(arrays["w"], w0 - (v0 / 2 + gradient) / 4)
        np.testing.assert_array_equal(arrays["c"], gradient > 0)


def test_branches_and_masks_in_the_epilogue() -> None:
    body: tuple[Stmt, ...] = (
        If(prim("lt", m, size(3)), (Store("c", (m, n), const(-1.0, float32)),), (
            If(Load("mask", (m, n), dtypes.bool_), (Store("c", (m, n), _acc()),),
               (Store("c", (m, n), cast(n, float32)),)),)),)
    compiled = Compiled(product(body=body, extra=(Param("mask", dtypes.bool_, (M, N), "in"),)))
    rng = np.random.default_rng(0)
    a, right = rng.integers(-4, 5, (20, 9)).astype(np.float32), rng.integers(-4, 5, (9, 53)).astype(np.float32)
    mask = rng.random((20, 53)) < 0.5
    arrays = {"a": a, "b": right, "c": poison((20, 53), float32), "mask": mask}
    compiled(arrays, {"m": 20, "n": 53, "k": 9})
    wanted = np.where(mask, a @ right, np.arange(53))
    wanted[:3] = -1
    np.testing.assert_array_equal(arrays["c"], wanted)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("target", ["host", "x86-64"])
def test_prologues(target: str, layout: str) -> None:
    """relu(a) * scale[k] by b where a mask says so: evaluated while packing."""
    aindex, bindex = ((m, k) if layout[0] == "n" else (k, m)), ((k, n) if layout[1] == "n" else (n, k))
    left = prim("mul", prim("max", Load("a", aindex, float32), const(0.0, float32)), Load("scale", (k,), float32))
    right = prim("select", prim("lt", k, size(5)), const(2.0, float32), Load("b", bindex, float32))
    compiled = Compiled(product(layout=layout, left=left, right=right, extra=(Param("scale", float32, (K,), "in"),)),
                        TARGETS[target])
    for rows, columns, depth in ((14, 37, 20), (1, 1, 1), (40, 70, 600), (3, 5, 0)):
        rng = np.random.default_rng(0)
        x, y = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((rows, depth), (depth, columns)))
        scale = rng.integers(-2, 3, depth).astype(np.float32)
        arrays = {"a": x.copy() if layout[0] == "n" else x.T.copy(), "b": y.copy() if layout[1] == "n" else y.T.copy(),
                  "c": poison((rows, columns), float32), "scale": scale}
        compiled(arrays, {"m": rows, "n": columns, "k": depth})
        wide = np.where(np.arange(depth)[:, None] < 5, 2, y)
        np.testing.assert_array_equal(arrays["c"], (np.maximum(x, 0) * scale) @ wide)


@pytest.mark.parametrize("bad", [False, True])
def test_rows_gathered_by_checked_indices(bad: bool) -> None:
    """a[ids[m], k] with ids checked: a wrong one gives the site's status and row 0, and reads nothing else."""
    at = Load("ids", (m,), dtypes.int64)
    ok = prim("and", prim("le", index(0), at), prim("lt", at, index(7)))
    plain = product(left=Load("a", (Guard(at, ok, index(0), 1), k), float32), extra=(
        Param("ids", dtypes.int64, (M,), "in"),))
    params = (Param("a", float32, (7, K), "in"), *plain.params[1:])
    sites = (Site("assert", "never", "x"), Site("index", "out of range", "y"))
    compiled = Compiled(Kernel("gathered", params, plain.sizes, plain.body, sites))
    rng = np.random.default_rng(0)
    a, right = rng.integers(-4, 5, (7, 30)).astype(np.float32), rng.integers(-4, 5, (30, 21)).astype(np.float32)
    ids = rng.integers(0, 7, 50)
    if bad:
        ids[[3, 49]] = 10**12, -1
    arrays = {"a": a, "b": right, "c": poison((50, 21), float32), "ids": ids}
    assert compiled(arrays, {"m": 50, "n": 21, "k": 30}) == (2 if bad else 0)
    np.testing.assert_array_equal(arrays["c"], a[np.where((ids < 0) | (ids > 6), 0, ids)] @ right)


# ---------------------------------------------------------------------------------------------
# Work items and objects.


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("sizes", [(150, 300, 600), (37, 600, 40)])
def test_pieces_give_the_same_bits(layout: str, sizes: tuple[int, int, int]) -> None:
    rows, columns, depth = sizes
    compiled = Compiled(product(layout=layout))
    rng = np.random.default_rng(5)
    left = random(rng, float32, *((rows, depth) if layout[0] == "n" else (depth, rows)))
    right = random(rng, float32, *((depth, columns) if layout[1] == "n" else (columns, depth)))
    given = {"m": rows, "n": columns, "k": depth}
    items = compiled.items(given)
    assert items > 2
    cuts = [0, *sorted(rng.choice(np.arange(1, items), 2, replace=False).tolist()), items]
    pieces = list(itertools.pairwise(cuts))[::-1]
    results = []
    for run_pieces in (None, [(i, i + 1) for i in range(items)], pieces):
        arrays = {"a": left, "b": right, "c": poison((rows, columns), float32)}
        compiled(arrays, given, run_pieces)
        results.append(arrays["c"].tobytes())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", [(256, 256, 256, "nn"), (1024, 1024, 1024, "nn"), (128, 512, 784, "nn"),
                                   (128, 256, 512, "nn"), (784, 512, 128, "tn"), (512, 256, 128, "tn"),
                                   (128, 512, 256, "nt")], ids=str)
def test_packing_is_hardly_repeated(shape: tuple[int, int, int, str], known: bool) -> None:
    """Copies beyond one of each operand cost under 3 % of the multiplications (a vector copied takes as
    long as two multiplied, a vector transposed four)."""
    rows, columns, depth, layout = shape
    kernel = product(*shape) if known else product(layout=layout)
    t = tiling.tiling(kernel, kernel.body[0], TARGETS["host"])  # type: ignore[arg-type]
    sizes = {"m": rows, "n": columns, "k": depth}
    row_blocks, column_blocks = (dim.evaluate(s, sizes) for s in (t.row_blocks, t.column_blocks))
    left = 0 if t.left_way is tiling.Way.DIRECT else 2
    right = {tiling.Way.DIRECT: 0, tiling.Way.TURNED: 4}[t.right_way]
    repeated = left * (column_blocks - 1) * rows * depth + right * (row_blocks - 1) * columns * depth
    assert repeated < 0.03 * rows * columns * depth
    assert 4 <= row_blocks * column_blocks <= 64


@pytest.mark.parametrize("layout", ["nn", "nt"])
@pytest.mark.parametrize("columns", [N, 40, 100, 264, 1024], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_blocks_cover_all_and_none_is_empty(target: str, columns: Size, layout: str) -> None:
    kernel = product(columns=columns, layout=layout)
    t = tiling.tiling(kernel, kernel.body[0], TARGETS[target])  # type: ignore[arg-type]
    rng = np.random.default_rng()
    for extent in [*range(1, 60), *rng.integers(60, 5000, 300).tolist(), 1024, 10**6]:
        sizes = {"m": extent, "n": extent, "k": extent}
        for axis, block, blocks, most in ((t.rows, t.row_block, t.row_blocks, t.max_rows),
                                          (t.columns, t.column_block, t.column_blocks, t.max_columns),
                                          (t.depth, t.depth_block, t.depth_blocks, t.max_depth)):
            length, number, whole = (dim.evaluate(x, sizes) for x in (block, blocks, axis.extent))
            assert (number - 1) * length < whole <= number * length and length <= most, (axis, extent)
        full, low, height = tiling.panels_of(t.tile, extent)
        assert extent <= full * t.tile.rows + low * height < extent + t.tile.unit


def _undefined(data: bytes) -> set[str]:
    """Return the undefined symbols of a 64-bit ELF object."""
    offset, = struct.unpack_from("<Q", data, 0x28)
    entry, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * entry) for i in range(count)]
    found = set()
    for s in sections:
        if s[1] == 2:  # SHT_SYMTAB
            strings = sections[s[6]][4]
            for at in range(s[4] + 24, s[4] + s[5], 24):
                name, _, _, section = struct.unpack_from("<IBBH", data, at)
                if section == 0:
                    found.add(data[strings + name:data.index(b"\0", strings + name)].decode())
    return found


@pytest.mark.parametrize("dtype", [float32, dtypes.float64, dtypes.bfloat16, dtypes.int8, dtypes.int64], ids=str)
@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "x86-64", "aarch64"])
def test_objects_need_no_library(target: str, dtype: DType) -> None:
    acc = float32 if dtype is dtypes.bfloat16 else dtype
    for layout in ("nn", "tt"):
        kernel = product(layout=layout, dtype=dtype, acc=acc)
        found = _undefined(BACKEND.object_code(kernel, targets.named(target)))
        assert found <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_the_same_kernel_gives_the_same_text() -> None:
    texts = {LlvmCpu().llvm_text(product(layout="nt"), HOST) for _ in range(2)}
    assert len(texts) == 1


def test_partition_of_an_empty_product_has_no_items() -> None:
    for sizes in ((0, 5, 5), (5, 0, 5)):
        kernel = product(*sizes)
        assert contract.partition(kernel, kernel.body[0], HOST).extent == 0  # type: ignore[arg-type]
