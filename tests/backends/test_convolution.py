"""Convolutions on llvm_cpu: forward, input gradient and filter gradient against float64, over many shapes.

Buffers end at a protected page, outputs and scratch are poisoned, and the work items run in pieces, so that reading too
far, reading unwritten scratch or depending on neighbours shows.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.backends.llvm_cpu import convolution
from graphc.backends.llvm_cpu.correlation_tiling import Correlation
from graphc.backends.llvm_cpu.gather_tiling import Gather
from graphc.ir import dim
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, Const, Contract, Expr, Kernel, Load, Param, Prim, Store, Var, const, index, size
from graphc.kernel.primitives import cast, prim
from tests.backends import convolution_kernels as kernels
from tests.backends.convolution_kernels import Convolution
from tests.backends.harness import Arrays, poison, show, store
from tests.backends.test_contract import TARGETS, Compiled

RESULTS: dict[str, tuple[Callable[[Convolution], Kernel], str]] = {
    "forward": (kernels.forward, "y"), "input": (kernels.input_gradient, "x"), "filter": (kernels.filter_gradient, "w")}
ONE, TWO = ((1, 1), (1, 1)), ((2, 2), (2, 2))


def same(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Any:
    """Return TF's SAME padding."""
    missing = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip((height, width), kernel, stride, strict=True)]
    return tuple((m // 2, m - m // 2) for m in missing)


def close(v: Convolution, name: str, got: np.ndarray, arrays: Arrays) -> None:
    """Fail where `got` is further from float64 than 3e-6 (of float32) of the largest value."""
    want = kernels.reference(v, name, {k: show(a, v.dtype) for k, a in arrays.items()})
    assert got.shape == want.shape
    if want.size:
        allowed = 3e-6 if v.acc is dtypes.float32 else 1e-14
        error = np.abs(got - want)
        assert (error <= allowed * max(np.abs(want).max(), 1e-30)).all(), \
            f"{v}: {name} differs by {error.max()} at {np.argwhere(~(error <= allowed * np.abs(want).max()))[:3]}"


def run(v: Convolution, result: str, batches: tuple[int, ...] = (3,), target: str = "host") -> Compiled:
    """Run one of the three kernels at these batch sizes, whole and item by item; compare with float64."""
    make, name = RESULTS[result]
    compiled = Compiled(make(v), TARGETS[target])
    for batch in batches:
        rng = np.random.default_rng()
        sizes = {"n0": batch} if v.batch is None else {}
        shapes = v.shapes(batch)
        arrays = {k: store(rng.normal(size=shape), v.dtype) for k, shape in shapes.items() if k != name}  # type: ignore
        items = compiled.items(sizes)
        given = []
        for pieces in (None, [(i, i + 1) for i in reversed(range(items))]):
            out = poison(shapes[name], v.acc)  # type: ignore[arg-type]
            assert compiled({**arrays, name: out}, sizes, pieces) == 0
            given.append(out)
        close(v, name, given[0], arrays)
        assert given[0].tobytes() == given[1].tobytes(), f"{v}: bits depend on the pieces"
    return compiled


SHAPES = [
    Convolution(8, 8, 16, 16, (3, 3), padding=ONE), Convolution(7, 9, 5, 20, (3, 3), padding=ONE),
    Convolution(13, 7, 1, 6, (5, 5), padding=TWO), Convolution(14, 14, 6, 16, (5, 5)),
    Convolution(6, 5, 3, 1, (3, 3), padding=ONE), Convolution(5, 5, 1, 1, (3, 3), padding=ONE),
    Convolution(12, 13, 4, 6, (2, 2), padding=((0, 1), (0, 1))),
    Convolution(9, 8, 2, 33, (4, 2), padding=((1, 2), (0, 1))),
    Convolution(9, 30, 7, 33, (3, 3), (1, 1), (2, 2), padding=TWO), Convolution(20, 17, 3, 5, (3, 2), (1, 1), (3, 4)),
    Convolution(14, 14, 3, 40, (5, 5), (2, 2), padding=((1, 2), (1, 2))), Convolution(11, 12, 8, 96, (4, 3), (3, 2)),
    Convolution(23, 23, 3, 17, (11, 11), (4, 4)), Convolution(9, 9, 4, 8, (2, 2), (3, 3)),
    Convolution(8, 8, 20, 12, (3, 3), (2, 1), padding=ONE), Convolution(6, 6, 12, 8, (1, 1)),
    Convolution(7, 6, 12, 8, (1, 1), (2, 2)), Convolution(7, 8, 5, 40, (1, 3), padding=((0, 0), (1, 1))),
    Convolution(40, 3, 6, 10, (5, 1), padding=((2, 2), (0, 0))), Convolution(3, 3, 40, 70, (3, 3), padding=ONE),
    Convolution(2, 2, 130, 36, (3, 3), padding=ONE), Convolution(3, 4, 5, 6, (3, 4)),
    Convolution(5, 6, 8, 12, (3, 3), padding=ONE, groups=4),
    Convolution(6, 5, 6, 4, (3, 3), (2, 2), padding=ONE, groups=2),
    Convolution(16, 15, 8, 12, (3, 3), padding=ONE, groups=4), Convolution(31, 30, 4, 20, (3, 3), (2, 2), padding=ONE),
    Convolution(1, 9, 1, 6, (3, 3), padding=ONE), Convolution(9, 1, 7, 6, (3, 3), padding=ONE),
    Convolution(6, 6, 10, 50, (3, 3), padding=((0, 2), (3, 1))), Convolution(4, 70, 9, 100, (3, 3), padding=ONE),
]


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("v", SHAPES, ids=str)
def test_shapes(v: Convolution, result: str) -> None:
    run(v, result, (0, 1, 3))


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("v", SHAPES[::3], ids=str)
def test_channels_first(v: Convolution, result: str) -> None:
    run(Convolution(v.height, v.width, v.channels, v.filters, v.kernel, v.stride, v.dilation, v.padding, v.groups,
                    "NCHW"), result)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.float16, dtypes.bfloat16], ids=str)
def test_dtypes(dtype: dtypes.DType, result: str) -> None:
    for layout in ("NHWC", "NCHW"):
        run(Convolution(7, 9, 9, 20, (3, 3), padding=ONE, layout=layout, dtype=dtype), result)
    run(Convolution(9, 9, 3, 5, (3, 3), (2, 2), padding=ONE, dtype=dtype), result)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "host"])
def test_targets(target: str, result: str) -> None:
    for v in SHAPES[1:20:4]:
        run(v, result, target=target)


@pytest.mark.parametrize("result", RESULTS)
def test_many_images(result: str) -> None:
    """More images than blocks and items: 129, one of them alone in its block."""
    for v in (Convolution(4, 4, 3, 6, (3, 3), padding=ONE), Convolution(6, 6, 18, 20, (3, 3), (2, 2), padding=ONE)):
        run(v, result, (32, 129))


@pytest.mark.parametrize("result", RESULTS)
def test_known_batch(result: str) -> None:
    for batch in (1, 5):
        run(Convolution(9, 9, 6, 16, (3, 3), padding=ONE, batch=batch), result, (batch,))


@pytest.mark.parametrize("result", RESULTS)
def test_random_shapes(result: str) -> None:
    rng = np.random.default_rng()
    for _ in range(8):
        kernel, stride = (tuple(int(x) for x in rng.integers(1, most, 2)) for most in (5, 4))
        height, width = (int(x) for x in rng.integers(6, 20, 2))
        channels, filters = (int(x) for x in rng.integers(1, 40, 2))
        run(Convolution(height, width, channels, filters, kernel, stride,  # type: ignore[arg-type]
                        padding=same(height, width, kernel, stride)), result)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------
# Epilogues and prologues.


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("filters", [3, 20, 70])
def test_epilogue(filters: int, layout: str) -> None:
    """Bias, residual, relu, and where it is positive: small integers, so that all sums are exact."""
    v = Convolution(7, 9, 6, filters, (3, 3), padding=ONE, layout=layout)
    body, extra = kernels.dense_body(v)
    compiled = Compiled(kernels.forward(v, body, extra))
    rng = np.random.default_rng()
    shapes = v.shapes(2)
    arrays = {name: rng.integers(-3, 4, shape).astype(np.float32) for name, shape in (  # type: ignore[arg-type]
        ("x", shapes["x"]), ("w", shapes["w"]), ("bias", (filters,)), ("r", shapes["y"]))}
    arrays |= {"positive": np.zeros(shapes["y"], np.bool_), "y": poison(shapes["y"], dtypes.float32)}  # type: ignore
    assert compiled(arrays, {"n0": 2}) == 0
    bias = arrays["bias"] if layout == "NHWC" else arrays["bias"][:, None, None]
    t = kernels.reference(v, "y", {k: arrays[k] for k in "xw"}) + bias + arrays["r"]
    np.testing.assert_array_equal(arrays["y"], np.maximum(t, 0))
    np.testing.assert_array_equal(arrays["positive"], t > 0)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
def test_prologue(kernel: tuple[int, int]) -> None:
    """The input is relu(x) * scale[c] of bytes, and 2 outside of the image: evaluated where the patch is copied."""
    v = Convolution(6, 7, 5, 9, kernel, padding=ONE)
    plain = kernels.forward(v)
    contract = plain.body[0]
    assert isinstance(contract, Contract)
    load = contract.a
    assert isinstance(load, Load)
    inside = cast(Load("x", load.index, dtypes.int8, load.predicate, Const(2, dtypes.int8)), dtypes.float32)
    a = prim("mul", prim("max", inside, const(0.0, dtypes.float32)), Load("scale", (Axis("c"),), dtypes.float32))
    params = (Param("x", dtypes.int8, plain.params[0].shape, "in"), *plain.params[1:2],
              Param("scale", dtypes.float32, (5,), "in"), *plain.params[2:])
    body = Contract(contract.batch, contract.m, contract.n, contract.k, a, contract.b, "acc", contract.acc_dtype,
                    contract.body)
    compiled = Compiled(Kernel("prologue", params, plain.sizes, (body,)))
    rng = np.random.default_rng()
    x, scale = rng.integers(-5, 6, (3, 6, 7, 5)).astype(np.int8), rng.integers(-2, 3, 5).astype(np.float32)
    w = rng.integers(-3, 4, (*kernel, 5, 9)).astype(np.float32)
    y = poison((3, *v.out, 9), dtypes.float32)
    compiled({"x": x, "w": w, "scale": scale, "y": y}, {"n0": 3})
    padded = np.maximum(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=2), 0) * scale
    whole = Convolution(8, 9, 5, 9, kernel)
    np.testing.assert_array_equal(y, kernels.reference(whole, "y", {"x": padded, "w": w}))


# ---------------------------------------------------------------------------------------------
# One and three spatial axes; what is no convolution.


def _spatial(rank: int, result: str) -> tuple[Kernel, dict[str, tuple[Any, ...]]]:
    """A convolution over 1 or 3 axes with 3 taps, stride 2 along the last one, and padding 1."""
    out = [f"o{i}" for i in range(rank)]
    taps = [f"k{i}" for i in range(rank)]
    extents, steps = (4, 5, 9)[-rank:], (1, 1, 2)[-rank:]
    outs = [-(-n // s) for n, s in zip(extents, steps, strict=True)]
    batch = symbol("n0")
    at = [prim("sub", prim("add", prim("mul", Axis(p), index(s)), Axis(t)), index(1))
          for p, s, t in zip(out, steps, taps, strict=True)]
    terms = [prim("and", prim("le", index(0), e), prim("lt", e, size(n))) for e, n in zip(at, extents, strict=True)]
    inside = terms[0] if rank == 1 else prim("and", *terms[:2]) if rank == 2 else prim("and", prim("and", *terms[:2]),
                                                                                       terms[2])
    f = dtypes.float32
    x = Load("x", (Axis("n"), *at, Axis("c")), f, inside, Const(0.0, f))
    w = Load("w", (*(Axis(t) for t in taps), Axis("c"), Axis("f")), f)
    y = Load("y", (Axis("n"), *(Axis(p) for p in out), Axis("f")), f)
    loops = {"n": batch, **dict(zip(out, outs, strict=True)), **dict.fromkeys(taps, 3), "c": 6, "f": 10}

    def pairs(*names: str) -> tuple[tuple[str, Expr], ...]:
        return tuple((name, size(loops[name])) for name in names)

    shapes: dict[str, tuple[Any, ...]] = {
        "x": (batch, *extents, 6), "w": (*(3,) * rank, 6, 10), "y": (batch, *outs, 10)}
    groups = (("n", *out), ("f",), (*taps, "c")) if result == "y" else ((*taps, "c"), ("f",), ("n", *out))
    body = Store(result, (y if result == "y" else w).index, Var("acc", f))
    contract = Contract((), *(pairs(*names) for names in groups), x, w if result == "y" else y, "acc", f, (body,))
    params = tuple(Param(name, f, shape, "out" if name == result else "in") for name, shape in shapes.items()
                   if result == name or name == "x" or name == ("w" if result == "y" else "y"))
    return Kernel("spatial", params, ("n0",), (contract,)), shapes


@pytest.mark.parametrize("result", ["y", "w"])
@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int, result: str) -> None:
    kernel, shapes = _spatial(rank, result)
    rng = np.random.default_rng()
    arrays = {p.name: rng.integers(-3, 4, [dim.evaluate(s, {"n0": 3}) for s in p.shape]).astype(np.float32)
              for p in kernel.params}
    arrays[result] = np.full(arrays[result].shape, np.nan, np.float32)
    Compiled(kernel)(arrays, {"n0": 3})
    padded = np.pad(arrays["x"], ((0, 0), *((1, 1),) * rank, (0, 0)))
    steps = (1, 1, 2)[-rank:]
    outs = [int(s) for s in shapes["y"][1:-1]]
    want = np.zeros(arrays[result].shape)
    for taps in np.ndindex(*(3,) * rank):
        part = padded[(slice(None), *(slice(t, t + (o - 1) * s + 1, s)
                                      for t, o, s in zip(taps, outs, steps, strict=True)))]
        if result == "y":
            want += part @ arrays["w"][taps]
        else:
            want[taps] = np.tensordot(part, arrays["y"], (range(rank + 1),) * 2)
    np.testing.assert_array_equal(arrays[result], want)


def _cut(kernel: Kernel) -> Gather | Correlation | None:
    statement = kernel.body[0]
    assert isinstance(statement, Contract)
    return convolution.cut(kernel, statement, TARGETS["host"])


def test_what_is_recognised() -> None:
    v = Convolution(9, 9, 6, 16, (3, 3), padding=ONE)
    assert isinstance(_cut(kernels.forward(v)), Gather)
    assert isinstance(_cut(kernels.input_gradient(v)), Gather)
    assert isinstance(_cut(kernels.filter_gradient(v)), Correlation)
    assert _cut(kernels.forward(Convolution(9, 9, 6, 16, (1, 1)))) is None


def test_an_axis_used_alone_makes_no_window() -> None:
    """x[oy + ky] * oy: the operand is no function of the coordinate alone."""
    plain = kernels.forward(Convolution(9, 9, 6, 16, (3, 3)))
    contract = plain.body[0]
    assert isinstance(contract, Contract)
    a = prim("mul", contract.a, cast(Axis("oy"), dtypes.float32))
    body = Contract(contract.batch, contract.m, contract.n, contract.k, a, contract.b, "acc", contract.acc_dtype,
                    contract.body)
    kernel = Kernel("weighted", plain.params, plain.sizes, (body,))
    assert _cut(kernel) is None
    rng = np.random.default_rng()
    x, w = rng.integers(-3, 4, (2, 9, 9, 6)).astype(np.float32), rng.integers(-3, 4, (3, 3, 6, 16)).astype(np.float32)
    y = poison((2, 7, 7, 16), dtypes.float32)
    Compiled(kernel)({"x": x, "w": w, "y": y}, {"n0": 2})
    want = kernels.reference(Convolution(9, 9, 6, 16, (3, 3)), "y", {"x": x, "w": w}) * np.arange(7)[:, None, None]
    np.testing.assert_array_equal(y, want)


def test_groups_of_many_positions_are_interleaved() -> None:
    cuts = [_cut(kernels.forward(Convolution(16, 15, 8, 12, (3, 3), padding=ONE, groups=groups))) for groups in (1, 4)]
    assert [isinstance(cut, Gather) and cut.interleaves for cut in cuts] == [False, True]


def test_few_output_channels_leave_the_lanes_to_positions() -> None:
    cuts = [_cut(kernels.forward(Convolution(28, 28, 3, filters, (5, 5), padding=TWO))) for filters in (1, 6, 32)]
    assert [isinstance(cut, Gather) and cut.is_planar for cut in cuts] == [True, True, False]


def test_phases_add_only_the_taps_they_have() -> None:
    """5x5 taps at stride 2: the phases have 3 and 2 of them along each axis, told by the filter's predicate."""
    cut = _cut(kernels.input_gradient(Convolution(14, 14, 8, 32, (5, 5), (2, 2), padding=TWO)))
    assert isinstance(cut, Gather) and all(len(limit) == 1 for limit in cut.limits)
    assert not any(isinstance(e, Prim) for e in (cut.right,))
