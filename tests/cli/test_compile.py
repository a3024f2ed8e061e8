"""`graphc compile` and `graphc run` of what it wrote, against the session."""
from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as tf
from graphc.model import load_model
from tests.cli.conftest import Graphc


def session_results(model: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    loaded = load_model(model)
    with tf.Session(graph=loaded.graph) as session:
        session.run(loaded.graph.get_collection("trainable_variables")[0].initializer)
        session.run([v.initializer for v in loaded.graph.get_collection("variables")])
        return tuple(session.run(list(loaded.signature.outputs.values()), {"x:0": rows}))


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_saved_program_equals_the_session(graphc: Graphc, model: Path, batch: int) -> None:
    rows = np.random.default_rng().standard_normal((batch, 6)).astype(np.float32)
    logits, best = session_results(model, rows)
    graphc("compile", model)
    np.save("rows.npy", rows)
    graphc("run", "model.gcx", "rows=rows.npy", "-o", "out.npz")
    with np.load("out.npz") as out:
        assert sorted(out.files) == ["best", "logits"]
        np.testing.assert_array_equal(out["logits"], logits)
        np.testing.assert_array_equal(out["best"], best)
    np.savez("in.npz", rows=rows)
    graphc("run", "-o", "out.npy", "--fetch", "best", "model.gcx", "in.npz")
    np.testing.assert_array_equal(np.load("out.npy"), best)
    told = json.loads(graphc("run", "model.gcx", f"rows={rows.tolist()}", "--json").stdout)
    np.testing.assert_array_equal(np.array(told["logits"], np.float32), logits)


def test_the_table(graphc: Graphc, model: Path, folder: Path) -> None:
    text = graphc("compile", model, "-o", "m.gcx", "--batch", "10").stdout
    rows = [(line[2:].split("  ")[0], line.split("  ", 2)[2].strip()) for line in text.splitlines()]
    told = dict(rows)
    assert [name for name, _ in rows] == ["input", "output", "output", "parameters", "nodes", "kernels", "batch 10",
                                          "compile time", "target", "written"]
    assert told["parameters"] == "53" and told["kernels"] == "3" and told["target"] == "host"
    assert told["input"] == "rows    float32 (None, 6)"
    assert told["written"].startswith("m.gcx, ") and (folder / "m.gcx").exists()


def test_json_and_timings(graphc: Graphc, model: Path, folder: Path) -> None:
    told = json.loads(graphc("compile", model, "--json", "--timings", "--batch", "2", "--batch", "8").stdout)
    assert told["bytes"] == (folder / "model.gcx").stat().st_size and told["files"] == ["model.gcx"]
    assert told["parameters"] == 53 and told["kernels"] == len(told["kernel_seconds"]) == 3
    assert [row["batch"] for row in told["by_batch"]] == [2, 8]
    assert told["by_batch"][1]["operations"] == 4 * told["by_batch"][0]["operations"]
    assert told["passes"][0]["nodes_before"] == told["nodes_before"]
    assert [p["name"] for p in told["passes"]][-2:] == ["fuse", "order"]
    text = graphc("compile", model, "--timings").stdout
    assert "\npasses\n" in text and "\nkernels, compiled anew\n" in text


def test_the_passes_are_dumped(graphc: Graphc, model: Path, folder: Path) -> None:
    graphc("compile", model, "--dump-passes", "out")
    (one,) = (folder / "out").iterdir()
    assert one.name == "001_second_dense_BiasAdd_best"
    names = {p.name for p in one.iterdir()}
    assert {"00_extract.gir", "kernels.txt", "kernels.py", "plan.txt", "timings.txt"} <= names


def test_a_shared_library(graphc: Graphc, model: Path, folder: Path) -> None:
    text = graphc("compile", model, "-o", "libmodel.so").stdout
    assert "libmodel.so, libmodel.h, " in text and "compile and link for host " in text
    assert ctypes.CDLL(str(folder / "libmodel.so")) and "model" in (folder / "libmodel.h").read_text()
    graphc("compile", model, "--format", "so")
    assert (folder / "model.so").exists()


def test_several_targets(graphc: Graphc, model: Path) -> None:
    told = json.loads(graphc("compile", model, "--target", "x86-64-v2", "--target", "x86-64-v3", "--json").stdout)
    assert told["targets"] == ["x86-64-v2", "x86-64-v3"]


def test_a_checkpoint(graphc: Graphc, model: Path) -> None:
    rng = np.random.default_rng()
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (
        ("first/dense/kernel", (6, 5)), ("first/dense/bias", (5,)), ("second/dense/kernel", (5, 3)),
        ("second/dense/bias", (3,)), ("other", (2,)))}
    np.savez("weights.npz", **values)
    done = graphc("compile", model, "--checkpoint", "weights.npz")
    assert "weights.npz: not used, since the model has no such variable: other" in done.stderr
    told = json.loads(graphc("run", "model.gcx", "rows=[[1, 0, 2, 0, 0, -1]]", "--json", "--fetch", "logits").stdout)
    hidden = np.tanh(np.array([[1, 0, 2, 0, 0, -1]]) @ values["first/dense/kernel"] + values["first/dense/bias"])
    want = hidden @ values["second/dense/kernel"] + values["second/dense/bias"]
    np.testing.assert_allclose(told["logits"], want, rtol=1e-4, atol=1e-5)
    del values["first/dense/bias"]
    np.savez("weights.npz", **values)
    assert "no value for 1 of the variables" in graphc("compile", model, "--checkpoint", "weights.npz", code=1).stderr


def test_what_is_refused(graphc: Graphc, model: Path, folder: Path) -> None:
    for arguments, code, message in (
            ((model, "--fetch", "bst"), 1, "ModelError: cannot fetch 'bst'"),
            ((model, "--target", "x86-64-v9"), 2, "'x86-64-v9' is not one of"),
            ((model, "--format", "so", "--target", "x86-64", "--target", "x86-64-v2"), 2, "the code of one target"),
            (("missing.py",), 2, "'missing.py' does not exist"), ((folder,), 2, "is a directory"),
            ((model, "-o", "m.onnx"), 2, "written by `graphc dump model.py --format onnx -o m.onnx`"),
            ((model, "-o", "nowhere/m.gcx"), 2, "the folder 'nowhere' does not exist")):
        stderr = graphc("compile", *arguments, code=code).stderr
        assert message in stderr and "Traceback" not in stderr


FILES = {
    "": "ModelError: bad.py: importing the file builds no graph, and it has no function model()",
    "import graphc\nx = (": "SyntaxError: '(' was never closed",
    "import sys\nsys.exit(3)": "ModelError: bad.py: the file ends the program when it is imported (sys.exit(3))",
    "def f():\n    return {}['a']\nf()": "KeyError: 'a'",
    "import graphc as tf\ntf.matmul(tf.zeros([2, 3]), tf.zeros([2, 3]))": "ShapeError: matmul: ",
    "raise KeyboardInterrupt": "interrupted",
}


@pytest.mark.parametrize("text", FILES)
def test_files_that_are_no_models(graphc: Graphc, folder: Path, text: str) -> None:
    (folder / "bad.py").write_text(text)
    for command in ("compile", "inspect", "dump"):
        done = graphc(command, "bad.py", code=130 if text.startswith("raise") else 1)
        assert FILES[text] in done.stderr
        assert "graphc/" not in done.stderr.replace(str(folder), "")
        assert ("Traceback" in done.stderr) == ("f()" in text)


SAVED = (
    (("x=1",), 2, "the program has no input 'x'; it has rows"),
    ((), 2, "the program needs the input rows: float32 (?, 6); give rows=FILE.npy"),
    (("rows=[[1, 2, 3, 4, 5, 6]]", "rows=1"), 2, "the input 'rows' is given twice"),
    (("rows=[[1, 2]]",), 1, "at <command line>:1:   graphc run model.gcx rows=[[1, 2]]"),
    (("rows=none.npy",), 2, "there is no such file"),
    (("rows=model.npy",), 2, "it cannot be read as NumPy's"),
    (("rows=[1",), 2, "is neither a .npy file nor a number or list in JSON"),
    (('rows=["a"]',), 2, "the value is no float32"),
    (("plain",), 2, "an input is NAME=FILE.npy, NAME=VALUE or FILE.npz"),
    (("rows=[[1, 2, 3, 4, 5, 6]]", "--fetch", "logit"), 2, "the program has no result 'logit'; did you mean 'logits'?"),
    (("rows=[[1, 2, 3, 4, 5, 6]]", "-o", "out.txt"), 2, "results are written as .npz"),
    (("rows=[[1, 2, 3, 4, 5, 6]]", "-o", "out.npy"), 2, "a .npy file holds one result, and there are 2"),
    (("--trus",), 2, "No such option '--trus'. Did you mean '--trust'?"),
)


def test_wrong_inputs_of_a_saved_program(graphc: Graphc, model: Path, folder: Path) -> None:
    graphc("compile", model)
    (folder / "model.npy").write_bytes(b"not an array")
    for arguments, code, message in SAVED:
        stderr = graphc("run", "model.gcx", *arguments, code=code).stderr
        assert message in stderr.replace("\n       ", "") and "Traceback" not in stderr
    assert "--check-numerics is for scripts" in graphc("run", "--check-numerics", "model.gcx", code=2).stderr
    assert "--trust is for saved programs" in graphc("run", "--trust", model, code=2).stderr


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_saved_program_runs_where_there_is_no_compiler(graphc: Graphc, model: Path, batch: int) -> None:
    rows = np.random.default_rng().standard_normal((batch, 6)).astype(np.float32)
    np.save("rows.npy", rows)
    graphc("compile", model)
    script = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\nfrom graphc.cli import main\n" \
             "main(['run', 'model.gcx', 'rows=rows.npy', '-o', 'out.npz'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(tf.__file__).parent.parent)})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    logits, best = session_results(model, rows)
    with np.load("out.npz") as out:
        np.testing.assert_array_equal(out["logits"], logits)
        np.testing.assert_array_equal(out["best"], best)


def test_help_of_a_saved_program(graphc: Graphc, model: Path) -> None:
    graphc("compile", model)
    text = graphc("run", "model.gcx", "--help").stdout
    assert text.startswith("Usage: graphc run model.gcx [OPTIONS] [INPUTS]...\n") and "--trust" in text


def test_a_program_that_another_made(graphc: Graphc, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphc("compile", model)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(Path("elsewhere").resolve()))
    row = "rows=[[1, 0, 0, 0, 0, 0]]"
    done = graphc("run", "model.gcx", row)
    assert "model.gcx: compiled again, since its machine code is not trusted" in done.stderr
    trusted = graphc("run", "--trust", "model.gcx", row)
    assert trusted.stderr == "" and trusted.stdout == done.stdout
    broken = bytearray(Path("model.gcx").read_bytes())
    broken[-1] ^= 1
    Path("model.gcx").write_bytes(broken)
    assert graphc("run", "model.gcx", row, code=1).stderr.startswith("ProgramFileError: model.gcx: ")
