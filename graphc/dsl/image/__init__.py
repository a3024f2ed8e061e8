"""Images, as `tf.image` names what is done with them: resizing, geometry, colours, measures.

Owns the list of names alone.  Invariant: a name here means what it meant in TensorFlow 1.15, or it is not here.
"""
from graphc.dsl import spatial
from graphc.dsl.image import colour, geometry, measure, resizing
from graphc.dsl.image.colour import *  # noqa: F403
from graphc.dsl.image.geometry import *  # noqa: F403
from graphc.dsl.image.measure import *  # noqa: F403
from graphc.dsl.image.resizing import *  # noqa: F403

extract_image_patches = spatial.extract_image_patches

__all__ = [*colour.__all__, *geometry.__all__, *measure.__all__, *resizing.__all__, "extract_image_patches"]
