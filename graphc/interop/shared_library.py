"""A compiled program as a shared library and a C header, made without a C compiler or a system's linker.

Owns what goes into the library: the kernels' objects, the step driver, the entry points, the variables' values and
the constants, the last two as read-only data.  Knows the compiler's rooms by their functions; must not know how the
command line prints.  Invariants: the library needs libc.so.6 and nothing else, and holds no writable data: all state
is in contexts; for the same target its results equal a session's to the bit; the same input gives the same bytes.
"""
from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc import options as settings
from graphc.backends.base import CompiledKernels
from graphc.compiler import compile_kernels, load_backend, make_plan
from graphc.errors import BackendError, ModelError, report
from graphc.interop import entry_points
from graphc.interop.c_header import header_text
from graphc.interop.c_interface import Interface, interface_of
from graphc.interop.context import Variable, tables
from graphc.interop.cpu import CODE
from graphc.ir.function import Function
from graphc.kernel.plan import Branch, Host, Loop, Plan, Step
from graphc.kernel.target import Target
from graphc.model import Model
from graphc.ops.base import Kind
from graphc.ops.random import first_counter
from graphc.options import Options
from graphc.passes.extract import extract
from graphc.runtime import driver
from graphc.runtime.cache import store_in
from graphc.runtime.frame import Layout
from graphc.runtime.link import link
from graphc.runtime.native import compile_object
from graphc.runtime.program import Program
from graphc.runtime.variables import stored
from graphc.runtime.waiting import Platform

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.codegen import LlvmCpu

Array = np.ndarray[Any, Any]

BACKEND = "llvm_cpu"
"""The backend whose kernels are objects."""


@dataclass(frozen=True, slots=True)
class SharedLibrary:
    """A library and its header, as bytes and as text."""

    interface: Interface
    image: bytes
    header: str


def write_shared_library(path: str | Path, model: Model, options: Options | None = None,
                         name: str | None = None) -> SharedLibrary:
    """Compile `model` and write the library to `path` (name.so or libname.so) and its header beside it (name.h).

    name: what the C functions' names begin with; the file's name if None.  Raises BackendError, naming the reason, for
    what cannot be a shared library; ModelError for a variable without a value; OSError; the user's errors.
    """
    file = Path(path)
    options = options or settings.from_environment()
    target = linkable(options)
    signature = model.signature
    function = extract(tuple(signature.outputs.values()), tuple(signature.inputs.values()), signature.targets)
    refuse_host_calls(function)
    plan = make_plan(function, options)
    compiled = compile_kernels(plan.kernels, options, store_in(options.cache_path))
    values, drawn = first_values(model, plan)
    library = shared_library(name or file.stem.removeprefix("lib"), plan, compiled, values, target, drawn=drawn,
                             soname=file.name, inputs=tuple(signature.inputs), outputs=tuple(signature.outputs))
    _write(file, library.image)
    _write(file.with_suffix(".h"), library.header.encode())
    return library


def linkable(options: Options) -> Target:
    """Return the target of `options`.  Raises BackendError where no shared library can be made for it."""
    if options.backend != BACKEND:
        raise BackendError(report(f"shared libraries are made from the objects of backend {BACKEND}; "
                                  f"{options.backend} gives none", hint=f"use backend {BACKEND}"))
    target = cast("LlvmCpu", load_backend(BACKEND)).target(options)
    architecture, _, system = target.triple.partition("-")
    if architecture != "x86_64" or "linux" not in system:
        raise BackendError(report(
            f"shared libraries can be linked for x86-64 Linux alone, and target {options.target!r} is {target.triple}",
            hint="name a target such as x86-64-v3, or save a .gcx"))
    return target


def refuse_host_calls(function: Function) -> None:
    """Raise BackendError where `function` calls Python."""
    calls = [node.origin[0] if node.origin else node.op.name for node in function.nodes if node.op.kind is Kind.HOST]
    if calls:
        raise BackendError(report(
            f"a shared library cannot call Python, as {', '.join(map(repr, calls))} must",
            function.lines.get(calls[0]), hint="leave tf.Print, tf.Assert and tf.py_func out of what is fetched"))


def first_values(model: Model, plan: Plan) -> tuple[dict[str, Array], set[str]]:
    """Return what the states of `plan` hold at first, and the names of the random counters that the system seeds."""
    values: dict[str, Array] = {}
    drawn: set[str] = set()
    for slot in plan.states:
        op = model.graph.get_operation_by_name(slot.name)
        if op.op.kind is Kind.RANDOM:
            start = first_counter(op.attrs["seed"], op.attrs["seed2"])
            if start is None:
                drawn.add(slot.name)
            else:
                values[slot.name] = start
    if any(slot.name not in values and slot.name not in drawn for slot in plan.states):
        values = {**model.values(), **values}
    return values, drawn


def shared_library(name: str, plan: Plan, compiled: CompiledKernels, values: Mapping[str, Array], target: Target, *,
                   drawn: Collection[str] = (), soname: str = "", inputs: Sequence[str] = (),
                   outputs: Sequence[str] = ()) -> SharedLibrary:
    """Return the library of a plan.

    compiled: its kernels, for `target`.  values: by name, what the states hold at first.  drawn: states that are random
    counters (uint64 [3]) seeded by the system in each context.  inputs, outputs: names in C, one per feed and fetch;
    those of the graph if none are given.  Raises BackendError and ModelError as write_shared_library does.
    """
    if any(True for _ in _hosts(plan.steps)):
        raise BackendError("a shared library cannot call Python, as this program does")
    if not compiled.objects and plan.kernels:
        raise BackendError("these kernels have no objects to link")
    interface = interface_of(plan, name, inputs or [slot.name for slot in plan.feeds],
                             outputs or [slot.name for slot in plan.fetches])
    data, variables = _variables(plan, values, drawn)
    constants = [f"constant_{i}" for i in range(len(plan.constants))]
    data |= {symbol: np.ascontiguousarray(c).tobytes() for symbol, c in zip(constants, plan.constants, strict=True)}
    numbers = tuple(range(len(plan.kernels)))
    layout = Layout(Program(replace(plan, constants=()), compiled.infos, numbers))
    data |= tables(layout)
    version = importlib.import_module("graphc").__version__
    cpu = target.name if target.name != "host" else target.cpu
    text = entry_points.entry_text(interface, plan, layout, [info.symbol for info in compiled.infos], constants,
                                   variables, target, f"{interface.prefix} for {cpu}, compiled by graphc {version}")
    platform = Platform.of("linux", "x86_64")
    own = {"driver": driver.driver_text(platform, python=False), "entry_points": text}
    objects = (*compiled.objects, *(compile_object(t, title, entry_points.TRIPLE) for title, t in own.items()))
    image = link(objects, interface.functions, soname or f"lib{interface.prefix}.so",
                 (*driver.IMPORTS, *entry_points.IMPORTS), data=data, code=CODE)
    return SharedLibrary(interface, image, header_text(interface, cpu))


def _hosts(steps: Iterable[Step]) -> Iterable[Host]:
    for step in steps:
        match step:
            case Host():
                yield step
            case Loop():
                yield from _hosts(step.body)
            case Branch():
                yield from _hosts((*step.then, *step.orelse))


def _variables(plan: Plan, values: Mapping[str, Array],
               drawn: Collection[str]) -> tuple[dict[str, bytes], list[Variable]]:
    """Return the data of the states by symbol, and where each state lies.  Raises ModelError."""
    data: dict[str, bytes] = {}
    variables: list[Variable] = []
    for number, slot in enumerate(plan.states):
        if not all(isinstance(size, int) for size in slot.shape):
            raise ModelError(f"the shape of variable {slot.name!r} is not known before it is written; a shared library "
                             "needs it")
        shape = tuple(int(size) for size in slot.shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * slot.dtype.size
        symbol = ""
        if slot.name in values:
            array = stored(np.asarray(values[slot.name]), slot.dtype)
            if array.shape != shape:
                raise ModelError(f"the value of variable {slot.name!r} has the shape {array.shape}, not {shape}")
            symbol = f"state_{number}"
            data[symbol] = np.ascontiguousarray(array).tobytes()
        elif plan.initialised[number] and slot.name not in drawn:
            raise ModelError(f"variable {slot.name!r} is read and has no value")
        private = plan.written[number] or not symbol
        variables.append(Variable(nbytes, symbol, private, (8, 24) if slot.name in drawn else (0, 0)))
    return data, variables


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        os.chmod(temporary, 0o755 if path.suffix == ".so" else 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
