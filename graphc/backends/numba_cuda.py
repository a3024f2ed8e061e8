"""Kernel IR as numba-cuda kernels: printed as Python source, compiled to PTX without a GPU.

Owns the CUDA form of kernels: one thread per iteration of the outermost parallel loops, grid-stride.
numba-cuda is imported when a kernel is compiled, never before.  Launching belongs to a run time.
Invariants: parameters are plain pointers and 64-bit sizes, in the order that `source` prints; no atomic
touches a result, so results do not change from run to run.
"""
from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any

from graphc.backends.numba_intrinsics import bitcast, float_function, pointer
from graphc.backends.python_scalars import LIBRARY, MATH, ROUNDING, SCALARS, memory_type
from graphc.backends.python_source import Printer, work_of
from graphc.errors import BackendError
from graphc.ir.dim import Size
from graphc.kernel.ir import Kernel

_THREAD = "cuda.grid(1)"


def source(kernel: Kernel) -> str:
    """Return `kernel` as the Python function that numba-cuda compiles.

    Parameters: one pointer per kernel parameter, one int64 per size, then `scratch` (scratch_bytes(kernel)
    per thread) and `status`, an int32 array of one element that holds 0 or what `status_of` decodes.
    """
    return _print(kernel)[0]


def scratch_bytes(kernel: Kernel) -> Size:
    """Return the bytes of scratch per thread."""
    return _print(kernel)[1].scratch


def status_of(kernel: Kernel, word: int) -> int:
    """Return the kernel's status for the value left in `status[0]`: 0, or the lowest failing site + 1."""
    return len(kernel.sites) - word + 1 if word else 0


def _print(kernel: Kernel) -> tuple[str, Printer]:
    work = work_of(kernel)
    sites = len(kernel.sites)
    # The largest word wins and stands for the lowest site.
    printer = Printer(kernel, lambda code: f"cuda.atomic.max(status, 0, {sites - code + 1})", scratch_base="own")
    if work.axes:
        printer.block(work.before)
        total = " * ".join(printer.size(extent) for _, extent in work.axes)
        head = f"for item in range({_THREAD}, {total}, cuda.gridsize(1)):"
    else:
        head = f"if {_THREAD} == 0:"
    with printer.inside(head):
        rest = "item"
        for at, (axis, extent) in reversed(list(enumerate(work.axes))):
            name = printer.bind(axis)
            if at == 0:
                printer.line(f"{name} = {rest}")
            else:
                printer.line(f"{name} = {rest} % {printer.size(extent)}")
                left = printer.fresh("left")
                printer.line(f"{left} = {rest} // {printer.size(extent)}")
                rest = left
        printer.block(work.body)
    names = [printer.names[p.name] for p in kernel.params] + [printer.names[n] for n in kernel.sizes]
    lines = [f"def {printer.fresh(kernel.name)}({', '.join([*names, 'scratch', 'status'])}):"]
    if printer.scratch != 0:
        lines.append(f"    own = {_THREAD} * {printer.size(printer.scratch)}")
    return "\n".join([*lines, *printer.lines]) + "\n", printer


def compile_to_ptx(kernel: Kernel, cc: tuple[int, int] = (9, 0)) -> str:
    """Return the PTX of `kernel` for a compute capability; needs numba-cuda, but no GPU and no driver.

    Raises BackendError where numba-cuda is missing or refuses the kernel.
    """
    if importlib.util.find_spec("numba_cuda") is None:  # numba.cuda itself exists without it, and is of no use
        raise BackendError("numba-cuda is not installed; install graphc[cuda]")
    text, _ = _print(kernel)
    names = dict(_namespace())
    exec(compile(text, f"<kernel {kernel.name}>", "exec"), names)
    types = names["types"]
    element = {name: types.CPointer(getattr(types, name)) for name in SCALARS}
    signature = (*(element[memory_type(p.dtype)] for p in kernel.params), *(types.int64 for _ in kernel.sizes),
                 types.CPointer(types.uint8), types.Array(types.int32, 1, "C"))
    try:
        ptx, _ = names["cuda"].compile(names[text[4:text.index("(")]], signature, device=False, abi="numba", cc=cc,
                                       output="ptx")
    except Exception as error:
        raise BackendError(f"numba_cuda cannot compile kernel {kernel.name}: {error}") from error
    return ptx if isinstance(ptx, str) else ptx.decode()


@functools.cache
def _namespace() -> dict[str, Any]:
    """Return the globals of printed kernels on CUDA: types, math, intrinsics and the library."""
    import numba.cuda
    from numba.cuda.extending import intrinsic

    cuda: Any = numba.cuda
    types: Any = cuda.types
    names: dict[str, Any] = {name: getattr(types, name) for name in SCALARS}
    names |= {name: getattr(math, name) for name in MATH} | {"inf": math.inf, "nan": math.nan}
    # Library functions are inlined into the kernel: compiled apart, they would ask for a device.
    names |= {"cuda": cuda, "types": types, "device": cuda.jit(device=True, inline="always")}
    for name in SCALARS:
        names[f"bits_{name}"] = bitcast(intrinsic, getattr(types, name))
        names[f"pointer_{name}"] = pointer(intrinsic, types, getattr(types, name))
    for name, arity in (*((name, 1) for name in ROUNDING), ("fma", 3)):  # libdevice's keep the type, math's do not
        names[name] = float_function(intrinsic, f"__nv_{name}f", f"__nv_{name}", arity)
    exec(compile(LIBRARY + _CUDA_LIBRARY + "".join(map(_saturating, SCALARS[:8])), "<kernel library>", "exec"), names)
    return names


# NVVM accepts few of LLVM's intrinsics, so these are written out.
_CUDA_LIBRARY = '''
@device
def maximum(a, b):
    return a if a > b or a != a else b

@device
def minimum(a, b):
    return a if a < b or a != a else b
'''


def _saturating(name: str) -> str:
    """Return the source of `to_<name>`: a float truncated to an integer, saturating, NaN to 0."""
    unsigned, bits = name.startswith("u"), int(name.lstrip("uint"))
    low, high = (0, 2 ** bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return f'''
@device
def to_{name}(x):
    if x != x:
        return {name}(0)
    if x <= {float(low)}:
        return {name}({low})
    if x >= {float(high + 1)}:
        return {name}({high})
    return {name}(x)
'''
