"""The exercise of adding an op: Softsign is taken out of a copy of the package and put back, which touches one file."""
from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import graphc

PACKAGE = Path(graphc.__file__).parent
NAME = "Softsign"
FILE = Path("ops") / "nn.py"

RUN = """
import numpy as np
import graphc as tf
from graphc.ops.base import all_ops
from graphc.options import Options
names = [n for n in all_ops() if n.startswith("Softsign")]
print(*names)
x = tf.constant(np.array([-1.0, 0.0, 3.0], np.float32))
y = tf.nn.relu(x) if not names else tf.gradients(tf.nn.softsign(x), x)[0]
with tf.Session() as session:
    session.options = Options(cache_dir="")
    print(*session.run(y))
"""


def told(folder: Path) -> list[str]:
    """What a program prints that runs on the package in `folder`."""
    done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def without(text: str, name: str) -> tuple[str, str]:
    """The text of a module less its top-level statements that are about the op `name`, and those statements."""
    lines = text.splitlines(keepends=True)
    gone: set[int] = set()
    for statement in ast.parse(text).body:
        words = {n.value for n in ast.walk(statement) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        own = isinstance(statement, ast.FunctionDef) and statement.name.startswith(f"_{name.lower()}")
        if own or (isinstance(statement, ast.Expr) and {name, f"{name}Grad"} & words):
            assert statement.end_lineno is not None
            gone.update(range(statement.lineno - 1, statement.end_lineno))
    return ("".join(s for i, s in enumerate(lines) if i not in gone), "".join(lines[i] for i in sorted(gone)))


def test_an_op_lives_in_one_file(tmp_path: Path) -> None:
    copy = tmp_path / "graphc"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = {p: p.read_bytes() for p in copy.rglob("*.py")}
    less, op = without((copy / FILE).read_text(), NAME)
    assert op.count("Softsign") >= 2
    (copy / FILE).write_text(less)
    assert told(tmp_path) == ["", "0.0 0.0 3.0"]
    (copy / FILE).write_text(f"{less}\n\n{op}")
    assert told(tmp_path) == ["Softsign SoftsignGrad", "0.25 1.0 0.0625"]
    assert [p for p, text in before.items() if p.read_bytes() != text] == [copy / FILE]


def test_nothing_below_the_ops_knows_an_op_of_that_kind_by_name() -> None:
    """But for the tables of interop, which name the ops of other programs."""
    known = [p.relative_to(PACKAGE) for p in sorted(PACKAGE.rglob("*.py"))
             if PACKAGE / "interop" not in p.parents and any(
                 isinstance(n, ast.Constant) and n.value in (NAME, f"{NAME}Grad")
                 for n in ast.walk(ast.parse(p.read_text())))]
    assert known == [Path("dsl") / "nn.py", FILE]  # the second is the op, the first its public function
