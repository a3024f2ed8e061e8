"""This processor, as the system describes it, and whether machine code for another can run on it.

Owns the list of what Linux calls the features of LLVM.  Knows nothing of kernels; needs no LLVM.
Invariant: code is said to run here only where every instruction that LLVM may have chosen for it is known to be here.
"""
from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_FLAGS = {
    "64bit": "lm", "bmi": "bmi1", "crc32": "sse4_2", "lzcnt": "abm", "pclmul": "pclmulqdq", "prfchw": "3dnowprefetch",
    "sahf": "lahf_lm", "sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "avxvnni": "avx_vnni",
    "avx512bf16": "avx512_bf16", "avx512bitalg": "avx512_bitalg", "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni", "avx512vpopcntdq": "avx512_vpopcntdq",
} | {name: name for name in (
    "adx", "aes", "avx", "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512ifma", "avx512vbmi", "avx512vl",
    "bmi2", "cmov", "cx16", "cx8", "f16c", "fma", "fma4", "fxsr", "gfni", "mmx", "movbe", "popcnt", "sse", "sse2",
    "sse4a", "ssse3", "tbm", "vaes", "vpclmulqdq", "xop")}
"""LLVM's features whose instructions it may choose by itself, and the flag of /proc/cpuinfo that tells of each."""

_ASKED_FOR = frozenset((
    "avx512vp2intersect", "cldemote", "clflushopt", "clwb", "clzero", "enqcmd", "fsgsbase", "invpcid", "movdir64b",
    "mwaitx", "pconfig", "pku", "ptwrite", "rdpid", "rdpru", "rdrnd", "rdseed", "rtm", "serialize", "sgx", "sha",
    "sha512", "shstk", "tsxldtrk", "uintr", "waitpkg", "wbnoinvd", "xsave", "xsavec", "xsaveopt", "xsaves"))
"""Features whose instructions stand only in code that asks for them by name, as graphc's never does."""


@cache
def machine() -> str:
    """Return a text that tells this processor from others: architecture, model and features."""
    words = ("model name", "flags", "Features", "CPU part")
    told = list(dict.fromkeys(line for line in _cpuinfo() if line.split(":")[0].strip() in words))
    # platform.processor() starts a process, 5 ms of every start: asked only where the system's own list says nothing
    return "\n".join([platform.machine(), *(told or [platform.processor()])])


@cache
def flags() -> frozenset[str]:
    """Return the flags that Linux lists of this processor; none on other systems."""
    return frozenset(word for line in _cpuinfo() if line.split(":")[0].strip() == "flags"
                     for word in line.partition(":")[2].split())


def needed_flags(features: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the flags that code for a processor with these features of LLVM ("+avx2", "-xop") needs, and the features
    that no flag is known for: code that may use one runs on the very processor alone that it was compiled on."""
    on = [f[1:] for f in features if f.startswith("+")]
    known = sorted({_FLAGS[f] for f in on if f in _FLAGS})
    return tuple(known), tuple(sorted(f for f in on if f not in _FLAGS and f not in _ASKED_FOR))


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
