"""An independent check of memory plans.

Owns the proof that a Plan may run: it follows the steps and keeps count of which buffers still hold what was written
to them.  Reads nothing but the Plan.  Must not share code with what makes plans. Invariant: for every size of every
symbol, a read finds the buffer as it was written; a kernel's output shares bytes with another of its parameters only
where the kernel says that it may.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.plan import Branch, Buffer, Call, Copy, Host, Loop, Plan, Step
from graphc.passes.bounds import at_least

SAMPLE = 1009  # a size that orders the stretches of an arena; any order is then proven


def check_memory(plan: Plan) -> None:
    """Raise InternalError unless `plan` keeps its promises."""
    checker = _Checker(plan)
    intact = checker.steps(plan.steps, frozenset())
    for i, source in enumerate(plan.fetch_sources):
        checker.read(intact, source, f"fetch {i}")


class _Checker:
    """Follows the steps of one plan.  A set of buffer numbers is what still holds its value."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._meet: dict[tuple[int, int], bool] = {}
        self._stretch = _stretches(plan)
        for number, b in enumerate(plan.buffers):
            if b.role == "temp" and number not in self._stretch and not (
                    at_least(b.offset, 0) and at_least(plan.arena, b.offset + _bytes(b))):
                raise InternalError(f"buffer {number} does not lie in the arena of {plan.arena} bytes: at {b.offset}")

    def steps(self, steps: Sequence[Step], intact: frozenset[int]) -> frozenset[int]:
        """Return what is intact after `steps`."""
        for number, step in enumerate(steps):
            match step:
                case Call():
                    intact = self.call(step, intact)
                case Copy(target, source):
                    self.read(intact, source, f"the copy in step {number}")
                    if self.overlap(target, source) and target != source:
                        raise InternalError(f"step {number} copies buffer {source} to {target}, which shares its bytes")
                    intact = self.write(intact, target)
                case Loop():
                    intact = self.loop(step, intact)
                case Branch(predicate, then, orelse):
                    self.read(intact, predicate, "a branch")
                    intact = self.steps(then, intact) & self.steps(orelse, intact)
                case Host(_, inputs, outputs):
                    for b in inputs:
                        self.read(intact, b, "a host call")
                    for b in outputs:
                        intact = self.write(intact, b)
        return intact

    def call(self, step: Call, intact: frozenset[int]) -> frozenset[int]:
        kernel = self.plan.kernels[step.kernel]
        pairs = list(zip(kernel.params, step.buffers, strict=True))
        for p, b in pairs:
            if p.role != "out":
                self.read(intact, b, f"kernel {kernel.name}")
        outputs = [(p, b) for p, b in pairs if p.role != "in"]
        for i, (p, b) in enumerate(outputs):
            for q, c in pairs:
                if q.role == "in" and self.overlap(b, c) and not (
                        (p.name, q.name) in kernel.aliases and self.same_place(b, c)):
                    raise InternalError(f"kernel {kernel.name} writes {p.name} over its input {q.name}")
            for q, c in outputs[:i]:
                if self.overlap(b, c):
                    raise InternalError(f"kernel {kernel.name} writes {p.name} and {q.name} to the same bytes")
        for _, b in outputs:
            intact = self.write(intact, b)
        return intact

    def loop(self, step: Loop, intact: frozenset[int]) -> frozenset[int]:
        """Two turns: what a turn takes over from the one before must survive it."""
        if step.count_buffer is not None:
            self.read(intact, step.count_buffer, "a loop")
        for _ in range(2):
            if step.condition is not None:
                self.read(intact, step.condition, "a loop")
            if step.index >= 0:
                intact = self.write(intact, step.index)
            intact = self.steps(step.body, intact)
        if step.condition is not None:
            self.read(intact, step.condition, "a loop")
        return self.write(intact, step.taken) if step.taken >= 0 else intact

    # -- buffers --------------------------------------------------------------------------------

    def root(self, number: int) -> int:
        """The buffer that a slice belongs to."""
        while self.plan.buffers[number].role == "slice":
            number = self.plan.buffers[number].base
        return number

    def read(self, intact: frozenset[int], number: int, who: str) -> None:
        root = self.root(number)
        if self.plan.buffers[root].role in ("temp", "fetch") and root not in intact:
            raise InternalError(f"{who} reads buffer {number}, which was not written, or was overwritten since")

    def write(self, intact: frozenset[int], number: int) -> frozenset[int]:
        root = self.root(number)
        role = self.plan.buffers[root].role
        if role in ("feed", "constant"):
            raise InternalError(f"buffer {number} is a {role} and is written")
        return frozenset(b for b in intact if b == root or not self.overlap(b, root)) | {root}

    def same_place(self, a: int, b: int) -> bool:
        """Whether two buffers begin at the same byte."""
        x, y = self.plan.buffers[a], self.plan.buffers[b]
        if x.role == "slice" or y.role == "slice":
            return a == b
        return (x.role, x.source, x.offset) == (y.role, y.source, y.offset)

    def overlap(self, a: int, b: int) -> bool:
        """Whether two buffers may share a byte."""
        a, b = self.root(a), self.root(b)
        if a == b:
            return True
        if self._stretch.get(a, -1) != self._stretch.get(b, -1):
            return False  # also where only one of them is a temporary; temporaries have stretches all or none
        if (a, b) not in self._meet:
            self._meet[a, b] = self._meet[b, a] = _overlap(self.plan.buffers[a], self.plan.buffers[b])
        return self._meet[a, b]


def _stretches(plan: Plan) -> dict[int, int]:
    """Stretches of the arena that follow each other: which of them each temporary lies in; none where that cannot be
    proven.  One proof per buffer, where pairs would need one each."""
    temps: dict[Size, list[int]] = {}
    for number, b in enumerate(plan.buffers):
        if b.role == "temp":
            temps.setdefault(b.offset, []).append(number)
    symbols = dict.fromkeys(dim.symbols_of([*temps, plan.arena]), SAMPLE)
    starts = sorted(temps, key=lambda offset: dim.evaluate(offset, symbols))
    found: dict[int, int] = {}
    if not starts or not at_least(starts[0], 0):
        return found
    for stretch, (start, end) in enumerate(zip(starts, [*starts[1:], plan.arena], strict=True)):
        length = end - start
        if not at_least(length, 0) or not all(at_least(length, _bytes(plan.buffers[n])) for n in temps[start]):
            return {}
        found.update(dict.fromkeys(temps[start], stretch))
    return found


def _overlap(x: Buffer, y: Buffer) -> bool:
    if x.role != y.role:
        return False
    if x.role != "temp":
        return x.source == y.source
    return not (at_least(y.offset, x.offset + _bytes(x)) or at_least(x.offset, y.offset + _bytes(y)))


def _bytes(b: Buffer) -> Size:
    return dim.product(b.shape) * b.dtype.size
