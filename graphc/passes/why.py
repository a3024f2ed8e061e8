"""Why two ops of the user's graph are, or are not, computed by one kernel.

Owns the question; the answers are the refusals that fusion met.  Knows fusion.  Invariant: changes nothing.
"""
from __future__ import annotations

import difflib

from graphc.ir.function import Function
from graphc.passes.fuse import Fuser


def why(function: Function, first: str, second: str) -> str:
    """Return, in a sentence, how fusion treats the ops `first` and `second` (names in the user's graph) of a function
    that is optimised but not fused.  Raises ValueError for a name that no op has."""
    origins = {name for node in function.nodes for name in node.origin}
    for name in (first, second):
        if name not in origins:
            near = difflib.get_close_matches(name, sorted(origins), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the optimised program has no op called {name!r}{hint}")
    fuser = Fuser(function)
    fused = fuser.run()
    for node in fused.nodes:
        if {first, second} <= set(node.origin):
            return f"{first!r} and {second!r} are computed by one kernel"
    reasons = []
    for r in fuser.refusals:
        ends = [set(v.producer.origin) if v.producer is not None else set() for v in (r.first, r.second)]
        if (first in ends[0] and second in ends[1]) or (second in ends[0] and first in ends[1]):
            reasons.append(r.reason)
    if reasons:
        return f"{first!r} and {second!r} are computed by different kernels: {reasons[-1]}"
    return f"{first!r} and {second!r} are computed by different kernels: they have nothing to do with each other"
