"""What a machine is, as data: vector width, registers, caches.

Owns `Target` and the named processors.  Knows nothing of code generators: features are strings as
LLVM spells them, handed in by whoever asked the machine.  Invariant: a `Target` is plain frozen data;
equal targets give equal schedules and equal code.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.dtypes import DType

_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


@dataclass(frozen=True, slots=True)
class Target:
    """name: what the user asked for.  triple, cpu, features ("+avx2", "-avx512f", sorted): as LLVM wants
    them.  vector_bits: width of the registers that kernels use.  registers: how many of them.  has_fma:
    a fused multiply-add is one instruction.  l1, l2, l3: bytes of data cache (l2 per core, l3 shared)."""

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bits: int
    registers: int
    has_fma: bool
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 8 << 20

    @classmethod
    def from_features(cls, triple: str, cpu: str, features: Iterable[str], name: str = "host",
                      l1: int = 32 << 10, l2: int = 512 << 10, l3: int = 8 << 20) -> Target:
        """Return the target with these LLVM features ("+x" or "x" on, "-x" off); the rest follows."""
        listed = tuple(sorted({f if f[:1] in "+-" else "+" + f for f in features}))
        on = {f[1:] for f in listed if f[0] == "+"}
        arch = triple.split("-")[0]
        if arch in ("aarch64", "arm64"):
            bits, registers, fma = 128, 32, True
        elif arch in ("x86_64", "amd64"):
            wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= on
            bits = 512 if wide else 256 if "avx2" in on else 128
            registers, fma = 32 if wide else 16, "fma" in on
        else:
            raise ValueError(f"no code is generated for {arch!r}; known: x86_64, aarch64")
        return cls(name, triple, cpu, listed, bits, registers, fma, l1, l2, l3)

    def lanes(self, dtype: DType) -> int:
        """Return how many elements of `dtype` one vector holds (half floats count as the float32 they
        are computed in)."""
        size = 4 if dtype.is_floating and dtype.size < 4 else dtype.size
        return self.vector_bits // (8 * size)


_V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

NAMED: dict[str, Target] = {t.name: t for t in (
    Target.from_features(_X86, "x86-64", (), "x86-64"),
    Target.from_features(_X86, "x86-64-v2", _V2, "x86-64-v2"),
    Target.from_features(_X86, "x86-64-v3", _V3, "x86-64-v3"),
    Target.from_features(_X86, "x86-64-v4", _V4, "x86-64-v4"),
    Target.from_features(_ARM, "generic", ("neon",), "aarch64"),
)}


def named(name: str) -> Target:
    """Return the processor called `name`.  Raises ValueError for a name that is not in `NAMED`."""
    if name not in NAMED:
        raise ValueError(f"unknown target {name!r}; known: host, {', '.join(NAMED)}")
    return NAMED[name]
