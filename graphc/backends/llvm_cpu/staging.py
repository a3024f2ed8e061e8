"""Stages of a vector loop: dear functions of dear functions run one after the other, a chunk of vectors at a time.

Owns the choice and the shape of such loops.  A processor keeps some hundred operations in flight: where a step is one
long chain (the exponential of a hyperbolic tangent), only few steps overlap and most of the time is spent waiting.  Cut
behind its inner functions, whose values wait on the stack, each part is short enough for many steps to overlap.
Works on a Renderer.  Invariant: what is computed does not change, nor does the order within an element.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.convert import register_element
from graphc.kernel import walk
from graphc.kernel.ir import Expr, For, Let, Prim, Random, Store, Var
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.schedule import LoopPlan

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.render import Context, Renderer

CHUNK = 16  # vectors: long against what is in flight, short against the first-level cache
DEAR = 10.0  # cost of a primitive that is worth a stage


@dataclass(frozen=True, slots=True)
class Stage:
    """lets: what can be known when the stage begins.  results: the dear expressions that it computes."""

    lets: tuple[Let, ...]
    results: tuple[Expr, ...]


def stages(loop: For, plan: LoopPlan) -> list[Stage]:
    """Return the stages before the last one; [] where one stage does."""
    extent = walk.as_size(loop.extent)
    short = isinstance(extent, int) and extent < CHUNK * plan.lanes
    if short or not plan.is_vector or not all(isinstance(s, Let | Store) for s in loop.body):
        return []
    levels: dict[int, int] = {}
    lets: dict[str, int] = {}
    found: list[list[Expr]] = []
    for s in loop.body:
        for root in walk.expressions(s):
            for e in walk.postorder((root,)):
                if isinstance(e, Random):
                    return []
                level = lets.get(e.name, 0) if isinstance(e, Var) else max(
                    (levels[id(c)] for c in walk.children(e)), default=0)
                if isinstance(e, Prim) and e.dtype.is_floating and PRIMITIVES[e.op].cost >= DEAR:
                    if not any(e is known for stage in found for known in stage):
                        found.extend([] for _ in range(level + 1 - len(found)))
                        found[level].append(e)
                    level += 1
                levels[id(e)] = level
            if isinstance(s, Let):
                lets[s.name] = levels[id(root)]
    return [Stage(tuple(s for s in loop.body if isinstance(s, Let) and lets[s.name] <= number), tuple(stage))
            for number, stage in enumerate(found[:-1])]


def run(r: Renderer, loop: For, staged: list[Stage], low: Value, high: Value, plan: LoopPlan,
        context: Context) -> Value:
    """Run `loop` on full vectors; return where they end."""
    b, lanes = r.b, plan.lanes
    end = low + ((high - low) & -lanes)
    r.quad(end, low)
    places = [[(e, b.alloca(register_element(e.dtype), count=lanes * CHUNK, align=64)) for e in stage.results]
              for stage in staged]

    def inside(index: Value, position: Value, number: int) -> Context:
        """The context of one vector, with the values of the stages before this one."""
        r.bounded(index)
        inner = context.bound({loop.axis: r.linear(index)}, lanes=lanes)
        inner.hoisted = dict(context.hoisted)
        for e, place in (pair for stage in places[:number] for pair in stage):
            element = register_element(e.dtype)
            inner.hoisted[id(e)] = b.load(b.at(place, position, element), element, lanes)
        return inner

    with b.loop(low, end, CHUNK * lanes) as chunk:
        r.quad(chunk.index, low)
        width = b.intrinsic("smin", end - chunk.index, b.i64(CHUNK * lanes))
        for number, stage in enumerate(staged):
            with b.loop(b.i64(0), width, lanes) as vectors:
                inner = inside(chunk.index + vectors.index, vectors.index, number)
                r.statements(stage.lets, inner)
                for e, place in places[number]:
                    b.store(r.vector(e, inner), b.at(place, vectors.index, register_element(e.dtype)))
        with b.loop(b.i64(0), width, lanes) as vectors:
            r.statements(loop.body, inside(chunk.index + vectors.index, vectors.index, len(staged)))
    return end
