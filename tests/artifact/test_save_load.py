"""Saved programs give the session's results to the bit, with and without a compiler."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc import errors
from graphc.artifact import load as loading
from graphc.artifact import save as saving
from graphc.artifact.save import save
from graphc.errors import FetchError, ProgramFileError
from graphc.model import Model, load_model
from graphc.options import from_environment
from tests.artifact.programs import Reference, built, linear, same

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))


def saved(model: Model, path: Path, **arguments: Any) -> Any:
    """The program, saved and loaded again."""
    save(path / "program.gcx", model, **arguments)
    return tf.load(path / "program.gcx")


WITHOUT_COMPILER = """
import sys
sys.modules["llvmlite"] = sys.modules["numba"] = None  # importing them fails
import numpy as np
import graphc
program = graphc.load(sys.argv[1])
wanted = np.load(sys.argv[2])
for rows in (1, 7, 1000):
    results = program(x=wanted[f"x/{rows}"])
    assert sorted(results) == ["class", "logits"]
    for name, array in results.items():
        expected = wanted[f"{name}/{rows}"]
        assert array.dtype == expected.dtype and array.shape == expected.shape, (name, rows)
        assert array.tobytes() == expected.tobytes(), (name, rows)
loaded = [m for m in sys.modules if m.startswith(("graphc.passes", "graphc.compiler", "graphc.dsl", "graphc.api",
                                                  "graphc.ops", "graphc.session", "networkx", "safetensors"))]
assert not loaded, loaded
print(program.origin)
"""


def test_the_mlp_runs_to_the_bit_where_no_compiler_can_be_imported(tmp_path: Path) -> None:
    model = load_model(ROOT / "models" / "mlp.py")
    save(tmp_path / "mlp.gcx", model)
    reference, rng = Reference(model), np.random.default_rng()
    wanted: dict[str, Any] = {}
    for rows in (1, 7, 1000):
        wanted[f"x/{rows}"] = rng.standard_normal((rows, 784)).astype(np.float32)
        wanted |= {f"{name}/{rows}": v for name, v in reference({"x": wanted[f"x/{rows}"]}).items()}
    np.savez(tmp_path / "wanted.npz", **wanted)
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER, tmp_path / "mlp.gcx", tmp_path / "wanted.npz"],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("machine code for host")


def test_a_single_result_comes_alone_and_rows_are_free(tmp_path: Path) -> None:
    model = linear()
    program, reference = saved(model, tmp_path), Reference(model)
    assert program.origin.startswith("machine code")
    for rows in (0, 1, 2, 33):
        x = np.random.default_rng().standard_normal((rows, 4)).astype(np.float32)
        wanted = reference({"x": x})["y"]
        assert same(program(x=x), wanted)
        listed = program.run(["y", {"a": ("y:0",)}], {"x:0": x})
        assert same(listed[0], wanted) and same(listed[1]["a"][0], wanted)
    assert same(program.variables, model.values())


def test_a_training_step_keeps_its_variables_and_counters(tmp_path: Path) -> None:
    def build() -> None:
        tf.set_random_seed(3)
        x = tf.placeholder(tf.float32, (None, 4), name="x")
        y = tf.placeholder(tf.float32, (None,), name="y")
        h = tf.nn.dropout(tf.layers.dense(x, 8, tf.nn.relu), keep_prob=0.5)
        loss = tf.reduce_mean(tf.square(tf.squeeze(tf.layers.dense(h, 1), 1) - y), name="loss")
        step = tf.train.get_or_create_global_step()
        train = tf.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
        tf.signature({"x": x, "y": y}, {"loss": loss, "train": train})

    model = built(build)
    program, reference, rng = saved(model, tmp_path), Reference(model), np.random.default_rng()
    for rows in (5, 5, 1, 8):
        feeds = {"x": rng.standard_normal((rows, 4)).astype(np.float32), "y": np.ones(rows, np.float32)}
        assert same(program(**feeds), reference(feeds)["loss"])
    assert program.variables["global_step"] == 4
    session = reference.session
    assert all(same(v, session.run(f"{name}:0")) for name, v in program.variables.items())
    assert program.run(model.signature.targets[0].name, feeds) is None
    assert program.variables["global_step"] == 5


def meeting() -> Model:
    """x + y of unknown sizes, which meet: variants where one of them is 1."""
    def build() -> None:
        x = tf.placeholder(tf.float32, (None, None), name="x")
        y = tf.placeholder(tf.float32, (None, None), name="y")
        tf.signature([x, y], [tf.add(x, y, name="z")])

    return built(build)


SHAPES = [((3, 4), (3, 4)), ((1, 4), (3, 4)), ((3, 4), (1, 4)), ((3, 1), (3, 4)), ((3, 1), (1, 4)), ((1, 1), (3, 4)),
          ((1, 4), (3, 1)), ((1, 1), (1, 1)), ((0, 4), (1, 4))]


@pytest.mark.parametrize("trusted", [True, False])
def test_sizes_that_are_one_find_their_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    model = meeting()
    written = save(tmp_path / "z.gcx", model)
    assert written.variants == 9 and written.left_out == 0
    if not trusted:
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "another"))
    program, reference, rng = tf.load(tmp_path / "z.gcx"), Reference(model), np.random.default_rng()
    for a, b in SHAPES:
        feeds = {"x": rng.standard_normal(a).astype(np.float32), "y": rng.standard_normal(b).astype(np.float32)}
        assert same(program(**feeds), reference(feeds)["z"]), (a, b)
    with pytest.raises(errors.InvalidArgumentError):
        program(x=np.zeros((3, 4)), y=np.zeros((2, 4)))


def test_a_variant_that_is_not_in_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "VARIANT_LIMIT", 1)
    written = save(tmp_path / "z.gcx", meeting())
    assert written.variants == 1 and written.left_out == 4
    program = tf.load(tmp_path / "z.gcx")
    assert program(x=np.ones((2, 3)), y=np.ones((2, 3))).sum() == 12
    with pytest.raises(errors.InvalidArgumentError, match="not compiled for the sizes x_0 and y_0 at 'z', whose left"):
        program(x=np.ones((1, 3)), y=np.ones((2, 3)))


def every_kind() -> Model:
    """Defaults, a question after a variable, a fed size, bfloat16, bool, a scalar, a result twice, a feed fetched."""
    def build() -> None:
        x = tf.placeholder(tf.bfloat16, (None, 3), name="x")
        n = tf.placeholder(tf.int32, (), name="n")
        scale = tf.placeholder_with_default(np.float32(2.5), (), name="scale")
        w = tf.Variable(tf.cast(tf.range(3), tf.bfloat16), name="weights")
        y = tf.cast(x * w, tf.float32) * scale
        wide = tf.tile(tf.reduce_sum(y, axis=1, keepdims=True), (1, n))
        tf.signature({"x": x, "n": n, "scale": scale}, {
            "wide": wide, "again": wide, "fed": x, "large": tf.greater(tf.reduce_max(y), 3.0), "w": w,
            "there": tf.is_variable_initialized(w), "half": tf.cast(y, tf.bfloat16)})

    return built(build)


@pytest.mark.parametrize("trusted", [True, False])
def test_every_kind_of_input_and_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    model = every_kind()
    save(tmp_path / "kinds.gcx", model)
    if not trusted:
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "another"))
    program, reference = tf.load(tmp_path / "kinds.gcx"), Reference(model)
    assert program.signature.defaults == {"scale"} and program.origin.startswith("machine code") == trusted
    x = np.random.default_rng().standard_normal((5, 3)).astype(np.float32)
    for given in ({}, {"scale": np.float32(-1)}, {"scale": 3}):
        feeds = {"x": x, "n": 4, **given}
        assert same(program(**feeds), reference(feeds))
    assert bool(program(x=x, n=0)["there"]) and program(x=x, n=0)["wide"].shape == (5, 0)


@pytest.mark.parametrize("trusted", [True, False])
def test_what_depends_on_variables_alone_is_computed_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, (None, 5), name="x")
        w = tf.Variable(tf.random_normal((5, 7)), name="w")
        scale = tf.rsqrt(tf.reduce_mean(tf.square(w), axis=0))
        tf.signature([x], {"y": tf.matmul(x, tf.exp(w)) * scale})

    model = built(build)
    written = save(tmp_path / "p.gcx", model)
    assert {"plan/0/main/host", "plan/0/once/host"} <= {name for name, _ in written.sections}
    if not trusted:
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "another"))
    program, reference = tf.load(tmp_path / "p.gcx"), Reference(model)
    for rows in (1, 6):
        x = np.random.default_rng().standard_normal((rows, 5)).astype(np.float32)
        assert same(program(x=x), reference({"x": x})["y"])
    assert list(program.variables) == ["w"]


def test_a_program_without_kernels(tmp_path: Path) -> None:
    def build() -> None:
        tf.signature([], {"w": tf.Variable([[1.5, -2.0]], name="w")})

    program = saved(built(build), tmp_path)
    assert same(program(), np.array([[1.5, -2.0]], np.float32))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = linear()
    digests = {save(tmp_path / f"{i}.gcx", model, targets=("x86-64-v2", "host")).digest for i in range(2)}
    assert len(digests) == 1 and (tmp_path / "0.gcx").read_bytes() == (tmp_path / "1.gcx").read_bytes()


def test_threads_may_run_one_program_together(tmp_path: Path) -> None:
    model = linear()
    program, reference = saved(model, tmp_path), Reference(model)
    x = np.random.default_rng().standard_normal((50, 4)).astype(np.float32)
    wanted = reference({"x": x})["y"]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(50) if not same(program(x=x), wanted))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


WRONG_CALLS: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda p: p(), errors.InvalidArgumentError, r"must be given the input x: float32 \(\?, 4\)"),
    (lambda p: p(x=[[1, 2, 3, 4]], z=1), FetchError, "no input 'z'"),
    (lambda p: p.run(None, {"x": [[1, 2, 3, 4]], "x:0": 1}), FetchError, "given twice"),
    (lambda p: p(x=np.zeros((2, 3))), errors.ShapeError, r"has the shape \(\?, 4\), but is fed the shape \(2, 3\)"),
    (lambda p: p(x=[["a"] * 4]), errors.DTypeError, "not numbers"),
    (lambda p: p.run("yy", {"x": [[1, 2, 3, 4]]}), FetchError, "no result 'yy'(.|\n)*near names: y"),
    (lambda p: p.run(3, {"x": [[1, 2, 3, 4]]}), FetchError, "no name of a result"),
]


def test_wrong_calls_say_what_is_wrong(tmp_path: Path) -> None:
    program = saved(linear(), tmp_path)
    for call, kind, message in WRONG_CALLS:
        with pytest.raises(kind, match=message):
            call(program)


# -- what cannot be saved ---------------------------------------------------------------------------------------------


def test_what_calls_python_is_refused_at_its_line(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, (3,), name="x")
        tf.signature([x], {"y": tf.py_func(lambda v: v, [x], tf.float32)})

    with pytest.raises(ProgramFileError, match=r"calls Python.*\n  at test_save_load.py"):
        save(tmp_path / "p.gcx", built_with_shape(build))
    assert not (tmp_path / "p.gcx").exists()


def built_with_shape(build: Callable[[], None]) -> Model:
    model = built(build)
    for t in model.signature.outputs.values():
        t.set_shape((3,))
    return model


def test_a_free_rank_is_refused(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, name="x")
        tf.signature([x], {"y": tf.exp(x)})

    with pytest.raises(ProgramFileError, match="the rank of the input 'x:0' is not known"):
        save(tmp_path / "p.gcx", built(build))


def test_a_variable_without_a_value_is_refused(tmp_path: Path) -> None:
    model = linear()
    without = Model("", model.graph, model.signature, {"w": model.values()["w"]})
    with pytest.raises(ProgramFileError, match="the variable 'b' has no value"):
        save(tmp_path / "p.gcx", without)


@pytest.mark.parametrize(("changes", "message"), [
    ({"backend": "interp"}, "interp makes no machine code"),
    ({"check_numerics": True}, "cannot check numerics"),
])
def test_options_that_no_file_can_keep(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramFileError, match=message):
        save(tmp_path / "p.gcx", linear(), from_environment().replace(**changes))


@pytest.mark.parametrize(("target", "message"), [("x86-65", "unknown target 'x86-65'; known: host"),
                                                 ("aarch64", "cannot be linked into a file")])
def test_targets_that_cannot_be_linked(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(ProgramFileError, match=message):
        save(tmp_path / "p.gcx", linear(), targets=(target,))


# -- processors and trust ---------------------------------------------------------------------------------------------


def test_without_machine_code_it_is_compiled_where_it_runs(tmp_path: Path) -> None:
    model = linear()
    written = save(tmp_path / "ir.gcx", model, targets=())
    assert [name for name, _ in written.sections] == ["ir/0", "weights"] and written.kernels == 1
    program, x = tf.load(tmp_path / "ir.gcx"), np.random.default_rng().standard_normal((9, 4)).astype(np.float32)
    assert same(program(x=x), Reference(model)({"x": x})["y"])
    assert program.origin == "compiled again, since it holds no machine code"


def test_another_processor_compiles_again_or_is_refused_naming_the_targets(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear()
    save(tmp_path / "p.gcx", model, targets=("x86-64-v3", "x86-64-v2"))
    x = np.random.default_rng().standard_normal((9, 4)).astype(np.float32)
    wanted = Reference(model)({"x": x})["y"]
    monkeypatch.setattr(loading, "flags", lambda: frozenset(("lm", "sse", "sse2")))
    program = tf.load(tmp_path / "p.gcx")
    assert same(program(x=x), wanted)
    assert "its machine code is for x86-64-v3, x86-64-v2; this processor lacks abm, avx" in program.origin
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ProgramFileError, match=r"x86-64-v3, x86-64-v2(.|\n)*no compiler(.|\n)*llvmlite"):
        tf.load(tmp_path / "p.gcx")


def test_the_most_capable_code_that_fits_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = save(tmp_path / "p.gcx", linear(), targets=("x86-64", "x86-64-v3", "x86-64-v2"))
    assert written.targets == ("x86-64", "x86-64-v3", "x86-64-v2")
    plain = frozenset(("lm", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"))
    second = plain | {"cx16", "popcnt", "lahf_lm", "pni", "sse4_1", "sse4_2", "ssse3"}
    for flags, name in ((plain, "x86-64"), (second, "x86-64-v2")):
        monkeypatch.setattr(loading, "flags", lambda flags=flags: flags)
        assert tf.load(tmp_path / "p.gcx").origin.split()[3] == name


def test_features_that_no_flag_tells_of_bind_code_to_its_processor(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "needed_flags", lambda features: (("lm",), ("egpr",)))
    save(tmp_path / "p.gcx", linear())
    assert tf.load(tmp_path / "p.gcx").origin.startswith("machine code")
    monkeypatch.setattr(loading, "machine", lambda: "another")
    assert "is another model, which may lack egpr" in tf.load(tmp_path / "p.gcx").origin


def test_code_of_another_run_time_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "p.gcx", linear())
    monkeypatch.setattr(loading, "ABI", 1000)
    assert "is for the run time of graphc" in tf.load(tmp_path / "p.gcx", trust=True).origin


@pytest.mark.parametrize("error", [OSError("no memory files"), ValueError("not a program: 'steps'")])
def test_code_that_cannot_be_loaded_is_compiled_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    model = linear()
    save(tmp_path / "p.gcx", model)

    def refuse(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(loading, "load_library_program" if isinstance(error, OSError) else "from_json", refuse)
    program, x = tf.load(tmp_path / "p.gcx"), np.ones((3, 4), np.float32)
    assert str(error) in program.origin and same(program(x=x), Reference(model)({"x": x})["y"])


def test_a_file_is_trusted_by_its_digest_or_by_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.gcx"
    save(path, linear())
    moved = tmp_path / "moved.gcx"
    moved.write_bytes(path.read_bytes())
    assert tf.load(moved).origin.startswith("machine code")  # the content is what is known
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "another"))
    assert "not trusted" in tf.load(path).origin
    assert tf.load(path, trust=True).origin.startswith("machine code")
    assert "not trusted" in tf.load(path).origin  # trust is not kept
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ProgramFileError, match=r"not trusted(.|\n)*no compiler(.|\n)*trust=True"):
        tf.load(path)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_code_for_a_level_gives_the_bits_of_a_session_for_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("GRAPHC_TARGET", level)

    def build() -> None:
        x = tf.placeholder(tf.float32, (None, 37), name="x")
        w = tf.Variable(tf.random_normal((37, 19)), name="w")
        tf.signature([x], {"y": tf.nn.softmax(tf.tanh(tf.matmul(x, w)))})

    model = built(build)
    save(tmp_path / "p.gcx", model, targets=(level,))
    program, reference = tf.load(tmp_path / "p.gcx"), Reference(model)
    assert program.origin == f"machine code for {level}"
    for rows in (1, 7, 100):
        x = np.random.default_rng().standard_normal((rows, 37)).astype(np.float32)
        assert same(program(x=x), reference({"x": x})["y"])


def test_convolutions_with_prepared_filters(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, (None, 8, 8, 16), name="x")
        w = tf.Variable(tf.random_normal((3, 3, 16, 16)), name="w")
        tf.signature([x], {"y": tf.nn.relu(tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME"))})

    model = built(build)
    program, reference = saved(model, tmp_path), Reference(model)
    for rows in (1, 5):
        x = np.random.default_rng().standard_normal((rows, 8, 8, 16)).astype(np.float32)
        assert same(program(x=x), reference({"x": x})["y"])
