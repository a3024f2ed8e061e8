"""Running programs: from fed arrays to fetched arrays with as little Python as can be.

Owns the frames of one program in one session and the generated function that feeds, runs and fetches.
Knows programs, frames and variables; knows nothing of graphs or of how feeds are named.

Every run leases a frame whose sizes fit: idle frames wait on a list per set of feed shapes, so that a
second thread that runs the same program at the same time finds the list empty and binds another frame,
and no lock is held while anything runs.  What can be known when a program is loaded is written into the
text of a function (`_source`), as dataclasses do it: no loop over feeds, no test that cannot fail.

Invariant: no array that is returned shares memory with a frame, a variable or a feed.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from graphc import dtypes, errors
from graphc.ir import dim
from graphc.kernel.plan import Call, Host, Slot, Step
from graphc.runtime import driver as d
from graphc.runtime.frame import LEND_BYTES, WORD, Frame, Layout
from graphc.runtime.memory import address
from graphc.runtime.native import Native
from graphc.runtime.program import Program
from graphc.runtime.variables import Variables

_NUMBERS = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float16,
            np.float32, np.float64)

FRAME_KEYS = 16                   # sets of sizes whose frames are kept
FRAME_BYTES = 1 << 28             # memory that idle frames may hold, the newest apart

Array = np.ndarray[Any, Any]
Runner = Callable[..., tuple[Any, ...]]


class Converter(Protocol):
    """What turns a fed value that is not simply right into one that is."""

    def __call__(self, number: int, value: Any) -> Any:
        """Return `value` for feed `number` as an array of its NumPy dtype and a shape that fits its slot.

        Raises the user's error where that cannot be.  Called for everything but arrays of exactly the
        dtype and, where that is known, shape of the slot, and numbers that a scalar slot stores exactly as
        NumPy would convert them.
        """
        ...


class Memory(Protocol):
    """The buffers of a run."""

    def view(self, buffer: int) -> Array:
        """Return the memory that `buffer` stands for now, in its stored form."""
        ...


class Watch(Protocol):
    """What is told of each step of a run: profiles, for example."""

    def before(self, memory: Memory, step: Step) -> None:
        """`step` is about to run."""
        ...

    def after(self, memory: Memory, step: Step) -> None:
        """`step` has run.  What this raises ends the run."""
        ...


class Executor:
    """Runs one program on one set of variables.

    threads: how many may work on one run.  poison: fill a frame with NaN before each run (tests).
    watch: told of each step; the driver then returns to Python after every one.  changes: whether what it writes
    counts as a change of the variables (counters of random ops and hoisted values do not).
    """

    def __init__(self, program: Program, variables: Variables, native: Native, threads: int = 1,
                 poison: bool = False, watch: Watch | None = None, changes: bool = True) -> None:
        self.program = program
        self.variables = variables
        self.native = native
        self.threads = threads
        self.poison = poison
        self.watch = watch
        self.changes = changes and any(program.plan.written)
        self.layout = Layout(program)
        self.bindings = 0  # how many frames were bound: tests of reuse
        self._idle: dict[Any, list[Lease]] = {}
        self._default: Runner | None = None

    def run(self, feeds: Sequence[Any]) -> tuple[Any, ...]:
        """Return the fetches, as arrays and NumPy scalars, for the plan's feeds in order.

        Raises InvalidArgumentError, FailedPreconditionError or ResourceExhaustedError, and
        KeyboardInterrupt between two steps.
        """
        if self._default is None:
            self._default = self.runner(range(len(self.program.plan.feeds)))
        return self._default(*feeds)

    def runner(self, order: Sequence[int], convert: Converter | None = None) -> Runner:
        """Return a function of the fed values, in which argument i is the plan's feed order[i]."""
        if sorted(order) != list(range(len(self.program.plan.feeds))):
            raise errors.InternalError(f"feeds in the order {list(order)} are not this program's")
        source, constants = _Text(self.layout, order, self.poison, self.changes).write()
        scope: dict[str, Any] = constants | {
            "variables": self.variables, "idle": self._idle, "free": self._idle.setdefault((), []), "bind": self.bind,
            "convert": convert or self.convert, "first": self.first, "settle": self.settle, "empty": np.empty,
            "ndarray": np.ndarray, "address": address, "lend": _lend, "pack": dtypes.float32_to_bfloat16,
            "unpack": dtypes.bfloat16_to_float32,
        }
        exec(compile(source, "<runner>", "exec"), scope)
        function: Runner = scope["runner"]
        return function

    def convert(self, number: int, value: Any) -> Array:
        """The converter of those who check feeds elsewhere: cast, and insist on the known sizes."""
        slot = self.program.plan.feeds[number]
        array = np.asarray(value, slot.dtype.as_numpy_dtype)
        if len(array.shape) != len(slot.shape) or any(
                isinstance(want, int) and want != got for want, got in zip(slot.shape, array.shape, strict=True)):
            raise errors.InvalidArgumentError(None, slot.name, f"feed {slot.name!r}: shape {array.shape} does not fit "
                                              f"({', '.join(map(str, slot.shape))})")
        return array

    def bind(self, key: Any, feeds: Sequence[Any]) -> tuple[list[Lease], Lease]:
        """Return a new frame for these feeds, and the list it goes to when it is idle.

        Raises what Program.bind raises.
        """
        arrays = [np.asarray(f) for f in feeds]
        binding = self.program.bind(arrays)
        frame = Frame(self.layout, binding, self.native, self.threads, single_steps=self.watch is not None)
        for number, (array, slot) in enumerate(zip(arrays, self.program.plan.feeds, strict=True)):
            if array.shape != frame.feed_shapes[number]:
                raise errors.InvalidArgumentError(
                    None, slot.name, f"feed {slot.name!r}: shape {array.shape} is not {frame.feed_shapes[number]}, "
                    f"which the sizes of the other feeds ask for")
        self.bindings += 1
        idle = self._idle
        free = idle.pop(key, [])
        idle[key] = free  # the newest set of sizes comes last, and the oldest goes first
        held = sum(lease[0].nbytes for leases in list(idle.values()) for lease in list(leases))
        for old in list(idle):
            if old == key or (len(idle) <= FRAME_KEYS and held <= FRAME_BYTES):
                break
            held -= sum(lease[0].nbytes for lease in idle.pop(old, []))
        # a number is written through a memoryview: faster, and silent where a large one becomes infinite
        memory = [array.data if array is not None and _is_number(slot) else array
                  for array, slot in zip(frame.feeds, self.program.plan.feeds, strict=True)]
        return free, (frame, frame.enter, frame.words, *memory, *frame.fetches)

    def first(self, frame: Frame) -> None:
        """Run `frame` after linking it to the variables, whose memory it does not know yet."""
        generation = self.variables.generation
        marked = frame.link(self.variables)
        try:
            event = frame.enter()
            if event:
                self.settle(frame, event)
        except BaseException:
            for name in marked:  # this run was to be the first to write them
                self.variables.mark(name, False)
            raise
        frame.generation = generation

    def settle(self, frame: Frame, event: int) -> None:
        """Deal with what the driver returned for, until the run is done.  Raises the run's error."""
        layout, words, watch = self.layout, frame.words, self.watch
        current: Step | None = None
        while event != d.DONE:
            step = (words[d.FRAME_AT] - frame.address) // WORD
            if event == d.FAILED:
                raise kernel_error(self.program, layout.origins[words[step + 7]], words[d.FRAME_STATUS])
            if event == d.CALL_HOST:
                self._call_host(frame, layout.origins[words[step + 7]])
                step += d.STEP_WORDS
                words[d.FRAME_AT] += WORD * d.STEP_WORDS
            # After TICK, as after any other call, the interpreter has looked for signals by now.
            if watch is not None:
                if current is not None:
                    watch.after(frame, current)
                origin = words[step + 7]
                current = layout.origins[origin] if origin >= 0 else None
                if current is not None:
                    watch.before(frame, current)
            event = self.native.run(frame.address, 1)

    def _call_host(self, frame: Frame, step: Step) -> None:
        assert isinstance(step, Host)
        self.program.hosts[step.function]([frame.view(b) for b in step.inputs], [frame.view(b) for b in step.outputs])


Lease = tuple[Any, ...]  # (frame, enter, words, one array or None per feed, one per fetch)


def kernel_error(program: Program, step: Step, status: int) -> errors.OpError:
    """Return the user's error for the nonzero `status` of the kernel that `step` calls."""
    assert isinstance(step, Call)
    kernel = program.plan.kernels[step.kernel]
    if not 0 < status <= len(kernel.sites):
        return errors.InternalOpError(None, kernel.name, f"kernel {kernel.name} returned the unknown status {status}")
    site = kernel.sites[status - 1]
    return errors.InvalidArgumentError(None, site.op, errors.report(site.message, program.plan.lines.get(site.op)))


def _lend(array: Array) -> Array:
    """Return `array` in a form that a kernel can read where it lies: itself, or a copy."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


# ---------------------------------------------------------------------------------------------
# The generated runner.


class _Text:
    """The text of a runner.  For one float scalar fed and fetched, and no variables, it reads

        def runner(a0):
            if not (type(a0) in k0 or type(a0) is int and -9007199254740992 <= a0 <= ...):
                a0 = convert(0, a0)
            try:
                lease = free.pop()
            except IndexError:
                _, lease = bind((), (a0,))
            frame, enter, words, f0, r0 = lease
            try:
                f0[()] = a0
                event = enter()
                if event:
                    settle(frame, event)
                return (r0[()],)
            finally:
                free.append(lease)

    a: arguments.  f: feed memory, None where the argument's own memory is lent.  r: memory that a fetch
    is copied from, None where an array of its own, o, is written by the kernels.
    """

    def __init__(self, layout: Layout, order: Sequence[int], poison: bool, changes: bool) -> None:
        self.layout, self.plan, self.order, self.poison = layout, layout.program.plan, order, poison
        self.changes = changes
        self.dynamic = {i for i, slot in enumerate(self.plan.feeds) if not _is_static(slot)}
        self.constants: dict[str, Any] = {}

    def write(self) -> tuple[str, dict[str, Any]]:
        """Return the text and the constants that it uses."""
        plan = self.plan
        feeds, fetches = range(len(plan.feeds)), range(len(plan.fetches))
        elements = sorted({b.feed for b in plan.bindings if b.element >= 0})
        convert = [line for i in feeds for line in self.convert(i)]
        put = [line for i in feeds for line in self.put(i)]
        put += [line for k in fetches for line in self.allocate(k)]
        run = ["event = enter()", "if event:", "    settle(frame, event)"]
        if plan.states:
            run = ["if frame.generation == variables.generation:", *_indent(run), "else:", "    first(frame)"]
        if self.poison:
            put.insert(0, "frame.poison()")
        parts = [f"a{i}.shape" for i in sorted(self.dynamic)]
        parts += [f"int(a{i})" if not plan.feeds[i].shape else f"tuple(a{i}.ravel().tolist())" for i in elements]
        fed = f"({''.join(f'a{i}, ' for i in feeds)})"
        if parts:
            lease = [f"key = {parts[0] if len(parts) == 1 else f'({chr(44).join(parts)})'}",
                     "try:", "    free = idle[key]", "    lease = free.pop()", "except (KeyError, IndexError):",
                     *(f"    a{i} = convert({i}, a{i})" for i in sorted(self.dynamic)),
                     f"    free, lease = bind(key, {fed})"]
        else:
            lease = ["try:", "    lease = free.pop()", "except IndexError:", f"    _, lease = bind((), {fed})"]
        names = ["frame", "enter", "words", *(f"f{i}" for i in feeds), *(f"r{k}" for k in fetches)]
        results = "".join(f"{self.result(k)}, " for k in fetches)
        after = ["    variables.version = variables.tick()"] if self.changes else []
        body = [*convert, *lease, f"{', '.join(names)} = lease", "try:",
                *_indent([*put, *run, f"return ({results})"]), "finally:", *after, "    free.append(lease)"]
        head = f"def runner({', '.join(f'a{i}' for i in self.order)}):"
        return "\n".join([head, *_indent(body)]) + "\n", self.constants

    def convert(self, i: int) -> list[str]:
        """The lines that make argument i an array of the right dtype, or a number where that does."""
        slot, count = self.plan.feeds[i], len(self.plan.feeds)
        self.constants[f"d{i}"] = np.dtype(slot.dtype.as_numpy_dtype)
        right = f"type(a{i}) is ndarray and a{i}.dtype is d{i}"
        if i not in self.dynamic:
            self.constants[f"s{i}"] = slot.shape
            right += f" and a{i}.shape == s{i}"
        if _is_number(slot):
            types, bounds = _exact_numbers(slot.dtype)
            self.constants[f"k{i}"] = types
            whole = f"type(a{i}) is int and {bounds[0]} <= a{i} <= {bounds[1]} or " if bounds else ""
            right = f"type(a{i}) in k{i} or {whole}{right}"
        lines = [f"if not ({right}):", f"    a{i} = convert({i}, a{i})"]
        if i not in self.dynamic and slot.shape:  # checks made its size known: they must fail in a bound frame too
            lines += [f"    if a{i}.shape != s{i}:", f"        bind((), ({''.join(f'a{k}, ' for k in range(count))}))"]
        return lines

    def put(self, i: int) -> list[str]:
        """The lines that give feed i to the frame."""
        slot = self.plan.feeds[i]
        value = f"pack(a{i})" if slot.dtype is dtypes.bfloat16 else f"a{i}"
        lent = [f"a{i} = lend({value})", f"words[{self.layout.feed_words + i}] = address(a{i})"]
        copied = [f"f{i}[{'...' if slot.shape else '()'}] = {value}"]
        if i in self.dynamic:
            return [f"if f{i} is None:", *_indent(lent), "else:", *_indent(copied)]
        return lent if _static_bytes(slot) > LEND_BYTES else copied

    def is_direct(self, k: int) -> bool:
        """Whether the kernels write fetch k itself."""
        source = self.plan.buffers[self.plan.fetch_sources[k]]
        return source.role == "fetch" and source.source == k

    def can_lend(self, k: int) -> bool:
        """Whether fetch k may be written in the user's array; where its size is known, whether it is."""
        slot = self.plan.fetches[k]
        large = not _is_static(slot) or _static_bytes(slot) > LEND_BYTES
        return self.is_direct(k) and slot.dtype is not dtypes.bfloat16 and large

    def allocate(self, k: int) -> list[str]:
        """The lines that make the array of fetch k where kernels write it directly."""
        if not self.can_lend(k):
            return []
        slot = self.plan.fetches[k]
        self.constants[f"t{k}"] = slot.dtype.storage
        make = [f"o{k} = empty(frame.fetch_shapes[{k}], t{k})",
                f"words[{self.layout.fetch_words + k}] = address(o{k})"]
        return make if _is_static(slot) else [f"if r{k} is None:", *_indent(make)]

    def result(self, k: int) -> str:
        """The expression of fetch k's value after the run."""
        slot, number = self.plan.fetches[k], self.plan.fetch_sources[k]
        buffer = self.plan.buffers[number]
        memory, fresh = f"r{k}", False
        match buffer.role:
            case "fetch":
                j = buffer.source
                if self.can_lend(j):
                    if j == k:
                        return f"o{k}" if _is_static(slot) else f"(o{k} if r{k} is None else r{k}.copy())"
                    memory = f"o{j}" if _is_static(slot) else f"(o{j} if r{j} is None else r{j})"
                else:
                    memory = f"r{j}"
            case "feed":
                fed = f"frame.feeds[{buffer.source}]"
                memory = f"(a{buffer.source} if {fed} is None else {fed})"
            case "state":
                self.constants[f"n{k}"] = self.plan.states[buffer.source].name
                memory = f"variables.view(n{k})"
        if buffer.shape != slot.shape:
            memory = f"{memory}.reshape(frame.fetch_shapes[{k}])"
        if slot.dtype is dtypes.bfloat16:
            memory, fresh = f"unpack({memory})", True
        if not slot.shape:
            return f"{memory}[()]"
        return memory if fresh else f"{memory}.copy()"


def _indent(lines: Iterable[str]) -> list[str]:
    return ["    " + line for line in lines]


def _is_number(slot: Slot) -> bool:
    """Whether a number fed to `slot` can be stored as it is."""
    return not slot.shape and slot.dtype not in (dtypes.float16, dtypes.bfloat16)


@cache
def _exact_numbers(dtype: dtypes.DType) -> tuple[frozenset[type], tuple[int, int] | None]:
    """The types of numbers that storing converts to `dtype` just as NumPy does, and the bounds of such Python ints."""
    found = {kind for kind in _NUMBERS if np.can_cast(kind, dtype.as_numpy_dtype)} | {bool}
    if dtype.is_integer:  # NumPy's bools are no indices, so that a memoryview refuses them
        return frozenset(found - {np.bool_}), (int(dtype.min), int(dtype.max))
    if dtype.is_floating:
        return frozenset(found | {float, np.float64}), (-2**53, 2**53)
    return frozenset(found), None


def _is_static(slot: Slot) -> bool:
    return all(isinstance(s, int) for s in slot.shape)


def _static_bytes(slot: Slot) -> int:
    return dim.evaluate(dim.product(slot.shape), {}) * slot.dtype.size
