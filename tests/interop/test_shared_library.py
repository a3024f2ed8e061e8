"""Shared libraries: the session's bits without Python, contexts apart from each other, mistakes told."""
from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as tf
from graphc.compiler import compile_kernels, make_plan
from graphc.errors import BackendError, ModelError
from graphc.interop.c_interface import Status
from graphc.interop.shared_library import linkable, shared_library, write_shared_library
from graphc.ir.function import Function
from graphc.ir.parse import parse
from graphc.ir.verify import verify
from graphc.model import Model, choose_signature
from graphc.options import Options
from graphc.runtime.link import can_link
from tests.interop.libraries import Context, Failed, Opened, made, store
from tests.ir.generate import functions, inputs
from tests.ops.compiled import Compiled
from tests.passes import test_lower
from tests.test_structured import example

pytestmark = pytest.mark.skipif(not can_link(), reason="libraries are loaded on x86-64 Linux")
OPTIONS = Options(cache_dir="")


def opened(model: Model, folder: Path, name: str = "model", options: Options = OPTIONS) -> Opened:
    library = write_shared_library(folder / f"lib{name}.so", model, options)
    assert (folder / f"lib{name}.h").read_text() == library.header
    assert (folder / f"lib{name}.so").read_bytes() == library.image
    return Opened(library, folder)


def model_of(graph: tf.Graph, inputs: dict[str, Any], outputs: dict[str, Any],
             given: dict[str, Any] | None = None) -> Model:
    with graph.as_default():
        tf.signature(inputs=inputs, outputs=outputs)
    return Model("", graph, choose_signature(graph), given)


def session_of(model: Model) -> tf.Session:
    session = tf.Session(graph=model.graph)
    for name, value in model.values().items():
        session.variables.set(name, value, model.graph.get_operation_by_name(name).outputs[0].dtype)
    return session


def same(got: Sequence[Any], wanted: Sequence[Any]) -> None:
    for g, w in zip(got, wanted, strict=True):
        assert g.shape == np.shape(w) and g.dtype == np.asarray(w).dtype
        assert g.tobytes() == np.asarray(w).tobytes()


def perceptron(drop: float = 0.0, train: bool = False) -> Model:
    graph, rng = tf.Graph(), np.random.default_rng()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 20), name="x")
        h = tf.layers.dense(x, 33, tf.nn.relu)
        if drop:
            h = tf.nn.dropout(h, keep_prob=1.0 - drop)
        logits = tf.layers.dense(h, 10)
        outputs: dict[str, Any] = {"logits": logits, "class": tf.argmax(logits, axis=1, output_type=tf.int32)}
        inputs = {"x": x}
        if train:
            y = tf.placeholder(tf.int32, (None,), name="y")
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            outputs = {"loss": loss, "train": tf.train.AdamOptimizer(0.01).minimize(loss)}
            inputs["y"] = y
    model = model_of(graph, inputs, outputs)
    values = {name: value if value.ndim < 2 else rng.normal(size=value.shape).astype(np.float32)
              for name, value in model.values().items()}
    return replace(model, given=values)


# ---------------------------------------------------------------------------------------------
# What is computed.


@pytest.mark.parametrize("target", ["host", "x86-64", "x86-64-v3"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_perceptron_gives_the_sessions_bits(tmp_path: Path, target: str, threads: int) -> None:
    model, options = perceptron(), OPTIONS.replace(target=target)
    library, session, rng = opened(model, tmp_path, options=options), session_of(model), np.random.default_rng()
    session.options = options
    with Context(library, threads) as context:
        for batch in (1, 7, 1000, 7, 0, 131):
            x = rng.normal(size=(batch, 20)).astype(np.float32)
            same(context.run(x), session.run(list(model.signature.outputs.values()), {"x:0": x}))


def wide() -> Model:
    """Work that threads share."""
    graph, rng = tf.Graph(), np.random.default_rng()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 300), name="x")
        w = tf.get_variable("w", (300, 310))
        y = tf.nn.softmax(tf.matmul(x, w))
    return model_of(graph, {"x": x}, {"y": y}, {"w": rng.normal(size=(300, 310)).astype(np.float32)})


def test_threads_share_work_and_give_the_same_bits(tmp_path: Path) -> None:
    model, rng = wide(), np.random.default_rng()
    library, session = opened(model, tmp_path), session_of(model)
    with Context(library, 1) as one, Context(library, 2) as two, Context(library, 5) as five:
        for batch in (700, 20, 701):
            x = rng.normal(size=(batch, 300)).astype(np.float32)
            wanted = session.run([model.signature.outputs["y"]], {"x:0": x})
            for context in (one, two, five) * 3:
                same(context.run(x), wanted)
        assert len(list(Path("/proc/self/task").iterdir())) >= 1 + 1 + 4  # the contexts' own workers


def test_arrays_need_no_more_alignment_than_their_elements(tmp_path: Path) -> None:
    model, rng = perceptron(), np.random.default_rng()
    library = opened(model, tmp_path)
    with Context(library, 2) as context:
        x = rng.normal(size=(300, 20)).astype(np.float32)
        wanted = context.run(x)
        for shift in (1, 3, 9):
            memory = [np.full(a.size + 40, 7, a.dtype) for a in (x, *wanted)]
            moved = [m[shift:shift + a.size].reshape(a.shape) for m, a in zip(memory, (x, *wanted), strict=True)]
            moved[0][...] = x
            context.call({"batch": 300}, [moved[0].ctypes.data], [m.ctypes.data for m in moved[1:]])
            same(moved[1:], wanted)
            assert all(np.all(m[:shift] == 7) and np.all(m[shift + a.size:] == 7)
                       for m, a in zip(memory, (x, *wanted), strict=True))


def test_training_changes_the_variables_of_its_context_alone(tmp_path: Path) -> None:
    model, rng = perceptron(train=True), np.random.default_rng()
    library = opened(model, tmp_path)
    batches = [(rng.normal(size=(n, 20)).astype(np.float32), rng.integers(0, 10, n)) for n in (16, 3, 16, 16)]
    runs = []
    for _ in range(2):
        session = session_of(model)
        fetches = [*model.signature.outputs.values(), *model.signature.targets]
        with Context(library, 2) as context, Context(library, 1) as idle:
            for x, y in batches:
                wanted = session.run(fetches, {"x:0": x, "y:0": y})
                same(context.run(x, y), wanted[:1])
                runs.append(float(wanted[0]))
            same(idle.run(*batches[0]), [np.float32(runs[0])])
    assert runs[0] == runs[4] and runs[0] != runs[2]


def test_contexts_in_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    model, rng = perceptron(train=True), np.random.default_rng()
    library = opened(model, tmp_path)
    x, y = rng.normal(size=(64, 20)), rng.integers(0, 10, 64)
    found: list[list[bytes]] = [[] for _ in range(4)]

    def work(losses: list[bytes]) -> None:
        with Context(library, 2) as context:
            for n in (64, 10, 64, 31) * 5:
                losses.append(context.run(x[:n], y[:n])[0].tobytes())

    threads = [threading.Thread(target=work, args=(losses,)) for losses in found]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found[0]) == 20 and all(losses == found[0] for losses in found)


def test_every_kind_of_output(tmp_path: Path) -> None:
    graph, rng = tf.Graph(), np.random.default_rng()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 5), name="x")
        flags = tf.placeholder(tf.bool, (None,), name="flags")
        w = tf.get_variable("w", (5,), initializer=tf.constant_initializer(2.0))
        total = tf.reduce_sum(x)
        outputs = {
            "number": total, "again": total, "large": total > 3.0, "not flags": tf.logical_not(flags),
            "half": tf.cast(x, tf.float16), "brain": tf.cast(x * 3.0, tf.bfloat16), "wide": tf.cast(x, tf.float64),
            "index": tf.argmax(x, axis=1), "bytes": tf.cast(x, tf.int8), "constant": tf.constant([1, 2, 3]),
            "fed": x, "variable": w, "transposed": tf.transpose(x), "flat": tf.reshape(x, (-1,)), "double": 2.0 * w,
        }
    model = model_of(graph, {"x": x, "flags": flags}, outputs)
    library, session = opened(model, tmp_path), session_of(model)
    with Context(library) as context:
        for n in (1, 7, 0):
            feeds = [rng.normal(size=(n, 5)).astype(np.float32) * 9, rng.random(n + 2) < 0.5]
            wanted = session.run(list(outputs.values()), {x: feeds[0], flags: feeds[1]})
            brain = list(outputs).index("brain")
            wanted[brain] = (np.asarray(wanted[brain]).view(np.uint32) >> 16).astype(np.uint16)
            same(context.run(*feeds), wanted)
    assert library.shape_of("flat", x_0=3, flags_0=1) == (15,)
    assert library.shape_of("number", x_0=3, flags_0=1) == ()


def agree(function: Function, folder: Path, runs: Sequence[Sequence[Any]], states: Sequence[Any] = (),
          **sizes: int) -> None:
    """A library of `function` gives what the executor gives, run after run."""
    compiled = Compiled(function, "llvm_cpu", states=states, cache_dir="")
    library = Opened(made(function, states), folder)
    with Context(library, 1) as one, Context(library, 2) as two:
        for feeds in runs:
            arrays = [np.array(f, v.tensor.dtype.storage) for f, v in zip(feeds, function.feeds, strict=True)]
            wanted = compiled(arrays)
            for context in (one, two):
                same(context.run(*arrays, **sizes), wanted)


def test_loops_their_slices_and_gradients(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    agree(example("loop_gradients"), tmp_path, [
        [t, rng.normal(size=b), rng.normal(size=(t, b)), rng.normal()] for t, b in ((1, 4), (2, 4), (9, 33), (9, 1))])


def test_a_loop_with_a_condition_and_a_branch(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    agree(verify(parse(test_lower.WHILE.replace("LIMIT", "50"))), tmp_path, [[1.0, 100.0], [300.0, 100.0], [3.0, 40.0]])
    agree(verify(parse(test_lower.COND)), tmp_path,
          [[p, *rng.normal(size=(2, n))] for n in (0, 1, 5) for p in (False, True)])


def test_an_adam_step_written_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    function, states = example("adam"), [rng.normal(size=(3, 1)), np.zeros((3, 1)), np.zeros((3, 1)), 0.9, 0.999]
    compiled = Compiled(function, "llvm_cpu", states=states, cache_dir="")
    with Context(Opened(made(function, states), tmp_path)) as context:
        for n in (7, 7, 1, 130):
            feeds = [rng.normal(size=(n, 3)), rng.normal(size=(n, 1))]
            arrays = [np.array(f, v.tensor.dtype.storage) for f, v in zip(feeds, function.feeds, strict=True)]
            same(context.run(*arrays), compiled(arrays))


def sound(function: Function, seed: int) -> None:
    """The library of a random function gives the executor's bits, for changing sizes and states that go on."""
    function = function.replace(state_names=tuple(f"v{i}" for i in range(len(function.states))))
    rng = np.random.default_rng(seed)
    _, states = inputs(function, seed)
    runs = [inputs(function, seed + k, {"N": int(rng.integers(0, 6)), "M": int(rng.integers(0, 4))})[0]
            for k in range(4)]
    compiled = Compiled(function, "llvm_cpu", states=states, cache_dir="")
    with TemporaryDirectory() as folder, Context(Opened(made(function, states), Path(folder)), 2) as context:
        for feeds in runs:
            arrays = [np.array(f, v.tensor.dtype.storage) for f, v in zip(feeds, function.feeds, strict=True)]
            same(context.run(*arrays), compiled(arrays))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions(), st.integers(0, 2**30))
def test_random_functions(function: Function, seed: int) -> None:
    sound(function, seed)


@pytest.mark.nightly
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions(max_nodes=30, depth=2), st.integers(0, 2**30))
def test_many_random_functions(function: Function, seed: int) -> None:
    sound(function, seed)


def test_random_numbers_follow_the_seed_or_differ(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        seeded, free = tf.random_uniform((4,), seed=7), tf.random_uniform((4,))
    model = model_of(graph, {}, {"seeded": seeded, "free": free})
    library, session = opened(model, tmp_path), tf.Session(graph=graph)
    with Context(library) as a, Context(library) as b:
        drawn = [(a.run(), b.run(), session.run([seeded])) for _ in range(3)]
    for one, other, wanted in drawn:
        same([one[0], other[0]], [wanted[0], wanted[0]])
        assert np.all((one[1] >= 0) & (one[1] < 1)) and not np.array_equal(one[1], other[1])
    assert not np.array_equal(drawn[0][0][1], drawn[1][0][1])


# ---------------------------------------------------------------------------------------------
# What the file is.


def dynamic(image: bytes) -> tuple[set[str], set[str], list[str]]:
    """The undefined and the defined names in a library's dynamic symbol table, and the libraries it needs."""
    table, = struct.unpack_from("<Q", image, 40)
    entry, count = struct.unpack_from("<HH", image, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, table + entry * i) for i in range(count)]

    def name(strings: int, at: int) -> str:
        start = headers[strings][4] + at
        return image[start:image.index(b"\0", start)].decode()

    undefined, defined, needed = set(), set(), []
    for _, kind, _, _, offset, size, strings, *_ in headers:
        if kind == 11:  # dynamic symbols
            for at, _, _, section, _, _ in list(struct.iter_unpack("<IBBHQQ", image[offset:offset + size]))[1:]:
                (defined if section else undefined).add(name(strings, at))
        elif kind == 6:  # dynamic section
            needed += [name(strings, value) for tag, value in struct.iter_unpack("<QQ", image[offset:offset + size])
                       if tag == 1]
    return undefined, defined, needed


def test_a_library_needs_libc_alone_and_holds_no_writable_data(tmp_path: Path) -> None:
    model = perceptron(drop=0.5, train=True)
    library = write_shared_library(tmp_path / "libnet.so", model, OPTIONS)
    undefined, defined, needed = dynamic(library.image)
    assert needed == ["libc.so.6"] and defined == set(library.interface.functions)
    libc = ctypes.CDLL("libc.so.6")
    assert undefined and all(hasattr(libc, name) for name in undefined)
    assert not [name for name in undefined if name.startswith(("Py", "cblas", "_Z"))]
    ctypes.CDLL(str(tmp_path / "libnet.so"))
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("libnet.so")]
    assert len(lines) >= 3 and not [line for line in lines if "w" in line.split()[1]]
    for value in model.values().values():
        assert value.size < 100 or library.image.find(value.tobytes()) % 64 == 0


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = perceptron()
    first, second = (write_shared_library(tmp_path / f"{k}" / "libnet.so", model, OPTIONS) for k in "ab"
                     if not (tmp_path / k).mkdir())
    assert first.image == second.image and first.header == second.header


# ---------------------------------------------------------------------------------------------
# What is refused.


def sized() -> Model:
    graph = tf.Graph()
    with graph.as_default():
        n = tf.placeholder(tf.int32, (), name="n")
        x = tf.placeholder(tf.float32, (None,), name="x")
        i = tf.placeholder(tf.int32, (None,), name="i")
        table = tf.get_variable("table", (5, 3), initializer=tf.zeros_initializer())
        outputs = {"rows": tf.reshape(x, (-1, 4)), "ones": tf.fill((n, 2), 1.5), "picked": tf.gather(table, i)}
    return model_of(graph, {"n": n, "x": x, "i": i}, outputs)


def test_mistakes_of_a_caller_are_told(tmp_path: Path) -> None:
    library = opened(sized(), tmp_path)
    assert [s.name for s in library.interface.sizes] == ["x_0", "i_0", "n_value"]
    assert library.shape_of("ones", n_value=3, x_0=8, i_0=0) == (3, 2)
    with Context(library) as context:

        def refused(status: Status, *feeds: Any, **sizes: int) -> str:
            with pytest.raises(Failed) as info:
                context.run(*feeds, **sizes)
            assert info.value.status is status
            return info.value.text

        rows, ones, picked = context.run(3, np.arange(8), [4, 0], n_value=3)
        assert rows.shape == (2, 4) and np.all(ones == 1.5) and picked.shape == (2, 3)
        for bad, sizes in ((Status.CHECK_FAILED, (7, 3)), (Status.BAD_SIZE, (8, -1)), (Status.BAD_SIZE, (-8, 1))):
            with pytest.raises(Failed) as info:
                library.shape_of("ones", x_0=sizes[0], n_value=sizes[1], i_0=1)
            assert info.value.status is bad
        with pytest.raises(Failed) as info:
            library.shape_of("ones", x_0=8, n_value=1 << 62, i_0=1)
        assert info.value.status is Status.BAD_SIZE
        data = np.zeros(100, np.float32).ctypes.data
        one = np.array([1], np.int32)

        def call(sizes: tuple[int, int, int], *pointers: int | None) -> Failed:
            with pytest.raises(Failed) as info:
                context.call(dict(zip(("n_value", "x_0", "i_0"), sizes, strict=True)), pointers[:3], pointers[3:])
            return info.value

        at = one.ctypes.data
        found = call((1, 7, 1), at, data, at, data, data, data)
        assert found.status is Status.CHECK_FAILED and "7" in found.text and "test_shared_library.py" in found.text
        assert "reshape" in found.text.lower()
        found = call((1, -8, 1), at, data, at, data, data, data)
        assert (found.status, found.text) == (Status.BAD_SIZE, "size x_0 is negative (-8)")
        found = call((1 << 62, 8, 1), at, data, at, data, data, data)
        assert found.status is Status.BAD_SIZE and "does not fit 63 bits" in found.text
        found = call((2, 8, 1), at, data, at, data, data, data)
        assert (found.status, found.text) == (Status.BAD_SIZE, "sizes->n_value is 2, but the value of n is 1")
        found = call((1, 8, 1), at, data + 1, at, data, data, data)
        assert found.status is Status.BAD_ARGUMENT and "inputs->x is not aligned" in found.text
        found = call((1, 8, 1), at, data, at, data, None, data)
        assert (found.status, found.text) == (Status.BAD_ARGUMENT, "outputs->ones is NULL")
        found = call((1, 8, 1), None, data, at, data, data, data)
        assert (found.status, found.text) == (Status.BAD_ARGUMENT, "inputs->n is NULL")
        told = refused(Status.KERNEL_FAILED, 3, np.arange(8), [4, 5], n_value=3)
        assert "gather" in told.lower() and "test_shared_library.py" in told
        rows, *_ = context.run(2, np.arange(4), [1], n_value=2)  # the context is as good as before
        assert np.array_equal(rows, [[0, 1, 2, 3]])
        rows, ones, _ = context.run(2, [], [], n_value=2)
        assert rows.shape == (0, 4) and ones.shape == (2, 2)


def test_pointers_that_are_null(tmp_path: Path) -> None:
    library = opened(sized(), tmp_path)
    run, create = library.function("run"), library.function("create")
    assert run(None, None, None, None) == Status.BAD_ARGUMENT
    assert create(None, None) == Status.BAD_ARGUMENT
    assert library.function("shape_of_rows", ctypes.c_int64)(None, None) == -Status.BAD_ARGUMENT
    library.function("destroy", None)(None)
    context = ctypes.c_void_p()
    assert create(None, ctypes.byref(context)) == Status.OK
    assert run(context, None, None, None) == Status.BAD_ARGUMENT
    assert library.function("error_text", ctypes.c_char_p)(context) == b"sizes is NULL"
    library.function("destroy", None)(context)
    with pytest.raises(Failed) as info:
        Context(library, -1)
    assert info.value.status is Status.BAD_ARGUMENT
    texts = [library.function("status_text", ctypes.c_char_p)(i) for i in range(-1, len(Status) + 1)]
    assert texts[0] == texts[-1] == b"unknown status" and len(set(texts)) == len(texts) - 1


def test_memory_that_is_not_there(tmp_path: Path) -> None:
    graph, rng = tf.Graph(), np.random.default_rng()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 4), name="x")
        centred = x - tf.reduce_mean(x, axis=0)
        outputs = {"product": tf.matmul(centred, centred, transpose_a=True)}
    model = model_of(graph, {"x": x}, outputs)
    library, session = opened(model, tmp_path), tf.Session(graph=graph)
    data = rng.normal(size=(9, 4)).astype(np.float32)
    out = np.zeros((4, 4), np.float32)
    with Context(library, 2) as context:
        for _ in range(2):
            same(context.run(data), session.run([outputs["product"]], {x: data}))
            with pytest.raises(Failed) as info:
                context.call({"batch": 1 << 50}, [data.ctypes.data], [out.ctypes.data])
            assert info.value.status is Status.OUT_OF_MEMORY and "bytes are needed" in info.value.text


def test_a_processor_that_lacks_instructions_is_refused(tmp_path: Path) -> None:
    function = verify(parse("func @f(%x: float32[N]) {\n  source N = %x.axis(0)\n  %0 = Square(%x)\n  return %0\n}"))
    plan, target = make_plan(function, OPTIONS), linkable(OPTIONS.replace(target="x86-64"))
    compiled = compile_kernels(plan.kernels, OPTIONS.replace(target="x86-64"), store())
    flags = Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split()
    for feature in ("xop", "tbm", "avx512fp16", "avx2", "sse4.2", "avx512vnni"):
        kind = replace(target, features=(*target.features, f"+{feature}"))
        library = Opened(shared_library("model", plan, compiled, {}, kind), tmp_path)
        told = feature.replace(".", "_").replace("vnni", "_vnni").replace("fp16", "_fp16")
        if told in flags:
            with Context(library) as context:
                assert context.run([3.0])[0] == [9.0]
        else:
            with pytest.raises(Failed) as info:
                Context(library)
            assert info.value.status is Status.UNSUPPORTED_CPU


def test_what_cannot_be_a_library_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    for options, reason in ((OPTIONS.replace(target="aarch64"), "'aarch64' is aarch64-unknown-linux-gnu"),
                            (OPTIONS.replace(backend="interp"), "interp gives none")):
        with pytest.raises(BackendError, match=reason):
            write_shared_library(path, perceptron(), options)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (2,), name="x")
        printed = tf.Print(x, [x], name="show")
        w = tf.get_variable("w", (2,))
    with pytest.raises(BackendError, match="cannot call Python, as 'show' must"):
        write_shared_library(path, model_of(graph, {"x": x}, {"y": printed}), OPTIONS)
    with pytest.raises(ModelError, match="variable 'w' is read and has no value"):
        write_shared_library(path, model_of(graph, {"x": x}, {"y": x * w}, {}), OPTIONS)
    with pytest.raises(ModelError, match=r"variable 'w' has the shape \(3,\), not \(2,\)"):
        write_shared_library(path, model_of(graph, {"x": x}, {"y": x * w}, {"w": np.zeros(3)}), OPTIONS)
    assert not list(tmp_path.iterdir())


def test_the_child_of_a_fork_may_run_and_end(tmp_path: Path) -> None:
    library, x = opened(wide(), tmp_path), np.random.default_rng().normal(size=(500, 300))
    with Context(library, 3) as context:
        wanted = context.run(x)
        child = os.fork()
        if not child:
            try:
                same(context.run(x), wanted)
                context.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        same(context.run(x), wanted)
