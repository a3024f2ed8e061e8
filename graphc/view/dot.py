"""A stage in the DOT language, for Graphviz: boxes are clusters.  https://graphviz.org/doc/info/lang.html

Owns this form and its quoting.  Knows scenes alone.  Invariant: deterministic; every text is quoted, so that no name
can be read as anything else.
"""
from __future__ import annotations

from collections.abc import Iterator

from graphc.view.scene import Group, Node, Scene, children

_SHAPES = {"input": "ellipse", "output": "ellipse", "constant": "plaintext", "variable": "cylinder",
           "update": "cylinder"}
_FILLS = {"input": "#e8f4fd", "output": "#e6f6ec", "constant": "#ffffff", "variable": "#f6effc", "update": "#f6effc"}
_BOXES = {"scope": "#eef1f8", "kernel": "#fdf3e1", "body": "#eef8f1", "block": "#f7f8fa"}


def scene_dot(scene: Scene, stage: str | None = None) -> str:
    """Return one stage (None: the last) as a digraph.  Tooltips have the user's lines; control edges are dashed."""
    chosen = scene.stage(stage)
    inside = children(chosen)
    # ranking cluster by cluster, Graphviz fails on some clusters in clusters; ranking all at once, it needs minutes
    # where a value is used all along a chain of hundreds, which is what blocks are made of
    rank = "nslimit=1, nslimit1=1, mclimit=0.1" if any(g.kind == "block" for g in chosen.groups) else "newrank=true"
    lines = [
        f"digraph {quoted(scene.title)} {{",
        f'  graph [{rank}, fontname="Helvetica", fontsize=11, labeljust=l, ranksep=0.35, nodesep=0.25];',
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#98a1b3", fontname="Helvetica", '
        'fontsize=11, height=0.3, margin="0.12,0.05"];',
        '  edge [color="#98a1b3", fontname="Helvetica", fontsize=9, arrowsize=0.6];',
    ]
    stack: list[tuple[str, Node | Group | None]] = [("  ", item) for item in reversed(inside[""])]
    while stack:
        indent, item = stack.pop()
        match item:
            case None:
                lines.append(f"{indent}}}")
            case Node():
                lines.append(f"{indent}{_node(item)}")
            case Group():
                lines.append(f"{indent}subgraph {quoted('cluster_' + item.id)} {{")
                lines.append(f"{indent}  graph [label={quoted(item.label)}, style=\"rounded,filled\", "
                             f'color="#c9d1e2", fillcolor="{_BOXES[item.kind]}"];')
                stack.append((indent, None))
                stack += [(indent + "  ", inner) for inner in reversed(inside[item.id])]
    nodes = {n.id: n for n in chosen.nodes}
    for node in chosen.nodes:
        lines += (f"  {edge}" for edge in _edges(node, nodes))
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """Return a text as a DOT string that is shown as it is: no escape of DOT's takes effect in it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _node(node: Node) -> str:
    value = dict(node.attrs).get("value", "") if node.kind == "constant" else ""
    told = value or (node.label if node.label == node.op else f"{node.label}\n{node.op}")
    parts = [f"label={quoted(told)}", f"tooltip={quoted(node.line or node.id)}"]
    if node.kind in _SHAPES:
        parts += [f"shape={_SHAPES[node.kind]}", "style=filled", f'fillcolor="{_FILLS[node.kind]}"']
    return f"{quoted(node.id)} [{', '.join(parts)}];"


def _edges(node: Node, nodes: dict[str, Node]) -> Iterator[str]:
    for source, output in node.inputs:
        types = nodes[source].outputs
        label = types[output].short if output < len(types) and nodes[source].kind != "constant" else ""
        yield f"{quoted(source)} -> {quoted(node.id)}" + (f" [label={quoted(label)}];" if label else ";")
    for name in node.after:
        yield f"{quoted(name)} -> {quoted(node.id)} [style=dashed];"
