"""TensorBoard shows the graph: the event file is read back, and the real server is asked for it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import graphc as tf
from graphc.interop.tensorboard import graph_def, write_graph

pytest.importorskip("tensorboard", reason="needs the [tensorboard] extra")


def small_graph() -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, 3), name="x")
        with tf.name_scope("layer"), tf.device("/cpu:0"):
            w = tf.Variable(np.ones((3, 2), np.float32), name="w")
            y = tf.nn.relu(tf.matmul(x, w), name="y")
        with tf.control_dependencies([y]):
            tf.identity(tf.split(x, 3, axis=1)[2], name="part")
    return graph


def test_every_operation_stands_in_the_message() -> None:
    graph = small_graph()
    message = graph_def(graph)
    nodes = {n.name: n for n in message.node}
    assert list(nodes) == [op.name for op in graph.get_operations()]
    assert nodes["layer/y"].op == "Relu"
    assert [d.size for d in nodes["layer/y"].attr["_output_shapes"].list.shape[0].dim] == [-1, 2]
    assert "CPU:0" in nodes["layer/y"].device
    assert list(nodes["part"].input) == ["split:2"]
    assert list(nodes["split"].input)[-1] == "^layer/y"
    assert nodes["x"].attr["dtype"].type == 1
    assert message.SerializeToString(deterministic=True) == graph_def(graph).SerializeToString(deterministic=True)


def test_the_file_holds_the_graph(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto import graph_pb2

    graph = small_graph()
    path = write_graph(graph, tmp_path / "log")
    events = [e for e in EventFileLoader(str(path)).Load() if e.WhichOneof("what") == "graph_def"]
    assert len(events) == 1
    assert graph_pb2.GraphDef.FromString(events[0].graph_def) == graph_def(graph)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard.main") is None, reason="tensorboard has no server here")
def test_the_server_shows_the_graph(tmp_path: Path) -> None:
    write_graph(small_graph(), tmp_path / "log")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy")}
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "log"), "--port",
                               str(port), "--host", "127.0.0.1", "--load_fast=false"], env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runs = json.loads(_asked(port, "info"))
        assert runs["."]["run_graph"] is True
        text = _asked(port, "graph?run=.&conceptual=false")
        assert re.search(r'name: "layer/y"\s+op: "Relu"', text)
        assert "CPU:0" in text and "_output_shapes" in text
    finally:
        server.terminate()
        server.wait(timeout=30)


def _asked(port: int, what: str) -> str:
    """What the graph plugin answers, once the server is up and has read the file."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    limit = time.monotonic() + 90
    while True:
        try:
            answer = opener.open(f"http://127.0.0.1:{port}/data/plugin/graphs/{what}", timeout=30).read().decode()
            if answer.strip() not in ("", "{}"):
                return str(answer)
        except (urllib.error.URLError, ConnectionError):
            pass
        assert time.monotonic() < limit, f"the server did not answer {what}"
        time.sleep(0.2)
