"""A compilation, recorded: the function after each pass, the plan, each kernel in every form it has on its way down.

Owns the record, and how fetches, feeds and targets are chosen where none are named.  Knows the compiler's rooms by
their functions, as compiler.py does; must not know how anything is drawn or printed.  Invariants: the passes, their
order and the plan are those of `Session.run` with the same options; a record never changes, and texts of kernels are
made when they are asked for; LLVM is loaded for LLVM's texts and for compiling alone, Numba never.
"""
from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from graphc import options as settings
from graphc.backends import numba_cpu
from graphc.compiler import compile_kernels, lay_out, load_backend, prepare
from graphc.dsl.signature import Signature, element_name
from graphc.errors import GraphError, report
from graphc.graph.fetch import feed_keys, take_apart
from graphc.graph.graph import Graph, near_names
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor
from graphc.ir.function import Function
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Plan
from graphc.kernel.text import format_kernel
from graphc.model import Model, choose_signature
from graphc.options import Options
from graphc.passes.convolution import Choice, choices
from graphc.passes.extract import extract, needed
from graphc.passes.pipeline import CONVOLUTION, Pass, Pipeline, Record
from graphc.runtime.cache import Cache, store_in

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.codegen import LlvmCpu


@dataclass(frozen=True)
class Compilation:
    """What became of a graph on its way to kernels.

    graph: None where it began with a function; fetches, feeds, targets are then empty.  names: what users call an input
    or a result by, where that is not its name in the graph.  effects: names of the targets.  runs: (name, function
    after it) for "extract" and then for every run of a pass, "fuse" and "order" at the end; a pass that changed nothing
    gives the object it was given.  records: time and node counts of those runs of passes.  seconds: of each stage, in
    order.
    """

    graph: Graph | None
    fetches: tuple[Tensor, ...]
    feeds: tuple[Tensor, ...]
    targets: tuple[Operation, ...]
    options: Options
    runs: tuple[tuple[str, Function], ...]
    records: tuple[Record, ...]
    plan: Plan
    seconds: tuple[tuple[str, float], ...]
    names: Mapping[str, str]
    effects: tuple[str, ...]

    # -- functions ------------------------------------------------------------------------------

    @property
    def function(self) -> Function:
        """The function as extracted."""
        return self.runs[0][1]

    @cached_property
    def stages(self) -> tuple[tuple[str, Function], ...]:
        """(name, function) for "extract" and each pass that changed something, in order."""
        changed = [after for before, after in zip(self.runs, self.runs[1:], strict=False) if after[1] is not before[1]]
        return (self.runs[0], *changed)

    @property
    def optimised(self) -> Function:
        """The function that fusion was given."""
        return self.runs[[name for name, _ in self.runs].index("fuse") - 1][1]

    @property
    def fused(self) -> Function:
        """The function that was lowered: Fusion nodes, in the order they run."""
        return self.runs[-1][1]

    @cached_property
    def convolutions(self) -> tuple[Choice, ...]:
        """The algorithm of each convolution, and why."""
        names = [name for name, _ in self.runs]
        if CONVOLUTION.name not in names:
            return ()
        return tuple(choices(self.runs[names.index(CONVOLUTION.name) - 1][1], self.options))

    def after(self, name: str) -> Function:
        """Return the function after the last run of the pass `name` ("extract": as extracted).

        Raises ValueError for a pass that did not run, with near names.
        """
        for run, function in reversed(self.runs):
            if run == name:
                return function
        known = list(dict.fromkeys(run for run, _ in self.runs))
        near = near_names(name, known)
        told = f"did you mean {near[0]!r}?" if near else f"the passes that ran: {', '.join(known)}"
        raise ValueError(f"no pass called {name!r} ran; {told}")

    # -- kernels --------------------------------------------------------------------------------

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels of the plan; equal ones are one."""
        return self.plan.kernels

    @cached_property
    def _by_op(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, list[int]] = {}
        for number, kernel in enumerate(self.kernels):
            for name in kernel.provenance:
                found.setdefault(name, []).append(number)
        return {name: tuple(numbers) for name, numbers in found.items()}

    def kernel_of(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the kernels that the graph's operation `name` went into: none where it was folded,
        removed or costs nothing; several where it is computed again by each."""
        return self._by_op.get(name, ())

    def user_lines(self, kernel: Kernel) -> tuple[str, ...]:
        """Return the user's lines that a kernel comes from, each once, in the order of its ops."""
        lines = self.function.lines
        return tuple(dict.fromkeys(lines[name] for name in kernel.provenance if name in lines))

    def kernel_text(self, kernel: Kernel) -> str:
        """Return a kernel's IR as text."""
        return format_kernel(kernel)

    def python(self, kernel: Kernel) -> str:
        """Return a kernel as the Python function that numba_cpu compiles.  Raises BackendError where it has none."""
        return numba_cpu.source(kernel)

    def llvm(self, kernel: Kernel) -> str:
        """Return a kernel as the LLVM IR that llvm_cpu hands to LLVM, for the options' target."""
        backend = cast("LlvmCpu", load_backend("llvm_cpu"))
        return backend.llvm_text(kernel, backend.target(self.options))

    def assembly(self, kernel: Kernel) -> str:
        """Return a kernel's machine code as assembly text, for the options' target."""
        backend = cast("LlvmCpu", load_backend("llvm_cpu"))
        return backend.assembly(kernel, backend.target(self.options))

    def compile_kernels(self, store: Cache | None = None) -> tuple[tuple[str, float], ...]:
        """Return (name, seconds) of compiling each kernel, or of reading it from `store` (None: the user's cache)."""
        seconds: list[tuple[str, float]] = []
        compile_kernels(self.kernels, self.options, store or store_in(self.options.cache_path), seconds)
        return tuple(seconds)


class _Recorder(Pipeline):
    """A pipeline that keeps the function after each pass."""

    def __init__(self, options: Options, function: Function) -> None:
        super().__init__(options)
        self.runs: list[tuple[str, Function]] = [("extract", function)]

    def apply(self, function: Function, step: Pass) -> Function:
        after = super().apply(function, step)
        self.runs.append((step.name, after))
        return after


def record(source: Graph | Model, fetches: Any = None, feeds: Iterable[Any] | None = None,
           targets: Iterable[Operation] = (), options: Options | None = None) -> Compilation:
    """Return the compilation of a graph, or of a model, for these fetches, feeds and targets.

    fetches: nested as for Session.run; None and no targets: what the model's signature says, or the one that the graph
    declares or looks like.  feeds: tensors or names; None: the signature's inputs and the placeholders that are
    reached.  options: None means those of the environment.
    Raises the user's errors of fetching and of extraction, ModelError, GraphError for a feed of unknown rank.
    """
    graph = source if isinstance(source, Graph) else source.graph
    chosen = options or settings.from_environment()
    signature = None if isinstance(source, Graph) else source.signature
    if fetches is None and signature is None and not (targets := tuple(targets)):
        signature = choose_signature(graph)
    tensors, ops, fed = _ends(graph, signature, fetches, feeds, targets)
    for tensor in fed:
        if tensor.shape.ndims is None:
            raise GraphError(report(f"the rank of the fed tensor {tensor.name!r} is not known", str(tensor.op.source),
                                    hint="give its placeholder a shape, with None for free sizes"))
    if not tensors and not ops:
        raise GraphError("there is nothing to compute: nothing is fetched")
    started = time.perf_counter()
    function = extract(tensors, fed, ops)
    extracted = ("extract", time.perf_counter() - started)
    names: dict[str, str] = {}
    if signature is not None and fetches is None and feeds is None:
        names = {element_name(t): n for ends in (signature.inputs, signature.outputs) for n, t in ends.items()}
    done = record_function(function, chosen, names, tuple(op.name for op in ops))
    return replace(done, graph=graph, fetches=tensors, feeds=fed, targets=ops, seconds=(extracted, *done.seconds))


def record_function(function: Function, options: Options, names: Mapping[str, str] | None = None,
                    effects: tuple[str, ...] = ()) -> Compilation:
    """Return the compilation of an extracted function, such as a saved program holds.  Raises PassError."""
    started = time.perf_counter()
    recorder = _Recorder(options, function)
    fused, _ = prepare(function, options, recorder)
    prepared = time.perf_counter()
    plan = lay_out(fused)
    seconds = (("passes", prepared - started), ("lower and plan memory", time.perf_counter() - prepared))
    return Compilation(None, (), (), (), options, tuple(recorder.runs), tuple(recorder.records), plan, seconds,
                       names or {}, effects)


def _ends(graph: Graph, signature: Signature | None, fetches: Any, feeds: Iterable[Any] | None,
          targets: Iterable[Operation]) -> tuple[tuple[Tensor, ...], tuple[Operation, ...], tuple[Tensor, ...]]:
    """The fetched tensors, the operations that run for their effect, and the fed tensors."""
    if fetches is None and signature is not None:
        fetches, targets = tuple(signature.outputs.values()), (*signature.targets, *targets)
    parts = take_apart(graph, [() if fetches is None else fetches, *targets])
    given = () if signature is None else tuple(signature.inputs.values())
    fed = given if feeds is None else feed_keys(graph, feeds)
    ran = needed(parts.tensors, fed, parts.targets)
    reached = [op.outputs[0] for op in ran if op.type == "Placeholder"] if feeds is None else []
    asked = [op.outputs[0] for op in ran if op.type == "IsVariableInitialized"]  # which a session feeds
    return parts.tensors, parts.targets, tuple(dict.fromkeys((*fed, *reached, *asked)))
