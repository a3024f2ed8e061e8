"""A plan as text: its steps, its buffers, how long each is in use and what its memory costs.

Owns the printed form of plans.  Knows plans alone.  Invariant: deterministic.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.plan import Branch, Buffer, Call, Copy, Host, Loop, Plan, Step


def plan_text(plan: Plan) -> str:
    """Return `plan` as lines: one per step (numbered), one per buffer with the steps that use it, the bytes of the
    arena."""
    uses: dict[int, list[int]] = {}
    counter = iter(range(1, 1 << 62))
    lines = ["steps:", *_steps(plan, plan.steps, "", counter, uses), "buffers:"]
    over = dict(_written_over(plan, uses))
    for i, b in enumerate(plan.buffers):
        life = f", steps {min(uses[i])} to {max(uses[i])}" if i in uses else ""
        lines.append(f"  b{i}: {_buffer(b)}{life}" + (f", over b{over[i]}" if i in over else ""))
    planned, naive = plan.arena, naive_bytes(plan)
    saved = f", {100 * (1 - planned / naive):.0f} % saved" if isinstance(planned, int) and isinstance(naive, int) \
        and naive else ""
    lines.append(f"arena: {planned} bytes planned, {naive} bytes if every temporary had its own{saved}")
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


def _written_over(plan: Plan, uses: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """(temporary, temporary) whose kernel writes the first over the second, which it reads for the last time."""
    ended: dict[tuple[int, Size], int] = {}
    temps = [i for i, b in enumerate(plan.buffers) if b.role == "temp" and i in uses]
    for i in temps:
        ended[max(uses[i]), plan.buffers[i].offset] = i
    for i in temps:
        before = ended.get((min(uses[i]), plan.buffers[i].offset))
        if before is not None and before != i:
            yield i, before


def _steps(plan: Plan, steps: Sequence[Step], indent: str, counter: Iterator[int],
           uses: dict[int, list[int]]) -> Iterator[str]:
    def used(*buffers: int | None) -> None:
        for b in buffers:
            if b is not None and b >= 0:
                uses.setdefault(b, []).append(number)
                used(plan.buffers[b].base)

    for step in steps:
        number = next(counter)
        start = f"{number:4d}  {indent}"
        match step:
            case Call(kernel, buffers, sizes):
                k = plan.kernels[kernel]
                used(*buffers)
                shown = ", ".join(f"{p.name}=b{b}" for p, b in zip(k.params, buffers, strict=True))
                told = f" sizes({', '.join(f'{n}={s}' for n, s in zip(k.sizes, sizes, strict=True))})" if sizes else ""
                yield f"{start}call {k.name}({shown}){told}"
            case Copy(target, source):
                used(target, source)
                yield f"{start}copy b{target} = b{source}"
            case Loop():
                used(step.count_buffer, step.condition, step.index, step.taken)
                how = f"{step.count} times" if step.count is not None else (
                    f"b{step.count_buffer} times" if step.count_buffer is not None else f"while b{step.condition}")
                limit = f" at most {step.limit}" if step.limit is not None else ""
                rows = "".join(f", b{b} a row{' backwards' if reverse else ''}" for b, reverse in step.slices)
                yield f"{start}loop {how}{limit}{rows}"
                yield from _steps(plan, step.body, indent + "  ", counter, uses)
            case Branch(predicate, then, orelse):
                used(predicate)
                yield f"{start}if b{predicate}"
                yield from _steps(plan, then, indent + "  ", counter, uses)
                yield f"      {indent}else"
                yield from _steps(plan, orelse, indent + "  ", counter, uses)
            case Host(function, inputs, outputs):
                used(*inputs, *outputs)
                taken, given = (", ".join(f"b{b}" for b in numbers) for numbers in (inputs, outputs))
                yield f"{start}host {function}({taken}) -> ({given})"
