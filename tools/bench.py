"""Measure graphc and its peers on the same work, in the same run, and print the ratios.

    python tools/bench.py                                  # every installed peer, every workload, 2 threads
    python tools/bench.py --peers graphc,jax --workloads mlp,elementwise --threads 1 --rounds 5
    python tools/bench.py --python jax=/envs/jax/bin/python --python torch=/envs/torch/bin/python

Each measurement is a process of its own; processes of different peers take turns, `--rounds` times; a figure is the
median of the process medians.  The losses (or a digest of the output) must agree within 0.5 %, else the row says so
and its time is void.  Needs NumPy and rich.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def measure(peer: str, workload: str, threads: int, seconds: float) -> dict[str, Any]:
    """Run one peer on one workload in this process; the record of what was seen."""
    import numpy as np
    from peers import PEERS

    w = load(workload)
    started = time.perf_counter()
    step = PEERS[peer][1](w, threads)
    if step is None:
        return {"absent": "does not run this workload"}
    first = step(0)
    record: dict[str, Any] = {"start_s": time.perf_counter() - started}
    done = 1
    if w.kind == "train":
        losses = [first] + [step(i) for i in range(1, 10)]
        record["check"] = [float(x) for i in (0, 1, 4, 9) for x in losses[i]]
        done = 10
    elif w.kind in ("kernel", "infer"):
        out = np.asarray(first if w.kind == "infer" else step.output(), np.float64).ravel()  # type: ignore[attr-defined]
        record["check"] = [float(np.abs(out).mean()), *(float(v) for v in out[:: max(1, out.size // 6)][:6])]
    else:
        record["check"] = [float(first)]
    clock = time.perf_counter
    once = min(_timed(step, done + i, 1) for i in range(3))
    done += 3
    inner = max(1, int(1e-3 / once))  # one sample lasts a millisecond or more
    samples: list[float] = []
    end = clock() + seconds
    while (clock() < end or len(samples) < 7) and not (w.limit and done + inner > w.limit):
        samples.append(_timed(step, done, inner))
        done += inner
    samples.sort()
    record |= {
        "ms": 1e3 * statistics.median(samples),
        "p10": 1e3 * samples[len(samples) // 10],
        "p90": 1e3 * samples[9 * len(samples) // 10],
    }
    if w.flops:
        record["gflops"] = w.flops / record["ms"] / 1e6
    if w.bytes:
        record["gbs"] = w.bytes / record["ms"] / 1e6
    return record


def load(name: str) -> Any:
    """Return the workload called `name`.  Raises KeyError."""
    import vision
    import workloads

    return vision.load(name) if name in vision.NAMES else workloads.load(name)


def _timed(step: Any, start: int, count: int) -> float:
    begin = time.perf_counter()
    for i in range(start, start + count):
        step(i)
    return (time.perf_counter() - begin) / count


def child(python: str, peer: str, workload: str, threads: int, seconds: float) -> dict[str, Any]:
    """Measure in a fresh process; the record, or {"absent": why}."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "GRAPHC_CACHE_DIR": cache,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(HERE.parent),
        }
        command = [
            python,
            __file__,
            "--child",
            peer,
            "--workloads",
            workload,
            "--threads",
            str(threads),
            "--seconds",
            str(seconds),
        ]
        if threads == 1 and hasattr(os, "sched_setaffinity"):
            command = [
                python,
                "-c",
                "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
                "os.execv(sys.argv[1], sys.argv[1:])",
                *command,
            ]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("RECORD "):
            return dict(json.loads(line[7:]))
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return {"absent": last}


def installed(python: str, module: str) -> bool:
    """Whether `module` can be found by this Python (with the project itself on the path)."""
    test = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return (
        subprocess.run(
            [python, "-c", test], cwd=HERE.parent, env=os.environ | {"PYTHONPATH": str(HERE.parent)}
        ).returncode
        == 0
    )


def agree(a: list[float], b: list[float]) -> bool:
    """Whether two peers computed the same: within 0.5 %, plus 1e-4 of the largest value."""
    slack = 1e-4 * max(map(abs, b))
    return len(a) == len(b) and all(abs(x - y) <= 5e-3 * abs(y) + slack for x, y in zip(a, b, strict=True))


def main() -> None:
    import vision
    import workloads
    from peers import PEERS

    known = (*workloads.NAMES, *vision.NAMES)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated (%(default)s)")
    parser.add_argument("--workloads", default=",".join(known), help="comma-separated (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="processes per peer and workload (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds of a process (%(default)s)")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="the Python that has a peer")
    parser.add_argument("--json", metavar="FILE", help="also write every record there, one line each")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(
            "RECORD " + json.dumps(measure(options.child, options.workloads, options.threads, options.seconds)),
            flush=True,
        )
        os._exit(0)  # some frameworks are slow to end, which is not measured
    pythons = dict(pair.split("=", 1) for pair in options.python)
    chosen = {}
    for name in options.peers.split(","):
        if name not in PEERS:
            parser.error(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
        python = pythons.get(name, pythons.get(PEERS[name][0], sys.executable))
        if installed(python, PEERS[name][0]):
            chosen[name] = python
        else:
            print(f"{name}: not installed, left out", file=sys.stderr)
    records: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names = options.workloads.split(",")
    for workload in names:
        if workload not in known:
            parser.error(f"unknown workload {workload!r}; known: {', '.join(known)}")
        for _ in range(options.rounds):
            for peer, python in chosen.items():
                record = child(python, peer, workload, options.threads, options.seconds)
                records.setdefault((workload, peer), []).append(record)
                if options.json:
                    with open(options.json, "a") as f:
                        f.write(
                            json.dumps({"workload": workload, "peer": peer, "threads": options.threads} | record) + "\n"
                        )
        table(names[: names.index(workload) + 1][-1:], list(chosen), records, options.threads)


def table(
    workloads: list[str], peers: list[str], records: dict[tuple[str, str], list[dict[str, Any]]], threads: int
) -> None:
    """Print one table per workload: time, spread, start-up, and how many times faster graphc's best is."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for workload in workloads:
        seen = {p: [r for r in records[workload, p] if "ms" in r] for p in peers}
        ms = {p: statistics.median(r["ms"] for r in rows) for p, rows in seen.items() if rows}
        reference = next(
            (seen[p][0]["check"] for p in ("torch", "jax", "tensorflow", "pytensor", *peers) if seen.get(p)), None
        )
        view = Table(title=f"{workload}, {threads} thread{'s' * (threads > 1)}", title_justify="left")
        for column in ("peer", "ms", "10-90 %", "first result s", "GFLOP/s", "GB/s", "times graphc", "note"):
            view.add_column(column, justify="left" if column in ("peer", "note") else "right")
        for p in peers:
            if p not in ms:
                view.add_row(p, "-", "", "", "", "", "", records[workload, p][0].get("absent", "")[:60])
                continue
            rows = seen[p]
            note = "" if agree(rows[0]["check"], reference or rows[0]["check"]) else "DISAGREES: time void"
            spread = f"{min(r['p10'] for r in rows):.4g}-{max(r['p90'] for r in rows):.4g}"
            rates = [f"{statistics.median(r[k] for r in rows):.1f}" if k in rows[0] else "" for k in ("gflops", "gbs")]
            ratio = f"{ms[p] / ms['graphc']:.2f}" if "graphc" in ms else ""
            view.add_row(
                p, f"{ms[p]:.4g}", spread, f"{statistics.median(r['start_s'] for r in rows):.2f}", *rates, ratio, note
            )
        console.print(view)


if __name__ == "__main__":
    main()
