"""Search for wrong numbers and crashes: random TF1 programs, compiled against the oracle.

    python tools/fuzz.py --seconds 60 --seed 0 --backend llvm_cpu
    python tools/fuzz.py --seed 1234 --count 1             # one program again; its seed is told with each failure

A program is a list of statements of the public API and a list of runs; the same seed gives the same program.  Each is
run on the oracle (tests/oracle.py), on the oracle with every inexact result disturbed by a few units of last place,
whose spread says how far a sound result may be, and compiled, in arenas filled with NaN, at several numbers of threads,
whose results must be the same bits.  A failing program is shrunk and printed as a script.
"""
from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import graphc as tf
from graphc.compiler import compile_program
from graphc.graph.fetch import Fetches, feed_value
from graphc.graph.tensor import Tensor
from graphc.ir.function import Node
from graphc.ops.base import Kind
from graphc.options import Options
from graphc.runtime.walker import executor_for
from graphc.session import Session
from tests.oracle import OracleSession
from tools.random_programs import Generator, Program, Run, data, needed, numbers

Array: TypeAlias = "np.ndarray[Any, Any]"

THREADS = (1, 2, 3, 8)
SAMPLES, MORE_SAMPLES = 3, 24
SPREAD = 16.0
"""How many times the spread of the disturbed oracle a result may be off."""
EXACT = frozenset({
    "Const", "Cast", "OneHot", "Relu", "Maximum", "Minimum", "Select", "SelectV2", "Neg", "Abs", "Sign", "Floor",
    "Ceil", "Rint", "ZerosLike", "OnesLike", "Fill", "Range", "Shape", "Max", "Min", "ReluGrad", "Size", "Gather",
    "GatherV2", "Identity", "StopGradient"})
"""Ops whose results have no rounding: they are not disturbed."""
SUMS = frozenset({"Sum", "Mean", "SumToShape", "L2Loss", "MatMul", "BatchMatMulV2", "Einsum", "Cumsum", "AddN"})


# -- running -----------------------------------------------------------------------------------------------------------

PRELUDE = '''\
def gradients(y, xs):
    """Gradients; zeros where there is none."""
    return [tf.zeros_like(x) if g is None else tf.convert_to_tensor(g) for x, g in zip(xs, tf.gradients(y, xs))]
'''


class CompiledSession(Session):
    """A session whose arenas are filled with NaN before each run."""

    def executable(self, parts: Fetches, feeds: tuple[Tensor, ...], ranks: Mapping[Tensor, int],
                   assumptions: Mapping[int, str]) -> tuple[Any, Mapping[int, int]]:
        compiled = compile_program(parts.tensors, feeds, parts.targets, self.options, feed_ranks=ranks,
            assumptions=assumptions)
        self.seed([slot.name for slot in compiled.program.plan.states])
        executor = executor_for(compiled.program, self.variables, compiled.native, self.options.worker_count,
            poison=True)
        return executor.runner(range(len(feeds)), lambda n, v: feed_value(feeds[n], v)), compiled.conditions


class DisturbedSession(OracleSession):
    """The oracle, with random units of last place on every inexact result."""

    noise: np.random.RandomState

    def observe(self, node: Node, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Disturb what an op gave, in place."""
        if node.op.kind in (Kind.MOVEMENT, Kind.STATE) or node.op.name in EXACT:
            return
        given = [x for x in inputs if x.dtype.kind == "f" and x.size]
        for a in outputs:
            if a.dtype.kind == "f" and a.size:
                terms = max((max(x.size / a.size, *x.shape, 1) if x.ndim else 1 for x in given), default=1)
                if node.op.name in SUMS:  # the error of a sum grows as the root of its terms, with their magnitude
                    largest = np.prod([np.abs(x).max() for x in given]) / (terms if node.op.name == "Mean" else 1)
                    a += disturbed(np.full_like(a, largest * terms ** 0.5),
                        self.noise) - a.dtype.type(largest * terms ** 0.5)
                a[...] = disturbed(a, self.noise, 2.0 * max(1.0, 0.5 * terms ** 0.5))


def disturbed(a: Array, noise: np.random.RandomState, units: float = 2.0) -> Array:
    """Return values that differ from `a` by up to so many units of last place."""
    with np.errstate(all="ignore"):
        return np.asarray(a * (1.0 + units * np.finfo(a.dtype).eps * noise.uniform(-1.0, 1.0, a.shape)).astype(a.dtype))


Results: TypeAlias = "list[list[Array]]"


def results(program: Program, make: Callable[[], Session], noise: np.random.RandomState | None = None) -> Results:
    """Return what each run of a program fetches; None stands for operations."""
    out: Results = []
    with tf.Graph().as_default(), make() as sess:
        names: dict[str, Any] = {"tf": tf, "np": np, "data": data}
        exec(PRELUDE, names)
        for s in program.statements:
            exec(s.text, names)
        sess.run(tf.global_variables_initializer())
        for run in program.runs:
            fed = {}
            for number, s in enumerate(program.statements):
                if s.name in run.fed or (s.fed >= 0 and not isinstance(names[s.name], list)):
                    a = data(number, numbers(s.shape, run.sizes), s.dtype, max(1, s.fed))
                    if noise is not None and a.dtype.kind == "f":
                        a = disturbed(a, noise)
                    fed[names[s.name]] = a
            fetches = [names[f] for f in run.fetches]
            if run.callable:
                values = sess.make_callable(fetches, list(fed))(*fed.values())
            else:
                values = sess.run(fetches, fed)
            out.append([np.asarray(v) for v in values if v is not None])
    return out


class Difference(Exception):
    """A compiled result is wrong."""


def check(program: Program, backend: str) -> None:
    """Raise what is wrong with a compiled program: Difference, or the exception that compiling or running raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = results(program, OracleSession)

        def compiled(threads: int) -> Callable[[], Session]:
            def make() -> Session:
                sess = CompiledSession()
                sess.options = Options(backend=backend, threads=threads, level=program.level, cache_dir="")
                return sess
            return make

        first = results(program, compiled(THREADS[0]))
        same_types(first, want)
        worst = compare(program, first, want, SAMPLES)
        if worst:
            worst = compare(program, first, want, MORE_SAMPLES)
        if worst:
            raise Difference(worst)
        if backend != "llvm_cpu":
            return
        for threads in (*THREADS[1:], THREADS[0]):
            again = results(program, compiled(threads))
            for r, (a, b) in enumerate(zip(first, again, strict=True)):
                for i, (x, y) in enumerate(zip(a, b, strict=True)):
                    if x.tobytes() != y.tobytes() and not same_bits(x, y):
                        raise Difference(f"run {r}, result {i}: other bits with {threads} threads")


def same_bits(x: Array, y: Array) -> bool:
    """Whether two arrays are equal, NaN as NaN of any payload."""
    if x.dtype.kind != "f":
        return False
    return bool(((x == y) & (np.signbit(x) == np.signbit(y)) | (np.isnan(x) & np.isnan(y))).all())


def same_types(got: Results, want: Results) -> None:
    """Raise Difference where shapes or dtypes differ."""
    for r, (a, b) in enumerate(zip(got, want, strict=True)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x.shape != y.shape or x.dtype != y.dtype:
                raise Difference(f"run {r}, result {i}: {x.dtype}{x.shape}, expected {y.dtype}{y.shape}")


def compare(program: Program, got: Results, want: Results, samples: int) -> str:
    """Return where results leave what the disturbed oracle spreads over, or nothing."""
    spread: list[Results] = []
    if not exactly(got, want):
        for seed in range(samples):
            noise = np.random.RandomState(seed)

            def make(noise: np.random.RandomState = noise) -> Session:
                sess = DisturbedSession()
                sess.noise = noise
                return sess
            spread.append(results(program, make, noise))
    for r, (a, b) in enumerate(zip(got, want, strict=True)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            fine = np.asarray((x == y) | ((x != x) & (y != y)))
            others = [s[r][i] for s in spread]
            if x.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    off = np.abs(x.astype(np.float64) - y)
                    spreads = [np.abs(o.astype(np.float64) - y) for o in others]
                    unsure = np.any([~np.isfinite(o) & ~np.isnan(y) | (np.isnan(y) != np.isnan(o)) for o in others],
                        0) if others else False
                    dev = np.max(spreads, 0) if spreads else np.zeros(y.shape)
                    finite = np.abs(y[np.isfinite(y)])
                    typical = np.mean(dev[np.isfinite(dev)]) if np.isfinite(dev).any() else 0.0
                    limit = SPREAD * np.maximum(dev, typical) + 8 * np.finfo(y.dtype).eps * (finite.max()
                        if finite.size else 1.0) + 1e-35
                    fine = fine | (off <= limit) | unsure
            elif others:
                fine = fine | np.any([o != y for o in others], 0)
            if not np.all(fine):
                bad = np.argwhere(~np.asarray(fine))[0]
                at = tuple(int(n) for n in bad)
                wrong = int((~np.asarray(fine)).sum())
                return (f"run {r} ({program.runs[r].sizes}), result {i}: {wrong} of {x.size} are wrong; "
                        f"at {list(at)} got {x[at]!r}, expected {y[at]!r}")
    return ""


def exactly(got: Results, want: Results) -> bool:
    """Whether all results are the very ones."""
    return all(x.tobytes() == y.tobytes() for a, b in zip(got, want, strict=True) for x, y in zip(a, b, strict=True))


# -- failures ----------------------------------------------------------------------------------------------------------

def kind(error: BaseException) -> str:
    """Return what two errors share when they have one cause: numbers and names are left out."""
    text = str(error).split("the last valid IR")[0]
    if isinstance(error, Difference):
        return "Difference bits" if "other bits" in text else "Difference"
    return type(error).__name__ + " " + re.sub(r"%?\w*\d\w*", "#", text)[:80]


def failure(program: Program, backend: str) -> BaseException | None:
    """Return what is wrong with a program, or None."""
    try:
        check(program, backend)
    except Exception as error:
        return error
    return None


def prune(program: Program) -> Program:
    """Return a program without statements that no run needs."""
    wanted = needed(program.statements, [n for r in program.runs for n in (*r.fetches, *r.fed)])
    return replace(program, statements=tuple(s for s in program.statements if s.name in wanted))


def smaller(program: Program) -> Iterable[Program]:
    """Yield simpler programs: fewer runs, fewer fetches, values replaced by one of their inputs or by a placeholder."""
    for i in range(len(program.runs)):
        if len(program.runs) > 1:
            yield prune(replace(program, runs=program.runs[:i] + program.runs[i + 1:]))
    for i, run in enumerate(program.runs):
        if run.fed or run.callable:
            yield prune(replace(program, runs=(*program.runs[:i], replace(run, fed=(), callable=False),
                *program.runs[i + 1:])))
        for j in range(len(run.fetches)):
            if len(run.fetches) > 1:
                less = replace(run, fetches=run.fetches[:j] + run.fetches[j + 1:])
                yield prune(replace(program, runs=(*program.runs[:i], less, *program.runs[i + 1:])))
    for i in reversed(range(len(program.statements))):
        s = program.statements[i]
        if not s.uses:
            continue
        options = []
        if s.dtype and not s.name.startswith(("u", "a")):
            static = [n if isinstance(n, int) else None for n in s.shape]
            options.append(replace(s, text=f"{s.name} = tf.placeholder(tf.{s.dtype}, {static})", uses=(), fed=2))
            options += [replace(s, text=f"{s.name} = {u}", uses=(u,)) for u in s.uses if s.text != f"{s.name} = {u}"]
        for other in options:
            yield prune(replace(program, statements=(*program.statements[:i], other, *program.statements[i + 1:])))


def shrink(program: Program, error: BaseException, fails: Callable[[Program], BaseException | None],
           seconds: float = 60.0) -> tuple[Program, BaseException]:
    """Return the smallest program found that fails in the same way, and its error."""
    end = time.monotonic() + seconds
    wanted = kind(error)
    sizes = program.runs[0].sizes
    for i, s in enumerate(program.statements):  # the first value that is wrong by itself, if there is one
        first = replace(program, statements=program.statements[:i + 1], runs=(Run((s.name,) if s.dtype else (), (),
            sizes),))
        now = fails(first)
        if now is not None and kind(now) == wanted:
            program, error = first, now
            break
    found = True
    while found and time.monotonic() < end:
        found = False
        for candidate in smaller(program):
            if time.monotonic() > end:
                break
            now = fails(candidate)
            if now is not None and kind(now) == wanted:
                program, error, found = inlined(candidate), now, True
                break
    return program, error


def inlined(program: Program) -> Program:
    """Return the program without statements that only rename."""
    for s in program.statements:
        if len(s.uses) == 1 and s.text == f"{s.name} = {s.uses[0]}":
            names = {s.name: s.uses[0]}

            def rename(text: str, names: Mapping[str, str] = names) -> str:
                return re.sub(r"\b[a-z]\d+\b", lambda m: names.get(m[0], m[0]), text)
            statements = tuple(replace(t, text=rename(t.text), uses=tuple(names.get(u, u) for u in t.uses))
                               for t in program.statements if t is not s)
            runs = tuple(replace(r, fetches=tuple(names.get(f, f) for f in r.fetches), fed=tuple(names.get(f, f)
                for f in r.fed))
                         for r in program.runs)
            return inlined(replace(program, statements=statements, runs=runs))
    return program


def script(program: Program, backend: str) -> str:
    """Return a program as a script that runs from the root of the repository and prints both results of each run."""
    lines = ["import numpy as np", "import graphc as tf", "from graphc.options import Options",
        "from tests.oracle import OracleSession",
             "from tools.random_programs import data", "", PRELUDE, *(s.text for s in program.statements), "",
             "for make in (OracleSession, tf.Session):", "    with make() as sess:",
             f'        sess.options = Options(backend="{backend}", level={program.level}, threads=2)',
             "        sess.run(tf.global_variables_initializer())"]
    for run in program.runs:
        feeds = ", ".join(f'{s.name}: data({i}, {numbers(s.shape, run.sizes)}, "{s.dtype}", {max(1, s.fed)})'
                          for i, s in enumerate(program.statements) if s.name in run.fed or s.fed >= 0)
        lines.append(f"        print(sess.run([{', '.join(run.fetches)}], {{{feeds}}}))")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run programs until the time or the count is over; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--count", type=int, default=1 << 30, help="how many programs at most")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first program; the next has the next")
    parser.add_argument("--backend", default="llvm_cpu", choices=["llvm_cpu", "numba_cpu", "interp"])
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("--whole", action="store_true", help="do not shrink what fails")
    given = parser.parse_args(arguments)
    end = time.monotonic() + given.seconds
    done = failed = 0
    seen: set[str] = set()
    while done < given.count and time.monotonic() < end:
        seed = given.seed + done
        program = Generator(seed).program()
        error = failure(program, given.backend)
        done += 1
        if error is None:
            continue
        failed += 1
        if kind(error) in seen and not isinstance(error, Difference):
            print(f"seed {seed}: again {kind(error)}", flush=True)
            continue
        seen.add(kind(error))
        if not given.whole:
            program, error = shrink(program, error, partial(failure, backend=given.backend))
        print(f"# seed {seed}, {given.backend}: {type(error).__name__}: {str(error)[:600]}")
        print(script(program, given.backend), flush=True)
        if not isinstance(error, Difference):
            print("".join(traceback.format_exception(error))[-1500:], flush=True)
        if not given.keep_going:
            break
    print(f"{done} programs on {given.backend}, seeds {given.seed} to {given.seed + done - 1}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
