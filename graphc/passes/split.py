"""Large totals in two stages: partial results in parallel, then their combination.

Owns the decision and the two Fusions that stand for one.  Knows Fusion nodes; must not know how they are lowered.
Law: rounding (the order of combination changes).  Invariant: the number of partial results depends on sizes alone.
"""
from __future__ import annotations

from graphc.ir.function import Node


def split_total(node: Node) -> list[Node] | None:
    """Return the Fusions that compute a Fusion in stages, or None where one kernel does."""
    return None
