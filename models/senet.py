"""SE-ResNet-50: a residual network that weighs its channels by what the whole image holds; 28 million parameters.

Source: Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018, table 1.
"""

from __future__ import annotations

from typing import Any

import blocks
import resnet

se_resnet50 = resnet.network(resnet.DESIGNS["se_resnet50"])


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(se_resnet50, size, 3, classes)
