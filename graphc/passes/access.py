"""What one output of a node reads, and over which iteration domain: the facts that fusion decides on.

Owns `Unit` and how it is made from an op's lowering record.  Knows ops and kernel expressions; knows no groups.
Invariant: `labels` name, axis by axis, the domain axis that indexes a value (UNIT where its size is 1); a read whose
labels are None happens at computed positions.  A reshape that only adds or drops axes of size 1 is transparent: a
read of it is a read of what it views.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.function import Node, Value
from graphc.ir.types import Shape, TensorType
from graphc.kernel import walk
from graphc.kernel.cost import expression_cycles
from graphc.kernel.ir import Axis, Const, Expr, Load, Prim, Var
from graphc.ops.base import Contracting, Convolving, Pointwise, Reducing, Staged, View, Windows, widen
from graphc.passes.unroll import has_few_taps, written_out

UNIT = -1
TYPICAL = 128  # what an unknown size is taken for in estimates

Labels: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """One read of `value`: the domain axis per axis of the value, or None.  operand: a factor of a product.  times: how
    many elements an element of the domain reads at computed positions (a window's taps)."""

    value: Value
    labels: Labels | None
    operand: bool = False
    times: int = 1


@dataclass(frozen=True, slots=True)
class Unit:
    """One output of a node as a kernel computes it.

    kind: "map" (an element by itself), "reduce" or "contract".  sizes: of the domain axes 0, 1, ...; kept: how many of
    them, the first ones, the output has; labels: domain axis per axis of the output.  primitives, cycles: of one
    element (cycles per vector).  inputs: of a reduction or product, the domain axis per axis of each input; of a
    convolution, whose inputs are read at computed positions, all axes of its domain in order.
    """

    value: Value
    kind: str
    sizes: tuple[Size, ...]
    kept: int
    labels: Labels
    reads: tuple[Read, ...]
    primitives: int
    cycles: float
    inputs: tuple[Labels, ...] = ()

    @property
    def node(self) -> Node:
        assert self.value.producer is not None
        return self.value.producer


def is_fusible(node: Node) -> bool:
    """Whether `node` is computed by composing expressions (not a view, a constant, a routine or a structured node)."""
    return isinstance(node.op.lower, Pointwise | Reducing | Contracting | Convolving | Staged)


def is_view(node: Node) -> bool:
    """Whether the output of `node` is its input's memory."""
    return isinstance(node.op.lower, View)


def literal(value: Value) -> Const | None:
    """Return the one number that all elements of a constant are, or None for anything else."""
    node = value.producer
    if node is None or node.op.name != "Const":
        return None
    array = np.asarray(node.attrs["value"])
    if array.size == 0 or (array.size > 1 and not _uniform(array)):
        return None
    dtype = value.tensor.dtype
    element = array.reshape(-1)[0]
    return Const(float(element) if dtype.is_floating else bool(element) if dtype.is_bool else int(element), dtype)


def _uniform(array: np.ndarray[Any, Any]) -> bool:
    flat = np.ascontiguousarray(array).reshape(-1)
    bits = flat.view(np.dtype(f"u{flat.dtype.itemsize}"))  # -0.0 and 0.0 differ, NaNs are equal
    return bool((bits == bits[0]).all())


def estimate(size: Size) -> int:
    """Return a number for a size: unknown sizes count as TYPICAL."""
    if isinstance(size, int):
        return size
    return max(0, size.evaluate(dict.fromkeys(size.symbols(), TYPICAL)))


def root(value: Value, labels: Labels | None = None) -> tuple[Value, Labels | None]:
    """Return what `value` is a view of, and `labels` (of a read of it) as labels of that."""
    while value.producer is not None and is_view(value.producer):
        source = value.producer.inputs[0]
        if labels is not None:
            axes = unit_map(value.tensor.shape, source.tensor.shape)
            labels = None if axes is None else tuple(UNIT if a is None else labels[a] for a in axes)
        value = source
    return value, labels


def unit_map(shape: Shape, source: Shape) -> tuple[int | None, ...] | None:
    """Return, for each axis of `source`, the axis of `shape` that it is (None: of size 1), where the two differ in axes
    of size 1 alone; else None."""
    real = [d for d, n in enumerate(shape) if n != 1]
    if [shape[d] for d in real] != [n for n in source if n != 1]:
        return None
    following = iter(real)
    return tuple(None if n == 1 else next(following) for n in source)


class Probe:
    """A `Point` at a generic element: records what is read where, and builds the expression."""

    def __init__(self, node: Node, output: int, axes: Sequence[Expr]) -> None:
        self.index = tuple(axes)
        self.output = output
        self.attrs = node.attrs
        self.in_types: Sequence[TensorType] = [v.tensor for v in node.inputs]
        self.out_types: Sequence[TensorType] = [v.tensor for v in node.outputs]
        self.loads: list[tuple[int, tuple[Expr, ...], bool]] = []

    def load(self, i: int, index: Sequence[Expr], predicate: Expr | None = None, other: Expr | None = None) -> Expr:
        self.loads.append((i, tuple(index), predicate is not None))
        return Load(f"%{i}", tuple(index), self.in_types[i].dtype, predicate, other)

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        return Prim("select", (ok, value, fallback), value.dtype)


def unit_of(value: Value) -> Unit:
    """Return the unit that computes `value`, an output of a fusible node."""
    node = value.producer
    assert node is not None
    match node.op.lower:
        case Pointwise(scalar=scalar) as lower:
            return _map_scalar(value, node) if scalar is not None else _map_point(value, node, lower)
        case Reducing() as lower:
            return _reduction(value, node, lower)
        case Convolving() as lower:
            return _convolution(value, node, lower)
        case Staged():
            return _staged(value, node)
        case _:
            return _product(value, node)


def _numbered(shape: Shape) -> tuple[Labels, tuple[Size, ...]]:
    """Labels for a value that spans the domain, and the domain's sizes."""
    labels: list[int] = []
    sizes: list[Size] = []
    for n in shape:
        labels.append(UNIT if n == 1 else len(sizes))
        if n != 1:
            sizes.append(n)
    return tuple(labels), tuple(sizes)


def _read(value: Value, labels: Labels | None, operand: bool = False) -> Read:
    source, at = root(value, labels)
    return Read(source, at, operand)


def _map_scalar(value: Value, node: Node) -> Unit:
    labels, sizes = _numbered(value.tensor.shape)
    reads = []
    for v in node.inputs:
        shape = v.tensor.shape
        tail = labels[len(labels) - len(shape):]
        reads.append(_read(v, tuple(UNIT if n == 1 else a for n, a in zip(shape, tail, strict=True))))
    primitives, cycles = _scalar_cost(node)
    return Unit(value, "map", sizes, len(sizes), labels, tuple(reads), primitives, cycles)


_COSTS: dict[Any, tuple[int, float]] = {}


def _scalar_cost(node: Node) -> tuple[int, float]:
    """Primitives and cycles of a scalar lowering, remembered per op, dtypes and attrs where these can be keys."""
    key = (node.op.name, tuple(v.tensor.dtype.name for v in node.inputs), tuple(sorted(node.attrs.items(), key=str)))
    try:
        known = _COSTS.get(key)
    except TypeError:
        known, key = None, None  # type: ignore[assignment]
    if known is None:
        lower = node.op.lower
        assert isinstance(lower, Pointwise) and lower.scalar is not None
        arguments = [widen(Var(f"x{i}", v.tensor.dtype)) for i, v in enumerate(node.inputs)]
        known = _cost(lower.scalar(node.attrs, *arguments))
        if key is not None:
            _COSTS[key] = known
    return known


def _cost(expr: Expr) -> tuple[int, float]:
    return sum(isinstance(e, Prim) for e in walk.postorder((expr,))), expression_cycles((expr,))


def _map_point(value: Value, node: Node, lower: Pointwise) -> Unit:
    labels, sizes = _numbered(value.tensor.shape)
    axes: list[Expr] = [Const(0, dtypes.int64) if a == UNIT else Axis(str(a)) for a in labels]
    probe = Probe(node, value.index, axes)
    assert lower.point is not None
    primitives, cycles = _cost(lower.point(probe))
    reads = []
    computed: dict[int, int] = {}
    for i, at, conditional in probe.loads:
        source = node.inputs[i]
        found = None if conditional else _direct(at, source.tensor.shape, sizes)
        if found is None:
            computed[i] = computed.get(i, 0) + 1
        else:
            reads.append(_read(source, found))
    reads += [replace(_read(node.inputs[i], None), times=n) for i, n in computed.items()]
    loaded = {i for i, _, _ in probe.loads}
    reads += [_read(v, None) for i, v in enumerate(node.inputs) if i not in loaded]  # read for its type alone
    return Unit(value, "map", sizes, len(sizes), labels, tuple(reads), primitives, cycles)


def _direct(at: Sequence[Expr], shape: Shape, sizes: Sequence[Size]) -> Labels | None:
    """Labels of a read at `at` where each index is a domain axis of that size, or 0; else None."""
    labels: list[int] = []
    for e, n in zip(at, shape, strict=True):
        if n == 1:
            labels.append(UNIT)
        elif isinstance(e, Axis) and sizes[int(e.name)] == n:
            labels.append(int(e.name))
        else:
            return None
    real = [a for a in labels if a != UNIT]
    return tuple(labels) if len(set(real)) == len(real) else None


def _reduction(value: Value, node: Node, lower: Reducing) -> Unit:
    shape = node.inputs[0].tensor.shape
    gone = node.attrs["axis"]
    order = [d for d in range(len(shape)) if d not in gone and shape[d] != 1]
    kept = len(order)
    reduced = [d for d in gone if shape[d] != 1]
    if gone and not reduced:
        reduced = [gone[0]]  # a loop of one step, so that a reduction always has one
    order += reduced
    number = {d: i for i, d in enumerate(order)}
    labels = tuple(number.get(d, UNIT) if d not in gone else UNIT for d in range(len(shape))
                   if d not in gone or node.attrs["keepdims"])
    inputs = tuple(number.get(d, UNIT) if shape[d] != 1 else UNIT for d in range(len(shape)))
    x: Expr = widen(Var("x", node.inputs[0].tensor.dtype))
    primitives, cycles = _cost(lower.prepare(node.attrs, x) if lower.prepare else x)
    return Unit(value, "reduce", tuple(shape[d] for d in order), kept, labels, (_read(node.inputs[0], inputs),),
                primitives + 2, cycles + 1.0, (inputs,))


@dataclass(frozen=True, slots=True)
class Product:
    """A sum of products by letters: sizes of batch, m, n and k letters (1s left out), and the letters of a, b, out."""

    a: str
    b: str
    out: str
    sizes: Mapping[str, Size] = field(default_factory=dict)

    def letters(self, group: str) -> str:
        """The letters of "batch", "m", "n" or "k" whose size is not 1, in the order of `out` (k: of `a`)."""
        a, b, out = set(self.a), set(self.b), set(self.out)
        rule = {"batch": out & a & b, "m": (out & a) - b, "n": (out & b) - a, "k": (a | b) - out}[group]
        letters = self.out if group != "k" else dict.fromkeys(self.a + self.b)
        return "".join(c for c in letters if c in rule and self.sizes[c] != 1)


def product_of(node: Node) -> Product:
    """Return the product that a contraction node is."""
    lower = node.op.lower
    assert isinstance(lower, Contracting)
    types = [v.tensor for v in node.inputs]
    a, b, out = lower.spec(node.attrs, types)
    sizes: dict[str, Size] = {}
    for letters, t in ((a, types[0]), (b, types[1])):
        for c, n in zip(letters, t.shape, strict=True):
            if sizes.get(c, 1) == 1:
                sizes[c] = n
    return Product(a, b, out, sizes)


TINY = 4096  # multiply-adds up to which a product of known size is an ordinary reduction


def _product(value: Value, node: Node) -> Unit:
    product = product_of(node)
    out = "".join(c for c in product.out if product.sizes[c] != 1)
    summed = product.letters("k")
    total = dim.product(product.sizes[c] for c in out + summed)
    narrow = not product.letters("m") or not product.letters("n")
    is_reduction = narrow or not summed or (isinstance(total, int) and total <= TINY)
    if is_reduction and not summed:  # a loop of one step
        summed = "".join(c for c in product.a + product.b if c not in product.out)[:1]
    domain = out + summed
    number = {c: i for i, c in enumerate(domain)}

    def at(letters: str, shape: Shape) -> Labels:
        return tuple(UNIT if n == 1 else number[c] for c, n in zip(letters, shape, strict=True))

    inputs = tuple(at(letters, v.tensor.shape) for v, letters in zip(node.inputs, (product.a, product.b), strict=True))
    reads = tuple(_read(v, places, not is_reduction) for v, places in zip(node.inputs, inputs, strict=True))
    labels = tuple(UNIT if product.sizes[c] == 1 else number[c] for c in product.out)
    kind = "map" if not summed else "reduce" if is_reduction else "contract"
    return Unit(value, kind, tuple(product.sizes[c] for c in domain), len(out), labels, reads, 3, 2.0,
                inputs if summed else ())


def windows_of(node: Node) -> Windows:
    """Return the sum over windows that a convolution node is."""
    lower = node.op.lower
    assert isinstance(lower, Convolving)
    return lower.windows(node.attrs, [v.tensor for v in node.inputs], [v.tensor for v in node.outputs])


def _convolution(value: Value, node: Node, lower: Convolving) -> Unit:
    """The operands of a tiled one stay in memory: each of their elements is read by many windows."""
    windows = windows_of(node)
    if not lower.tiled and has_few_taps(windows):
        extents = {str(i): n for i, n in enumerate(_numbered(value.tensor.shape)[1])}
        return _map_point(value, node, Pointwise(point=lambda p: written_out(p, windows, extents)))
    out = [a for a in windows.out if a]
    domain = (*out, *windows.summed)
    number = {a: i for i, a in enumerate(domain)} | {"": UNIT}
    reads = tuple(_read(v, None, lower.tiled) for v in node.inputs)
    return Unit(value, "contract" if lower.tiled else "reduce", tuple(windows.sizes[a] for a in domain), len(out),
                tuple(number[a] for a in windows.out), reads, 3, 2.0, (tuple(range(len(domain))),))


def _staged(value: Value, node: Node) -> Unit:
    """A product by its epilogue: over exactly the elements of its output; its inputs stay in memory."""
    labels, sizes = _numbered(value.tensor.shape)
    reads = tuple(_read(v, None, True) for v in node.inputs)
    return Unit(value, "contract", sizes, len(sizes), labels, reads, 3, 2.0)


def accumulator(dtype: DType) -> DType:
    """Return the dtype that sums of `dtype` are accumulated in."""
    return dtypes.float32 if dtype in (dtypes.float16, dtypes.bfloat16) else dtype


def bytes_of(type: TensorType) -> int:
    """Return the estimated bytes of a tensor."""
    return estimate(type.elements) * type.dtype.size
