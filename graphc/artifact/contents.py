"""What a saved program's header says: its signature, variants, targets and versions, and their form as JSON.

Owns the records, their checks and the names of the sections.  Knows dtypes alone.  Invariant: `read_header` gives
records that were checked field by field, or raises; nothing in them was evaluated.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import ProgramFileError
from graphc.options import Options

T = TypeVar("T")

WEIGHTS, DEFAULTS, DRIVER = "weights", "defaults", "driver"
RANK_LIMIT = 32
VARIANT_LIMIT = 16
FOLD_LIMIT = 1 << 26
_DTYPES: Mapping[str, DType] = {d.name: d for d in dtypes.ALL}
_ELSEWHERE = ("backend", "target", "threads", "check_numerics", "cache_dir", "dump_passes", "hoist")
_CODE_OPTIONS: Mapping[str, Any] = {f.name: f.default for f in fields(Options) if f.name not in _ELSEWHERE}
"""The options that say what the code computes, which a program that is compiled again must have too."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: the name that users call it by, the tensor's name in the graph, its dtype and its sizes, None
    where one is free."""

    name: str
    tensor: str
    dtype: DType
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name} ({', '.join('?' if n is None else str(n) for n in self.shape)})"


@dataclass(frozen=True, slots=True)
class SavedSignature:
    """The inputs and outputs of a saved program, in order, and the names of the operations that each call also runs.
    defaults: names of the inputs that need not be given."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    targets: tuple[str, ...] = ()
    defaults: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Variant:
    """A program for the sizes of which some are 1.

    assumptions: (condition of the function of the variant without it, "left" or "right").  conditions: for each check
    of the plans of this variant, the number of the function's condition.  parts: "main", and "once" where what depends
    on variables alone is computed by a program of its own.
    """

    assumptions: tuple[tuple[int, str], ...]
    conditions: tuple[int, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Processor:
    """What machine code in the file was compiled for.

    name, triple, cpu: as of kernel/target.py.  flags: what Linux must list of a processor that runs it.  unproven:
    features that it may use and no flag tells of; it then runs only on processors whose `model` is the same.
    """

    name: str
    triple: str
    cpu: str
    flags: tuple[str, ...]
    unproven: tuple[str, ...]
    model: str


@dataclass(frozen=True, slots=True)
class Header:
    """Everything but the sections.

    fetches: for each output, the number of the function's fetch that it is.  asked: variables whose state (initialised
    or not) follows the inputs as feeds.  counters: where the counters of random operations start; None: anywhere.
    abi, driver: what the machine code was made for (runtime/cache.py, runtime/native.py).
    """

    graphc: str
    llvm: str
    abi: int
    driver: str
    options: Options
    signature: SavedSignature
    fetches: tuple[int, ...]
    asked: tuple[str, ...]
    counters: Mapping[str, tuple[int, int, int] | None]
    variants: tuple[Variant, ...]
    processors: tuple[Processor, ...]


def ir_section(variant: int) -> str:
    return f"ir/{variant}"


def constants_section(variant: int, part: str) -> str:
    return f"constants/{variant}/{part}"


def plan_section(variant: int, part: str, processor: str) -> str:
    return f"plan/{variant}/{part}/{processor}"


def code_section(variant: int, part: str, processor: str) -> str:
    return f"code/{variant}/{part}/{processor}"


def header_json(header: Header) -> dict[str, Any]:
    """Return `header` as JSON's types; the defaults' names are those of their section."""
    signature, options = header.signature, header.options
    return {
        "graphc": header.graphc, "llvm": header.llvm, "abi": header.abi, "driver": header.driver,
        "options": {name: getattr(options, name) for name in _CODE_OPTIONS},
        "inputs": [_port_json(p) for p in signature.inputs],
        "outputs": [[*_port_json(p), k] for p, k in zip(signature.outputs, header.fetches, strict=True)],
        "targets": list(signature.targets), "defaults": sorted(signature.defaults), "asked": list(header.asked),
        "counters": {name: start and list(start) for name, start in header.counters.items()},
        "variants": [[[list(a) for a in v.assumptions], list(v.conditions), list(v.parts)]
                     for v in header.variants],
        "processors": [[p.name, p.triple, p.cpu, list(p.flags), list(p.unproven), p.model] for p in header.processors],
    }


def _port_json(port: Port) -> list[Any]:
    return [port.name, port.tensor, port.dtype.name, list(port.shape)]


def read_header(data: Mapping[str, Any]) -> Header:
    """Return what `header_json` was given.  Raises ProgramFileError for anything else."""
    wanted = {"graphc", "llvm", "abi", "driver", "options", "inputs", "outputs", "targets", "defaults", "asked",
              "counters", "variants", "processors"}
    if data.keys() != wanted:
        odd = ", ".join(sorted(map(repr, data.keys() ^ wanted))[:5])
        raise ProgramFileError(f"the header does not have the fields of version 1: {odd}")
    inputs = _list(data["inputs"], "inputs", _port)
    outputs = _list(data["outputs"], "outputs", _output)
    texts = {key: _list(data[key], key, _text) for key in ("targets", "defaults", "asked")}
    signature = SavedSignature(inputs, tuple(p for p, _ in outputs), texts["targets"], frozenset(texts["defaults"]))
    for what, names in (("inputs", [p.name for p in inputs]), ("outputs", [p.name for p in signature.outputs]),
                        *texts.items()):
        if len(set(names)) != len(names):
            raise ProgramFileError(f"the header's {what} have a name twice")
    if not signature.defaults <= {p.name for p in inputs}:
        raise ProgramFileError("the header has a default for what is no input")
    counters = data["counters"]
    if not isinstance(counters, dict):
        raise ProgramFileError("the header's counters are no object")
    variants = _list(data["variants"], "variants", _variant)
    if not 0 < len(variants) <= VARIANT_LIMIT or variants[0].assumptions:
        raise ProgramFileError("the header's variants are not from 1 to 16, the first without assumptions")
    if len({frozenset(v.assumptions) for v in variants}) != len(variants):
        raise ProgramFileError("the header has two variants for the same assumptions")
    processors = _list(data["processors"], "processors", _processor)
    if len({p.name for p in processors}) != len(processors):
        raise ProgramFileError("the header names a processor twice")
    return Header(_text(data["graphc"]), _text(data["llvm"]), _integer(data["abi"]), _text(data["driver"]),
                  _options(data["options"]), signature, tuple(k for _, k in outputs), texts["asked"],
                  {name: _counter(start) for name, start in counters.items()}, variants, processors)


def _list(value: Any, what: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise ProgramFileError(f"the header's {what} are no list")
    return tuple(map(read, value))


def _wrong(what: str, value: Any) -> ProgramFileError:
    return ProgramFileError(f"the header has {repr(value)[:80]} where {what} belongs")


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise _wrong("a text", value)
    return value


def _integer(value: Any, limit: int = 2**63) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise _wrong("a number", value)
    return value


def _port(value: Any) -> Port:
    match value:
        case [str(name), str(tensor), str(dtype), [*shape]] if name and dtype in _DTYPES and len(shape) <= RANK_LIMIT:
            return Port(_text(name), _text(tensor), _DTYPES[dtype],
                        tuple(None if n is None else _integer(n) for n in shape))
    raise _wrong("an input or output", value)


def _output(value: Any) -> tuple[Port, int]:
    if not isinstance(value, list) or len(value) != 5:
        raise _wrong("an output", value)
    return _port(value[:4]), _integer(value[4])


def _counter(value: Any) -> tuple[int, int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 3:
        raise _wrong("a counter", value)
    low, high, key = (_integer(n, 2**64) for n in value)
    return low, high, key


def _variant(value: Any) -> Variant:
    match value:
        case [[*assumptions], [*conditions], ["main"] | ["main", "once"] as parts]:
            return Variant(tuple(map(_assumption, assumptions)), tuple(map(_integer, conditions)), tuple(parts))
    raise _wrong("a variant", value)


def _assumption(value: Any) -> tuple[int, str]:
    match value:
        case [number, "left" | "right" as side]:
            return _integer(number), str(side)
    raise _wrong("an assumption", value)


def _processor(value: Any) -> Processor:
    match value:
        case [str(name), str(triple), str(cpu), [*flags], [*unproven], str(model)] if name:
            return Processor(_text(name), _text(triple), _text(cpu), _texts(flags), _texts(unproven), _text(model))
    raise _wrong("a processor", value)


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _options(value: Any) -> Options:
    if not isinstance(value, dict) or not value.keys() <= _CODE_OPTIONS.keys():
        raise _wrong("options", value)
    for name, given in value.items():
        if type(given) is not type(_CODE_OPTIONS[name]):
            raise _wrong(f"the option {name}", given)
    if value.get("fold_limit", 0) > FOLD_LIMIT:
        raise ProgramFileError(f"the header's options: fold_limit is more than {FOLD_LIMIT}")
    try:
        return Options(**value)
    except ValueError as error:
        raise ProgramFileError(f"the header's options: {error}") from None
