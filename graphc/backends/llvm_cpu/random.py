"""Random words: Philox 4x32-10 as helper functions of vectors.

Owns the generator's code and the recognition of vectors that take whole blocks.  Invariant: word and
block are those of the reference (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
whatever the lanes.
"""
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from graphc.backends.llvm_cpu.builder import Builder, Module, Value, type_of
from graphc.kernel import walk
from graphc.kernel.ir import Axis, Const, Guard, Load, Prim, Random, Var
from graphc.kernel.target import Target

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.render import Context, Renderer

MULTIPLIERS, KEY_STEPS, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


def word(b: Builder, low: Value, high: Value, key: Value, lane: Value) -> Value:
    """Return word `lane` (i64, 0..3) of the block with counter (low, high) and `key` (all i64)."""
    lanes = max(v.lanes for v in (low, high, key, lane))
    name, module = _word(b.target, lanes)
    b.module.take(module)
    return b.call(name, ("i32", lanes), *(b.splat(v, lanes) for v in (low, high, key, lane)))


def words(b: Builder, low: Value, high: Value, key: Value, lanes: int) -> Value:
    """Return all four words of each of lanes / 4 blocks, block after block.

    The arguments have `lanes` lanes, equal in each group of four, or are uniform.
    """
    blocks = lanes // 4
    first = [v if v.lanes == 1 else b.shuffle(v, None, range(0, lanes, 4)) for v in (low, high, key)]
    name, module = _words(b.target, blocks)
    b.module.take(module)
    return b.call(name, ("i32", lanes), *(b.splat(v, blocks) for v in first))


def in_blocks(r: Renderer, random: Random, context: Context) -> bool:
    """Return whether the lanes take the words of whole blocks in order: word e % 4 of a block that depends
    on e // 4 alone, with e = multiple of 4 + lane."""
    match random.lane:
        case Prim(op="floormod", args=(e, Const(value=4))) if context.lanes % 4 == 0:
            at = r.evaluate(e, context)
        case _:
            return False
    if isinstance(at, Value) or at.step.constant != 1 or not r.is_quad(at.base):
        return False
    same: dict[int, bool] = {}
    counter = (random.counter_low, random.counter_high, random.key)
    for x in walk.postorder(counter):
        match x:
            case Prim(op="floordiv", args=(number, Const(value=4))) if number == e:
                same[id(x)] = True
            case Axis(name) | Var(name=name):
                value = context.names[name]
                same[id(x)] = isinstance(value, Value) and value.lanes == 1
            case Guard() | Random():
                same[id(x)] = False
            case Load(buffer=buffer) if buffer in context.private:
                same[id(x)] = False
            case _:
                same[id(x)] = all(same[id(y)] for y in walk.children(x))
    return all(same[id(x)] for x in counter)


def _rounds(b: Builder, low: Value, high: Value, key: Value) -> list[Value]:
    """Return the four words of a block per lane."""
    def halves(x: Value) -> tuple[Value, Value]:
        """Return the low and the high word of each i64."""
        return b.convert("trunc", x, "i32"), b.convert("trunc", x.logical_shift(32), "i32")

    # A loop: written out, ten rounds would take most of a kernel's compile time.
    with b.loop(b.i64(0), b.i64(ROUNDS), 1, [*halves(low), *halves(high), *halves(key)]) as loop:
        c0, c1, c2, c3, k0, k1 = loop.carried
        (low0, high0), (low2, high2) = (halves(b.convert("zext", c, "i64") * m)
                                        for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        loop.next = [high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0, k0 + KEY_STEPS[0], k1 + KEY_STEPS[1]]
    return loop.results[:4]


@lru_cache(maxsize=64)
def _word(target: Target, lanes: int) -> tuple[str, Module]:
    module = Module(target)
    name = f"philox.{Builder.mangle('i32', lanes)}"
    b = Builder(module, name, [(p, "i64", lanes) for p in ("low", "high", "key", "lane")], type_of("i32", lanes),
                linkage="internal", attributes="")
    low, high, key, lane = b.parameters
    c0, c1, c2, c3 = _rounds(b, low, high, key)
    odd, upper = (lane & 1).ne(0), (lane & 2).ne(0)
    b.ret(b.select(upper, b.select(odd, c3, c2), b.select(odd, c1, c0)))
    b.finish()
    return name, module


@lru_cache(maxsize=64)
def _words(target: Target, blocks: int) -> tuple[str, Module]:
    module = Module(target)
    name = f"philox.blocks.{Builder.mangle('i32', blocks)}"
    b = Builder(module, name, [(p, "i64", blocks) for p in ("low", "high", "key")], type_of("i32", 4 * blocks),
                linkage="internal", attributes="")
    c = _rounds(b, *b.parameters)
    if blocks == 1:
        result = b.poison("i32", 4)
        for n, value in enumerate(c):
            result = b.insert(result, value, n)
    else:
        halves = [b.shuffle(x, y, range(2 * blocks)) for x, y in (c[:2], c[2:])]
        result = b.shuffle(halves[0], halves[1], [n * blocks + block for block in range(blocks) for n in range(4)])
    b.ret(result)
    b.finish()
    return name, module
