"""The algorithm of a convolution: direct, or Winograd's F(2x2, 3x3) or F(4x4, 3x3), by estimated time.

Owns the choice and its reason in words.  Knows the ops; must not know kernels or machines.  Law: what it computes
differs by rounding alone: F(2x2) is as exact as the direct form, F(4x4) within 2e-5 of the largest element, and
numerics="strict" never takes it; an element that is not finite reaches all outputs of its tiles.

A convolution is eligible with filters of 3 x 3, stride and dilation 1, one group, channels last, float32, and a height
and width that are known; so are its gradients.  That for the input is the convolution of the output's gradient with the
filters turned around, that for the filters an algorithm of its own.

Estimates are in cycles of one core with two 512-bit multiply-adds a cycle.  Narrower machines have other numbers and
the same order, since all parts are counted in vectors.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from graphc.dtypes import float32
from graphc.ir import infer
from graphc.ir.dim import Size
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.kernel.winograd import TAPS, TRANSFORMS, Transform
from graphc.ops.base import Kind, lookup
from graphc.ops.convolution_window import Geometry, geometry
from graphc.ops.winograd_gradient import PARTS, parts_of
from graphc.ops.winograd_tiles import STRIP, UNIT, strips_of
from graphc.options import Options
from graphc.passes.bodies import everywhere

FORWARD, INPUT, FILTER = "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"
TYPICAL_BATCHES = (1, 8, 64)  # what a batch that is not known is taken for: the geometric mean of the times decides
MULTIPLY_ADDS = 32.0  # a cycle
DIRECT_SHARE, PRODUCT_SHARE, SUMS_SHARE = 0.85, 0.85, 0.75  # reached by direct forms, by products, by sums of products
DATA_CYCLES = {2: 40.0, 4: 130.0}  # of one tile and vector of channels transformed
OUTPUT_CYCLES = {2: 30.0, 4: 100.0}  # of one tile and vector of channels transformed back, or of its gradient
FILTER_CYCLES = {2: 60.0, 4: 100.0}  # of one vector of filters transformed
TURNED_CYCLES = 250.0  # beside them, of its gathers where the channels are exchanged
MOST_CHANNELS = 1024  # of F(4x4, 3x3): with more its error may exceed 2e-5
GAIN = 0.9  # of the direct form's time that Winograd's must be below: estimates are no better
BYTES = 16.0  # of filters a cycle that come from beyond the second-level cache
SUM_BYTES = 16.0  # of sums a cycle that are added to there
NEAR = 1 << 20  # bytes of sums that the second-level cache holds


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of one convolution.  tile: outputs of a Winograd tile along each axis, 0 for the direct form."""

    node: Node
    tile: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Case:
    """An eligible convolution.  role: the op.  size, outputs: height and width, and channels, of the result (where that
    is a filter gradient: of out_backprop).  channels: of the data.  kept: transformed filters outlive a run."""

    role: str
    images: Size
    size: tuple[int, int]
    before: tuple[int, int]
    channels: int
    outputs: int
    kept: bool


@everywhere
def choose_convolutions(function: Function, options: Options) -> Function:
    """Return `function` with every convolution that gains by it computed by Winograd's algorithm."""
    chosen = {c.node: c.tile for c in choices(function, options) if c.tile}
    if not chosen:
        return function

    def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> Sequence[Value] | None:
        if node not in chosen:
            return None
        case = _case(function, node)
        assert isinstance(case, _Case)
        attrs: dict[str, Any] = {"tile": chosen[node], "before": case.before}
        if case.role == FILTER:
            parts = builder.add(lookup("WinogradFilterGradient"), inputs, attrs, node.origin)
            return builder.add(lookup("Sum"), parts.outputs, {"axis": (0,), "keepdims": False}, node.origin).outputs
        turned = case.role == INPUT
        data, weights = reversed(inputs) if turned else inputs
        made = {"tile": chosen[node], "turned": turned}
        filters = builder.add(lookup("WinogradFilter"), (weights,), made, node.origin).output
        attrs |= {"size": case.size, "channels": case.outputs}
        return builder.add(lookup("WinogradConvolution"), (data, filters), attrs, node.origin).outputs

    return rewrite(function, Builder(infer.types), rule)


def choices(function: Function, options: Options) -> Iterator[Choice]:
    """Yield the algorithm of every convolution of `function` (not of its bodies), with the reason in one sentence."""
    for node in function.nodes:
        if node.op.name in (FORWARD, INPUT, FILTER):
            case = _case(function, node)
            yield Choice(node, 0, f"direct: {case}") if isinstance(case, str) else _choice(node, case, options)


def _choice(node: Node, case: _Case, options: Options) -> Choice:
    wanted = {"direct": 0, "winograd2": 2, "winograd4": 4}.get(options.convolution)
    if wanted == 4 and options.numerics == "strict":
        return Choice(node, 2, 'F(2x2, 3x3): asked for F(4x4, 3x3), which numerics="strict" does not take')
    if wanted is not None:
        return Choice(node, wanted, f"{_NAMES[wanted]}: asked for")
    exact = options.numerics == "strict" or case.channels > MOST_CHANNELS
    times = {tile: _time(case, tile) for tile in _NAMES if not (exact and tile == 4)}
    best = min(times, key=times.__getitem__)
    tile = best if times[best] < GAIN * times[0] else 0
    told = ", ".join(f"{_NAMES[t]} {times[t] / 1e3:.0f}" for t in sorted(times, key=times.__getitem__))
    batch = "" if isinstance(case.images, int) else f", the batch taken for {', '.join(map(str, TYPICAL_BATCHES))}"
    filters = "sums in parts" if case.role == FILTER else \
        f"transformed filters {'kept between runs' if case.kept else 'computed in every run'}"
    return Choice(node, tile, f"{_NAMES[tile]}: estimated thousands of cycles are {told} ({filters}{batch})")


_NAMES = {0: "direct", 2: "F(2x2, 3x3)", 4: "F(4x4, 3x3)"}

# -- which ------------------------------------------------------------------------------------------------------------


def _case(function: Function, node: Node) -> _Case | str:
    """Return an eligible convolution, or why it is none."""
    role, (first, second), out = node.op.name, node.inputs, node.output
    x, w, y = {FORWARD: (first, second, out), INPUT: (out, first, second), FILTER: (first, out, second)}[role]
    if node.attrs["data_format"] != "NHWC":
        return "its channels are not last"
    if x.tensor.dtype is not float32:
        return f"it is in {x.tensor.dtype.name}"
    if w.tensor.shape[:2] != (TAPS, TAPS):
        return f"its filters are {w.tensor.shape[0]} x {w.tensor.shape[1]}"
    g = geometry(node.attrs, x.tensor.shape, w.tensor.shape, y.tensor.shape, False)
    if any(axis.stride != 1 or axis.dilation != 1 for axis in g.windows):
        return "it has strides or dilations"
    if g.groups != 1:
        return f"it has {g.groups} groups"
    return _sized(g, role, role != FILTER and _is_kept(function, w))


def _sized(g: Geometry, role: str, kept: bool) -> _Case | str:
    sizes = [n for axis in g.windows for n in (axis.size, axis.out, axis.before)] + [g.channels, g.features]
    if not all(isinstance(n, int) for n in sizes):
        return "its height, width or channels are not known when compiling"
    if not all(isinstance(n, int) and n > 0 for axis in g.windows for n in (axis.size, axis.out)) or not (
            g.channels and g.features):
        return "it has no elements"
    before = [TAPS - 1 - int(axis.before) if role == INPUT else int(axis.before) for axis in g.windows]
    if min(before) < 0:
        return "its padding is wider than its filters"
    height, width = (int(axis.size if role == INPUT else axis.out) for axis in g.windows)
    channels, outputs = int(g.channels), int(g.features)
    if role == INPUT:
        channels, outputs = outputs, channels
    return _Case(role, g.batch, (height, width), (before[0], before[1]), channels, outputs, kept)


def _is_kept(function: Function, value: Value) -> bool:
    """Whether what is computed from `value` alone outlives a run (hoist.py): it depends on constants, and on variables
    that the run does not write."""
    if not function.feeds or any(u is not s and (u.producer is None or u.producer.op.kind is not Kind.RANDOM)
           for s, u in zip(function.states, function.updates, strict=True)):
        return False
    stack, seen, states = [value], {value}, frozenset(function.states)
    while stack:
        v = stack.pop()
        if v.producer is None and v not in states:
            return False
        below = [u for u in v.producer.inputs if u not in seen] if v.producer is not None else []
        seen.update(below)
        stack.extend(below)
    return True


# -- how long ---------------------------------------------------------------------------------------------------------


def _time(case: _Case, tile: int) -> float:
    """Return the estimated cycles of a convolution, all by one thread."""
    batches = (case.images,) if isinstance(case.images, int) else TYPICAL_BATCHES
    winograd = _gradient if case.role == FILTER else _winograd
    times = [max(1.0, winograd(case, TRANSFORMS[tile], n) if tile else _direct(case, n)) for n in batches]
    return float(prod(times) ** (1 / len(times)))


def _direct(case: _Case, images: int) -> float:
    """The products, and the filters from beyond the second-level cache."""
    outputs = strips_of(case.outputs) * STRIP
    products = images * prod(case.size) * TAPS * TAPS * case.channels * outputs
    return products / (MULTIPLY_ADDS * DIRECT_SHARE) + TAPS * TAPS * case.channels * outputs * 4 / BYTES


def _winograd(case: _Case, transform: Transform, images: int) -> float:
    """The three stages, the filters from beyond the second-level cache, and their transformation."""
    tiles = images * prod(-(-n // transform.tile) for n in case.size)
    rows = -(-tiles // UNIT) * UNIT
    vectors, strips = -(-case.channels // STRIP), strips_of(case.outputs)
    filters = case.channels * strips
    products = transform.points * rows * filters * STRIP / (MULTIPLY_ADDS * PRODUCT_SHARE)
    stages = tiles * (vectors * DATA_CYCLES[transform.tile] + strips * OUTPUT_CYCLES[transform.tile])
    traffic = transform.points * filters * STRIP * 4 / BYTES
    each = FILTER_CYCLES[transform.tile] + (TURNED_CYCLES if case.role == INPUT else 0.0)
    made = 0.0 if case.kept else filters * each + 2 * traffic
    return products + stages + traffic + made


def _gradient(case: _Case, transform: Transform, images: int) -> float:
    """The two transforms and the products; the sums, from memory for every block where they do not fit the second-level
    cache; the parts, written and added."""
    parts = parts_of(transform, images, case.size, case.channels, case.outputs)
    tiles, blocks = int(parts.grid.count), int(parts.blocks)
    vectors, sums = -(-case.channels // STRIP), parts.pitch * parts.width
    products = transform.points * tiles * sums / (MULTIPLY_ADDS * SUMS_SHARE)
    stages = tiles * (vectors * DATA_CYCLES[transform.tile] + parts.width / STRIP * OUTPUT_CYCLES[transform.tile])
    held = transform.points * sums * 4
    traffic = 2 * held * max(blocks, PARTS) / (SUM_BYTES if held > NEAR else 4 * SUM_BYTES)
    return products + stages + traffic + PARTS * TAPS * TAPS * sums * 4 / BYTES
