"""Starting: what a process imports and compiles, with an empty and with a warm cache; one program for all batches."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.compiler import store_in

ROOT = Path(tf.__file__).parent.parent
COMPILERS = ("llvmlite", "numba", "networkx")

TRAINING = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "models")!r})
import numpy as np
import mlp
import graphc as tf
from graphc.compiler import store_in

model = mlp.build(784, 10, mean=0.13, std=0.31)
rng = np.random.default_rng(0)
x, y = rng.random((128, 784), np.float32), rng.integers(0, 10, 128, np.int32)
with tf.Session(graph=model.graph) as session:
    session.run(model.initializer)
    losses = [float(session.run([model.loss, model.train], {{model.x: x, model.y: y}})[0]) for _ in range(3)]
    store = store_in(session.options.cache_path)
print(json.dumps([losses, store.misses, [name for name in {COMPILERS!r} if name in sys.modules]]))
"""


def process(script: str, folder: Path) -> Any:
    """What a fresh process prints, as JSON, with its cache in `folder`."""
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_process_compiles_nothing_and_imports_no_compiler(tmp_path: Path) -> None:
    first, second = process(TRAINING, tmp_path), process(TRAINING, tmp_path)
    losses, missed, imported = first
    assert missed > 0 and "llvmlite" in imported and "numba" not in imported
    assert second == [losses, 0, []]
    assert losses[2] < losses[0]


@pytest.mark.parametrize("name", ["graphc", "graphc.api"])
def test_importing_loads_no_compiler(tmp_path: Path, name: str) -> None:
    script = f"import json, sys, {name}; print(json.dumps([n for n in {COMPILERS!r} if n in sys.modules]))"
    assert process(script, tmp_path) == []


def test_importing_graphc_alone_loads_nothing_else(tmp_path: Path) -> None:
    script = "import json, sys, graphc\n" \
             "print(json.dumps([n for n in sys.modules if n.startswith(('graphc.', 'numpy'))]))"
    assert process(script, tmp_path) == []


PEAK = """
import json, pathlib, re, sys
sys.path.insert(0, sys.argv[1])
import {module}
{call}
print(json.dumps(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the kernel's account of memory")
def test_the_mlp_takes_less_than_150_mb_beyond_its_data(tmp_path: Path) -> None:
    """On data of MNIST's shape.  The peak is the process image's own: getrusage's counts the parent's before exec."""
    mnist = tmp_path / "data" / "mnist"
    mnist.mkdir(parents=True)
    rng = np.random.default_rng()
    for part, rows in (("train", 60_000), ("t10k", 10_000)):
        (mnist / f"{part}-images-idx3-ubyte").write_bytes(bytes(16) + rng.bytes(rows * 784))
        (mnist / f"{part}-labels-idx1-ubyte").write_bytes(bytes(8) + rng.integers(0, 10, rows, np.uint8).tobytes())
    data = repr(str(mnist.parent))
    loaded = peak("real_data", f"data = real_data.digits({data})", tmp_path)
    trained = peak("mlp", f"mlp.main(['--epochs', '1', '--data', {data}])", tmp_path)
    assert 200 < loaded and trained - loaded < 150


def peak(module: str, call: str, folder: Path) -> float:
    """The peak memory, in MB, of a fresh process that imports a module of models/ and does `call`."""
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PEAK.format(module=module, call=call), str(ROOT / "models")],
                          env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def test_all_batches_use_one_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    rng = np.random.default_rng()
    with tf.Graph().as_default():
        x, y = tf.placeholder(tf.float32, [None, 20], "x"), tf.placeholder(tf.int32, [None], "y")
        w = tf.get_variable("w", initializer=rng.standard_normal((20, 5)).astype(np.float32))
        logits = tf.matmul(x, w)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        train = tf.train.AdamOptimizer(0.01).minimize(loss)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            store = store_in(session.options.cache_path)
            asked = []
            for n in (128, 1, 7, 10_000, 128):
                rows, classes = rng.random((n, 20), np.float32), rng.integers(0, 5, n, np.int32)
                weights = session.run(w)
                told = session.run([loss, train], {x: rows, y: classes})[0]
                scores = rows.astype(np.float64) @ weights
                scores -= scores.max(1, keepdims=True)
                want = np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(n), classes])
                np.testing.assert_allclose(told, want, rtol=1e-5)
                asked.append(store.hits + store.misses)
    assert len(set(asked)) == 1, "a batch of another size was compiled again"
