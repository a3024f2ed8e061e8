"""Saving a program: a model's signature, compiled for one or several processors, with its weights, in one file.

Owns what goes into a saved program and the refusals of what cannot.  Knows models and the compiler; format.py and
contents.py say how it is written.  Invariants: the IR in the file, read back, is the function that was compiled; a file
that could not be read again is not written; equal models give equal bytes.
"""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc import options as settings
from graphc.artifact.contents import (
    DEFAULTS,
    DRIVER,
    RANK_LIMIT,
    VARIANT_LIMIT,
    WEIGHTS,
    Header,
    Port,
    Processor,
    SavedSignature,
    Variant,
    code_section,
    constants_section,
    header_json,
    ir_section,
    plan_section,
    read_header,
)
from graphc.artifact.format import pack_container, write_file
from graphc.artifact.recompile import llvm_version, processor_of, read_function
from graphc.compiler import Linked, check_numbers, link_function, make_plan
from graphc.errors import GraphcError, ProgramFileError, ShapeError, report
from graphc.graph.operation import Operation, describe_operands, report_at
from graphc.graph.tensor import Tensor
from graphc.ir.function import Function
from graphc.ir.text import same, show
from graphc.kernel.plan import Plan
from graphc.model import Model
from graphc.ops.base import Kind
from graphc.ops.random import first_counter
from graphc.options import Options
from graphc.passes.extract import extract, needed, states_read
from graphc.runtime.cache import ABI, digest, store_in
from graphc.runtime.native import driver_id, driver_library
from graphc.runtime.processor import machine, needed_flags
from graphc.runtime.program import to_json
from graphc.runtime.variables import stored
from graphc.session import Session
from graphc.tensorfile import Stored, pack_tensors

LINKED = "x86_64-unknown-linux-gnu"
"""The one kind of machine that graphc links shared libraries for."""

_UNSETTLED = frozenset((Kind.STATE, Kind.RANDOM, Kind.HOST))


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written.

    bytes: of the whole file; sections: (name, bytes) in order.  targets: the processors it holds machine code for.
    variants: programs in it, one per pattern of sizes that are 1; left_out: how many more were met and not kept.
    kernels: of the first variant.  seconds: (stage, time) in order.  digest: what the file is known by when it is
    trusted.
    """

    path: str
    bytes: int
    sections: tuple[tuple[str, int], ...]
    targets: tuple[str, ...]
    variants: int
    left_out: int
    kernels: int
    seconds: tuple[tuple[str, float], ...]
    digest: str


def save(path: str | Path, model: Model, options: Options | None = None, targets: Sequence[str] = ("host",)) -> Saved:
    """Write `model` as a saved program and return what was written.  This user trusts it on this machine from then on.

    options: None means those of the environment.  targets: names of processors as of Options.target; none at all makes
    a file without machine code.  Raises ProgramFileError for what cannot be saved (host calls, a free rank, a variable
    without a value, a target that cannot be linked), the user's errors of extraction, BackendError, OSError.
    """
    chosen = _checked(options or settings.from_environment())
    writing = _Writing(model, chosen, tuple(dict.fromkeys(targets)))
    header, sections = writing.contents()
    with writing.timed("write"):
        blocks, known_by = pack_container(header_json(header), sections)
        write_file(Path(path), blocks)
        store_in(chosen.cache_path).put("trusted", known_by, b"", {"file": Path(path).name})
    sizes = tuple((name, len(section)) for name, section in sections.items())
    return Saved(str(path), sum(map(len, blocks)), sizes, writing.targets, len(header.variants), writing.left_out,
                 writing.kernels, tuple(writing.seconds.items()), known_by)


def _checked(options: Options) -> Options:
    if options.backend != "llvm_cpu":
        raise ProgramFileError(f"backend {options.backend} makes no machine code that can be saved; use llvm_cpu")
    if options.check_numerics:
        raise ProgramFileError("a saved program cannot check numerics: what names the op is not saved with it")
    return options.replace(hoist=True)  # as sessions do


@dataclass
class _Writing:
    """One file in the making."""

    model: Model
    options: Options
    targets: tuple[str, ...]
    left_out: int = 0
    kernels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    sections: dict[str, bytes] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def contents(self) -> tuple[Header, dict[str, bytes]]:
        """The header and the sections."""
        signature = self.model.signature
        processors = [self._processor(name) for name in self.targets]
        inputs, outputs, targets = tuple(signature.inputs.values()), signature.outputs, signature.targets
        for t in inputs:
            if t.shape.ndims is None:
                raise ProgramFileError(report(f"the rank of the input {t.name!r} is not known", str(t.op.source),
                                              hint="give its placeholder a shape, with None for free sizes"))
        fetches = tuple(dict.fromkeys(outputs.values()))
        ran = needed(fetches, inputs, targets)
        for op in ran:
            if op.op.kind is Kind.HOST:
                raise ProgramFileError(report_at(op, f"{op.type} calls Python, which a saved program cannot",
                                                 "leave it out of the outputs, or name others"))
        asked = tuple(op.outputs[0] for op in ran if op.type == "IsVariableInitialized"
                      and op.outputs[0] not in inputs)
        variants, functions = self._variants(fetches, (*inputs, *asked), targets)
        with self.timed("variables"):
            weights, counters = self._states(functions)
            defaults = self._defaults(signature.inputs)
        if defaults:
            self.sections[DEFAULTS] = pack_tensors(defaults)
        self.sections[WEIGHTS] = pack_tensors(weights)
        if processors:
            self.sections[DRIVER] = driver_library(store_in(self.options.cache_path))
        types = [v.tensor for v in functions[0].fetches]
        saved = SavedSignature(
            tuple(_port(name, t) for name, t in signature.inputs.items()),
            tuple(Port(name, t.name, t.dtype, tuple(n if isinstance(n, int) else None
                                                    for n in types[fetches.index(t)].shape))
                  for name, t in outputs.items()),
            tuple(op.name for op in targets), frozenset(defaults))
        made_by = (graphc.__version__, llvm_version() if processors else "", ABI, driver_id() if processors else "")
        header = Header(*made_by, self.options, saved, tuple(fetches.index(t) for t in outputs.values()),
                        tuple(t.op.inputs[0].op.name for t in asked), counters, tuple(variants), tuple(processors))
        read_header(header_json(header))
        return header, self.sections

    def _variants(self, fetches: Sequence[Tensor], feeds: Sequence[Tensor],
                  targets: Sequence[Operation]) -> tuple[list[Variant], list[Function]]:
        """The variants that a run can ask for, the likeliest first, and their functions; sections are filled in."""
        variants: list[Variant] = []
        functions: list[Function] = []
        queue: deque[Mapping[int, str]] = deque([{}])
        met = {frozenset[tuple[int, str]]()}
        while queue:
            assumptions = queue.popleft()
            if len(variants) == VARIANT_LIMIT:
                self.left_out += 1
                continue
            with self.timed("extract"):
                try:
                    function = extract(fetches, feeds, targets, assumptions=assumptions)
                except ShapeError:
                    if not assumptions:
                        raise
                    continue  # sizes that the user's graph does not allow: no run of it gets so far
            plan, parts = self._compiled(function, len(variants))
            conditions = check_numbers(function, plan)
            numbers = tuple(conditions[i] for i in range(len(plan.checks)))
            variants.append(Variant(tuple(sorted(assumptions.items())), numbers, parts))
            functions.append(function)
            for number, check in enumerate(plan.checks):
                for side, size in (("left", check.left), ("right", check.right)):
                    another = {**assumptions, conditions[number]: side}
                    if check.kind == "assume" and (size == 1 or not isinstance(size, int)) \
                            and frozenset(another.items()) not in met:
                        met.add(frozenset(another.items()))
                        queue.append(another)
        return variants, functions

    def _compiled(self, function: Function, number: int) -> tuple[Plan, tuple[str, ...]]:
        """Write the sections of a variant; its plan, and the names of its parts."""
        text = show(function)
        self.sections[ir_section(number)] = text.encode()
        try:
            agrees = same(read_function(self.sections[ir_section(number)]), function)
        except GraphcError as error:
            raise ProgramFileError(f"this program cannot be saved: {error}") from error
        if not agrees:
            raise ProgramFileError("this program cannot be saved: its text does not say all of it")
        names = [*function.fetch_names, *(op.name for op in self.model.signature.targets)]
        parts: dict[str, Linked] = {}
        for target in self.targets:
            with self.timed(f"compile for {target}"):
                linked = link_function(function, self.options.replace(target=target), names)
            parts = dict(zip(("main", "once"), linked, strict=False))
            for part, program in parts.items():
                json, constants = to_json(program.plan, program.infos)
                self.sections[constants_section(number, part)] = constants  # the same for every processor
                self.sections[plan_section(number, part, target)] = json.encode()
                self.sections[code_section(number, part, target)] = program.image
        plan = parts["main"].plan if parts else make_plan(function, self.options)
        if not number:
            self.kernels = len(plan.kernels)
        return plan, tuple(parts) or ("main",)

    def _processor(self, name: str) -> Processor:
        """What machine code for the target `name` needs."""
        try:
            target = processor_of(self.options.replace(target=name))
        except ValueError as error:
            raise ProgramFileError(str(error)) from None
        if target.triple != LINKED:
            raise ProgramFileError(f"machine code for {name} ({target.triple}) cannot be linked into a file: graphc "
                                   f"links for {LINKED} alone; a file without machine code is compiled where it runs")
        flags, unproven = needed_flags(target.features)
        return Processor(name, target.triple, target.cpu, flags, unproven, digest(machine()) if name == "host" else "")

    def _states(self, functions: Sequence[Function]
                ) -> tuple[dict[str, Stored], dict[str, tuple[int, int, int] | None]]:
        """The values of the variables that a run reads, and where the counters of random operations start."""
        weights: dict[str, Stored] = {}
        counters: dict[str, tuple[int, int, int] | None] = {}
        read = {name: value.tensor for f in functions
                for name, value, wanted in zip(f.state_names, f.states, states_read(f), strict=True) if wanted}
        values: Mapping[str, Any] | None = None
        for name in sorted(read):
            op, type = self.model.graph.get_operation_by_name(name), read[name]
            if op.op.kind is Kind.RANDOM:
                start = first_counter(op.attrs["seed"], op.attrs["seed2"])
                counters[name] = None if start is None else (int(start[0]), int(start[1]), int(start[2]))
                continue
            values = self.model.values() if values is None else values
            if name not in values:
                raise ProgramFileError(report(f"the variable {name!r} has no value", str(op.source),
                                              describe_operands(op.outputs), "give a checkpoint that holds it"))
            array = stored(np.asarray(values[name]), type.dtype)
            if array.shape != type.shape:
                raise ProgramFileError(report(f"the value of {name!r} has the shape {array.shape}", str(op.source),
                                              describe_operands(op.outputs)))
            weights[name] = Stored(type.dtype, array)
        return weights, counters

    def _defaults(self, inputs: Mapping[str, Tensor]) -> dict[str, Stored]:
        """The values of inputs that need not be given: defaults that no run can change."""
        found: dict[str, Stored] = {}
        for name, t in inputs.items():
            if t.op.type != "PlaceholderWithDefault":
                continue
            default = t.op.inputs[0]
            ran = needed((default,), (), ())
            if any(op.op.kind in _UNSETTLED or op.type == "Placeholder" for op in ran):
                continue
            with Session(graph=self.model.graph) as session:
                found[name] = Stored(t.dtype, stored(np.asarray(session.run(default)), t.dtype))
        return found


def _port(name: str, tensor: Tensor) -> Port:
    sizes = tensor.shape.as_list()
    if len(sizes) > RANK_LIMIT:
        raise ProgramFileError(f"the input {name!r} has {len(sizes)} axes; {RANK_LIMIT} are allowed")
    return Port(name, tensor.name, tensor.dtype, tuple(sizes))
