"""Sample kernels around Random: Philox 4x32-10 words and uniforms made of them.

Owns the samples and an independent Philox on Python's integers, itself checked against the known
answers of the Random123 distribution.  Knows no backend.
"""
from __future__ import annotations

import numpy as np

from graphc.dtypes import float32, int64, uint32, uint64
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, For, Kernel, Load, Param, Random, Store, const, index, size
from graphc.kernel.primitives import cast, prim
from tests.backends.harness import Arrays, Sample, Sizes

N0 = symbol("n0")
i = Axis("i")
_MASK = (1 << 32) - 1


def philox(counter: int, key: int) -> list[int]:
    """Return the four words of Philox 4x32-10 at a 128-bit counter and a 64-bit key."""
    c = [(counter >> (32 * w)) & _MASK for w in range(4)]
    k0, k1 = key & _MASK, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & _MASK, (p0 >> 32) ^ c[3] ^ k1, p0 & _MASK]
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c


def _words() -> Sample:
    """word[i] = word i % 4 of block (state + i / 4): how random ops lay out their numbers."""
    block = prim("add", Load("state", (index(0),), uint64), cast(prim("floordiv", i, index(4)), uint64))
    word = Random(block, Load("state", (index(1),), uint64), Load("key", (), uint64), prim("floormod", i, index(4)))
    unit = prim("mul", cast(prim("shr", word, const(8, uint32)), float32), const(2.0 ** -24, float32))
    kernel = Kernel("random", (
        Param("state", uint64, (2,), "in"), Param("key", uint64, (), "in"), Param("word", uint32, (N0,), "out"),
        Param("unit", float32, (N0,), "out")), ("n0",),
        (For("i", size(N0), (Store("word", (i,), word), Store("unit", (i,), unit)), parallel=True),))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        return {"state": rng.integers(0, 1 << 63, 2, dtype=np.uint64),
                "key": np.asarray(rng.integers(0, 1 << 63, dtype=np.uint64))}

    def reference(a: Arrays, s: Sizes) -> dict[str, object]:
        low, high = (int(v) for v in a["state"])
        words = np.array([philox((low + t // 4) % (1 << 64) | high << 64, int(a["key"]))[t % 4]
                          for t in range(s["n0"])], np.uint32)
        return {"word": words, "unit": (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0 ** -24)}

    return Sample(kernel, inputs, reference, tuple({"n0": n} for n in (0, 1, 5, 64, 333)))


def _four() -> Sample:
    """All four words of one block per iteration: block[i, lane], the counter's high half in use."""
    lane = Axis("lane")
    word = Random(cast(i, uint64), const(3, uint64), const(0x0123456789ABCDEF, uint64), lane)
    kernel = Kernel("random_blocks", (Param("word", uint32, (N0, 4), "out"), Param("at", int64, (N0,), "out")), ("n0",),
                    (For("i", size(N0), (For("lane", index(4), (Store("word", (i, lane), word),), parallel=True),
                                         Store("at", (i,), i)), parallel=True),))
    return Sample(kernel, lambda rng, s: {}, lambda a, s: {
        "word": np.array([philox(t | 3 << 64, 0x0123456789ABCDEF) for t in range(s["n0"])],
                         np.uint32).reshape(-1, 4),
        "at": np.arange(s["n0"])}, tuple({"n0": n} for n in (0, 1, 9, 70)))


RANDOM_SAMPLES: tuple[Sample, ...] = (_words(), _four())
