"""`import graphc.compat.v1 as tf` is `import graphc as tf`.

Owns nothing: every name is looked up in graphc's table.  What turns TensorFlow 2's behaviour off does nothing, since
there is none.
"""
from __future__ import annotations

from typing import Any

from graphc.api import PUBLIC


def disable_v2_behavior() -> None:
    """Do nothing: graphs are all there is.  Source: tf.compat.v1.disable_v2_behavior."""


def disable_eager_execution() -> None:
    """Do nothing: graphs are all there is.  Source: tf.compat.v1.disable_eager_execution."""


def __getattr__(name: str) -> Any:
    try:
        return PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'graphc.compat.v1' has no attribute {name!r}") from None
