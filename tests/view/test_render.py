"""The forms of drawings: each is well formed, complete, and safe whatever the names."""
from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pydot
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

import graphc as tf
from graphc.errors import GraphError
from graphc.view.build import scene
from graphc.view.encode import VERSION, scene_data
from graphc.view.html import scene_html
from graphc.view.nested import FAN, Box, Widths, nested, opened
from graphc.view.render import FORMATS, render
from graphc.view.scene import Scene, Stage, children
from tests.view.examples import HOSTILE, compilation, flat, function, layered, small, training

SVG = "{http://www.w3.org/2000/svg}"


def hostile() -> Scene:
    """A scene whose every text tries to be read as something else."""
    drawn = scene(compilation(), HOSTILE)
    stages = tuple(
        Stage(s.name, tuple(replace(n, line=HOSTILE, attrs=(("value", HOSTILE),)) for n in s.nodes),
              tuple(replace(g, label=HOSTILE) for g in s.groups), s.parents) for s in drawn.stages)
    return Scene(HOSTILE, stages, tuple(replace(k, sources=(("Python", HOSTILE),)) for k in drawn.kernels))


SCENES = {
    "graph": lambda: scene(training()[0]), "compilation": lambda: scene(compilation()),
    "flat": lambda: scene(flat(700)),
    "loops": lambda: scene(function("loop_gradients")), "empty": lambda: scene(tf.Graph()), "hostile": hostile,
}


@pytest.fixture(params=SCENES, scope="module")
def drawn(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]()


@pytest.mark.parametrize("format", FORMATS)
def test_every_form_is_the_same_for_the_same_scene(format: str) -> None:
    drawn = scene(layered(60))
    assert render(drawn, format) == render(scene(layered(60)), format) != ""


def test_an_unknown_form_or_stage_is_refused_with_near_names() -> None:
    drawn = scene(compilation())
    with pytest.raises(GraphError, match="did you mean 'svg'"):
        render(drawn, "svgz")
    for format in FORMATS:
        with pytest.raises(ValueError, match="did you mean 'extract'"):
            render(drawn, format, "extrackt")


# -- text --------------------------------------------------------------------------------------------------------------


def test_text() -> None:
    text = render(scene(compilation(), "step"), "text", "graph").splitlines()
    assert text[0] == "step" and text[1].startswith("graph: ")
    line = next(line for line in text if line.startswith("  MatMul = "))
    assert re.fullmatch(r"  MatMul = MatMul\(x, hidden/kernel/read\) : float32\[\?, 16\]  kernel \d+  "
                        r"examples\.py:\d+ in training", line)
    assert any(re.fullmatch(r"hidden/  \d+ operations", line) for line in text)
    assert text[text.index("kernels:") + 1].startswith("  0  ")


def test_text_tells_every_operation_once() -> None:
    drawn = scene(layered(300))
    lines = render(drawn, "text").splitlines()
    assert sum(" = " in line for line in lines) == len(drawn.stage().nodes)


# -- DOT ---------------------------------------------------------------------------------------------------------------


def clusters(graph: pydot.Dot) -> list[pydot.Subgraph]:
    found = list(graph.get_subgraphs())
    for inner in found:
        found.extend(inner.get_subgraphs())
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dot_has_every_node_edge_and_box() -> None:
    drawn = scene(small())
    stage = drawn.stage()
    (graph,) = pydot.graph_from_dot_data(render(drawn, "dot"))
    boxes = clusters(graph)
    assert {b.get_name() for b in boxes} == {f'"cluster_{g.id}"' for g in stage.groups}
    nodes = {n.get_name() for b in (graph, *boxes) for n in b.get_nodes()} - {"node", "edge", "graph"}
    assert {n.strip('"') for n in nodes} == {n.id for n in stage.nodes}
    edges = sorted((e.get_source().strip('"'), e.get_destination().strip('"')) for e in graph.get_edges())
    assert edges == sorted((source, n.id) for n in stage.nodes for source in (*(s for s, _ in n.inputs), *n.after))


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", ["graph", "compilation", "blocks", "loops", "empty", "hostile"])
def test_dot_opens_in_graphviz(name: str) -> None:
    drawn = scene(flat(60)) if name == "blocks" else SCENES[name]()
    done = subprocess.run(["dot", "-Tsvg"], input=render(drawn, "dot"), capture_output=True, text=True, check=False,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    found = [e for e in ElementTree.fromstring(done.stdout).iter(f"{SVG}g") if e.get("class") == "node"]
    assert len(found) == len(drawn.stage().nodes)


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_json_says_what_the_scene_says(drawn: Scene) -> None:
    data = json.loads(render(drawn, "json"))
    assert data == scene_data(drawn)
    assert (data["format"], data["version"], data["title"]) == ("graphc.scene", VERSION, drawn.title)
    assert [k["name"] for k in data["kernels"]] == [k.name for k in drawn.kernels]
    assert [s["name"] for s in data["stages"]] == [s.name for s in drawn.stages]
    for stage, told in zip(drawn.stages, data["stages"], strict=True):
        groups = told["groups"]
        assert [g["id"] for g in groups] == [g.id for g in stage.groups]
        for i, node in enumerate(stage.nodes):
            record: dict[str, Any] = data["nodes"][told["nodes"][i]]
            assert (record["id"], record["op"], record["kind"]) == (node.id, node.op, node.kind)
            assert [tuple(s) for s in record.get("in", [])] == list(node.inputs)
            types = [data["types"][t] for t in record.get("out", [])]
            assert [(t["dtype"], tuple(t["shape"])) for t in types] == [(t.dtype, t.shape) for t in node.outputs]
            assert (data["lines"][record["line"]] if record["line"] >= 0 else "") == node.line
            assert told["labels"][i] == node.label and dict(node.attrs) == record.get("attrs", {})
            parent = told["in"][i]
            assert (groups[parent]["id"] if parent >= 0 else "") == stage.parents[node.id]


def test_json_tells_what_a_pass_changed_by_numbers() -> None:
    data = scene_data(scene(compilation()))
    numbers = {s["name"]: set(s["nodes"]) for s in data["stages"]}
    assert numbers["extract"] & numbers["remove_dead_code"] and numbers["extract"] != numbers["remove_dead_code"]
    assert len(data["nodes"]) < sum(map(len, numbers.values())) / 2


# -- SVG ---------------------------------------------------------------------------------------------------------------


def test_svg_is_well_formed_and_draws_every_closed_thing(drawn: Scene) -> None:
    for name in {drawn.stages[0].name, drawn.stages[-1].name}:
        root = ElementTree.fromstring(render(drawn, "svg", name))
        assert root.tag == f"{SVG}svg" and all(e.tag.startswith(SVG) for e in root.iter())
        stage = drawn.stage(name)
        visible = opened(stage, 80)
        shown = [i for box, items in children(stage).items() if not box or box in visible for i in items]
        cards = [set(e.get("class", "").split()) for e in root.iter(f"{SVG}rect")]
        assert sum("card" in kinds and "behind" not in kinds for kinds in cards) == len(shown)


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.get(name, "nan")) for name in names]


def test_svg_texts_fit_their_cards() -> None:
    """By the widths of DejaVu Sans, among the widest of usual fonts."""
    root = ElementTree.fromstring(render(scene(compilation()), "svg", "graph"))
    checked = 0
    for group in root.iter(f"{SVG}g"):
        cards = [e for e in group.findall(f"{SVG}rect") if "card" in e.get("class", "")]
        if not cards or "open" in cards[-1].get("class", ""):
            continue
        x, width = numbers(cards[-1], "x", "width")
        for text in group.findall(f"{SVG}text"):
            kind = text.get("class", "")
            font = FontProperties(family="DejaVu Sans Mono" if kind == "value" else "DejaVu Sans",
                                  weight="bold" if kind == "title" else "normal")
            size = {"title": 12.5, "below": 11, "value": 11}[kind]
            extent = TextPath((0, 0), text.text or " ", size, prop=font).get_extents().width
            (middle,) = numbers(text, "x")
            assert x <= middle - extent / 2 and middle + extent / 2 <= x + width, text.text
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("name", ["graph", "loops", "flat"])
def test_nothing_overlaps(name: str) -> None:
    stage = SCENES[name]().stage()
    layout = nested(stage, opened(stage, 150), lambda item: (8.0 * len(item.label) + 20, 30.0),
                    Widths(lambda t: 6.0 * len(t), lambda t: 7.0 * len(t), lambda t: 6.0 * len(t) + 20))
    whole = Box(0, 0, layout.width, layout.height)
    for id, items in children(stage).items():
        boxes = [layout.boxes[i.id] for i in items if i.id in layout.boxes]
        outer = layout.boxes.get(id, whole)
        for i, a in enumerate(boxes):
            assert a.x >= outer.x - 0.01 and a.x + a.width <= outer.x + outer.width + 0.01
            assert a.y >= outer.y - 0.01 and a.y + a.height <= outer.y + outer.height + 0.01
            for b in boxes[:i]:
                apart = a.x + a.width <= b.x + 0.01 or b.x + b.width <= a.x + 0.01 or \
                    a.y + a.height <= b.y + 0.01 or b.y + b.height <= a.y + 0.01
                assert apart, (a, b)


def test_a_source_with_many_users_is_told_again_beside_them() -> None:
    stage = scene(flat(40)).stage()
    layout = nested(stage, set(), lambda item: (60.0, 30.0), Widths(len, len, len))
    users = sum(source == "x" for n in stage.nodes for source, _ in n.inputs)
    assert [label for _, label in layout.taps] == ["x"] * (len({n.id for n in stage.nodes if ("x", 0) in n.inputs}) - 1)
    assert users > FAN


# -- HTML --------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The scripts, styles, tags and policy of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        if self._inside == "style":
            self.styles[-1] += data


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_is_one_file_that_loads_nothing(drawn: Scene) -> None:
    text = scene_html(drawn)
    page = Page(text)
    for tag, attrs in page.tags:
        assert not {"src", "href", "srcset", "action", "style"} & set(attrs), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")]
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(|\beval\(|innerHTML|@import|url\(", text)


def test_the_policy_names_what_may_run_and_nothing_else(drawn: Scene) -> None:
    page = Page(scene_html(drawn))
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in (policy or "").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    code = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    assert rules["script-src"].split() == [digest(text) for text in code] and len(code) == 6
    assert rules["style-src"].split() == [digest(text) for text in page.styles] and len(page.styles) == 1
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_the_scene_in_the_page_is_data_whatever_its_texts(drawn: Scene) -> None:
    page = Page(scene_html(drawn))
    ((attrs, text),) = [(a, t) for a, t in page.scripts if a.get("type") == "application/json"]
    assert json.loads(text) == scene_data(drawn) and "<" not in text
    assert attrs["data-stage"] == drawn.stages[0].name
    assert not any(tag == "b" for tag, _ in page.tags)


def test_the_library_in_the_page_comes_with_its_licence() -> None:
    library = Page(scene_html(scene(small()))).scripts[1][1]
    assert "var dagre" in library and "sourceMappingURL" not in library
    assert "Copyright (c) 2012-2014 Chris Pettitt" in library and "Permission is hereby granted" in library
