"""Layers that own variables, as `tf.layers` names them: functions, and classes whose objects share their variables.

Owns the list of names alone.  Invariant: a layer's variables are made at its first call and shared at every further
one; names and shapes are TensorFlow 1's, so its checkpoints fit.
"""
from graphc.dsl.layers import convolutional, core, normalisation, pooling
from graphc.dsl.layers.base import Layer
from graphc.dsl.layers.convolutional import *  # noqa: F403
from graphc.dsl.layers.core import *  # noqa: F403
from graphc.dsl.layers.normalisation import *  # noqa: F403
from graphc.dsl.layers.pooling import *  # noqa: F403

__all__ = [*core.__all__, *convolutional.__all__, *normalisation.__all__, *pooling.__all__, "Layer"]
