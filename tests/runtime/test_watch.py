"""Watches: runs that return to Python after each step, and the profiles that use them."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import bool_, float32, int64
from graphc.ir.dim import symbol
from graphc.kernel.plan import Binding, Branch, Call, Copy, Host, Loop, Plan, Step
from graphc.runtime.executor import Executor, Memory
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


class Limit:
    """A watch that ends a run where a kernel wrote a number above `most`, and keeps what it saw before each step."""

    def __init__(self, plan: Plan, most: float) -> None:
        self.plan = plan
        self.most = most
        self.seen: list[list[float]] = []

    def before(self, memory: Memory, step: Step) -> None:
        if isinstance(step, Call):
            self.seen.append([float(memory.view(b).max()) for b in step.buffers[:1]])

    def after(self, memory: Memory, step: Step) -> None:
        if isinstance(step, Call) and memory.view(step.buffers[-1]).max() > self.most:
            raise OverflowError(self.plan.kernels[step.kernel].name)


@pytest.mark.parametrize("walked", [False, True])
def test_what_a_watch_raises_ends_the_run(walked: bool) -> None:
    """The driver's single steps and the walker tell a watch the same."""
    plan = doubling()
    watch = Limit(plan, 30)
    run = walker(plan, watch=watch) if walked else Executor(program(plan), Variables(), driver(), watch=watch)
    x = np.array([1, 5, 2, 3], np.float32)
    with pytest.raises(OverflowError, match="double"):
        run.run([np.zeros(9, np.int64), x])
    assert watch.seen == [[5], [10], [20]]
    watch.most = 50
    np.testing.assert_array_equal(run.run([np.zeros(3, np.int64), x])[0], 8 * x)


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
