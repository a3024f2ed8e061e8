"""What `--dump-passes DIR` leaves behind: a folder per program, with all that stands between graph and machine code.

    DIR/001_loss_Adam/00_extract.gir       the function as extracted from the graph
                      01_canonicalise.gir  after each pass that changed something, in order
                      kernels.txt          the kernel IR
                      kernels.py           the same kernels as the Python that numba_cpu compiles, to read
                      plan.txt             steps, buffers, offsets, lifetimes, the arena against no sharing
                      timings.txt          seconds and nodes per pass, seconds per kernel

Owns names and texts.  Knows plans, records of passes and kernels; compiles nothing.  Invariants: a folder that exists
is never written to by another program; all texts but timings.txt are the same for the same program.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from graphc.errors import BackendError
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Plan
from graphc.kernel.text import format_kernel
from graphc.passes.pipeline import Record
from graphc.passes.report import plan_text

NAME_LENGTH = 40


def program_folder(parent: str | None, names: Sequence[str]) -> Path | None:
    """Make and return the next folder in `parent` for a program that computes and runs the operations `names`; None
    where nothing is dumped."""
    if parent is None:
        return None
    folder = Path(parent)
    folder.mkdir(parents=True, exist_ok=True)
    told = re.sub(r"\W+", "_", "_".join(dict.fromkeys(names)))[:NAME_LENGTH].strip("_") or "nothing"
    number = max((int(p.name[:3]) for p in folder.glob("[0-9][0-9][0-9]_*")), default=0)
    while True:
        number += 1
        path = folder / f"{number:03d}_{told}"
        try:
            path.mkdir()
        except FileExistsError:  # another process took it
            continue
        return path


def dump_plan(folder: Path, plan: Plan, python: Callable[[Kernel], str]) -> None:
    """Write kernels.txt, kernels.py and plan.txt.  python: a kernel's readable source."""
    (folder / "kernels.txt").write_text("\n".join(map(format_kernel, plan.kernels)), encoding="utf-8")
    (folder / "kernels.py").write_text("\n\n".join(_python(k, plan, python) for k in plan.kernels), encoding="utf-8")
    (folder / "plan.txt").write_text(plan_text(plan), encoding="utf-8")


def _python(kernel: Kernel, plan: Plan, python: Callable[[Kernel], str]) -> str:
    """A kernel as Python source, headed by the ops and the user's lines that it comes from."""
    lines = dict.fromkeys(plan.lines[o] for o in kernel.provenance if o in plan.lines)
    head = [f"ops: {', '.join(kernel.provenance)}", *(text for line in lines for text in line.splitlines())]
    try:
        body = python(kernel)
    except BackendError as error:  # a kernel that has no such form is told, not left out
        body = f"# {error}\n"
    return "".join(f"# {text}\n" for text in head) + body


def dump_timings(folder: Path, records: Sequence[Record], kernels: Sequence[tuple[str, float]]) -> None:
    """Write timings.txt.  kernels: (name, seconds of compiling it, or of reading it from the cache)."""
    rows = [f"{'pass':<20} {'ms':>9} {'nodes before':>13} {'after':>7}"]
    rows += [f"{r.name:<20} {1e3 * r.seconds:9.3f} {r.nodes_before:13d} {r.nodes_after:7d}" for r in records]
    rows.append(f"{'all passes':<20} {1e3 * sum(r.seconds for r in records):9.3f}")
    width = max((len(name) for name, _ in kernels), default=len("all kernels"))
    rows += ["", f"{'kernel':<{width}} {'ms':>9}"]
    rows += [f"{name:<{width}} {1e3 * seconds:9.3f}" for name, seconds in kernels]
    rows.append(f"{'all kernels':<{width}} {1e3 * sum(seconds for _, seconds in kernels):9.3f}")
    (folder / "timings.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
