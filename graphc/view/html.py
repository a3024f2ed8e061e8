"""A scene as one HTML page: no network, nothing loaded, nothing written.

Owns how the page's files (view/page/) become one file, and its content policy.  Knows the scene as JSON; the page's
own code (page/*.js) does the rest.  Invariants: every script and style of the page stands in the policy by its SHA-256
and nothing else may run or load; the scene is data in a script of another type, in which no `<` stands, so that no text
of the user's can end it; the same scene gives the same bytes.

page/dagre/ is @dagrejs/dagre 3.1.3 with @dagrejs/graphlib 4.0.6 in it (https://github.com/dagrejs/dagre, MIT):
dist/dagre.min.js of the npm package without its last lines, which name a source map and another file for the licence;
the licence goes into every page instead.
"""
from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib import resources

from graphc.view.encode import scene_json
from graphc.view.scene import Scene

LIBRARY = "dagre/dagre.min.js"
SCRIPTS = ("model.js", "layout.js", "canvas.js", "panel.js", "app.js")


def scene_html(scene: Scene, stage: str | None = None) -> str:
    """Return the page.  stage: the name of the stage it begins with; None: the first."""
    data = scene_json(scene).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    first = scene.stage(stage).name if stage is not None else scene.stages[0].name
    head, middle, tail = _frame()
    title = escape(scene.title)
    return (head.replace("{title}", title) + escape(first) + middle + data + tail)


@cache
def _frame() -> tuple[str, str, str]:
    """The page around the name of its first stage and its data; "{title}" still stands in it."""
    style = _file("page.css")
    licence = _file("dagre/LICENSE").strip()
    scripts = [f"/* @dagrejs/dagre 3.1.3\n\n{licence}\n*/\n{_file(LIBRARY)}", *map(_file, SCRIPTS)]
    policy = "; ".join(("default-src 'none'", f"script-src {' '.join(map(_digest, scripts))}",
                        f"style-src {_digest(style)}", "base-uri 'none'", "form-action 'none'"))
    page = _file("page.html").replace("{policy}", policy).replace("{style}", style)
    start, end = page.split('<script type="application/json" id="scene">{scene}</script>')
    end = end.replace("{scripts}", "\n".join(f"<script>{text}</script>" for text in scripts))
    return f'{start}<script type="application/json" id="scene" data-stage="', '">', f"</script>{end}"


def _file(name: str) -> str:
    return resources.files("graphc.view").joinpath("page", *name.split("/")).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
