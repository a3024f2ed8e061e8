"""An independent check of memory plans.

Owns the proof that a Plan may run: reads nothing but the Plan.  Must not share code with what makes plans.
Invariant: for every size of every symbol, no two live values share bytes (but where a kernel may write its output over
an input that nobody reads later), and every read is of something that was written.
"""
from __future__ import annotations

from graphc.kernel.plan import Plan


def check_memory(plan: Plan) -> None:
    """Raise InternalError unless `plan` keeps its promises."""
