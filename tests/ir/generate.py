"""Random valid functions, and inputs for them: what the tests of text, verifier and passes are run on.

`functions()` is a Hypothesis strategy; `inputs(function, seed)` gives feeds and states that fit it.  Functions are
smooth where they are floats (nothing jumps where rounding differs), so that two evaluations may be compared with a
tolerance; integers and bools are exact.  Sizes are symbolic (N, M), 1, or small numbers, 0 among them.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphc.dtypes import DType, bool_, float64, int32, int64
from graphc.ir import infer
from graphc.ir.dim import Dim, Size, symbol
from graphc.ir.function import Builder, Condition, Function, SymbolSource, Value
from graphc.ir.types import Shape, TensorType
from graphc.ops.base import lookup

N, M = symbol("N"), symbol("M")
SMOOTH_UNARY = ("Neg", "Abs", "Tanh", "Sigmoid", "Relu", "Softplus", "Sin", "Cos", "Square", "Identity", "StopGradient",
                "ZerosLike", "OnesLike")
SMOOTH_BINARY = ("Add", "Sub", "Mul", "Maximum", "Minimum", "SquaredDifference")
INTEGER_BINARY = ("Add", "Sub", "Mul", "Maximum", "Minimum")
COMPARISONS = ("Less", "LessEqual", "Equal", "NotEqual", "Greater", "GreaterEqual")
ROWS = ("Softmax", "LogSoftmax")
REDUCTIONS = ("Sum", "Mean", "Max", "Min")


class Making:
    """One function in the making: a builder, the values so far, and Hypothesis's draw."""

    def __init__(self, draw: Callable[..., Any], dtype: DType, values: list[Value], depth: int) -> None:
        self.draw = draw
        self.dtype = dtype
        self.values = values
        self.depth = depth
        self.builder = Builder(infer.types)

    def pick(self, fits: Callable[[TensorType], bool]) -> Value | None:
        """One of the values whose type fits, late ones as likely as early ones; None where there is none."""
        found = [v for v in self.values if fits(v.tensor)]
        return self.draw(st.sampled_from(found)) if found else None

    def add(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        node = self.builder.add(lookup(op), inputs, attrs, (f"{op.lower()}_{len(self.builder.nodes)}",))
        self.values.extend(v for v in node.outputs)
        return node.outputs[0]

    def number(self, value: Any, dtype: DType) -> Value:
        return self.add("Const", value=np.asarray(value, dtype.as_numpy_dtype), dtype=dtype)

    def is_smooth(self, t: TensorType) -> bool:
        return t.dtype is self.dtype

    # -- one step each

    def step(self) -> None:
        kinds = [self.unary, self.unary, self.binary, self.binary, self.constant, self.reduce, self.move, self.move,
                 self.integer, self.choose, self.positive, self.rows, self.product]
        if self.depth:
            kinds += [self.loop, self.branch]
        self.draw(st.sampled_from(kinds))()

    def unary(self) -> None:
        x = self.pick(self.is_smooth)
        if x is not None:
            self.add(self.draw(st.sampled_from(SMOOTH_UNARY)), x)

    def binary(self) -> None:
        x = self.pick(self.is_smooth)
        if x is None:
            return
        y = self.pick(lambda t: self.is_smooth(t) and broadcasts(t.shape, x.tensor.shape))
        if y is not None:
            pair = (x, y) if self.draw(st.booleans()) else (y, x)
            self.add(self.draw(st.sampled_from(SMOOTH_BINARY)), *pair)

    def constant(self) -> None:
        what = self.draw(st.sampled_from(("scalar", "vector", "splat", "integer", "sizes")))
        if what == "scalar":
            self.number(self.draw(st.sampled_from((0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0))), self.dtype)
        elif what == "vector":
            self.number(self.draw(st.lists(st.integers(-3, 3), min_size=3, max_size=3)), self.dtype)
        elif what == "splat":
            self.number(np.full((2, 3), self.draw(st.integers(-2, 2))), self.dtype)
        elif what == "integer":
            self.number(self.draw(st.integers(-3, 3)), int32)
        else:
            self.add("Cast", self.add("Sizes", sizes=(N, 2), dtype=int32), dtype=self.dtype)

    def reduce(self) -> None:
        x = self.pick(lambda t: self.is_smooth(t) and 0 not in t.shape)
        if x is not None:
            axes = self.draw(st.sets(st.integers(0, x.tensor.rank - 1))) if x.tensor.rank else set()
            self.add(self.draw(st.sampled_from(REDUCTIONS)), x, axis=tuple(sorted(axes)),
                     keepdims=self.draw(st.booleans()))

    def move(self) -> None:
        x = self.pick(lambda t: True)
        if x is None:
            return
        shape, rank = x.tensor.shape, x.tensor.rank
        what = self.draw(st.sampled_from(("transpose", "flatten", "expand", "broadcast", "concat", "slice")))
        if what == "transpose":
            self.add("Transpose", x, perm=tuple(self.draw(st.permutations(range(rank)))))
        elif what == "flatten":
            self.add("Reshape", x, shape=(x.tensor.elements,))
        elif what == "expand":
            self.add("ExpandDims", x, axis=(self.draw(st.integers(0, rank)),))
        elif what == "broadcast":
            lead: Shape = (self.draw(st.sampled_from((1, 2, N))),)
            self.add("BroadcastTo", x, shape=lead + tuple(shape))
        elif rank and what == "concat":
            axis = self.draw(st.integers(0, rank - 1))
            other = self.pick(lambda t: t.dtype is x.tensor.dtype and t.rank == rank and all(
                i == axis or a == b for i, (a, b) in enumerate(zip(t.shape, shape, strict=True))))
            if other is not None:
                self.add("ConcatV2", x, other, axis=axis)
        elif rank and what == "slice":
            axis = self.draw(st.integers(0, rank - 1))
            if isinstance(shape[axis], int) and shape[axis] > 1:
                begin = tuple(1 if i == axis else 0 for i in range(rank))
                self.add("Slice", x, begin=begin, size=tuple(n - b for n, b in zip(shape, begin, strict=True)))

    def integer(self) -> None:
        x = self.pick(lambda t: t.dtype is int32)
        if x is None:
            return
        y = self.pick(lambda t: t.dtype is int32 and broadcasts(t.shape, x.tensor.shape))
        if y is not None:
            self.add(self.draw(st.sampled_from(INTEGER_BINARY + COMPARISONS)), x, y)
        if self.draw(st.booleans()):
            self.add("Cast", x, dtype=self.dtype)

    def choose(self) -> None:
        p = self.pick(lambda t: t.dtype is bool_)
        x = p and self.pick(lambda t: self.is_smooth(t) and broadcasts(t.shape, p.tensor.shape))
        if p is not None and x is not None:
            self.add("SelectV2", p, x, self.number(self.draw(st.integers(-2, 2)), self.dtype))

    def positive(self) -> None:
        """Ops that are smooth for positive numbers, on one."""
        x = self.pick(self.is_smooth)
        if x is not None:
            base = self.add("Add", self.add("Square", x), self.number(1, self.dtype))
            what = self.draw(st.sampled_from(("Log", "Sqrt", "Rsqrt", "Reciprocal", "RealDiv", "Log1p")))
            self.add("RealDiv", x, base) if what == "RealDiv" else self.add(what, base)

    def rows(self) -> None:
        x = self.pick(lambda t: self.is_smooth(t) and t.rank > 0 and 0 not in t.shape)
        if x is not None:
            self.add(self.draw(st.sampled_from(ROWS)), x)

    def product(self) -> None:
        x = self.pick(lambda t: self.is_smooth(t) and t.rank == 2)
        y = x and self.pick(lambda t: self.is_smooth(t) and t.rank == 2 and t.shape[0] == x.tensor.shape[1])
        if x is not None and y is not None:
            self.add("MatMul", x, y)

    def loop(self) -> None:
        """A counted loop over the rows of x, with one carried value and one capture."""
        x = self.pick(lambda t: self.is_smooth(t) and t.rank > 0)
        state = self.pick(self.is_smooth)
        held = self.pick(self.is_smooth)
        if x is None or state is None or held is None:
            return
        row = TensorType(x.tensor.dtype, x.tensor.shape[1:])
        feeds = [Value(TensorType(int64, ())), Value(state.type), Value(row), Value(held.type)]
        inner = Making(self.draw, self.dtype, list(feeds), self.depth - 1)
        for _ in range(self.draw(st.integers(1, 4))):
            inner.step()
        again = inner.pick(lambda t: t == state.type) or feeds[1]
        again = inner.add("Tanh", again)
        y = inner.pick(lambda t: True)
        assert y is not None
        body = Function("body", tuple(feeds), tuple(inner.builder.nodes), (again, y))
        count = self.add("Sizes", sizes=x.tensor.shape[0], dtype=int64)
        self.add("Loop", count, state, x, held, body=body, carried=1, xs=1, captures=1, ys=1,
                 reverse=self.draw(st.booleans()))

    def branch(self) -> None:
        """A choice between two bodies by an integer."""
        n = self.pick(lambda t: t.dtype is int32 and t.shape == ())
        x = self.pick(self.is_smooth)
        if x is None:
            return
        left = n or self.number(self.draw(st.integers(0, 1)), int32)
        p = self.add("Less", left, self.number(1, int32))
        bodies = []
        for _ in range(2):
            feed = Value(x.type)
            inner = Making(self.draw, self.dtype, [feed], self.depth - 1)
            for _ in range(self.draw(st.integers(0, 3))):
                inner.step()
            out = inner.pick(lambda t: t == x.type) or feed
            bodies.append(Function("branch", (feed,), tuple(inner.builder.nodes), (inner.add("Sin", out),)))
            bodies[-1] = bodies[-1].replace(nodes=tuple(inner.builder.nodes))
        self.add("Cond", p, x, then=bodies[0], orelse=bodies[1])


def broadcasts(a: Shape, b: Shape) -> bool:
    """Whether two shapes broadcast whatever their symbols are."""
    return all(x == y or x == 1 or y == 1 for x, y in zip(a[::-1], b[::-1], strict=False))


SHAPES: tuple[Shape, ...] = ((), (N,), (3,), (1,), (N, 3), (2, 3), (3, 3), (1, 3), (N, 1), (M, N), (2, 1, 3), (0, 3))


@st.composite
def functions(draw: Callable[..., Any], dtype: DType = float64, max_nodes: int = 12, depth: int = 1) -> Function:
    """A valid function of up to about `max_nodes` steps, with bodies nested up to `depth`."""
    feeds = [Value(TensorType(dtype, (N, 3))), Value(TensorType(dtype, (M, N))), Value(TensorType(int32, (3,)))]
    feeds += [Value(TensorType(dtype, shape)) for shape in draw(st.lists(st.sampled_from(SHAPES), max_size=3))]
    kept = draw(st.lists(st.sampled_from(((), (3,), (2, 3))), max_size=2))
    states = [Value(TensorType(dtype, shape)) for shape in kept]
    making = Making(draw, dtype, [*feeds, *states], depth)
    for _ in range(draw(st.integers(1, max_nodes))):
        making.step()
    fetches = [draw(st.sampled_from(making.values)) for _ in range(draw(st.integers(1, 3)))]
    updates = [making.pick(lambda t, s=s: t == s.type) or s for s in states]
    conditions = (Condition("divides", N * 2, 2, "{left} by {right}", "split"),) if draw(st.booleans()) else ()
    names = draw(st.booleans())
    return Function(
        "main", tuple(feeds), tuple(making.builder.nodes), tuple(fetches), tuple(states), tuple(updates),
        tuple(f"scope/x_{i}" if i % 2 else f"x{i}" for i in range(len(feeds))) if names else (),
        tuple(f"v{i}" for i in range(len(states))) if names else (),
        tuple(f"out:{i}" for i in range(len(fetches))) if names else (), conditions,
        (SymbolSource("N", 0, 0), SymbolSource("M", 1, 0)),
        {"add_1": 'model.py:3 in f:   y = x + "1"'} if names else {})


def inputs(function: Function, seed: int, sizes: dict[str, int] | None = None) -> tuple[list[Any], list[Any]]:
    """Feeds and states for `function`: floats in -2..2, integers in -3..3."""
    rng = np.random.default_rng(seed)
    known = {"N": int(rng.choice((1, 2, 3, 5))), "M": int(rng.choice((1, 2, 4)))} if sizes is None else sizes

    def size(n: Size) -> int:
        return n.evaluate(known) if isinstance(n, Dim) else n

    def array(v: Value) -> Any:
        t = v.tensor
        shape = tuple(map(size, t.shape))
        if t.dtype.is_bool:
            return rng.random(shape) < 0.5
        if t.dtype.is_integer:
            return rng.integers(-3, 4, shape).astype(t.dtype.as_numpy_dtype)
        return rng.uniform(-2, 2, shape).astype(t.dtype.as_numpy_dtype)

    return [array(v) for v in function.feeds], [array(v) for v in function.states]


