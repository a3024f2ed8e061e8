"""Measure graphc's convolutions against PyTorch's, layer by layer and pass by pass, and tell how far each is from the
machine's limit.

    python tools/convolutions.py                                        # every layer, 2 threads
    python tools/convolutions.py --threads 1 --rounds 5 --seconds 0.2
    python tools/convolutions.py --only 'resnet.* 3x3' --passes forward,input --python torch=/envs/torch/bin/python

A pass of a layer (forward, gradient for the input, gradient for the filters) is one run of one operation on resident
arrays.  graphc writes the result into a variable, so nothing is hoisted out of the run: filters are packed or
transformed each time, as in training and as PyTorch does.  PyTorch is measured with channels first and last, and the
better one counts; its allocator is told to keep freed memory, so that neither side waits for new pages.  The processes
of both sides live for one round and take turns at every pass; a figure is the median over the rounds of the median of
a process (--least: of its shortest sample, for a busy machine).  Results must agree with graphc's in norm, in a random
projection and in samples; the exit code is 1 where one does not, or where a side failed.

floor: the larger of the operations at the measured multiply-add rate and the bytes (operands and result, once) at the
measured bandwidth; of Winograd's form, where graphc takes it, the operations of its products.  Needs NumPy and rich.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
from bench import installed  # noqa: E402
from convolution_layers import LAYERS, PASSES, Layer  # noqa: E402

TOLERANCE = 1e-4  # of the norm, and of the largest sample
FORMS = {0: "", 2: "F(2x2)", 4: "F(4x4)"}
WORST = 10
LIMIT = 120.0  # seconds after which a process that does not answer is ended
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
               "MALLOC_TOP_PAD_": str(64 << 20)}

# -- what is measured: a function that runs the pass, and one that gives its result channels last ----------------------

Figure = Callable[[list[float]], float]
Runs = tuple[Callable[[], Any], Callable[[], np.ndarray]]


def graphc(layer: Layer, which: str, arrays: dict[str, np.ndarray], threads: int) -> tuple[Runs, dict[str, Any]]:
    """The pass through a Session, and what else is told about it: the form that was chosen."""
    import graphc as tf
    from graphc.compiler import compile_program
    from graphc.passes.convolution import choices

    window = {"strides": layer.stride, "padding": [(layer.pad, layer.pad)] * 2}
    graph = tf.Graph()
    with graph.as_default():
        x, w, dy = (tf.get_variable(key, arrays[key].shape, tf.float32) for key in ("x", "w", "dy"))
        match which, layer.transposed:
            case "forward", False:
                result = tf.nn.conv2d(x, w, **window)
            case "forward", True:
                result = tf.nn.conv2d_transpose(x, w, layer.y_shape, **window)
            case "input", False:
                result = tf.nn.conv2d_backprop_input(layer.x_shape, w, dy, **window)
            case "input", True:
                result = tf.nn.conv2d(dy, w, **window)
            case _, False:
                result = tf.nn.conv2d_backprop_filter(x, layer.w_shape, dy, **window)
            case _:
                result = tf.nn.conv2d_backprop_filter(dy, layer.w_shape, x, **window)
        kept = tf.get_variable("kept", result.shape, tf.float32)
        write = kept.assign(result).op
    session = tf.Session(graph=graph, config=tf.ConfigProto(intra_op_parallelism_threads=threads))
    for variable, key in ((x, "x"), (w, "w"), (dy, "dy")):
        variable.load(arrays[key], session)
    kept.load(np.full(result.shape.as_list(), np.nan, np.float32), session)
    function = compile_program((), (), (write,), session.options).function
    tile = next((c.tile for c in choices(function, session.options)), 0)
    return (session.make_callable(write), lambda: np.asarray(session.run(kept))), {"tile": tile}


def torch(layer: Layer, which: str, arrays: dict[str, np.ndarray], channels_last: bool) -> Runs:
    """The pass as one call of PyTorch's operator."""
    import torch
    from torch.nn import functional

    form = torch.channels_last if channels_last else torch.contiguous_format
    x, w, dy = (torch.from_numpy(arrays[key]).permute(order).contiguous(memory_format=form)
                for key, order in (("x", (0, 3, 1, 2)), ("w", (3, 2, 0, 1)), ("dy", (0, 3, 1, 2))))
    window = ([layer.stride] * 2, [layer.pad] * 2)
    backward = torch.ops.aten.convolution_backward
    mask = [which == "input", which == "filter", False]
    last: list[Any] = []

    def run() -> None:
        last.clear()  # so that its memory serves again
        with torch.inference_mode():
            if which != "forward":
                out = backward(dy, x, w, None, *window, [1, 1], layer.transposed, [0, 0], layer.groups, mask)
                last.append(out[mask.index(True)])
            elif layer.transposed:
                last.append(functional.conv_transpose2d(x, w, None, *window, groups=layer.groups))
            else:
                last.append(functional.conv2d(x, w, None, *window, groups=layer.groups))

    order = (2, 3, 1, 0) if which == "filter" else (0, 2, 3, 1)
    return run, lambda: last[0].permute(order).contiguous().numpy()


# -- a process that measures ------------------------------------------------------------------------------------------


def serve(peer: str, threads: int, seconds: float, figure: Figure) -> None:
    """Answer each line of the standard input, a layer's number and a pass, with a line of what was measured."""
    if peer == "torch":
        import torch as framework

        framework.set_num_threads(threads)
    arrays: dict[str, np.ndarray] = {}
    known = -1
    for line in sys.stdin:
        request = json.loads(line)
        if "machine" in request:
            record = {"flops": machine.fma_rate(threads), "bytes": list(machine.bandwidths(threads).items())}
        else:
            number, which = request["layer"], request["pass"]
            layer = LAYERS[number]
            if number != known:
                arrays, known = layer.arrays(), number
            record = measured(peer, layer, which, arrays, threads, partial(timed, seconds=seconds, figure=figure))
        print("RECORD " + json.dumps(record), flush=True)


def measured(peer: str, layer: Layer, which: str, arrays: dict[str, np.ndarray], threads: int,
             clocked: Callable[[Callable[[], Any]], float]) -> dict[str, Any]:
    """What one process finds: times in milliseconds and digests of the results."""
    if peer == "graphc":
        (run, result), told = graphc(layer, which, arrays, threads)
        return {"ms": clocked(run), "check": digest(result()), **told}
    record: dict[str, Any] = {}
    for form in ("first", "last"):
        run, result = torch(layer, which, arrays, form == "last")
        record[f"ms_{form}"] = clocked(run)
        record[f"check_{form}"] = digest(result())
    return record


def timed(run: Callable[[], Any], seconds: float, figure: Figure) -> float:
    """The figure of a run's times in milliseconds; a sample lasts half a millisecond or more, and there are five."""
    clock = time.perf_counter
    run()
    begin = clock()
    run()
    inner = max(1, int(5e-4 / (clock() - begin)))
    samples: list[float] = []
    end = clock() + seconds
    while len(samples) < 5 or clock() < end:
        begin = clock()
        for _ in range(inner):
            run()
        samples.append((clock() - begin) / inner)
    return 1e3 * figure(samples)


def digest(out: np.ndarray) -> list[float]:
    """The norm, a random projection and samples of an array: an error anywhere shows in the second."""
    flat = np.ascontiguousarray(out, np.float32).ravel()
    weights = np.random.default_rng(flat.size).random(flat.size, dtype=np.float32) - np.float32(0.5)
    norm, projection = (float(np.vdot(flat.astype(np.float64), other)) for other in (flat, weights))
    return [norm**0.5, projection, *(float(v) for v in flat[:: max(1, flat.size // 8)][:8])]


def agree(a: list[float], b: list[float]) -> bool:
    """Whether two digests are of the same result, rounded differently."""
    slack = [TOLERANCE * b[0]] * 2 + [TOLERANCE * max(map(abs, b[2:]))] * (len(b) - 2)
    return len(a) == len(b) and all(abs(x - y) <= s for x, y, s in zip(a, b, slack, strict=True))


# -- the processes of a round -----------------------------------------------------------------------------------------


class Child:
    """A measuring process, started at the first question and again where it broke."""

    def __init__(self, python: str, peer: str, options: argparse.Namespace, folder: str) -> None:
        self.threads = threads = options.threads
        self.command = [python, __file__, "--child", peer, "--threads", str(threads), "--seconds", str(options.seconds)]
        self.command += ["--least"] * options.least
        self.errors = Path(folder) / f"{peer}.txt"
        self.env = os.environ | KEEP_MEMORY | {
            "OMP_NUM_THREADS": str(threads), "GRAPHC_CACHE_DIR": str(Path(folder) / "cache"),
            "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(HERE.parent)}
        self.process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or {"absent": why}."""
        process = self.process = self.process or self._started()
        assert process.stdin is not None and process.stdout is not None
        overdue = threading.Timer(LIMIT, process.kill)
        overdue.start()
        with suppress(BrokenPipeError):  # where it has ended, which its empty output tells
            print(json.dumps(question), file=process.stdin, flush=True)
        try:
            for line in process.stdout:
                if line.startswith("RECORD "):
                    return dict(json.loads(line[7:]))
        finally:
            overdue.cancel()
        told = self.errors.read_text().strip().splitlines() or ["no word"]
        self.process = None
        return {"absent": f"ended with code {process.wait()}: {told[-1]}"}

    def _started(self) -> subprocess.Popen[str]:
        with open(self.errors, "w") as errors:
            process = subprocess.Popen(self.command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=errors, text=True)
        if self.threads == 1 and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        return process

    def end(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


# -- what was found ---------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """What all rounds saw of one pass of one layer."""

    number: int
    which: str
    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"graphc": [], "torch": []})

    @property
    def layer(self) -> Layer:
        return LAYERS[self.number]

    def median(self, peer: str, key: str) -> float | None:
        """Of the rounds' times called `key`; None where there is none."""
        times = [r[key] for r in self.records[peer] if key in r]
        return statistics.median(times) if times else None

    @property
    def ours(self) -> float | None:
        """graphc's time in milliseconds."""
        return self.median("graphc", "ms")

    @property
    def theirs(self) -> tuple[float, str] | None:
        """PyTorch's better time, and which of its forms that is."""
        times = [(ms, form) for form in ("first", "last") if (ms := self.median("torch", "ms_" + form)) is not None]
        return min(times) if times else None

    @property
    def ratio(self) -> float | None:
        """How many times faster graphc is."""
        ours, theirs = self.ours, self.theirs
        return theirs[0] / ours if ours and theirs and not self.fault else None

    @property
    def form(self) -> int:
        """The tile of Winograd's form, 0 for the direct one."""
        return next((int(r["tile"]) for r in self.records["graphc"] if "tile" in r), 0)

    def floor(self, flops: float, bytes: dict[int, float]) -> tuple[float, str]:
        """The least time in milliseconds that the machine could take, and what bounds it."""
        count = self.layer.winograd_flops(self.which, self.form) if self.form else self.layer.flops
        moved = self.layer.bytes(self.which)
        return max((1e3 * count / flops, "flops"), (1e3 * moved / machine.bandwidth(bytes, moved), "bytes"))

    @property
    def fault(self) -> str:
        """Why its times are void: the first failure, or a result that differs; empty where they are not."""
        absent = [f"{peer}: {r['absent']}" for peer in self.records for r in self.records[peer] if "absent" in r]
        if absent:
            return absent[0]
        for a, b in zip(*self.records.values(), strict=False):
            if not all(agree(a["check"], b["check_" + form]) for form in ("first", "last")):
                return "the results differ"
        return "" if all(np.isfinite(r["check"]).all() for r in self.records["graphc"]) else "the result is not finite"


def chosen(only: str, passes: tuple[str, ...]) -> list[Row]:
    """The passes of the layers whose name (with the pass after it) the expression finds."""
    return [Row(number, which) for number, layer in enumerate(LAYERS) for which in passes
            if re.search(only, f"{layer.name} {which}")]


def rounds(rows: list[Row], pythons: dict[str, str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure all rows in every round, and the machine before; yield each round's rates of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            started = time.perf_counter()
            children = {peer: Child(python, peer, options, folder) for peer, python in pythons.items()}
            try:
                rates = children["graphc"].ask({"machine": True})
                if "absent" in rates:
                    raise SystemExit(f"graphc: {rates['absent']}")
                for row in rows:
                    for peer, child in children.items():
                        record = child.ask({"layer": row.number, "pass": row.which})
                        row.records[peer].append(record)
                        if options.json:
                            with open(options.json, "a") as f:
                                f.write(json.dumps({"layer": row.layer.name, "pass": row.which, "peer": peer,
                                                    "threads": options.threads} | record) + "\n")
            finally:
                for child in children.values():
                    child.end()
            print(f"round {number + 1} of {options.rounds}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
            yield rates


def report(rows: list[Row], flops: float, bytes: dict[int, float], threads: int) -> None:
    """Print the table, its means, and the worst rows."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 150)

    def table(title: str, some: list[Row]) -> None:
        view = Table(title=title, title_justify="left")
        for column in ("layer", "pass", "form", "ms", "torch ms", "GFLOP/s", "floor ms", "by", "from floor", "ratio"):
            view.add_column(column, justify="left" if column in ("layer", "pass", "form", "by") else "right")
        for row in some:
            floor, by = row.floor(flops, bytes)
            ours, theirs, ratio = row.ours, row.theirs, row.ratio
            other = f"{theirs[0]:.4f} {theirs[1]:5}" if theirs else "-"
            rest = [f"{ours:.4f}", other, f"{row.layer.flops / ours / 1e6:.1f}"] if ours else ["-", other, "-"]
            distance = f"{ours / floor:.2f}" if ours else "-"
            view.add_row(row.layer.name, row.which, FORMS[row.form], *rest, f"{floor:.4f}", by, distance,
                         "FAULT" if row.fault else f"{ratio:.2f}" if ratio else "-")
        console.print(view)

    table(f"{len(rows)} passes, {threads} thread{'s' * (threads > 1)}: {flops / 1e9:.0f} GFLOP/s of multiply-adds, "
          f"{machine.bandwidth(bytes, max(bytes)) / 1e9:.0f} GB/s of memory", rows)
    compared = sorted(((row.ratio, number) for number, row in enumerate(rows) if row.ratio), reverse=True)
    if compared:
        table(f"the worst {min(WORST, len(compared))}", [rows[number] for _, number in compared[-WORST:]])
        for which in dict.fromkeys(("all", *(row.which for row in rows))):
            ratios = [ratio for ratio, number in compared if which in ("all", rows[number].which)]
            if ratios:
                mean = exp(sum(map(log, ratios)) / len(ratios))
                console.print(f"{which:8} {len(ratios):4} passes: geometric mean {mean:.2f}, least {min(ratios):.2f}, "
                              f"below 1.00: {sum(r < 1 for r in ratios)}, below 0.95: {sum(r < 0.95 for r in ratios)}")
    for row in rows:
        if row.fault:
            console.print(f"FAULT: {row.layer.name} {row.which}: {row.fault}", markup=False)
    distances = [row.ours / row.floor(flops, bytes)[0] for row in rows if row.ours]
    if distances:
        console.print(f"from the floor: median {statistics.median(distances):.2f}, largest {max(distances):.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="processes per side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="timed seconds of a pass (%(default)s)")
    parser.add_argument("--least", action="store_true", help="a process gives its shortest sample, not its median")
    parser.add_argument("--only", default="", metavar="REGEX", help="layers (and passes) whose name this finds")
    parser.add_argument("--passes", default=",".join(PASSES), help="comma-separated (%(default)s)")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH",
                        help="the Python that has torch, or graphc; torch= leaves it out")
    parser.add_argument("--json", metavar="FILE", help="also write every record there, one line each")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.child, options.threads, options.seconds, min if options.least else statistics.median)
        sys.stdout.flush()
        os._exit(0)  # some frameworks are slow to end
    passes = tuple(options.passes.split(","))
    if unknown := set(passes) - set(PASSES):
        parser.error(f"unknown pass {min(unknown)!r}; known: {', '.join(PASSES)}")
    rows = chosen(options.only, passes)
    if not rows:
        parser.error(f"no layer's name matches {options.only!r}; known:\n" + "\n".join(x.name for x in LAYERS))
    pythons = {"graphc": sys.executable, "torch": sys.executable} | dict(p.split("=", 1) for p in options.python)
    if not (pythons["torch"] and installed(pythons["torch"], "torch")):
        print("torch: not installed, left out", file=sys.stderr)
        del pythons["torch"]
    seen = list(rounds(rows, pythons, options))
    flops = max(rates["flops"] for rates in seen)
    bytes = {size: max(dict(map(tuple, rates["bytes"]))[size] for rates in seen) for size in machine.WORKING_SETS}
    report(rows, flops, bytes, options.threads)
    return int(any(row.fault for row in rows))


if __name__ == "__main__":
    sys.exit(main())
