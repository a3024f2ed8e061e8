"""Timing of a program step by step.

Owns the watch that takes the time of each step and the forms in which it is shown.  Knows programs;
knows nothing of sessions.  A profiled run returns to Python after each step, which costs about
half a microsecond a step and is not part of the times.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter_ns

from graphc.kernel.plan import Branch, Call, Copy, Host, Loop, Step
from graphc.runtime.executor import Memory
from graphc.runtime.program import Program


@dataclass(frozen=True, slots=True)
class Event:
    """One step that was run: its name, the graph ops computed in it, start and duration in ns."""

    name: str
    ops: tuple[str, ...]
    start: int
    duration: int


class Profile:
    """A watch (executor.Watch) that collects an Event per kernel call, copy and host call."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.events: list[Event] = []
        self._started = 0

    def before(self, memory: Memory, step: Step) -> None:
        self._started = perf_counter_ns()

    def after(self, memory: Memory, step: Step) -> None:
        ended = perf_counter_ns()
        if not isinstance(step, Loop | Branch):
            self.events.append(Event(*self._name(step), self._started, ended - self._started))

    def _name(self, step: Step) -> tuple[str, tuple[str, ...]]:
        match step:
            case Call(number):
                kernel = self.program.plan.kernels[number]
                return kernel.name, kernel.provenance
            case Host(function):
                return f"host function {function}", ()
            case Copy():
                return "copy", ()
        return type(step).__name__.lower(), ()

    def totals(self) -> list[tuple[str, int, int]]:
        """Return (name, calls, ns) per kind of step, slowest first."""
        calls: dict[str, int] = {}
        times: dict[str, int] = {}
        for event in self.events:
            calls[event.name] = calls.get(event.name, 0) + 1
            times[event.name] = times.get(event.name, 0) + event.duration
        return sorted(((name, calls[name], times[name]) for name in calls), key=lambda row: (-row[2], row[0]))

    def chrome_trace(self) -> str:
        """Return the events as JSON for chrome://tracing and Perfetto (Trace Event Format, complete events)."""
        start = min((e.start for e in self.events), default=0)
        lines = self.program.plan.lines
        return json.dumps({"traceEvents": [
            {"name": e.name, "cat": "step", "ph": "X", "ts": (e.start - start) / 1000, "dur": e.duration / 1000,
             "pid": 0, "tid": 0, "args": {"ops": list(e.ops), "lines": [lines[o] for o in e.ops if o in lines]}}
            for e in self.events], "displayTimeUnit": "ns"})
