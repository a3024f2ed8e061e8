"""The driver's code: valid on every platform that it describes."""
from __future__ import annotations

import dataclasses

import llvmlite.binding as llvm
import pytest

from graphc.runtime.driver import IMPORTS, driver_text
from graphc.runtime.waiting import Platform

X86 = Platform(202, "call void @llvm.x86.sse2.pause()", 1, 0, "declare void @llvm.x86.sse2.pause()")
ARM = Platform(98, "call void @llvm.aarch64.hint(i32 1)", 1, 0, "declare void @llvm.aarch64.hint(i32)")
OTHER = Platform(None, "fence seq_cst", 6, 1)


@pytest.mark.parametrize(("where", "triple"), [
    (X86, "x86_64-unknown-linux-gnu"), (ARM, "aarch64-unknown-linux-gnu"), (OTHER, "aarch64-apple-darwin"),
    (dataclasses.replace(X86, futex=None), "x86_64-unknown-linux-gnu"),
])
def test_the_driver_assembles(where: Platform, triple: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=2, reloc="pic", codemodel="default")
    module = llvm.parse_assembly(driver_text(where))
    module.triple, module.data_layout = triple, str(machine.target_data)
    module.verify()
    assert machine.emit_object(module)
    undefined = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    assert undefined <= set(IMPORTS)


def test_this_machine_is_described() -> None:
    assert Platform.host().block_signals in (0, 1)


def test_platforms_are_described_by_name() -> None:
    assert Platform.of("linux", "x86_64") == X86 and Platform.of("linux", "aarch64") == ARM
    assert Platform.of("darwin", "riscv") == OTHER
    with pytest.raises(NotImplementedError, match="none on win32"):
        Platform.of("win32", "x86_64")


def test_without_python_the_driver_holds_no_data() -> None:
    module = llvm.parse_assembly(driver_text(X86, python=False))
    assert not list(module.global_variables)
    assert {f.name for f in module.functions if not f.is_declaration} >= {"graphc_run", "graphc_pool_new"}
    assert "graphc_enter" not in driver_text(X86, python=False)
