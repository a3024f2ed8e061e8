"""Elements of values as expressions: the ops' sentences composed by substitution.

Owns `Emission`, one kernel's expressions.  Knows ops' lowering records and index arithmetic; knows no loops.
Invariants: the same element of the same value is the same object, so that sharing is visible; a float16 or bfloat16 is
computed in float32 and rounded at each op's output; depth of recursion is that of computed positions alone.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from graphc.dtypes import DType
from graphc.errors import InternalError
from graphc.ir.dim import Size
from graphc.ir.function import Function, Node, Value
from graphc.ir.types import TensorType
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Const, Expr, Guard, Load, Param, Site, Var, const
from graphc.kernel.primitives import cast, prim
from graphc.ops.base import Contracting, Convolving, Pointwise, Reducing, View, Windows, widen
from graphc.passes.access import UNIT, Labels, accumulator, literal, product_of, windows_of
from graphc.passes.indices import ZERO, quotient, remainder, reshaped
from graphc.passes.unroll import written_out

Index: TypeAlias = tuple[Expr, ...]


class Emission:
    """The expressions of one Fusion.

    axes: (name, size) per domain axis.  params: what is read, by name, in order of first use.  bound: values that a
    statement computes (reductions, products, stored scratch), with the index at which they stand for their element.
    """

    def __init__(self, body: Function, axes: Sequence[tuple[str, Size]],
                 labels: Sequence[Sequence[Labels | None]]) -> None:
        self.body = body
        self.axes = tuple(axes)
        self.extents: dict[str, Size] = dict(axes)
        self.labels: dict[Value, Labels | None] = {}
        self.input_labels: dict[Node, tuple[Labels | None, ...]] = {}
        for node, given in zip(body.nodes, labels, strict=True):
            self.labels.update(zip(node.outputs, given, strict=False))
            self.input_labels[node] = tuple(given[len(node.outputs):])
        self.params: dict[Value, Param] = {}
        self.bound: dict[Value, tuple[Index, Expr]] = {}
        self.sites: list[Site] = []
        self._memo: dict[tuple[Value, tuple[int, ...], int], Expr] = {}
        self._interned: dict[object, Expr] = {}
        self._keep: list[Expr] = []
        self._names: dict[str, int] = {}
        self._intern(ZERO)  # first: the ZERO of every index is this object
        self._axis = [self._intern(Axis(name)) for name, _ in axes]

    def fresh(self, stem: str) -> str:
        """Return a name that this kernel does not use yet."""
        self._names[stem] = self._names.get(stem, -1) + 1
        return f"{stem}{self._names[stem]}"

    def place(self, value: Value) -> Index:
        """Return the index of `value` at the generic point of the domain."""
        return self._index(self.labels[value])

    def input_place(self, node: Node, i: int) -> Index:
        """Return the index at which a reduction or product reads its input i at the generic point of the domain."""
        return self._index(self.input_labels[node][i])

    def _index(self, labels: Labels | None) -> Index:
        if labels is None:
            raise InternalError("an inline value has no place in its kernel's domain")
        return tuple(self._intern(ZERO) if a == UNIT else self._axis[a] for a in labels)

    def at(self, value: Value) -> Expr:
        """Return the element of `value` at the generic point of the domain."""
        return self.element(value, self.place(value))

    def element(self, value: Value, index: Sequence[Expr], predicate: Expr | None = None) -> Expr:
        """Return the element of `value` at `index`; nothing is loaded where `predicate` does not hold."""
        shape = value.tensor.shape  # an axis of size 1 is read at 0, however that was computed
        top = value, self._intern_all([ZERO if n == 1 else e for n, e in zip(shape, index, strict=True)])
        stack = [top]
        while stack:
            v, at = stack[-1]
            key = self._key(v, at, predicate)
            if key in self._memo:
                stack.pop()
                continue
            needs = self._direct_inputs(v, at)
            missing = [n for n in needs or () if self._key(*n, predicate) not in self._memo]
            if missing:
                stack.extend(reversed(missing))
                continue
            self._memo[key] = self._compute(v, at, needs, predicate)
            stack.pop()
        return self._memo[self._key(*top, predicate)]

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str, node: Node) -> Expr:
        """Return `value` where ok, else `fallback` and an error of the run that names the node's op."""
        site = Site(kind, message, node.origin[0] if node.origin else node.op.name)
        if site not in self.sites:
            self.sites.append(site)
        return Guard(value, ok, fallback, self.sites.index(site))

    # -- inside -----------------------------------------------------------------------------------

    def _key(self, value: Value, at: Index, predicate: Expr | None) -> tuple[Value, tuple[int, ...], int]:
        return value, tuple(map(id, at)), id(predicate) if predicate is not None else 0

    def _direct_inputs(self, value: Value, at: Index) -> list[tuple[Value, Index]] | None:
        """The elements that a scalar lowering or a view takes; None for everything else."""
        node = value.producer
        if value in self.bound or node is None:
            return None
        match node.op.lower:
            case Pointwise(scalar=scalar) if scalar is not None:
                found = []
                for v in node.inputs:
                    shape = v.tensor.shape
                    tail = at[len(at) - len(shape):]
                    found.append((v, tuple(ZERO if n == 1 else e for n, e in zip(shape, tail, strict=True))))
                return found
            case View():
                source = node.inputs[0]
                moved = reshaped(at, value.tensor.shape, source.tensor.shape, self.extents)
                return [(source, self._intern_all(moved))]
            case Contracting():  # an outer product: nothing is summed
                product = product_of(node)
                letter = dict(zip(product.out, at, strict=True))
                return [(v, tuple(ZERO if n == 1 else letter[c] for c, n in zip(own, v.tensor.shape, strict=True)))
                        for v, own in zip(node.inputs, (product.a, product.b), strict=True)]
            case _:
                return None

    def _compute(self, value: Value, at: Index, needs: list[tuple[Value, Index]] | None,
                 predicate: Expr | None) -> Expr:
        if value in self.bound:
            index, expr = self.bound[value]
            if any(a is not b for a, b in zip(index, at, strict=True)):
                raise InternalError("a reduced value is read away from its row")
            return expr
        node = value.producer
        if node is None:
            return self._load(value, at, predicate)
        known = literal(value)
        if known is not None:
            return known
        if needs is not None:
            elements = [self._memo[self._key(v, i, predicate)] for v, i in needs]
            lower = node.op.lower
            if isinstance(lower, View):
                return elements[0]
            if isinstance(lower, Contracting):
                return cast(prim("mul", *map(widen, elements)), value.tensor.dtype)
            assert isinstance(lower, Pointwise) and lower.scalar is not None
            return cast(lower.scalar(node.attrs, *map(widen, elements)), value.tensor.dtype)
        if isinstance(node.op.lower, Convolving):
            windows = windows_of(node)
            return cast(written_out(Element(self, node, value.index, at, predicate), windows, self.extents),
                        value.tensor.dtype)
        if not isinstance(node.op.lower, Pointwise) or node.op.lower.point is None:
            raise InternalError(f"{node.op.name} has no element by element lowering")
        point = Element(self, node, value.index, at, predicate)
        return cast(node.op.lower.point(point), value.tensor.dtype)

    def _load(self, value: Value, at: Index, predicate: Expr | None, other: Expr | None = None) -> Expr:
        t = value.tensor
        if value not in self.params:
            self.params[value] = Param(f"x{len(self.params)}", t.dtype, t.shape, "in")
        if predicate is not None and other is None:
            other = zero(t.dtype)
        return Load(self.params[value].name, at, t.dtype, predicate, other)

    def conditional(self, value: Value, index: Sequence[Expr], predicate: Expr, other: Expr | None,
                    outer: Expr | None) -> Expr:
        """Return the element of `value` where `predicate` holds, else `other`; nothing is loaded elsewhere."""
        source, at = value, self._intern_all(index)
        if source.producer is None and source not in self.bound and outer is None:
            return self._load(source, at, predicate, other if other is not None else zero(source.tensor.dtype))
        both = self._intern(predicate) if outer is None else self._intern(prim("and", outer, predicate))
        inside = self.element(value, at, both)
        if isinstance(inside, Load) and inside.predicate is both and inside.other == other:
            return inside  # through views
        return inside if other is None else prim("select", predicate, inside, other)

    def _intern_all(self, index: Sequence[Expr]) -> Index:
        return tuple(map(self._intern, index))

    def _intern(self, root: Expr) -> Expr:
        """Return the one object that stands for expressions of this structure."""
        done: dict[int, Expr] = {}
        for e in walk.postorder((root,)):
            below = walk.children(e)
            new = tuple(done[id(c)] for c in below)
            key: object = _leaf_key(e) if not below else (
                type(e).__name__, getattr(e, "op", None), getattr(e, "buffer", None), e.dtype.name,
                getattr(e, "site", None), isinstance(e, Load) and e.predicate is not None, tuple(map(id, new)))
            if key not in self._interned:
                self._interned[key] = walk.with_children(e, new) if below else e
            done[id(e)] = self._interned[key]
        self._keep.append(root)  # ids are keys: what has one must live as long as this
        return done[id(root)]


def _leaf_key(e: Expr) -> object:
    match e:
        case Const(value=value, dtype=dtype):
            return "const", repr(value), dtype.name
        case Axis(name):
            return "axis", name
        case Var(name=name, dtype=dtype):
            return "var", name, dtype.name
        case _:
            return type(e).__name__, e


def zero(dtype: DType) -> Expr:
    """Return 0 of `dtype`."""
    return const(False if dtype.is_bool else 0, dtype)


class Element:
    """The `Point` of one element of a node's output."""

    def __init__(self, emission: Emission, node: Node, output: int, at: Index, predicate: Expr | None) -> None:
        self.index = at
        self.output = output
        self.attrs = node.attrs
        self.in_types: Sequence[TensorType] = [v.tensor for v in node.inputs]
        self.out_types: Sequence[TensorType] = [v.tensor for v in node.outputs]
        self._emission = emission
        self._node = node
        self._predicate = predicate

    def load(self, i: int, index: Sequence[Expr], predicate: Expr | None = None, other: Expr | None = None) -> Expr:
        value = self._node.inputs[i]
        if predicate is None:
            return self._emission.element(value, index, self._predicate)
        return self._emission.conditional(value, index, predicate, other, self._predicate)

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        if self._predicate is not None:
            ok = prim("or", prim("not", self._predicate), ok)
        return self._emission.guard(value, ok, fallback, kind, message, self._node)


def reduction(emission: Emission, node: Node, reduced: Sequence[str]) -> tuple[str, tuple[Expr, ...]]:
    """Return the combiner of a reduction node and what it combines at the generic point of the domain; `reduced` are
    the names of the axes that it runs over."""
    lower = node.op.lower
    if not isinstance(lower, Reducing):
        from_product = product_term(emission, node)
        return "sum", (from_product,)
    source = node.inputs[0]
    x = widen(emission.element(source, emission.input_place(node, 0)))
    if lower.prepare is not None:
        x = lower.prepare(node.attrs, x)
    if lower.combiner in ("argmax", "argmin"):
        return lower.combiner, (x, Axis(reduced[0]))
    return lower.combiner, (x,)


def finished(node: Node, accumulated: Sequence[Expr], count: Expr) -> Expr:
    """Return the result of a reduction node from its combined states."""
    lower = node.op.lower
    dtype = node.output.tensor.dtype
    if not isinstance(lower, Reducing):
        return cast(accumulated[0], dtype)
    result = accumulated[-1]
    if lower.finish is not None:
        result = lower.finish(node.attrs, result, count)
    return cast(result, dtype)


def product_term(emission: Emission, node: Node) -> Expr:
    """Return a * b at the generic point of the domain, in the accumulator's dtype."""
    a, b = factors(emission, node)
    return prim("mul", a, b)


def factors(emission: Emission, node: Node) -> tuple[Expr, Expr]:
    """Return the factors of a contraction node at the generic point of the domain, in the accumulator's dtype."""
    if isinstance(node.op.lower, Convolving):
        windows = windows_of(node)
        axes = window_axes(emission, node, windows)
        for name, split in windows.splits.items():
            whole = axes[name]
            axes[split.outer] = quotient(whole, split.count, emission.extents)
            axes[split.inner] = remainder(whole, split.count, emission.extents)
        return window_factors(emission, node, windows, axes)
    dtype = accumulator(node.output.tensor.dtype)
    a, b = (cast(emission.element(v, emission.input_place(node, i)), dtype) for i, v in enumerate(node.inputs))
    return a, b


def window_axes(emission: Emission, node: Node, windows: Windows) -> dict[str, Expr]:
    """Return what the axes of a convolution node are at the generic point of the domain."""
    names = (*(a for a in windows.out if a), *windows.summed)
    return dict(zip(names, emission.input_place(node, 0), strict=True))


def window_factors(emission: Emission, node: Node, windows: Windows, axes: Mapping[str, Expr]) -> tuple[Expr, Expr]:
    """Return the factors of a convolution node where its axes are `axes`, in the accumulator's dtype; zero where a
    window reaches beyond its operand."""
    found = []
    for place in (windows.a, windows.b):
        v = node.inputs[place.input]
        at = [walk.substitute(e, axes) for e in place.index]
        if place.inside is None:
            element = emission.element(v, at)
        else:
            inside = walk.substitute(place.inside, axes)
            element = emission.conditional(v, at, inside, zero(v.tensor.dtype), None)
        found.append(cast(element, accumulator(node.output.tensor.dtype)))
    a, b = found
    return a, b
