"""Programs: a plan with machine code, its sizes and checks, and its form as JSON.

Owns what lies between a Plan and running it that does not depend on addresses: the numbers that sizes
take in a run, the checks on them, and the bytes from which a later process rebuilds the program.
Knows plans and compiled kernels; knows nothing of graphs, sessions or memory (frame.py).
Invariants: a size is evaluated in unbounded integers and refused where it is negative or does not fit
63 bits; checks are decided before anything else is computed from the sizes.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from graphc import dtypes, errors
from graphc.backends.base import CompiledKernels, KernelCallable, KernelInfo
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.ir import Kernel, Param, Site
from graphc.kernel.plan import Binding, Branch, Buffer, Call, Check, Copy, Host, Loop, Plan, Slot, Step
from graphc.runtime import link
from graphc.runtime.memory import aligned_copy

MAX_SIZE = 2**63 - 1

HostFunction = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], None]


class AssumptionFailed(errors.GraphcError):
    """A check of kind "assume" does not hold for the sizes of a run, and one side is 1.

    check: its number in the plan.  one: "left" or "right", the side that is 1.  The compiler answers
    with a variant of the program; users never see this.
    """

    def __init__(self, check: int, one: str) -> None:
        super().__init__(f"assumption {check} does not hold: its {one} side is 1")
        self.check = check
        self.one = one


class SizeTable:
    """Distinct sizes, all evaluated at once by one generated function."""

    def __init__(self, sizes: Iterable[Size] = ()) -> None:
        self._index: dict[Size, int] = {}
        self._function: Callable[[Mapping[str, int]], tuple[int, ...]] | None = None
        for size in sizes:
            self.add(size)

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(self._index)

    def add(self, size: Size) -> int:
        """Return the number of `size` in the table."""
        self._function = None
        return self._index.setdefault(size, len(self._index))

    def evaluate(self, binding: Mapping[str, int]) -> tuple[int, ...]:
        """Return the values of all sizes, in order.  Raises InvalidArgumentError for a value that is
        negative, too large or undefined (a division by zero)."""
        if self._function is None:
            self._function = _compile(self.sizes)
        try:
            values = self._function(binding)
        except ZeroDivisionError:
            values = (-1,)
        if values and (min(values) < 0 or max(values) > MAX_SIZE):
            self._refuse(binding)
        return values

    def _refuse(self, binding: Mapping[str, int]) -> None:
        where = ", ".join(f"{name}={value}" for name, value in sorted(binding.items()))
        for size in self.sizes:
            try:
                value = dim.evaluate(size, binding)
            except ZeroDivisionError:
                raise _invalid(f"the size {size} divides by zero with {where}") from None
            if value < 0:
                raise _invalid(f"the size {size} is negative ({value}) with {where}")
            if value > MAX_SIZE:
                raise _invalid(f"the size {size} does not fit 64 bits ({value}) with {where}")
        raise errors.InternalError(f"sizes evaluate differently with {where}")


def _compile(sizes: Sequence[Size]) -> Callable[[Mapping[str, int]], tuple[int, ...]]:
    """Return a function binding -> values.  A size prints as a Python expression; its symbols are
    renamed, because a user's name may be a word of the language."""
    names = sorted(dim.symbols_of(sizes))
    local = {name: f"s{i}" for i, name in enumerate(names)}

    def rename(match: re.Match[str]) -> str:
        word = match.group()
        return word if match.string[match.end():match.end() + 1] == "(" else local[word]

    body = ", ".join(re.sub(r"[A-Za-z_]\w*", rename, str(size)) for size in sizes)
    source = f"lambda {', '.join(local[n] for n in names)}: ({body}{',' if sizes else ''})"
    function = eval(compile(source, "<sizes>", "eval"), {"__builtins__": {}, "min": min, "max": max})
    return lambda binding: function(*[binding[name] for name in names])


def _invalid(what: str, op: str | None = None, where: str | None = None) -> errors.InvalidArgumentError:
    return errors.InvalidArgumentError(None, op, errors.report(what, where))


@dataclass(eq=False)
class Program:
    """A plan and how to run it.

    infos: one per kernel of the plan.  addresses: where each kernel's function lies, or, for kernels that
    Python runs, callables: one per kernel.  hosts: the plan's host functions, (inputs, outputs) -> None,
    on arrays in stored form.  owner: what must live as long as the code.  way: how the code was loaded.
    """

    plan: Plan
    infos: tuple[KernelInfo, ...]
    addresses: tuple[int, ...] = ()
    callables: tuple[KernelCallable, ...] = ()
    hosts: Sequence[HostFunction] = ()
    owner: Any = None
    way: str = ""
    _check_sizes: SizeTable = field(init=False)

    def __post_init__(self) -> None:
        self.plan = replace(self.plan, constants=tuple(map(aligned_copy, self.plan.constants)))
        self._check_sizes = SizeTable(size for check in self.plan.checks for size in (check.left, check.right))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The size symbols that feeds bind, in order of their bindings."""
        return tuple(dict.fromkeys(b.symbol for b in self.plan.bindings))

    def bind(self, feeds: Sequence[np.ndarray]) -> dict[str, int]:
        """Return the number of each symbol for these feeds, checked.

        Raises InvalidArgumentError where sizes contradict each other or a check fails, and
        AssumptionFailed where another variant of the program would do.
        """
        binding: dict[str, int] = {}
        for b in self.plan.bindings:
            array = feeds[b.feed]
            value = int(array.shape[b.axis]) if b.element < 0 else int(np.ravel(array)[b.element])
            if binding.setdefault(b.symbol, value) != value:
                slot = self.plan.feeds[b.feed]
                raise _invalid(f"feed {slot.name!r}: size {b.symbol} is {value} here and {binding[b.symbol]} elsewhere")
            if value < 0:
                raise _invalid(f"feed {self.plan.feeds[b.feed].name!r}: {value} cannot be a size")
        self.check(binding)
        return binding

    def check(self, binding: Mapping[str, int]) -> None:
        """Decide the plan's checks.  Raises as `bind` does."""
        table = self._check_sizes
        values = dict(zip(table.sizes, table.evaluate(binding), strict=True))
        for number, check in enumerate(self.plan.checks):
            left, right = values[check.left], values[check.right]
            match check.kind:
                case "equal" | "assume":
                    holds = left == right
                case "divides":
                    holds = right != 0 and left % right == 0
                case "at_most":
                    holds = left <= right
                case _:
                    raise errors.InternalError(f"unknown check {check.kind!r}")
            if holds:
                continue
            if check.kind == "assume" and 1 in (left, right):
                raise AssumptionFailed(number, "left" if left == 1 else "right")
            raise _invalid(check.message.replace("{left}", str(left)).replace("{right}", str(right)), check.op,
                           self.plan.lines.get(check.op))


def load_program(plan: Plan, compiled: CompiledKernels, hosts: Sequence[HostFunction] = ()) -> Program:
    """Return `plan` with its compiled kernels in this process.  Raises LinkError."""
    if compiled.callables or compiled.addresses or not compiled.infos:
        way = "python" if compiled.callables else "address"
        return Program(plan, compiled.infos, compiled.addresses, compiled.callables, hosts, compiled.keepalive, way)
    symbols = list(dict.fromkeys(info.symbol for info in compiled.infos))
    return _from_loaded(plan, compiled.infos, link.load(compiled.objects, symbols), hosts)


def load_library_program(plan: Plan, infos: tuple[KernelInfo, ...], library: bytes,
                         hosts: Sequence[HostFunction] = ()) -> Program:
    """Return `plan` with its kernels from a shared library's bytes.  Raises OSError where it cannot be loaded."""
    symbols = list(dict.fromkeys(info.symbol for info in infos))
    return _from_loaded(plan, infos, link.load_library(library, symbols), hosts)


def _from_loaded(plan: Plan, infos: tuple[KernelInfo, ...], loaded: link.Loaded,
                 hosts: Sequence[HostFunction]) -> Program:
    return Program(plan, infos, tuple(loaded.addresses[info.symbol] for info in infos), (), hosts, loaded.owner,
                   loaded.way)


# ---------------------------------------------------------------------------------------------
# JSON: data alone.  Sizes are texts, dtypes names, every record a list in the order of its fields.


def to_json(plan: Plan, infos: Sequence[KernelInfo]) -> tuple[str, bytes]:
    """Return `plan` as (JSON, constants).  Kernels keep what running needs; their bodies are dropped."""
    blob = bytearray()
    constants = []
    for array in plan.constants:
        blob += bytes(-len(blob) % 64)
        constants.append([array.dtype.str, list(array.shape), len(blob)])
        blob += np.ascontiguousarray(array).tobytes()
    data = {
        "kernels": [[k.name, [[p.name, p.dtype.name, _texts(p.shape), p.role] for p in k.params], list(k.sizes),
                     [[s.kind, s.message, s.op] for s in k.sites], list(k.provenance)] for k in plan.kernels],
        "infos": [[i.symbol, str(i.extent), i.grain, str(i.scratch), i.cost] for i in infos],
        "buffers": [[b.dtype.name, _texts(b.shape), b.role, b.source, str(b.offset), b.base] for b in plan.buffers],
        "steps": [_step_to_json(s) for s in plan.steps],
        "feeds": [_slot_to_json(s) for s in plan.feeds],
        "states": [_slot_to_json(s) for s in plan.states],
        "fetches": [_slot_to_json(s) for s in plan.fetches],
        "fetch_sources": list(plan.fetch_sources),
        "initialised": list(plan.initialised),
        "written": list(plan.written),
        "constants": constants,
        "bindings": [[b.symbol, b.feed, b.axis, b.element] for b in plan.bindings],
        "checks": [[c.kind, str(c.left), str(c.right), c.message, c.op] for c in plan.checks],
        "arena": str(plan.arena),
        "lines": plan.lines,
    }
    return json.dumps(data, separators=(",", ":"), sort_keys=True), bytes(blob)


def from_json(text: str, blob: bytes) -> tuple[Plan, tuple[KernelInfo, ...]]:
    """Return what `to_json` was given, kernels without bodies.  Raises ValueError for anything else."""
    try:
        data = json.loads(text)
        plan = Plan(
            kernels=tuple(Kernel(name, tuple(Param(p, dtypes.as_dtype(t), _sizes(shape), role)
                                             for p, t, shape, role in params), tuple(sizes), (),
                                 tuple(Site(*s) for s in sites), (), tuple(provenance))
                          for name, params, sizes, sites, provenance in data["kernels"]),
            buffers=tuple(Buffer(dtypes.as_dtype(t), _sizes(shape), role, _index(source), _size(offset), _index(base))
                          for t, shape, role, source, offset, base in data["buffers"]),
            steps=tuple(map(_step_from_json, data["steps"])),
            feeds=tuple(map(_slot_from_json, data["feeds"])),
            states=tuple(map(_slot_from_json, data["states"])),
            fetches=tuple(map(_slot_from_json, data["fetches"])),
            fetch_sources=tuple(map(_index, data["fetch_sources"])),
            initialised=tuple(data["initialised"]),
            written=tuple(data["written"]),
            constants=tuple(np.frombuffer(blob, np.dtype(t), int(np.prod(shape)), offset).reshape(shape)
                            for t, shape, offset in data["constants"]),
            bindings=tuple(Binding(symbol, _index(feed), _index(axis), _index(element))
                           for symbol, feed, axis, element in data["bindings"]),
            checks=tuple(Check(kind, _size(left), _size(right), message, op)
                         for kind, left, right, message, op in data["checks"]),
            arena=_size(data["arena"]),
            lines=data["lines"],
        )
        infos = tuple(KernelInfo(symbol, _size(extent), grain, _size(scratch), cost)
                      for symbol, extent, grain, scratch, cost in data["infos"])
    except (KeyError, TypeError, IndexError, AttributeError) as e:
        raise ValueError(f"not a program: {e!r}") from e
    return plan, infos


def _index(value: Any) -> int:
    """A number that becomes part of a program's text (executor.py): an int and nothing else."""
    if type(value) is not int:
        raise ValueError(f"not a program: {value!r:.40} is not a number")
    return value


def _texts(shape: Iterable[Size]) -> list[str]:
    return [str(s) for s in shape]


@lru_cache(maxsize=4096)
def _size(text: str) -> Size:
    """The size of a text; a plan repeats few sizes many times."""
    return dim.parse(text)


def _sizes(texts: Iterable[str]) -> tuple[Size, ...]:
    return tuple(map(_size, texts))


def _slot_to_json(slot: Slot) -> list[Any]:
    return [slot.name, slot.dtype.name, _texts(slot.shape)]


def _slot_from_json(data: list[Any]) -> Slot:
    name, dtype, shape = data
    return Slot(name, dtypes.as_dtype(dtype), _sizes(shape))


def _optional(size: Size | None) -> str | None:
    return None if size is None else str(size)


def _optional_size(text: str | None) -> Size | None:
    return None if text is None else _size(text)


def _step_to_json(step: Step) -> list[Any]:
    match step:
        case Call(kernel, buffers, sizes):
            return ["call", kernel, list(buffers), _texts(sizes)]
        case Copy(target, source):
            return ["copy", target, source]
        case Loop():
            return ["loop", [_step_to_json(s) for s in step.body], _optional(step.count), step.count_buffer,
                    step.condition, _optional(step.limit), [list(s) for s in step.slices], step.index, step.taken]
        case Branch(predicate, then, orelse):
            return ["branch", predicate, [_step_to_json(s) for s in then], [_step_to_json(s) for s in orelse]]
        case Host(function, inputs, outputs):
            return ["host", function, list(inputs), list(outputs)]


def _step_from_json(data: list[Any]) -> Step:
    match data:
        case ["call", kernel, buffers, sizes]:
            return Call(kernel, tuple(buffers), _sizes(sizes))
        case ["copy", target, source]:
            return Copy(target, source)
        case ["loop", body, count, count_buffer, condition, limit, slices, index, taken]:
            return Loop(tuple(map(_step_from_json, body)), _optional_size(count), count_buffer, condition,
                        _optional_size(limit), tuple((b, r) for b, r in slices), index, taken)
        case ["branch", predicate, then, orelse]:
            return Branch(predicate, tuple(map(_step_from_json, then)), tuple(map(_step_from_json, orelse)))
        case ["host", function, inputs, outputs]:
            return Host(function, tuple(inputs), tuple(outputs))
    raise ValueError(f"not a step: {data!r}")


def pack(plan: Plan, infos: Sequence[KernelInfo], code: bytes) -> bytes:
    """Return a whole program as bytes: the plan, its constants and its machine code (a shared library)."""
    text, blob = to_json(plan, infos)
    head = json.dumps([len(text.encode()), len(blob), len(code)]).encode().ljust(64)
    return b"".join((head, text.encode(), blob, code))


def unpack(data: bytes) -> tuple[Plan, tuple[KernelInfo, ...], bytes]:
    """Return what `pack` was given.  Raises ValueError for anything else."""
    text, blob, code = json.loads(data[:64])
    if len(data) != 64 + text + blob + code:
        raise ValueError("not a program: its length is wrong")
    plan, infos = from_json(data[64:64 + text].decode(), data[64 + text:64 + text + blob])
    return plan, infos, data[64 + text + blob:]


def without_bodies(plan: Plan) -> Plan:
    """Return `plan` with the kernels' bodies dropped: what running needs."""
    return replace(plan, kernels=tuple(replace(k, body=(), aliases=()) for k in plan.kernels))
