"""A scene in any of its forms.

Owns the list of forms.  Knows each renderer by its one function.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.errors import GraphError
from graphc.graph.graph import near_names
from graphc.view.dot import scene_dot
from graphc.view.encode import scene_json
from graphc.view.html import scene_html
from graphc.view.scene import Scene
from graphc.view.svg import scene_svg
from graphc.view.text import scene_text

_ONE_STAGE: Mapping[str, Callable[[Scene, str | None], str]] = {
    "text": scene_text, "dot": scene_dot, "svg": scene_svg, "html": scene_html,
}

FORMATS = ("text", "dot", "svg", "json", "html")
"""The forms of drawings.  html and json hold every stage, the others one."""


def render(scene: Scene, format: str, stage: str | None = None) -> str:
    """Return the scene as "text", "dot", "svg", "json" or "html".

    stage: the name of the stage that is drawn (None: the last), or that the page begins with (None: the first).
    Raises GraphError for another form and ValueError for a stage that there is not, with near names.
    """
    if stage is not None:
        scene.stage(stage)
    if format == "json":
        return scene_json(scene)
    if format not in _ONE_STAGE:
        near = near_names(format, FORMATS)
        told = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FORMATS)}"
        raise GraphError(f"there is no drawing in the form {format!r}; {told}")
    return _ONE_STAGE[format](scene, stage)
