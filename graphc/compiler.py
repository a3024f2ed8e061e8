"""The compiler: from a graph, fetches and feeds to a program that one native call runs.

Owns the order of the rooms (ARCHITECTURE: the way of the data), and what is kept of a compilation.  Knows each room by
its one function.  Invariants: the same graph, options, machine and sources give the same program; what the cache holds
under a program's key skips everything after extraction, and llvmlite.
"""
from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from graphc.backends.base import Backend, CompiledKernels, KernelInfo
from graphc.dump import dump_plan, dump_timings, program_folder
from graphc.errors import InternalError
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor
from graphc.ir.dim import parse as parse_size
from graphc.ir.function import Function
from graphc.ir.text import show
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Plan
from graphc.kernel.text import format_kernel
from graphc.options import Options
from graphc.passes.check_memory import check_memory
from graphc.passes.coalesce import coalesce
from graphc.passes.extract import extract
from graphc.passes.fuse import fuse
from graphc.passes.guard import guard_numerics
from graphc.passes.hoist import PREFIX, split
from graphc.passes.lower import lower
from graphc.passes.memory import plan_memory
from graphc.passes.order import order
from graphc.passes.pipeline import LEVELS, Pass, Pipeline
from graphc.runtime import link
from graphc.runtime.cache import Cache, digest, source_digest, versions
from graphc.runtime.cache import store_in as store_in
from graphc.runtime.hosts import host_functions
from graphc.runtime.native import Native, native
from graphc.runtime.processor import machine
from graphc.runtime.program import HostFunction, Program, load_library_program, load_program, pack, unpack

BACKENDS: Mapping[str, tuple[str, str]] = {
    "llvm_cpu": ("graphc.backends.llvm_cpu.codegen", "LlvmCpu"),
    "numba_cpu": ("graphc.backends.numba_cpu", "NumbaBackend"),
    "interp": ("graphc.backends.interp", "InterpBackend"),
}
"""Where each backend lives.  They are loaded by name when something is compiled, since they load llvmlite or numba."""

GUARD = Pass("guard_numerics", lambda f, o: guard_numerics(f))
FUSION = (Pass("fuse", lambda f, o: fuse(f)), Pass("order", lambda f, o: order(f)))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program, what was extracted for it, the driver that runs it, for each check of its plan the number of the
    extracted condition, and the program that computes the states that were hoisted (options.hoist), if any."""

    program: Program
    function: Function
    native: Native
    conditions: Mapping[int, int]
    once: Program | None = None


def compile_program(fetches: Sequence[Tensor], feeds: Sequence[Tensor], targets: Sequence[Operation],
                    options: Options, *, feed_ranks: Mapping[Tensor, int] | None = None,
                    assumptions: Mapping[int, str] | None = None) -> Compiled:
    """Return the program that computes `fetches` from `feeds` and runs `targets`.

    feed_ranks, assumptions: as of passes/extract.py.  Raises the user's errors of extraction, PassError, BackendError.
    """
    function = extract(fetches, feeds, targets, feed_ranks=feed_ranks, assumptions=assumptions)
    return compile_function(function, options, [op.name for op in (*(t.op for t in fetches), *targets)])


def compile_function(function: Function, options: Options, names: Sequence[str] = ()) -> Compiled:
    """Return the program of an extracted function.  names: of what it computes, for the folder of its dumps.

    Raises PassError, BackendError.
    """
    store = store_in(options.cache_path)
    key = program_key(function, options, store)
    hosts = host_functions(function)
    program = None if options.dump_passes else stored_program(key, store, function, hosts)
    alone = None
    if program is not None and is_split(program.plan):
        alone = stored_program(digest(key, "once"), store, function)
        program = None if alone is None else program
    if program is None:
        folder = program_folder(options.dump_passes, names)
        program, alone = _build(function, options, folder, key, store, hosts)
    return Compiled(program, function, native(store), check_numbers(function, program.plan), alone)


def _build(function: Function, options: Options, folder: Path | None, key: str, store: Cache,
           hosts: Sequence[HostFunction]) -> tuple[Program, Program | None]:
    """Return the program of a function and the one of what was hoisted out of it, both kept in the cache."""
    plan, compiled, rest = _compiled(function, options, folder, store)
    alone = None
    if rest is not None:
        below = folder and folder / "once"
        alone, _ = _build(rest, options.replace(hoist=False), below, digest(key, "once"), store, ())
    return keep_program(key, plan, compiled, store, hosts), alone


def _compiled(function: Function, options: Options, folder: Path | None,
              store: Cache) -> tuple[Plan, CompiledKernels, Function | None]:
    """Return the plan of a function, machine code for its kernels, and what was hoisted out of it."""
    pipeline = Pipeline(options.replace(dump_passes=folder and str(folder)))
    fused, rest = prepare(function, options, pipeline)
    plan = lay_out(fused)
    if folder:
        dump_plan(folder, plan, importlib.import_module(BACKENDS["numba_cpu"][0]).source)
    seconds: list[tuple[str, float]] = []
    compiled = compile_kernels(plan.kernels, options, store, seconds)
    if folder:
        dump_timings(folder, pipeline.records, seconds)
    return plan, compiled, rest


@dataclass(frozen=True, slots=True)
class Linked:
    """A program that is not loaded: its plan, its kernels' launch data and the shared library of its kernels (no bytes
    where it has none)."""

    plan: Plan
    infos: tuple[KernelInfo, ...]
    image: bytes


def link_function(function: Function, options: Options, names: Sequence[str] = ()) -> tuple[Linked, ...]:
    """Return the program of an extracted function and, where something was hoisted, the program that computes that.

    Loads no code, so that options.target may be another processor than this one.  names: as of compile_function.
    Raises PassError, BackendError, LinkError.
    """
    store = store_in(options.cache_path)
    key = program_key(function, options, store)
    found = None if options.dump_passes else _stored_link(key, store, function)
    return found or _link(function, options, program_folder(options.dump_passes, names), key, store)


def _link(function: Function, options: Options, folder: Path | None, key: str, store: Cache) -> tuple[Linked, ...]:
    plan, compiled, rest = _compiled(function, options, folder, store)
    main = Linked(plan, compiled.infos, link_program(key, plan, compiled, store) if compiled.objects else b"")
    if rest is None:
        return (main,)
    below = folder and folder / "once"
    return (main, *_link(rest, options.replace(hoist=False), below, digest(key, "once"), store))


def _stored_link(key: str, store: Cache, function: Function) -> tuple[Linked, ...] | None:
    data = store.get("program", key)
    if data is None:
        return None
    try:
        plan, infos, image = unpack(data)
    except ValueError:  # of no use: compiled anew
        store.discard("program", key)
        return None
    main = Linked(with_lines(plan, function), infos, image)
    if not is_split(plan):
        return (main,)
    alone = _stored_link(digest(key, "once"), store, function)
    return None if alone is None else (main, *alone)


def is_split(plan: Plan) -> bool:
    """Return whether `plan` reads states that another program computes."""
    return any(slot.name.startswith(PREFIX) and not written
               for slot, written in zip(plan.states, plan.written, strict=True))


def make_plan(function: Function, options: Options, pipeline: Pipeline | None = None) -> Plan:
    """Return the plan of a whole function: optimised, fused, lowered, with a memory plan that was checked."""
    fused, _ = prepare(function, options.replace(hoist=False), pipeline or Pipeline(options))
    return lay_out(fused)


def prepare(function: Function, options: Options, pipeline: Pipeline) -> tuple[Function, Function | None]:
    """Return a function after all passes (optimised, fused and in the order it runs) and, as it was before fusion, what
    was hoisted out of it.  Raises PassError."""
    guards = (GUARD,) if options.check_numerics else ()
    function = pipeline.run(function, (*LEVELS[options.level], *guards))
    alone = None
    if options.hoist and not options.check_numerics:  # a checked run repeats everything on the oracle
        def hoist(whole: Function, _: Options) -> Function:
            nonlocal alone
            main, alone = split(whole)
            return main

        function = pipeline.apply(function, Pass("hoist", hoist))
    return pipeline.run(function, FUSION), alone


def lay_out(fused: Function) -> Plan:
    """Return the plan of a prepared function: lowered, with a memory plan that was checked."""
    lowered = lower(fused)
    lowered.steps = coalesce(lowered.steps)
    plan = plan_memory(fused, lowered)
    check_memory(plan)
    return plan


def compile_kernels(kernels: Sequence[Kernel], options: Options, store: Cache,
                    seconds: list[tuple[str, float]] | None = None) -> CompiledKernels:
    """Return machine code for `kernels`; what is in the cache is not compiled again.  seconds: receives the time that
    each kernel took."""
    times: list[tuple[str, float]] = [] if seconds is None else seconds
    started = time.perf_counter()
    if options.backend != "llvm_cpu":
        compiled = load_backend(options.backend).compile(kernels, options)
        times.append((f"{len(kernels)} kernels together", time.perf_counter() - started))
        return compiled
    target = f"{options.target} {machine() if options.target == 'host' else ''}"
    infos: list[KernelInfo] = []
    objects: dict[str, bytes] = {}
    for kernel in kernels:
        key = digest(format_kernel(kernel), options.backend, target, versions(), source_digest(store))
        data = store.obtain("kernel", key, partial(_one, kernel, options), {"kernel": kernel.name})
        length = int.from_bytes(data[:8], "little")
        symbol, extent, grain, scratch, cost = json.loads(data[8:8 + length])
        infos.append(KernelInfo(symbol, parse_size(extent), grain, parse_size(scratch), cost))
        objects[symbol] = data[8 + length:]
        times.append((kernel.name, time.perf_counter() - started))
        started = time.perf_counter()
    return CompiledKernels(tuple(infos), tuple(objects[s] for s in sorted(objects)))


def _one(kernel: Kernel, options: Options) -> bytes:
    """One kernel as the cache holds it: its launch data, then its object."""
    compiled = load_backend(options.backend).compile((kernel,), options)
    (info,), (code,) = compiled.infos, compiled.objects
    head = json.dumps([info.symbol, str(info.extent), info.grain, str(info.scratch), info.cost]).encode()
    return len(head).to_bytes(8, "little") + head + code


def program_key(function: Function, options: Options, store: Cache) -> str:
    """Return the key of a program: what it computes, how it is to be compiled, and by what; not the user's lines."""
    target = machine() if options.target == "host" else options.target
    text = show(function.replace(lines={}), hashed=True)
    return digest(text, options.code_key, target, versions(), source_digest(store))


def stored_program(key: str, store: Cache, function: Function,
                   hosts: Sequence[HostFunction] = ()) -> Program | None:
    """Return the program that the cache holds under `key`, with the lines of `function`, or None."""
    data = store.get("program", key)
    if data is None:
        return None
    try:
        plan, infos, image = unpack(data)
        return load_library_program(with_lines(plan, function), infos, image, hosts)
    except (ValueError, OSError):  # of no use here: compiled anew
        store.discard("program", key)
        return None


def keep_program(key: str, plan: Plan, compiled: CompiledKernels, store: Cache,
                 hosts: Sequence[HostFunction] = ()) -> Program:
    """Return the loaded program, kept under `key` where its code can be."""
    if not compiled.objects or not link.can_link():
        return load_program(plan, compiled, hosts)
    image = link_program(key, plan, compiled, store)
    try:
        return load_library_program(plan, compiled.infos, image, hosts)
    except OSError:  # the system refuses memory files: LLVM maps memory itself
        return load_program(plan, compiled, hosts)


def link_program(key: str, plan: Plan, compiled: CompiledKernels, store: Cache) -> bytes:
    """Return the shared library of a program's kernels, kept under `key` with its plan.  Raises LinkError."""
    symbols = list(dict.fromkeys(info.symbol for info in compiled.infos))
    image = link.link(compiled.objects, symbols, f"graphc-{key[:16]}.so")
    store.put("program", key, pack(plan, compiled.infos, image), {"kernels": ", ".join(k.name for k in plan.kernels)})
    return image


def with_lines(plan: Plan, function: Function) -> Plan:
    """Return a stored plan with the user's lines of `function`, which are not part of its key."""
    return replace(plan, lines={name: function.lines[name] for name in plan.lines if name in function.lines})


def check_numbers(function: Function, plan: Plan) -> Mapping[int, int]:
    """Return, for each check of a plan, the number of the function's condition that it states."""
    stated = {(c.kind, c.left, c.right, c.message, c.op): i for i, c in enumerate(function.conditions)}
    return {i: stated[c.kind, c.left, c.right, c.message, c.op] for i, c in enumerate(plan.checks)}


@cache
def load_backend(name: str) -> Backend:
    """Return the backend called `name`.  Raises InternalError for an unknown one."""
    if name not in BACKENDS:
        raise InternalError(f"there is no backend {name!r}; known: {', '.join(BACKENDS)}")
    module, member = BACKENDS[name]
    backend: Backend = getattr(importlib.import_module(module), member)()
    return backend
