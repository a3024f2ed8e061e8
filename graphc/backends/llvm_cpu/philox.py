"""Random words: Philox 4x32-10 as a helper function of vectors.

Owns the generator's code.  Knows the text builder only.  Invariant: word and block are those of the
reference (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whatever the lanes.
"""
from __future__ import annotations

from functools import lru_cache

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.kernel.target import Target

MULTIPLIERS, KEY_STEPS, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


def word(b: Builder, low: Value, high: Value, key: Value, lane: Value) -> Value:
    """Return word `lane` (i64, 0..3) of the block with counter (low, high) and `key` (all i64)."""
    lanes = max(v.lanes for v in (low, high, key, lane))
    name, module = _compiled(b.target, lanes)
    b.module.take(module)
    return b.call(name, ("i32", lanes), *(b.splat(v, lanes) for v in (low, high, key, lane)))


@lru_cache(maxsize=64)
def _compiled(target: Target, lanes: int) -> tuple[str, Module]:
    module = Module(target)
    name = f"philox.{Builder.mangle('i32', lanes)}"
    b = Builder(module, name, [(p, "i64", lanes) for p in ("low", "high", "key", "lane")],
                f"<{lanes} x i32>" if lanes > 1 else "i32", linkage="internal", attributes="")
    low, high, key, lane = b.parameters

    def halves(x: Value) -> tuple[Value, Value]:
        """Return the low and the high word of each i64."""
        return b.convert("trunc", x, "i32"), b.convert("trunc", x.logical_shift(32), "i32")

    # A loop: written out, ten rounds would take most of a kernel's compile time.
    with b.loop(b.i64(0), b.i64(ROUNDS), 1, [*halves(low), *halves(high), *halves(key)]) as loop:
        c0, c1, c2, c3, k0, k1 = loop.carried
        (low0, high0), (low2, high2) = (halves(b.convert("zext", c, "i64") * m)
                                        for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        loop.next = [high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0, k0 + KEY_STEPS[0], k1 + KEY_STEPS[1]]
    c0, c1, c2, c3, *_ = loop.results
    odd, upper = (lane & 1).ne(0), (lane & 2).ne(0)
    b.ret(b.select(upper, b.select(odd, c3, c2), b.select(odd, c1, c0)))
    b.finish()
    return name, module
