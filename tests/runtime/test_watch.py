"""check_numerics and profiles: runs that return to Python after each step."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from graphc import dtypes, errors
from graphc.dtypes import bool_, float32, int64
from graphc.ir.dim import symbol
from graphc.kernel.plan import Binding, Branch, Copy, Host, Loop, Plan
from graphc.runtime.checks import NumericsCheck, describe, first_bad
from graphc.runtime.executor import Executor
from graphc.runtime.profile import Profile
from graphc.runtime.variables import Variables
from tests.runtime.plans import PlanBuilder, driver, executor, program, walker

T = symbol("T")


def doubling() -> Plan:
    """T times: x = 2 x; then y = guard(x)."""
    b = PlanBuilder()
    b.feed(int64, T)
    x, t, y = b.feed(float32, 4), b.temp(float32, 4), b.fetch(float32, 4)
    return b.plan([Copy(t, x), Loop((b.call("double", t, t),), count=T), b.call("guard", t, y)], [Binding("T", 0, 0)])


def test_the_first_infinity_is_found_where_it_is_made() -> None:
    built = program(doubling())
    run = Executor(built, Variables(), driver(), watch=NumericsCheck(built))
    x = np.array([1, 2**-3, 50, 3], np.float32)
    np.testing.assert_array_equal(run.run([np.zeros(1, np.int64), x])[0], 2 * x)
    x[2] = 1e38
    with pytest.raises(errors.InvalidArgumentError) as caught:
        run.run([np.zeros(3, np.int64), x])
    assert str(caught.value) == (
        "op_double: Inf at [2] of its result\n"
        "  x0:     float32 (4) in [0.25, 2e+38]\n"
        "  result: float32 (4) in [0.5, 12], 1 Inf")
    assert caught.value.op == "op_double"


def test_a_walk_is_watched_alike() -> None:
    """What the driver's single steps tell of a run, the walker tells too."""
    plan = doubling()
    x = np.array([1, 2**-3, 1e38, 3], np.float32)
    messages = []
    for run in (Executor(program(plan), Variables(), driver(), watch=NumericsCheck(program(plan))),
                walker(plan, watch=NumericsCheck(program(plan)))):
        with pytest.raises(errors.InvalidArgumentError) as caught:
            run.run([np.zeros(3, np.int64), x])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_bad_elements_of_every_dtype() -> None:
    for dtype in (dtypes.float16, dtypes.float32, dtypes.float64):
        a = np.zeros((3, 4), dtype.storage)
        assert first_bad(a, dtype) is None
        a[2, 1], a[2, 3] = np.nan, np.inf
        assert first_bad(a, dtype) == (2, 1)
        assert describe(a, dtype) == f"{dtype.name} (3, 4) in [0, 0], 1 NaN, 1 Inf"
    half = dtypes.float32_to_bfloat16(np.array([1, -np.inf]))
    assert first_bad(half, dtypes.bfloat16) == (1,) and first_bad(np.array(np.nan, np.float32), float32) == ()
    assert first_bad(np.array([0x7FFF]), int64) is None and first_bad(np.zeros((0,), np.float32), float32) is None
    assert describe(np.array([3, -1]), int64) == "int64 (2) in [-1, 3]"


def test_a_profile_has_an_event_per_step() -> None:
    def host(inputs: Any, outputs: Any) -> None:
        outputs[0][...] = inputs[0]

    b = PlanBuilder()
    x, p, y, t = b.feed(float32, 4), b.feed(bool_), b.fetch(float32, 4), b.temp(float32, 4)
    plan = b.plan([Host(0, (x,), (t,)), Host(0, (t,), (t,)), Branch(p, (b.call("double", t, t),), ()),
                   Loop((b.call("add", t, t, y), Copy(t, y)), count=3)])
    built = program(plan, [host])
    profile = Profile(built)
    run = Executor(built, Variables(), driver(), 2, watch=profile)
    a = np.ones(4, np.float32)
    expected = executor(plan, hosts=[host]).run([a, True])[0]
    np.testing.assert_array_equal(run.run([a, True])[0], expected)
    names = [e.name for e in profile.events]
    assert names == ["host function 0"] * 2 + ["double"] + ["add", "copy"] * 3
    calls = {name: count for name, count, _ in profile.totals()}
    assert calls == {"host function 0": 2, "double": 1, "add": 3, "copy": 3}
    assert all(e.duration >= 0 for e in profile.events)
    trace = json.loads(profile.chrome_trace())["traceEvents"]
    assert [e["name"] for e in trace] == names and trace[2]["args"]["ops"] == ["op_double"]
    assert [e["ts"] for e in trace] == sorted(e["ts"] for e in trace)
    profile.events.clear()
    run.run([a, False])
    assert [e.name for e in profile.events] == names[:2] + names[3:]
