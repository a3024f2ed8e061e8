"""Commands are called in this process, in an empty folder, with no GRAPHC_* variable but a cache of their own."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from graphc.cli import main

MODEL = """
import graphc as tf

if __name__ == "__main__":
    raise SystemExit("the main part ran")

x = tf.placeholder(tf.float32, [None, 6], name="x")
with tf.variable_scope("first"):
    h = tf.layers.dense(x, 5, tf.nn.tanh, kernel_initializer=tf.initializers.constant(0.25), name="dense")
with tf.variable_scope("second"):
    logits = tf.layers.dense(h, 3, kernel_initializer=tf.initializers.constant(0.5), name="dense")
best = tf.argmax(logits, axis=1, name="best")
tf.signature(inputs={"rows": x}, outputs={"logits": logits, "best": best})
"""


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """What `graphc run` changes of its process is as before."""
    environment, path, arguments = dict(os.environ), list(sys.path), list(sys.argv)
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:], sys.argv[:] = path, arguments


@pytest.fixture(autouse=True)
def folder(process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [n for n in os.environ if n.startswith("GRAPHC_") or n == "NO_COLOR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Path:
    """A model file of two dense layers, 6 to 5 to 3."""
    file = Path("model.py")
    file.write_text(MODEL)
    return file


Graphc = Callable[..., Result]


@pytest.fixture
def graphc(monkeypatch: pytest.MonkeyPatch) -> Graphc:
    """Run `graphc` with arguments; `code` is the exit code it must have."""
    def run(*arguments: Any, code: int = 0, given: str = "") -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments], input=given, prog_name="graphc")
        assert result.exit_code == code, result.output + repr(result.exception)
        return result
    return run
