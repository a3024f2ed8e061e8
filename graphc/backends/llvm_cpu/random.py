"""Random words: Philox 4x32-10 as helper functions of vectors.

Owns the generator's code and the recognition of vectors that take whole blocks.  Invariant: word and
block are those of the reference (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
whatever the lanes.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from graphc.backends.llvm_cpu.builder import Builder, Module, Value, type_of
from graphc.kernel.target import Target

MULTIPLIERS, KEY_STEPS, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


def word(b: Builder, low: Value, high: Value, key: Value, lane: Value) -> Value:
    """Return word `lane` (i64, 0..3) of the block with counter (low, high) and `key` (all i64)."""
    lanes = max(v.lanes for v in (low, high, key, lane))
    name, module = _word(b.target, lanes)
    b.module.take(module)
    return b.call(name, ("i32", lanes), *(b.splat(v, lanes) for v in (low, high, key, lane)))


def words(b: Builder, low: Value, high: Value, key: Value, taken: Sequence[int]) -> Value:
    """Return in lane n word taken[n] of the block of lane n, for counters and keys that are uniform or have
    equal values in each group of four lanes: each block is computed once."""
    lanes = len(taken)
    blocks = lanes // 4
    first = [v if v.lanes == 1 else b.shuffle(v, None, range(0, lanes, 4)) for v in (low, high, key)]
    name, module = _words(b.target, blocks)
    b.module.take(module)
    result = b.call(name, ("i32", lanes), *(b.splat(v, blocks) for v in first))
    order = [n // 4 * 4 + word for n, word in enumerate(taken)]
    return result if order == list(range(lanes)) else b.shuffle(result, None, order)


class Groups:
    """What is known of vectors in groups of four lanes, which share a block of random words.

    Numbers e = multiple of 4 + lane, and e & -2 or e | 1, run through the words of blocks e // 4; what
    depends on e // 4 alone is the same in each group.
    """

    def __init__(self) -> None:
        self._words: dict[str, list[int]] = {}  # by a value's name: the value modulo 4 in each lane
        self._alike: set[str] = set()  # names of values that are the same in each group

    def counts(self, value: Value) -> None:
        """Note that `value` is a multiple of 4 + lane."""
        self._words[value.text] = [n % 4 for n in range(value.lanes)]

    def note(self, op: str, args: Sequence[Value], result: Value) -> None:
        """Note what follows for the result of a primitive."""
        taken = self._words.get(args[0].text)
        by = args[1].constant if len(args) == 2 else None
        if taken is not None and by is not None:
            match op, by:
                case ("shr", 2) | ("floordiv", 4):
                    self._alike.add(result.text)
                case ("and", 3) | ("floormod", 4):
                    self._words[result.text] = taken
                case ("and", _) if by < 0 and by | 3 == -1:
                    self._words[result.text] = [n & by & 3 for n in taken]
                case ("or", _) if 0 <= by <= 3:
                    self._words[result.text] = [n | by for n in taken]
        if all(self._is_alike(x) for x in args):
            self._alike.add(result.text)

    def taken(self, counter: Sequence[Value], lane: Value) -> list[int] | None:
        """Return the word that each lane takes of its group's block, or None where groups share no block."""
        return self._words.get(lane.text) if all(self._is_alike(x) for x in counter) else None

    def _is_alike(self, x: Value) -> bool:
        return x.lanes == 1 or x.text in self._alike


def _rounds(b: Builder, low: Value, high: Value, key: Value) -> list[Value]:
    """Return the four words of a block per lane.

    Words stay in 64-bit lanes, whose upper halves are of no account: a round is then multiply, shift and
    two xors, with nothing to convert between.
    """
    def upper(x: Value) -> Value:
        return x.logical_shift(32)

    # A loop: written out, ten rounds would take most of a kernel's compile time.
    with b.loop(b.i64(0), b.i64(ROUNDS), 1, [low, upper(low), high, upper(high), key, upper(key)]) as loop:
        c0, c1, c2, c3, k0, k1 = loop.carried
        p0, p2 = ((c & 0xFFFFFFFF) * m for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        loop.next = [upper(p2) ^ c1 ^ k0, p2, upper(p0) ^ c3 ^ k1, p0, k0 + KEY_STEPS[0], k1 + KEY_STEPS[1]]
    return [b.convert("trunc", c, "i32") for c in loop.results[:4]]


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
