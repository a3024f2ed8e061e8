"""Which cases of the ops a suite runs: the full product, or few of them that still meet every pair of factors.

Owns the factors (op, dtypes, shapes, layout of the feeds) and the choice.  Knows the registry's samples; knows nothing
of compiling.  Invariant: the choice depends on the registry and the seed alone.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.ir.types import TensorType
from graphc.ops.base import Kind, NotLowered, Op, Sample
from tests.ops.cases import TENSOR_OPS, generator

OPS = tuple(op for op in TENSOR_OPS if op.decompose is not None or not isinstance(op.lower, NotLowered))
"""The ops that become kernels, by themselves or in parts."""
LAYOUTS = ("contiguous", "strided", "reversed", "transposed")
"""How a fed array lies in memory."""
TAIL = 2 * 64 + 1
"""Two of the widest vectors there are (64 lanes of int8), and one element more."""
_DTYPES = ("dtype", "type", "output_type")


@dataclass(frozen=True, slots=True)
class Case:
    """One sample of an op, and the layout of what is fed to it."""

    op: Op
    number: int
    sample: Sample
    layout: str

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The pairs of factors that the case meets: op, dtypes, shapes with attrs; first dtype, shape class, layout."""
        types, attrs = self.sample.types, self.sample.attrs
        dtypes = " ".join([*(t.dtype.name for t in types), *(str(attrs[n]) for n in _DTYPES if n in attrs)])
        form = f"{[t.shape for t in types]} {({n: v for n, v in attrs.items() if n not in _DTYPES})}"
        name, first, kind, layout = self.op.name, types[0].dtype.name if types else "", shape_class(types), self.layout
        return frozenset(((name, dtypes), (name, form), (name, layout), (first, kind), (first, layout), (kind, layout)))

    def __str__(self) -> str:
        types = ", ".join(map(str, self.sample.types))
        return f"{self.op.name}({types}) {dict(self.sample.attrs)} fed {self.layout}"


def samples_of(op: Op) -> Iterator[Sample]:
    """The op's samples, and those of one size that are made longer than two vectors."""
    for sample in op.samples():
        yield sample
        shapes = {t.shape for t in sample.types}
        if shapes != {(5, 7)} or sample.arrays:
            continue
        if op.kind is Kind.ELEMENTWISE:
            yield replace(sample, types=tuple(TensorType(t.dtype, (TAIL,)) for t in sample.types))
        elif op.kind is Kind.REDUCTION and len(sample.types) == 1 and set(sample.attrs) <= {"axis", "keepdims"}:
            yield replace(sample, types=(TensorType(sample.types[0].dtype, (3, TAIL)),))


def all_cases(ops: Iterable[Op] = OPS, layouts: Sequence[str] = LAYOUTS) -> list[Case]:
    """The full product."""
    return [Case(op, number, sample, layout) for op in ops for number, sample in enumerate(samples_of(op))
            for layout in layouts if layout == "contiguous" or any(t.rank for t in sample.types)]


def shape_class(types: Sequence[TensorType]) -> str:
    """What is special about the shapes of a case's inputs."""
    shapes = {t.shape for t in types}
    if any(0 in shape for shape in shapes):
        return "empty"
    if len(shapes) > 1:
        return "broadcast"
    if shapes <= {()}:
        return "0-d"
    sizes = [n for shape in shapes for n in shape]
    return "one" if set(sizes) == {1} else "tail" if TAIL in sizes else "odd"


def pairwise(cases: Sequence[Case], seed: int) -> list[Case]:
    """A few of `cases` among which every pair of factors that occurs together in one of them does so again."""
    pairs = [case.pairs for case in cases]
    order = generator("pairwise", seed).permutation(len(cases))
    missing = set().union(*pairs)
    chosen: list[int] = []
    for least in range(6, 0, -1):  # first those that bring the most pairs
        for i in map(int, order):
            if len(missing & pairs[i]) >= least:
                missing -= pairs[i]
                chosen.append(i)
    return [cases[i] for i in sorted(chosen)]


def one_each(cases: Sequence[Case], seed: int) -> list[Case]:
    """One of each op's cases, another one for another seed."""
    by_op: dict[str, list[Case]] = {}
    for case in cases:
        by_op.setdefault(case.op.name, []).append(case)
    return [group[int(generator("one", name, seed).integers(len(group)))] for name, group in by_op.items()]

