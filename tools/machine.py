"""What this machine can do: multiply-adds and bytes a second, as a floor under measured times.

Owns two loops: chains of vector multiply-adds that touch no memory, written in LLVM's language, and the triad
z = x + 2 y (McCalpin's STREAM) through graphc, over working sets from a megabyte to far beyond the caches.  Invariant:
a rate is the best of several runs, so what it bounds from below is a floor.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

CHAINS = 12  # enough for two units of four cycles' latency; their registers fit AVX2's sixteen
STEPS = 4_000_000 // CHAINS
WORKING_SETS = tuple(1 << n for n in (20, 21, 22, 23, 24, 25, 27))  # bytes of the triad's three arrays


def fma_rate(threads: int, runs: int = 5) -> float:
    """Return the float32 operations a second of `threads` threads that do nothing but multiply and add in vectors."""
    from graphc.backends.llvm_cpu.codegen import host_target

    lanes = host_target().vector_bits // 32
    engine, loop = _compiled(_chains(lanes))
    sinks = [np.zeros(lanes, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def all_at_once() -> None:
            for running in [pool.submit(loop, sink.ctypes.data, STEPS) for sink in sinks]:
                running.result()

        seconds = best(all_at_once, runs)
    del engine  # which owned the code until here
    return 2.0 * lanes * CHAINS * STEPS * threads / seconds


def _chains(lanes: int) -> str:
    """LLVM text of a function (sink, steps): CHAINS independent chains of `steps` multiply-adds each."""
    v = f"<{lanes} x float>"
    lines = [f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})", "define void @chains(ptr %sink, i64 %steps) {",
             "start:", f"  %x = load {v}, ptr %sink, align 4", "  br label %loop", "loop:",
             "  %i = phi i64 [ 0, %start ], [ %next, %loop ]"]
    lines += [f"  %a{c} = phi {v} [ %x, %start ], [ %b{c}, %loop ]" for c in range(CHAINS)]
    lines += [f"  %b{c} = call {v} @llvm.fma.v{lanes}f32({v} %x, {v} %a{c}, {v} %x)" for c in range(CHAINS)]
    lines += ["  %next = add i64 %i, 1", "  %more = icmp ult i64 %next, %steps",
              "  br i1 %more, label %loop, label %end", "end:"]
    lines += [f"  store volatile {v} %b{c}, ptr %sink, align 4" for c in range(CHAINS)]
    return "\n".join([*lines, "  ret void", "}"])


def _compiled(text: str) -> tuple[Any, Callable[[int, int], None]]:
    """Return the engine that owns the code and the function that it exports; calling it lets other threads run."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address("chains"))


def bandwidths(threads: int, runs: int = 7) -> dict[int, float]:
    """Return the bytes a second that the triad reads and writes, for each working set in bytes."""
    import graphc as tf

    found = {}
    for size in WORKING_SETS:
        count = size // 12
        with tf.Graph().as_default():
            x, y, z = (tf.get_variable(name, [count], tf.float32) for name in "xyz")
            config = tf.ConfigProto(intra_op_parallelism_threads=threads)
            with tf.Session(config=config) as session:
                for variable in (x, y, z):
                    variable.load(np.ones(count, np.float32))
                triad = session.make_callable(z.assign(x + 2.0 * y).op)
                repeats = max(1, (1 << 24) // size)

                def several(triad: Any = triad, repeats: int = repeats) -> None:
                    for _ in range(repeats):
                        triad()

                found[size] = 12.0 * count * repeats / best(several, runs)
    return found


def bandwidth(found: dict[int, float], size: float) -> float:
    """Return the rate for a working set of `size` bytes: the best of those measured from half of it upwards."""
    return max(rate for at, rate in found.items() if at >= min(size / 2, max(found)))


def best(run: Callable[[], None], runs: int) -> float:
    """Return the shortest time in seconds of `runs` runs, after one that is not timed."""
    run()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
