"""The backend "numba_cpu": kernel IR as readable Python, compiled by Numba to native functions.

Owns the C entry of such kernels and the few intrinsics that Numba lacks.  Numba is imported when a
kernel is compiled, never before.  Work items are the iterations of the outermost parallel loop.
Invariant: the compiled function follows the calling convention of base.py, touches no Python object and
needs no GIL.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from graphc.backends.base import CompiledKernels, KernelInfo
from graphc.backends.numba_intrinsics import bitcast, float_function, pointer, remainder, saturating
from graphc.backends.python_scalars import LIBRARY, MATH, ROUNDING, SCALARS, memory_type
from graphc.backends.python_source import Printer, Work, work_of
from graphc.errors import BackendError
from graphc.kernel import cost
from graphc.kernel.ir import Kernel
from graphc.kernel.text import format_kernel
from graphc.options import Options

CLAIM_CYCLES = 8000.0
NS_PER_CYCLE = 0.3


def source(kernel: Kernel) -> str:
    """Return `kernel` as the Python function that Numba compiles: int32 status of work items begin .. end-1."""
    return _print(kernel)[0]


def _print(kernel: Kernel) -> tuple[str, Work, Printer]:
    work = work_of(kernel, depth=1)
    printer = Printer(kernel, lambda code: f"status = {code} if status == 0 else min(status, {code})")
    for i, name in enumerate(kernel.sizes):
        printer.line(f"{printer.names[name]} = sizes[{i}]")
    for i, p in enumerate(kernel.params):
        printer.line(f"{printer.names[p.name]} = pointer_{memory_type(p.dtype)}(buffers[{i}], 0)")
    printer.line("status = 0")
    printer.block(work.before)
    axis = printer.bind(work.axes[0][0]) if work.axes else printer.fresh("once")
    with printer.inside(f"for {axis} in range(begin, end):"):
        printer.block(work.body)
    printer.line("return int32(status)")
    head = f"def {printer.fresh(kernel.name)}(begin, end, buffers, sizes, worker, scratch):"
    return "\n".join([head, *printer.lines]) + "\n", work, printer


class NumbaBackend:
    """Compiles each kernel with Numba; `CompiledKernels.addresses` holds one C function per kernel."""

    name = "numba_cpu"

    def compile(self, kernels: Sequence[Kernel], options: Options) -> CompiledKernels:
        """Return the compiled kernels; equal ones share one function.  Raises BackendError for a target other
        than the host, and for a kernel that Numba refuses."""
        if options.target != "host":
            raise BackendError(f"numba_cpu compiles for the host alone, not for {options.target!r}")
        compiled: dict[str, tuple[KernelInfo, Any]] = {}
        keys = [format_kernel(k) for k in kernels]
        for key, kernel in zip(keys, kernels, strict=True):
            if key not in compiled:
                compiled[key] = _compile(kernel)
        found = [compiled[key] for key in keys]
        return CompiledKernels(tuple(info for info, _ in found), (), tuple(f.address for _, f in found),
                               keepalive=tuple(f for _, f in found))


def _compile(kernel: Kernel) -> tuple[KernelInfo, Any]:
    text, work, printer = _print(kernel)
    names = dict(_namespace())
    exec(compile(text, f"<kernel {kernel.name}>", "exec"), names)
    function = names[text[4:text.index("(")]]
    try:
        compiled = names["c_function"](function)
    except Exception as error:
        raise BackendError(f"numba_cpu cannot compile kernel {kernel.name}: {error}") from error
    extent = work.axes[0][1] if work.axes else 1
    per_item = cost.cycles(kernel.body, 4) / max(1, cost.typical(extent))
    info = KernelInfo(kernel.name, extent, max(1, int(CLAIM_CYCLES / max(1.0, per_item))), printer.scratch,
                      per_item * NS_PER_CYCLE)
    return info, compiled


@functools.cache
def _namespace() -> dict[str, Any]:
    """Return the globals of printed kernels: types, math, intrinsics and the library."""
    import numba
    import numba.types
    from numba.extending import intrinsic

    types: Any = numba.types
    names: dict[str, Any] = {name: getattr(types, name) for name in SCALARS}
    names |= {name: getattr(math, name) for name in MATH if name != "fmod"} | {"inf": math.inf, "nan": math.nan}
    names["fmod"] = remainder(intrinsic)
    for name, arity in (*((name, 1) for name in ROUNDING), ("maximum", 2), ("minimum", 2), ("fma", 3)):
        names[name] = float_function(intrinsic, f"llvm.{name}.f32", f"llvm.{name}.f64", arity)
    for name in SCALARS:
        names[f"bits_{name}"] = bitcast(intrinsic, getattr(types, name))
        names[f"pointer_{name}"] = pointer(intrinsic, types, getattr(types, name))
        if "float" not in name:
            names[f"to_{name}"] = saturating(intrinsic, getattr(types, name))
    names["device"] = numba.njit(error_model="numpy")
    exec(compile(LIBRARY, "<kernel library>", "exec"), names)
    signature = types.int32(types.int64, types.int64, types.CPointer(types.voidptr), types.CPointer(types.int64),
                            types.int64, types.voidptr)
    names["c_function"] = numba.cfunc(signature, error_model="numpy")
    return names
