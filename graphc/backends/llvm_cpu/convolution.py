"""Convolutions: which of the direct algorithms a Contract with windows gets, and the facts for launching it.

Owns that choice and nothing of either algorithm.  Invariant: the choice is a function of the kernel alone.

A convolution is a product of matrices of which one is redundant: each element of the image meets many windows.  So a
*patch* of the image is copied once, with the zeros of its padding, and the register tile reads it at computed places
(window_kernel.py); nothing is unfolded.  Two shapes of it occur, told apart by which axes of the windows are many:

    gather.py        many positions, few taps: forward, and the gradient of the input (of a strided convolution in
                     phases, each with the taps that it has).  A tile is positions by output channels, or, where these
                     are few, output channels by positions; all taps and channels are added in registers.
    correlation.py   few taps, many positions: the gradient of the filter.  A tile is taps and channels by output
                     channels; positions are added block by block.  Of a long batch each part is a sum of its own
                     (passes/lower_parts.py).

Convolutions of unknown height or width, and those of one tap and step, are products like any other (contract.py).
"""
from __future__ import annotations

import math
from typing import TypeAlias

from graphc.backends.llvm_cpu import correlation, gather
from graphc.backends.llvm_cpu.correlation_tiling import Correlation, correlate
from graphc.backends.llvm_cpu.gather_tiling import Gather, gathered
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.backends.llvm_cpu.window import convolution_of
from graphc.kernel.ir import Contract, Kernel
from graphc.kernel.target import Target

Cut: TypeAlias = Gather | Correlation


def cut(kernel: Kernel, statement: Contract, target: Target) -> Cut | None:
    """Return how `statement`, the work of `kernel`, is cut for `target`; None where it is no convolution."""
    found = convolution_of(kernel, statement)
    if found is None:
        return None
    if math.prod(w.frees for w in found.windows) < math.prod(w.summeds for w in found.windows):
        return correlate(kernel, found, target)
    return gathered(kernel, found, target)


def facts(how: Cut, sizes: dict[str, int]) -> tuple[int, float]:
    """Return the bytes of scratch of a worker, and the estimated ns of a work item at `sizes`."""
    match how:
        case Gather():
            return gather.scratch(how), gather.cost(how, sizes)
        case Correlation():
            return correlation.scratch(how), correlation.cost(how, sizes)


def emit(renderer: Renderer, kernel: Kernel, statement: Contract, how: Cut, context: Context) -> None:
    """Build the loop over the work items at the end of the current block."""
    match how:
        case Gather():
            gather.emit(renderer, kernel, statement, how, context)
        case Correlation():
            correlation.emit(renderer, kernel, statement, how, context)
