"""What a backend is: it turns kernels into callables and runs step tables.

Owns the protocol and the record of a compiled kernel.  Knows kernel IR; knows nothing of graph ops,
so N ops and M backends never become N x M pieces of code.

The native calling convention (llvm_cpu; numba_cpu follows it too), one C function per kernel:

    int32 kernel(int64 begin, int64 end, void **buffers, const int64 *sizes, int64 worker, void *scratch)

runs the work items begin <= t < end of the kernel's parallel extent.  buffers: one address per
parameter, in order, 64-byte aligned where the arena supplies them and aligned to the element always.
sizes: one int64 per `Kernel.sizes`, in order.  scratch: `scratch` bytes, 64-byte aligned, private to
this worker; never read before written.  Returns 0, or the lowest failing site + 1.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphc.ir.dim import Size
from graphc.kernel.ir import Kernel
from graphc.options import Options


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """How to launch one compiled kernel.  All sizes are over the kernel's own symbols.

    symbol: the function's name in the object code.  extent: number of work items.  grain: work items
    that one claim takes; a function of the kernel and the target alone, so that results never depend
    on the number of threads.  scratch: bytes per worker.  cost: estimated ns of one work item, from
    which the driver decides whether waking other threads pays.
    """

    symbol: str
    extent: Size
    grain: int
    scratch: Size
    cost: float


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """Machine code of several kernels: `objects` are relocatable object files, their order that of no
    importance; infos[i] belongs to the i-th kernel given.  Equal kernels share one symbol.

    A backend that compiles in process gives no objects but, per kernel, the address of a C function
    (`addresses`, valid while `keepalive` lives); one that generates no code gives Python callables
    `(begin, end, arrays, sizes) -> status` (`callables`).  Such kernels cannot be cached on disk.
    """

    infos: tuple[KernelInfo, ...]
    objects: tuple[bytes, ...]
    addresses: tuple[int, ...] = ()
    callables: tuple[KernelCallable, ...] = ()
    keepalive: object = None


class KernelCallable(Protocol):
    """A kernel that Python runs."""

    def __call__(self, begin: int, end: int, arrays: Mapping[str, np.ndarray[Any, Any]],
                 sizes: Mapping[str, int]) -> int:
        """Run work items begin <= t < end on stored arrays by parameter name.  Returns the status."""
        ...


class Backend(Protocol):
    """A code generator for one kind of machine."""

    name: str

    def compile(self, kernels: Sequence[Kernel], options: Options) -> CompiledKernels:
        """Compile `kernels` for `options.target`.  Raises BackendError, naming the kernel."""
        ...
