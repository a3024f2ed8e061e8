"""Running a saved program.

Owns the choice between the machine code in a file and compiling its IR again, and the object that users run.  Knows the
run time; must import neither the compiler nor the language, so that a program starts quickly and where neither numba
nor llvmlite is installed (recompile.py is loaded by name, when a program is compiled again).
Invariants: machine code and the plan that goes with it are read only from files that are trusted: by the caller, or
because this user compiled them on this machine; every other byte of a file is checked before it is used.
"""
from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from graphc import options as settings
from graphc import source
from graphc.artifact.contents import (
    DEFAULTS,
    DRIVER,
    WEIGHTS,
    Header,
    Port,
    Processor,
    SavedSignature,
    Variant,
    code_section,
    constants_section,
    ir_section,
    plan_section,
    read_header,
)
from graphc.artifact.format import Container, read_file
from graphc.dtypes import uint64
from graphc.errors import FetchError, InvalidArgumentError, ProgramFileError, report
from graphc.graph.fetch import BadFeed, feed_value
from graphc.graph.graph import near_names
from graphc.graph.shape import TensorShape
from graphc.kernel.plan import Plan
from graphc.options import Options
from graphc.runtime import link
from graphc.runtime.cache import ABI, digest, store_in
from graphc.runtime.executor import Executor, Runner
from graphc.runtime.hoisted import Hoisted
from graphc.runtime.native import Native, driver_id, native_from
from graphc.runtime.processor import flags, machine
from graphc.runtime.program import Program, from_json, load_library_program
from graphc.runtime.variables import Variables, shown
from graphc.runtime.variants import Assumptions, Variants
from graphc.runtime.walker import Walker, executor_for
from graphc.tensorfile import Stored, TensorFileError, unpack_tensors

Array = np.ndarray[Any, Any]

COMPILER = "graphc.artifact.recompile"
TRUST = "pass trust=True to graphc.load, or --trust to graphc run, if you trust whoever made the file"


def load(path: str | Path, trust: bool = False) -> LoadedProgram:
    """Return the saved program in the file `path`.

    trust: run the machine code in the file even where this user did not compile it on this machine.  Otherwise, and
    where the file has no code for this processor, the program is compiled again from its IR.
    Raises ProgramFileError with the reason where the file is damaged or cannot be run here; OSError.
    """
    file = Path(path)
    container = read_file(file)
    options = settings.from_environment()
    try:
        contents = read_contents(container)
        known = trust or store_in(options.cache_path).get("trusted", container.digest) is not None
        variants, origin = _programs(contents, options, known)
        return LoadedProgram(contents, variants, origin, options)
    except ProgramFileError as error:
        raise ProgramFileError(f"{file}: {error}") from error.__cause__


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file, checked as far as that goes without compiling."""

    header: Header
    sections: Mapping[str, memoryview]
    weights: Mapping[str, Stored]
    defaults: Mapping[str, Stored]


def read_contents(container: Container) -> Contents:
    """Return the contents of a container.  Raises ProgramFileError."""
    header = read_header(container.header)
    wanted = {WEIGHTS} | ({DEFAULTS} if header.signature.defaults else set())
    for number, variant in enumerate(header.variants):
        wanted.add(ir_section(number))
        for part, p in itertools.product(variant.parts, header.processors):
            wanted |= {DRIVER, constants_section(number, part), plan_section(number, part, p.name),
                       code_section(number, part, p.name)}
    if wanted != container.sections.keys():
        odd = sorted(wanted ^ container.sections.keys())[0]
        raise ProgramFileError(f"section {odd!r} is {'missing' if odd in wanted else 'not one of its contents'}")
    arrays: dict[str, dict[str, Stored]] = {WEIGHTS: {}, DEFAULTS: {}}
    for name in arrays.keys() & wanted:
        try:
            arrays[name] = unpack_tensors(container.sections[name])
        except TensorFileError as error:
            raise ProgramFileError(f"section {name!r}: {error}") from None
    ports = {p.name: p for p in header.signature.inputs}
    if arrays[DEFAULTS].keys() != header.signature.defaults:
        raise ProgramFileError("the defaults are not those that the header names")
    for name, stored in arrays[DEFAULTS].items():
        shape = TensorShape(ports[name].shape)
        if stored.dtype is not ports[name].dtype or not shape.is_compatible_with(stored.array.shape):
            raise ProgramFileError(f"the default of the input {name!r} does not fit it")
    return Contents(header, container.sections, arrays[WEIGHTS], arrays[DEFAULTS])


# ---------------------------------------------------------------------------------------------
# Where the code comes from.


@dataclass(frozen=True, slots=True)
class Runnable:
    """A program in this process, its driver, the number of the condition that each check of its plan states, and the
    program that computes what depends on variables alone, where there is one."""

    program: Program
    native: Native
    conditions: Mapping[int, int]
    once: Program | None


Programs = Callable[[int], Runnable]
"""The program of a variant of the file, by its number."""


def _programs(contents: Contents, options: Options, trusted: bool) -> tuple[Programs, str]:
    """Whether the file's machine code runs, or its IR is compiled, and what is to be told of that."""
    header = contents.header
    chosen = next((p for p in sorted(header.processors, key=lambda p: -len(p.flags)) if not _lacks(p)), None)
    reason = ""
    if not header.processors:
        reason = "it holds no machine code"
    elif not trusted:
        reason = "its machine code is not trusted: another user or machine made the file, or it was changed since"
    elif not link.can_link():
        reason = "its machine code is for Linux on x86-64"
    elif header.abi != ABI or header.driver != driver_id():
        reason = f"its machine code is for the run time of graphc {header.graphc}"
    elif chosen is None:
        reason = f"its machine code is for {_told(header.processors)}; this processor {_lacks(header.processors[0])}"
    else:
        programs = cache(_Stored.of(contents, chosen).program)
        try:
            programs(0)
            return programs, f"machine code for {_told([chosen])}"
        except OSError as error:
            reason = f"the system does not let it load machine code ({error})"
        except (ValueError, RecursionError) as error:
            reason = f"its machine code is for another run time ({error})"
    if importlib.util.find_spec("llvmlite") is None:
        untrusted = bool(header.processors) and not trusted
        raise ProgramFileError(report(
            f"cannot be run here: {reason}, and there is no compiler (llvmlite) to compile it again",
            hint=TRUST if untrusted and chosen is not None else "pip install llvmlite"
            + (f", or save it for a processor that this one can stand for (it is for {_told(header.processors)})"
               if header.processors else "")))
    return _Recompiled.of(contents, options).program, f"compiled again, since {reason}"


def _lacks(processor: Processor) -> str:
    """Why code for `processor` cannot run here, or ""."""
    missing = sorted(set(processor.flags) - flags())
    if missing:
        return f"lacks {', '.join(missing[:6])}{' and more' if len(missing) > 6 else ''}"
    if processor.unproven and processor.model != digest(machine()):
        return f"is another model, which may lack {', '.join(processor.unproven[:6])}"
    return ""


def _told(processors: Iterable[Processor]) -> str:
    return ", ".join(p.name if p.cpu in (p.name, "") else f"{p.name} ({p.cpu})" for p in processors)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The machine code of a trusted file for one processor: copies, so that the file's weights need not stay."""

    variants: tuple[Variant, ...]
    processor: str
    sections: Mapping[str, bytes]

    @classmethod
    def of(cls, contents: Contents, processor: Processor) -> _Stored:
        variants, name = contents.header.variants, processor.name
        wanted = [DRIVER]
        for number, variant in enumerate(variants):
            for part in variant.parts:
                wanted += (constants_section(number, part), plan_section(number, part, name),
                           code_section(number, part, name))
        return cls(variants, name, {section: bytes(contents.sections[section]) for section in wanted})

    def program(self, number: int) -> Runnable:
        variant = self.variants[number]
        program, *once = (self._part(number, part) for part in variant.parts)
        if len(variant.conditions) != len(program.plan.checks):
            raise ProgramFileError(f"variant {number} does not tell what the checks of its plan are")
        native = native_from(self.sections[DRIVER])
        return Runnable(program, native, dict(enumerate(variant.conditions)), once[0] if once else None)

    def _part(self, number: int, part: str) -> Program:
        plan, infos = from_json(self.sections[plan_section(number, part, self.processor)].decode(),
                                self.sections[constants_section(number, part)])
        image = self.sections[code_section(number, part, self.processor)]
        return load_library_program(plan, infos, image) if image else Program(plan, infos)


@dataclass(frozen=True, slots=True)
class _Recompiled:
    """The IR of a file, compiled here with the options that it was compiled with."""

    texts: tuple[bytes, ...]
    options: Options

    @classmethod
    def of(cls, contents: Contents, here: Options) -> _Recompiled:
        options = contents.header.options.replace(hoist=True, backend=here.backend, target=here.target,
                                                  cache_dir=here.cache_dir, dump_passes=here.dump_passes)
        return cls(tuple(bytes(contents.sections[ir_section(number)])
                         for number in range(len(contents.header.variants))), options)

    def program(self, number: int) -> Runnable:
        made = importlib.import_module(COMPILER).recompile(self.texts[number], self.options)
        return Runnable(made.program, made.native, made.conditions, made.once)


# ---------------------------------------------------------------------------------------------
# Running.


@dataclass(frozen=True, slots=True)
class _Input:
    """An input as graph/fetch.py checks what it is fed."""

    name: str
    dtype: Any
    shape: TensorShape


class LoadedProgram:
    """A saved program, ready to run.  Safe for several threads, as a session is.

    signature: what it is called with and gives back.  origin: where its machine code comes from, as text.
    """

    def __init__(self, contents: Contents, programs: Programs, origin: str, options: Options) -> None:
        header = contents.header
        self.signature: SavedSignature = header.signature
        self.origin = origin
        self._header = header
        self._programs = programs
        self._threads = options.worker_count
        self._variables = Variables()
        self._conditions: dict[int, str] = {}
        self._own = set(header.counters)  # states that are no variables
        self._inputs = tuple(_Input(p.name, p.dtype, TensorShape(p.shape)) for p in header.signature.inputs)
        self._defaults = {name: shown(s.array, s.dtype) for name, s in contents.defaults.items()}
        for name, stored in contents.weights.items():
            self._variables.declare(name, stored.dtype, stored.array.shape)
            self._variables.view(name)[...] = stored.array
            self._variables.mark(name)
        for name, start in header.counters.items():
            counter = start or (0, *(int.from_bytes(os.urandom(8), "little") for _ in range(2)))
            self._variables.set(name, np.array(counter, np.uint64), uint64)
        self._numbers = {frozenset(v.assumptions): number for number, v in enumerate(header.variants)}
        self._by_input = _names(header.signature.inputs)
        self._by_output = {name: header.fetches[i] for name, i in _names(header.signature.outputs).items()}
        self._runner = Variants(self._variant).fastest()

    @property
    def variables(self) -> dict[str, Array]:
        """The variables' values now, by name: copies."""
        return {name: self._variables.get(name) for name in self._variables.names() if name not in self._own}

    def run(self, fetches: Any = None, feed_dict: Mapping[str, Any] | None = None) -> Any:
        """Run the program once and return the values of `fetches`.

        The whole program runs, whatever is fetched.  fetches: names of results (of the signature or of the graph),
        nested in lists, tuples and dicts; None: all, as __call__ returns them.  feed_dict: name of an input (of the
        signature or of the graph) -> value.
        Raises FetchError for an unknown name, InvalidArgumentError for a missing input, ShapeError, DTypeError and
        FetchError for values that do not fit, and a tf.errors.OpError from the run.
        """
        wanted = self._all() if fetches is None else self._resolved(fetches)
        return _assembled(wanted, self._results(feed_dict or {}))

    def __call__(self, /, **inputs: Any) -> Any:
        """Run the program once on `inputs`; return its only result, or a dict of its results by name."""
        return _assembled(self._all(), self._results(inputs))

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, ports)) for ports in (self.signature.inputs, self.signature.outputs))
        return f"<graphc.LoadedProgram ({inputs}) -> ({outputs}), {self.origin}>"

    def _all(self) -> Any:
        outputs = self.signature.outputs
        if len(outputs) == 1:
            return self._header.fetches[0]
        return {p.name: k for p, k in zip(outputs, self._header.fetches, strict=True)} or None

    def _resolved(self, fetches: Any) -> Any:
        """`fetches` with the number of a result in the place of its name; None in the place of an operation's."""
        match fetches:
            case str():
                if fetches in self._by_output:
                    return self._by_output[fetches]
                if fetches in self.signature.targets:
                    return None
                raise _unknown("result", fetches, [*self._by_output, *self.signature.targets])
            case Mapping():
                return {key: self._resolved(value) for key, value in fetches.items()}
            case list():
                return list(map(self._resolved, fetches))
            case tuple():
                return tuple(map(self._resolved, fetches))
        raise FetchError(f"{fetches!r} of type {type(fetches).__name__} is no name of a result")

    def _results(self, given: Mapping[str, Any]) -> Sequence[Any]:
        values: list[Any] = [None] * len(self._inputs)
        fed = [False] * len(values)
        for name, value in given.items():
            number = self._by_input.get(name)
            if number is None:
                raise _unknown("input", name, list(self._by_input))
            if fed[number]:
                raise FetchError(f"the input {self._inputs[number].name!r} is given twice, under two names")
            values[number], fed[number] = value, True
        missing = [i.name for i, there in zip(self._inputs, fed, strict=True) if not there]
        for name in missing:
            if name not in self._defaults:
                ports = ", ".join(str(p) for p in self.signature.inputs if p.name in missing)
                raise InvalidArgumentError(None, name, report(f"the program must be given the input {ports}",
                                                              str(source.capture())))
            values[self._by_input[name]] = self._defaults[name]
        asked = [np.bool_(self._variables.is_initialised(name)) for name in self._header.asked]
        try:
            return self._runner(*values, *asked)
        except BadFeed as bad:
            raise bad.kind(report(f"the input {bad.problem}", str(source.capture()), hint=bad.hint)) from None

    # -- variants

    def _variant(self, assumptions: Assumptions) -> tuple[Runner, Mapping[int, int]]:
        """The runner of the variant for these assumptions."""
        number = self._numbers.get(frozenset(assumptions.items()))
        if number is None:
            told = " and ".join(f"{self._conditions.get(n, 'a size')}, whose {side} side is 1"
                                for n, side in sorted(assumptions.items()))
            raise InvalidArgumentError(None, None, report(
                f"this program was not compiled for {told}", str(source.capture()),
                hint=f"the file holds {len(self._numbers)} of the patterns of sizes that are 1; save a model whose "
                     "placeholders say which sizes are 1"))
        made = self._programs(number)
        self._check(made)
        for check, condition in made.conditions.items():
            stated = made.program.plan.checks[check]
            self._conditions.setdefault(condition, f"the sizes {stated.left} and {stated.right} at {stated.op!r}")
        runner = self._executor(made, made.program).runner(range(len(self._inputs) + len(self._header.asked)),
                                                           self._convert)
        if made.once is not None:
            self._own |= _written(made.once.plan)
            once = self._executor(made, made.once)
            runner = Hoisted(self._variables, lambda: once.run(())).before(runner)
        return runner, made.conditions

    def _executor(self, made: Runnable, program: Program) -> Executor | Walker:
        own = {*self._header.counters, *(_written(made.once.plan) if made.once else ())}
        changes = bool(_written(program.plan) - own)
        return executor_for(program, self._variables, made.native, self._threads, changes=changes)

    def _convert(self, number: int, value: Any) -> Any:
        return feed_value(self._inputs[number], value) if number < len(self._inputs) else np.asarray(value, np.bool_)

    def _check(self, made: Runnable) -> None:
        """Refuse a program that is not the one the header tells of."""
        plan = made.program.plan
        computed = _written(made.once.plan) if made.once else set()
        takes = [(i.dtype, i.shape.ndims) for i in self._inputs] + [("bool", 0)] * len(self._header.asked)
        taken = [(s.dtype, len(s.shape)) for s in plan.feeds]
        if len(taken) != len(takes) or any(n != m or d != w for (d, n), (w, m) in
                                           zip(taken[:len(self._inputs)], takes, strict=False)):
            raise ProgramFileError("its program does not take the inputs that its header names")
        for port, k in zip(self.signature.outputs, self._header.fetches, strict=True):
            if k >= len(plan.fetches) or (plan.fetches[k].dtype, len(plan.fetches[k].shape)) != (
                    port.dtype, len(port.shape)):
                raise ProgramFileError(f"its program does not give the result {port.name!r} that its header names")
        for slot, read in zip(plan.states, plan.initialised, strict=True):
            if read and slot.name not in computed and self._variables.describe(slot.name) != (slot.dtype, slot.shape):
                raise ProgramFileError(f"it holds no value for the variable {slot.name!r}, or one that does not fit")


def _written(plan: Plan) -> set[str]:
    """The names of the states that a program writes."""
    return {slot.name for slot, written in zip(plan.states, plan.written, strict=True) if written}


def _names(ports: Sequence[Port]) -> dict[str, int]:
    """The number of each port, by its own name and by the graph's names for its tensor."""
    found: dict[str, int] = {}
    for number, port in enumerate(ports):
        for name in (port.tensor, port.tensor.removesuffix(":0")):
            found.setdefault(name, number)
    return found | {port.name: number for number, port in enumerate(ports)}


def _assembled(wanted: Any, results: Sequence[Any]) -> Any:
    """`wanted` with results in the places of their numbers."""
    match wanted:
        case None:
            return None
        case int():
            return results[wanted]
        case dict():
            return {key: _assembled(value, results) for key, value in wanted.items()}
        case list():
            return [_assembled(value, results) for value in wanted]
    return tuple(_assembled(value, results) for value in wanted)


def _unknown(what: str, name: Any, known: Sequence[str]) -> FetchError:
    near = near_names(name, known) if isinstance(name, str) else []
    hint = f"near names: {', '.join(near)}" if near else f"known: {', '.join(known)}" if known else None
    return FetchError(report(f"the program has no {what} {name!r}", str(source.capture()), hint=hint))
