"""The pool under stress: injected delays, late wakers, forks, several threads, the end of the process."""
from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from graphc.dtypes import float32, int64
from graphc.ir.dim import symbol
from graphc.kernel.plan import Binding, Loop, Plan
from graphc.runtime.executor import Executor
from graphc.runtime.native import Native, load_native
from graphc.runtime.threads import OVERSUBSCRIPTION_LIMIT, usable_cpus
from graphc.runtime.variables import Variables
from graphc.runtime.waiting import Platform
from tests.runtime.plans import PlanBuilder, driver, program, store

N, T = symbol("N"), symbol("T")
ROOT = Path(__file__).resolve().parent.parent.parent

# Dawdles, by the address of a stack slot stirred with a counter: nothing, some spinning, or a yield.
DELAY = "call void @dawdle()"
DAWDLE = """
@stir = internal global i64 88172645463325252
define internal void @dawdle() {
entry:
  %x = load atomic i64, ptr @stir monotonic, align 8
  %a = shl i64 %x, 13
  %b = xor i64 %x, %a
  %c = lshr i64 %b, 7
  %d = xor i64 %b, %c
  %e = shl i64 %d, 17
  %f = xor i64 %d, %e
  store atomic i64 %f, ptr @stir monotonic, align 8
  %kind = and i64 %f, 7
  switch i64 %kind, label %out [ i64 0, label %yield  i64 1, label %spin  i64 2, label %nap ]
yield:
  call i32 @sched_yield()
  br label %out
spin:
  %k = phi i64 [ 0, %entry ], [ %k.next, %spin ]
  %k.next = add i64 %k, 1
  %v = load volatile i64, ptr @stir
  %more = icmp slt i64 %k, 500
  br i1 %more, label %spin, label %out
nap:
  %time = alloca { i64, i64 }
  store { i64, i64 } { i64 0, i64 20000 }, ptr %time
  call i32 @nanosleep(ptr %time, ptr null)
  br label %out
out:
  ret void
}
declare i32 @nanosleep(ptr, ptr)
"""


def delayed(where: Platform) -> Native:
    """A driver that dawdles wherever threads race."""
    return load_native(store(), DELAY, dataclasses.replace(where, pause_declaration=where.pause_declaration + DAWDLE),
                       ["nanosleep"])


def fan_out() -> Plan:
    """T times: y[i] = i + 1, through each worker's scratch."""
    b = PlanBuilder()
    b.feed(int64, T)
    b.feed(int64, N)
    y = b.fetch(int64, N)
    return b.plan([Loop((b.call("mark", y),), count=T)], [Binding("T", 0, 0), Binding("N", 1, 0)])


def check(run: Executor, times: int, n: int) -> None:
    y, = run.run([np.zeros(times, np.int64), np.zeros(n, np.int64)])
    np.testing.assert_array_equal(y, np.arange(n) + 1)


CONDITION = dataclasses.replace(Platform.host(), futex=None)


@pytest.mark.parametrize("where", [Platform.host(), CONDITION], ids=["futex", "condition"])
@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("slow", [False, True], ids=["", "delays"])
def test_every_item_is_done_once_and_before_the_join(where: Platform, threads: int, slow: bool) -> None:
    native = delayed(where) if slow else load_native(store(), where=where)
    run = Executor(program(fan_out()), Variables(), native, threads, poison=True)
    for n in (9, 400, 61, 5, 1, 17) * 4:  # the output is poisoned before each run: no item may be missed
        check(run, 1, n)
        check(run, 8, n)
        if n == 61:  # let the workers fall asleep
            time.sleep(0.002)
    native.pools.stop()
    check(run, 5, 50)
    native.pools.stop()


def test_stopping_and_starting() -> None:
    native = delayed(Platform.host())
    run = Executor(program(fan_out()), Variables(), native, 4)
    for _ in range(30):
        check(run, 2, 40)
        native.pools.stop()


def test_runs_of_several_threads_share_a_pool() -> None:
    native = delayed(Platform.host())
    runs = [Executor(program(fan_out()), Variables(), native, 3) for _ in range(4)]
    failures: list[BaseException] = []

    def work(run: Executor) -> None:
        try:
            for _ in range(10):
                check(run, 5, 37)
        except BaseException as e:
            failures.append(e)

    workers = [threading.Thread(target=work, args=(run,)) for run in runs]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not failures
    native.pools.stop()


def test_the_number_of_threads_is_bounded() -> None:
    pools = driver().pools
    assert pools.of(1)[1] == 1
    assert pools.of(10**6)[1] == max(usable_cpus(), OVERSUBSCRIPTION_LIMIT)
    assert pools.of(2) == pools.of(2)


def test_bits_do_not_depend_on_threads() -> None:
    b = PlanBuilder()
    x, y = b.feed(float32, N), b.fetch(float32, N)
    plan = b.plan([b.call("double", x, y)], [Binding("N", 0, 0)])
    values = np.random.default_rng().standard_normal(100_001).astype(np.float32)
    results = [Executor(program(plan), Variables(), driver(), t).run([values])[0].tobytes() for t in (1, 2, 3, 8)]
    assert len(set(results)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_its_own_workers() -> None:
    run = Executor(program(fan_out()), Variables(), driver(), 4, poison=True)
    check(run, 3, 100)
    for _ in range(5):
        child = os.fork()
        if not child:
            status = 1
            try:
                check(run, 3, 100)
                status = 0
            finally:
                os._exit(status)
        check(run, 3, 100)
        assert os.waitpid(child, 0)[1] == 0


PRELUDE = """
    import os, signal, sys, threading, time
    import numpy as np
    from graphc.kernel.plan import Loop
    from tests.runtime.plans import PlanBuilder, program, driver
    from tests.runtime.test_threads import fan_out, check
    from graphc.runtime.executor import Executor
    from graphc.runtime.variables import Variables
    run = Executor(program(fan_out()), Variables(), driver(), 4)
"""


def script(body: str, **options: object) -> subprocess.Popen[str]:
    text = textwrap.dedent(PRELUDE) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-X", "dev", "-c", text], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_the_process_ends_with_idle_workers() -> None:
    assert finish(script("check(run, 5, 100); print('done')")) == "done\n"


def test_the_process_ends_while_a_daemon_thread_runs() -> None:
    body = """
    def work():
        while True:
            check(run, 200, 4000)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
    print('done')
    """
    assert finish(script(body)) == "done\n"


@pytest.mark.parametrize("threads", [1, 4])
def test_ctrl_c_stops_a_long_run(threads: int) -> None:
    body = f"""
    run = Executor(program(fan_out()), Variables(), driver(), {threads})
    check(run, 1, 100)
    try:
        print('ready', flush=True)
        run.run([np.zeros(10**9, np.int64), np.zeros(100, np.int64)])
    except KeyboardInterrupt:
        print('interrupted')
    check(run, 2, 100)
    print('usable')
    """
    process = script(body)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\nusable\n"
