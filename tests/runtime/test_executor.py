"""Running plans: feeds, fetches, states, sizes, loops, branches, hosts; the driver against the walker."""
from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import dtypes, errors
from graphc.dtypes import bool_, float32, int32, int64
from graphc.ir.dim import symbol
from graphc.kernel.plan import Binding, Branch, Check, Copy, Host, Loop, Plan
from graphc.runtime.frame import LEND_BYTES
from graphc.runtime.program import AssumptionFailed, from_json, to_json
from graphc.runtime.variables import Variables
from tests.runtime.plans import PlanBuilder, executor, walker

N, T, S = symbol("N"), symbol("T"), symbol("S")


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def both(plan: Plan, *feeds: Any, threads: int = 1) -> tuple[Any, ...]:
    """Run the plan natively, again on the used frame, and walked; return the results, which agree."""
    native = executor(plan, threads=threads)
    first, second, expected = native.run(feeds), native.run(feeds), walker(plan).run(feeds)
    for a, b, c in zip(first, second, expected, strict=True):
        assert type(a) is type(c) and a.dtype == c.dtype
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)
    return first


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def chain() -> Plan:
    """y = 2 * (x + x), and x itself, the sum, and a constant."""
    b = PlanBuilder()
    x, c = b.feed(float32, N, 3), b.constant([1, 2, 3], float32)
    s, y = b.temp(float32, N, 3), b.fetch(float32, N, 3)
    for other in (x, s, c, y):
        b.fetch_from(other)
    return b.plan([b.call("add", x, x, s), b.call("double", s, y)], [Binding("N", 0, 0)])


@pytest.mark.parametrize("n", [0, 1, 7, 1000, 3 + LEND_BYTES // 12, 50_000])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_chain_at_every_size(rng: np.random.Generator, n: int, threads: int) -> None:
    x = floats(rng, n, 3)
    y, fed, total, constant, again = both(chain(), x, threads=threads)
    np.testing.assert_array_equal(y, 4 * x)
    np.testing.assert_array_equal(again, 4 * x)
    np.testing.assert_array_equal(fed, x)
    np.testing.assert_array_equal(total, 2 * x)
    np.testing.assert_array_equal(constant, [1, 2, 3])


@pytest.mark.parametrize("n", [5, 20_000])
def test_results_share_no_memory(rng: np.random.Generator, n: int) -> None:
    run, x = executor(chain()), floats(rng, n, 3)
    first = run.run([x])
    kept = [a.copy() for a in first]
    second = run.run([x + 1])
    arrays = [*first, *second, x]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [6, 30_000])
def test_feeds_of_any_layout(rng: np.random.Generator, n: int) -> None:
    run = executor(chain())
    x = floats(rng, 3, n)
    raw = np.zeros(12 * n + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(n, 3)
    unaligned[...] = x.T
    readonly = x.T.copy()
    readonly.flags.writeable = False
    for given_array in (x.T, x.T.copy()[::-1][::-1], unaligned, readonly, x.T.astype(">f4"), x.T.tolist(),
                        x.T.astype(np.float64)):
        np.testing.assert_array_equal(run.run([given_array])[0], 4 * x.T)


def test_frames_are_bound_once_per_size(rng: np.random.Generator) -> None:
    run = executor(chain())
    for n in (4, 5, 4, 5, 5, 4):
        run.run([floats(rng, n, 3)])
    assert run.bindings == 2
    for n in range(40):
        run.run([floats(rng, n, 3)])
    run.run([floats(rng, 39, 3)])
    assert run.bindings == 2 + 38
    assert len(run._idle) <= 18


def test_wrong_shapes_are_refused(rng: np.random.Generator) -> None:
    run = executor(chain())
    run.run([floats(rng, 2, 3)])
    for bad in (floats(rng, 2, 4), floats(rng, 3), floats(rng, 2, 3, 1), np.float32(1)):
        with pytest.raises(errors.InvalidArgumentError, match="does not fit"):
            run.run([bad])


def test_scalars_of_every_kind(rng: np.random.Generator) -> None:
    for dtype in dtypes.ALL:
        b = PlanBuilder()
        x = b.feed(dtype)
        t = b.temp(dtype)
        b.fetch_from(x)
        b.fetch_from(t)
        plan = b.plan([Copy(t, x)])
        value = dtype.as_numpy_dtype(1)
        a, c = both(plan, value)
        assert a == c == value and type(a) is type(value)
        for fed in (1, True, np.array(1), np.float64(1), 1.0):
            assert executor(plan).run([fed])[1] == value


NUMBERS = [True, False, 0, 1, -1, 100, 2**24 + 1, 2**53, -2**53, 0.1, -2.5, 1e300, float("inf"), float("nan"),
           *(kind(1) for kind in (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
                                  np.uint64, np.float16, np.float32, np.float64)),
           np.float64(0.1), np.float64(1e300), np.float32(0.1), np.int64(2**24 + 1), np.int32(-2**31),
           np.array(7, np.float32), np.array(0.1), np.array(3, np.int32), np.array(True)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d is not dtypes.bfloat16], ids=lambda d: d.name)
def test_a_number_is_stored_as_numpy_converts_it(dtype: dtypes.DType) -> None:
    b = PlanBuilder()
    x, t = b.feed(dtype), b.temp(dtype)
    b.fetch_from(t)
    b.fetch_from(x)
    asked: list[Any] = []

    def convert(number: int, value: Any) -> Any:
        asked.append(value)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(value).astype(dtype.as_numpy_dtype)

    run = executor(b.plan([Copy(t, x)])).runner([0], convert)
    for fed in NUMBERS:
        want = convert(0, fed)[()]
        asked.clear()
        for got in run(fed):
            assert type(got) is type(want)
            np.testing.assert_array_equal(got, want)
    for fed in (dtype.as_numpy_dtype(1), {"f": 0.5, "b": True}.get(np.dtype(dtype.as_numpy_dtype).kind, 1)):
        if dtype is not dtypes.float16:
            asked.clear()
            run(fed)
            assert not asked


def test_bfloat16_is_shown_as_float32(rng: np.random.Generator) -> None:
    for n in (3, 40_000):
        b = PlanBuilder()
        x, y = b.feed(dtypes.bfloat16, N), b.fetch(dtypes.bfloat16, N)
        b.fetch_from(x)
        plan = b.plan([b.call("copy_half", x, y)], [Binding("N", 0, 0)])
        values = floats(rng, n)
        for result in both(plan, values):
            np.testing.assert_array_equal(result, dtypes.round_to_bfloat16(values))
            assert result.dtype == np.float32


def test_a_second_argument_order(rng: np.random.Generator) -> None:
    b = PlanBuilder()
    x, _, y = b.feed(float32, 4), b.feed(float32, 2), b.fetch(float32, 4)
    run = executor(b.plan([b.call("double", x, y)])).runner([1, 0])
    a = floats(rng, 4)
    np.testing.assert_array_equal(run(floats(rng, 2), a)[0], 2 * a)


def test_the_converter_sees_what_is_not_simply_right(rng: np.random.Generator) -> None:
    seen = []

    def convert(number: int, value: Any) -> Any:
        seen.append(number)
        return np.asarray(value, np.float32)

    run = executor(chain()).runner([0], convert)
    x = floats(rng, 2, 3)
    run(x)
    assert seen == [0]  # a new shape
    run(x)
    assert seen == [0]
    run(x.tolist())
    assert seen == [0, 0]


# -- loops and branches ---------------------------------------------------------------------------


def running_sum(reverse: bool, **count: Any) -> tuple[PlanBuilder, list[int], Loop]:
    """ys[i] = xs[0] + .. + xs[i] (or from the end), row by row; returns the builder, buffers and loop."""
    b = PlanBuilder()
    xs, acc, ys = b.feed(float32, T, N), b.temp(float32, N), b.fetch(float32, T, N)
    x, y = b.slice(xs), b.slice(ys)
    index, taken = b.fetch(int64), b.fetch(int64)
    body = (b.call("add", acc, x, acc), Copy(y, acc))
    return b, [xs, acc, ys, index, taken], Loop(body, slices=((x, reverse), (y, reverse)), index=index, taken=taken,
                                                **count)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (40, 3000)])
def test_counted_loop_over_rows(rng: np.random.Generator, reverse: bool, shape: tuple[int, int]) -> None:
    b, (_, acc, _, index, _), loop = running_sum(reverse, count=T)
    steps = [Copy(index, b.constant(-5, int64)), Copy(acc, b.feed(float32, N)), loop]
    plan = b.plan(steps, [Binding("T", 0, 0), Binding("N", 0, 1)])
    xs = floats(rng, *shape)
    ys, last, taken = both(plan, xs, np.zeros(shape[1], np.float32))
    rows = xs[::-1] if reverse else xs
    expected = np.zeros_like(xs)
    total = np.zeros(shape[1], np.float32)
    for i, row in enumerate(rows):
        total = total + row
        expected[i] = total
    np.testing.assert_array_equal(ys, expected[::-1] if reverse else expected)
    assert (last, taken) == ((shape[0] - 1) if shape[0] else -5, shape[0])


@pytest.mark.parametrize("dtype", [int32, int64])
@pytest.mark.parametrize("count", [-3, 0, 1, 6])
def test_count_from_a_buffer(dtype: dtypes.DType, count: int) -> None:
    b = PlanBuilder()
    n, total, step = b.feed(dtype), b.fetch(int64), b.constant(3, int64)
    taken = b.fetch(int64)
    loop = Loop((b.call("add_int", total, step, total),), count_buffer=n, taken=taken)
    assert both(b.plan([Copy(total, b.constant(0, int64)), loop]), count) == (3 * max(count, 0), max(count, 0))


@pytest.mark.parametrize("bound", [0, 1, 7, 100])
@pytest.mark.parametrize("limit", [None, 0, 5])
def test_while_loop(bound: int, limit: int | None) -> None:
    b = PlanBuilder()
    n, i, taken = b.feed(int64), b.fetch(int64), b.fetch(int64)
    one, flag = b.constant(1, int64), b.temp(bool_)
    test = b.call("less", i, n, flag)
    loop = Loop((b.call("add_int", i, one, i), test), condition=flag, limit=limit, taken=taken)
    want = bound if limit is None else min(bound, limit)
    assert both(b.plan([Copy(i, b.constant(0, int64)), test, loop]), bound) == (want, want)


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("predicate", [True, False])
def test_branch(rng: np.random.Generator, predicate: bool, other: bool) -> None:
    b = PlanBuilder()
    p, x, y = b.feed(bool_), b.feed(float32, 5), b.fetch(float32, 5)
    steps = [Copy(y, x), Branch(p, (b.call("double", x, y),), (b.call("add", y, x, y), Copy(x, y)) if other else ())]
    b2 = b.plan([*steps, b.call("add", y, y, y)])
    a = floats(rng, 5)
    want = 2 * a if predicate or other else a
    np.testing.assert_array_equal(both(b2, predicate, a)[0], 2 * want)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 0, 2), (4, 1, 1), (0, 3, 2)])
def test_nested_loops_with_slices_of_slices_and_a_branch(rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    """out[t, s] = 2 x[t, S-1-s] where t < 2, else x[t, S-1-s] + x[t, S-1-s] + x[t, S-1-s]."""
    b = PlanBuilder()
    x, out = b.feed(float32, T, S, N), b.fetch(float32, T, S, N)
    xt, ot = b.slice(x), b.slice(out)
    xs, os = b.slice(xt), b.slice(ot)
    t, flag, two = b.temp(int64), b.temp(bool_), b.constant(2, int64)
    inner = Loop((Branch(flag, (b.call("double", xs, os),), (b.call("add", xs, xs, os), b.call("add", os, xs, os))),),
                 count=S, slices=((xs, True), (os, False)))
    outer = Loop((b.call("less", t, two, flag), inner), count=T, slices=((xt, False), (ot, False)), index=t)
    plan = b.plan([outer], [Binding("T", 0, 0), Binding("S", 0, 1), Binding("N", 0, 2)])
    a = floats(rng, *shape)
    factor = np.where(np.arange(shape[0]) < 2, 2, 3).astype(np.float32)[:, None, None]
    np.testing.assert_allclose(both(plan, a)[0], a[:, ::-1] * factor, rtol=1e-6)


# -- states ----------------------------------------------------------------------------------------


def accumulate(read: bool = True) -> Plan:
    """total += x, fetching the new total."""
    b = PlanBuilder()
    x, total = b.feed(float32, 6), b.state("total", float32, 6, read=read)
    b.fetch_from(total)
    return b.plan([b.call("add", total, x, total)] if read else [Copy(total, x)])


def test_states_live_in_the_variables(rng: np.random.Generator) -> None:
    variables = Variables()
    add, init = executor(accumulate(), variables), executor(accumulate(read=False), variables)
    with pytest.raises(errors.FailedPreconditionError, match="Attempting to use uninitialized value total"):
        add.run([floats(rng, 6)])
    assert variables.names() == ()
    a, b, c = (floats(rng, 6) for _ in range(3))
    first, = init.run([a])
    second, = add.run([b])
    third, = add.run([c])
    np.testing.assert_array_equal(first, a)
    np.testing.assert_array_equal(second, a + b)
    np.testing.assert_array_equal(third, (a + b) + c)
    np.testing.assert_array_equal(variables.get("total"), third)
    variables.set("total", np.zeros(6), float32)
    np.testing.assert_array_equal(add.run([c])[0], c)
    variables.set("total", np.zeros(5), float32)  # moves
    with pytest.raises(errors.InvalidArgumentError):
        add.run([c])
    variables.set("total", np.ones(6), float32)
    np.testing.assert_array_equal(add.run([c])[0], 1 + c)
    variables.clear()
    with pytest.raises(errors.FailedPreconditionError):
        add.run([c])


def test_a_failed_first_write_leaves_the_variable_uninitialised(rng: np.random.Generator) -> None:
    b = PlanBuilder()
    x, v = b.feed(float32, 6), b.state("v", float32, 6, read=False)
    plan = b.plan([b.call("guard", x, v)])
    variables = Variables()
    run = executor(plan, variables)
    good, bad = np.ones(6, np.float32), -np.ones(6, np.float32)
    with pytest.raises(errors.InvalidArgumentError):
        run.run([bad])
    assert not variables.is_initialised("v")
    run.run([good])
    with pytest.raises(errors.InvalidArgumentError):
        run.run([bad])
    assert variables.is_initialised("v")


# -- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_the_lowest_status_becomes_the_users_error(threads: int) -> None:
    b = PlanBuilder()
    x, y = b.feed(float32, N), b.fetch(float32, N)
    run = executor(b.plan([b.call("guard", x, y)], [Binding("N", 0, 0)]), threads=threads)
    values = np.ones(100_000, np.float32)
    np.testing.assert_array_equal(run.run([values])[0], values)
    values[77] = -1
    with pytest.raises(errors.InvalidArgumentError) as caught:
        run.run([values])
    assert str(caught.value) == "negative\n  at model.py:7:   y = guard(x)" and caught.value.op == "op_low"
    values[99_999] = 101
    with pytest.raises(errors.InvalidArgumentError, match="too large"):
        run.run([values])
    values[[77, 99_999]] = 1
    np.testing.assert_array_equal(run.run([values])[0], values)


def test_a_failure_stops_the_table_there() -> None:
    b = PlanBuilder()
    x, y, v = b.feed(float32, 4), b.temp(float32, 4), b.state("v", float32, 4)
    plan = b.plan([b.call("add", v, x, v), b.call("guard", x, y), b.call("add", v, x, v)])
    variables = Variables()
    variables.set("v", np.zeros(4), float32)
    run = executor(plan, variables)
    with pytest.raises(errors.InvalidArgumentError):
        run.run([np.full(4, -1, np.float32)])
    np.testing.assert_array_equal(variables.get("v"), -np.ones(4))


def test_checks_and_bindings() -> None:
    b = PlanBuilder()
    b.feed(float32, N)
    b.feed(float32, T)
    b.feed(int32, 2)
    bindings = [Binding("N", 0, 0), Binding("T", 1, 0), Binding("S", 2, -1, 1)]
    checks = [Check("assume", N, T, "N is {left}, T is {right}", "op_low"),
              Check("equal", S, 3 * N, "{left}!={right}", ""),
              Check("divides", 12, N, "12 is no multiple of {right}", ""),
              Check("at_most", N, 6, "{left} > 6", "")]
    run = executor(b.plan([], bindings, checks))

    def feed(n: int, t: int, s: int) -> None:
        run.run([np.zeros(n, np.float32), np.zeros(t, np.float32), np.array([9, s], np.int32)])

    feed(4, 4, 12)
    for sizes, message in (((4, 4, 11), "11!=12"), ((5, 5, 15), "12 is no multiple of 5"), ((12, 12, 36), "12 > 6"),
                           ((2, 3, 6), "N is 2, T is 3\n  at model.py:7"), ((0, 0, 0), "multiple of 0"),
                           ((4, 4, -1), "-1 cannot be a size")):
        with pytest.raises(errors.InvalidArgumentError, match=message.replace("(", r"\(")):
            feed(*sizes)
    for sizes, side in (((1, 4, 3), "left"), ((4, 1, 12), "right")):
        with pytest.raises(AssumptionFailed) as caught:
            feed(*sizes)
        assert (caught.value.check, caught.value.one) == (0, side)
    feed(1, 1, 3)


def test_sizes_are_refused_where_they_overflow_or_memory_ends() -> None:
    b = PlanBuilder()
    n = b.feed(int64)
    b.fetch_from(n)
    b.temp(float32, S, S)
    run = executor(b.plan([], [Binding("S", 0, -1, 0)]))
    assert run.run([3]) == (3,)
    with pytest.raises(errors.InvalidArgumentError, match="does not fit 64 bits"):
        run.run([2**40])
    with pytest.raises(errors.ResourceExhaustedError, match="bytes of working memory with S=268435456"):
        run.run([2**28])
    with pytest.raises(errors.InvalidArgumentError, match="cannot be a size"):
        run.run([-1])
    assert run.run([4]) == (4,)


# -- hosts, threads -----------------------------------------------------------------------------------


def test_host_steps_inside_a_loop(rng: np.random.Generator) -> None:
    seen = []

    def host(inputs: Any, outputs: Any) -> None:
        seen.append(inputs[0].copy())
        outputs[0][...] = inputs[0] * 10

    b = PlanBuilder()
    xs, ys = b.feed(float32, T, 4), b.fetch(float32, T, 4)
    x, y, t = b.slice(xs), b.slice(ys), b.temp(float32, 4)
    plan = b.plan([Loop((Host(0, (x,), (t,)), b.call("add", t, x, y)), count=T, slices=((x, False), (y, False)))],
                  [Binding("T", 0, 0)])
    a = floats(rng, 3, 4)
    run = executor(plan, hosts=[host])
    np.testing.assert_allclose(run.run([a])[0], 11 * a, rtol=1e-6)
    np.testing.assert_array_equal(seen, a)
    np.testing.assert_allclose(walker(plan, hosts=[host]).run([a])[0], 11 * a, rtol=1e-6)

    def fails(inputs: Any, outputs: Any) -> None:
        raise RuntimeError("from the host")

    broken = executor(plan, hosts=[fails])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="from the host"):
            broken.run([a])
    assert broken.bindings == 1


def test_a_host_step_may_run_the_same_program(rng: np.random.Generator) -> None:
    depth = []

    def host(inputs: Any, outputs: Any) -> None:
        depth.append(0)
        outputs[0][...] = run.run([inputs[0] - 1])[0] if inputs[0] > 0 else 0

    b = PlanBuilder()
    x, y, t = b.feed(int64), b.fetch(int64), b.temp(int64)
    run = executor(b.plan([Host(0, (x,), (t,)), b.call("add_int", t, x, y)]), hosts=[host])
    assert run.run([4]) == (4 + 3 + 2 + 1,)
    assert run.bindings == len(depth) == 5


def test_threads_run_one_program_at_once(rng: np.random.Generator) -> None:
    run = executor(chain(), threads=2)
    wrong = []

    def work(seed: int) -> None:
        own = np.random.default_rng(seed)
        for _ in range(60):
            x = floats(own, int(own.integers(0, 20_000)) if own.random() < 0.2 else 11, 3)
            y = run.run([x])[0]
            if not np.array_equal(y, 4 * x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans(), st.randoms())
def test_random_tables_agree_with_the_walker(t: int, s: int, n: int, reverse: bool, flag: bool, random: Any) -> None:
    """Random nests of loops, branches, calls and copies over a few buffers."""
    b = PlanBuilder()
    x, p, count = b.feed(float32, T, N), b.feed(bool_), b.feed(int64)
    out, acc, total = b.fetch(float32, T, N), b.fetch(float32, N), b.fetch(int64)
    one = b.constant(1, int64)

    def steps(depth: int, rows: tuple[int, int] | None) -> tuple[Any, ...]:
        found: list[Any] = []
        for _ in range(random.randint(0, 3)):
            match random.randint(0, 5 if depth else 3):
                case 0:
                    found.append(b.call("add_int", total, one, total))
                case 1 if rows:
                    found.append(b.call("add", acc, rows[0], acc))
                case 2 if rows:
                    found.append(b.call("add", rows[1], acc, rows[1]))
                case 3:
                    found.append(Copy(acc, rows[0]) if rows else b.call("double", acc, acc))
                case 4:
                    found.append(Branch(p, steps(depth - 1, rows), steps(depth - 1, rows)))
                case 5:
                    inner = (b.slice(x), b.slice(out))
                    kind = {"count": T} if random.random() < 0.5 else {"count_buffer": count}
                    found.append(Loop(steps(depth - 1, inner), slices=tuple((i, reverse) for i in inner), **kind))
        return tuple(found)

    start = [Copy(out, x), Copy(total, b.constant(0, int64)), Copy(acc, b.feed(float32, N))]
    plan = b.plan([*start, *steps(3, None)], [Binding("T", 0, 0), Binding("N", 0, 1)])
    values = np.random.default_rng(random.randint(0, 2**30)).standard_normal((t, n)).astype(np.float32)
    feeds = (values, flag, min(s, t), np.ones(n, np.float32))
    both(plan, *feeds)
    text, blob = to_json(plan, ())
    again, infos = from_json(text, blob)
    assert to_json(again, infos) == (text, blob) and again.steps == plan.steps and again.buffers == plan.buffers
