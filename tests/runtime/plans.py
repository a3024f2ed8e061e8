"""Hand-made plans over small kernels in LLVM text, and a builder for them: fixtures of the run time's tests."""
from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.backends.base import CompiledKernels, KernelInfo
from graphc.dtypes import DType, bool_, float32, int64
from graphc.ir.dim import Size, product, symbol
from graphc.kernel.ir import Kernel, Param, Site
from graphc.kernel.plan import Binding, Buffer, Call, Check, Plan, Slot, Step
from graphc.runtime.cache import Cache
from graphc.runtime.executor import Executor, Watch
from graphc.runtime.native import Native, compile_object, native
from graphc.runtime.program import HostFunction, Program, load_program
from graphc.runtime.variables import Variables
from graphc.runtime.walker import Walker

n0 = symbol("n0")
PARAMS = "(i64 %begin, i64 %end, ptr %buffers, ptr %sizes, i64 %worker, ptr %scratch)"


def _elementwise(name: str, inputs: int, body: str, kind: str = "float") -> str:
    """A kernel over its work items: %in0, %in1, .. are the elements, %out the result."""
    loads = "\n".join(f"""  %p{i} = getelementptr ptr, ptr %buffers, i64 {i}
  %b{i} = load ptr, ptr %p{i}
  %e{i} = getelementptr {kind}, ptr %b{i}, i64 %i
  %in{i} = load {kind}, ptr %e{i}""" for i in range(inputs))
    return f"""
define i32 @{name}{PARAMS} {{
entry:
  br label %test
test:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
{loads}
{body}
  %po = getelementptr ptr, ptr %buffers, i64 {inputs}
  %bo = load ptr, ptr %po
  %eo = getelementptr {kind}, ptr %bo, i64 %i
  store {kind} %out, ptr %eo
  %i.next = add i64 %i, 1
  br label %test
done:
  ret i32 0
}}
"""


TEXT = (
    _elementwise("add", 2, "  %out = fadd float %in0, %in1")
    + _elementwise("double", 1, "  %out = fmul float %in0, 2.0")
    + _elementwise("add_int", 2, "  %out = add i64 %in0, %in1", "i64")
    + _elementwise("copy_half", 1, "  %out = add i16 %in0, 0", "i16")
    + f"""
define i32 @less{PARAMS} {{  ; bool[] = int64[] < int64[]
  %a = load ptr, ptr %buffers
  %p1 = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %p1
  %p2 = getelementptr ptr, ptr %buffers, i64 2
  %out = load ptr, ptr %p2
  %x = load i64, ptr %a
  %y = load i64, ptr %b
  %c = icmp slt i64 %x, %y
  %z = zext i1 %c to i8
  store i8 %z, ptr %out
  ret i32 0
}}

define i32 @guard{PARAMS} {{  ; y[t] = x[t]; site 1 where x[t] < 0, site 0 where x[t] > 100; worst of the chunk
entry:
  %x = load ptr, ptr %buffers
  %p1 = getelementptr ptr, ptr %buffers, i64 1
  %y = load ptr, ptr %p1
  br label %test
test:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %body ]
  %status = phi i32 [ -1, %entry ], [ %status.next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %e = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %e
  %o = getelementptr float, ptr %y, i64 %i
  store float %v, ptr %o
  %low = fcmp olt float %v, 0.0
  %high = fcmp ogt float %v, 100.0
  %s1 = select i1 %low, i32 2, i32 -1
  %s2 = select i1 %high, i32 1, i32 %s1
  %less = icmp ult i32 %s2, %status
  %status.next = select i1 %less, i32 %s2, i32 %status
  %i.next = add i64 %i, 1
  br label %test
done:
  %none = icmp eq i32 %status, -1
  %result = select i1 %none, i32 0, i32 %status
  ret i32 %result
}}

define i32 @mark{PARAMS} {{  ; y[t] = 1 + what the worker's scratch holds after writing t there; busy for a while
entry:
  %y = load ptr, ptr %buffers
  br label %test
test:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %stored ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  store volatile i64 %i, ptr %scratch
  br label %busy
busy:
  %k = phi i64 [ 0, %body ], [ %k.next, %busy ]
  %k.next = add i64 %k, 1
  %seen = load volatile i64, ptr %scratch
  %again = icmp slt i64 %k, 200
  br i1 %again, label %busy, label %stored
stored:
  %o = getelementptr i64, ptr %y, i64 %i
  %v = add i64 %seen, 1
  store i64 %v, ptr %o
  %i.next = add i64 %i, 1
  br label %test
done:
  ret i32 0
}}
""")


def _kernel(name: str, ins: int, dtype: DType, out: DType, extent: Size = n0, shape: tuple[Size, ...] = (n0,),
            sites: tuple[Site, ...] = (), scratch: int = 0, grain: int = 16, cost: float = 1.0
            ) -> tuple[Kernel, KernelInfo]:
    params = (*(Param(f"x{i}", dtype, shape, "in") for i in range(ins)), Param("y", out, shape, "out"))
    return (Kernel(name, params, ("n0",) if shape else (), (), sites, (), (f"op_{name}",)),
            KernelInfo(name, extent, grain, scratch, cost))


KERNELS = {
    "add": _kernel("add", 2, float32, float32),
    "double": _kernel("double", 1, float32, float32),
    "add_int": _kernel("add_int", 2, int64, int64),
    "copy_half": _kernel("copy_half", 1, dtypes.bfloat16, dtypes.bfloat16),
    "less": _kernel("less", 2, int64, bool_, 1, ()),
    "guard": _kernel("guard", 1, float32, float32, sites=(
        Site("assert", "too large", "op_high"), Site("assert", "negative", "op_low"))),
    "mark": _kernel("mark", 0, int64, int64, scratch=8, grain=4, cost=300.0),
}
NAMES = tuple(KERNELS)


class PlanBuilder:
    """Collects buffers, steps and slots; every method returns a buffer's number or a step."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.slots: dict[str, list[Slot]] = {"feed": [], "state": [], "fetch": []}
        self.fetch_sources: list[int] = []
        self.constants: list[np.ndarray] = []
        self.arena: Size = 0
        self.read: list[bool] = []
        self.written: list[bool] = []

    def _add(self, dtype: DType, shape: Sequence[Size], role: str, source: int = -1, offset: Size = 0,
             base: int = -1) -> int:
        self.buffers.append(Buffer(dtype, tuple(shape), role, source, offset, base))
        return len(self.buffers) - 1

    def feed(self, dtype: DType, *shape: Size) -> int:
        self.slots["feed"].append(Slot(f"x{len(self.slots['feed'])}", dtype, shape))
        return self._add(dtype, shape, "feed", len(self.slots["feed"]) - 1)

    def state(self, name: str, dtype: DType, *shape: Size, read: bool = True, written: bool = True) -> int:
        self.slots["state"].append(Slot(name, dtype, shape))
        self.read.append(read)
        self.written.append(written)
        return self._add(dtype, shape, "state", len(self.slots["state"]) - 1)

    def constant(self, value: Any, dtype: DType) -> int:
        array = np.asarray(value, dtype.storage)
        self.constants.append(array)
        return self._add(dtype, array.shape, "constant", len(self.constants) - 1)

    def temp(self, dtype: DType, *shape: Size) -> int:
        offset = self.arena
        self.arena = offset + (product(shape) * dtype.size + 63) // 64 * 64
        return self._add(dtype, shape, "temp", -1, offset)

    def slice(self, base: int) -> int:
        b = self.buffers[base]
        return self._add(b.dtype, b.shape[1:], "slice", base=base)

    def fetch(self, dtype: DType, *shape: Size) -> int:
        """A fetch that kernels write."""
        buffer = self._add(dtype, shape, "fetch", len(self.slots["fetch"]))
        return self.fetch_from(buffer)

    def fetch_from(self, buffer: int) -> int:
        b = self.buffers[buffer]
        self.slots["fetch"].append(Slot(f"y{len(self.slots['fetch'])}", b.dtype, b.shape))
        self.fetch_sources.append(buffer)
        return buffer

    def call(self, name: str, *buffers: int) -> Call:
        kernel = KERNELS[name][0]
        sizes = (product(self.buffers[buffers[-1]].shape),) if kernel.sizes else ()
        return Call(NAMES.index(name), buffers, sizes)

    def plan(self, steps: Sequence[Step], bindings: Sequence[Binding] = (), checks: Sequence[Check] = ()) -> Plan:
        return Plan(tuple(k for k, _ in KERNELS.values()), tuple(self.buffers), tuple(steps), tuple(self.slots["feed"]),
                    tuple(self.slots["state"]), tuple(self.slots["fetch"]), tuple(self.fetch_sources), tuple(self.read),
                    tuple(self.written), tuple(self.constants), tuple(bindings), tuple(checks), self.arena,
                    {"op_low": "model.py:7:   y = guard(x)"})


@functools.cache
def store() -> Cache:
    return Cache(None)


@functools.cache
def driver() -> Native:
    return native(store())


@functools.cache
def compiled() -> CompiledKernels:
    return CompiledKernels(tuple(info for _, info in KERNELS.values()), (compile_object(TEXT, "kernels"),))


def program(plan: Plan, hosts: Sequence[HostFunction] = ()) -> Program:
    return load_program(plan, compiled(), hosts)


def executor(plan: Plan, variables: Variables | None = None, threads: int = 1, poison: bool = True,
             hosts: Sequence[HostFunction] = ()) -> Executor:
    return Executor(program(plan, hosts), variables or Variables(), driver(), threads, poison)


def walker(plan: Plan, variables: Variables | None = None, hosts: Sequence[HostFunction] = (),
           watch: Watch | None = None) -> Walker:
    """The same plan walked in Python, kernels called one by one through ctypes."""
    built = program(plan, hosts)
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
                            ctypes.c_int64, ctypes.c_void_p)

    def call(number: int, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> int:
        from graphc.ir import dim
        kernel, info = built.plan.kernels[number], built.infos[number]
        pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        numbers = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
        scratch = ctypes.create_string_buffer(64)
        extent = dim.evaluate(info.extent, dict(zip(kernel.sizes, sizes, strict=True)))
        return int(kind(built.addresses[number])(0, extent, pointers, numbers, 0, scratch))

    return Walker(built, variables or Variables(), call, watch)
