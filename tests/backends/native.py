"""Calls a compiled kernel by its address, as the run time would: pointer tables, sizes, scratch.

Owns the call.  Invariant: scratch is filled with a pattern before, so that reading it unwritten shows.
"""
from __future__ import annotations

import ctypes

import numpy as np

from graphc.backends.base import KernelInfo
from graphc.ir import dim
from graphc.kernel.ir import Kernel
from tests.backends.harness import Arrays

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
                          ctypes.c_int64, ctypes.c_void_p)


def call(address: int, info: KernelInfo, kernel: Kernel, arrays: Arrays, sizes: dict[str, int], claim: int = 0) -> int:
    """Run all work items, `claim` at a time (0: at once), last claims first.  Returns the lowest status but 0."""
    table = (ctypes.c_void_p * max(1, len(kernel.params)))(*(arrays[p.name].ctypes.data for p in kernel.params))
    values = (ctypes.c_int64 * max(1, len(kernel.sizes)))(*(sizes[n] for n in kernel.sizes))
    scratch = np.full(dim.evaluate(info.scratch, sizes) + 64, 0xA5, np.uint8)
    aligned = -(-scratch.ctypes.data // 64) * 64
    extent = dim.evaluate(info.extent, sizes)
    step = claim or max(1, extent)
    status = [_ENTRY(address)(begin, min(extent, begin + step), ctypes.addressof(table), ctypes.addressof(values), 0,
                              aligned) for begin in reversed(range(0, extent, step))]
    return min((s for s in status if s), default=0)
