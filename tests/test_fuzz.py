"""Random programs (tools/fuzz.py), compiled against the oracle: a short slice always, a long one nightly.

The seeds are fixed: what fails here is shrunk and printed by `python tools/fuzz.py --seed SEED --count 1 --backend B`.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc as tf


def load_tool() -> ModuleType:
    """Return tools/fuzz.py as a module; tools are no package."""
    path = Path(__file__).resolve().parent.parent / "tools" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = load_tool()
programs = sys.modules["tools.random_programs"]  # what it imports
Program, Statement, Run, Generator = programs.Program, programs.Statement, programs.Run, programs.Generator
SLICE = {"llvm_cpu": range(40), "interp": range(1000, 1004)}
NIGHTLY = {"llvm_cpu": range(10_000, 12_000), "interp": range(20_000, 20_100), "numba_cpu": range(30_000, 30_020)}


def sound(seed: int, backend: str) -> None:
    """Fail where the program of a seed is not what the oracle computes."""
    try:
        fuzz.check(Generator(seed).program(), backend)
    except Exception as error:
        raise AssertionError(f"python tools/fuzz.py --seed {seed} --count 1 --backend {backend}") from error


@pytest.mark.parametrize("backend", SLICE)
def test_programs_are_what_the_oracle_computes(backend: str) -> None:
    for seed in SLICE[backend]:
        sound(seed, backend)


@pytest.mark.nightly
@pytest.mark.parametrize("backend", NIGHTLY)
def test_many_programs(backend: str) -> None:
    for seed in NIGHTLY[backend]:
        sound(seed, backend)


def test_a_seed_is_a_program() -> None:
    assert Generator(7).program() == Generator(7).program() != Generator(8).program()


def test_wrong_results_are_found_and_rounding_is_not() -> None:
    """One unit of last place is within the spread of the disturbed oracle, a lost term is not."""
    statements = (
        Statement("x0", "x0 = tf.placeholder(tf.float32, [None, 5])", (), "float32", ("N", 5), 5),
        Statement("t1", "t1 = tf.reduce_sum(tf.tanh(x0), 1)", ("x0",), "float32", ("N",)),
    )
    program = Program(statements, (Run(("t1",), (), {"N": 7, "M": 1}),))
    want = fuzz.results(program, fuzz.OracleSession)
    near = [[np.nextafter(want[0][0], np.float32(9))]]
    assert fuzz.compare(program, near, want, fuzz.SAMPLES) == ""
    wrong = want[0][0].copy()
    wrong[3] += 1e-3
    assert "1 of 7 are wrong; at [3]" in fuzz.compare(program, [[wrong]], want, fuzz.SAMPLES)


def test_failures_are_shrunk() -> None:
    """A program that fails wherever it has a cosine becomes that cosine alone, as a script that runs."""

    def fails(program: Any) -> BaseException | None:
        return fuzz.Difference("a cosine") if any("cos" in s.text for s in program.statements) else None

    program = Generator(3).program()
    before = program.statements[0].name
    more = Statement(
        "t900", f"t900 = tf.cos({before})", (before,), program.statements[0].dtype, program.statements[0].shape
    )
    after = Statement("t901", "t901 = tf.sin(t900)", ("t900",), more.dtype, more.shape)
    program = replace(
        program, statements=(*program.statements, more, after), runs=(Run(("t901",), (), {"N": 2, "M": 1}),)
    )
    small, _ = fuzz.shrink(program, fuzz.Difference("a cosine"), fails)
    assert [s.text for s in small.statements if "cos" in s.text] == [more.text] and len(small.statements) == 2
    names: dict[str, object] = {}
    with tf.Graph().as_default():
        exec(fuzz.script(small, "interp"), names)
