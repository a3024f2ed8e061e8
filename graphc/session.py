"""Session: runs parts of a graph and keeps its variables.

Owns the way from `run(fetches, feed_dict)` to a program's runner and back, and the errors of a run in the user's terms.
Knows graphs, the compiler and the runtime; must not know kernels or plans' insides.
Invariants: what was run once runs again after one look in a dict; every feed is checked before anything runs; after
`close` nothing runs.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from graphc import options as settings
from graphc import source
from graphc.compiler import Compiled, compile_program
from graphc.dsl.config import ConfigProto
from graphc.dtypes import uint64
from graphc.errors import (
    FailedPreconditionError,
    GraphError,
    OpError,
    SessionError,
    report,
)
from graphc.graph.fetch import BadFeed, Fetches, check_fed, check_feeds, feed_keys, feed_value, hashable, take_apart
from graphc.graph.graph import Graph, get_default_graph, graphs
from graphc.graph.notebook import in_notebook
from graphc.graph.operation import describe_operands
from graphc.graph.tensor import Tensor, sessions
from graphc.ops.base import Kind
from graphc.ops.random import first_counter
from graphc.options import Options
from graphc.passes.effects import variable_of
from graphc.passes.extract import needed
from graphc.runtime.checks import CheckedRunner
from graphc.runtime.executor import Executor
from graphc.runtime.hoisted import Hoisted
from graphc.runtime.program import Program
from graphc.runtime.variables import Variables
from graphc.runtime.variants import Variants
from graphc.runtime.walker import Walker, executor_for

Runner: TypeAlias = Callable[..., tuple[Any, ...]]

_NAMED = re.compile(r"[\w./]+: ")  # a message that begins with the name of what failed

MAX_CALLS = 1024
"""Pairs of fetches and feed keys that a session remembers; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class DeviceAttributes:
    """A device of a session.  Source: Session.list_devices."""

    name: str
    device_type: str
    memory_limit_bytes: int


class BaseSession:
    """What sessions share.  Source: tf.Session.

    target: must be "", this process.  graph: the default graph where it is None.  config: a ConfigProto.
    """

    def __init__(self, target: str = "", graph: Graph | None = None, config: ConfigProto | None = None) -> None:
        if target:
            raise GraphError(f"Session: target {target!r} names another process; only '' (this one) is supported")
        if graph is not None and not isinstance(graph, Graph):
            raise TypeError(f"Session: graph must be a tf.Graph, not {type(graph).__name__}")
        if config is not None and not isinstance(config, ConfigProto):
            raise TypeError(f"Session: config must be a tf.ConfigProto, not {type(config).__name__}")
        self.graph = graph or get_default_graph()
        self.variables = Variables()
        options = settings.from_environment().replace(hoist=True)
        threads = int(vars(config)["intra_op_parallelism_threads"]) if config is not None else 0
        self.options = options.replace(threads=threads) if threads else options
        self.sess_str = target
        self._calls: dict[Any, _Call] = {}
        self._runners: dict[Any, Runner] = {}
        self._closed = False

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, fetches: Any, feed_dict: Mapping[Any, Any] | None = None, options: Any = None,
            run_metadata: Any = None) -> Any:
        """Return the values of `fetches` (tensors, operations, variables, names, nested in lists, tuples and dicts).

        feed_dict: tensor, variable or name -> value.  options, run_metadata: accepted.
        Raises FetchError, GraphError, ShapeError or DTypeError before anything runs; a tf.errors.OpError from the run.
        """
        key: Any = (list, *fetches) if type(fetches) is list else fetches
        try:
            call = self._calls.get((key, *feed_dict) if feed_dict else (key,))
        except TypeError:  # a nested list or a dict
            key = hashable(fetches)
            call = self._known(key, feed_dict)
        if call is None:
            call = self._prepare(key, fetches, {} if feed_dict is None else feed_dict)
        try:
            values = call.runner(*feed_dict.values()) if feed_dict else call.runner()
        except (BadFeed, OpError) as error:
            raise self._told(error, call, feed_dict) from None
        return values[0] if call.assemble is None else call.assemble(values)

    def make_callable(self, fetches: Any, feed_list: Sequence[Any] | None = None, accept_options: bool = False) -> Any:
        """Return a function of the fed values, in the order of `feed_list`, that returns the values of `fetches`.

        Source: tf.Session.make_callable.
        """
        self._check_open()
        parts, feeds = take_apart(self.graph, fetches), feed_keys(self.graph, feed_list or ())
        check_fed(parts, feeds)
        call = self._call(parts, feeds)
        runner, assemble = call.runner, call.assemble or tuple

        def one(*values: Any) -> Any:
            if self._closed:
                self._check_open()
            try:
                return runner(*values)[0]
            except (BadFeed, OpError, TypeError) as error:
                raise self._told_of(error, call, values) from None

        def several(*values: Any) -> Any:
            if self._closed:
                self._check_open()
            try:
                return assemble(runner(*values))
            except (BadFeed, OpError, TypeError) as error:
                raise self._told_of(error, call, values) from None

        function = one if call.assemble is None else several
        return (lambda *values, options=None, run_metadata=None: function(*values)) if accept_options else function

    def _known(self, key: Any, feed_dict: Mapping[Any, Any] | None) -> _Call | None:
        try:
            return self._calls.get((key, *(feed_dict or ())))
        except TypeError:  # what cannot be fetched or fed, as will be told
            return None

    def load(self, variable: Tensor, value: Any) -> None:
        """Give the variable with the handle `variable` the content `value`.  Raises as feeding it would."""
        self._check_open()
        check_feeds([variable], [value])
        self.variables.set(variable.op.name, feed_value(variable, value), variable.dtype)

    def _prepare(self, key: Any, fetches: Any, feed_dict: Mapping[Any, Any]) -> _Call:
        """The call for these fetches and feed keys, made and remembered; the feeds are checked."""
        self._check_open()
        if not isinstance(feed_dict, Mapping):
            raise TypeError(f"Session.run: feed_dict must be a dict, not {type(feed_dict).__name__}")
        parts = take_apart(self.graph, fetches)
        feeds = feed_keys(self.graph, feed_dict)
        check_feeds(feeds, list(feed_dict.values()))
        check_fed(parts, feeds)
        call = self._call(parts, feeds)
        if len(self._calls) >= MAX_CALLS:
            del self._calls[next(iter(self._calls))]
        self._calls[key, *feed_dict] = call
        return call

    def _call(self, parts: Fetches, feeds: tuple[Tensor, ...]) -> _Call:
        """The call of these parts; one program serves all nestings of the same fetches."""
        what = (parts.tensors, parts.targets, feeds)
        runner = self._runners.get(what)
        if runner is None:
            if len(self._runners) >= MAX_CALLS:
                del self._runners[next(iter(self._runners))]
            runner = self._runners[what] = self._runner(parts, feeds)
        return _Call(runner, parts.assemble, parts, feeds)

    def _runner(self, parts: Fetches, feeds: tuple[Tensor, ...]) -> Runner:
        """The function of the values of `feeds` that gives the values of the fetched tensors."""
        if not parts.tensors and not parts.targets:
            return lambda *values: ()
        questions = [op for op in needed(parts.tensors, feeds, parts.targets) if op.type == "IsVariableInitialized"]
        if not questions:
            return self._sized(parts, feeds)
        # whether a variable is initialised is known when a run starts: it is fed
        asked = tuple(op.outputs[0] for op in questions if op.outputs[0] not in feeds)
        names = [t.op.inputs[0].op.name for t in asked]
        inner = self._sized(parts, (*feeds, *asked))
        holds = self.variables.is_initialised
        return lambda *values: inner(*values, *[np.bool_(holds(name)) for name in names])

    def _sized(self, parts: Fetches, feeds: tuple[Tensor, ...]) -> Runner:
        unranked = [i for i, t in enumerate(feeds) if t.shape.ndims is None]
        if not unranked:
            return Variants(partial(self.executable, parts, feeds, {})).fastest()
        by_rank: dict[tuple[int, ...], Runner] = {}

        def run(*values: Any) -> tuple[Any, ...]:
            if len(values) != len(feeds):
                raise TypeError(f"{len(feeds)} values are needed, {len(values)} are given")
            ranks = tuple([np.ndim(values[i]) for i in unranked])
            found = by_rank.get(ranks)
            if found is None:
                chosen = {feeds[i]: rank for i, rank in zip(unranked, ranks, strict=True)}
                variants = Variants(partial(self.executable, parts, feeds, chosen))
                found = by_rank[ranks] = variants.fastest()
            return found(*values)

        return run

    def executable(self, parts: Fetches, feeds: tuple[Tensor, ...], ranks: Mapping[Tensor, int],
                   assumptions: Mapping[int, str]) -> tuple[Runner, Mapping[int, int]]:
        """Return a runner of one compiled variant, and the number of the condition that each check of its plan is.

        feeds: the runner's arguments.  ranks, assumptions: as of passes/extract.py.  A subclass may compute otherwise.
        """
        def convert(number: int, value: Any) -> Any:
            return feed_value(feeds[number], value)

        def made(options: Options) -> tuple[Compiled, Runner]:
            compiled = compile_program(parts.tensors, feeds, parts.targets, options, feed_ranks=ranks,
                                       assumptions=assumptions)
            return compiled, self._executor(compiled, compiled.program).runner(range(len(feeds)), convert)

        compiled, runner = made(self.options)
        if compiled.once is not None:
            executor = self._executor(compiled, compiled.once)
            runner = Hoisted(self.variables, lambda: executor.run(())).before(runner)
        if self.options.check_numerics:
            runner = CheckedRunner(compiled.function, compiled.program, runner,
                                   lambda: made(self.options.replace(check_numerics=False))[1], self.variables, convert,
                                   self.graph.find)
        return runner, compiled.conditions

    def _executor(self, compiled: Compiled, program: Program) -> Executor | Walker:
        """What runs `program` on this session's variables; the counters of its random operations have their start."""
        plan = program.plan
        operations = {slot.name: op for slot in plan.states if (op := self.graph.find(slot.name)) is not None}
        self.seed(operations)
        changes = any(written and slot.name in operations and operations[slot.name].op.kind is not Kind.RANDOM
                      for slot, written in zip(plan.states, plan.written, strict=True))
        return executor_for(program, self.variables, compiled.native, self.options.worker_count, changes=changes)

    def seed(self, states: Iterable[str]) -> None:
        """Give the counters of random operations their start: from the seeds, or from the system where both are 0."""
        for name in states:
            op = self.graph.get_operation_by_name(name)
            if op.op.kind is not Kind.RANDOM or self.variables.is_initialised(name):
                continue
            start = first_counter(op.attrs["seed"], op.attrs["seed2"])
            if start is None:
                start = np.array([0, *(int.from_bytes(os.urandom(8), "little") for _ in range(2))], np.uint64)
            self.variables.set(name, start, uint64)

    # -- errors -------------------------------------------------------------------------------------------------------

    def _told(self, error: BadFeed | OpError, call: _Call, feed_dict: Mapping[Any, Any] | None) -> Exception:
        """The user's error for what a run raised: feeds are told together, operations by object instead of name."""
        if isinstance(error, BadFeed):
            try:
                check_feeds(call.feeds, list((feed_dict or {}).values()))
            except Exception as told:
                return told
            return error.kind(report(f"Session.run: {error.problem}", str(source.capture()), hint=error.hint))
        if isinstance(error, FailedPreconditionError):
            return self._uninitialised(call, error)
        op = self.graph.find(error.op) if isinstance(error.op, str) else None
        if op is None:
            return error
        what = error.message if _NAMED.match(error.message) else f"{op.name}: {error.message}"
        fed = dict(zip(call.feeds, (feed_dict or {}).values(), strict=True))
        operands = [(name, f"{told}, fed {np.shape(fed[t])}" if t in fed else told) for t, (name, told) in
                    zip(dict.fromkeys(op.inputs), describe_operands(op.inputs), strict=True)]
        return type(error)(error.node_def, op, report(what, operands=operands), error.error_code)

    def _told_of(self, error: BadFeed | OpError | TypeError, call: _Call, values: Sequence[Any]) -> Exception:
        """The user's error for what a call of a callable raised."""
        if len(values) != len(call.feeds):
            return TypeError(f"this callable takes {len(call.feeds)} fed values, {len(values)} are given")
        if isinstance(error, TypeError) and not isinstance(error, BadFeed):
            return error
        return self._told(error, call, dict(zip(call.feeds, values, strict=True)))

    def _uninitialised(self, call: _Call, error: FailedPreconditionError) -> Exception:
        """The user's error for a variable without a value: it names all that the run reads and nothing has written."""
        ran = needed(call.parts.tensors, call.feeds, call.parts.targets)
        named = error.op if isinstance(error.op, str) else ""
        written = {variable_of(op.inputs[0]) for op in ran if op.type == "Assign"}
        missing = [op for op in ran if op.type == "VariableV2" and op.outputs[0] not in call.feeds
                   and not self.variables.is_initialised(op.name) and (op not in written or op.name == named)]
        first = next((op for op in missing if op.name == named), missing[0] if missing else None)
        if first is None:
            return error
        names = ", ".join(repr(op.name) for op in missing)
        plural = "s" if len(missing) > 1 else ""
        text = report(f"Session.run: attempting to use the uninitialized variable{plural} {names}",
                      str(source.capture()),
                      describe_operands([op.outputs[0] for op in missing]),
                      "run tf.global_variables_initializer() in this session first")
        return FailedPreconditionError(None, first, text)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError(report("the session is closed", str(source.capture())))

    # -- life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget programs and variables; nothing runs any more."""
        self._closed = True
        self._calls.clear()
        self._runners.clear()
        self.variables.clear()

    @property
    def program_count(self) -> int:
        """How many combinations of fetches and feeds have been compiled for this session."""
        return len(self._runners)

    @property
    def closed(self) -> bool:
        return self._closed

    def _repr_html_(self) -> str:
        return in_notebook(self)

    def as_default(self) -> AbstractContextManager[Any]:
        """Make this session the default inside a `with` block (which does not close it)."""
        return sessions.entered(self)

    def list_devices(self) -> list[DeviceAttributes]:
        """Return the devices that programs run on."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        return [DeviceAttributes("/job:localhost/replica:0/task:0/device:CPU:0", "CPU", pages)]


@dataclass(frozen=True, slots=True)
class _Call:
    """What a session remembers of fetches and feed keys."""

    runner: Runner
    assemble: Callable[[Sequence[Any]], Any] | None
    parts: Fetches
    feeds: tuple[Tensor, ...]


class Session(BaseSession):
    """A session; `with tf.Session() as sess:` makes it and its graph the default and closes it at the end."""

    def __enter__(self) -> Session:
        graphs.push(self.graph)
        sessions.push(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        sessions.remove(self)
        graphs.remove(self.graph)
        self.close()


class InteractiveSession(BaseSession):
    """A session that is the default from its making until `close`.  Source: tf.InteractiveSession."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: ConfigProto | None = None) -> None:
        super().__init__(target, graph, config)
        self._entered_graph = graph is not None
        if self._entered_graph:
            graphs.push(self.graph)
        sessions.push(self)

    def close(self) -> None:
        """Forget programs and variables, and be the default no more."""
        super().close()
        sessions.remove(self)
        if self._entered_graph:
            graphs.remove(self.graph)
