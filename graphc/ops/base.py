"""What an op is: one object that says everything about it, and the one registry of all of them.

Owns `Op`, its parts, and the registry (sealed once `graphc.ops` is imported).  Knows types, sizes and
kernel expressions; must not know passes, backends or sessions.
Invariant: an op's entry is complete.  "Has no gradient" is the explicit value `NoGradient(reason)`;
an op without inference, gradient, reference, lowering or samples does not import.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias, Union

import numpy as np

from graphc.dtypes import DType
from graphc.errors import InternalError
from graphc.ir.dim import Size
from graphc.ir.types import Shape, TensorType
from graphc.kernel.ir import Expr, Stmt


class Kind(Enum):
    """What supplies the rest of an op (HOUSE: an op, once)."""

    SOURCE = "source"            # no inputs: Placeholder, Const, VariableV2, Range, Fill ...
    ELEMENTWISE = "elementwise"  # one scalar expression, inputs broadcast
    REDUCTION = "reduction"      # a combiner over axes
    MOVEMENT = "movement"        # an index map, no arithmetic
    CONTRACTION = "contraction"  # sums of products
    INDEXING = "indexing"        # loaded indices: gather, scatter, one_hot
    LIBRARY = "library"          # a kernel-IR routine: cumsum, sort, top-k ...
    RANDOM = "random"            # Philox over a counter state
    STATE = "state"              # reads and writes of variables; gone after extract
    HOST = "host"                # runs in Python
    STRUCTURED = "structured"    # holds bodies: Loop, Cond, Fusion


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


@dataclass(frozen=True, slots=True)
class PartialType:
    """What inference knows of a tensor while a graph is built: shape is None for an unknown rank."""

    dtype: DType
    shape: Shape | None


class Inference(Protocol):
    """What an op's `infer` sees, and what it may say.

    While a graph is built, sizes may be fresh symbols and ranks unknown; when a program is extracted,
    every rank is known and meeting sizes are unified.  The same rule serves both.
    """

    inputs: Sequence[PartialType]
    attrs: Mapping[str, Any]

    def value(self, i: int) -> np.ndarray | None:
        """The content of integer (or bool) input i where it is known, as an array of ints and Dims
        (dtype object), else None."""

    def equal(self, a: Size, b: Size, message: str) -> Size:
        """Require a == b (raise ShapeError with `message` where they are known to differ); the better known."""

    def broadcast(self, a: Shape, b: Shape) -> Shape:
        """NumPy broadcasting; two unknown sizes that meet are assumed equal (an assumption of the program)."""

    def divides(self, size: Size, by: Size, message: str) -> Size:
        """Require that `by` divides `size`; the quotient."""

    def unknown(self) -> Size:
        """A fresh size that nothing is known of (graph building; refused at extraction)."""

    def fail(self, message: str, hint: str | None = None) -> Exception:
        """The ShapeError to raise: raise ctx.fail("inner sizes differ, ...", hint="...")."""

    def fail_dtype(self, message: str, hint: str | None = None) -> Exception:
        """The DTypeError to raise."""


@dataclass(frozen=True, slots=True)
class Call:
    """What an op's NumPy reference sees: arrays (floats as float64, integers and bools exactly, bfloat16 as
    float64; or arrays of Dims, dtype object, when sizes are computed symbolically), attrs, and concrete types."""

    arrays: Sequence[np.ndarray]
    attrs: Mapping[str, Any]
    in_types: Sequence[TensorType]
    out_types: Sequence[TensorType]


class Point(Protocol):
    """What a pointwise lowering sees: say the element of output `output` at `index` as an expression."""

    index: tuple[Expr, ...]
    output: int
    attrs: Mapping[str, Any]
    in_types: Sequence[TensorType]
    out_types: Sequence[TensorType]

    def load(self, i: int, index: Sequence[Expr], predicate: Expr | None = None, other: Expr | None = None) -> Expr:
        """Input i at `index` (where predicate holds, else `other`); its dtype is the input's."""

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        """`value` where ok, else `fallback` and an error of the run with `message` at the user's line."""


@dataclass(frozen=True, slots=True)
class Pointwise:
    """Lowering by element: point(p) gives the element of an output at p.index.  For ELEMENTWISE ops use
    `scalar`: scalar(attrs, *args) -> Expr, the inputs already broadcast to the index."""

    point: Callable[[Point], Expr] | None = None
    scalar: Callable[..., Expr] | None = None


@dataclass(frozen=True, slots=True)
class Reducing:
    """Lowering of a reduction: combiner of kernel IR over attrs["axis"] (tuple of axes, canonical) with
    attrs["keepdims"].  prepare(attrs, x) -> Expr before combining; finish(attrs, accumulated, count) -> Expr after
    (count: number of combined elements, int64 expression).  For argmax/argmin the result is the index."""

    combiner: str
    prepare: Callable[[Mapping[str, Any], Expr], Expr] | None = None
    finish: Callable[[Mapping[str, Any], Expr, Expr], Expr] | None = None


@dataclass(frozen=True, slots=True)
class Contracting:
    """Lowering of a sum of products, as index letters: spec(attrs, in_types) -> (a, b, out) like einsum's
    "bmk", "bkn", "bmn"; letters in out and both inputs are batch, in both inputs alone are summed."""

    spec: Callable[[Mapping[str, Any], Sequence[TensorType]], tuple[str, str, str]]


class Routine(Protocol):
    """What a routine's lowering sees: buffers by number and types, and fresh names."""

    attrs: Mapping[str, Any]
    in_types: Sequence[TensorType]
    out_types: Sequence[TensorType]

    def input(self, i: int) -> str:
        """Name of the buffer of input i."""

    def output(self, i: int) -> str:
        """Name of the buffer of output i (never aliases an input unless `inplace` says so)."""

    def fresh(self, stem: str) -> str:
        """A name not used in this kernel."""

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        """As Point.guard."""


@dataclass(frozen=True, slots=True)
class RoutineBody:
    """Lowering by a hand-written kernel body.  inplace: {output: input} pairs where the routine updates the
    input's buffer (the planner copies first when the old value is still needed)."""

    body: Callable[[Routine], tuple[Stmt, ...]]
    inplace: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """No code: output 0 is input 0's memory under another shape (reshape, expand_dims, identity)."""


@dataclass(frozen=True, slots=True)
class NotLowered:
    """Never reaches lowering (state, host, structured ops, sources); `reason` says where it goes."""

    reason: str


Lowering: TypeAlias = Union[Pointwise, Reducing, Contracting, RoutineBody, View, NotLowered]


@dataclass(frozen=True, slots=True)
class NoGradient:
    """The op has no gradient, and why.  Through it the gradient is None (as TF's NotDifferentiable)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One test case: NumPy inputs (or shapes drawn by the test where only types are given), attrs.

    domain: (low, high) that float inputs are drawn from; special: whether NaN, infinities and signed zeros may be
    mixed in; differentiable: whether finite differences make sense at random points of the domain.
    ulp: tolerance of an elementwise result in units of last place of the output dtype.
    """

    types: tuple[TensorType, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[int, np.ndarray] = field(default_factory=dict)
    domain: tuple[float, float] = (-3.0, 3.0)
    special: bool = True
    differentiable: bool = True
    ulp: float = 4.0


GradientFunction: TypeAlias = Callable[..., Sequence[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One op.  See HOUSE "An op, once".

    name: TensorFlow 1's op type where there is one.  kind: see Kind.  inputs: names of the inputs, the last one
    "*values" where any number may come.  attrs: name -> default (REQUIRED for none).
    infer(ctx) -> one PartialType per output.
    gradient(op, *grads) -> one Tensor or None per input (op: the graph Operation; grads: Tensor or None per output),
    written with graphc.ops.build; or NoGradient.
    reference(call) -> array, or tuple of arrays where outputs > 1; computes in the arrays' own (wide) dtypes; the
    evaluator rounds to the output dtypes.
    lower: one of the Lowering records.
    static: inputs whose VALUE is needed when compiling, index -> attr name.  Extract moves the (symbolic) value into
    that attr as a tuple (or scalar) of Sizes and drops the input; `infer`, `reference` and `lower` read the attr
    alone, through `attr_or_value` in infer.  In the IR the op has the remaining inputs only.
    symbolic: the reference also computes arrays of Dims (dtype object), so sizes flow through the op.
    samples() -> test cases, types as in the IR (static inputs as attrs).
    flops(in_types, out_types, attrs) -> Size.  cost: for elementwise ops, taken from the primitives when None.
    stateful: never merged, folded or removed as dead when reached by a control edge.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    infer: Callable[[Inference], Sequence[PartialType]]
    gradient: GradientFunction | NoGradient
    reference: Callable[[Call], Any]
    lower: Lowering
    samples: Callable[[], Iterable[Sample]]
    doc: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    static: Mapping[int, str] = field(default_factory=dict)
    symbolic: bool = False
    stateful: bool = False
    outputs: int = 1
    flops: Callable[..., Size] | None = None

    def __post_init__(self) -> None:
        for part in ("infer", "gradient", "reference", "lower", "samples"):
            if getattr(self, part) is None:
                raise InternalError(f"op {self.name} does not say its {part}")
        if not self.doc.strip():
            raise InternalError(f"op {self.name} has no documentation")

    @property
    def variadic(self) -> bool:
        """Whether the last input stands for any number of inputs."""
        return bool(self.inputs) and self.inputs[-1].startswith("*")


_REGISTRY: dict[str, Op] = {}
_sealed = False


def register(op: Op) -> Op:
    """Add `op` to the registry and return it.  Raises InternalError for a second op of that name."""
    if _sealed:
        raise InternalError(f"op {op.name} comes after the registry was sealed")
    if op.name in _REGISTRY:
        raise InternalError(f"op {op.name} is registered twice")
    _REGISTRY[op.name] = op
    return op


def seal() -> None:
    """Close the registry (called once, by graphc.ops)."""
    global _sealed
    _sealed = True


def lookup(name: str) -> Op:
    """Return the op called `name`.  Raises KeyError."""
    return _REGISTRY[name]


def all_ops() -> Mapping[str, Op]:
    """Return every op by name, in order of registration."""
    return _REGISTRY


def attr_or_value(ctx: Inference, i: int, attr: str) -> Any:
    """Return what static input i says: attrs[attr] where it is there, else the known value of input i as a tuple (or
    a scalar for a 0-d value) of ints and Dims, else None."""
    if ctx.attrs.get(attr) is not None:
        return ctx.attrs[attr]
    known = ctx.value(i)
    if known is None:
        return None
    return known.item() if known.ndim == 0 else _as_tuple(known)


def _as_tuple(values: np.ndarray) -> tuple[Any, ...]:
    return tuple(_as_tuple(v) if isinstance(v, np.ndarray) and v.ndim else (int(v) if isinstance(v, np.integer) else v)
                 for v in values)
