"""Runs kernel IR in Python with NumPy: the meaning of a kernel, without generated code.

Owns the backend "interp".  Knows kernel IR; uses no schedule and no target.  All iterations of a
parallel (or provably independent) loop run in lockstep: each active loop is one dimension of every
value, If and While act through a mask of active iterations, and other loops run one by one.
Invariants: a value bound under d such loops has 0 or d dimensions; an access out of bounds raises
KernelError instead of touching memory; bfloat16 values are float32 arrays, stored as uint16.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.backends.base import CompiledKernels, KernelInfo
from graphc.dtypes import DType
from graphc.errors import KernelError
from graphc.ir import dim
from graphc.kernel import cost, walk
from graphc.kernel.dependence import independent
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
)
from graphc.kernel.primitives import PRIMITIVES, cast_values
from graphc.kernel.text import format_expr, format_stmt
from graphc.options import Options

Array: TypeAlias = np.ndarray[Any, Any]

# Elements that one lockstep evaluation may hold; longer loops run in blocks of their axis.
BLOCK_ELEMENTS = 1 << 20


def run(kernel: Kernel, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> int:
    """Run `kernel` on arrays (one per parameter, in stored form, written in place).

    Returns 0, or the lowest failing site + 1.  Raises KernelError for an access out of bounds.
    """
    for p in kernel.params:
        shape = tuple(dim.evaluate(s, sizes) for s in p.shape)
        if arrays[p.name].shape != shape or arrays[p.name].dtype != p.dtype.storage:
            raise KernelError(f"kernel {kernel.name}: {p.name} is {arrays[p.name].dtype}{arrays[p.name].shape}, "
                              f"not {p.dtype.storage}{shape}")
    machine = _Machine(kernel, arrays, sizes)
    machine.block(kernel.body, _Frame((), None, {}))
    return machine.status


@dataclass(frozen=True, slots=True)
class InterpretedKernel:
    """A kernel as the run time calls it: one work item, the whole of it."""

    kernel: Kernel

    def __call__(self, begin: int, end: int, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> int:
        """Run the work items begin <= t < end, of which there is one: 0.  Returns the status."""
        return run(self.kernel, arrays, sizes) if begin <= 0 < end else 0


class InterpBackend:
    """The backend that needs no code: `CompiledKernels.callables` holds one InterpretedKernel per kernel."""

    name = "interp"

    def compile(self, kernels: Sequence[Kernel], options: Options) -> CompiledKernels:
        """Return the kernels, wrapped as callables."""
        infos = tuple(KernelInfo(k.name, 1, 1, 0, cost.cycles(k.body)) for k in kernels)
        return CompiledKernels(infos, (), callables=tuple(map(InterpretedKernel, kernels)))


@dataclass(slots=True)
class _Buffer:
    """data: a parameter's array, or a Local's with one leading dimension per loop that was active where it
    was declared (`lanes` of them)."""

    dtype: DType
    data: Array
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class _Frame:
    """dims: extents of the loops run in lockstep.  mask: which iterations are active, None for all.
    values: Vars and axes.  Frames of inner blocks copy `values`, so names bound inside stay inside."""

    dims: tuple[int, ...]
    mask: Array | None
    values: dict[str, Array]

    def inner(self) -> _Frame:
        return replace(self, values=dict(self.values))

    def lift(self, a: Array) -> Array:
        """Return `a` with trailing axes added so that its leading ones line up with `dims`."""
        return a if a.ndim in (0, len(self.dims)) else a.reshape(a.shape + (1,) * (len(self.dims) - a.ndim))

    def where(self, condition: Array) -> _Frame:
        """Return the frame of the iterations in which `condition` holds too."""
        c = self.lift(condition)
        return _Frame(self.dims, c if self.mask is None else c & self.lift(self.mask), dict(self.values))

    @property
    def is_idle(self) -> bool:
        return 0 in self.dims or (self.mask is not None and not self.mask.any())


class _Machine:
    """One run of one kernel: its buffers, sizes and status."""

    def __init__(self, kernel: Kernel, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.sizes = sizes
        self.status = 0
        self.buffers = {p.name: _Buffer(p.dtype, arrays[p.name]) for p in kernel.params}

    # -- statements -----------------------------------------------------------------------------

    def block(self, body: tuple[Stmt, ...], frame: _Frame) -> None:
        """Run statements in order; names that they bind go into `frame`."""
        if frame.is_idle:
            return
        for s in body:
            self.statement(s, frame)

    def statement(self, s: Stmt, frame: _Frame) -> None:
        match s:
            case Let(name, value):
                frame.values[name] = self.value(value, frame)
            case Store(buffer, index, value, predicate):
                inside = frame if predicate is None else frame.where(self.value(predicate, frame))
                self.store(s, buffer, index, self.value(value, frame), inside)
            case For():
                lockstep = s.parallel or independent(s)
                for inner in self.iterations(s.axis, s.extent, frame, lockstep, self.weight(s)):
                    self.block(s.body, inner)
            case Reduce():
                self.reduce(s, frame)
            case Scan():
                self.scan(s, frame)
            case Local(name, dtype, shape):
                sizes = tuple(dim.evaluate(n, self.sizes) for n in shape)
                empty = np.full(frame.dims + sizes, 0x7F, np.uint8 if dtype.is_bool else dtype.storage)
                if dtype.is_floating and dtype is not dtypes.bfloat16:
                    empty.fill(np.nan)
                self.buffers[name] = _Buffer(dtype, empty.astype(dtype.storage), len(frame.dims))
            case If(condition, then, orelse):
                c = self.value(condition, frame)
                self.block(then, frame.where(c))
                if orelse:
                    self.block(orelse, frame.where(~c))
            case While():
                self.loop_while(s, frame)
            case Scatter(buffer, index, value, mode):
                new = self.value(value, frame)
                if mode == "add":
                    dtype = self.buffers[buffer].dtype
                    old = self.load(Load(buffer, index, dtype), [self.value(i, frame) for i in index], frame)
                    half = dtype.is_floating and dtype.size == 2
                    with np.errstate(all="ignore"):
                        new = np.asarray(frame.lift(old).astype(np.float32) + frame.lift(new).astype(np.float32)
                                         if half else frame.lift(old) + frame.lift(new))
                self.store(s, buffer, index, new, frame)
            case Contract():
                self.contract(s, frame)

    def weight(self, loop: For) -> int:
        """Return the elements that one iteration of a loop holds: those of its largest Local, at least 1."""
        sizes = (dim.evaluate(dim.product(s.shape), self.sizes) for s in walk.statements(loop.body)
                 if isinstance(s, Local))
        return max(1, *sizes, 1)

    def iterations(self, axis: str, extent: Expr, frame: _Frame, lockstep: bool, weight: int = 1,
                   reverse: bool = False) -> Iterator[_Frame]:
        """Yield one frame per step of a loop: a block of iterations in lockstep, or a single one."""
        counts = self.value(extent, frame)
        top = int(counts.max()) if counts.size else 0
        ragged = counts.ndim > 0 and bool((counts != top).any())
        if not lockstep:
            for t in range(top - 1, -1, -1) if reverse else range(top):
                inner = frame.where(counts > t) if ragged else frame.inner()
                inner.values[axis] = np.asarray(t, np.int64)
                yield inner
            return
        step = max(1, BLOCK_ELEMENTS // max(1, weight * math.prod(frame.dims)))
        for start in range(0, top, step):
            stop = min(top, start + step)
            block = np.arange(start, stop, dtype=np.int64).reshape((1,) * len(frame.dims) + (-1,))
            inner = _Frame((*frame.dims, stop - start), frame.mask, dict(frame.values))
            inner.values[axis] = block
            yield inner.where(block < inner.lift(counts)) if ragged else inner

    def reduce(self, s: Reduce, frame: _Frame) -> None:
        states = [_identity(c, v.dtype) for c, v in zip(_per_state(s.combiners), s.values, strict=True)]
        started = False
        for inner in self.iterations(s.axis, s.extent, frame, True):
            if inner.is_idle:
                continue
            self.block(s.body, inner)
            values = [self.value(v, inner) for v in s.values]
            full = (1,) * len(frame.dims) + inner.dims[-1:]
            values = [np.broadcast_to(v, np.broadcast_shapes(v.shape, full)) for v in map(inner.lift, values)]
            at: int = 0
            for c in s.combiners:
                if c in ("argmax", "argmin"):
                    states[at:at + 2] = _extreme(c, values[at], values[at + 1], inner, states[at:at + 2], started)
                    at += 2
                else:
                    states[at] = _combine(c, states[at], _fold(c, values[at], inner))
                    at += 1
            started = True
        frame.values.update(zip(s.names, states, strict=True))

    def scan(self, s: Scan, frame: _Frame) -> None:
        state = _identity(s.combiner, s.value.dtype)
        for inner in self.iterations(s.axis, s.extent, frame, False, reverse=s.reverse):
            if inner.is_idle:
                continue
            self.block(s.body, inner)
            new = _combine(s.combiner, inner.lift(state), inner.lift(self.value(s.value, inner)))
            if inner.mask is not None:
                new = np.where(inner.lift(inner.mask), new, inner.lift(state))
            inner.values[s.name + "_before"], inner.values[s.name] = state, new
            self.block(s.then, inner)
            state = new
        frame.values[s.name] = state

    def loop_while(self, s: While, frame: _Frame) -> None:
        states = [np.broadcast_to(frame.lift(self.value(v, frame)), frame.dims) for v in s.initial]
        while True:
            inner = frame.inner()
            inner.values.update(zip(s.names, states, strict=True))
            active = inner.where(np.broadcast_to(inner.lift(self.value(s.condition, inner)), frame.dims))
            if active.is_idle:
                break
            self.block(s.body, active)
            mask = active.lift(active.mask if active.mask is not None else np.asarray(True))
            states = [np.where(mask, active.lift(self.value(v, active)), old)
                      for v, old in zip(s.next, states, strict=True)]
        frame.values.update(zip(s.names, states, strict=True))

    def contract(self, s: Contract, frame: _Frame) -> None:
        axes = walk.axes_of(s)
        counts = [self.value(extent, frame) for _, extent in axes]
        dims = frame.dims + tuple(int(c.max()) if c.size else 0 for c in counts)
        kept = len(dims) - len(s.k)
        whole = _Frame(dims, frame.mask, dict(frame.values))
        inner = _Frame(dims[:kept], frame.mask, dict(frame.values))
        for d, ((axis, _), count) in enumerate(zip(axes, counts, strict=True), len(frame.dims)):
            place = np.arange(dims[d], dtype=np.int64).reshape((1,) * d + (-1,))
            whole.values[axis] = place
            if d < kept:
                inner.values[axis] = place
            if count.size and bool((count != count.flat[0]).any()):  # iterations around differ in it
                whole = whole.where(whole.lift(place) < whole.lift(count))
                if d < kept:
                    inner = inner.where(inner.lift(place) < inner.lift(count))
        if inner.is_idle:
            return
        acc = np.zeros((1,) * kept, s.acc_dtype.as_numpy_dtype)
        if not whole.is_idle:
            a, b = (whole.lift(self.value(e, whole)) for e in (s.a, s.b))
            if whole.mask is not None:
                a, b = (np.where(whole.lift(whole.mask), x, x.dtype.type(0)) for x in (a, b))
            acc = _einsum(a, b, dims, kept)
        inner.values[s.acc] = acc.astype(s.acc_dtype.as_numpy_dtype)
        self.block(s.body, inner)

    # -- memory ---------------------------------------------------------------------------------

    def positions(self, what: Stmt | Load, buffer: _Buffer, index: Sequence[Array], frame: _Frame) -> list[Array]:
        """Return index arrays that are in bounds; raises KernelError where an active iteration's is not."""
        shape = buffer.data.shape[buffer.lanes:]
        lanes = enumerate(frame.dims[:buffer.lanes])
        out = [frame.lift(np.arange(n).reshape((1,) * d + (-1,))) for d, n in lanes]
        for at, size in zip(map(frame.lift, index), shape, strict=True):
            wrong = (at < 0) | (at >= size)
            if wrong.any():
                active = wrong if frame.mask is None else wrong & frame.lift(frame.mask)
                if active.any():
                    text = format_expr(what) if isinstance(what, Load) else format_stmt(what)
                    bad = np.broadcast_to(at, active.shape)[active].ravel()[0]
                    raise KernelError(f"kernel {self.kernel.name}: index {int(bad)} is out of range for size {size}: "
                                      f"{text}")
                at = np.where(wrong, 0, at)
            out.append(at)
        return out

    def load(self, e: Load, index: Sequence[Array], frame: _Frame) -> Array:
        buffer = self.buffers[e.buffer]
        at = self.positions(e, buffer, index, frame)
        if buffer.data.size == 0:  # only where no iteration is active
            return np.zeros((), e.dtype.as_numpy_dtype)
        stored = np.asarray(buffer.data[tuple(at)])
        return dtypes.bfloat16_to_float32(stored) if e.dtype is dtypes.bfloat16 else stored

    def store(self, s: Store | Scatter, name: str, index: tuple[Expr, ...], value: Array, frame: _Frame) -> None:
        if frame.is_idle:
            return
        buffer = self.buffers[name]
        at = self.positions(s, buffer, [self.value(i, frame) for i in index], frame)
        stored = dtypes.float32_to_bfloat16(value) if buffer.dtype is dtypes.bfloat16 else value
        if frame.mask is None:
            buffer.data[tuple(at)] = frame.lift(stored)
        else:
            mask = np.broadcast_to(frame.lift(frame.mask), frame.dims)
            chosen = tuple(np.broadcast_to(a, frame.dims)[mask] for a in at)
            values = np.broadcast_to(frame.lift(stored), frame.dims)[mask]
            buffer.data[chosen] = values if chosen else values[-1]  # a scalar buffer keeps the last

    # -- expressions ----------------------------------------------------------------------------

    def value(self, root: Expr, frame: _Frame) -> Array:
        """Return the value of an expression in every iteration of `frame`."""
        done: dict[int, Array] = {}
        for e in walk.postorder((root,)):
            done[id(e)] = self.node(e, done, frame)
        return done[id(root)]

    def node(self, e: Expr, done: Mapping[int, Array], frame: _Frame) -> Array:
        def of(x: Expr) -> Array:
            return frame.lift(done[id(x)])

        match e:
            case Const(value, dtype):
                return np.asarray(value, dtype.as_numpy_dtype)
            case Axis(name) | Var(name=name):
                return frame.values[name]
            case SizeOf(size):
                return np.asarray(dim.evaluate(size, self.sizes), np.int64)
            case Load(predicate=None):
                return self.load(e, [done[id(i)] for i in e.index], frame)
            case Load(predicate=p, other=other) if p is not None and other is not None:
                inside = frame.where(done[id(p)])
                index = [done[id(i)] for i in e.index]
                return np.where(of(p), frame.lift(self.load(e, index, inside)), of(other))
            case Prim(op="cast", args=(x,)):
                return np.asarray(cast_values(done[id(x)], x.dtype, e.dtype))
            case Prim(op="bitcast", args=(x,)):
                stored = dtypes.float32_to_bfloat16(of(x)) if x.dtype is dtypes.bfloat16 else of(x)
                bits = np.ascontiguousarray(stored).view(e.dtype.storage).reshape(stored.shape)
                return dtypes.bfloat16_to_float32(bits) if e.dtype is dtypes.bfloat16 else bits
            case Prim(op=op, args=args):
                return np.asarray(PRIMITIVES[op].numpy(*map(of, args)))
            case Guard(value, ok, fallback, site):
                failed = ~of(ok) if frame.mask is None else ~of(ok) & frame.lift(frame.mask)
                if 0 not in frame.dims and failed.any():
                    self.status = min(self.status or site + 1, site + 1)
                return np.where(of(ok), of(value), of(fallback))
            case Random(low, high, key, lane):
                return _philox(of(low), of(high), of(key), of(lane))
            case _:
                raise KernelError(f"kernel {self.kernel.name}: no value for {format_expr(e)}")


# ---------------------------------------------------------------------------------------------
# Combiners, products, random words.


def _per_state(combiners: tuple[str, ...]) -> list[str]:
    """Return one identity name per state: the second state of argmax is an index, from 0."""
    return [x for c in combiners for x in ((c, "first") if c in ("argmax", "argmin") else (c,))]


def _identity(combiner: str, dtype: DType) -> Array:
    if combiner in ("max", "argmax", "min", "argmin"):
        sign = -1.0 if combiner in ("max", "argmax") else 1.0
        value = sign * np.inf if dtype.is_floating else dtype.min if sign < 0 else dtype.max
    else:
        value = {"sum": 0, "prod": 1, "any": False, "all": True, "first": 0}[combiner]
    return np.asarray(value, dtype.as_numpy_dtype)


_UFUNCS: dict[str, np.ufunc] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
                                "any": np.logical_or, "all": np.logical_and}


def _combine(combiner: str, a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(_UFUNCS[combiner](a, b))


def _fold(combiner: str, values: Array, frame: _Frame) -> Array:
    """Return `values` combined over the last axis, inactive iterations left out."""
    if frame.mask is not None:
        neutral = _identity(combiner, dtypes.as_dtype(values.dtype))
        values = np.where(frame.lift(frame.mask), values, neutral)
    options = {"dtype": values.dtype} if combiner in ("sum", "prod") else {}
    with np.errstate(all="ignore"):
        return np.asarray(_UFUNCS[combiner].reduce(values, axis=-1, **options))


def _extreme(combiner: str, values: Array, where: Array, frame: _Frame, old: list[Array], started: bool) -> list[Array]:
    """Return the extreme and the index at its first place, from this block of iterations and the state."""
    best = _fold(combiner[3:], values, frame)
    hit = (values == best[..., None]) | (np.isnan(values) & np.isnan(best[..., None]))
    if frame.mask is not None:
        hit = hit & frame.lift(frame.mask)
    first = np.argmax(hit, axis=-1)[..., None]
    shape = (*hit.shape[:-1], values.shape[-1])
    at = np.take_along_axis(np.broadcast_to(where, np.broadcast_shapes(where.shape, shape)), first, -1)[..., 0]
    found = hit.any(-1)
    if started:
        better = best > old[0] if combiner == "argmax" else best < old[0]
        found = found & (better | (np.isnan(best) & ~np.isnan(old[0])))
    return [np.where(found, best, old[0]), np.where(found, at, old[1])]


def _einsum(a: Array, b: Array, dims: tuple[int, ...], kept: int) -> Array:
    """Return the sum of a * b over the dimensions from `kept` on, computed in float64 or int64."""
    wide = np.float64 if a.dtype.kind == "f" else a.dtype
    a = np.broadcast_to(a, a.shape[:kept] + dims[kept:]) if a.ndim else np.broadcast_to(a, (1,) * kept + dims[kept:])
    b = b if b.ndim else b.reshape((1,) * len(dims))
    operands: list[Any] = []
    present: set[int] = set()
    for x in (a, b):
        used = [d for d in range(len(dims)) if x.shape[d] != 1]
        operands += [x.reshape([x.shape[d] for d in used]).astype(wide), used]
        present |= set(used)
    out = [d for d in range(kept) if d in present]
    with np.errstate(all="ignore"):
        total = np.einsum(*operands, out, optimize=True)
    return np.asarray(total).reshape([dims[d] if d in present else 1 for d in range(kept)])


def _philox(low: Array, high: Array, key: Array, lane: Array) -> Array:
    """Return one word of each Philox 4x32-10 block.  Source: Salmon et al., SC 2011, section 3.3."""
    low, high, key, lane = np.broadcast_arrays(low, high, key, lane)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [low & mask, low >> half, high & mask, high >> half]
    k = [key & mask, key >> half]
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(q >> half) ^ c[1] ^ k[0], q & mask, (p >> half) ^ c[3] ^ k[1], p & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return np.asarray(np.choose(lane, [w.astype(np.uint32) for w in c]))
