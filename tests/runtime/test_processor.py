"""What this processor is, and whether code for another runs here."""

from __future__ import annotations

import platform
import sys

import pytest

from graphc.backends.llvm_cpu.codegen import host_target
from graphc.kernel.target import NAMED
from graphc.runtime.processor import flags, machine, needed_flags

LINUX_X86 = sys.platform == "linux" and platform.machine() == "x86_64"


def test_levels_contain_each_other() -> None:
    levels = [set(needed_flags(NAMED[name].features)[0]) for name in ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")]
    assert levels[0] < levels[1] < levels[2] < levels[3]
    assert {"sse4_2", "popcnt", "pni", "lahf_lm"} <= levels[1] and {"avx2", "abm", "bmi1", "fma"} <= levels[2]
    assert all(not needed_flags(NAMED[name].features)[1] for name in NAMED if name.startswith("x86"))


def test_features_without_a_flag_are_told() -> None:
    assert needed_flags(("+avx2", "-avx512f", "+rdseed", "+egpr", "+lzcnt")) == (("abm", "avx2"), ("egpr",))


@pytest.mark.skipif(not LINUX_X86, reason="Linux lists the features of x86 processors")
def test_code_for_this_processor_runs_on_it() -> None:
    found, unproven = needed_flags(host_target().features)
    assert set(found) <= flags() and unproven == ()
    assert "flags" in machine() and machine() == machine()
