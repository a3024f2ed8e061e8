"""`graphc run` and plain `python`, as processes: what they print, their exit codes, and Ctrl-C."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRAPHC = [sys.executable, "-m", "graphc", "run"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes start in an empty folder, with no GRAPHC_* variable but a cache of their own."""
    for name in [n for n in os.environ if n.startswith("GRAPHC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)


def test_a_script_sees_what_python_would_give_it(folder: Path) -> None:
    (folder / "neighbour.py").write_text("NAME = 'found'\n")
    (folder / "script").write_text(  # no .py
        "import sys\nimport graphc as tf\nfrom neighbour import NAME\n"
        "print(__name__, NAME, sys.argv[1:], tf.Session().options.threads, tf.Session().options.backend)\n"
        "print(tf.Session().run(tf.constant(2) + 3))\nsys.exit(7)\n")
    done = run(*GRAPHC, "--threads", "3", "--backend", "interp", "script", "--epochs", "2", "--", "-x")
    assert done.stdout.splitlines() == ["__main__ found ['--epochs', '2', '--', '-x'] 3 interp", "5"], done.stderr
    assert done.returncode == 7
    assert done.stderr == ""


WRONG = """import graphc as tf
def predict(session):
    x = tf.placeholder(tf.float32, [3], name="x")
    return session.run(x + 1)
predict(tf.Session())
"""

TOLD = """InvalidArgumentError: Session.run: you must feed a value for the placeholder 'x'
  at {file}:4 in predict:   return session.run(x + 1)
  x: float32 (3,)  placeholder "x", {file}:3, needed by add
  hint: pass feed_dict={{x: ...}}
"""


def test_an_error_is_told_without_internal_frames(folder: Path) -> None:
    (folder / "wrong.py").write_text(WRONG)
    done = run(*GRAPHC, "wrong.py")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", TOLD.format(file="wrong.py"))
    done = run(*GRAPHC, "-", given=WRONG)
    assert (done.returncode, done.stderr) == (1, TOLD.format(file="<stdin>"))
    done = run(sys.executable, "wrong.py")
    frames = [line for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert [f.split(", ", 1)[1] for f in frames] == ["line 5, in <module>", "line 4, in predict"]
    assert done.stderr.endswith(f"graphc.errors.{TOLD.format(file='wrong.py')}")
    assert done.returncode == 1
    full = run(*GRAPHC, "--full-traceback", "wrong.py")
    assert os.path.join("graphc", "session.py") in full.stderr


def test_errors_of_the_script_itself(folder: Path) -> None:
    done = run(*GRAPHC, "-", given="def f():\n    return {}['a']\nf()\n")
    assert done.stderr.splitlines() == [
        "Traceback (most recent call last):", '  File "<stdin>", line 3, in <module>', "    f()",
        '  File "<stdin>", line 2, in f', "    return {}['a']", "           ~~^^^^^", "KeyError: 'a'"]
    assert done.returncode == 1


def test_errors_of_python_functions_show_the_users_frames(folder: Path) -> None:
    done = run(*GRAPHC, "-", given="import graphc as tf\nx = tf.placeholder(tf.float32, [1])\n"
                                   "y = tf.py_func(lambda a: a[9], [x], tf.float32)\ny.set_shape([])\n"
                                   "tf.Session().run(y, {x: [1]})\n")
    frames = [line for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert frames == ['  File "<stdin>", line 5, in <module>', '  File "<stdin>", line 3, in <lambda>']
    assert done.stderr.splitlines()[-2:] == ["IndexError: index 9 is out of bounds for axis 0 with size 1",
                                             "(frames inside graphc are hidden: GRAPHC_FULL_TRACEBACK=1 shows them)"]


def test_the_command_line_is_checked() -> None:
    for arguments, message in ((["--thread", "2", "x.py"], "No such option '--thread'. Did you mean '--threads'?"),
                               (["--backend", "gpu", "x.py"], "'gpu' is not one of 'llvm_cpu', 'numba_cpu', 'interp'"),
                               (["--threads", "0", "x.py"], "0 is not in the range x>=1"),
                               (["missing.py"], "'missing.py' does not exist")):
        done = run(*GRAPHC, *arguments)
        assert done.returncode == 2
        assert message.replace("'", "") in done.stderr.replace("'", "")


def test_nan_is_found_and_passes_are_dumped(folder: Path) -> None:
    (folder / "nan.py").write_text("import graphc as tf\nx = tf.placeholder(tf.float32, [2], name='x')\n"
                                   "y = tf.tanh(tf.log(x))\nprint(tf.Session().run(y, {x: [1.0, 0.0]}))\n")
    assert run(*GRAPHC, "nan.py").stdout.split() == ["[", "0.", "-1.]"]
    done = run(*GRAPHC, "--check-numerics", "--dump-passes", "out", "nan.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == [
        "InvalidArgumentError: check_numerics: 'Log' (Log) gives -Inf at [1] from finite operands",
        "  at nan.py:3:   y = tf.tanh(tf.log(x))"]
    assert [p.name for p in (folder / "out").iterdir()] == ["001_Tanh"]
    assert (folder / "out" / "001_Tanh" / "kernels.py").read_text().startswith("# ops: ")


INTERRUPTED = """import signal, time
import numpy as np
import graphc as tf
big = np.full((400, 400), 1 / 400, np.float32)
begun = tf.get_variable("begun", initializer=np.zeros((300, 300), np.float32))
ended = tf.get_variable("ended", initializer=np.zeros((), np.float32))
x = tf.get_variable("x", initializer=big)
with tf.control_dependencies([tf.assign_add(begun, tf.ones_like(begun))]):
    y = x.read_value()
    for _ in range(200):
        y = tf.matmul(y, big)
    stepped = tf.group(tf.assign(x, y), tf.assign_add(ended, tf.round(tf.reduce_sum(y) / 400)))
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(stepped)
    start = time.perf_counter()
    session.run(stepped)
    half = (time.perf_counter() - start) / 2
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, half)  # strikes inside a run, whichever it is
    try:
        while True:
            session.run(stepped)
    except KeyboardInterrupt:
        counts, end = session.run([begun, ended])
        assert counts.min() == counts.max() == end + 1, (counts, end)  # the first write is whole, the last not reached
        np.testing.assert_allclose(session.run(x), big, rtol=1e-3)
        session.run(stepped)
        assert session.run(ended) == end + 1
        print("usable", flush=True)
        raise
"""


@pytest.mark.parametrize("command", [[sys.executable], GRAPHC], ids=["python", "graphc run"])
def test_ctrl_c_between_two_steps_of_a_run(folder: Path, command: list[str]) -> None:
    (folder / "long.py").write_text(INTERRUPTED)
    done = run(*command, "long.py")
    assert done.stdout == "usable\n", done.stderr
    if command is GRAPHC:
        assert (done.returncode, done.stderr) == (130, "interrupted\n")
    else:
        assert done.returncode in (-signal.SIGINT, 130)
        assert done.stderr.rstrip().endswith("KeyboardInterrupt")
