"""Every row of ONNX's table against onnxruntime: the ops' own samples, one op to a file, compared with the oracle.

What runs at every change is one sample of every op and dtype; every sample is `nightly`.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc import dtypes
from graphc.interop import onnx_elementwise, onnx_movement, onnx_windows
from graphc.interop.onnx import NotExportable, export_function
from graphc.interop.onnx_table import REASONS, ROWS, covered, is_decomposed
from graphc.ir.evaluate import evaluate
from graphc.ops.base import Kind, Op, Sample, all_ops
from tests.interop.onnx_cases import WITHOUT_KERNEL, NoKernel, check, in_range, one_op, run
from tests.ops.cases import TENSOR_OPS, draw, generator, symbolic

pytest.importorskip("onnx", reason="needs the [onnx] extra")
pytest.importorskip("onnxruntime", reason="needs the [test] extra")

EXPORTED = [op for op in TENSOR_OPS if op.name in ROWS or is_decomposed(op)]
STEPS = ("SliceGrad", "StridedSliceGrad")
WINDOWS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2",
           "DepthwiseConv2dNativeBackpropInput")
"""Their filters' sizes, which the samples share with the images', must be known; test_onnx.py has free images."""
NEED_SIZES = ("ResizeAxis", "ResizeAxisGrad", "ResizeBicubic")


def is_refused(op: Op, sample: Sample) -> bool:
    """Whether docs/onnx.md says that this sample is not exported."""
    if op.name == "Pow":
        return not sample.types[0].dtype.is_floating
    return op.name in STEPS and any(abs(s) != 1 or s < 0 for s in sample.attrs["strides"] or ())


def check_sample(op: Op, number: int, sample: Sample) -> None:
    """Export the op, run it where onnxruntime can, and compare."""
    sample = in_range(op, sample)
    arrays = draw(sample, generator("onnx", op.name, number))
    function, given = one_op(op, sample.types, sample.attrs)
    what = f"{op.name}({', '.join(map(str, sample.types))}) {dict(sample.attrs)}"
    if is_refused(op, sample):
        with pytest.raises(NotExportable, match=op.name):
            export_function(function, {})
        return
    model = export_function(function, {})
    try:
        got = run(model, arrays)
    except NoKernel as operator:
        dtype = sample.types[0].dtype.name
        assert str(operator) in WITHOUT_KERNEL.get(dtype, ()), f"{what}: no kernel for {operator}"
        return
    check(got, evaluate(function, arrays)[0], given, what)


def one_of_each_dtype(op: Op) -> Iterator[tuple[int, Sample]]:
    """A sample for each combination of the inputs' dtypes, another one for each op."""
    groups: dict[tuple[str, ...], list[tuple[int, Sample]]] = {}
    for number, sample in enumerate(op.samples()):
        groups.setdefault(tuple(t.dtype.name for t in sample.types), []).append((number, sample))
    for dtypes_of, group in groups.items():
        yield group[int(generator("onnx", op.name, dtypes_of).integers(len(group)))]


def test_one_sample_of_every_op_and_dtype() -> None:
    failures = []
    for op in EXPORTED:
        for number, sample in one_of_each_dtype(op):
            try:
                check_sample(op, number, sample)
            except AssertionError as error:
                failures.append(str(error))
    assert not failures, "\n".join(failures)


def test_nan_and_infinities_in_elementwise_ops() -> None:
    ran = set()
    for op in EXPORTED:
        for number, sample in enumerate(op.samples()):
            if op.kind is Kind.ELEMENTWISE and sample.special and sample.types[0].dtype is dtypes.float32 and \
                    op.name not in ("Cast", "Atan2"):
                arrays = draw(sample, generator("special", op.name, number), special=True)
                function, given = one_op(op, sample.types, sample.attrs)
                check(run(export_function(function, {}), arrays), evaluate(function, arrays)[0], given, op.name)
                ran.add(op.name)
    assert len(ran) > 60, sorted(ran)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [op.name for op in EXPORTED])
def test_every_sample(name: str) -> None:
    for number, sample in enumerate(all_ops()[name].samples()):
        check_sample(all_ops()[name], number, sample)


def free_samples(op: Op) -> Iterator[tuple[int, Sample]]:
    """Samples of one dtype, float32 where there are such, that have free sizes."""
    samples = list(enumerate(op.samples()))
    if op.name in (*WINDOWS, *NEED_SIZES, *STEPS) or not samples or not samples[0][1].types:
        return
    named = {s.types[0].dtype for _, s in samples}
    chosen = dtypes.float32 if dtypes.float32 in named else samples[0][1].types[0].dtype
    for number, sample in samples:
        if sample.types[0].dtype is chosen and symbolic(sample)[1] and not is_refused(op, sample):
            yield number, sample


def test_free_sizes_are_computed_from_the_inputs() -> None:
    """Every size above 3 is free: what depends on it is nodes of the file."""
    ran, failures = set(), []
    for op in EXPORTED:
        for number, sample in itertools.islice(free_samples(op), 3):
            types, _ = symbolic(sample)
            sample = in_range(op, sample)
            arrays = draw(sample, generator("free", op.name, number))
            try:
                function, given = one_op(op, types, sample.attrs)
            except ValueError:  # the attrs hold sizes that do not fit free ones
                continue
            model = export_function(function, {})
            try:
                check(run(model, arrays), evaluate(function, arrays)[0], given, f"{op.name} of {types} {sample.attrs}")
                ran.add(op.name)
            except AssertionError as error:
                failures.append(str(error))
    assert not failures, "\n".join(failures)
    assert len(ran) > 130, sorted(ran)


def test_every_op_has_a_row_a_reason_or_a_decomposition() -> None:
    ops = all_ops()
    assert not ROWS.keys() & REASONS.keys()
    assert ROWS.keys() <= ops.keys() and REASONS.keys() <= ops.keys()
    silent = [name for name, op in ops.items() if name not in ROWS and name not in REASONS and op.decompose is None]
    assert not silent, silent
    assert len(ROWS) == sum(len(t.ROWS) for t in (onnx_elementwise, onnx_movement, onnx_windows)), "a row stands twice"


def test_the_page_lists_what_is_exported() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    for kind, names in covered().items():
        assert f"* {kind.value}: {', '.join(names)}\n" in page, f"docs/onnx.md: the list of {kind.value} is not true"
    for dtype, operators in WITHOUT_KERNEL.items():
        assert f"* {dtype}: {', '.join(sorted(operators))}\n" in page, dtype
    for reason in set(REASONS.values()):
        names = ", ".join(name for name, why in REASONS.items() if why == reason)
        assert f"* {names}: {reason}\n" in page, f"docs/onnx.md does not tell: {reason}"


def test_references_are_not_trivial() -> None:
    """The comparison can fail."""
    (sample, *_) = all_ops()["Add"].samples()
    function, given = one_op(all_ops()["Add"], sample.types, {})
    arrays = draw(sample, generator("wrong"))
    got = run(export_function(function, {}), arrays)
    with pytest.raises(AssertionError):
        check([g + np.asarray(1, g.dtype) for g in got], evaluate(function, arrays)[0], given, "Add")
