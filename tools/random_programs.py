"""Random programs of the public API: what tools/fuzz.py runs.

Owns `Program`, a list of statements and a list of runs, and the `Generator` that makes one from a seed.  Knows shapes
as TF1 states them, with N and M for the sizes that placeholders leave open; knows neither sessions nor results.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Size: TypeAlias = "int | str"
"""A number, or an expression in N and M, the sizes that placeholders leave open."""
Shape: TypeAlias = "tuple[Size, ...]"

BATCHES = (7, 1, 33, 2, 7, 1, 33, 2, 700)


# -- programs ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Statement:
    """One statement; `text` binds `name`.  uses: the names in it.  dtype "" stands for what is no tensor."""

    name: str
    text: str
    uses: tuple[str, ...]
    dtype: str = ""
    shape: Shape = ()
    fed: int = -1
    """For placeholders of integers: the values are below this.  Negative: no placeholder."""


@dataclass(frozen=True)
class Run:
    """One run: fetched names, fed names beside the placeholders, the numbers for N and M, and whether by a callable."""

    fetches: tuple[str, ...]
    fed: tuple[str, ...]
    sizes: Mapping[str, int]
    callable: bool = False


@dataclass(frozen=True)
class Program:
    """Statements in their order, runs in theirs, and the optimisation level."""

    statements: tuple[Statement, ...]
    runs: tuple[Run, ...]
    level: int = 2


def data(number: int, shape: Sequence[int], dtype: str, below: int = 5) -> Array:
    """Return the values that are fed, or given to variables, under a number."""
    rng = np.random.RandomState(number)
    if dtype == "bool":
        return rng.rand(*shape) < 0.5
    if dtype.startswith("int"):
        return np.asarray(rng.randint(0, below, shape), dtype)
    return np.asarray(rng.uniform(-2.0, 2.0, shape), dtype)


def numbers(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape for concrete sizes."""
    return tuple(n if isinstance(n, int) else int(eval(n, dict(sizes))) for n in shape)


# -- generation --------------------------------------------------------------------------------------------------------

class Generator:
    """Makes one program.  A statement that fails to build is an error that the program finds."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.RandomState(seed)
        self.statements: list[Statement] = []
        self.float = "float64" if self.rng.rand() < 0.2 else "float32"
        self.inner = [int(n) for n in self.rng.choice([1, 2, 3, 4, 5, 8, 11, 16, 17, 40], 3)]
        self.updates: list[str] = []

    # choices
    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.rng.randint(len(items))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.rand() < p)

    def values(self, good: Callable[[Statement], bool] | None = None, dtype: str | None = None) -> list[Statement]:
        wanted = dtype or self.float
        return [s for s in self.statements if s.dtype == wanted and (good is None or good(s))]

    def value(self, good: Callable[[Statement], bool] | None = None, dtype: str | None = None) -> Statement | None:
        """A random tensor, the late ones more often."""
        found = self.values(good, dtype)
        return found[min(len(found) - 1, int(len(found) * self.rng.rand() ** 0.6))] if found else None

    # statements
    def add(self, code: str, uses: Iterable[Statement | str], dtype: str = "", shape: Shape = (), fed: int = -1,
            block: bool = False, prefix: str = "t") -> Statement:
        name = f"{prefix}{len(self.statements)}"
        names = tuple(u if isinstance(u, str) else u.name for u in uses)
        text = code.replace("$", name) if block else f"{name} = {code}"
        made = Statement(name, text, names, dtype, shape, fed)
        self.statements.append(made)
        return made

    def placeholder(self, shape: Shape, dtype: str, below: int = 5) -> Statement:
        static = [n if isinstance(n, int) else None for n in shape]
        return self.add(f"tf.placeholder(tf.{dtype}, {static})", (), dtype, shape, below, prefix="x")

    def variable(self, shape: tuple[int, ...]) -> Statement:
        number = int(self.rng.randint(1 << 30))
        name = f"v{len(self.statements)}"
        return self.add(f'tf.get_variable("{name}", initializer=data({number}, {shape}, "{self.float}") * 0.5)', (),
                        self.float, shape, prefix="v")

    def shape(self, rank: int) -> Shape:
        first: Size = self.pick(["N", "N", "N", self.pick(self.inner)])
        rest = [self.pick(["M", *self.inner, *self.inner, *self.inner]) for _ in range(rank - 1)]
        return (first, *rest) if rank else ()

    def program(self) -> Program:
        for _ in range(self.rng.randint(1, 4)):
            self.placeholder(self.shape(self.pick([1, 2, 2, 2, 3])), self.float)
        for _ in range(self.rng.randint(0, 4)):
            self.variable(tuple(self.pick(self.inner) for _ in range(self.pick([0, 1, 1, 2, 2]))))
        if self.chance(0.5):
            self.placeholder(("N",), "int32", self.pick([2, 3, 5]))
        steps = self.rng.randint(3, 26)
        for _ in range(steps):
            self.pick(MAKERS)(self)
        if self.chance(0.6):
            self.derive()
        for _ in range(self.rng.randint(0, 5)):
            self.pick(MAKERS)(self)
        if any(s.name.startswith("v") for s in self.statements) and self.chance(0.7):
            self.train()
        return Program(tuple(self.statements), tuple(self.runs()), self.pick([2, 2, 2, 2, 2, 1, 0]))

    def runs(self) -> list[Run]:
        """A few runs of the same fetches over sizes, then others."""
        tensors = [s.name for s in self.statements if s.dtype]
        late = tensors[len(tensors) // 2:]
        fetched = list(dict.fromkeys([*self.updates, *(self.pick(late) for _ in range(self.rng.randint(1, 5))),
            tensors[-1]]))
        fed = []
        if self.chance(0.2):
            middle = [s for s in self.statements
                if s.dtype == self.float and s.name.startswith("t") and s.name not in fetched]
            fed = [self.pick(middle).name] if middle else []
        m = int(self.pick([1, 3, 6]))
        batches = [BATCHES[0], *(self.pick(BATCHES) for _ in range(3))]
        runs = [Run(tuple(fetched), tuple(fed), {"N": n, "M": m}, self.chance(0.2)) for n in batches]
        runs.append(Run((self.pick(tensors),), (), {"N": int(self.pick(BATCHES)), "M": int(self.pick([1, 2, 5]))}))
        if self.updates:
            runs.append(Run(tuple(s.name for s in self.statements if s.name.startswith("v")), (), {"N": 2, "M": 3}))
        return runs

    # ops
    def unary(self) -> None:
        x = self.value()
        assert x is not None
        form = self.pick(UNARY)
        self.add(form.format(x.name), [x], x.dtype, x.shape)

    def binary(self) -> None:
        x = self.value()
        assert x is not None
        y = self.value(lambda s: broadcast(x.shape, s.shape) is not None)
        assert y is not None
        shape = broadcast(x.shape, y.shape)
        assert shape is not None
        form = self.pick(BINARY)
        self.add(form.format(x.name, y.name), [x, y], x.dtype, shape)

    def compare(self) -> None:
        x = self.value()
        assert x is not None
        y = self.value(lambda s: s.shape == x.shape)
        assert y is not None
        mask = self.add(self.pick(["tf.less({0}, {1})", "{0} > {1}", "tf.greater_equal({0}, 0.1)",
            "tf.not_equal({1}, {0})"])
                        .format(x.name, y.name), [x, y], "bool", x.shape)
        z = self.value(lambda s: s.shape == x.shape)
        assert z is not None
        if self.chance(0.7):
            self.add(f"tf.where({mask.name}, {x.name}, {z.name})", [mask, x, z], x.dtype, x.shape)
        else:
            self.add(f"tf.cast({mask.name}, tf.{self.float})", [mask], self.float, x.shape)

    def reduction(self) -> None:
        x = self.value(lambda s: len(s.shape) > 0)
        if x is None:
            return
        axes = [i for i in range(len(x.shape)) if self.chance(0.5)]
        keep = self.chance(0.4)
        form = self.pick(["reduce_sum", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_logsumexp",
            "math.reduce_variance"])
        every = not axes or self.chance(0.15)
        shape = tuple(1 if every or i in axes else n for i, n in enumerate(x.shape) if keep or not (every or i in axes))
        axis = "None" if every else str([a - len(x.shape) if self.chance(0.3) else a for a in axes])
        self.add(f"tf.{form}({x.name}, {axis}, keepdims={keep})", [x], x.dtype, shape)

    def matmul(self) -> None:
        x = self.value(lambda s: len(s.shape) >= 2)
        if x is None:
            return
        ta, tb = self.chance(0.25), self.chance(0.25)
        batch, (rows, inner) = x.shape[:-2], x.shape[-2:]
        if ta:
            rows, inner = inner, rows

        def fits(s: Statement) -> bool:
            return len(s.shape) == len(x.shape) and s.shape[:-2] == batch and s.shape[-1 if tb else -2] == inner
        y = self.value(fits)
        if y is None or (len(x.shape) == 2 and isinstance(inner, int) and self.chance(0.3)):
            if len(x.shape) != 2 or not isinstance(inner, int):
                return
            width = self.pick([1, *self.inner])
            y = self.variable((width, inner) if tb else (inner, width))
        columns = y.shape[-2 if tb else -1]
        self.add(f"tf.matmul({x.name}, {y.name}, transpose_a={ta}, transpose_b={tb}) * 0.3", [x, y], x.dtype,
                 (*batch, rows, columns))

    def reshape(self) -> None:
        x = self.value(lambda s: len(s.shape) >= 1)
        if x is None:
            return
        match self.rng.randint(6):
            case 0:
                axis = self.rng.randint(len(x.shape) + 1)
                self.add(f"tf.expand_dims({x.name}, {axis})", [x], x.dtype, (*x.shape[:axis], 1, *x.shape[axis:]))
            case 1:
                ones = [i for i, n in enumerate(x.shape) if n == 1]
                if ones:
                    self.add(f"tf.squeeze({x.name}, {ones})", [x], x.dtype, tuple(n for n in x.shape if n != 1))
            case 2:
                perm = [int(i) for i in self.rng.permutation(len(x.shape))]
                self.add(f"tf.transpose({x.name}, {perm})", [x], x.dtype, tuple(x.shape[i] for i in perm))
            case 3:
                self.add(f"tf.reshape({x.name}, [-1])", [x], x.dtype, (product(x.shape),))
            case 4:
                if len(x.shape) >= 2 and isinstance(x.shape[-1], int):
                    self.add(f"tf.reshape({x.name}, [-1, {x.shape[-1]}])", [x], x.dtype, (product(x.shape[:-1]),
                        x.shape[-1]))
            case _:
                last = x.shape[-1]
                if isinstance(last, int) and last % 2 == 0:
                    sizes = ", ".join(str(n) if isinstance(n, int) else f"tf.shape({x.name})[{i}]" for i,
                        n in enumerate(x.shape[:-1]))
                    self.add(f"tf.reshape({x.name}, [{sizes}{', ' if sizes else ''}2, {last // 2}])", [x], x.dtype,
                        (*x.shape[:-1], 2, last // 2))

    def join(self) -> None:
        x = self.value(lambda s: len(s.shape) >= 1)
        if x is None:
            return
        axis = self.rng.randint(len(x.shape))
        others = self.values(lambda s: len(s.shape) == len(x.shape) and all(
            a == b for i, (a, b) in enumerate(zip(s.shape, x.shape, strict=True)) if i != axis))
        parts = [x, *(self.pick(others) for _ in range(self.rng.randint(1, 3)))]
        names = ", ".join(p.name for p in parts)
        if self.chance(0.3) and all(p.shape == x.shape for p in parts):
            self.add(f"tf.stack([{names}], {axis})", parts, x.dtype, (*x.shape[:axis], len(parts), *x.shape[axis:]))
            return
        total = [p.shape[axis] for p in parts]
        size: Size = sum(total) if all(isinstance(n, int) for n in total) else "(" + "+".join(map(str,
            total)) + ")"  # type: ignore[arg-type]
        self.add(f"tf.concat([{names}], {axis - len(x.shape) if self.chance(0.3) else axis})", parts, x.dtype,
            (*x.shape[:axis], size, *x.shape[axis + 1:]))

    def part(self) -> None:
        x = self.value(lambda s: any(isinstance(n, int) and n > 1 for n in s.shape))
        if x is None:
            return
        axis = self.pick([i for i, n in enumerate(x.shape) if isinstance(n, int) and n > 1])
        size = x.shape[axis]
        assert isinstance(size, int)
        before = ":, " * axis

        def with_size(n: int) -> Shape:
            return (*x.shape[:axis], n, *x.shape[axis + 1:])
        match self.rng.randint(7):
            case 0:
                cut = int(self.rng.randint(1, size))
                pieces = self.add(f"tf.split({x.name}, [{cut}, {size - cut}], {axis})", [x], prefix="g")
                self.add(f"{pieces.name}[0]", [pieces], x.dtype, with_size(cut))
                if self.chance(0.7):
                    self.add(f"{pieces.name}[1]", [pieces], x.dtype, with_size(size - cut))
            case 1:
                low = int(self.rng.randint(0, size))
                high = int(self.rng.randint(low + 1, size + 1))
                self.add(f"{x.name}[{before}{low}:{high}]", [x], x.dtype, with_size(high - low))
            case 2:
                step = int(self.pick([2, 3, -1, -2]))
                self.add(f"{x.name}[{before}::{step}]", [x], x.dtype, with_size(len(range(size)[::step])))
            case 3:
                self.add(f"{x.name}[{before}{self.rng.randint(size) - (size if self.chance(0.3) else 0)}]", [x],
                    x.dtype, (*x.shape[:axis], *x.shape[axis + 1:]))
            case 4:
                indices = [int(i) for i in self.rng.randint(0, size, self.rng.randint(1, 6))]
                self.add(f"tf.gather({x.name}, {indices}, axis={axis})", [x], x.dtype, with_size(len(indices)))
            case 5:
                self.add(f"tf.reverse({x.name}, [{axis}])", [x], x.dtype, x.shape)
            case _:
                if size <= 8:
                    pieces = self.add(f"tf.unstack({x.name}, axis={axis})", [x], prefix="g")
                    for _ in range(2):
                        self.add(f"{pieces.name}[{self.rng.randint(size)}]", [pieces], x.dtype, (*x.shape[:axis],
                            *x.shape[axis + 1:]))

    def grow(self) -> None:
        x = self.value(lambda s: len(s.shape) >= 1)
        if x is None:
            return
        axis = self.rng.randint(len(x.shape))
        size = x.shape[axis]
        many = int(self.pick([1, 2, 3]))
        if self.chance(0.5):
            low, high = int(self.rng.randint(0, 3)), int(self.rng.randint(0, 3))
            paddings = [[low, high] if i == axis else [0, 0] for i in range(len(x.shape))]
            grown: Size = size + low + high if isinstance(size, int) else f"({size}+{low + high})"
            self.add(f"tf.pad({x.name}, {paddings})", [x], x.dtype, (*x.shape[:axis], grown, *x.shape[axis + 1:]))
        else:
            multiples = [many if i == axis else 1 for i in range(len(x.shape))]
            grown = size * many if isinstance(size, int) else f"({size}*{many})"
            self.add(f"tf.tile({x.name}, {multiples})", [x], x.dtype, (*x.shape[:axis], grown, *x.shape[axis + 1:]))

    def rows(self) -> None:
        """What normalises or scans rows."""
        x = self.value(lambda s: len(s.shape) >= 1)
        if x is None:
            return
        last = len(x.shape) - 1
        axis = self.rng.randint(len(x.shape))
        match self.rng.randint(7):
            case 0:
                self.add(f"tf.nn.softmax({x.name}{'' if self.chance(0.6) else f', axis={axis}'})", [x], x.dtype,
                    x.shape)
            case 1:
                self.add(f"tf.nn.log_softmax({x.name})", [x], x.dtype, x.shape)
            case 2:
                flags = self.pick(["", ", exclusive=True", ", reverse=True", ", exclusive=True, reverse=True"])
                self.add(f"tf.cumsum({x.name}, {axis}{flags}) * 0.2", [x], x.dtype, x.shape)
            case 3:
                axes = [last] if self.chance(0.5) else [axis]
                both = self.add(f"tf.nn.moments({x.name}, {axes}, keep_dims=True)", [x], prefix="g")
                shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
                mean = self.add(f"{both.name}[0]", [both], x.dtype, shape)
                variance = self.add(f"{both.name}[1]", [both], x.dtype, shape)
                self.add(f"({x.name} - {mean.name}) * tf.rsqrt({variance.name} + 0.1)", [x, mean, variance], x.dtype,
                    x.shape)
            case 4:
                self.add(f"tf.nn.layer_norm({x.name}, epsilon=0.1)", [x], x.dtype, x.shape)
            case 5:
                if last:
                    both = self.add(f"tf.nn.moments({x.name}, {list(range(last))})", [x], prefix="g")
                    self.add(f"tf.nn.batch_normalization({x.name}, {both.name}[0], {both.name}[1], None, None, 0.1)",
                        [x, both], x.dtype, x.shape)
            case _:
                self.add(f"tf.nn.l2_normalize({x.name}, {axis}, epsilon=0.1)", [x], x.dtype, x.shape)

    def entropy(self) -> None:
        x = self.value(lambda s: len(s.shape) == 2 and isinstance(s.shape[1], int))
        if x is None:
            return
        classes = x.shape[1]
        if self.chance(0.5) and x.shape[0] == "N":
            labels = self.placeholder(("N",), self.pick(["int32", "int64"]), classes)  # type: ignore[arg-type]
            self.add(f"tf.nn.sparse_softmax_cross_entropy_with_logits(labels={labels.name}, logits={x.name})",
                [labels, x], x.dtype, x.shape[:1])
            return
        y = self.value(lambda s: s.shape == x.shape)
        assert y is not None
        if self.chance(0.5):
            self.add(f"tf.nn.softmax_cross_entropy_with_logits_v2(labels=tf.nn.softmax({y.name}), logits={x.name})",
                [y, x], x.dtype, x.shape[:1])
        else:
            self.add(f"tf.nn.sigmoid_cross_entropy_with_logits(labels={y.name}, logits={x.name})", [y, x], x.dtype,
                x.shape)

    def integer(self) -> None:
        """Integers: argmax, one_hot, gathered rows, arithmetic."""
        match self.rng.randint(4):
            case 0:
                x = self.value(lambda s: len(s.shape) >= 1)
                if x is not None:
                    axis = self.rng.randint(len(x.shape))
                    self.add(f"tf.argmax({x.name}, {axis}, output_type=tf.int32)", [x], "int32", (*x.shape[:axis],
                        *x.shape[axis + 1:]))
            case 1:
                i = self.value(lambda s: len(s.shape) <= 2, dtype="int32")
                if i is not None:
                    depth = int(self.pick([1, 3, 4]))
                    self.add(f"tf.one_hot({i.name}, {depth}, dtype=tf.{self.float})", [i], self.float, (*i.shape,
                        depth))
            case 2:
                i = self.value(lambda s: len(s.shape) <= 2, dtype="int32")
                v = self.value(lambda s: len(s.shape) >= 1 and isinstance(s.shape[0], int))
                if i is not None and v is not None:
                    self.add(f"tf.gather({v.name}, tf.floormod({i.name}, {v.shape[0]}))", [i, v], self.float,
                        (*i.shape, *v.shape[1:]))
            case _:
                i = self.value(dtype="int32")
                if i is not None:
                    j = self.value(lambda s: broadcast(i.shape, s.shape) is not None, dtype="int32")
                    assert j is not None
                    form = self.pick(["{0} + {1}", "{0} * {1}", "{0} - 3 * {1}", "tf.maximum({0}, {1})",
                        "{0} // 3 + {1}", "tf.floormod({0}, 4) + {1}"])
                    shape = broadcast(i.shape, j.shape)
                    assert shape is not None
                    k = self.add(form.format(i.name, j.name), [i, j], "int32", shape)
                    if self.chance(0.5):
                        self.add(f"tf.cast({k.name}, tf.{self.float}) * 0.1", [k], self.float, shape)
                    elif self.chance(0.4):
                        self.add(f"tf.reduce_sum({k.name})", [k], "int32", ())

    def language(self) -> None:
        """Functions of the language that are made of several ops."""
        x = self.value(lambda s: len(s.shape) >= 2 and isinstance(s.shape[-1], int))
        if x is None:
            return
        *rest, last = x.shape
        rows = tuple(rest)
        assert isinstance(last, int)
        match self.rng.randint(8):
            case 0:
                letters = "abcdef"[:len(rest)]
                w = self.variable((last, self.pick(self.inner)))
                self.add(f"tf.einsum('{letters}x,xy->{letters}y', {x.name}, {w.name}) * 0.3", [x, w], x.dtype,
                         (*rows, w.shape[1]))
            case 1:
                w = self.variable((last, self.pick(self.inner)))
                self.add(f"tf.tensordot({x.name}, {w.name}, 1) * 0.3", [x, w], x.dtype, (*rows, w.shape[1]))
            case 2:
                w = self.variable((self.pick([1, 3]), last))
                self.add(f"tf.nn.bias_add({x.name}, {w.name}[0])", [x, w], x.dtype, x.shape)
            case 3:
                form = self.pick(["mean_squared_error", "absolute_difference", "huber_loss", "sigmoid_cross_entropy"])
                self.add(f"tf.cast(tf.losses.{form}(tf.sigmoid({x.name}), {x.name} * 0.5), tf.{x.dtype})", [x],
                    x.dtype, ())
            case 4:
                self.add(f"tf.matmul({x.name}, {x.name}, transpose_b=True) * 0.2", [x], x.dtype, (*rows, rows[-1]))
            case 5:
                scores = f"tf.nn.softmax(tf.matmul({x.name}, {x.name}, transpose_b=True) * 0.2)"
                self.add(f"tf.matmul({scores}, {x.name})", [x], x.dtype, x.shape)
            case 6:
                i = self.value(lambda s: len(s.shape) == 1, dtype="int32")
                if i is not None:
                    table = self.variable((7, self.pick(self.inner)))
                    self.add(f"tf.nn.embedding_lookup({table.name}, tf.floormod({i.name}, 7))", [i, table], x.dtype,
                             (*i.shape, table.shape[1]))
            case _:
                self.add(f"tf.clip_by_norm({x.name}, 1.5)", [x], x.dtype, x.shape)

    def derive(self) -> None:
        """Gradients of a random loss, and sometimes of their norm."""
        y = self.value()
        assert y is not None
        ancestors = self.ancestors(y.name)
        sources = [s for s in self.statements if s.name in ancestors and s.dtype == self.float and s.name != y.name]
        if not sources:
            return
        loss = self.add(self.pick(["tf.reduce_mean(tf.square({0}))", "tf.reduce_sum({0} * 0.1)", "tf.nn.l2_loss({0})",
            "tf.reduce_mean({0})"])
                        .format(y.name), [y], self.float, ())
        xs = list({s.name: s for s in (self.pick(sources) for _ in range(self.rng.randint(1, 4)))}.values())
        grads = self.add(f"gradients({loss.name}, [{', '.join(s.name for s in xs)}])", [loss, *xs], prefix="g")
        made = [self.add(f"{grads.name}[{i}]", [grads], self.float, x.shape) for i, x in enumerate(xs)]
        if self.chance(0.35):
            g = self.pick(made)
            norm = self.add(f"tf.reduce_sum(tf.square({g.name})) + tf.reduce_mean(tf.sin({g.name}))", [g], self.float,
                ())
            x = self.pick(xs)
            second = self.add(f"gradients({norm.name}, [{x.name}])", [norm, x], prefix="g")
            self.add(f"{second.name}[0]", [second], self.float, x.shape)

    def train(self) -> None:
        """Something that writes variables."""
        variables = [s for s in self.statements if s.name.startswith("v")]
        if self.chance(0.7):
            loss = self.value(lambda s: bool(self.ancestors(s.name) & {v.name for v in variables}))
            if loss is None:
                return
            used = [v for v in variables if v.name in self.ancestors(loss.name) or v.name == loss.name]
            total = self.add(" + ".join([f"tf.reduce_mean(tf.square({loss.name} - 0.5))",
                *(f"0.01 * tf.nn.l2_loss({v.name})" for v in used)]),
                             [loss, *used], self.float, ())
            opt = self.pick(OPTIMIZERS)
            names = ", ".join(v.name for v in used)
            self.updates.append(self.add(f"tf.train.{opt}.minimize({total.name}, var_list=[{names}])",
                                         [total, *used], prefix="u").name)
            return
        v = self.pick(variables)
        x = self.value(lambda s: s.shape == v.shape and not s.name.startswith("v"))
        alone = f"tf.assign({v.name}, {v.name} * 0.5 + 0.1)"
        first = alone if x is None else f"tf.assign_add({v.name}, {x.name} * 0.1)"
        uses = [v] if x is None else [v, x]
        a = self.add(first, uses, self.float, v.shape, prefix="a")
        self.updates.append(a.name)
        after = self.add(f"with tf.control_dependencies([{a.name}]):\n    $ = {v.name} * 2.0 + tf.identity({v.name})",
            [a, v], self.float, v.shape, block=True)
        self.updates.append(after.name)
        if self.chance(0.5):
            other = self.pick(variables)
            last = self.add(f"with tf.control_dependencies([{after.name}]):\n"
                            f"    $ = tf.assign_sub({other.name}, tf.tanh({other.name}) * 0.1)",
                            [after, other], self.float, other.shape, block=True, prefix="a")
            self.updates.append(last.name)

    def ancestors(self, name: str) -> set[str]:
        return needed(self.statements, [name]) - {name}


UNARY = ("tf.tanh({0})", "tf.sigmoid({0})", "tf.nn.relu({0})", "tf.nn.elu({0})", "tf.nn.softplus({0})",
    "tf.square({0}) * 0.3", "-{0}",
         "tf.abs({0})", "tf.exp(tf.minimum({0}, 1.0))", "tf.log(tf.abs({0}) + 0.5)", "tf.sqrt(tf.square({0}) + 0.1)",
             "tf.sin({0})",
         "tf.rsqrt(1.0 + {0} * {0})", "1.0 - {0}", "{0} * 0.5 + 0.25", "tf.erf({0})", "tf.sign({0})", "tf.floor({0})",
         "tf.stop_gradient({0})", "tf.identity({0})", "tf.nn.leaky_relu({0})", "tf.clip_by_value({0}, -0.7, 0.9)",
             "{0} / 3.0",
         "tf.zeros_like({0})", "tf.ones_like({0}) * {0}", "tf.pow(tf.abs({0}) + 0.1, 1.5)", "tf.nn.relu6({0} * 3.0)",
             "tf.log1p(tf.abs({0}))")
BINARY = ("{0} + {1}", "{0} - {1}", "{0} * {1} * 0.5", "{0} / (1.0 + {1} * {1})", "tf.maximum({0}, {1})",
    "tf.minimum({0}, {1})",
          "tf.squared_difference({0}, {1}) * 0.2", "{0} * tf.sigmoid({1})", "tf.atan2({0}, tf.abs({1}) + 0.5)",
              "{0} - tf.tanh({1})")
OPTIMIZERS = ("GradientDescentOptimizer(0.05)", "MomentumOptimizer(0.05, 0.9)", "AdamOptimizer(0.01)",
    "AdagradOptimizer(0.05)",
              "RMSPropOptimizer(0.01)", "MomentumOptimizer(0.05, 0.9, use_nesterov=True)", "FtrlOptimizer(0.05)")
MAKERS: tuple[Callable[[Generator], None], ...] = (
    Generator.unary, Generator.unary, Generator.unary, Generator.binary, Generator.binary, Generator.binary,
        Generator.compare,
    Generator.reduction, Generator.reduction, Generator.reduction, Generator.matmul, Generator.matmul,
        Generator.reshape, Generator.join,
    Generator.part, Generator.grow, Generator.rows, Generator.rows, Generator.entropy, Generator.integer,
        Generator.language, Generator.language)


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """Return the shape of two operands together, or None where they may not meet."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def product(shape: Shape) -> Size:
    """Return the number of elements."""
    if all(isinstance(n, int) for n in shape):
        return int(np.prod(shape, dtype=int))  # type: ignore[arg-type]
    return "(" + "*".join(str(n) for n in shape if n != 1) + ")" if len(shape) > 1 else shape[0]


def needed(statements: Sequence[Statement], names: Iterable[str]) -> set[str]:
    """Return the names that `names` are computed from, themselves included."""
    wanted = set(names)
    for s in reversed(statements):
        if s.name in wanted:
            wanted.update(s.uses)
    return wanted
