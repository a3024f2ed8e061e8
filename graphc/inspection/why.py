"""What became of an operation of the user's graph, and why two of them share a kernel or do not.

Owns the way from a name in the graph to the stage where it ended.  Knows a recorded compilation, and passes/why.py for
what fusion decided.  Invariant: every name of the graph has an answer; a name that is none is told with near ones.
"""
from __future__ import annotations

import itertools

from graphc.errors import GraphError
from graphc.graph.graph import near_names
from graphc.inspection.compilation import Compilation
from graphc.ir.function import Function
from graphc.passes import why as fusion
from graphc.passes.why import Verdict

_MEANS = {
    "remove_dead_code": "nothing that is asked for needs it",
    "fold_constants": "its value is known when compiling",
    "merge_equal": "an equal one is computed anyway",
    "decompose": "it became other operations",
}


def why(compilation: Compilation, first: str, second: str) -> Verdict:
    """Return whether the operations `first` and `second` are computed by one kernel, and why.

    Raises GraphError for a name that the graph has not, with near names.
    """
    for name in (first, second):
        _check(compilation, name)
    for name in (first, second):
        gone = fate(compilation, name)
        if gone:
            return Verdict(False, f"{name!r} is in no kernel: {gone}")
    return fusion.why(compilation.optimised, first, second)


def fate(compilation: Compilation, name: str) -> str:
    """Return why the operation `name` is no longer there when fusion begins, or "" where it is.

    Raises GraphError for a name that the graph has not.
    """
    _check(compilation, name)
    runs = compilation.runs
    function = compilation.function
    if name not in _names(function):
        if name in function.state_names:
            return "it is a variable, which kernels read and write where it lies"
        if name in function.feed_names:
            return "it is fed"
        if name not in function.lines:
            return "nothing that is asked for needs it"
        return "it computes nothing of its own (a read, a size, or a group of others)"
    for (_, before), (run, after) in itertools.pairwise(runs):
        if run == "fuse":
            break
        if after is not before and name in _names(before) and name not in _names(after):
            return f"{run} removed it" + (f", since {_MEANS[run]}" if run in _MEANS else "")
    return ""


def _check(compilation: Compilation, name: str) -> None:
    """Raise GraphError where there is no operation `name`."""
    function = compilation.function
    known = dict.fromkeys((*function.lines, *function.feed_names, *function.state_names))
    if compilation.graph is not None:
        known |= dict.fromkeys(op.name for op in compilation.graph.get_operations())
    if name not in known:
        near = near_names(name, known)
        raise GraphError(f"there is no operation {name!r}" + (f"; near names: {', '.join(near)}" if near else ""))


def _names(function: Function) -> set[str]:
    return {name for node in function.nodes for name in node.origin}
