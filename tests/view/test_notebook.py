"""What notebooks show."""
from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

import graphc as tf
from graphc.errors import GraphError
from graphc.view.build import scene
from graphc.view.html import scene_html
from graphc.view.notebook import notebook_html
from tests.view.examples import training


class Text(HTMLParser):
    """The text of a piece of HTML, which must be well nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts(thing: object) -> list[str]:
    return Text(thing._repr_html_()).texts  # type: ignore[attr-defined]


def test_a_graph_is_its_drawing_in_a_frame_of_its_own() -> None:
    graph, _, _ = training()
    html = graph._repr_html_()
    assert Text(html).texts == []
    assert 'sandbox="allow-scripts"' in html and "height:" in html
    (page,) = re.findall(r'srcdoc="([^"]*)"', html)
    assert unescape(page) == scene_html(scene(graph))


def test_an_empty_graph_is_a_line() -> None:
    assert texts(tf.Graph()) == ["Graph", " ", "no operations"]


def test_tensors_operations_and_variables_are_tables() -> None:
    graph, (loss,), (train,) = training()
    told = texts(loss)
    assert told[:3] == ["Tensor", " ", "loss:0"] and "float32[]" in told and 'Mean "loss"' in told
    assert any(t.startswith("examples.py:") for t in told)
    told = texts(graph.get_operation_by_name("hidden/MatMul"))
    assert {"Operation", "MatMul", "x:0  float32[?, 20]", "float32[?, 16]"} <= set(told)
    assert "waits for" in texts(train)
    with graph.as_default():
        (kernel, *_) = tf.trainable_variables()
    assert {"Variable", "hidden/kernel:0", "float32[20, 16]", "yes"} <= set(texts(kernel))


def test_a_session_tells_its_programs_variables_and_bytes() -> None:
    with tf.Graph().as_default():
        w = tf.get_variable("w", initializer=np.zeros((30, 10), np.float32))
        with tf.Session() as session:
            told = texts(session)
            assert "0" in told[told.index("programs") + 1] and told[told.index("variables") + 1] == "0, 0 bytes"
            session.run(tf.global_variables_initializer())
            session.run(w)
            told = texts(session)
            assert told[told.index("programs") + 1] == "2" and told[told.index("variables") + 1] == "1, 1.2 kB"
            assert told[-3:] == ["w", "float32[30, 10]", "1.2 kB"]
    assert "closed" in texts(session)


def test_texts_are_escaped() -> None:
    with tf.Graph().as_default():
        # the user's line, this one, is told: <script>alert("&")</script>
        t = tf.constant(0.0, name="a"); "<script>"  # noqa: E702
    html = t._repr_html_()
    assert "<script" not in html and any("<script>" in text for text in Text(html).texts)


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(GraphError, match="a dict has no form"):
        notebook_html({})
