"""The passes in their order, and what runs them.

Owns the tuple of passes per optimisation level, the bounded iteration to a fixpoint, and what is kept of each pass:
its time, its counts, its dump.  Knows the passes by name only.  Invariants: valid IR in, valid IR out (verified after
every pass that changed something); a pass that crashes or gives invalid IR stops the compilation with its name and the
last valid IR; nothing is logged and skipped.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphc.errors import GraphcError, PassError
from graphc.ir.function import Function, Node
from graphc.ir.text import count_nodes, show
from graphc.ir.verify import verify
from graphc.options import Options
from graphc.passes.algebra import simplify
from graphc.passes.canonical import canonicalise
from graphc.passes.convolution import choose_convolutions
from graphc.passes.cse import merge_equal
from graphc.passes.dce import remove_dead_code
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold_constants
from graphc.passes.stabilise import stabilise

ROUNDS = 4
"""How often a group of passes is repeated at most while it still changes something."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass and its name; run(function, options) -> function, the same object where it changes nothing."""

    name: str
    run: Callable[[Function, Options], Function]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Passes that are repeated together until none of them changes anything, at most `ROUNDS` times."""

    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one run of a pass: seconds, and the nodes before and after it (bodies included)."""

    name: str
    seconds: float
    nodes_before: int
    nodes_after: int


PRUNE = Pass("remove_dead_code", lambda f, o: remove_dead_code(f))
CANONICAL = Pass("canonicalise", lambda f, o: canonicalise(f, o.numerics))
STABILISE = Pass("stabilise", lambda f, o: stabilise(f, o.numerics))
DECOMPOSE = Pass("decompose", lambda f, o: decompose(f))
ALGEBRA = Pass("simplify", lambda f, o: simplify(f, o.numerics))
FOLD = Pass("fold_constants", lambda f, o: fold_constants(f, o.fold_limit))
CSE = Pass("merge_equal", lambda f, o: merge_equal(f))
CONVOLUTION = Pass("choose_convolutions", choose_convolutions)

LEVELS: tuple[tuple[Pass | Repeat, ...], ...] = (
    (PRUNE, DECOMPOSE, PRUNE),
    (PRUNE, CANONICAL, STABILISE, DECOMPOSE, CANONICAL, FOLD, CSE, PRUNE, CONVOLUTION, CSE),
    (PRUNE, CANONICAL, CSE, STABILISE, DECOMPOSE, Repeat((CANONICAL, ALGEBRA, FOLD, CSE, PRUNE)),
     CONVOLUTION, CSE),
)
"""The passes up to fusion, per optimisation level."""


class Pipeline:
    """Runs passes on a function and keeps a Record of each.

    dump_passes of the options: the folder that receives the text after each pass, numbered in order; 00 is the input.
    """

    def __init__(self, options: Options) -> None:
        self.records: list[Record] = []
        self._options = options
        self._folder = Path(options.dump_passes) if options.dump_passes else None
        self._dumped = 0
        self._inferred: set[Node] = set()

    def run(self, function: Function, steps: tuple[Pass | Repeat, ...]) -> Function:
        """Return `function` after `steps`.  Raises PassError."""
        if self._folder is not None and self._dumped == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._dump("extract", function)
        for step in steps:
            function = self._repeat(function, step) if isinstance(step, Repeat) else self.apply(function, step)
        return function

    def _repeat(self, function: Function, group: Repeat) -> Function:
        for _ in range(ROUNDS):
            before = function
            for step in group.passes:
                function = self.apply(function, step)
            if function is before:
                break
        return function

    def apply(self, function: Function, step: Pass) -> Function:
        """Return `function` after one pass, verified.  Raises PassError with the pass's name and the IR before it."""
        start = time.perf_counter()
        try:
            after = step.run(function, self._options)
            if after is not function:
                verify(after, self._inferred)
        except Exception as error:
            raise PassError(self._crash(step, function, error)) from error
        seconds = time.perf_counter() - start
        before = self.records[-1].nodes_after if self.records else count_nodes(function)
        self.records.append(Record(step.name, seconds, before, before if after is function else count_nodes(after)))
        if after is not function:
            self._dump(step.name, after)
        return after

    def _crash(self, step: Pass, function: Function, error: Exception) -> str:
        what = str(error) if isinstance(error, GraphcError) else repr(error)
        text = show(function)
        if self._folder is not None:
            path = self._folder / f"{self._dumped:02d}_before_{step.name}_failed.gir"
            path.write_text(text, encoding="utf-8")
            return f"the pass {step.name} failed: {what}\n  the last valid IR is in {path}"
        return f"the pass {step.name} failed: {what}\n  the last valid IR:\n{text}"

    def _dump(self, name: str, function: Function) -> None:
        if self._folder is not None:
            (self._folder / f"{self._dumped:02d}_{name}.gir").write_text(show(function), encoding="utf-8")
            self._dumped += 1


def optimise(function: Function, options: Options, pipeline: Pipeline | None = None) -> Function:
    """Return `function` after the passes of the options' level.  Raises PassError."""
    return (pipeline or Pipeline(options)).run(function, LEVELS[options.level])
