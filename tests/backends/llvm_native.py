"""Kernels that llvm_cpu compiled, loaded through LLVM's own linker and called in this process.

Owns `Native` and the list of targets that this machine runs.  Knows no plan and no thread pool.
"""
from __future__ import annotations

import llvmlite.binding as llvm

from graphc.backends.base import KernelInfo
from graphc.backends.llvm_cpu.codegen import LlvmCpu, host_target
from graphc.kernel import target
from graphc.kernel.ir import Kernel
from graphc.kernel.target import Target
from tests.backends import native
from tests.backends.harness import Arrays

BACKEND = LlvmCpu()


def runnable() -> dict[str, Target]:
    """Return the targets whose code this machine executes, by name."""
    host = host_target()
    same = [t for t in target.NAMED.values() if t.triple.split("-")[0] == host.triple.split("-")[0]]
    return {t.name: t for t in (host, *(t for t in same if set(t.features) <= set(host.features)))}


class Native:
    """Compiled kernels of one target, loaded.  Called like the `execute` of the harness."""

    def __init__(self, machine: Target) -> None:
        self.machine = machine
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._engine = llvm.create_mcjit_compiler(
            llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine())
        self._addresses: dict[str, int] = {}

    def load(self, kernel: Kernel) -> tuple[KernelInfo, int]:
        """Return a kernel's launch data and the address of its function."""
        info = BACKEND.info(kernel, self.machine)
        if info.symbol not in self._addresses:
            code = BACKEND.object_code(kernel, self.machine)
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self._engine.finalize_object()
            self._addresses[info.symbol] = self._engine.get_function_address(info.symbol)
        return info, self._addresses[info.symbol]

    def __call__(self, kernel: Kernel, arrays: Arrays, sizes: dict[str, int], claim: int = 0) -> int:
        """Run a kernel in place, `claim` work items per call (0: all in one); return its status."""
        info, address = self.load(kernel)
        return native.call(address, info, kernel, arrays, sizes, claim)
