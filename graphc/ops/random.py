"""Random ops over Philox 4x32-10: the same numbers as TensorFlow 1 for the same seeds.

Owns them.  Must not know sessions: the counter is an input and the next counter an output.  Invariant: element i of a
result depends on (counter, i) alone, so a kernel may compute any part of it, in any order, or again.

A counter is uint64[3]: low word of Philox's counter, high word (seed2), key (seed).  Each ...Uniform, ...Normal op
decomposes into a pure Philox op of the counter and an advance of it, which fuse like any other elementwise op.
Sources: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; TensorFlow's random_distributions.h.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32, float64, int32, int64, uint32, uint64
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType
from graphc.kernel.ir import (
    Axis,
    Expr,
    For,
    If,
    Let,
    Load,
    Local,
    Random,
    Reduce,
    Scan,
    Stmt,
    Store,
    Var,
    While,
    const,
    index,
)
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast, prim
from graphc.ops.base import (
    Call,
    Decomposition,
    Inference,
    InvalidValue,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Routine,
    RoutineBody,
    Sample,
    attr_or_value,
    data_inputs,
    register,
    widen,
)
from graphc.ops.rules import (
    FLOATS,
    NUMBERS,
    check_dtype,
    check_same_dtype,
    concrete,
    ints,
    require_rank,
    static_rank,
    typed,
    unknown_sizes,
)

RESERVED = 256
"""Philox blocks that TensorFlow sets aside for each output element."""

COUNTER = PartialType(uint64, (3,))
_RANDOM = NoGradient("the numbers do not depend on its inputs")
_INTERNAL = NoGradient("made when compiling, after all gradients")


def first_counter(seed: int, seed2: int) -> np.ndarray | None:
    """Return the counter that a random op with these attrs starts from; None where both are 0: the system says it."""
    mask = 2**64 - 1
    return np.array([0, seed2 & mask, seed & mask], np.uint64) if seed or seed2 else None


# -- Philox in NumPy --------------------------------------------------------------------------------------------------


def philox(counter: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the four words (uint64 below 2**32, last axis) of each of `blocks` after `counter`."""
    low, high, key = (np.uint64(v) for v in counter)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    at = blocks.astype(np.uint64) + low
    carried = high + (at < low).astype(np.uint64)
    c = [at & mask, at >> half, carried & mask, carried >> half]
    k = [key & mask, key >> half]
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(q >> half) ^ c[1] ^ k[0], q & mask, (p >> half) ^ c[3] ^ k[1], p & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return np.stack(np.broadcast_arrays(*c), -1)


def _words(counter: np.ndarray, count: int) -> np.ndarray:
    """The first `count` words of the stream."""
    return philox(counter, np.arange(-(-count // 4))).reshape(-1)[:count]


def _fraction(words: np.ndarray, bits: int) -> np.ndarray:
    """The lowest `bits` bits as a number in [0, 1)."""
    return (words & np.uint64((1 << bits) - 1)).astype(np.float64) * 2.0 ** -bits


_MANTISSA = {float16: 10, bfloat16: 7, float32: 23}


def _uniform_values(counter: np.ndarray, count: int, dtype: DType) -> np.ndarray:
    if dtype is float64:
        w = _words(counter, 2 * count).reshape(-1, 2)
        return _fraction(((w[:, 0] & np.uint64(0xFFFFF)) << np.uint64(32)) | w[:, 1], 52)
    return _fraction(_words(counter, count), _MANTISSA[dtype])


def _box_muller(first: np.ndarray, second: np.ndarray, wide: bool) -> np.ndarray:
    """Pairs of normal numbers from pairs of uniform ones, side by side; the angle is a float32 where not `wide`."""
    radius = np.sqrt(-2 * np.log(np.maximum(first, 1e-7)))
    angle = 2 * math.pi * second
    if not wide:
        angle = angle.astype(np.float32).astype(np.float64)
    return np.stack([np.sin(angle) * radius, np.cos(angle) * radius], -1)


def _normal_values(counter: np.ndarray, count: int, dtype: DType) -> np.ndarray:
    pairs = -(-count // 2)
    uniform = _uniform_values(counter, 2 * pairs, float64 if dtype is float64 else float32).reshape(-1, 2)
    return _box_muller(uniform[:, 0], uniform[:, 1], dtype is float64).reshape(-1)[:count]


def _truncated_values(counter: np.ndarray, count: int, dtype: DType) -> np.ndarray:
    group = 2 if dtype is float64 else 4
    out = np.empty((-(-count // group), group))
    for g in range(len(out)):
        start = counter + np.array([g * group * RESERVED // 4, 0, 0], np.uint64)
        candidates = _normal_values(start, 16 * group, dtype)
        out[g] = candidates[np.abs(candidates) < 2][:group]
    return out.reshape(-1)[:count]


# -- Philox in expressions --------------------------------------------------------------------------------------------


def _state(p: Point) -> list[Expr]:
    return [p.load(len(p.in_types) - 1, (index(k),)) for k in range(3)]


def _word(state: Sequence[Expr], number: Expr) -> Expr:
    """Word `number` (int64) of the stream."""
    block = cast(prim("shr", number, index(2)), uint64)
    low = prim("add", state[0], block)
    high = prim("add", state[1], cast(prim("lt", low, block), uint64))
    return Random(low, high, state[2], prim("and", number, index(3)))


def _scaled(bits: Expr, count: int, dtype: DType) -> Expr:
    kept = prim("and", bits, const((1 << count) - 1, bits.dtype))
    return prim("mul", cast(kept, dtype), const(2.0 ** -count, dtype))


def _uniform(state: Sequence[Expr], number: Expr, dtype: DType) -> Expr:
    """Uniform number `number` of the stream in [0, 1)."""
    if dtype is not float64:
        return _scaled(_word(state, number), _MANTISSA[dtype], float32)
    twice = prim("shl", number, index(1))
    upper = prim("and", cast(_word(state, twice), uint64), const(0xFFFFF, uint64))
    lower = cast(_word(state, prim("add", twice, index(1))), uint64)
    return _scaled(prim("or", prim("shl", upper, const(32, uint64)), lower), 52, float64)


def _normal(state: Sequence[Expr], number: Expr, dtype: DType) -> Expr:
    """Normal number `number` of the stream, by Box and Muller's method."""
    wide = float64 if dtype is float64 else float32
    even = prim("and", number, index(-2))
    first = _uniform(state, even, wide)
    turn = cast(_uniform(state, prim("or", number, index(1)), wide), float64)
    angle = cast(prim("mul", turn, const(2 * math.pi, float64)), wide)  # rounded once, as TensorFlow does
    radius = prim("sqrt", prim("mul", const(-2, wide), prim("log", prim("max", first, const(1e-7, wide)))))
    side = prim("select", prim("eq", even, number), prim("sin", angle), prim("cos", angle))
    return prim("mul", side, radius)


def _flat(where: Sequence[Expr], shape: Sequence[Size]) -> Expr:
    """Row-major position of an element."""
    at: Expr = index(0)
    for e, n in zip(where, shape, strict=True):
        at = prim("add", prim("mul", at, size_of(n)), e)
    return at


# -- what every random op shares --------------------------------------------------------------------------------------


def _shape_of(ctx: Inference) -> Any:
    sizes = attr_or_value(ctx, 0, "shape")
    return unknown_sizes(ctx, static_rank(ctx, 0)) if sizes is None else ints(sizes)


def _blocks(elements: Size) -> Size:
    return elements * RESERVED


def _advance(d: Decomposition, blocks: Size) -> Any:
    return d.op("PhiloxAdvance", d.inputs[-1], blocks=blocks)


def _next(call: Call, blocks: int) -> np.ndarray:
    return call.arrays[-1] + np.array([blocks, 0, 0], np.uint64)


def _counter_sample() -> np.ndarray:
    return np.array([(1 << 32) - 3, 87654321, 1234], np.uint64)


_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (5, 33), (0, 2))


def _register_pure(name: str, infer: Any, reference: Any, lower: Any, attrs: Mapping[str, Any], samples: Any,
                   doc: str, inputs: tuple[str, ...] = ("counter",)) -> None:
    register(Op(name=name, kind=Kind.LIBRARY if isinstance(lower, RoutineBody) else Kind.INDEXING, inputs=inputs,
                attrs=attrs, infer=infer, gradient=_INTERNAL, reference=reference, lower=lower, samples=samples,
                doc=doc))


def _advance_point(p: Point) -> Expr:
    at = p.load(0, p.index)
    step = cast(size_of(p.attrs["blocks"]), uint64)
    return prim("select", prim("eq", p.index[0], index(0)), prim("add", at, step), at)


_register_pure("PhiloxAdvance", lambda ctx: [COUNTER], lambda call: _next(call, int(call.attrs["blocks"])),
               Pointwise(point=_advance_point), {"blocks": 0},
               lambda: [Sample((typed(uint64, 3),), {"blocks": n}, {0: _counter_sample()}, differentiable=False)
                        for n in (0, 256, 10**9)],
               "The counter after a number of Philox blocks")

# -- continuous distributions -----------------------------------------------------------------------------------------


def _filled_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.attrs["dtype"], tuple(ctx.attrs["shape"]))]


def _continuous(name: str, pure: str, values: Callable[[np.ndarray, int, DType], np.ndarray], lower: Any, ulp: float,
                doc: str) -> None:
    """Register `name` (a TensorFlow op over a counter) and `pure` (its values as an op of the counter's content)."""
    def infer(ctx: Inference) -> Sequence[PartialType]:
        if ctx.attrs["dtype"] not in FLOATS:
            raise ctx.fail_dtype(f"gives floats, not {ctx.attrs['dtype'].name}", "ask for dtype=tf.float32")
        return [PartialType(ctx.attrs["dtype"], _shape_of(ctx)), COUNTER]

    def value(call: Call) -> np.ndarray:
        shape = concrete(call)
        return values(call.arrays[-1], int(np.prod(shape)), call.attrs["dtype"]).reshape(shape)

    def decompose(d: Decomposition) -> Sequence[Any]:
        out = d.out_types[0]
        return [d.op(pure, d.inputs[-1], shape=out.shape, dtype=out.dtype), _advance(d, _blocks(out.elements))]

    def samples(seeds: Mapping[str, int]) -> list[Sample]:
        return [Sample((typed(uint64, 3),), {"shape": s, "dtype": d, **seeds}, {0: _counter_sample()}, ulp=ulp,
                       differentiable=False) for d in FLOATS for s in _SHAPES]

    register(Op(
        name=name, kind=Kind.RANDOM, inputs=("shape", "counter"), static={0: "shape"}, stateful=True, outputs=2,
        attrs={"shape": None, "dtype": float32, "seed": 0, "seed2": 0}, infer=infer, gradient=_RANDOM,
        reference=lambda call: (value(call), _next(call, int(_blocks(math.prod(concrete(call)))))),
        lower=NotLowered(f"decomposed into {pure}"), decompose=decompose,
        samples=lambda: samples({"seed": 1234, "seed2": 87654321}), doc=doc))
    _register_pure(pure, _filled_infer, value, lower, {"shape": (), "dtype": float32}, lambda: samples({}),
                   f"The values of {name} for the content of a counter")


def _drawing(draw: Callable[[Sequence[Expr], Expr, DType], Expr]) -> Pointwise:
    return Pointwise(point=lambda p: draw(_state(p), _flat(p.index, p.out_types[0].shape), p.out_types[0].dtype))


def _truncated_body(r: Routine) -> tuple[Stmt, ...]:
    """Each group of elements has blocks of its own and takes normal numbers until enough lie within 2."""
    (out,) = r.out_types
    wide = float64 if out.dtype is float64 else float32
    group = 2 if wide is float64 else 4
    names = {k: r.fresh(k) for k in ("low", "g", "taken", "tried", "value", "at")}
    taken, tried = Var(names["taken"], int64), Var(names["tried"], int64)
    counter = [Load(r.input(0), (index(k),), uint64) for k in range(3)]
    skip = prim("mul", cast(Axis(names["g"]), uint64), const(group * RESERVED // 4, uint64))
    state: list[Expr] = [Var(names["low"], uint64), *counter[1:]]
    value = Var(names["value"], wide)
    at = Var(names["at"], int64)
    fits = prim("lt", prim("abs", value), const(2, wide))
    place: list[Expr] = []
    rest: Expr = at
    for n in reversed(out.shape[1:]):
        place.append(prim("floormod", rest, size_of(n)))
        rest = prim("floordiv", rest, size_of(n))
    where = (rest, *reversed(place)) if out.shape else ()
    inside = prim("and", fits, prim("lt", at, size_of(out.elements)))
    step = While(
        (names["taken"], names["tried"]), (index(0), index(0)), prim("lt", taken, index(group)),
        (Let(names["value"], _normal(state, tried, wide)),
         Let(names["at"], prim("add", prim("mul", Axis(names["g"]), index(group)), taken)),
         If(inside, (Store(r.output(0), where, cast(value, out.dtype)),))),
        (prim("add", taken, cast(fits, int64)), prim("add", tried, index(1))))
    groups = dim.ceildiv(out.elements, group)
    return (For(names["g"], size_of(groups), (Let(names["low"], prim("add", counter[0], skip)), step)),)


_continuous("RandomUniform", "PhiloxUniform", _uniform_values, _drawing(_uniform), 0.0,
            "Numbers uniform in [0, 1). tf.random_uniform")
_continuous("RandomStandardNormal", "PhiloxNormal", _normal_values, _drawing(_normal), 64.0,
            "Numbers of the standard normal distribution. tf.random_normal")
_continuous("TruncatedNormal", "PhiloxTruncatedNormal", _truncated_values, RoutineBody(_truncated_body), 64.0,
            "Numbers of the standard normal distribution within 2 of 0. tf.truncated_normal")

# -- integers ---------------------------------------------------------------------------------------------------------

_INTEGERS = (int32, int64)


def _int_infer(ctx: Inference) -> Sequence[PartialType]:
    low, high = data_inputs(ctx, {0: "shape"})[:2]
    for t, name in ((low, "minval"), (high, "maxval")):
        require_rank(ctx, t.shape, 0, name, 0)
    dtype = check_same_dtype(ctx, (low, high), _INTEGERS)
    return [PartialType(dtype, _shape_of(ctx)), COUNTER]


def _int_values(call: Call) -> np.ndarray:
    low, high, counter = call.arrays
    if low >= high:
        raise InvalidValue(f"need minval < maxval, got {low} >= {high}")
    shape, wide = concrete(call), call.out_types[0].dtype is int64
    count = int(np.prod(shape))
    span = np.uint64((int(high) - int(low)) & 0xFFFFFFFFFFFFFFFF)
    if wide:
        w = _words(counter, 2 * count).reshape(-1, 2)
        bits = w[:, 0] | (w[:, 1] << np.uint64(32))
    else:
        bits = _words(counter, count)
    drawn = (bits % span + np.uint64(int(low) & 0xFFFFFFFFFFFFFFFF)).astype(np.int64)
    return np.asarray(drawn.astype(call.out_types[0].dtype.storage).reshape(shape))


def _int_point(p: Point) -> Expr:
    dtype = p.out_types[0].dtype
    bits_type = uint64 if dtype is int64 else uint32
    low, high = p.load(0, ()), p.load(1, ())
    number, state = _flat(p.index, p.out_types[0].shape), _state(p)
    if dtype is int64:
        twice = prim("shl", number, index(1))
        upper = prim("shl", cast(_word(state, prim("add", twice, index(1))), uint64), const(32, uint64))
        bits: Expr = prim("or", cast(_word(state, twice), uint64), upper)
    else:
        bits = _word(state, number)
    span = cast(prim("sub", high, low), bits_type)
    drawn = prim("add", low, cast(prim("floormod", bits, span), dtype))
    return p.guard(drawn, prim("lt", low, high), low, "assert", "random_uniform: need minval < maxval")


def _int_pure_infer(ctx: Inference) -> Sequence[PartialType]:
    return [PartialType(ctx.inputs[0].dtype, tuple(ctx.attrs["shape"]))]


def _int_decompose(d: Decomposition) -> Sequence[Any]:
    out = d.out_types[0]
    return [d.op("PhiloxInt", *d.inputs, shape=out.shape), _advance(d, _blocks(out.elements))]


def _int_samples(seeds: Mapping[str, int]) -> list[Sample]:
    return [Sample((typed(d), typed(d), typed(uint64, 3)), {"shape": s, **seeds},
                   {0: np.asarray(low, d.as_numpy_dtype), 1: np.asarray(high, d.as_numpy_dtype), 2: _counter_sample()},
                   differentiable=False)
            for d in _INTEGERS for s in _SHAPES for low, high in ((0, 10), (-2**31, 2**31 - 1))]


register(Op(
    name="RandomUniformInt", kind=Kind.RANDOM, inputs=("shape", "minval", "maxval", "counter"), static={0: "shape"},
    stateful=True, outputs=2, attrs={"shape": None, "seed": 0, "seed2": 0}, infer=_int_infer, gradient=_RANDOM,
    reference=lambda call: (_int_values(call), _next(call, int(_blocks(math.prod(concrete(call)))))),
    lower=NotLowered("decomposed into PhiloxInt"), decompose=_int_decompose,
    samples=lambda: _int_samples({"seed": 1234, "seed2": 87654321}),
    doc="Integers uniform in [minval, maxval). tf.random_uniform"))
_register_pure("PhiloxInt", _int_pure_infer, _int_values, Pointwise(point=_int_point), {"shape": ()},
               lambda: _int_samples({}), "The values of RandomUniformInt for the content of a counter",
               ("minval", "maxval", "counter"))

# -- orders -----------------------------------------------------------------------------------------------------------


def _permutation_values(counter: np.ndarray, n: int) -> np.ndarray:
    """Source: TF's RandomShuffle: i changes places with i + word % (n - i), from the front."""
    order = np.arange(n)
    for i, word in enumerate(_words(counter, max(n - 1, 0))):
        j = i + int(word) % (n - i)
        order[i], order[j] = order[j], order[i]
    return order


def _permutation_body(r: Routine) -> tuple[Stmt, ...]:
    n = size_of(r.attrs["size"])
    fill, i, a, c, j = (r.fresh(k) for k in ("f", "i", "a", "c", "j"))
    state = [Load(r.input(0), (index(k),), uint64) for k in range(3)]
    left = cast(prim("sub", n, Axis(i)), uint32)
    chosen = prim("add", Axis(i), cast(prim("floormod", _word(state, Axis(i)), left), int64))
    at = Var(j, int64)
    swap: tuple[Stmt, ...] = (
        Let(j, chosen), Let(a, Load(r.output(0), (Axis(i),), int64)), Let(c, Load(r.output(0), (at,), int64)),
        Store(r.output(0), (at,), Var(a, int64)), Store(r.output(0), (Axis(i),), Var(c, int64)))
    steps = prim("max", prim("sub", n, index(1)), index(0))
    return (For(fill, n, (Store(r.output(0), (Axis(fill),), Axis(fill)),)), For(i, steps, swap))


_register_pure("PhiloxPermutation", lambda ctx: [PartialType(int64, (ctx.attrs["size"],))],
               lambda call: _permutation_values(call.arrays[0], int(call.attrs["size"])),
               RoutineBody(_permutation_body),
               {"size": 0}, lambda: [Sample((typed(uint64, 3),), {"size": n}, {0: _counter_sample()},
                                            differentiable=False)
                                     for n in (0, 1, 2, 37)],
               "A random order of the first `size` integers")


def _shuffle_blocks(n: Size) -> Size:
    """TensorFlow reserves the n - 1 words that it uses."""
    return dim.floordiv(n + 2, 4)


def _shuffle_infer(ctx: Inference) -> Sequence[PartialType]:
    x = ctx.inputs[0]
    require_rank(ctx, x.shape, 1, "the value")
    return [PartialType(x.dtype, x.shape), COUNTER]


def _shuffle_reference(call: Call) -> Any:
    value, counter = call.arrays
    return value[_permutation_values(counter, len(value))], _next(call, int(_shuffle_blocks(len(value))))


def _shuffle_decompose(d: Decomposition) -> Sequence[Any]:
    n = d.in_types[0].shape[0]
    order = d.op("PhiloxPermutation", d.inputs[1], size=n)
    return [d.op("GatherV2", d.inputs[0], order, axis=0, batch_dims=0), _advance(d, _shuffle_blocks(n))]


register(Op(
    name="RandomShuffle", kind=Kind.RANDOM, inputs=("value", "counter"), stateful=True, outputs=2,
    attrs={"seed": 0, "seed2": 0}, infer=_shuffle_infer, gradient=NoGradient("the order of the rows is not kept"),
    reference=_shuffle_reference, lower=NotLowered("decomposed into PhiloxPermutation and GatherV2"),
    decompose=_shuffle_decompose,
    samples=lambda: [Sample((typed(d, *s), typed(uint64, 3)), arrays={1: _counter_sample()}, differentiable=False)
                     for d in (float32, int32) for s in ((7,), (5, 3), (1,), (0, 2))],
    doc="The rows in a random order. tf.random_shuffle"))

# -- classes ----------------------------------------------------------------------------------------------------------


def _multinomial_infer(ctx: Inference) -> Sequence[PartialType]:
    logits = ctx.inputs[0]
    check_dtype(ctx, logits, NUMBERS, "the logits")
    require_rank(ctx, logits.shape, 2, "the logits", 2)
    count = attr_or_value(ctx, 1, "num_samples")
    rows = ctx.unknown() if logits.shape is None else logits.shape[0]
    return [PartialType(ctx.attrs["output_dtype"], (rows, ctx.unknown() if count is None else count)), COUNTER]


def _multinomial_blocks(rows: Size, count: Size) -> Size:
    """Two words for each sample, samples rounded up to four, as TensorFlow counts."""
    return _blocks(rows * dim.ceildiv(count, 4) * 8)


def _categorical_values(call: Call) -> np.ndarray:
    logits, counter = call.arrays
    logits = logits.astype(np.float64)
    rows, count = logits.shape[0], int(call.attrs["num_samples"])
    drawn = _uniform_values(counter, rows * count, float64).reshape(rows, count)
    if not logits.size or not count:
        if rows * count:
            raise InvalidValue("multinomial: there are no classes")
        return np.zeros((rows, count), np.int64)
    finite = np.isfinite(logits)
    top = np.max(np.where(finite, logits, -np.inf), 1, keepdims=True)
    running = np.cumsum(np.where(finite, np.exp(logits - top), 0), 1)
    found = running[:, None, :] <= (drawn * running[:, -1:])[..., None]
    return np.asarray(np.minimum(found.sum(-1), logits.shape[1] - 1))


def _categorical_body(r: Routine) -> tuple[Stmt, ...]:
    """Per row: the running sum of exp(logit - max) in a row of scratch, then its place for each drawn number."""
    rows, classes = r.in_types[0].shape
    count, dtype = r.attrs["num_samples"], r.out_types[0].dtype
    b, j, k, c, s, q, top, run, sums, found = (r.fresh(x) for x in ("b", "j", "k", "c", "s", "q", "top", "run", "sums",
                                                                    "n"))

    def logit(axis: str) -> Expr:
        return cast(widen(Load(r.input(0), (Axis(b), Axis(axis)), r.in_types[0].dtype)), float64)

    def finite(e: Expr) -> Expr:
        return prim("lt", prim("abs", e), const(math.inf, float64))

    lowest = prim("select", finite(logit(j)), logit(j), const(-math.inf, float64))
    share = prim("exp", prim("sub", logit(k), Var(top, float64)))
    part = prim("select", finite(logit(k)), share, const(0, float64))
    state = [Load(r.input(1), (index(x),), uint64) for x in range(3)]
    last = prim("sub", size_of(classes), index(1))
    number = prim("add", prim("mul", Axis(b), size_of(count)), Axis(s))
    drawn = prim("mul", _uniform(state, number, float64), Load(sums, (last,), float64))
    below = cast(prim("le", Load(sums, (Axis(c),), float64), Var(q, float64)), int64)
    sample: tuple[Stmt, ...] = (
        Let(q, drawn), Reduce((found,), ("sum",), c, size_of(classes), (), (below,)),
        Store(r.output(0), (Axis(b), Axis(s)), cast(prim("min", Var(found, int64), last), dtype)))
    row: tuple[Stmt, ...] = (
        Local(sums, float64, (classes,)),
        Reduce((top,), ("max",), j, size_of(classes), (), (lowest,)),
        Scan(run, "sum", k, size_of(classes), (), part, (Store(sums, (Axis(k),), Var(run, float64)),)),
        For(s, size_of(count), sample))
    return (For(b, size_of(rows), row, parallel=True),)


def _multinomial_decompose(d: Decomposition) -> Sequence[Any]:
    out = d.out_types[0]
    value = d.op("PhiloxCategorical", *d.inputs, num_samples=out.shape[1], output_dtype=out.dtype)
    return [value, _advance(d, _multinomial_blocks(*out.shape))]


def _multinomial_samples(seeds: Mapping[str, int]) -> list[Sample]:
    return [Sample((typed(d, *s), typed(uint64, 3)), {"num_samples": n, "output_dtype": t, **seeds},
                   {1: _counter_sample()}, special=False, differentiable=False)
            for d in (float32, float64) for t in (int32, int64)
            for s, n in (((3, 5), 7), ((1, 1), 2), ((0, 4), 3), ((2, 6), 0))]


register(Op(
    name="Multinomial", kind=Kind.RANDOM, inputs=("logits", "num_samples", "counter"), static={1: "num_samples"},
    stateful=True, outputs=2, attrs={"num_samples": None, "output_dtype": int64, "seed": 0, "seed2": 0},
    infer=_multinomial_infer, gradient=_RANDOM,
    reference=lambda call: (_categorical_values(call), _next(call, int(_multinomial_blocks(*concrete(call))))),
    lower=NotLowered("decomposed into PhiloxCategorical"), decompose=_multinomial_decompose,
    samples=lambda: _multinomial_samples({"seed": 1234, "seed2": 87654321}),
    doc="Classes drawn with the probabilities softmax(logits) of each row. tf.multinomial"))
_register_pure("PhiloxCategorical", lambda ctx: [PartialType(ctx.attrs["output_dtype"], (
    (ctx.inputs[0].shape or (0,))[0], ctx.attrs["num_samples"]))], _categorical_values,
    RoutineBody(_categorical_body), {"num_samples": 0, "output_dtype": int64}, lambda: _multinomial_samples({}),
    "The values of Multinomial for the content of a counter", ("logits", "counter"))
