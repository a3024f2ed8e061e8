"""The page in a real browser: what a person does with it, and what it must never do."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.view.build import scene
from graphc.view.html import scene_html
from graphc.view.scene import Group, Scene, children
from tests.view.browser import Browser, program
from tests.view.examples import HOSTILE, compilation, flat, layered, training
from tests.view.test_render import hostile

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium is installed")

ITEMS = "[...document.querySelectorAll('.item')].map(e => e.dataset.id)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Nothing is thrown or logged, and nothing is asked of the network."""
    browser.events.clear()
    yield
    browser.value("0")  # what was told before this is read
    assert not browser.told("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    asked = {p["request"]["url"] for p in browser.told("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("file:///") or not url.endswith(".html")} == set()


def shown(browser: Browser, drawn: Scene, folder: Path, stage: str | None = None) -> None:
    page = folder / "page.html"
    page.write_text(scene_html(drawn, stage), encoding="utf-8")
    browser.open(page)


def card(id: str) -> str:
    return f"[data-id={json.dumps(id)}]"


def panel(browser: Browser) -> str:
    return str(browser.value("document.getElementById('panel').innerText"))


def top_level(drawn: Scene, stage: int) -> set[str]:
    return {item.id for item in children(drawn.stages[stage])[""]}


def test_it_starts_collapsed_and_opens_by_double_click_and_button(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(compilation())
    shown(browser, drawn, tmp_path)
    assert set(browser.value(ITEMS)) == top_level(drawn, 0)
    browser.click(f"{card('hidden/')} .title, {card('hidden/')}", count=2)
    inside = {i.id for i in children(drawn.stages[0])["hidden/"]}
    assert inside <= set(browser.value(ITEMS))
    assert browser.value("page.canvas.cards.get('hidden/').getAttribute('aria-expanded')") == "true"
    browser.click(f"{card('hidden/')} .toggle")
    assert set(browser.value(ITEMS)) == top_level(drawn, 0)
    browser.picture(tmp_path / "collapsed.png")
    assert (tmp_path / "collapsed.png").read_bytes().startswith(b"\x89PNG")


def test_a_click_tells_types_line_and_the_kernels_source(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(compilation())
    shown(browser, drawn, tmp_path)
    browser.value("page.toggle('hidden/')")
    browser.click(card("hidden/MatMul"))
    told = panel(browser)
    node = next(n for n in drawn.stages[0].nodes if n.id == "hidden/MatMul")
    kernel = drawn.kernels[node.kernels[0]]
    assert "float32 [?, 16]" in told and "examples.py:" in told and kernel.name in told
    source = "document.querySelector('.kernel-source').textContent"
    assert browser.value(source) == dict(kernel.sources)["Python"]
    browser.click(".tab:nth-child(2)")
    assert browser.value(source) == dict(kernel.sources)["kernel IR"]
    browser.click(".chip")
    assert browser.value("document.querySelector('#panel h2').textContent") == kernel.name
    for name in kernel.ops[:3]:
        assert name in panel(browser)
    assert "hidden/MatMul" in browser.value("[...document.querySelectorAll('.of-kernel')].map(e => e.dataset.id)")


def test_links_of_the_panel_lead_through_the_graph(browser: Browser, tmp_path: Path) -> None:
    shown(browser, scene(compilation()), tmp_path)
    browser.value("page.select('loss')")
    browser.value("[...document.querySelectorAll('.link .path')].find(e => e.textContent.includes('Softmax'))"
                  ".closest('button').click()")
    assert browser.value("page.selected") == "SparseSoftmaxCrossEntropyWithLogits"


def test_search_counts_opens_and_goes_to_what_it_found(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(compilation())
    shown(browser, drawn, tmp_path)
    browser.press("/")
    browser.type("matmul")
    count = sum("matmul" in f"{n.id} {n.op} {n.line}".lower() for n in drawn.stages[0].nodes) + sum(
        "matmul" in g.id.lower() for g in drawn.stages[0].groups)
    found = "document.getElementById('found').textContent"
    assert browser.value(found) == f"{count} found"
    for step in range(1, 4):
        browser.press("Enter")
        assert browser.value(found) == f"{step} of {count}"
        assert "matmul" in browser.value("page.selected").lower()
        assert browser.value("document.querySelector('.current').dataset.id") == browser.value("page.selected")
    browser.press("Escape")
    assert browser.value(found) == "" and browser.value("document.querySelectorAll('.hit').length") == 0
    browser.press("/")
    browser.type("nothing has this name")
    assert browser.value(found) == "0 found"


def test_the_slider_steps_through_the_passes(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(compilation())
    shown(browser, drawn, tmp_path)
    name = "document.getElementById('pass-name').textContent"
    told = "document.getElementById('pass-told').textContent"
    browser.press("]")
    assert browser.value(name) == drawn.stages[1].name
    for number, stage in enumerate(drawn.stages):
        browser.value("(() => { const s = document.getElementById('pass');"
                      f" s.value = '{number}'; s.dispatchEvent(new Event('input')) }})()")
        assert browser.value(name) == stage.name
        assert browser.value(told).startswith(f"{len(stage.nodes)} operations")
        assert set(browser.value(ITEMS)) >= top_level(drawn, number)
        if number:
            before = {n.id: n for n in drawn.stages[number - 1].nodes}
            after = {n.id: n for n in stage.nodes}
            gone = len(set(before) - set(after))
            assert (f"{gone} gone" in browser.value(told)) == (gone > 0)
            new = sum(n not in before for n in after)
            assert (f"{new} new" in browser.value(told)) == (new > 0)
    assert browser.value("document.getElementById('later').disabled")
    kernels = {g.id for g in drawn.stages[-1].groups if g.kind == "kernel"}
    assert kernels & set(browser.value(ITEMS))


def test_the_page_begins_with_the_stage_asked_for(browser: Browser, tmp_path: Path) -> None:
    shown(browser, scene(compilation()), tmp_path, "fuse")
    assert browser.value("document.getElementById('pass-name').textContent") == "fuse"


def test_keys_move_open_and_tell(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(compilation())
    shown(browser, drawn, tmp_path)
    browser.press("ArrowDown")
    first = browser.value("page.selected")
    assert first is not None and browser.value("document.activeElement.dataset.id") == first
    browser.press("ArrowDown")
    assert browser.value("page.selected") != first
    browser.value("page.select('hidden/')")
    browser.press(" ")
    assert browser.value("page.open.has('hidden/')")
    browser.press(" ")
    assert not browser.value("page.open.has('hidden/')")
    scale = browser.value("page.canvas.view.scale")
    browser.press("+")
    assert browser.value("page.canvas.view.scale") > scale
    browser.press("Escape")
    assert browser.value("page.selected") is None
    browser.press("?")
    assert browser.value("document.getElementById('keys').open")
    browser.value("document.getElementById('keys').close()")


def test_dragging_pans_and_the_wheel_zooms_where_it_points(browser: Browser, tmp_path: Path) -> None:
    shown(browser, scene(training()[0]), tmp_path)
    before = browser.value("page.canvas.view")
    for kind, x, y in (("mousePressed", 300, 600), ("mouseMoved", 340, 620), ("mouseMoved", 400, 650),
                       ("mouseReleased", 400, 650)):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    after = browser.value("page.canvas.view")
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((100, 50))
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=500, deltaX=0, deltaY=-240)
    browser.until(f"page.canvas.view.scale > {after['scale']}")
    zoomed = browser.value("page.canvas.view")
    top = browser.value("document.getElementById('canvas').getBoundingClientRect().top")
    at = [((400 - v["x"]) / v["scale"], (500 - top - v["y"]) / v["scale"]) for v in (after, zoomed)]
    assert at[0] == pytest.approx(at[1], abs=0.5)


def test_control_edges_are_shown_when_asked_for(browser: Browser, tmp_path: Path) -> None:
    shown(browser, scene(training()[0]), tmp_path)
    assert browser.value("document.querySelectorAll('.edge.control').length") == 0
    browser.click("#control")
    assert browser.value("document.querySelectorAll('.edge.control').length") > 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_stand_out_in_both_themes(browser: Browser, tmp_path: Path, theme: str) -> None:
    """WCAG AA: contrast 4.5 of a card's title against its fill."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    shown(browser, scene(compilation()), tmp_path)
    pairs = browser.value("[...document.querySelectorAll('.item')].map(e => ['.shape', 'text'].map("
                          "part => getComputedStyle(e.querySelector(part)).fill))")
    for background, ink in pairs:
        light, dark = sorted(map(luminance, (background, ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (background, ink)
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.5) == (theme == "light")
    browser.call("Emulation.setEmulatedMedia", features=[])


def luminance(colour: str) -> float:
    channels = [int(c) / 255 for c in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_cards_hold_their_texts_and_do_not_overlap(browser: Browser, tmp_path: Path) -> None:
    shown(browser, scene(training()[0]), tmp_path)
    browser.value("page.expandAll()")
    spilled = browser.value("[...document.querySelectorAll('.item.closed, .item.op')].filter(e => {"
                            " const r = e.querySelector('.shape').getBoundingClientRect();"
                            " return [...e.querySelectorAll(':scope > text')].some(t => {"
                            "  const b = t.getBoundingClientRect(); return b.left < r.left || b.right > r.right }) })"
                            ".map(e => e.dataset.id)")
    assert spilled == []
    boxes = browser.value("[...document.querySelectorAll('.item:not(.open)')].map(e => {"
                          " const r = e.querySelector('.shape').getBoundingClientRect();"
                          " return [r.left, r.top, r.right, r.bottom] })")
    assert len(boxes) > 50
    for i, (left, top, right, bottom) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert right <= a + 0.5 or c <= left + 0.5 or bottom <= b + 0.5 or d <= top + 0.5


def test_no_text_is_read_as_anything_but_text(browser: Browser, tmp_path: Path) -> None:
    drawn = hostile()
    shown(browser, drawn, tmp_path)
    assert HOSTILE[:20] in browser.value("document.title")
    browser.value("page.expandAll()")
    for id in [n.id for n in drawn.stages[0].nodes[:5]]:
        browser.value(f"page.reveal({json.dumps(id)})")
    browser.value("page.chooseKernel(0)")
    browser.value(f"page.find({json.dumps(HOSTILE[:10])})")
    assert browser.value("document.title") != "taken"
    assert browser.value("document.querySelectorAll('body b, #panel script, svg script').length") == 0
    assert HOSTILE in browser.value("document.querySelector('.kernel-source').textContent")


def test_the_policy_stops_what_is_not_ours(browser: Browser, tmp_path: Path) -> None:
    text = scene_html(scene(training()[0]))
    page = tmp_path / "injected.html"
    page.write_text(text.replace("<main>", "<script>window.taken = true</script><main>"), encoding="utf-8")
    browser.open(page)
    assert browser.value("window.taken") is None
    refused = [p["entry"]["text"] for p in browser.told("Log.entryAdded")]
    assert any("Content Security Policy" in text for text in refused)
    browser.events.clear()


@pytest.mark.parametrize("name", ["1,000 in scopes", "1,000 in one scope", "20,000 in scopes", "20,000 in one scope"])
def test_large_graphs_open_collapsed(browser: Browser, tmp_path: Path, name: str,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    count = int(name.split()[0].replace(",", ""))
    drawn = scene((flat if "one" in name else layered)(count))
    shown(browser, drawn, tmp_path)
    assert len(browser.value(ITEMS)) <= 60
    loaded = browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd")
    with capsys.disabled():
        print(f"\n  {name}: open in {loaded:.0f} ms", end="")
    last = drawn.stages[0].nodes[-1].id
    browser.value(f"page.reveal({json.dumps(last)})")
    assert last in browser.value(ITEMS)
    browser.value("page.expandAll()")
    assert len(browser.value("page.visible.map(i => i.id)")) <= 500
    browser.value(f"page.find({json.dumps(last)})")
    assert browser.value("page.search.items.length") >= 1


def test_opening_box_after_box_stays_within_bounds(browser: Browser, tmp_path: Path) -> None:
    drawn = scene(flat(3000))
    shown(browser, drawn, tmp_path)
    groups = [g for g in drawn.stages[0].groups if isinstance(g, Group)]
    for group in groups[:40]:
        browser.value(f"page.reveal({json.dumps(group.id)}); page.open.has({json.dumps(group.id)}) ||"
                      f" page.toggle({json.dumps(group.id)})")
        assert browser.value("page.visible.length") <= 500
        assert browser.value(f"page.open.has({json.dumps(group.id)})")
