"""Aligned memory owned by NumPy.

Owns the one way in which run time memory is obtained.  Knows nothing of plans.
Invariant: every block starts at a multiple of 64 bytes (a cache line, an AVX-512 register) and lives as
long as the array that was returned, or any view of it.
"""
from __future__ import annotations

import os
from typing import Any

import numpy as np

ALIGNMENT = 64


def aligned_empty(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return `nbytes` bytes (uint8 [nbytes]) with undefined contents.  Raises MemoryError."""
    if nbytes > _physical_bytes():
        raise MemoryError(f"{nbytes} bytes are more than this machine's memory")
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -address(block) % ALIGNMENT
    return block[start:start + nbytes]


def aligned_copy(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a contiguous, aligned copy of `array`.  Raises MemoryError."""
    copy: np.ndarray[Any, Any] = aligned_empty(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def address(array: np.ndarray[Any, Any]) -> int:
    """Return where the first element of `array` lies."""
    where: int = array.__array_interface__["data"][0]
    return where


def view_at(where: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the memory at `where` as an array; it owns nothing, so the caller keeps the memory alive."""
    return np.asarray(_Window(where, shape, dtype))


class _Window:
    """An address dressed up for `np.asarray`."""

    __slots__ = ("__array_interface__",)

    def __init__(self, where: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {"version": 3, "data": (where, False), "shape": shape, "typestr": dtype.str}


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not told by this system: let the allocator decide
        return 1 << 62
