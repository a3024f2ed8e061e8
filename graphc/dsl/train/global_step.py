"""The step counter of a graph: an int64 variable `global_step` that optimizers increment.

Owns its creation and lookup, as in TensorFlow 1.
"""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.dsl import initializers, variables
from graphc.dsl.collections import GraphKeys
from graphc.graph.graph import Graph, get_default_graph


def get_global_step(graph: Graph | None = None) -> Any:
    """Return the step counter of `graph` (the default graph), or None.  Source: tf.train.get_global_step."""
    found = (graph or get_default_graph()).get_collection(GraphKeys.GLOBAL_STEP)
    if len(found) > 1:
        raise ValueError(f"the graph has {len(found)} step counters; there may be one")
    return found[0] if found else None


def create_global_step(graph: Graph | None = None) -> Any:
    """Make the step counter.  Raises ValueError where there is one.  Source: tf.train.create_global_step."""
    graph = graph or get_default_graph()
    if get_global_step(graph) is not None:
        raise ValueError("the graph has a step counter already")
    with graph.as_default(), graph.name_scope(None):
        return variables.get_variable(
            GraphKeys.GLOBAL_STEP,
            (),
            dtypes.int64,
            initializers.zeros_initializer(),
            trainable=False,
            collections=[GraphKeys.GLOBAL_VARIABLES, GraphKeys.GLOBAL_STEP],
        )


def get_or_create_global_step(graph: Graph | None = None) -> Any:
    """Return the step counter, made if there is none.  Source: tf.train.get_or_create_global_step."""
    found = get_global_step(graph)
    return create_global_step(graph) if found is None else found


def global_step(session: Any, global_step_tensor: Any) -> int:
    """Return the counter's value in `session`.  Source: tf.train.global_step."""
    return int(session.run(global_step_tensor))
