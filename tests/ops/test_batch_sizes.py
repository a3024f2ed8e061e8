"""Ops over a batch of unknown size: one compilation serves every size, on every backend."""
from __future__ import annotations

import numpy as np
import pytest

from graphc import dtypes
from graphc.ir import dim, infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, Op, Sample
from tests.ops.cases import draw, generator
from tests.ops.compiled import Compiled
from tests.ops.pairwise import OPS, Case
from tests.ops.test_backends import allowed
from tests.ops.tolerance import check

SIZES = (1, 7, 128)
COLUMNS = 7
MOVEMENTS = ("Transpose", "ReverseV2", "Identity", "Pad")
"""Those that fit any number of rows."""
KINDS = {"llvm_cpu": None, "numba_cpu": ("Softmax", "Sum", "MatMul", "Exp", "Add", "GatherV2"), "interp": None}


def batched() -> list[tuple[Op, Sample]]:
    """Each op's first float32 sample whose inputs are all matrices of 5 rows: 5 stands for the size."""
    found = []
    for op in OPS:
        for sample in op.samples():
            shapes = [t.shape for t in sample.types]
            sizes = {n for n in sample.attrs.values() if isinstance(n, tuple)}
            if shapes and all(s == (5, COLUMNS) for s in shapes) and sample.types[0].dtype is dtypes.float32 \
                    and not sample.arrays and not any(5 in n for n in sizes) and (
                        op.kind in (Kind.ELEMENTWISE, Kind.REDUCTION) or op.name in MOVEMENTS):
                found.append((op, sample))
                break
    return found


def function_over(cases: list[tuple[Op, Sample]]) -> Function:
    """All cases as one Function of N rows, where every input is a feed of its own."""
    n = dim.symbol("N")
    builder = Builder(infer.types)
    feeds: list[Value] = []
    fetches: list[Value] = []
    for op, sample in cases:
        values = [Value(TensorType(t.dtype, (n, COLUMNS))) for t in sample.types]
        feeds += values
        fetches += builder.add(op, values, sample.attrs, (op.name,)).outputs
    return Function("f", tuple(feeds), tuple(builder.nodes), tuple(fetches), sources=(SymbolSource("N", 0, 0),),
                    feed_names=tuple(f"x{i}" for i in range(len(feeds))),
                    fetch_names=tuple(f"y{i}" for i in range(len(fetches))))


@pytest.mark.parametrize("backend", list(KINDS))
def test_one_compilation_serves_every_size(backend: str) -> None:
    names = KINDS[backend]
    cases = [(op, s) for op, s in batched() if names is None or op.name in names]
    assert len(cases) > (50 if names is None else 2)
    function = function_over(cases)
    compiled = Compiled(function, backend)
    for size in SIZES:
        resized = [Sample(tuple(TensorType(t.dtype, (size, COLUMNS)) for t in s.types), s.attrs, domain=s.domain,
                          special=False, ulp=s.ulp) for _, s in cases]
        drawn = [draw(s, generator(op.name, size)) for (op, _), s in zip(cases, resized, strict=True)]
        feeds = [a for arrays in drawn for a in arrays]
        got, want = compiled(feeds), evaluate(function, feeds)[0]
        at = 0
        for (op, _), sample, arrays, node in zip(cases, resized, drawn, function.nodes, strict=True):
            for value in node.outputs:
                t = TensorType(value.tensor.dtype, want[at].shape)
                case = Case(op, 0, sample, "contiguous")
                bound = allowed(case, arrays, node.attrs, t, want[at]) if t.dtype.is_floating else 0.0
                check(np.asarray(got[at]), want[at], t.dtype, bound, f"{op.name}, {size} rows")
                at += 1
