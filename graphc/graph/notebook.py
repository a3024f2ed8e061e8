"""How graphs, tensors, operations, variables and sessions show themselves in a notebook.

Owns the way to the drawings, which stand far below in the order of imports and are loaded by name when a notebook asks
for the first one.  Knows nothing of how anything looks.
"""
from __future__ import annotations

import importlib
from typing import Any

DRAWINGS = "graphc.view.notebook"


def in_notebook(thing: Any) -> str:
    """Return `thing` as the HTML that a notebook shows below a cell."""
    html: str = importlib.import_module(DRAWINGS).notebook_html(thing)
    return html
