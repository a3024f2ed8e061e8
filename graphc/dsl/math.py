"""Everything mathematical by TensorFlow 1's names: what `tf.math` holds.

Owns nothing but the list.
"""
from __future__ import annotations

from graphc.dsl import elementwise, linear, reduction
from graphc.dsl.elementwise import *  # noqa: F403
from graphc.dsl.linear import *  # noqa: F403
from graphc.dsl.reduction import *  # noqa: F403

__all__ = [*elementwise.__all__, *linear.__all__, *reduction.__all__]
