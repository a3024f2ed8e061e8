"""A stage as text: an outline of its boxes, an operation a line.

    hidden1/  36 operations
      MatMul = MatMul(mul, hidden1/kernel/read) : float32[?, 512]  kernel 1  mlp.py:44 in build

Owns this form.  Knows scenes alone.  Invariant: deterministic; every operation of the stage stands in it once.
"""
from __future__ import annotations

from collections.abc import Iterator

from graphc.view.scene import Group, Node, Scene, Stage, children, sizes


def scene_text(scene: Scene, stage: str | None = None) -> str:
    """Return the outline of one stage (None: the last) and the list of the kernels."""
    chosen = scene.stage(stage)
    lines = [scene.title, f"{chosen.name}: {len(chosen.nodes)} operations in {len(chosen.groups)} boxes", ""]
    lines += _outline(chosen)
    if scene.kernels:
        lines += ["", "kernels:"]
        lines += [f"  {i}  {k.name}: {', '.join(k.ops)}" for i, k in enumerate(scene.kernels)]
    return "\n".join(lines) + "\n"


def _outline(stage: Stage) -> Iterator[str]:
    inside, count = children(stage), sizes(stage)
    stack: list[tuple[int, Node | Group]] = [(0, item) for item in reversed(inside[""])]
    while stack:
        depth, item = stack.pop()
        if isinstance(item, Node):
            yield "  " * depth + _operation(item)
            continue
        kind = "" if item.kind == "scope" else f"{item.kind}, "
        kernels = _kernels(item.kernels) if item.kind == "kernel" else ""
        yield f"{'  ' * depth}{item.label}/  {kind}{count[item.id]} operation{'s' * (count[item.id] != 1)}{kernels}"
        stack += [(depth + 1, inner) for inner in reversed(inside[item.id])]


def _operation(node: Node) -> str:
    inputs = [source if output == 0 else f"{source}:{output}" for source, output in node.inputs]
    inputs += [f"^{name}" for name in node.after]
    types = f" : {', '.join(map(str, node.outputs))}" if node.outputs else ""
    value = next((f" {text}" for name, text in node.attrs if name == "value"), "") if node.kind == "constant" else ""
    place = node.line.split(":   ")[0]
    return f"{node.label} = {node.op}{value}({', '.join(inputs)}){types}{_kernels(node.kernels)}" + (
        f"  {place}" if place else "")


def _kernels(numbers: tuple[int, ...]) -> str:
    return f"  kernel{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}" if numbers else ""
