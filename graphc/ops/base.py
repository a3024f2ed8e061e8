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
from typing import Any, Protocol, TypeAlias

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32
from graphc.errors import GraphcError, InternalError
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Expr, Stmt, index
from graphc.kernel.primitives import cast


class Kind(Enum):
    """What supplies the rest of an op (ARCHITECTURE: Ops)."""

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


class InvalidValue(GraphcError, ValueError):
    """A value met by a reference that the op does not allow: an index out of range, an integer division by zero.

    Evaluation reports it as InvalidArgumentError at the user's line; constant folding leaves the node alone.
    """


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


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

    def at_most(self, a: Size, b: Size, message: str) -> None:
        """Require a <= b (raise ShapeError with `message` where it is known not to hold)."""

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


class Decomposition(Protocol):
    """What a decomposition sees: the node in the IR, and how to add the nodes that replace it.

    Values are those of ir/function.py; `type_of` gives their TensorType.  Static inputs are attrs, as always in the IR.
    """

    inputs: Sequence[Any]
    attrs: Mapping[str, Any]
    in_types: Sequence[TensorType]
    out_types: Sequence[TensorType]

    def op(self, name: str, *inputs: Any, **attrs: Any) -> Any:
        """Append an application of op `name` and return its value (a tuple where the op has several outputs)."""

    def constant(self, value: Any, dtype: DType) -> Any:
        """A Const of this value (a scalar, or an array)."""

    def type_of(self, value: Any) -> TensorType:
        """The type of a value."""


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
    `scalar`: scalar(attrs, *args) -> Expr, the inputs already broadcast to the index and float16 and bfloat16
    operands already cast to float32.  Either may return another dtype than the output's (float32 for a half, bool
    for a mask): the lowering casts the result to the output's dtype.  An ELEMENTWISE op that must guard (integer
    division) uses `point` and reads its operands through `operand`."""

    point: Callable[[Point], Expr] | None = None
    scalar: Callable[..., Expr] | None = None


def operand(p: Point, i: int) -> Expr:
    """Return the element of input i that broadcasts to p.index, a half-width float widened to float32."""
    shape = p.in_types[i].shape
    tail = p.index[len(p.index) - len(shape):]
    value = p.load(i, [index(0) if n == 1 else e for n, e in zip(shape, tail, strict=True)])
    return widen(value)


def widen(value: Expr) -> Expr:
    """Return `value`, as float32 where it is a float16 or bfloat16."""
    return cast(value, float32) if value.dtype in (float16, bfloat16) else value


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where input `input` is read: an int64 expression per axis, over the axes of a `Windows`; and where that is inside
    of it (None: everywhere).  Elsewhere the factor is zero."""

    input: int
    index: tuple[Expr, ...]
    inside: Expr | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """An axis of an output as two: its index is outer * count + inner, inner < count.  The two stand for the axis in
    places: groups of channels (the outer one), phases of a strided window (the inner one; `phased`: each of them is a
    product of its own)."""

    outer: str
    inner: str
    count: Size
    phased: bool = False


@dataclass(frozen=True, slots=True)
class Windows:
    """A sum of products at computed positions: out[axes] = sum over `summed` of a[place] * b[place].

    sizes: of each axis, by name; places never mention an axis of size 1.  out: the axis of each axis of the output, ""
    where its size is 1.  summed: in the order of the loops, at least one.  splits: axes of the output that places
    mention in two parts.
    """

    sizes: Mapping[str, Size]
    out: tuple[str, ...]
    summed: tuple[str, ...]
    a: Place
    b: Place
    splits: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Convolving:
    """Lowering of a sum of products over windows.  tiled: as a product of matrices (a Contract), the axes that one
    operand alone mentions being its rows or columns; else element by element, for windows that share no work."""

    windows: Callable[[Mapping[str, Any], Sequence[TensorType], Sequence[TensorType]], Windows]
    tiled: bool = True


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


class Stages(Protocol):
    """What the lowering of a staged op sees: its inputs element by element, fresh names, and what becomes of its
    result."""

    attrs: Mapping[str, Any]
    in_types: Sequence[TensorType]
    out_types: Sequence[TensorType]

    def load(self, i: int, index: Sequence[Expr], predicate: Expr | None = None) -> Expr:
        """Input i at `index`; where `predicate` does not hold, nothing is read and the value is zero."""

    def fresh(self, stem: str) -> str:
        """A name not used in this kernel."""

    def finish(self, points: Sequence[tuple[Sequence[Expr], Expr]]) -> tuple[tuple[Stmt, ...], list[tuple[Stmt, ...]]]:
        """What follows the elements of the output at several points, each its index and its value: the statements that
        all of them share, to run first, and those of each point, the stores among them."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Lowering by a hand-written kernel of stages over block scratch, whose result goes on through an epilogue: body
    hands every element of output 0 to `stages.finish` exactly once, and stores nothing but scratch itself."""

    body: Callable[[Stages], tuple[Stmt, ...]]


@dataclass(frozen=True, slots=True)
class View:
    """No code: output 0 is input 0's memory under another shape (reshape, expand_dims, identity)."""


@dataclass(frozen=True, slots=True)
class NotLowered:
    """Never reaches lowering (state, host, structured ops, sources); `reason` says where it goes."""

    reason: str


Lowering: TypeAlias = Pointwise | Reducing | Contracting | Convolving | RoutineBody | Staged | View | NotLowered


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
    """One op, told once.

    name: TensorFlow 1's op type where there is one.  kind: see Kind.  inputs: names of the inputs, the last one
    "*values" where any number may come.  attrs: name -> default (REQUIRED for none).
    infer(ctx) -> one PartialType per output.
    gradient(op, *grads) -> one Tensor (or IndexedSlices) or None per input that is not static (op: the graph Operation;
    grads: Tensor or None per output), written with graphc.ops.build, which gives its inputs as `inputs_of(op)` and its
    static ones as `static_of(op, attr)`; or NoGradient.
    reference(call) -> array, or tuple of arrays where outputs > 1; computes in the arrays' own (wide) dtypes; the
    evaluator rounds to the output dtypes, and silences NumPy's warnings.  Raises InvalidValue.
    lower: one of the Lowering records.
    static: inputs whose VALUE is needed when compiling, index -> attr name.  Extract moves the (symbolic) value into
    that attr as a tuple (or scalar) of Sizes and drops the input; `infer`, `reference` and `lower` read the attr
    alone, through `attr_or_value` in infer.  In the IR the op has the remaining inputs only.  In a graph, too, an op
    may be made with the attrs given and all static inputs left out (gradients do so), never with some of them.
    canonical(attrs, in_types) -> attrs: the one form of the attrs for these types (negative axes counted from the
    front, sorted, a scalar axis as a tuple, masks resolved).  Whoever makes a node of the IR applies it; lowering may
    rely on it, inference and references accept either form.
    symbolic: the reference also computes arrays of Dims (dtype object), so sizes flow through the op.
    of_shape: the result depends on the shapes of the inputs alone (Shape, Size, Rank): the reference reads in_types
    and no array, so its value is known as soon as the shapes are.
    decompose(d) -> one value per output: the op said in other ops of the IR, where that is how it becomes kernels
    (softmax, mean, einsum).  passes/decompose.py applies it, again to its own results until nothing decomposes, after
    the passes that recognise whole ops (stabilisation).  Pure: two decompositions of equal nodes give equal nodes.
    An op that decomposes is lowered as NotLowered; one whose decomposition returns None stays as it is and is lowered.
    STATE ops that read or write: inputs[0] is the variable, its present content in the IR, and decompose gives
    (output, new content); the content itself where the op does not write.
    RANDOM ops: the input "counter" (uint64[3]: Philox counter low word, counter high word, key) is a state that extract
    supplies, the last input in the IR and absent in a graph; the last output is the next counter.  A new session's
    counter is (0, attrs["seed2"], attrs["seed"]), or (0, random, random) where both seeds are 0.
    samples() -> test cases, types as in the IR (static inputs as attrs).
    flops(in_types, out_types, attrs) -> Size.  cost: for elementwise ops, taken from the primitives when None.
    stateful: never merged, folded or removed as dead when reached by a control edge.
    outputs: how many; -1 where infer decides (Split, Unpack, Cond).
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
    canonical: Callable[[Mapping[str, Any], Sequence[TensorType]], Mapping[str, Any]] | None = None
    of_shape: bool = False
    decompose: Callable[[Decomposition], Sequence[Any] | None] | None = None

    def __post_init__(self) -> None:
        for part in ("infer", "gradient", "reference", "lower", "samples"):
            if getattr(self, part) is None:
                raise InternalError(f"op {self.name} does not say its {part}")
        if not self.doc.strip():
            raise InternalError(f"op {self.name} has no documentation")

    def data_positions(self, attrs: Mapping[str, Any], count: int) -> tuple[int, ...]:
        """Which of `count` inputs given in a graph are not static."""
        if all(attrs.get(attr) is not None for attr in self.static.values()):
            return tuple(range(count))
        return tuple(i for i in range(count) if i not in self.static)

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


def data_inputs(ctx: Inference, static: Mapping[int, str]) -> tuple[PartialType, ...]:
    """Return the types of the inputs that are not static (for ops whose static inputs do not come last)."""
    if all(ctx.attrs.get(attr) is not None for attr in static.values()):
        return tuple(ctx.inputs)
    return tuple(t for i, t in enumerate(ctx.inputs) if i not in static)


def _as_tuple(values: np.ndarray) -> tuple[Any, ...]:
    return tuple(_as_tuple(v) if isinstance(v, np.ndarray) and v.ndim else (int(v) if isinstance(v, np.integer) else v)
                 for v in values)
