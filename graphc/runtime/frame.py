"""Frames: the memory of one run of a program, with every size and address filled in.

Owns the translation of a plan's steps into the driver's table (driver.py tells the layout) and the arena,
feed and fetch memory that the table points to.  Knows programs and variables; knows nothing of sessions.

The table of a plan has one shape for all sizes, so it is written once (`Layout`) as a template with lists
of what is to be filled in; binding sizes is then a handful of array operations, whatever the plan's size.
Invariant: every address in a frame's table points into memory that the frame, its program or its
variables keep alive, or, for lent feeds and fetches, into an array that the runner holds during the run.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes, errors
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.plan import Branch, Buffer, Call, Copy, Host, Loop, Plan, Step
from graphc.runtime import driver as d
from graphc.runtime.memory import ALIGNMENT, address, aligned_empty, view_at
from graphc.runtime.native import Native
from graphc.runtime.program import Program, SizeTable
from graphc.runtime.threads import HOT_NS
from graphc.runtime.variables import Variables

LEND_BYTES = 1 << 15  # feeds and fetches up to this size are copied, larger ones used where they are

WORD = 8
_NO_LIMIT = 2**63 - 1


class Layout:
    """The step table of a program, written once, and what every binding of sizes must fill in."""

    def __init__(self, program: Program) -> None:
        plan = program.plan
        self.program = program
        self.sizes = SizeTable()
        self.origins: list[Step] = []       # plan steps by the number in a step's last word
        self.arena = self.sizes.add(plan.arena)
        self.shapes = [[self.sizes.add(s) for s in b.shape] for b in plan.buffers]
        self.slot_shapes = {role: [[self.sizes.add(s) for s in slot.shape] for slot in slots] for role, slots in
                            (("feed", plan.feeds), ("state", plan.states), ("fetch", plan.fetches))}
        self.scratch: list[int] = []        # sizes: scratch bytes of each call
        self.step_count = 2 + _count(plan.steps)
        self.cells = d.HEADER_WORDS + d.STEP_WORDS * self.step_count
        self.feed_words = self.cells + len(plan.buffers)
        self.fetch_words = self.feed_words + len(plan.feeds)
        self._words = [0] * (self.fetch_words + len(plan.fetches))
        self._next_step = 0
        self._relative: list[int] = []      # positions that hold an offset from the table's start
        self._sized: list[tuple[int, int]] = []          # (position, size)
        self._calls: list[tuple[int, int, int, float]] = []  # (position of the step, extent, grain, cost)
        self._uses: list[list[int]] = [[] for _ in plan.buffers]  # where each buffer's address is wanted
        self._write(plan)

    # -- writing the template -------------------------------------------------------------------

    def _write(self, plan: Plan) -> None:
        link = self._step(d.SKIP)
        self._steps(plan.steps)
        self._step(d.END)
        assert self._next_step == self.step_count
        moving = {"feed": self.feed_words, "fetch": self.fetch_words}
        patches = []
        for number, buffer in enumerate(plan.buffers):
            if buffer.role in moving:
                source = moving[buffer.role] + buffer.source
                patches += [(where, source) for where in (self.cells + number, *self._uses[number])]
        self.link_step = link
        self._point(link, self._patches([(where, source, None, False) for where, source in patches]))
        self._words[link + 1] = len(patches)
        self._words[d.FRAME_FIRST] = WORD * d.HEADER_WORDS
        self._relative.append(d.FRAME_FIRST)
        self._words[d.FRAME_QUANTUM], self._words[d.FRAME_INTERVAL] = d.QUANTUM_NS, d.INTERVAL_NS

        self.template = np.array(self._words, np.int64)
        self.relative = np.array(self._relative, np.intp)
        positions, numbers = zip(*self._sized, strict=True) if self._sized else ((), ())
        self.sized_at, self.sized = np.array(positions, np.intp), np.array(numbers, np.intp)
        self.call_at = np.array([c[0] for c in self._calls], np.intp)
        self.extents = np.array([c[1] for c in self._calls], np.intp)
        self.grains = np.array([c[2] for c in self._calls], np.int64)
        self.costs = np.array([c[3] for c in self._calls], np.float64)
        uses = [(where, self.cells + number) for number, found in enumerate(self._uses) for where in found]
        self.use_at = np.array([u[0] for u in uses], np.intp)
        self.use_of = np.array([u[1] for u in uses], np.intp)
        temps = [(self.cells + i, self.sizes.add(b.offset)) for i, b in enumerate(plan.buffers) if b.role == "temp"]
        self.temp_at = np.array([t[0] for t in temps], np.intp)
        self.temp_offset = np.array([t[1] for t in temps], np.intp)

    def _alloc(self, words: int) -> int:
        at = len(self._words)
        self._words += [0] * words
        return at

    def _point(self, where: int, target: int) -> None:
        self._words[where] = WORD * target
        self._relative.append(where)

    def _size(self, where: int, size: Size) -> None:
        if isinstance(size, int):
            self._words[where] = size
        else:
            self._sized.append((where, self.sizes.add(size)))

    def _cell(self, where: int, buffer: int | None) -> None:
        if buffer is not None and buffer >= 0:
            self._point(where, self.cells + buffer)

    def _step_at(self, number: int) -> int:
        return d.HEADER_WORDS + d.STEP_WORDS * number

    def _step(self, op: int, origin: Step | None = None) -> int:
        """Write the next step; return the position of its first word."""
        at = self._step_at(self._next_step)
        self._next_step += 1
        self._words[at + 6] = op
        self._words[at + 7] = -1
        if origin is not None:
            self._words[at + 7] = len(self.origins)
            self.origins.append(origin)
        return at

    def _steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Call():
                    self._call(step)
                case Copy(target, source):
                    at = self._step(d.COPY, step)
                    self._cell(at, target)
                    self._cell(at + 1, source)
                    nbytes = self._bytes(self.program.plan.buffers[target])
                    self._size(at + 2, nbytes)
                    self._size(at + 5, dim.floordiv(nbytes, 16))  # a copy moves about 16 bytes per ns
                case Loop():
                    self._loop(step)
                case Branch(predicate, then, orelse):
                    at = self._step(d.BRANCH, step)
                    self._cell(at, predicate)
                    self._steps(then)
                    jump = self._step(d.JUMP) if orelse else None
                    self._point(at + 1, self._step_at(self._next_step))
                    self._steps(orelse)
                    if jump is not None:
                        self._point(jump, self._step_at(self._next_step))
                case Host(function, _, _):
                    at = self._step(d.HOST, step)
                    self._words[at] = function

    def _call(self, call: Call) -> None:
        kernel, info = self.program.plan.kernels[call.kernel], self.program.infos[call.kernel]
        local: dict[str, Size] = dict(zip(kernel.sizes, call.sizes, strict=True))
        at = self._step(d.CALL, call)
        self._words[at] = self.program.addresses[call.kernel]
        buffers = self._alloc(len(call.buffers))
        self._point(at + 1, buffers)
        for i, buffer in enumerate(call.buffers):
            self._uses[buffer].append(buffers + i)
        sizes = self._alloc(len(call.sizes))
        self._point(at + 2, sizes)
        for i, size in enumerate(call.sizes):
            self._size(sizes + i, size)
        self._words[at + 4] = info.grain
        self._calls.append((at, self.sizes.add(dim.substitute(info.extent, local)), info.grain, info.cost))
        self.scratch.append(self.sizes.add(dim.substitute(info.scratch, local)))

    def _loop(self, loop: Loop) -> None:
        buffers = self.program.plan.buffers
        if sum(x is not None for x in (loop.count, loop.count_buffer, loop.condition)) != 1:
            raise errors.InternalError("a Loop needs exactly one of count, count_buffer and condition")
        if loop.condition is not None and loop.limit is None and any(reverse for _, reverse in loop.slices):
            raise errors.InternalError("a Loop with a condition and no limit cannot take slices in reverse")
        at = self._step(d.LOOP, loop)
        record = self._alloc(d.LOOP_WORDS)
        self._point(at, record)
        body = self._next_step
        self._steps(loop.body)
        self._point(self._step(d.NEXT), record)
        limit = loop.count if loop.count is not None else loop.limit
        self._size(record + 2, _NO_LIMIT if limit is None else limit)
        self._cell(record + 3, loop.count_buffer)
        if loop.count_buffer is not None:
            self._words[record + 4] = buffers[loop.count_buffer].dtype.size
        self._cell(record + 5, loop.condition)
        self._cell(record + 6, loop.index)
        self._cell(record + 7, loop.taken)
        self._point(record + 8, self._step_at(body))
        self._point(record + 9, self._step_at(self._next_step))
        patches: list[tuple[int, int, Size | None, bool]] = []
        for number, reverse in loop.slices:
            buffer = buffers[number]
            patches.append((self.cells + number, self.cells + buffer.base, self._bytes(buffer), reverse))
            patches += [(where, self.cells + number, None, False) for where in self._uses[number]]
        self._point(record + 10, self._patches(patches))
        self._words[record + 11] = len(patches)

    def _patches(self, patches: Sequence[tuple[int, int, Size | None, bool]]) -> int:
        start = self._alloc(d.PATCH_WORDS * len(patches))
        for i, (where, source, stride, reverse) in enumerate(patches):
            at = start + d.PATCH_WORDS * i
            self._point(at, where)
            self._point(at + 1, source)
            if stride is not None:
                self._size(at + 2, stride)
            self._words[at + 3] = int(reverse)
        return start

    @staticmethod
    def _bytes(buffer: Buffer) -> Size:
        return dim.product(buffer.shape) * buffer.dtype.size


def _nbytes(values: Sequence[int], shape: Sequence[int], dtype: dtypes.DType) -> int:
    return math.prod(values[i] for i in shape) * dtype.size


def _count(steps: Sequence[Step]) -> int:
    """The number of table steps that `steps` become."""
    total = 0
    for step in steps:
        match step:
            case Loop():
                total += 2 + _count(step.body)
            case Branch(_, then, orelse):
                total += 1 + _count(then) + _count(orelse) + bool(orelse)
            case _:
                total += 1
    return total


class Frame:
    """One bound table with its memory.  A frame serves one run at a time.

    enter: runs the table once from its start and returns the driver's event.  feeds, fetches: for each,
    the array to copy into or out of, or None where the caller's own memory is lent: then its address is
    to be written to `words` at `feed_words` or `fetch_words` plus its number.  generation: of the
    variables when the table was last linked to them; 0 when it never was.
    """

    __slots__ = ("address", "arena", "enter", "feed_shapes", "feeds", "fetch_shapes", "fetches", "generation", "layout",
                 "memory", "nbytes", "shapes", "state_shapes", "table", "words")

    def __init__(self, layout: Layout, binding: Mapping[str, int], native: Native, threads: int,
                 single_steps: bool = False) -> None:
        program, plan = layout.program, layout.program.plan
        values = layout.sizes.evaluate(binding)
        numbers = np.array(values, np.int64)
        self.layout = layout
        self.generation = 0
        self.shapes = [tuple(values[i] for i in shape) for shape in layout.shapes]

        extents = numbers[layout.extents]
        with np.errstate(over="ignore", invalid="ignore"):
            work = np.minimum(extents * layout.costs, 1e15).astype(np.int64)
        pool, count = native.pools.of(threads) if threads > 1 else (0, 1)
        forks = (work >= HOT_NS) & (extents > layout.grains) & (count > 1)
        stride = -(-max((values[i] for i in layout.scratch), default=0) // ALIGNMENT) * ALIGNMENT

        feed_bytes = [_nbytes(values, shape, slot.dtype)
                      for shape, slot in zip(layout.slot_shapes["feed"], plan.feeds, strict=True)]
        fetch_bytes = [_nbytes(values, shape, slot.dtype)
                       for shape, slot in zip(layout.slot_shapes["fetch"], plan.fetches, strict=True)]
        direct = [plan.buffers[s].role == "fetch" and plan.buffers[s].source == i
                  for i, s in enumerate(plan.fetch_sources)]
        lent_feeds = [size > LEND_BYTES for size in feed_bytes]
        lent_fetches = [own and size > LEND_BYTES and slot.dtype is not dtypes.bfloat16
                        for own, size, slot in zip(direct, fetch_bytes, plan.fetches, strict=True)]
        blocks = [values[layout.arena], stride * (count if forks.any() else 1)]
        blocks += [0 if lent else size for lent, size in zip(lent_feeds, feed_bytes, strict=True)]
        blocks += [0 if lent or not own else size
                   for lent, own, size in zip(lent_fetches, direct, fetch_bytes, strict=True)]
        starts = np.cumsum([0] + [-(-size // ALIGNMENT) * ALIGNMENT for size in blocks]).tolist()
        self.nbytes = starts[-1]
        try:
            self.memory = aligned_empty(self.nbytes)
        except MemoryError:
            where = " with " + ", ".join(f"{k}={v}" for k, v in sorted(binding.items())) if binding else ""
            raise errors.ResourceExhaustedError(
                None, None, f"this run needs {sum(blocks)} bytes of working memory{where}") from None
        base = address(self.memory)
        self.arena = self.memory[:values[layout.arena]]

        self.table = aligned_empty(WORD * len(layout.template)).view(np.int64)
        self.address = address(self.table)
        t = self.table
        t[:] = layout.template
        t[layout.relative] += self.address
        t[layout.sized_at] = numbers[layout.sized]
        t[layout.call_at + 3] = extents
        t[layout.call_at + 5] = work
        t[layout.call_at + 6] = np.where(extents <= 0, d.SKIP, np.where(forks, d.FORK, d.CALL))
        t[d.FRAME_POOL], t[d.FRAME_SCRATCH], t[d.FRAME_STRIDE] = pool, base + starts[1], stride
        t[layout.temp_at] = base + numbers[layout.temp_offset]
        feeds_at, fetches_at = 2, 2 + len(plan.feeds)
        for number, buffer in enumerate(plan.buffers):
            match buffer.role:
                case "feed":
                    t[layout.cells + number] = base + starts[feeds_at + buffer.source]
                case "fetch":
                    t[layout.cells + number] = base + starts[fetches_at + buffer.source]
                case "constant":
                    t[layout.cells + number] = address(program.plan.constants[buffer.source])
        if any(lent_feeds) or any(lent_fetches):
            for i in range(len(plan.feeds)):
                t[layout.feed_words + i] = base + starts[feeds_at + i]
            for i in range(len(plan.fetches)):
                t[layout.fetch_words + i] = base + starts[fetches_at + i]
            t[layout.link_step + 6] = d.LINK
        t[layout.use_at] = t[layout.use_of]
        if single_steps:
            t[d.FRAME_QUANTUM] = t[d.FRAME_INTERVAL] = 0
        self.words: memoryview = t.data
        self.enter: Callable[[], int] = native.enter(self.address)

        self.feeds = [None if lent else self._block(starts[feeds_at + i], "feed", i, values, plan.feeds[i].dtype)
                      for i, lent in enumerate(lent_feeds)]
        self.feed_shapes = [tuple(values[i] for i in shape) for shape in layout.slot_shapes["feed"]]
        self.fetch_shapes = [tuple(values[i] for i in shape) for shape in layout.slot_shapes["fetch"]]
        self.state_shapes = [tuple(values[i] for i in shape) for shape in layout.slot_shapes["state"]]
        self.fetches: list[np.ndarray[Any, Any] | None] = [
            self._block(starts[fetches_at + i], "fetch", i, values, plan.fetches[i].dtype) if own and not lent else None
            for i, (own, lent) in enumerate(zip(direct, lent_fetches, strict=True))]
        for i, own in enumerate(direct):
            source = plan.buffers[plan.fetch_sources[i]]
            if not own and source.role in ("temp", "constant"):
                self.fetches[i] = self.view(plan.fetch_sources[i]).reshape(self.fetch_shapes[i])

    def _block(self, start: int, role: str, number: int, values: Sequence[int], dtype: dtypes.DType) -> np.ndarray:
        sizes = self.layout.slot_shapes[role][number]
        shape, size = tuple(values[i] for i in sizes), _nbytes(values, sizes, dtype)
        return self.memory[start:start + size].view(dtype.storage).reshape(shape)

    def view(self, buffer: int) -> np.ndarray[Any, Any]:
        """Return the memory that `buffer` stands for now, in its stored form; it is the frame's own."""
        where = self.words[self.layout.cells + buffer]
        return view_at(where, self.shapes[buffer], self.layout.program.plan.buffers[buffer].dtype.storage)

    def link(self, variables: Variables) -> tuple[str, ...]:
        """Point the table at the variables' memory.

        States that the program writes count as initialised from here on; returns the names of those that
        did not before.  Raises FailedPreconditionError for a state that is read and holds no value.
        """
        layout, plan = self.layout, self.layout.program.plan
        addresses, marked = [], []
        for number, slot in enumerate(plan.states):
            shape = self.state_shapes[number]
            if plan.initialised[number]:
                if not variables.is_initialised(slot.name):
                    raise errors.FailedPreconditionError(None, slot.name,
                                                         f"Attempting to use uninitialized value {slot.name}")
                if variables.describe(slot.name) != (slot.dtype, shape):
                    raise errors.InvalidArgumentError(None, slot.name, f"variable {slot.name!r} does not hold "
                                                      f"{slot.dtype.name} {shape} any more")
            addresses.append(variables.declare(slot.name, slot.dtype, shape))
        for number, slot in enumerate(plan.states):
            if plan.written[number] and not variables.is_initialised(slot.name):
                variables.mark(slot.name)
                marked.append(slot.name)
        for number, buffer in enumerate(plan.buffers):
            if buffer.role == "state":
                self.table[layout.cells + number] = addresses[buffer.source]
        self.table[layout.use_at] = self.table[layout.use_of]
        return tuple(marked)

    def poison(self) -> None:
        """Fill all memory of this frame but its table with NaN (floats), -1 (integers): tests."""
        self.memory[:] = 0xFF
