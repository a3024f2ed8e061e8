"""A plan as text: steps, buffers and what its memory costs.

Owns the printed form of plans.  Knows plans alone.  Invariant: deterministic.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.plan import Branch, Buffer, Call, Copy, Loop, Plan, Step


def plan_text(plan: Plan) -> str:
    """Return `plan` as lines: one per step, then one per buffer, then the bytes of the arena."""
    lines = list(_steps(plan, plan.steps, ""))
    lines += [f"b{i}: {_buffer(b)}" for i, b in enumerate(plan.buffers)]
    lines.append(f"arena: {plan.arena} bytes planned, {naive_bytes(plan)} bytes if every temporary had its own")
    return "\n".join(lines) + "\n"


def naive_bytes(plan: Plan) -> Size:
    """Return the bytes of all distinct temporaries of a plan together, the arena that nothing shares."""
    total: Size = 0
    for b in plan.buffers:
        if b.role == "temp":
            total = total + dim.product(b.shape) * b.dtype.size
    return total


def _buffer(b: Buffer) -> str:
    where = {"temp": f"at {b.offset}", "slice": f"of b{b.base}"}.get(b.role, f"{b.source}")
    return f"{b.dtype.name}[{', '.join(map(str, b.shape))}] {b.role} {where}"


def _steps(plan: Plan, steps: Sequence[Step], indent: str) -> Iterator[str]:
    for step in steps:
        match step:
            case Call(kernel, buffers, sizes):
                k = plan.kernels[kernel]
                shown = ", ".join(f"{p.name}=b{b}" for p, b in zip(k.params, buffers, strict=True))
                told = f" sizes({', '.join(f'{n}={s}' for n, s in zip(k.sizes, sizes, strict=True))})" if sizes else ""
                yield f"{indent}call {k.name}({shown}){told}"
            case Copy(target, source):
                yield f"{indent}copy b{target} = b{source}"
            case Loop():
                how = f"{step.count} times" if step.count is not None else (
                    f"b{step.count_buffer} times" if step.count_buffer is not None else f"while b{step.condition}")
                limit = f" at most {step.limit}" if step.limit is not None else ""
                rows = "".join(f", b{b} a row{' backwards' if reverse else ''}" for b, reverse in step.slices)
                yield f"{indent}loop {how}{limit}{rows}"
                yield from _steps(plan, step.body, indent + "  ")
            case Branch(predicate, then, orelse):
                yield f"{indent}if b{predicate}"
                yield from _steps(plan, then, indent + "  ")
                yield f"{indent}else"
                yield from _steps(plan, orelse, indent + "  ")
            case other:
                yield f"{indent}host {other.function}"
