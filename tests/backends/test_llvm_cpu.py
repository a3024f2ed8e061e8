"""llvm_cpu against the references of the sample kernels, on every target that this machine runs; its
objects on every target it can name."""
from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from graphc import dtypes
from graphc.backends.interp import run as interpret
from graphc.backends.llvm_cpu.codegen import LlvmCpu
from graphc.dtypes import float32, int32, int64
from graphc.ir import dim
from graphc.ir.dim import symbol
from graphc.kernel import target
from graphc.kernel.ir import (
    Axis,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Param,
    Random,
    Reduce,
    Scatter,
    Store,
    Var,
    While,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from graphc.options import Options
from tests.backends.harness import Arrays, assert_close, check, poison
from tests.backends.kernels import SAMPLES
from tests.backends.llvm_native import BACKEND, Native, runnable

MACHINES = runnable()
N0, N1 = symbol("n0"), symbol("n1")
i, j = Axis("i"), Axis("j")


@cache
def native(name: str) -> Native:
    """Return the loader of one target, shared by all tests."""
    return Native(MACHINES[name])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SAMPLES)
def test_sample(name: str, machine: str) -> None:
    for seed, sizes in enumerate(SAMPLES[name].sizes):
        check(SAMPLES[name], native(machine), sizes, seed)


# ---------------------------------------------------------------------------------------------
# Objects.


def undefined_symbols(code: bytes) -> set[str]:
    """Return the names that an ELF64 object leaves to others."""
    assert code[:6] == b"\x7fELF\x02\x01"
    at, = struct.unpack_from("<Q", code, 0x28)
    entry, count = struct.unpack_from("<HH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, at + n * entry) for n in range(count)]
    names: set[str] = set()
    for header in headers:
        if header[1] != 2:  # SHT_SYMTAB
            continue
        strings = headers[header[6]][4]
        for where in range(header[4] + 24, header[4] + header[5], 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, where)
            if section == 0:
                end = code.index(b"\0", strings + name)
                names.add(code[strings + name:end].decode())
    return names


@pytest.mark.parametrize("machine", target.NAMED)
def test_objects_need_nothing(machine: str) -> None:
    backend = LlvmCpu()
    for sample in SAMPLES.values():
        code = backend.object_code(sample.kernel, target.named(machine))
        assert undefined_symbols(code) <= {"memcpy", "memset"}, sample.name


def test_undefined_symbols_are_found() -> None:
    import llvmlite.binding as llvm

    backend = LlvmCpu()
    backend.object_code(SAMPLES["axpy"].kernel, target.named("x86-64"))  # LLVM is initialised
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine()
    module = llvm.parse_assembly('target triple = "x86_64-unknown-linux-gnu"\ndeclare double @cosh(double)\n'
                                 "define double @f(double %x) {\n %y = call double @cosh(double %x)\n ret double %y\n}")
    assert undefined_symbols(machine.emit_object(module)) == {"cosh"}


def test_compile_names_equal_kernels_once() -> None:
    axpy, relu = SAMPLES["axpy"].kernel, SAMPLES["bias_relu"].kernel
    again = Kernel("other_name", axpy.params, axpy.sizes, axpy.body, axpy.sites, axpy.aliases, ("provenance",))
    compiled = LlvmCpu().compile([axpy, relu, again], Options(target="x86-64"))
    assert compiled.infos[0].symbol == compiled.infos[2].symbol != compiled.infos[1].symbol
    assert len(compiled.objects) == 2
    assert LlvmCpu().key(axpy, Options(target="x86-64")) == compiled.infos[0].symbol
    assert LlvmCpu().key(axpy, Options(target="x86-64-v3")) != compiled.infos[0].symbol


def test_text_is_the_same_every_time() -> None:
    for name in ("adam", "softmax", "random", "trigonometric_f32", "dense"):
        kernel = SAMPLES[name].kernel
        assert LlvmCpu().llvm_text(kernel, target.named("x86-64-v3")) == \
            LlvmCpu().llvm_text(kernel, target.named("x86-64-v3")), name


def test_unknown_target() -> None:
    with pytest.raises(ValueError, match="unknown target 'z80'"):
        LlvmCpu().compile([SAMPLES["axpy"].kernel], Options(target="z80"))


# ---------------------------------------------------------------------------------------------
# Work items, memory.


def given(name: str, sizes: dict[str, int], seed: int = 0) -> Arrays:
    """Return the arrays of a sample, outputs poisoned."""
    sample = SAMPLES[name]
    inputs = sample.inputs(np.random.default_rng(seed), sizes)
    return {p.name: poison(tuple(dim.evaluate(s, sizes) for s in p.shape), p.dtype) if p.role == "out"
            else np.ascontiguousarray(inputs[p.name]) for p in sample.kernel.params}


@pytest.mark.parametrize("name", SAMPLES)
def test_parts_give_the_bits_of_the_whole(name: str) -> None:
    sizes = SAMPLES[name].sizes[-1]
    whole, parts = given(name, sizes), given(name, sizes)
    run = native("host")
    assert run(SAMPLES[name].kernel, whole, sizes) == run(SAMPLES[name].kernel, parts, sizes, claim=1)
    for key in whole:
        assert whole[key].tobytes() == parts[key].tobytes(), key


class Fenced:
    """Copies of arrays that end (or begin) at a page which must not be touched."""

    def __init__(self, arrays: Arrays, at_end: bool) -> None:
        self._maps: list[mmap.mmap] = []
        self.arrays = {name: self._place(a, at_end) for name, a in arrays.items()}

    def _place(self, a: np.ndarray, at_end: bool) -> np.ndarray:
        page = mmap.PAGESIZE
        inside = -(-max(a.nbytes, 1) // page) * page
        memory = mmap.mmap(-1, inside + 2 * page)
        self._maps.append(memory)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None, use_errno=True)
        for fence in (base, base + page + inside):
            assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
        offset = page + (inside - a.nbytes if at_end else 0)
        placed = np.frombuffer(memory, a.dtype, a.size, offset).reshape(a.shape)
        placed[...] = a
        return placed


@pytest.mark.parametrize("at_end", (True, False), ids=("over", "under"))
@pytest.mark.parametrize("machine", MACHINES)
def test_no_access_outside_of_buffers(machine: str, at_end: bool) -> None:
    for name, sample in SAMPLES.items():
        for sizes in sample.sizes[-2:]:
            arrays = given(name, sizes)
            fenced = Fenced(arrays, at_end)
            native(machine)(sample.kernel, fenced.arrays, sizes)
            native(machine)(sample.kernel, arrays, sizes)
            for key, a in arrays.items():
                assert fenced.arrays[key].tobytes() == a.tobytes(), f"{name}: {key}"


def line(name: str, body: tuple, *params: Param) -> Kernel:
    """Return a kernel over one parallel axis i < n0."""
    return Kernel(name, params, ("n0",), (For("i", size(N0), body, True),))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_tail(machine: str) -> None:
    x = Load("x", (i,), float32)
    kernel = line("tails", (Store("y", (i,), prim("add", x, const(1.0, float32))),),
                  Param("x", float32, (N0,), "in"), Param("y", float32, (N0,), "out"))
    lanes = MACHINES[machine].lanes(float32)
    rng = np.random.default_rng()
    for n in range(2 * 4 * lanes + 2):
        arrays = {"x": rng.normal(size=n).astype(np.float32), "y": np.full(n + 64, np.nan, np.float32)}
        native(machine)(kernel, arrays, {"n0": n})
        np.testing.assert_array_equal(arrays["y"][:n], arrays["x"] + 1)
        assert np.isnan(arrays["y"][n:]).all()


@pytest.mark.parametrize("shift", (0, 1, 5, 15))
def test_streaming_stores(shift: int) -> None:
    """Outputs larger than the last cache, at any alignment, split at any block."""
    machine = MACHINES["host"]
    small = target.Target.from_features(machine.triple, machine.cpu, machine.features, l3=1 << 12)
    kernel = line("stream", (Let("v", prim("mul", Load("x", (i,), float32), const(3.0, float32))),
                             Store("y", (i,), Var("v", float32)), Store("z", (i,), prim("neg", Var("v", float32)))),
                  Param("x", float32, (N0,), "in"), Param("y", float32, (N0,), "out"),
                  Param("z", float32, (N0,), "out"))
    kernel = replace(kernel, aliases=(("y", "x"),))
    if machine.triple.startswith("x86_64"):
        assert "nontemporal" in BACKEND.llvm_text(kernel, small)
    run = Native(small)
    for n in (1, 16, 600, 5003, 70001):
        x = np.random.default_rng().normal(size=n).astype(np.float32)
        y, z = (np.full(n + 96, np.nan, np.float32) for _ in range(2))
        arrays = {"x": x, "y": y[shift:], "z": z[shift + 16:]}
        run(kernel, arrays, {"n0": n}, claim=1)
        np.testing.assert_array_equal(y[shift:shift + n], 3 * x)
        np.testing.assert_array_equal(z[shift + 16:shift + 16 + n], -3 * x)
        assert np.isnan(y[:shift]).all() and np.isnan(y[shift + n:]).all()
        assert np.isnan(z[:shift + 16]).all() and np.isnan(z[shift + 16 + n:]).all()
        run(kernel, {"x": (again := x.copy()), "y": again, "z": arrays["z"]}, {"n0": n})
        np.testing.assert_array_equal(again, 3 * x)


# ---------------------------------------------------------------------------------------------
# What the samples do not reach.


def cases() -> Iterator[tuple[Kernel, Arrays, dict[str, int], dict[str, np.ndarray]]]:
    """Yield kernel, arrays, sizes, expected outputs."""
    rng = np.random.default_rng()
    n = 77
    x = rng.normal(size=n).astype(np.float32)
    xs = Param("x", float32, (N0,), "in")
    y = Param("y", float32, (N0,), "out")
    # A Local inside of a vector loop: one copy per lane.
    table = (Local("t", float32, (5,)),
             For("j", index(5), (Store("t", (j,), prim("mul", Load("x", (i,), float32), cast(j, float32))),)),
             Reduce(("s",), ("sum",), "j", index(5), (), (Load("t", (prim("sub", index(4), j),), float32),)),
             Store("y", (i,), Var("s", float32)))
    yield line("lane_local", table, xs, y), {"x": x}, {"n0": n}, {"y": sum((x * np.float32(k) for k in (4, 3, 2, 1)),
                                                                            np.zeros_like(x))}
    # Read backwards, and by a stride.
    last = prim("sub", prim("sub", size(N0), index(1)), i)
    yield (line("backwards", (Store("y", (i,), Load("x", (last,), float32)),), xs, y), {"x": x}, {"n0": n},
           {"y": x[::-1]})
    strided = Load("x", (prim("mul", i, index(3)),), float32)
    yield (line("strided", (Store("y", (i,), strided),), Param("x", float32, (N0 * 3,), "in"), y),
           {"x": np.arange(3 * n, dtype=np.float32)}, {"n0": n}, {"y": np.arange(0, 3 * n, 3, dtype=np.float32)})
    # Lanes that leave a While at different times, under a mask.
    count = (If(prim("lt", const(0.0, float32), Load("x", (i,), float32)), (
        While(("v", "c"), (Load("x", (i,), float32), const(0, int32)),
              prim("lt", Var("v", float32), const(10.0, float32)), (),
              (prim("mul", Var("v", float32), const(2.0, float32)), prim("add", Var("c", int32), const(1, int32)))),
        Store("y", (i,), cast(Var("c", int32), float32))), (Store("y", (i,), const(-1.0, float32)),)),)
    doublings = np.where(x > 0, np.ceil(np.log2(10 / np.abs(x))), -1).astype(np.float32)
    yield line("lane_while", count, xs, y), {"x": x}, {"n0": n}, {"y": doublings}
    # Quotients of an index that no affine form tells.
    wide = rng.normal(size=(n, 7)).astype(np.float32)
    turned = Load("x", (prim("floormod", i, size(N0)), prim("floordiv", i, size(N0))), float32)
    yield (Kernel("unaffine", (Param("x", float32, (N0, 7), "in"), Param("y", float32, (N0 * 7,), "out")), ("n0",),
                  (For("i", size(N0 * 7), (Store("y", (i,), turned),), True),)),
           {"x": wide}, {"n0": n}, {"y": wide.T.reshape(-1)})
    # Scatter along a loop that could be a vector: duplicates in order.
    where = rng.integers(0, 9, n)
    yield (Kernel("ordered", (Param("w", int64, (N0,), "in"), Param("x", float32, (N0,), "in"),
                              Param("y", float32, (9,), "inout")), ("n0",),
                  (For("i", size(N0), (Scatter("y", (Load("w", (i,), int64),), Load("x", (i,), float32), "set"),)),)),
           {"w": where, "x": x, "y": np.zeros(9, np.float32)}, {"n0": n},
           {"y": np.array([x[where == v][-1] if (where == v).any() else 0 for v in range(9)], np.float32)})
    # A predicated read far outside of an empty buffer.
    never = Load("e", (prim("add", i, index(1 << 40)),), float32, prim("lt", i, index(0)), const(2.5, float32))
    yield (line("never", (Store("y", (i,), never),), Param("e", float32, (0,), "in"), y),
           {"e": np.empty(0, np.float32)}, {"n0": n}, {"y": np.full(n, 2.5, np.float32)})
    # A dear scalar that does not depend on the loop.
    scalar = prim("exp", Load("s", (), float32))
    yield (line("hoisted", (Store("y", (i,), prim("mul", Load("x", (i,), float32), scalar)),),
                Param("s", float32, (), "in"), xs, y), {"s": np.zeros((), np.float32), "x": x}, {"n0": n}, {"y": x})


@pytest.mark.parametrize("machine", MACHINES)
def test_corners(machine: str) -> None:
    for kernel, arrays, sizes, expected in cases():
        full = {p.name: poison(tuple(dim.evaluate(s, sizes) for s in p.shape), p.dtype) for p in kernel.params}
        full |= {name: np.ascontiguousarray(a).copy() for name, a in arrays.items()}
        assert native(machine)(kernel, full, sizes) == 0
        for name, want in expected.items():
            assert_close(kernel.name, full[name], want, kernel.param(name).dtype)


def test_hoisted_scalar_leaves_the_loop() -> None:
    kernel = next(k for k, *_ in cases() if k.name == "hoisted")
    text = BACKEND.llvm_text(kernel, target.named("x86-64-v3"))
    assert text.count("call float @exp.f32") == 1


def test_double_rounding_to_float16() -> None:
    """float64 -> float16 rounds once: 1 + 2^-11 + 2^-40 is above the tie that float32 would see."""
    f64, f16 = dtypes.float64, dtypes.float16
    kernel = line("halves", (Store("y", (i,), cast(Load("x", (i,), f64), f16)),), Param("x", f64, (N0,), "in"),
                  Param("y", f16, (N0,), "out"))
    x = np.array([1 + 2.0 ** -11 + 2.0 ** -40, 1 + 3 * 2.0 ** -11 - 2.0 ** -40, 65519.999, 65520.0, 1e300, -2.0 ** -25,
                  -2.0 ** -25 * (1 + 2.0 ** -40), np.nan, -np.inf])
    for machine in MACHINES:
        y = np.zeros(x.size, np.float16)
        native(machine)(kernel, {"x": x, "y": y}, {"n0": x.size})
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(y, x.astype(np.float16), err_msg=machine)


def random_pairs(columns: int) -> Kernel:
    """Return a kernel that takes words e & -2 and e | 1 of the stream at e = row * columns + column."""
    u64, u32 = dtypes.uint64, dtypes.uint32
    e = Var("e", int64)
    lets, stores = [Let("e", prim("add", prim("mul", i, index(columns)), j))], []
    for name, at in (("y", prim("and", e, index(-2))), ("z", prim("or", e, index(1))), ("w", e)):
        block = cast(prim("shr", Var("at_" + name, int64), index(2)), u64)
        low = prim("add", Load("state", (index(0),), u64), block)
        carry = cast(prim("lt", Var("low_" + name, u64), block), u64)
        word = Random(Var("low_" + name, u64), prim("add", Load("state", (index(1),), u64), carry),
                      Load("state", (index(2),), u64), prim("and", Var("at_" + name, int64), index(3)))
        lets += [Let("at_" + name, at), Let("low_" + name, low)]
        stores.append(Store(name, (i, j), word))
    outputs = (Param(name, u32, (N0, columns), "out") for name in "yzw")
    return Kernel("pairs", (Param("state", u64, (3,), "in"), *outputs), ("n0",), (
        For("i", size(N0), (For("j", index(columns), (*lets, *stores), True),), True),))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("columns", (3, 64, 70, 300))
def test_random_words_by_blocks(columns: int, machine: str) -> None:
    kernel, sizes = random_pairs(columns), {"n0": 5}
    if columns % 4 == 0:
        assert "@philox.blocks" in BACKEND.llvm_text(kernel, MACHINES[machine])
    state = np.random.default_rng().integers(0, 1 << 64, 3, dtype=np.uint64)
    state[0] = np.uint64((1 << 64) - 9)  # the low half of the counter wraps
    ours, theirs = ({"state": state} | {n: poison((5, columns), dtypes.uint32) for n in "yzw"} for _ in range(2))
    assert native(machine)(kernel, ours, sizes) == interpret(kernel, theirs, sizes) == 0
    for name in "yzw":
        np.testing.assert_array_equal(ours[name], theirs[name])
