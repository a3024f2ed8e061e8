"""What op files share: groups of dtypes, shape rules, and test types.

Owns the inference rules that a whole kind of op has in common.  Knows the op contract; must not know single ops.
Invariant: every refusal is a ShapeError or DTypeError that speaks of the user's dtypes and sizes.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.ops.base import Call, Inference, Sample

Group: TypeAlias = tuple[DType, ...]
Infer: TypeAlias = Callable[[Inference], Sequence[PartialType]]

FLOATS: Group = (dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
SIGNED: Group = (dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64)
UNSIGNED: Group = (dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64)
INTEGERS: Group = SIGNED + UNSIGNED
NUMBERS: Group = FLOATS + INTEGERS
BOOLS: Group = (dtypes.bool_,)
ALL: Group = NUMBERS + BOOLS
INDICES: Group = (dtypes.int32, dtypes.int64)

_GROUP_NAMES: dict[Group, str] = {
    FLOATS: "floats", SIGNED + FLOATS: "signed numbers", INTEGERS: "integers", NUMBERS: "numbers", BOOLS: "bool",
    INDICES: "int32 or int64",
}


def group_name(group: Group) -> str:
    """Return the words for a group of dtypes."""
    return _GROUP_NAMES.get(group) or ", ".join(d.name for d in group)


def check_dtype(ctx: Inference, given: PartialType, allowed: Group, what: str | None = None) -> None:
    """Raise DTypeError unless `given` has one of the `allowed` dtypes.  what: the input's role, "the indices"."""
    if given.dtype not in allowed:
        hint = f"convert it: tf.cast(x, tf.{_suggestion(given.dtype, allowed).name})"
        wanted = group_name(allowed)
        problem = f"takes {wanted}, but the input is {given.dtype.name}" if what is None else \
            f"takes {wanted} for {what}, not {given.dtype.name}"
        raise ctx.fail_dtype(problem, hint)


def _suggestion(given: DType, allowed: Group) -> DType:
    preferred = (dtypes.float32, dtypes.int32, dtypes.bool_)
    return next((d for d in preferred if d in allowed and d is not given), allowed[0])


def check_same_dtype(ctx: Inference, given: Sequence[PartialType], allowed: Group = ALL) -> DType:
    """Raise DTypeError unless all of `given` share one dtype, one of the `allowed`; return it."""
    for i, t in enumerate(given):
        if t.dtype is not given[0].dtype:
            raise ctx.fail_dtype(
                f"the inputs must have one dtype, not {given[0].dtype.name} and {t.dtype.name}",
                f"convert one of them: tf.cast(x, tf.{given[0].dtype.name}) for input {i}")
    check_dtype(ctx, given[0], allowed)
    return given[0].dtype


def broadcast_shapes(ctx: Inference, shapes: Iterable[Shape | None]) -> Shape | None:
    """Return the shape that all `shapes` broadcast to; None where a rank is unknown."""
    total: Shape = ()
    for shape in shapes:
        if shape is None:
            return None
        total = ctx.broadcast(total, shape)
    return total


def same_shapes(ctx: Inference, shapes: Sequence[Shape | None], message: str) -> Shape | None:
    """Require that all `shapes` agree; return the best known."""
    total: Shape | None = None
    for shape in shapes:
        if shape is None:
            continue
        if total is None:
            total = shape
            continue
        if len(total) != len(shape):
            raise ctx.fail(f"{message}: {show(total)} and {show(shape)}")
        total = tuple(ctx.equal(a, b, f"{message}: {show(total)} and {show(shape)}")
                      for a, b in zip(total, shape, strict=True))
    return total


def show(shape: Sequence[Size] | None) -> str:
    """Return a shape as the user writes it; sizes that only the compiler names are shown as they are."""
    if shape is None:
        return "<unknown>"
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def elementwise(allowed: Group, result: DType | None = None) -> Infer:
    """Return the inference of an op on broadcast inputs of one dtype; `result` where the output has another."""
    def infer(ctx: Inference) -> Sequence[PartialType]:
        dtype = check_same_dtype(ctx, ctx.inputs, allowed)
        return [PartialType(result or dtype, broadcast_shapes(ctx, (t.shape for t in ctx.inputs)))]
    return infer


def require_rank(ctx: Inference, shape: Shape | None, low: int, what: str, high: int | None = None) -> None:
    """Raise ShapeError unless the rank lies in low..high (any rank from `low` where high is None)."""
    if shape is None or low <= len(shape) <= (len(shape) if high is None else high):
        return
    wanted = f"rank {low}" if high == low else f"rank {low} or more" if high is None else f"rank {low} to {high}"
    raise ctx.fail(f"{what} must have {wanted}, its shape is {show(shape)}")


def axis_in(ctx: Inference, axis: Any, rank: int, what: str = "axis") -> int:
    """Return `axis` counted from the front.  Raises ShapeError where it is not one of `rank` axes."""
    if isinstance(axis, Dim) or not -rank <= int(axis) < rank:
        raise ctx.fail(f"{what} {axis} is out of range for rank {rank}")
    return int(axis) % rank


def normal_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Return axes as a sorted tuple counted from the front; they have passed inference."""
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted({int(a) % rank for a in axes}))


def ints(value: Any) -> tuple[Any, ...]:
    """Return a static value as a tuple: a scalar is a tuple of one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def size_array(sizes: Sequence[Size]) -> np.ndarray:
    """Return sizes as an int64 array, or as an object array where one is symbolic."""
    symbolic = any(isinstance(n, Dim) for n in sizes)
    out = np.empty(len(sizes), object if symbolic else np.int64)
    out[:] = list(sizes)
    return out


def concrete(call: Call) -> tuple[int, ...]:
    """Return the shape of output 0 as ints, for NumPy."""
    return tuple(int(n) for n in call.out_types[0].shape)


def static_rank(ctx: Inference, i: int) -> int | None:
    """Return the length of the vector that static input i holds, where its value is not known but its shape is."""
    if i >= len(ctx.inputs):
        return None
    shape = ctx.inputs[i].shape
    if shape is None or len(shape) != 1 or not isinstance(shape[0], int):
        return None
    return shape[0]


def unknown_sizes(ctx: Inference, rank: int | None) -> Shape | None:
    """Return a shape of `rank` unknown sizes."""
    return None if rank is None else tuple(ctx.unknown() for _ in range(rank))


def elements(shape: Shape) -> Size:
    """Return the number of elements."""
    return dim.product(shape)


def typed(dtype: DType, *shape: Size) -> TensorType:
    """Return the type of a test input."""
    return TensorType(dtype, shape)


def samples_of(group: Group, shapes: Sequence[Sequence[tuple[int, ...]]], **sample: Any) -> Callable[[], list[Sample]]:
    """Return a `samples` part: every dtype of `group` with every tuple of input shapes of `shapes`."""
    def samples() -> list[Sample]:
        return [Sample(tuple(TensorType(d, s) for s in row), **({"differentiable": d.is_floating} | sample))
                for d in group for row in shapes]
    return samples
