"""Effects as values: which content of a variable each read sees.

Owns the order of writes (ARCHITECTURE: The IR).  Knows the user's graph and which of its operations run; makes no
IR.  Law: a read sees exactly the writes that are its data or control ancestors, and what those build on; writes that
nothing orders take creation order.  Creation order is an order of ancestors too (inputs are made before their
users), so the writes of a variable form one chain, and a read sees the chain up to its latest ancestor.
Invariant: near-linear; operations that see the same writes share one table.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor

Seen = Mapping[Operation, int]
"""For each variable, the number of writes in its chain that are ancestors (absent: none)."""

NOTHING: Seen = {}


def variable_of(tensor: Tensor) -> Operation | None:
    """Return the variable whose content `tensor` is a handle of: a variable's own output, or that of a write to it."""
    op = tensor.op
    while is_state_op(op):
        op = op.inputs[0].op
    return op if op.type == "VariableV2" and tensor.value_index == 0 else None


def is_state_op(op: Operation) -> bool:
    """Whether `op` reads or writes a variable."""
    return bool(op.op.kind.value == "state") and bool(op.inputs)


class Effects:
    """Walks operations in order of creation and tells what each one sees.

    parents(op): the operations that `op` waits for, by data or control, as far as they run.
    """

    def __init__(self, parents: Callable[[Operation], Iterable[Operation]]) -> None:
        self._parents = parents
        self._after: dict[Operation, Seen] = {}
        self._writes: dict[Operation, int] = {}

    def before(self, op: Operation) -> Seen:
        """What `op` sees when it starts."""
        return merge([self._after[parent] for parent in self._parents(op)])

    def passed(self, op: Operation, seen: Seen) -> None:
        """Note that `op`, which saw `seen`, writes nothing."""
        self._after[op] = seen

    def wrote(self, op: Operation, seen: Seen, variable: Operation) -> int:
        """Note that `op`, which saw `seen`, writes `variable`; the number of writes so far."""
        count = self._writes.get(variable, 0) + 1
        self._writes[variable] = count
        self._after[op] = {**seen, variable: count}
        return count


def merge(tables: Sequence[Seen]) -> Seen:
    """Return the latest of every variable; one of the tables itself where it says everything."""
    best = NOTHING
    for table in tables:
        if len(table) > len(best):
            best = table
    merged: dict[Operation, int] | None = None
    for table in tables:
        if table is best:
            continue
        for variable, count in table.items():
            if count > (best if merged is None else merged).get(variable, 0):
                if merged is None:
                    merged = dict(best)
                merged[variable] = count
    return best if merged is None else merged
