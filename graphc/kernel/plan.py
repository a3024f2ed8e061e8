"""The plan of a program: kernels, buffers and the table of steps, all sizes still symbolic.

Owns the records between lowering and run time; they are data alone and have a JSON form
(runtime/program.py), so that a second process, or a saved program, needs no compiler.
Knows kernels and sizes; knows nothing of graphs or machines.
Invariant: a step reads only buffers that a feed, a state, a constant or an earlier step wrote; two
temporaries whose lifetimes overlap share no byte (passes/check_memory.py proves it).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from graphc.dtypes import DType
from graphc.ir.dim import Size
from graphc.kernel.ir import Kernel


@dataclass(frozen=True, slots=True)
class Buffer:
    """A contiguous array.

    role: "feed" (number `source` of the feeds), "state" (number `source` of the states: the variable's
    own memory), "constant" (number `source` of the constants), "fetch" (number `source` of the fetches:
    the array handed to the user), "temp" (at byte `offset` of the arena), or "slice" (one row of buffer
    `base`, chosen by the loop that `base` is sliced in; see Loop.slices).
    """

    dtype: DType
    shape: tuple[Size, ...]
    role: str
    source: int = -1
    offset: Size = 0
    base: int = -1


@dataclass(frozen=True, slots=True)
class Call:
    """Run kernel number `kernel` with these buffers (one per parameter) and sizes (one per size symbol)."""

    kernel: int
    buffers: tuple[int, ...]
    sizes: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy all bytes of buffer `source` to buffer `target` (same dtype and number of elements)."""

    target: int
    source: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Run `body` again and again.

    count: number of iterations as a size; or count_buffer: an int32/int64 scalar buffer read when the
    loop starts; or condition: a bool scalar buffer read before each iteration (written before the loop,
    and again by the body).  Exactly one of them is given; the others are None.  With `condition`, `limit`
    bounds the iterations where it is given.
    slices: (slice buffer, reverse): before iteration i the slice is row i of its base (row count-1-i
    where reverse).  index: an int64 scalar buffer that holds i, or -1.
    taken: an int64 scalar buffer that receives the number of iterations run, or -1.
    """

    body: tuple[Step, ...]
    count: Size | None = None
    count_buffer: int | None = None
    condition: int | None = None
    limit: Size | None = None
    slices: tuple[tuple[int, bool], ...] = ()
    index: int = -1
    taken: int = -1


@dataclass(frozen=True, slots=True)
class Branch:
    """Run `then` where the bool scalar buffer `predicate` holds, else `orelse`."""

    predicate: int
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """Call host function number `function` with these buffers as arrays; it writes its outputs."""

    function: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


Step: TypeAlias = Call | Copy | Loop | Branch | Host


@dataclass(frozen=True, slots=True)
class Binding:
    """How a size symbol gets its number: `axis` of feed `feed`, or, with `element` >= 0 and axis -1,
    that element of the fed integer array's value."""

    symbol: str
    feed: int
    axis: int
    element: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold of the sizes of a run.

    kind "equal": left == right, else the user's error `message` (with {left} and {right} filled in) at
    op `op`.  kind "assume": left == right was assumed when compiling; where it fails and one side is 1,
    another variant of the program is compiled (with the size that is 1 known), else the user's error.
    kind "divides": left is a multiple of right.  kind "at_most": left <= right.
    """

    kind: str
    left: Size
    right: Size
    message: str
    op: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A fed or fetched tensor or a variable: its name in the graph, dtype and shape."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A whole program, still without machine code.

    feeds, states, fetches: what the outside gives and gets.  initialised: for each state, whether its
    old value is read (then it must be initialised before a run).  written: for each state, whether the
    program writes it.  fetch_sources: for each fetch, the buffer its value is taken from: its own
    "fetch" buffer when a kernel writes the user's array directly, else any other buffer (copied).
    constants: arrays (storage dtypes).  arena: bytes of the arena.  lines: graph op name -> the user's
    line as text, for the errors of Guard sites and checks.
    """

    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    feeds: tuple[Slot, ...]
    states: tuple[Slot, ...]
    fetches: tuple[Slot, ...]
    fetch_sources: tuple[int, ...]
    initialised: tuple[bool, ...]
    written: tuple[bool, ...]
    constants: tuple[np.ndarray, ...]
    bindings: tuple[Binding, ...]
    checks: tuple[Check, ...]
    arena: Size
    lines: dict[str, str]
