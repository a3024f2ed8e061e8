"""The llvm_cpu backend: kernels to relocatable objects through LLVM.

Owns `LlvmCpu`, the light pass pipeline, the names of compiled functions and the description of this
machine.  The only module of graphc that imports llvmlite; whoever can do without compiling (a warm cache)
must not import it.  Invariant: a function's name is a hash of its text, its target, and LLVM's version, so
equal names mean equal code.
"""
from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from graphc.backends.base import CompiledKernels, KernelInfo
from graphc.backends.llvm_cpu import function
from graphc.backends.llvm_cpu.function import Rendered
from graphc.errors import BackendError
from graphc.kernel import schedule, target
from graphc.kernel.ir import Kernel
from graphc.kernel.target import Target
from graphc.options import Options

VERSION = ".".join(map(str, llvm.llvm_version_info))
# LLVM's code generator at its second level of four: a fifth less time than the third, and the same speed of
# explicit vector code.  The passes before it are those that such code needs.
LEVEL = 1
PASSES = ("always_inliner", "sroa", "instruction_combine", "simplify_cfg")


class LlvmCpu:
    """Compiles kernels for x86-64 and aarch64.  The latest texts are kept, so that asking for a kernel's
    name and then compiling it renders once."""

    name = "llvm_cpu"
    KEPT = 1024

    def __init__(self) -> None:
        # By identity: hashing a kernel recurses as deep as its expressions nest.
        self._texts: dict[tuple[int, Target], tuple[Kernel, Rendered]] = {}

    def _rendered(self, kernel: Kernel, machine: Target) -> Rendered:
        key = id(kernel), machine
        if key not in self._texts:
            if len(self._texts) >= self.KEPT:
                self._texts.pop(next(iter(self._texts)), None)
            rendered = function.render(kernel, schedule.schedule(kernel, machine), machine)
            self._texts[key] = kernel, rendered
            return rendered
        return self._texts[key][1]

    def target(self, options: Options) -> Target:
        """Return the machine that `options.target` names.  Raises ValueError for an unknown name."""
        return host_target() if options.target == "host" else target.named(options.target)

    def llvm_text(self, kernel: Kernel, machine: Target) -> str:
        """Return a kernel as LLVM IR, as it is handed to LLVM."""
        rendered = self._rendered(kernel, machine)
        return rendered.text.replace(f"@{function.NAME}(", f"@{_symbol(rendered, machine)}(", 1)

    def assembly(self, kernel: Kernel, machine: Target) -> str:
        """Return a kernel's machine code as assembly text."""
        text = _machine(machine).emit_assembly(_optimised(self.llvm_text(kernel, machine), machine))
        return str(text)

    def info(self, kernel: Kernel, machine: Target) -> KernelInfo:
        """Return a kernel's name and launch data without compiling it."""
        r = self._rendered(kernel, machine)
        return KernelInfo(_symbol(r, machine), r.extent, r.grain, r.scratch, r.cost)

    def key(self, kernel: Kernel, options: Options) -> str:
        """Return the name of a kernel's function: the content address of its machine code."""
        return self.info(kernel, self.target(options)).symbol

    def object_code(self, kernel: Kernel, machine: Target) -> bytes:
        """Return the relocatable object that defines a kernel's function.  Raises BackendError."""
        try:
            return bytes(_machine(machine).emit_object(_optimised(self.llvm_text(kernel, machine), machine)))
        except RuntimeError as error:
            raise BackendError(f"kernel {kernel.name}: LLVM refuses its code: {error}") from error

    def compile(self, kernels: Sequence[Kernel], options: Options) -> CompiledKernels:
        """Compile `kernels`, equal ones once.  Raises BackendError, naming the kernel."""
        machine = self.target(options)
        infos = tuple(self.info(k, machine) for k in kernels)
        first = {info.symbol: kernel for info, kernel in zip(reversed(infos), reversed(kernels), strict=True)}
        return CompiledKernels(infos, tuple(self.object_code(first[s], machine) for s in sorted(first)))


def _symbol(rendered: Rendered, machine: Target) -> str:
    """Return the content address of a rendered kernel as a C identifier."""
    content = "\0".join((rendered.text, machine.cpu, *machine.features, VERSION, str(LEVEL), *PASSES))
    return "k_" + hashlib.sha256(content.encode()).hexdigest()[:16]


@cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@lru_cache(maxsize=16)
def _machine(machine: Target) -> Any:
    _initialise()
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=",".join(machine.features), opt=LEVEL, reloc="pic", codemodel="default")


def _optimised(text: str, machine: Target) -> Any:
    """Return a parsed module after the few passes that explicit vector code needs."""
    backend = _machine(machine)
    module = llvm.parse_assembly(text)
    module.data_layout = str(backend.target_data)
    builder = llvm.create_pass_builder(backend, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    return module


# ---------------------------------------------------------------------------------------------


@cache
def host_target() -> Target:
    """Return this machine: its features as LLVM finds them, its data caches as the kernel reports them."""
    _initialise()
    features = [("+" if on else "-") + name for name, on in llvm.get_host_cpu_features().items()]
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    triple = f"{arch}-unknown-linux-gnu" if platform.system() == "Linux" else llvm.get_default_triple()
    found = Target.from_features(triple, llvm.get_host_cpu_name(), features)
    return replace(found, **_caches(Path("/sys/devices/system/cpu/cpu0/cache")))


def _caches(folder: Path) -> dict[str, Any]:
    """Return the bytes of the data caches listed in `folder`; empty where it does not exist."""
    found: dict[str, Any] = {}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for entry in sorted(folder.glob("index*")):
        kind, level, size = ((entry / n).read_text().strip() for n in ("type", "level", "size"))
        if kind != "Instruction" and level in "123":
            found[f"l{level}"] = int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)
    return found
