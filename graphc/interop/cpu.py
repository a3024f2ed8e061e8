"""What an x86-64 processor can do, asked by native code.

Owns the places of processor features in what the cpuid instruction tells.  Knows LLVM's names of features; must not
know what is compiled for them.  Invariant: a feature of the vector registers counts only where the operating system
keeps these registers.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID, and volume 1, 13.3 (XCR0).
"""
from __future__ import annotations

from collections.abc import Iterable

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.interop.messages import leave

_EAX, _EBX, _ECX, _EDX = range(4)
_AVX_STATE, _AVX512_STATE = 0x6, 0xE6  # bits of XCR0
_OSXSAVE = (1, 0, _ECX)  # the bit of xgetbv is here

_LEAVES = {
    (1, 0, _ECX): {"sse3": 0, "pclmul": 1, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20, "movbe": 22,
                   "popcnt": 23, "aes": 25, "xsave": 26, "avx": 28, "f16c": 29, "rdrnd": 30},
    (7, 0, _EBX): {"bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "rdseed": 18, "adx": 19,
                   "avx512ifma": 21, "avx512cd": 28, "sha": 29, "avx512bw": 30, "avx512vl": 31},
    (7, 0, _ECX): {"avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "vaes": 9, "vpclmulqdq": 10, "avx512vnni": 11,
                   "avx512bitalg": 12, "avx512vpopcntdq": 14},
    (7, 0, _EDX): {"avx512vp2intersect": 8, "avx512fp16": 23},
    (7, 1, _EAX): {"avxvnni": 4, "avx512bf16": 5, "avxifma": 23},
    (0x80000001, 0, _ECX): {"sahf": 0, "lzcnt": 5, "sse4a": 6, "xop": 11, "fma4": 16, "tbm": 21},
}


CODE = {
    # void cpuid(int32 leaf, int32 subleaf, int32 told[4])
    "cpuid": bytes.fromhex("53"          # push rbx
                           "4989d0"      # mov  r8, rdx
                           "89f8"        # mov  eax, edi
                           "89f1"        # mov  ecx, esi
                           "0fa2"        # cpuid
                           "418900"      # mov  [r8], eax
                           "41895804"    # mov  [r8 + 4], ebx
                           "41894808"    # mov  [r8 + 8], ecx
                           "4189500c"    # mov  [r8 + 12], edx
                           "5bc3"),      # pop  rbx; ret
    # int32 saved_registers(void)
    "saved_registers": bytes.fromhex("31c9"     # xor  ecx, ecx
                                     "0f01d0"   # xgetbv
                                     "c3"),     # ret
}
"""Machine code by symbol, for instructions that LLVM takes as assembly alone, which llvmlite cannot read everywhere."""


def write_cpu_check(module: Module, features: Iterable[str]) -> None:
    """Define i1 @cpu_can(): whether the processor has those of `features` ("+avx2", "-xop") that are known here."""
    wanted = {f[1:] for f in features if f[0] == "+"}
    masks = {leaf: sum(1 << bit for name, bit in bits.items() if name in wanted) for leaf, bits in _LEAVES.items()}
    b = Builder(module, "cpu_can", (), "i1", linkage="internal")
    b.declare("cpuid", "void", ["i32", "i32", "ptr"])
    asked: dict[tuple[int, int], Value] = {}
    for (leaf, subleaf, register), mask in masks.items():
        if mask:
            _require(b, asked, leaf, subleaf, register, mask)
    if "avx" in wanted:  # are its registers saved when threads change?
        _require(b, asked, *_OSXSAVE, 1 << 27)
        b.declare("saved_registers", "i32", [])
        state = _AVX512_STATE if "avx512f" in wanted else _AVX_STATE
        leave(b, (b.call("saved_registers", ("i32", 1)) & state).ne(state), b.const(0, "i1"))
    b.ret(b.const(1, "i1"))
    b.finish()


def _require(b: Builder, asked: dict[tuple[int, int], Value], leaf: int, subleaf: int, register: int,
             mask: int) -> None:
    """Leave with false unless all bits of `mask` are set; those of a leaf that the processor does not have are not."""
    for key in ((leaf & 0x80000000, 0), (leaf, subleaf)):
        if key not in asked:
            asked[key] = b.alloca("i32", count=4)
            b.line(f"call void @cpuid({', '.join(b.const(k, 'i32').typed for k in key)}, {asked[key].typed})")
    last = b.load(asked[leaf & 0x80000000, 0], "i32")
    told = b.load(b.at(asked[leaf, subleaf], b.i64(register), "i32"), "i32")
    leave(b, last.compare("ult", leaf) | (told & mask).ne(b.const(mask, "i32")), b.const(0, "i1"))
