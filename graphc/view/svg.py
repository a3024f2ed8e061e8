"""A stage as a still SVG picture, made without any program beside Python.

Owns the look of that picture: cards, boxes, arrows and the room that texts need.  Knows scenes and layouts.
Invariants: deterministic; the file refers to nothing outside; every text fits the room made for it, by widths that no
usual font exceeds, and longer names are shortened in the middle (the whole name is the tooltip).
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from graphc.view.layered import Point
from graphc.view.nested import Box, Line, Widths, nested, opened
from graphc.view.scene import Group, Kernel, Node, Scene, Stage, sizes

MOST = 80
"""Things that are visible at once, about; more boxes stay closed."""
LONGEST = 30
MARGIN = 24.0

_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[]/ "), frozenset("mwMW@%")

_STYLE = """
.graphc text{font-family:system-ui,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,sans-serif;fill:#1b2130}
.graphc .ground{fill:#ffffff}
.graphc .card{fill:#fff;stroke:#c4cbd9;stroke-width:1.1}
.graphc .title{font-size:12.5px;font-weight:600;text-anchor:middle}
.graphc .head{font-size:12px;font-weight:600;fill:#626c80}
.graphc .below{font-size:11px;fill:#626c80;text-anchor:middle}
.graphc .value,.graphc .sizes{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;text-anchor:middle;
fill:#626c80}
.graphc .value{font-size:11px}
.graphc .left{text-anchor:start}
.graphc .sizes{font-size:10px;paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
.graphc .constant{fill:#f7f8fa;stroke:#e2e6ee}
.graphc .input{fill:#e8f4fd;stroke:#6fb2e3}
.graphc .output{fill:#e6f6ec;stroke:#66b988}
.graphc .variable,.graphc .update{fill:#f6effc;stroke:#b892dd}
.graphc .update{stroke-dasharray:4 3}
.graphc .scope,.graphc .block,.graphc .body,.graphc .kernel{fill:#eef1f8;stroke:#c9d1e2}
.graphc .block{stroke-dasharray:5 4}
.graphc .open{fill-opacity:.55}
.graphc .behind{opacity:.7}
.graphc .edge{fill:none;stroke:#aab3c4;stroke-width:1.25}
.graphc .control{stroke-dasharray:3 4}
.graphc .tip{fill:#aab3c4}
.graphc .tap{fill:#fff;stroke:#aab3c4;stroke-dasharray:2 3}
@media (prefers-color-scheme:dark){
.graphc text{fill:#e4e8f1}.graphc .ground{fill:#12151c}.graphc .card{fill:#181c25;stroke:#3a4254}
.graphc .head,.graphc .below,.graphc .value,.graphc .sizes{fill:#9aa4b8}.graphc .sizes{stroke:#12151c}
.graphc .constant{fill:#12151c;stroke:#2a3040}.graphc .input{fill:#182b3a;stroke:#4686b3}
.graphc .output{fill:#182e22;stroke:#4a9468}
.graphc .variable,.graphc .update{fill:#2a2236;stroke:#8d68b3}
.graphc .scope,.graphc .block,.graphc .body,.graphc .kernel{fill:#1a1f2b;stroke:#343c50}
.graphc .tap{fill:#12151c;stroke:#566075}.graphc .edge{stroke:#566075}.graphc .tip{fill:#566075}}
""".strip()


def scene_svg(scene: Scene, stage: str | None = None, most: int = MOST) -> str:
    """Return one stage (None: the last).  most: things visible at once, about: boxes that do not fit stay closed."""
    chosen = scene.stage(stage)
    open_boxes = opened(chosen, most)
    picture = _Picture(chosen, scene.kernels)
    layout = nested(chosen, open_boxes, picture.size, _WIDTHS)
    legend = picture.legend(layout.width, layout.height + 20)
    width, height = max(layout.width, 200) + 2 * MARGIN, layout.height + 2 * MARGIN + legend.height
    size = f'width="{width:.0f}" height="{height:.0f}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" class="graphc" role="img" {size} '
             f'viewBox="0 0 {width:.0f} {height:.0f}">',
             f"<title>{_text(scene.title)}: {_text(chosen.name)}</title>", f"<style>{_STYLE}</style>",
             f'<rect class="ground" {size}/>', f'<g transform="translate({MARGIN:.0f},{MARGIN:.0f})">']
    groups = {g.id: g for g in chosen.groups}
    nodes = {n.id: n for n in chosen.nodes}
    by_box: dict[str, list[Line]] = {}
    for id, line in layout.lines:
        by_box.setdefault(id, []).append(line)
    lines += (text for line in by_box.get("", ()) for text in _edge(line))
    for id, box in layout.boxes.items():
        if id in open_boxes:
            lines += picture.frame(groups[id], box)
            lines += (text for line in by_box.get(id, ()) for text in _edge(line))
    for id, box in layout.boxes.items():
        if id not in open_boxes:
            lines += picture.card(nodes[id] if id in nodes else groups[id], box)
    for box, label in layout.taps:
        lines.append(f'<rect class="tap" {_place(box)} rx="{box.height / 2:g}"/>')
        x, y = box.x + box.width / 2, box.y + box.height / 2 + 3.5
        lines.append(f'<text class="below" x="{x:.1f}" y="{y:.1f}">{_text(_short(label, 18))}</text>')
    for _, line in layout.lines:
        if line.label:
            x, y = line.label_at
            lines.append(f'<text class="sizes" x="{x:.1f}" y="{y + 3.5:.1f}">{_text(line.label)}</text>')
    lines += [*legend.lines, "</g>", "</svg>"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Legend:
    """The kernels of the drawing, below it."""

    lines: list[str]
    height: float


class _Picture:
    def __init__(self, stage: Stage, kernels: tuple[Kernel, ...]) -> None:
        self.counts = sizes(stage)
        self.kernels = kernels
        self.used = sorted({k for node in stage.nodes for k in node.kernels})

    def texts(self, item: Node | Group) -> tuple[str, str]:
        """The title of a card and what stands below it."""
        if isinstance(item, Group):
            count = self.counts[item.id]
            ops = f"{count} op{'s' * (count != 1)}"
            return _short(item.label), f"kernel · {ops}" if item.kind == "kernel" else ops
        if item.kind == "constant":
            return _short(dict(item.attrs).get("value", item.label), 22), ""
        stem, _, number = item.label.rpartition("_")
        plain = stem if number.isdigit() else item.label
        return _short(item.label), "" if plain == item.op else _short(item.op)

    def size(self, item: Node | Group) -> tuple[float, float]:
        title, below = self.texts(item)
        if isinstance(item, Node) and item.kind == "constant":
            return max(26.0, _width(title, 11, mono=True) + 18), 22.0
        room = max(_width(title, 12.5, bold=True), _width(below, 11))
        return max(64.0, room + 40), 42.0 if below else 32.0

    def frame(self, group: Group, box: Box) -> Iterator[str]:
        """An open box."""
        style = _kernel_style(group.kernels, box=True) if group.kind == "kernel" else ""
        yield f'<g><title>{_text(group.id.rstrip("/"))}</title>'
        yield f'<rect class="card {group.kind} open" {_place(box)} rx="12"{style}/>'
        yield f'<text class="head" x="{box.x + 16:.1f}" y="{box.y + 20:.1f}">{_text(_short(group.label))}</text></g>'

    def card(self, item: Node | Group, box: Box) -> Iterator[str]:
        title, below = self.texts(item)
        striped = bool(item.kernels) and item.kind != "constant"
        middle, center = box.x + box.width / 2 + 3 * striped, box.y + box.height / 2
        round = box.height / 2 if item.kind in ("constant", "input", "output", "update") else 9
        told = item.id.rstrip("/") if isinstance(item, Group) else f"{item.id} · {item.op}\n{item.line}".strip()
        style = _kernel_style(item.kernels, box=True) if item.kind == "kernel" else ""
        yield f"<g><title>{_text(told)}</title>"
        if isinstance(item, Group):
            behind = Box(box.x + 4, box.y + 4, box.width, box.height)
            yield f'<rect class="card {item.kind} behind" {_place(behind)} rx="10"{style}/>'
        yield f'<rect class="card {item.kind}" {_place(box)} rx="{round:g}"{style}/>'
        if striped:
            stripe = Box(box.x + 5, box.y + 7, 4, box.height - 14)
            yield f'<rect {_place(stripe)} rx="2"{_kernel_style(item.kernels, box=False)}/>'
        name = "value" if item.kind == "constant" else "title"
        yield f'<text class="{name}" x="{middle:.1f}" y="{center + (-3.5 if below else 4):.1f}">{_text(title)}</text>'
        if below:
            yield f'<text class="below" x="{middle:.1f}" y="{center + 12:.1f}">{_text(below)}</text>'
        yield "</g>"

    def legend(self, width: float, top: float) -> _Legend:
        """The kernels below the drawing."""
        lines: list[str] = []
        x, y = 0.0, top
        for number in self.used:
            told = f"{number} {self.kernels[number].name}"
            step = _width(told, 11) + 34
            if x and x + step > max(width, 400):
                x, y = 0.0, y + 20
            colour = _kernel_style((number,), box=False)
            lines.append(f'<rect {_place(Box(x, y - 9, 9, 9))} rx="3"{colour}/>')
            lines.append(f'<text class="below left" x="{x + 15:.1f}" y="{y:.1f}">{_text(told)}</text>')
            x += step
        return _Legend(lines, y - top + 36 if lines else 0.0)


def _edge(line: Line) -> Iterator[str]:
    kind = "edge control" if line.control else "edge"
    yield f'<path class="{kind}" d="{_curve(line.points)}"/>'
    if line.arrow:
        x, y = line.points[-1]
        h = -8 if y >= line.points[-2][1] else 8
        yield f'<path class="tip" d="M{x:.1f},{y:.1f}l-4.2,{h}h8.4z"/>'


def _curve(points: tuple[Point, ...]) -> str:
    """A smooth curve through points, upright at its ends, that never swings beyond them: a monotone cubic (Steffen,
    1990)."""
    slopes = [0.0] * len(points)
    for i in range(1, len(points) - 1):
        (x0, y0), (x1, y1), (x2, y2) = points[i - 1:i + 2]
        h, k = y1 - y0, y2 - y1
        if h and k and ((x1 - x0) / h) * ((x2 - x1) / k) > 0:
            s, t = (x1 - x0) / h, (x2 - x1) / k
            least = min(abs(s), abs(t), abs((s * k + t * h) / (h + k)) / 2)
            slopes[i] = 2 * least if s > 0 else -2 * least
    path = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for i in range(1, len(points)):
        (px, py), (qx, qy) = points[i - 1], points[i]
        third = (qy - py) / 3
        steep = 1.5 if len(points) == 2 else 1.0
        path.append(f"C{px + slopes[i - 1] * third:.1f},{py + third * steep:.1f} "
                    f"{qx - slopes[i] * third:.1f},{qy - third * steep:.1f} {qx:.1f},{qy:.1f}")
    return "".join(path)


def _place(box: Box) -> str:
    return f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'


def _kernel_style(kernels: tuple[int, ...], box: bool) -> str:
    """The colour of a kernel, as the page has it: neighbours in number are far apart on the circle."""
    if not kernels:
        return ""
    hue = round((kernels[0] * 137.508 + 210) % 360)
    return f' style="fill:hsl({hue},60%,50%);fill-opacity:.12;stroke:hsl({hue},55%,50%)"' if box else \
        f' style="fill:hsl({hue},62%,50%)"'


def _width(text: str, size: float, mono: bool = False, bold: bool = False) -> float:
    """No less than the width of a text in usual fonts."""
    if mono:
        return 0.61 * size * len(text)
    ems = sum(0.34 if c in _NARROW else 0.95 if c in _WIDE else 0.72 if c.isupper() or ord(c) > 0x2000 else 0.6
              for c in text)
    return ems * size * (1.06 if bold else 1.0)


def _short(text: str, longest: int = LONGEST) -> str:
    if len(text) <= longest:
        return text
    keep = longest - 1
    return f"{text[:(keep + 1) // 2]}…{text[len(text) - keep // 2:]}"


_WIDTHS = Widths(lambda text: _width(text, 10, mono=True), lambda text: _width(_short(text), 12),
                 lambda text: _width(_short(text, 18), 11) + 20)


def _text(text: str) -> str:
    """A text as XML: without the characters that XML cannot hold."""
    return escape("".join(c for c in text if c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or 0xE000 <= ord(c) <= 0xFFFD
                          or ord(c) >= 0x10000))
